# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part of the system alone, the emergency stop, and verify."""

from __future__ import annotations

import time

import pytest

from tests.e2e.harness import GOOD, NEXT, World, differences
from tests.lab.system import DATABASE


def oid(world: World) -> int:
    return int(world.sql("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")[0][0])


@pytest.mark.full
def test_database_alone_needs_the_code_that_belongs_to_it(deployed: World) -> None:
    (point,) = deployed.points()
    before = deployed.picture(runs=False)
    refused = deployed.play("rollback_database", version=point)
    refused.refused(f"{point} does not fit what would stay", "runs the release", "accept_schema_change=true", "rollback_full.yml")
    assert not differences(before, deployed.picture(runs=False))
    deployed.all_at(NEXT)

    with deployed.watching():
        deployed.play("rollback_database", version=point, accept_schema_change=True).ok()
        assert deployed.versions() == {"db1": GOOD, "app1": NEXT}
        deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_database_alone_again_after_it_was_written_to(deployed: World) -> None:
    (point,) = deployed.points()
    deployed.play("rollback_full", version=point).ok()
    customers = "SELECT count(*) FROM customers WHERE phone = '+254799999999'"
    deployed.sql("UPDATE customers SET phone = '+254799999999' WHERE phone = (SELECT min(phone) FROM customers)")
    first = oid(deployed)
    same = deployed.play("rollback_database", version=point).ok()
    assert same.changed == 0 and oid(deployed) == first
    assert deployed.sql(customers) == [(1,)]
    deployed.play("rollback_database", version=point, again=True, corruption=True, reason="a script wrote nonsense").ok()
    assert oid(deployed) != first and deployed.sql(customers) == [(0,)]
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    assert oid(deployed) == first and deployed.sql(customers) == [(1,)]
    deployed.all_at(GOOD)


@pytest.mark.full
def test_application_alone_needs_the_schema_that_belongs_to_it(deployed: World) -> None:
    (point,) = deployed.points()
    before = deployed.picture(runs=False)
    refused = deployed.play("rollback_application", version=point)
    refused.refused(
        f"{point} does not fit what would stay", "the schema of kejayangu on db1 has changed", "note", "accept_schema_change=true"
    )
    assert not differences(before, deployed.picture(runs=False))
    deployed.all_at(NEXT)


def test_application_alone_without_a_refused_request(world: World) -> None:
    world.play("backup").ok()
    world.deploy(1, "1.0.5")
    first = oid(world)
    with world.paying(rate=20), world.watching():
        before = world.clients_report()["failed"]
        world.play("rollback_application").ok()
        assert world.versions() == {"db1": GOOD, "app1": GOOD}
        world.await_payments(5)
        world.play("undo").ok()
        world.await_payments(5)
        assert world.clients_report()["failed"] == before, "a request failed although PM2 runs a cluster"
    assert world.versions() == {"db1": GOOD, "app1": "1.0.5"}
    assert oid(world) == first and world.kept() == []


def closed(world: World) -> bool:
    rows = world.sql("SELECT datallowconn FROM pg_database WHERE datname = %s", (DATABASE,), "postgres")
    return rows == [(False,)]


@pytest.mark.full
def test_emergency_stop_and_recover(deployed: World) -> None:
    stopped = deployed.play("rollback_emergency").ok()
    since = time.monotonic()
    assert stopped.outcome == "STOPPED"
    assert "rollback_full.yml" in stopped.flat and "recover.yml" in stopped.flat
    assert closed(deployed)
    (host,) = deployed.hosts
    assert host.health()[0] in (0, 503)
    assert not [each for each in host.pm2.jlist() if each["name"] == "kejayangu-api" and each["pm2_env"]["status"] == "online"]
    assert not deployed.locks()
    again = deployed.play("rollback_emergency").ok()
    assert again.outcome == "STOPPED" and closed(deployed)
    assert deployed.play("rollback_points").rc == 0
    apart = time.monotonic() - since
    with deployed.watching(closed_is_fine=True):
        back = deployed.play("recover").ok()
    assert back.outcome == "DONE"
    assert float(back.facts["outage"].split()[0].replace(",", "")) >= int(apart), "customers were not served since the stop"
    deployed.all_at(NEXT)


def test_emergency_with_a_version_goes_on_to_a_full_rollback(deployed: World) -> None:
    (point,) = deployed.points()
    with deployed.watching(closed_is_fine=True):
        done = deployed.play("rollback_emergency", version=point, reason="fraud").ok()
    assert done.outcome == "DONE"
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_emergency_with_a_version_that_does_not_exist_stops_all_the_same(deployed: World) -> None:
    played = deployed.play("rollback_emergency", version="nope")
    assert played.rc != 0 and "There is no rollback point 'nope'" in played.flat
    assert closed(deployed)
    deployed.play("recover").ok()
    deployed.all_at(NEXT)


@pytest.mark.parametrize("where", ["the point is damaged", "after the databases are open again"])
@pytest.mark.full
def test_a_rollback_that_fails_after_an_emergency_leaves_the_databases_closed(deployed: World, where: str) -> None:
    (point,) = deployed.points()
    (data,) = deployed.store.glob(f"db1/demo/{point}/postgresql/*/toc.dat")
    whole, fault = data.read_bytes(), None
    if where == "the point is damaged":
        data.write_bytes(whole[:-3])
    else:
        fault = deployed.once("pm2", "start", "during", "fail")
    played = deployed.play("rollback_emergency", version=point, fault=fault)
    data.write_bytes(whole)  # the point is other tests', too
    played.refused("It failed")
    assert fault is None or not (deployed.folder / "fault").exists(), "the step was never reached"
    assert closed(deployed)
    deployed.play("recover").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_databases_that_need_no_flip_are_opened_all_the_same(deployed: World) -> None:
    (point,) = deployed.points()
    deployed.play("rollback_full", version=point).ok()
    deployed.play("rollback_emergency").ok()
    deployed.play("rollback_database", version=point, accept_schema_change=True).ok()
    assert not closed(deployed)
    deployed.play("recover").ok()
    deployed.all_at(GOOD)


@pytest.mark.parametrize("part", ["application", pytest.param("database", marks=pytest.mark.full)])
@pytest.mark.full
def test_verify_is_green_and_red(deployed: World, part: str) -> None:
    assert deployed.play("verify").ok().changed == 0
    if part == "application":
        deployed.hosts[0].pm2.run("stop", "kejayangu-api")
    else:
        check = {"name": "fewer than one payment", "database": DATABASE, "sql": "SELECT count(*) < 1 FROM payments", "expect": True}
        deployed.set_variables(**deployed.quick, rollback_postgresql_checks=[check])
    before = deployed.picture(runs=False)
    try:
        red = deployed.play("verify", rollback_pm2_wait_seconds=2)
        red.refused("health" if part == "application" else "fewer than one payment")
        assert not differences(before, deployed.picture(runs=False))
    finally:
        deployed.set_variables(**deployed.quick)
        deployed.hosts[0].pm2.run("restart", "kejayangu-api")
    deployed.play("verify").ok()
