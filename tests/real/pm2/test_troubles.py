# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is odd about a host or a release on the worst day, and must neither stop a rollback nor be hidden by one."""

from __future__ import annotations

import json
import threading

import pytest

from tests.real.pm2.conftest import MakeRig
from tests.real.pm2.rig import Failed, Rig


def test_a_release_whose_package_json_is_no_json(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    (rig.top / "package.json").write_text('<<<<<<< HEAD\n{"name": "api"}\n=======\n')
    rig.module("staged", version="v1")
    rig.module("held")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    (rig.top / "package.json").write_text("<<<<<<< HEAD\n")
    assert rig.module("stopped")["changed"]
    assert rig.list() == [("api", 0, "stopped"), ("api", 1, "stopped")]


def check_stops(rig: Rig, **options: object) -> None:
    assert rig.module("stopped", **options)["changed"]
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}
    assert rig.ask()[0] == 0
    assert not rig.module("stopped", **options)["changed"]


def test_stop_an_application_that_runs_from_the_resolved_path(make_rig: MakeRig) -> None:
    rig = make_rig("symlink", worker=True)
    rig.deploy("1.0.0")
    rig.pm2.start(rig.ecosystem(cwd=rig.home.resolve()))
    rig.wait_version("1.0.0")
    check_stops(rig)


def test_stop_an_application_whose_port_pm2_does_not_know(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    server = rig.top / "server.js"
    server.write_text(server.read_text().replace("process.env.PORT", str(rig.port)))
    ecosystem = rig.ecosystem()
    told = json.loads(ecosystem.read_text())
    del told["apps"][0]["env"]["PORT"]
    ecosystem.write_text(json.dumps(told))
    rig.pm2.start(ecosystem)
    rig.wait_version("1.0.0")
    check_stops(rig)


def test_stop_an_application_whose_files_are_gone(make_rig: MakeRig) -> None:
    rig = make_rig("symlink")
    rig.first_and_second()
    rig.home.unlink()
    rig.home.symlink_to(rig.top / "releases" / "gone")
    check_stops(rig)
    with pytest.raises(Failed, match="no application called apl"):
        rig.module("stopped", app="apl")
    rig.home.unlink()
    rig.home.symlink_to(rig.top / "releases" / "1.0.0")
    rig.module("started")
    rig.check_complete("1.0.0")


def test_stop_an_application_that_writes_temporary_files(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    rig.start()
    (rig.top / "tmp").mkdir()
    done = threading.Event()

    def churn() -> None:
        for number in range(1_000_000):
            if done.wait(0.001):
                return
            path = rig.top / "tmp" / f"session-{number}"
            path.write_text("x" * 2000)
            done.wait(0.001)
            path.unlink()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        rig.module("held")
        rig.module("started")
        check_stops(rig)
    finally:
        done.set()
        writer.join()


def test_restarts_by_people_are_no_crash(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    rig.start()
    for unused in range(3):
        rig.pm2.run("restart", "api")
    rig.wait_version("1.0.0")
    rig.module("archived", version="v1")
    pids = [each["pid"] for each in rig.pm2.apps("api")]
    rig.module("started")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    assert rig.module("held", fault="pm2/hold/after=kill") == {"killed": True}
    assert rig.module("previous", undo_run=["R1"])["changed"]
    rig.check_complete("1.0.0")
    assert [each["pid"] for each in rig.pm2.apps("api")] == pids
