# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two application hosts and one database: all of them go, or none, and one that cannot go back stops nobody."""

from __future__ import annotations

import re
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, make_world


@pytest.fixture(scope="module")
def two() -> t.Iterator[World]:
    for made in make_world("app1", "app2"):
        made.play("backup").ok()
        made.deploy(1, NEXT, NOTE)
        yield made


@pytest.mark.full
def test_all_go_and_all_come_back(two: World) -> None:
    two.all_at(NEXT)
    with two.watching():
        two.play("rollback_full").ok()
        two.all_at(GOOD)
        two.play("undo").ok()
    two.all_at(NEXT)


@pytest.mark.parametrize("step", ["start", *(pytest.param(step, marks=pytest.mark.full) for step in ("stage", "leave", "flip"))])
def test_one_host_fails_and_all_go_back(two: World, step: str) -> None:
    two.forget_if_needed(step)
    fault = two.once("pm2", step, "during", "fail")
    played = two.play("rollback_full", fault=fault)
    assert not (two.folder / "fault").exists()
    played.refused("It failed")
    two.all_at(NEXT)


@pytest.mark.full
def test_a_host_that_cannot_go_back_stops_nobody(two: World) -> None:
    lost = two.hosts[1]
    with two.stopped_at("postgresql/swap/during", "rollback_full") as stopped:
        lost.pm2.stop_daemon()
        played = stopped.finish()
    played.refused("app2", "undo.yml")
    assert played.outcome == "HOSTS LEFT BEHIND"
    assert two.data_version() == NEXT, "the database waits for a host that cannot go back"
    assert two.hosts[0].health()[1].get("version") == NEXT
    lost.pm2.start_daemon()
    lost.pm2.run("resurrect")
    repaired = two.play("undo")
    repaired.ok()
    two.all_at(NEXT)


def test_old_points_go_on_every_host_or_on_none(two: World) -> None:
    """The release stays live, so it is in every point of the application; the host of the database knows of no release."""
    for number in range(3):
        played = two.play("backup", version=f"night{number}", keep_count=2).ok()
    assert re.search(r"Dropped \d+ old point\(s\), as keep_count and keep_days say: [^.]*night0", played.flat), played.text[-3000:]
    held = {host.name: {path.parent.name for path in host.glob("demo/*/point.json")} for host in two.store.iterdir()}
    assert set(held) == {"app1", "app2", "db1"}
    assert held["app1"] == held["app2"] == held["db1"] and {"night1", "night2"} <= held["db1"], held
    assert "night0" not in held["db1"]
