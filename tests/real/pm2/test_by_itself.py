# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that PM2 starts by itself: at the times of cron_restart, which it does after ``pm2 stop``, too, or when a file changes."""

from __future__ import annotations

import json
import time
import typing as t

import pytest

from tests.real.pm2.conftest import MakeRig
from tests.real.pm2.rig import Failed, Rig

OFTEN = "*/2 * * * * *"  # every other second
MIDNIGHT = "0 0 0 1 1 *"


def started(rig: Rig, worker: dict[str, t.Any] | None = None, **api: t.Any) -> Rig:
    """v1 is archived, 2.0.0 runs; the worker notes its version each time that it starts."""
    rig.deploy("1.0.0")
    ecosystem = rig.ecosystem()
    told = json.loads(ecosystem.read_text())
    told["apps"][0].update(api)
    if worker is not None:
        told["apps"].append({"name": "worker", "cwd": str(rig.home), "script": "worker.js", "env": {}, "error_file": "/dev/null", **worker})
    ecosystem.write_text(json.dumps(told))
    write_worker(rig)
    rig.pm2.start(ecosystem)
    rig.wait_version("1.0.0")
    rig.module("archived", version="v1")
    rig.deploy("2.0.0")
    write_worker(rig)
    rig.pm2.run("reload", "api")
    rig.wait_version("2.0.0")
    rig.pm2.run("save")
    return rig


def write_worker(rig: Rig) -> None:
    log = rig.base / "ran"
    (rig.home / "worker.js").write_text(
        f"require('fs').appendFileSync({str(log)!r}, require('./package.json').version + '\\n');\n"
        "if (process.env.JOB) process.exit(0);\nsetInterval(() => {}, 1000);\n"
    )


def soon(rig: Rig, *names: str) -> float:
    """Give the applications one time that comes in some seconds; when it is over."""
    due = time.time() + 12  # a busy machine needs some seconds to get there and to stop
    moment = time.localtime(due)
    for name in names:
        rig.pm2.run("restart", name, "--cron-restart", f"{moment.tm_sec} {moment.tm_min} {moment.tm_hour} * * *")
    return due + 2


def runs(rig: Rig) -> list[str]:
    path = rig.base / "ran"
    return path.read_text().split() if path.exists() else []


def crons(rig: Rig) -> dict[str, t.Any]:
    return {each["name"]: each["pm2_env"].get("cron_restart") for each in rig.pm2.jlist()}


@pytest.mark.parametrize("mode", ["cluster", "fork"])
def test_what_was_stopped_stays_stopped_and_starts_with_its_times(make_rig: MakeRig, mode: str) -> None:
    rig = started(make_rig(mode=mode), worker={"cron_restart": MIDNIGHT}, cron_restart=MIDNIGHT)
    over = soon(rig, "api", "worker")
    assert rig.module("stopped", singletons=["worker"])["changed"]
    before = len(runs(rig))
    time.sleep(max(0.0, over - time.time()))
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}
    assert len(runs(rig)) == before and rig.ask()[0] == 0
    assert not rig.module("stopped", singletons=["worker"])["changed"]
    rig.reboot()
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}
    assert not rig.module("stopped", singletons=["worker"])["changed"]
    rig.module("started", singletons=["worker"])
    assert set(crons(rig)) == {"api", "worker"} and all(crons(rig).values())
    assert {status for unused, unused2, status in rig.list()} == {"online"}
    assert len(rig.list()) == rig.instances + 1


def test_a_job_that_waits_for_its_time_runs_neither_in_between_nor_at_once(make_rig: MakeRig) -> None:
    rig = started(make_rig(), worker={"cron_restart": MIDNIGHT, "autorestart": False, "env": {"JOB": "1"}})
    deadline = time.monotonic() + 10
    while ("worker", 0, "stopped") not in rig.list():
        assert time.monotonic() < deadline, rig.list()
        time.sleep(0.1)
    listed = {"singletons": ["worker"]}
    with pytest.raises(Failed, match="PM2 runs worker from the release of api, too"):
        rig.module("staged", version="v1")
    rig.module("staged", version="v1", **listed)
    rig.module("held", **listed)
    assert "worker" in crons(rig) and crons(rig)["worker"] is None
    assert not rig.module("held", **listed)["changed"]
    rig.module("live", version="v1", **listed)
    assert crons(rig)["worker"] == MIDNIGHT
    assert rig.list() == [("api", 0, "online"), ("api", 1, "online"), ("worker", 0, "stopped")]
    assert runs(rig) == ["1.0.0"]
    assert not rig.module("live", version="v1", **listed)["changed"]
    rig.module("previous", **listed)
    assert crons(rig)["worker"] == MIDNIGHT and runs(rig) == ["1.0.0"]


def test_a_worker_with_times_runs_only_before_the_hold_and_from_the_new_release(make_rig: MakeRig) -> None:
    rig = started(make_rig(), worker={"cron_restart": OFTEN, "autorestart": False, "env": {"JOB": "1"}})
    listed = {"singletons": ["worker"]}
    rig.module("staged", version="v1", **listed)
    rig.module("held", **listed)
    before = runs(rig)
    time.sleep(3)
    assert runs(rig) == before, "the release that is left ran its job while the databases flip"
    rig.module("live", version="v1", **listed)
    deadline = time.monotonic() + 10
    while len(runs(rig)) == len(before):
        assert time.monotonic() < deadline, "the job does not run any more"
        time.sleep(0.1)
    assert set(runs(rig)[len(before) :]) == {"1.0.0"}


def test_a_watched_application_is_restarted_by_nothing_that_a_switch_has_left(make_rig: MakeRig) -> None:
    rig = started(make_rig(), watch=True, ignore_watch=["logs", "node_modules"])
    time.sleep(2)  # for PM2 to see the deployment
    rig.wait_version("2.0.0")
    rig.module("live", version="v1")
    rig.module("previous")
    time.sleep(2)
    assert [each["pm2_env"]["restart_time"] for each in rig.pm2.jlist()] == [0, 0]
    rig.check_complete("2.0.0")
    rig.module("stopped")
    (rig.home / "server.js").write_text("// a deployment\n")
    time.sleep(3)
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}
