# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from PM2, and what is decided about it, without a PM2."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import socket
import threading
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _probed
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import Completed
from ansible_collections.payops.rollback.plugins.module_utils._pm2 import cron, dump, ecosystem, rpc, verdict
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import Settings, check_settings
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2, Proc, parse_jlist, proc_of
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import detect

SECRET = "hunter2 with spaces"


def entry(home: pathlib.Path | str, **changes: t.Any) -> dict[str, t.Any]:
    env = {
        "status": "online",
        "exec_mode": "cluster_mode",
        "pm_cwd": str(home),
        "cwd": "/a/lie",
        "pm_exec_path": f"{home}/server.js",
        "restart_time": 0,
        "pm_uptime": 2000_000,
        "instance_var": "NODE_APP_INSTANCE",
        "NODE_APP_INSTANCE": 0,
        "node_args": [],
        "kill_timeout": 4000,
        "pm_out_log_path": "/home/x/.pm2/logs/api-out-0.log",
        "pm_err_log_path": "/var/log/api-error-0.log",
        "env": {
            "PORT": "5000",
            "DB_PASSWORD": SECRET,
            "api": "{}",
            "PM2_HOME": "/home/x/.pm2",
            "unique_id": "u",
            "SUDO_USER": "me",
            "A": "b",
        },
    }
    return {"name": "api", "pid": 0, "pm_id": 0, "pm2_env": {**env, **changes}}


def proc(home: pathlib.Path | str, **changes: t.Any) -> Proc:
    return proc_of(entry(home, **changes))


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "api").mkdir()
    return tmp_path / "api"


def test_jlist_behind_chatter() -> None:
    assert parse_jlist('[PM2] Spawning PM2 daemon\n[{"name": "a"}]\n') == [{"name": "a"}]
    for text in ("", "[PM2] hello", '{"a": 1}'):
        with pytest.raises(RollbackError, match="gave no list"):
            parse_jlist(text)


def test_definition_is_relative_and_without_what_pm2_adds(home: pathlib.Path) -> None:
    found = ecosystem.definition_of([proc(home), proc(home, NODE_APP_INSTANCE=1)], detect(str(home)))
    assert found == {
        "name": "api",
        "cwd": ".",
        "script": "server.js",
        "exec_mode": "cluster",
        "instances": 2,
        "kill_timeout": 4000,
        "instance_var": "NODE_APP_INSTANCE",
        "error_file": "/var/log/api-error.log",
        "env": {"PORT": "5000", "DB_PASSWORD": SECRET, "A": "b"},
    }
    started = ecosystem.started_from(found, "/srv/x", name="api@v1", env={"PORT": "1"})
    assert (started["cwd"], started["script"], started["name"]) == ("/srv/x", "/srv/x/server.js", "api@v1")
    assert started["env"] == {"PORT": "1", "DB_PASSWORD": SECRET, "A": "b"}
    assert SECRET not in json.dumps(ecosystem.public(found))


def test_the_environment_is_what_the_application_sees(home: pathlib.Path) -> None:
    """What PM2 6 holds (as its list is read) and what a Node.js application then has in process.env."""
    held = {
        "YES": (True, "true"),
        "NO": (False, "false"),
        "NOTHING": (None, "null"),
        "RATE": (1.5, "1.5"),
        "WHOLE": (5.0, "5"),
        "SMALL": (1e-05, "0.00001"),
        "SMALLER": (1e-07, "1e-7"),
        "NEGATIVE": (-2.5e-08, "-2.5e-8"),
        "LARGE": (1e21, "1e+21"),
        "LONG": (12345678901234567000, "12345678901234567000"),
        "TEXT": ("True", "True"),
        "SSH_SFTP_HOST": ("bank.example", "bank.example"),
        "SUDO_LIMIT": ("5", "5"),
    }
    foreign = {"SSH_CLIENT": "a", "SSH_CONNECTION": "a", "SSH_TTY": "a", "SSH_AUTH_SOCK": "a", "SUDO_USER": "a", "LIST": [1]}
    env = {**{key: value for key, (value, unused) in held.items()}, **foreign}
    assert ecosystem.application_env(proc(home, env=env)) == {key: text for key, (unused, text) in held.items()}
    assert "NOTHING" not in ecosystem.application_env(proc(home, env=env, exec_mode="fork_mode"))


def test_resolved_and_foreign_paths_are_refused(tmp_path: pathlib.Path) -> None:
    release = tmp_path / "releases" / "1"
    release.mkdir(parents=True)
    (tmp_path / "current").symlink_to(release)
    layout = detect(str(tmp_path))
    with pytest.raises(RollbackError, match="resolved path") as caught:
        ecosystem.definition_of([proc(release)], layout)
    assert caught.value.details["reason"] == "resolved_path"
    with pytest.raises(RollbackError, match="not below"):
        ecosystem.definition_of([proc("/elsewhere")], layout)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"status": "launching"}, "is launching"),
        ({"status": "errored"}, "is errored"),
        ({"pm_uptime": 500_000}, "since before the switch"),
        ({}, "runs another release"),
    ],
)
def test_what_is_no_success(home: pathlib.Path, changes: dict[str, t.Any], what: str) -> None:
    demand = verdict.Demand("api", 12345, ".", 1, 1000.0, 1, 1)
    assert what in verdict.shortcomings(demand, [proc(home, **changes)], str(home))[0]


def test_leftovers_missing_instances_and_restart_loops(home: pathlib.Path) -> None:
    demand = verdict.Demand("api", 0, ".", 2, 0.0, 1, 1)
    left = proc_of({**entry(home), "pm_id": "_old_0"})
    assert verdict.shortcomings(demand, [left], str(home)) == [
        "1 of 2 instances are in PM2's list",
        "instance _old_0 is a leftover of a reload",
    ]
    assert verdict.hopeless(demand, [proc(home, restart_time=3)]) == "instance 0 was restarted 3 times"
    assert verdict.hopeless(demand, [proc(home, restart_time=30)], {"0": 29}) is None
    assert verdict.hopeless(demand, [proc(home, restart_time=31)], {"0": 29}) == "instance 0 was restarted 2 times"
    assert verdict.hopeless(demand, [proc(home, status="stopped")]) == "instance 0 is stopped after 0 restarts"
    assert verdict.hopeless(demand, [proc(home)]) is None


def test_expected_version_goes_to_the_first_http_probe() -> None:
    probes = [{"type": "tcp", "port": 1}, {"url": "http://h/"}, {"url": "http://i/"}]
    told = _probed.expecting(probes, "version", "1.2")
    assert [probe.get("expect_json") for probe in told] == [None, [{"path": "version", "equals": "1.2"}], None]
    assert _probed.expecting(probes, None, "1.2") == probes


def test_preflight_asks_the_spare_port_only() -> None:
    probes = [
        {"name": "a", "url": "http://localhost:5000/health"},
        {"name": "p", "url": "https://api.example/health"},
        {"type": "sql", "database": "d"},
    ]
    assert [probe["url"] for probe in _probed.aimed(probes, 5000, 6000)] == ["http://localhost:6000/health"]
    assert _probed.aimed(probes[1:], 5000, 6000) == [{"name": "port", "type": "tcp", "host": "127.0.0.1", "port": 6000}]


def fake_pm2(tmp_path: pathlib.Path, stdout: str = "[]") -> Pm2:
    return Pm2(lambda argv, **options: Completed(0, stdout, ""), str(tmp_path), str(tmp_path), "/usr/bin/pm2", "/usr/bin/node")


def test_what_is_no_http_is_no_responder() -> None:
    """Something else has the port: an SSH server, say."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, unused = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1024)

        thread = threading.Thread(target=greet)
        thread.start()
        assert not _probed.answers_hold(server.getsockname()[1], ["127.0.0.1"])
        thread.join(5)


def test_start_files_of_killed_modules_are_removed(tmp_path: pathlib.Path) -> None:
    mine = tmp_path / f"pm2-start-{os.getpid()}.json"
    gone = 2**22 + 1  # beyond the largest process id
    left = [tmp_path / f"pm2-start-{gone}.json", tmp_path / f"pm2-start-{gone}.json.tmp-{gone}"]
    for path in (mine, *left):
        path.write_text("{}")
    fake_pm2(tmp_path).sweep()
    assert list(tmp_path.iterdir()) == [mine]


def test_absent_daemons_are_not_empty_lists(tmp_path: pathlib.Path) -> None:
    pm2 = fake_pm2(tmp_path)
    with pytest.raises(RollbackError, match="PM2 is not running"):
        pm2.processes()
    (tmp_path / "pm2.pid").write_text(str(os.getpid()))
    with pytest.raises(RollbackError, match="PM2 is not running"):
        fake_pm2(tmp_path).processes()
    gone = Pm2(pm2.cli, str(tmp_path / "none"), str(tmp_path), "/usr/bin/pm2")
    with pytest.raises(RollbackError, match="does not exist"):
        gone.require()


def test_dump_must_name_what_runs_and_be_private(tmp_path: pathlib.Path) -> None:
    pm2 = fake_pm2(tmp_path)
    wanted = [("api", "/srv/api", "/srv/api/server.js")]
    assert "does not exist" in dump.problems(pm2, wanted, "api")[0]
    path = tmp_path / "dump.pm2"
    path.write_text(json.dumps([{"name": "api", "pm_cwd": "/srv/api", "pm_exec_path": "/srv/api/server.js"}, {"name": "other"}]))
    path.chmod(0o644)
    assert dump.problems(pm2, wanted, "api") == [f"{path} can be read by others"]
    path.chmod(0o600)
    assert dump.problems(pm2, wanted, "api") == []
    assert "expected" in dump.problems(pm2, [], "api")[0]


def serve(path: str, answer: bytes) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)

    def run() -> None:
        connection, unused = server.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()
        server.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (rpc.encode([b'j:{"args":[[1]]}', b"s:x"]), [1]),
        (rpc.encode([b'j:{"error":"id unknown"}', b"s:x"]), rpc.Refused),
        (b"", rpc.Unavailable),
        (b"HTTP/1.1 400", rpc.Unavailable),
        (rpc.encode([b"j:nonsense"]), rpc.Unavailable),
        (b"\x11\xff\xff\xff\xff", rpc.Unavailable),
    ],
)
def test_the_daemon_socket(tmp_path: pathlib.Path, answer: bytes, expected: t.Any) -> None:
    path = str(tmp_path / "s")
    serve(path, answer)
    if isinstance(expected, type):
        with pytest.raises(expected):
            rpc.call(path, "getMonitorData", {}, timeout=5)
    else:
        assert rpc.call(path, "getMonitorData", {}, timeout=5) == expected


def test_no_socket() -> None:
    with pytest.raises(rpc.Unavailable):
        rpc.call("/nonexistent", "x", {})


def test_an_application_is_no_singleton_of_itself() -> None:
    with pytest.raises(RollbackError, match="own singleton"):
        check_settings(Settings("api", singletons=("api",)))
    with pytest.raises(RollbackError, match="not a safe name"):
        check_settings(Settings("../api"))


class Listed:
    """PM2's list in memory; it dies before the given call."""

    def __init__(self, home: pathlib.Path, dies: int | None = None) -> None:
        self.entries = [entry(home, cron_restart="0 3 * * *")]
        self.left = dies
        self.ids = itertools.count(1)

    def named(self, *names: str) -> list[t.Any]:
        return [proc_of(each) for each in self.entries if each["name"] in names]

    def _call(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1

    def add(self, env: dict[str, t.Any]) -> None:
        self._call()
        self.entries.append({"pm_id": next(self.ids), "name": "api", "pid": 0, "pm2_env": env})

    def delete(self, pm_id: t.Any) -> None:
        self._call()
        self.entries = [each for each in self.entries if each["pm_id"] != pm_id]


@pytest.mark.parametrize("dies", [0, 1, None])
def test_an_exchange_of_timers_that_was_killed_is_finished_by_the_next(tmp_path: pathlib.Path, dies: int | None) -> None:
    listed = Listed(tmp_path, dies)
    for change in (lambda: cron.disarm(t.cast("t.Any", listed), ["api"]), lambda: cron.arm(t.cast("t.Any", listed), ["api"], ())):
        if dies is not None:
            listed.left = dies
            with pytest.raises(KeyboardInterrupt):
                change()
            listed.left = None
        change()
        assert len(listed.entries) == 1
    assert listed.entries[0]["pm2_env"]["cron_restart"] == "0 3 * * *" and cron.armed(listed.named("api")[0])
