# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compose_rollback on a real engine: there, back, held, and what goes wrong."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from tests.lab.ports import free_ports
from tests.lab.registry import Registry
from tests.real.docker.compose_rig import SECRET, ComposeRig, Load
from tests.real.docker.conftest import need_registry


def test_there_and_back(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second()
    database = rig.containers()[f"{rig.project}-db-1"]["Id"]
    rig.engine.client().prune_images({"dangling": True})  # what a deployment's clearing away takes
    planned = rig.module("staged", version="v1", check=True)
    assert planned["changed"] and "fixed host port" in " ".join(planned["plan"])
    rig.check_complete("2.0.0")
    assert rig.module("staged", version="v1")["changed"]
    assert not rig.module("staged", version="v1")["changed"]
    would = rig.module("live", version="v1", check=True)
    assert would["changed"] and rig.one in would["diff"]["after"] and rig.two in would["diff"]["before"]
    rig.check_complete("2.0.0")
    with Load(rig.port) as load:
        done = rig.module("live", version="v1")
    print(
        f"recreate: {load.failed} of {len(load.answers)} failed, {load.outage():.2f} s by the client, {done['outage_ms']} ms by the module"
    )
    assert done["changed"] and done["outage_ms"] > 0
    rig.check_complete("1.0.0")
    assert not rig.module("live", version="v1")["changed"]
    assert rig.module("previous", check=True)["changed"]
    rig.module("previous")
    rig.check_complete("2.0.0")
    assert not rig.module("previous")["changed"]
    assert rig.containers()[f"{rig.project}-db-1"]["Id"] == database, "the database was touched"


def test_a_hold_answers_503_until_it_ends(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second()
    assert rig.module("held", check=True)["changed"]
    rig.module("held")
    status, body, headers = rig.ask()
    assert (status, headers["Retry-After"], body["error"]) == (503, "30", "maintenance")
    api = rig.containers()[f"{rig.project}-api-1"]
    assert api["State"]["Status"] == "exited" and api["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert not rig.module("held")["changed"]
    assert rig.state()["hold"]["deadline"] > 0
    rig.module("started")
    rig.check_complete("2.0.0")
    rig.module("held")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    rig.module("stopped")
    assert rig.ask()[0] == 0 and not rig.module("stopped")["changed"]
    rig.module("started")
    rig.check_complete("1.0.0")
    assert not rig.module("started")["changed"]


def test_a_release_that_does_not_run_is_taken_back(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second("crash")
    message = rig.refused("live", version="v1", wait_seconds=10)
    assert "cannot boot" in message and SECRET not in message and "runs again" in message
    rig.check_complete("2.0.0")
    rig.module("held")
    message = rig.refused("live", version="v1", wait_seconds=10)
    assert "stays on hold: end it with state=started" in message
    assert rig.ask()[0] == 503
    rig.module("started")
    rig.check_complete("2.0.0")


@pytest.mark.parametrize("behaviour, says", [("sick", "500"), pytest.param("crash-late", "restart", marks=pytest.mark.full)])
def test_a_release_that_starts_and_is_ill_is_taken_back(compose_rig: ComposeRig, behaviour: str, says: str) -> None:
    rig = compose_rig
    rig.first_and_second(behaviour)
    message = rig.refused("live", version="v1", wait_seconds=10)
    assert says in message and "runs again" in message
    rig.check_complete("2.0.0")


@pytest.mark.full
def test_a_release_that_does_not_end_when_asked_is_ended(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second("deaf")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    rig.module("previous")
    rig.check_complete("2.0.0")


@pytest.mark.full
def test_a_file_that_a_bad_release_broke(compose_rig: ComposeRig) -> None:
    """The way back needs nothing of what is live to be right."""
    rig = compose_rig
    rig.first_and_second()
    good = (rig.dir / "docker-compose.yml").read_text()
    (rig.dir / "docker-compose.yml").write_text(good.replace("services:", "services: ["))
    assert "left unlooked at" in " ".join(rig.module("live", version="v1")["notes"])
    rig.check_complete("1.0.0", again=False)


@pytest.mark.full
def test_complete_drops_what_nothing_needs(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second()
    rig.module("live", version="v1")
    assert rig.module("complete", check=True)["changed"]
    done = rig.module("complete")
    assert len(done["removed"]) == 1 and rig.engine.names(rig.two) is None, "release 2 is in no point and does not run"
    assert rig.engine.names(rig.one) == rig.one
    assert not rig.module("complete")["changed"]
    assert "no previous release" in rig.refused("previous")
    rig.check_complete("1.0.0")


def test_complete_leaves_what_others_need(compose_rig: ComposeRig) -> None:
    """Another system in the same store has a point of release 2; and a point that cannot be read may need anything."""
    rig = compose_rig
    rig.first_and_second()
    rig.module("archived", version="v2", system="staging")
    rig.module("live", version="v1")
    assert rig.module("complete")["removed"] == [] and rig.engine.names(rig.two) == rig.two
    rig.module("live", version="v2", system="staging")
    rig.module("archived", version="v3")
    manifest = rig.store / "demo" / "v3" / "docker" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    rig.module("live", version="v1")
    shutil.rmtree(rig.store / "staging")
    done = rig.module("complete")
    assert done["changed"] and done["removed"] == [] and "v3" in " ".join(done["notes"]), done["notes"]
    assert rig.engine.names(rig.two) == rig.two
    assert "no previous release" in rig.refused("previous")
    shutil.rmtree(manifest.parent)
    assert len(rig.module("complete")["removed"]) == 1


def test_damaged_and_foreign_points(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second()
    folder = rig.store / "demo" / "v1" / "docker"
    stored = next(path for path in (folder / "files").iterdir() if path.name.endswith("compose.yml"))
    good = stored.read_bytes()
    stored.write_bytes(good.replace(b"always", b"never!"))
    assert "another SHA-256" in rig.refused("live", version="v1")
    stored.write_bytes(good)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(rig.one, rig.two))
    assert "differs from its checksum" in rig.refused("live", version="v1")
    manifest.write_text(text)
    assert "has the services api, now they are api, db" in rig.refused("live", version="v1", services=["api", "db"])
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
    rig.check_complete("2.0.0")


def test_images_that_are_gone(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.first_and_second()
    rig.module("archived", version="v2", archive_images=True)
    rig.module("live", version="v1")
    rig.module("complete")
    rig.forget(rig.two)
    rig.module("staged", version="v2")  # out of the point itself
    assert rig.engine.names(rig.two) == rig.two
    rig.module("live", version="v2")
    rig.check_complete("2.0.0")
    rig.forget(rig.one)
    message = rig.refused("staged", version="v1")
    assert "was built here and never pushed" in message and "Nothing live was touched" in message
    rig.check_complete("2.0.0")


def test_an_image_comes_back_from_the_registry_by_its_digest(compose_rig: ComposeRig) -> None:
    """Whatever its tag names now; and without the registry nothing is touched."""
    need_registry()
    rig = compose_rig
    with Registry() as registry:
        rig.image = f"{registry.netloc}/shop/api:latest"
        rig.write_files("one")
        rig.push_after_build = True
        rig.first_and_second()
        rig.forget(rig.one)
        planned = rig.module("staged", version="v1", check=True)
        assert "pull image" in " ".join(planned["actions"]) and rig.engine.names(rig.one) is None
        staged = rig.module("staged", version="v1")
        assert staged["changed"] and rig.engine.names(rig.one) == rig.one
        assert rig.engine.names(rig.image) == rig.two, "the tag was pulled as well"
        rig.check_complete("2.0.0")
        rig.module("live", version="v1")
        rig.check_complete("1.0.0")
        rig.module("previous")
        rig.forget(rig.one)
    message = rig.refused("staged", version="v1")
    assert "pulling" in message and registry.netloc in message
    assert rig.refused("live", version="v1")
    rig.check_complete("2.0.0")


def test_a_service_of_several_containers(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    rig.replicas = 2
    rig.more = "    deploy: {replicas: 2}"
    rig.port = free_ports(2)
    rig.publish = f"{rig.port}-{rig.port + 1}"
    rig.write_files("one")
    rig.first_and_second()
    rig.check_complete("2.0.0")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    rig.module("held")
    assert rig.ask()[0] == 503
    rig.module("previous")
    rig.check_complete("2.0.0")
    rig.module("stopped")
    assert rig.ask()[0] == 0
    rig.module("held")  # which container had which port is known from before
    assert rig.ask()[0] == 503
    rig.module("started")
    rig.check_complete("2.0.0")


def test_a_call_that_was_replaced_acts_no_more(compose_rig: ComposeRig, tmp_path: pathlib.Path) -> None:
    """Another run holds the lock: nothing is touched, and nothing is taken back either."""
    rig = compose_rig
    rig.first_and_second()
    lock = rig.store / "demo" / ".run" / "lock.json"
    lock.write_text(json.dumps({"run": "emergency", "intent": "emergency", "host": "h", "user": "u", "pid": 1, "since": "now"}))
    assert "emergency" in rig.refused("live", version="v1", run_id="r1")
    lock.unlink()
    rig.check_complete("2.0.0")
