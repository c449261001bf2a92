# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is odd about a host or a release on the worst day, and must neither stop a rollback nor be hidden by one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import threading

import pytest

from tests.lab.ports import wait_until
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


def worker_version(rig: Rig) -> str:
    """The version in the folder in which the worker really runs."""
    (worker,) = rig.pm2.apps("worker")
    return str(json.loads(pathlib.Path(f"/proc/{worker['pid']}/cwd/package.json").read_text())["version"])


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


def test_stop_an_application_whose_probes_cannot_be_used(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    rig.pm2.start(rig.ecosystem())
    rig.wait_version("1.0.0")
    probes = [{"url": "https://127.0.0.1/health", "ca_cert": str(rig.top / "ca.pem")}]
    with pytest.raises(Failed, match="is not a file"):
        rig.module("held", probes=probes)
    check_stops(rig, probes=probes)


def test_stop_an_application_whose_state_file_is_damaged(make_rig: MakeRig) -> None:
    rig = make_rig(worker=True)
    rig.first_and_second()
    state = rig.store / "demo" / ".run" / "pm2.state.json"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text('{"live": ')
    with pytest.raises(Failed, match="api is stopped, but that could not be written down: .*pm2.state.json is damaged"):
        rig.module("stopped")
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}


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


def test_a_singleton_from_the_resolved_path_is_refused(make_rig: MakeRig) -> None:
    """As ``cd current && pm2 start worker.js`` starts it: PM2 would start it again from the release that was left."""
    rig = make_rig("symlink", worker=True)
    rig.first_and_second()
    rig.pm2.run("delete", "worker")
    rig.pm2.run("start", "worker.js", "--name", "worker", cwd=rig.home)
    before = rig.list()
    for state, options in (("staged", {"version": "v1"}), ("held", {}), ("live", {"version": "v1"})):
        with pytest.raises(Failed, match="singleton worker from .*releases/2.0.0.* not from .*current: .*pm2 delete worker"):
            rig.module(state, **options)
    assert rig.list() == before
    assert worker_version(rig) == "2.0.0"
    # One that stopped by itself and was started by hand so is found when it runs again.
    rig.pm2.run("stop", "worker")
    state = rig.store / "demo" / ".run" / "pm2.state.json"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps({**rig.state(), "singletons": ["worker"]}))
    with pytest.raises(Failed, match="singletons do not run again: worker .* runs in .*releases/2.0.0, which is not the live release"):
        rig.module("live", version="v1", wait_seconds=4)


@pytest.mark.parametrize("layout", ["exchange", "symlink"])
def test_a_worker_that_is_no_singleton_is_no_success(make_rig: MakeRig, layout: str) -> None:
    rig = make_rig(layout, worker=True)
    rig.first_and_second()
    rig.pm2.run("restart", "worker")
    with pytest.raises(Failed, match="PM2 runs worker from the release of api, too.*Nothing was touched. List it under singletons"):
        rig.module("staged", version="v1", singletons=[])
    rig.check_complete("2.0.0")
    rig.module("staged", version="v1")
    with pytest.raises(Failed, match=r"api is switched, but worker \(pid \d+\) still runs the release that was left.* under singletons"):
        rig.module("live", version="v1", singletons=[])
    assert rig.ask()[1]["version"] == "1.0.0"
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    assert worker_version(rig) == "1.0.0"
    rig.module("previous")
    assert worker_version(rig) == "2.0.0"


def test_who_reads_the_logs_in_the_folder_is_no_worker(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    with subprocess.Popen([rig.pm2.bin, "logs"], cwd=rig.home, env=rig.pm2.env(), stdout=subprocess.DEVNULL) as reader:
        try:
            rig.module("staged", version="v1")
            rig.module("held")
            rig.module("live", version="v1")
            rig.check_complete("1.0.0")
            assert reader.poll() is None
        finally:
            reader.kill()


def test_the_environment_stays_as_it_was(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    ecosystem = rig.ecosystem()
    told = json.loads(ecosystem.read_text())
    told["apps"][0]["env"].update({"FEATURE": True, "SSH_SFTP_HOST": "bank.example"})
    ecosystem.write_text(json.dumps(told))
    rig.pm2.start(ecosystem)
    rig.wait_version("1.0.0")
    assert rig.ask()[1]["feature"] == "true"
    rig.module("archived", version="v1")
    rig.deploy("2.0.0")
    rig.pm2.run("reload", "api")
    rig.wait_version("2.0.0")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    assert rig.ask()[1]["feature"] == "true"
    assert rig.pm2.apps("api")[0]["pm2_env"]["env"]["SSH_SFTP_HOST"] == "bank.example"


def test_an_error_log_tells_no_secret_of_the_application_s_own_files(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("2.0.0")
    rig.start(STRIPE_SK="sk_live_51Habc")
    (rig.top / ".env").write_text("MPESA_PASSKEY=from-the-file-1\n")
    good = (rig.top / "server.js").read_text()
    (rig.top / "server.js").write_text(
        "throw new Error(`refused ${process.env.STRIPE_SK} and ${require('fs').readFileSync('.env', 'utf8').split('=')[1].trim()}!`);\n"
    )
    rig.module("archived", version="v1")
    (rig.top / "server.js").write_text(good)
    with pytest.raises(Failed, match=r"refused \*{8} and \*{8}!") as caught:
        rig.module("staged", version="v1")
    told = json.dumps(caught.value.result)
    assert "sk_live" not in told and "from-the-file" not in told


def test_a_killed_start_leaves_no_environment_behind(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    rig.module("staged", version="v1")
    module = rig.popen("live", version="v1")
    folder = rig.store / "demo" / ".run"
    wait_until(lambda: [*folder.glob("pm2-start-*.json*")], "the start file", interval=0.005)
    module.kill()
    module.wait()
    assert [*folder.glob("pm2-start-*")]
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    assert not [*folder.glob("pm2-start-*")]


def test_a_worker_of_the_release_that_was_started_from_elsewhere_must_be_listed(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    ecosystem = rig.base / "worker.json"
    app = {"name": "worker", "cwd": str(rig.base), "script": str(rig.home / "worker.js"), "env": {}}
    ecosystem.write_text(json.dumps({"apps": [app]}))
    rig.pm2.start(ecosystem)
    with pytest.raises(Failed, match="PM2 runs worker from the release of api, too.*List it under singletons"):
        rig.module("staged", version="v1")
    for unused in range(2):
        with pytest.raises(Failed, match="api is stopped, but PM2 runs worker from its release, too.*pm2 stop worker"):
            rig.module("stopped")
        assert [name for name, unused2, status in rig.list() if status == "online"] == ["worker"]
    rig.module("started")
    assert rig.module("staged", version="v1", singletons=["worker"])["changed"]


def test_started_leaves_alone_what_was_scaled_and_configured_since(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second(FEATURE="old")
    rig.module("staged", version="v1")
    rig.instances = 3
    rig.restart_everything(FEATURE="new")
    before = sorted(each["pid"] for each in rig.pm2.jlist())
    rig.module("started")
    assert sorted(each["pid"] for each in rig.pm2.jlist()) == before
    rig.check_complete("2.0.0")
    assert rig.ask()[1]["feature"] == "new"
