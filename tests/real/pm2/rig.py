# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small application under a real PM2, in both layouts and both modes, with releases that misbehave on request."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import pathlib
import shutil
import threading
import time
import typing as t
import urllib.error
import urllib.request

from tests.lab import modules
from tests.lab.pm2home import Pm2Home
from tests.lab.ports import free_port

SECRET = "hunter2-Very$ecret&'\"x"

SERVER = r"""'use strict';
const http = require('http');
const fs = require('fs');
const path = require('path');
const { version, behaviour } = JSON.parse(fs.readFileSync(path.join(__dirname, 'package.json'), 'utf8'));
if (behaviour === 'crash') throw new Error('this release cannot boot, password ' + process.env.DB_PASSWORD);
if (behaviour === 'crash-late') setTimeout(() => { throw new Error('died late'); }, 700);
if (behaviour === 'crash-in-production' && !process.env.PAYOPS_PREFLIGHT) throw new Error('dies in production only');
const sick = behaviour === 'sick' || (behaviour === 'sick-in-production' && !process.env.PAYOPS_PREFLIGHT);
const server = http.createServer((request, response) => {
  const answer = () => {
    response.writeHead(sick ? 500 : 200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ status: sick ? 'ill' : 'ok', version, pid: process.pid, instance: process.env.NODE_APP_INSTANCE,
      feature: process.env.FEATURE, lib: require('dep').version }));
  };
  request.resume();
  setTimeout(answer, request.url === '/slow' ? 1200 : 3);
});
if (behaviour === 'silent') setInterval(() => {}, 1000);
else setTimeout(() => server.listen(Number(process.env.PORT), process.env.HOST || undefined), behaviour === 'slow' ? 1500 : 0);
"""

WORKER = (
    "const fs=require('fs');const v=require('./package.json').version;setInterval(()=>fs.writeFileSync(__dirname+'/logs/worker',v),50);\n"
)


class Failed(AssertionError):
    """The module failed; its result is in ``result``."""

    def __init__(self, result: dict[str, t.Any]) -> None:
        super().__init__(result.get("msg"))
        self.result = result


class Rig:
    def __init__(
        self, base: pathlib.Path, layout: str = "exchange", mode: str = "cluster", instances: int = 2, worker: bool = False
    ) -> None:
        self.base = base
        self.layout = layout
        self.mode = mode
        self.instances = instances if mode == "cluster" else 1
        self.worker = worker
        self.pm2 = Pm2Home()
        self.port = free_port()
        self.store = base / "store"
        self.top = base / "srv" / "api"
        self.home = self.top if layout == "exchange" else self.top / "current"

    # -- the application ---------------------------------------------------------------------------------------------

    def write_release(self, folder: pathlib.Path, version: str, behaviour: str = "good") -> None:
        (folder / "node_modules" / "dep").mkdir(parents=True, exist_ok=True)
        (folder / "node_modules" / "dep" / "index.js").write_text(f"exports.version = {version!r};\n")
        (folder / "server.js").write_text(SERVER)
        (folder / "worker.js").write_text(WORKER)
        (folder / "package.json").write_text(json.dumps({"name": "api", "version": version, "behaviour": behaviour}))

    def deploy(self, version: str, behaviour: str = "good") -> None:
        """As the team deploys: over the folder, or a new release and the symlink."""
        if self.layout == "exchange":
            self.top.mkdir(parents=True, exist_ok=True)
            self.write_release(self.top, version, behaviour)
            for name in ("uploads", "logs"):
                if not (self.top / name).exists():
                    (self.top / name).mkdir()
            if not (self.top / ".env").exists():
                (self.top / ".env").write_text("A=1\n")
            return
        release = self.top / "releases" / version
        self.write_release(release, version, behaviour)
        shared = self.top / "shared"
        (shared / "logs").mkdir(parents=True, exist_ok=True)
        (release / "logs").symlink_to(shared / "logs")
        new = self.top / ".new"
        new.symlink_to(release)
        new.rename(self.home)

    def ecosystem(self, cwd: pathlib.Path | None = None, **env: str) -> pathlib.Path:
        where = str(cwd or self.home)
        apps = [
            {
                "name": "api",
                "cwd": where,
                "script": "server.js",
                "exec_mode": self.mode,
                "instances": self.instances,
                "env": {"PORT": str(self.port), "DB_PASSWORD": SECRET, **env},
            }
        ]
        if self.worker:
            apps.append({"name": "worker", "cwd": where, "script": "worker.js", "exec_mode": "fork", "env": {}})
        path = self.base / "ecosystem.json"
        path.write_text(json.dumps({"apps": apps}))
        path.chmod(0o600)
        return path

    def start(self, **env: str) -> None:
        self.pm2.start(self.ecosystem(**env))
        self.wait_version()

    def wait_version(self, version: str | None = None, wait: float = 20) -> None:
        """Until every instance has answered (with this version)."""
        deadline = time.monotonic() + wait
        pids = set()
        while time.monotonic() < deadline:
            found = self.ask()
            if found[0] == 200 and version in (None, found[1].get("version")):
                pids.add(found[1].get("pid"))
                if len(pids) >= self.instances:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{version} did not answer on {self.port}: {self.ask()}")

    def first_and_second(self, behaviour: str = "good", **env: str) -> None:
        """Release 1 runs and is archived as v1; release 2 of the given behaviour is what runs now."""
        self.deploy("1.0.0", behaviour)
        if behaviour == "good":
            self.start(**env)
        else:
            self.pm2.start(self.ecosystem(**env))
        self.module("archived", version="v1")
        self.deploy("2.0.0")
        self.pm2.run("reload", "api") if behaviour == "good" else self.restart_everything(**env)
        self.wait_version("2.0.0")
        self.pm2.run("save")
        (self.pm2.home / "dump.pm2").chmod(0o600)

    def restart_everything(self, **env: str) -> None:
        self.pm2.run("delete", "all")
        self.start(**env)

    # -- what is true ------------------------------------------------------------------------------------------------

    def ask(self, path: str = "/health") -> tuple[int, dict[str, t.Any], dict[str, str]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as exc:
            return exc.code, json.loads(exc.read() or b"{}"), dict(exc.headers)
        except OSError as exc:
            return 0, {"error": str(exc)}, {}

    def list(self) -> list[tuple[str, t.Any, str]]:
        return sorted((each["name"], each["pm2_env"].get("NODE_APP_INSTANCE"), each["pm2_env"]["status"]) for each in self.pm2.jlist())

    def complete_list(self) -> list[tuple[str, t.Any, str]]:
        own = [("api", number, "online") for number in range(self.instances)]
        return sorted([*own, *([("worker", 0, "online")] if self.worker else [])])

    def state(self) -> dict[str, t.Any]:
        path = self.store / "demo" / ".run" / "pm2.state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def cwd_versions(self) -> set[str]:
        """The version in the folder that each worker really runs in."""
        found = set()
        for each in self.pm2.apps("api"):
            found.add(json.loads(pathlib.Path(os.path.realpath(f"/proc/{each['pid']}/cwd"), "package.json").read_text())["version"])
        return found

    def check_complete(self, version: str) -> None:
        """The application under its own name, complete, on this version, and a reboot would bring up the same."""
        assert self.list() == self.complete_list()
        assert self.cwd_versions() == {version}
        assert self.ask()[1]["version"] == version
        assert self.ask()[1]["lib"] == version
        assert json.loads((self.home / "package.json").read_text())["version"] == version
        dump = self.pm2.home / "dump.pm2"
        assert dump.stat().st_mode & 0o077 == 0
        assert sorted(each["name"] for each in json.loads(dump.read_text())) == sorted(
            name for name, unused, unused2 in self.complete_list()
        )

    # -- the module --------------------------------------------------------------------------------------------------

    def options(self, state: str, **extra: t.Any) -> dict[str, t.Any]:
        return {
            "store": str(self.store),
            "system": "demo",
            "app": "api",
            "app_dir": str(self.top),
            "pm2_home": str(self.pm2.home),
            "pm2_bin": self.pm2.bin,
            "node_bin": self.pm2.node_bin,
            "probes": [{"name": "health", "url": f"http://127.0.0.1:{self.port}/health"}],
            "version_path": "version",
            "stable_seconds": 1,
            "wait_seconds": 12,
            "singletons": ["worker"] if self.worker else [],
            "state": state,
            **extra,
        }

    def popen(self, state: str, fault: str | None = None, check: bool = False, **extra: t.Any) -> modules.Started:
        options = {**self.options(state, **extra), **({"_ansible_check_mode": True} if check else {})}
        return modules.start("pm2_rollback", options, fault)

    def module(self, state: str, fault: str | None = None, check: bool = False, **extra: t.Any) -> dict[str, t.Any]:
        result = modules.result_of(self.popen(state, fault, check, **extra))
        out = json.dumps(result, ensure_ascii=False)
        assert SECRET not in out and json.dumps(SECRET)[1:-1] not in out, "a secret in the result"
        if result.get("failed"):
            raise Failed(result)
        return result

    def reboot(self) -> None:
        """What a reboot does to PM2."""
        self.pm2.run("kill")
        self.pm2.run("resurrect")

    def close(self) -> None:
        self.pm2.destroy()
        shutil.rmtree(self.base, ignore_errors=True)


class Load:
    """An open-loop client: a new connection at a fixed rate whatever the server does, every 25th request a slow one."""

    def __init__(self, port: int, rate: float = 100) -> None:
        self.port = port
        self.rate = rate
        self.answers: collections.Counter[tuple[int, str | None]] = collections.Counter()
        self.failed: list[tuple[float, str, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _one(self, started: float, path: str) -> None:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 5)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = await asyncio.wait_for(reader.read(), 8)
            writer.close()
            status = int(data.split(b" ", 2)[1])
            body = data.partition(b"\r\n\r\n")[2]
            version = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1]).get("version")
            self.answers[(status, version)] += 1
        except Exception as exc:
            self.failed.append((round(time.monotonic() - started, 2), path, repr(exc)))

    async def _run(self) -> None:
        started = time.monotonic()
        tasks = []
        number = 0
        while not self._stop.is_set():
            delay = started + number / self.rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(self._one(started, "/slow" if number % 25 == 0 else "/")))
            number += 1
        await asyncio.gather(*tasks)

    def __enter__(self) -> Load:
        self._thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(0.3)
        self._stop.set()
        self._thread.join(30)

    def say(self, what: str) -> None:
        total = sum(self.answers.values()) + len(self.failed)
        print(f"\n{what}: {len(self.failed)} failed of {total} requests; answers {dict(self.answers)} {self.failed[:4]}")
