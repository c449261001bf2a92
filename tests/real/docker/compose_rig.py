# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small application as a compose project on a real engine, with releases that misbehave on request."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import threading
import time
import typing as t
import urllib.error
import urllib.request

from tests.lab import compose, images, modules
from tests.lab.docker import Engine
from tests.lab.ports import free_port, wait_until

SECRET = "hunter2-Very$ecret&'\"x"
SERVER = r"""'use strict';
const http = require('http');
const { version, behaviour } = require('./release.json');
const say = (status, body) => (request, response) => {
  request.resume();
  request.on('end', () => setTimeout(() => {
    response.writeHead(status, { 'Content-Type': 'application/json', Connection: stopping ? 'close' : 'keep-alive' });
    response.end(JSON.stringify(body));
  }, 3));
};
let stopping = false;
if (behaviour === 'crash') { console.error('cannot boot, password ' + process.env.DB_PASSWORD); process.exit(3); }
if (behaviour === 'crash-late') setTimeout(() => process.exit(4), 800);
const server = http.createServer(say(behaviour === 'sick' ? 500 : 200, { version, feature: process.env.FEATURE || null }));
server.listen(5000);
if (behaviour !== 'deaf') process.on('SIGTERM', () => { stopping = true; server.close(() => process.exit(0)); server.closeIdleConnections(); });
"""


class ComposeRig:
    """Project ``shop`` with the service ``api`` on a fixed port and ``db``, which has a volume and is nobody's business."""

    def __init__(self, engine: Engine, base: pathlib.Path, name: str) -> None:
        self.engine = engine
        self.store = base / "store"
        self.dir = base / "shop"
        self.dir.mkdir()
        self.project = name
        self.image = f"{name}/api:latest"
        self.port = free_port()
        self.publish = str(self.port)  # or several, for as many containers: first-last
        self.more = ""  # another line of the service
        self.replicas = 1
        self.push_after_build = False  # to the registry that the image's name begins with
        self.write_files("one")

    # -- the application -----------------------------------------------------------------------------------------------

    def write_files(self, feature: str) -> None:
        lines = [
            f"name: {self.project}",
            "services:",
            "  api:",
            f"    image: {self.image}",
            "    build: .",
            f"    ports: ['127.0.0.1:{self.publish}:5000']",
            "    env_file: .env",
            "    restart: always",
            "    depends_on: [db]",
            *([self.more] if self.more else []),
            "  db:",
            f"    image: {images.NODE}:{images.find_node().version}",
            "    command: ['sleep', '1000000']",
            "    init: true",
            "    volumes: ['data:/data']",
            "volumes:",
            "  data: {}",
        ]
        (self.dir / "docker-compose.yml").write_text("\n".join(lines) + "\n")
        env = self.dir / ".env"
        env.touch(mode=0o600)
        quoted = SECRET.replace("\\", "\\\\").replace("'", "\\'")
        env.write_text(f"FEATURE={feature}\nDB_PASSWORD='{quoted}'\n")

    def build(self, version: str, behaviour: str = "good") -> str:
        """As a deployment builds: the name goes to the new image, the old one becomes nameless."""
        folder = self.dir.parent / f"build-{version}-{behaviour}"
        folder.mkdir(exist_ok=True)
        (folder / "server.js").write_text(SERVER)
        (folder / "release.json").write_text(json.dumps({"version": version, "behaviour": behaviour, "of": self.project}))
        base = images.node(self.engine)
        lines = [f"FROM {base}", "WORKDIR /app", "COPY server.js release.json /app/", f"LABEL org.opencontainers.image.version={version}"]
        identity = images.build(self.engine, self.image, folder, [*lines, 'CMD ["node", "server.js"]'])
        if self.push_after_build:
            told = list(self.engine.client().push(self.image, stream=True, decode=True))
            assert not [line for line in told if "error" in line], told
        return identity

    def compose(self, *words: str) -> str:
        env = {**os.environ, **compose.env(), "DOCKER_HOST": self.engine.url}
        done = subprocess.run(
            ["docker", "compose", *words], cwd=self.dir, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self, version: str, behaviour: str = "good", feature: str | None = None) -> str:
        identity = self.build(version, behaviour)
        if feature:
            self.write_files(feature)
        self.compose("up", "--detach", "--no-build")
        if behaviour == "good":
            self.await_version(version)
        return identity

    def forget(self, identity: str) -> None:
        """As somebody who clears an engine away: the image is here no more, under no name."""
        client = self.engine.client()
        for name in self.engine.all_names(self.image.rpartition(":")[0]):
            if self.engine.names(name) == identity:
                client.remove_image(name, force=True)
        if self.engine.names(identity) is not None:
            client.remove_image(identity, force=True)
        assert self.engine.names(identity) is None

    def first_and_second(self, behaviour: str = "good") -> None:
        """Release 1 runs and is archived as v1; release 2, with another environment, is what runs now."""
        self.one = self.deploy("1.0.0", behaviour)
        self.module("archived", version="v1")
        self.two = self.deploy("2.0.0", feature="two")

    # -- what is true --------------------------------------------------------------------------------------------------

    def ask(self) -> tuple[int, dict[str, t.Any], dict[str, str]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read() or b"{}"), dict(exc.headers)
        except OSError as exc:
            return 0, {"error": str(exc)}, {}

    def await_version(self, version: str) -> None:
        wait_until(lambda: self.ask()[1].get("version") == version, f"version {version}", 30)

    def containers(self) -> dict[str, dict[str, t.Any]]:
        """Name -> what the engine says, of every container of this project and of its twins."""
        client = self.engine.client()
        found = [client.inspect_container(each["Id"]) for each in client.containers(all=True)]
        return {each["Name"].lstrip("/"): each for each in found if each["Name"].lstrip("/").startswith(f"{self.project}-")}

    def check_complete(self, version: str, again: bool = True) -> None:
        """The project under its own name, complete, on this version: image, name of the image, files, answers."""
        image, feature = {"1.0.0": (self.one, "one"), "2.0.0": (self.two, "two")}[version]
        assert self.ask()[:2] == (200, {"version": version, "feature": feature})
        found = self.containers()
        names = [f"{self.project}-api-{number}" for number in range(1, self.replicas + 1)]
        assert sorted(found) == [*names, f"{self.project}-db-1"]
        for api in (found[name] for name in names):
            assert (api["Image"], api["State"]["Status"], api["HostConfig"]["RestartPolicy"]["Name"]) == (image, "running", "always")
        assert self.engine.names(self.image) == image
        assert f"FEATURE={feature}\n" in (self.dir / ".env").read_text()
        assert (self.dir / ".env").stat().st_mode & 0o777 == 0o600
        state = self.state()
        assert not state.get("switch") and not state.get("hold") and not state.get("policies"), state
        if not again:
            return
        before = {name: found[name]["Id"] for name in names}
        self.compose("up", "--detach", "--no-build")  # what the team types next finds nothing to do
        found = self.containers()
        assert {name: found[name]["Id"] for name in names} == before

    def state(self) -> dict[str, t.Any]:
        path = self.store / "demo" / ".run" / "docker.state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    # -- the module ----------------------------------------------------------------------------------------------------

    def start_module(
        self, state: str, fault: str = "", check: bool = False, env: t.Mapping[str, str] | None = None, **extra: t.Any
    ) -> modules.Started:
        given = {
            "store": str(self.store),
            "system": "demo",
            "docker_host": self.engine.url,
            "project_dir": str(self.dir),
            "services": ["api"],
            "probes": [{"name": "health", "url": f"http://127.0.0.1:{self.port}/health"}],
            "version_path": "version",
            "stable_seconds": 1,
            "wait_seconds": 20,
            "drain_seconds": 3,
            "state": state,
            "_ansible_diff": True,
            **extra,
        }
        if check:
            given["_ansible_check_mode"] = True
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        given = {key: value for key, value in given.items() if value is not None}
        return modules.start("compose_rollback", given, fault, {**own, **compose.env(), **(env or {})})

    def run(self, state: str, **more: t.Any) -> dict[str, t.Any]:
        """The module's result, whatever it is; ``{"killed": True}`` if it was."""
        result = modules.result_of(self.start_module(state, **more))
        said = json.dumps(result, ensure_ascii=False)
        assert SECRET not in said and json.dumps(SECRET)[1:-1] not in said, "a secret is in the result"
        return result

    def module(self, state: str, **more: t.Any) -> dict[str, t.Any]:
        result = self.run(state, **more)
        assert not result.get("failed"), result["msg"]
        return result

    def refused(self, state: str, **more: t.Any) -> str:
        result = self.run(state, **more)
        assert result.get("failed"), result
        return re.sub(r"\s+", " ", str(result["msg"]))

    def clear(self) -> None:
        """Whatever a test has left."""
        pattern = str(self.store / "demo" / ".run" / "docker-hold.py")
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if pattern.encode() in words:
                    os.kill(int(entry.name), 9)
        client = self.engine.client()
        for each in self.containers().values():
            client.remove_container(each["Id"], force=True, v=True)
        for each in client.networks():
            if each["Name"].startswith(f"{self.project}"):
                client.remove_network(each["Id"])
        for each in client.volumes()["Volumes"] or []:
            if each["Name"].startswith(f"{self.project}"):
                client.remove_volume(each["Name"])


class Load:
    """Somebody asks all the time, each time on a new connection."""

    def __init__(self, port: int, rate: float = 50) -> None:
        self.port = port
        self.pause = 1 / rate
        self.answers: list[tuple[float, int]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._end.is_set():
            status = 0
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    status = answer.status
            except urllib.error.HTTPError as exc:
                status = exc.code
                exc.close()
            except OSError:
                pass
            self.answers.append((time.monotonic(), status))
            self._end.wait(self.pause)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(10)

    @property
    def failed(self) -> int:
        return sum(1 for unused, status in self.answers if status != 200)

    def outage(self) -> float:
        """Seconds between the last good answer before and the first after the longest gap."""
        good = [when for when, status in self.answers if status == 200]
        return max((later - earlier for earlier, later in zip(good, good[1:], strict=False)), default=0.0)
