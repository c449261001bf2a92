# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks of the molecule scenarios call: hosts, releases and customers of one scenario, kept between calls in its folder.

    python -m tests.lab.scenario create|destroy|mark|deploy <release> [--version V] [--only HOST] [--unmigrated]

``PAYOPS_ENGINE`` is the folder of an engine (tests/lab/docker.py) that several scenarios share; without it each starts its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from tests.client import check
from tests.client.report import Ack, Failure, read
from tests.lab import app, compose, docker, fleet, images, ports, processes
from tests.lab.node import ROOT

HOSTS: dict[str, dict[str, list[str]]] = {
    "default": {"app1": ["apps", "database"]},
    "docker": {"db1": ["database"]},
    "fleet": fleet.FIVE,
    "emergency": fleet.FIVE,
}


class ComposeApp:
    """The payment API as a compose project of this machine, on the engine of the scenario."""

    def __init__(self, made: fleet.Fleet, folder: pathlib.Path, port: int = 0) -> None:
        self.fleet = made
        self.dir = folder / "project"
        self.port = port or ports.free_port()

    def deploy(self, number: int, version: str | None = None) -> None:
        self.dir.mkdir(exist_ok=True)
        fresh = self.dir.parent / "fresh-release"
        app.build_release(fresh, number, version)
        app.write_env(fresh, self.fleet.environment())
        app.migrate(fresh)
        wanted = json.loads((fresh / "package.json").read_text(encoding="utf-8"))["version"]
        shutil.rmtree(fresh)
        images.payments_api(self.fleet.engine, "payments/api:latest", number, version)
        app.write_env(self.dir, {**self.fleet.environment(), "PORT": 5000})
        service = {"image": "payments/api:latest", "ports": [f"127.0.0.1:{self.port}:5000"], "env_file": ".env", "restart": "always"}
        (self.dir / "docker-compose.yml").write_text(json.dumps({"name": "payments", "services": {"api": service}}), encoding="utf-8")
        env = {**os.environ, **compose.env(), "DOCKER_HOST": self.fleet.engine.url}
        argv = ["docker", "compose", "up", "--detach", "--no-build"]
        subprocess.run(argv, cwd=self.dir, env=env, check=True, capture_output=True, timeout=120)
        ports.wait_until(lambda: self.version() == wanted, f"{wanted} on port {self.port}", 60, 0.2)

    def version(self) -> str:
        try:
            return str(json.loads(fleet.fetch(f"http://127.0.0.1:{self.port}/health").text).get("version"))
        except (OSError, ValueError):
            return "no answer"


class Scenario:
    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name = name
        self.folder = folder
        self.file = folder / "scenario.json"
        self.told: dict[str, t.Any] = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.fleet: fleet.Fleet = t.cast("fleet.Fleet", None)
        self.compose: ComposeApp | None = None
        if self.told:
            self.engine = docker.Engine(containers=True, root=pathlib.Path(self.told["engine"]))
            self.fleet = fleet.Fleet.attach(self.engine, folder / "fleet", self.told["fleet"])
            self.compose = ComposeApp(self.fleet, folder, self.told["port"]) if self.told.get("port") else None

    def remember(self, **more: t.Any) -> None:
        self.told.update(more)
        self.file.touch(mode=0o600)
        self.file.write_text(json.dumps(self.told), encoding="utf-8")

    @property
    def clients(self) -> pathlib.Path:
        return self.folder / "clients"

    # -- life --------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Hosts, release 1.0.0, and customers who pay from now on."""
        if self.told:
            return
        shared = os.environ.get("PAYOPS_ENGINE")
        self.engine = docker.Engine(containers=True, outlive=True, root=pathlib.Path(shared) if shared else None)
        if not shared:
            self.engine.start()
        self.fleet = fleet.Fleet(self.engine, self.folder / "fleet", HOSTS[self.name])
        self.remember(engine=str(self.engine.root), own_engine=not shared, marks={}, fleet=self.fleet.state())
        try:
            self.fleet.start()
            self.remember(fleet=self.fleet.state())
            self.fleet.set_up()
        finally:
            self.remember(fleet=self.fleet.state())
        if self.name == "docker":
            self.compose = ComposeApp(self.fleet, self.folder)
            self.remember(port=self.compose.port, url=self.engine.url, compose=str(compose.plugin()))
            self.compose.deploy(1)
        self._write_instances()
        self._start_paying()

    def _write_instances(self) -> None:
        """Where molecule finds the hosts."""
        hosts = [
            {"instance": each.name, "address": each.address, "user": "deploy", "port": 22, "identity_file": str(self.fleet.key)}
            for each in self.fleet.hosts.values()
        ]
        if self.compose:
            hosts.append({"instance": "app1", "address": "127.0.0.1", "user": "root", "port": 22, "connection": "local"})
        pathlib.Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).write_text(json.dumps(hosts), encoding="utf-8")

    def destroy(self) -> None:
        if not self.told:
            return
        self.stop_paying()
        if self.compose:
            with contextlib.suppress(Exception):  # of an engine that is gone nothing is left, either
                for each in self.engine.client().containers(all=True, filters={"label": "com.docker.compose.project=payments"}):
                    self.engine.client().remove_container(each["Id"], force=True, v=True)
        self.fleet.clear()
        if self.told["own_engine"]:
            self.engine.__exit__()
        self.file.unlink()

    # -- customers -----------------------------------------------------------------------------------------------------

    def _start_paying(self) -> None:
        host, port = ("127.0.0.1", self.compose.port) if self.compose else (self.fleet.entrance.address, self.fleet.entrance.port)
        argv = [sys.executable, "-m", "tests.client", "--host", host, "--port", str(port), "--folder", str(self.clients), "--rate", "6"]
        client = processes.start(argv, log=self.folder / "clients.log", cwd=ROOT, outlive=True)
        self.remember(clients=client.pid)
        ports.wait_until(lambda: len(self.payments()) > 0, "the first payment", 60, 0.2)

    def stop_paying(self) -> None:
        if self.told.get("clients"):
            processes.stop(int(self.told["clients"]), signum=signal.SIGTERM, timeout=60)
            self.remember(clients=None)

    def payments(self) -> list[Ack]:
        return read(self.clients / "acks.jsonl", Ack)

    def failures(self) -> list[Failure]:
        return [each for each in read(self.clients / "failures.jsonl", Failure) if each.kind == "payment"]

    def between(self, one: str, two: str, what: t.Iterable[t.Any]) -> list[t.Any]:
        """Payments or failures between two marks."""
        marks = self.told["marks"]
        return [each for each in what if marks[one] <= each.time <= marks[two]]

    def await_payments(self, number: int = 5) -> None:
        """Customers can pay now."""
        begin = time.time()
        ports.wait_until(lambda: len([each for each in self.payments() if each.time > begin]) >= number, f"{number} payments", 60, 0.2)

    def check_payments(self) -> check.Verdict:
        """Customers go home; is every payment that was acknowledged live or kept?"""
        self.stop_paying()
        return check.check(self.clients / "acks.jsonl", self.fleet.server.params(), fleet.DATABASE)

    # -- releases ------------------------------------------------------------------------------------------------------

    def deploy(self, options: argparse.Namespace) -> None:
        if self.compose:
            self.compose.deploy(options.release, options.version)
        else:
            only = [options.only] if options.only else None
            self.fleet.deploy(options.release, options.version, only=only, migrate=not options.unmigrated)

    def runs(self, host: str) -> list[str]:
        """What was run on a host and how it ended, oldest first: ``backup done``."""
        files = self.fleet.hosts[host].run("sh", "-c", f"cat {fleet.STORE}/payments/.run/*/run.json | tr -d '\\n'")
        decoder, found, place = json.JSONDecoder(), [], 0
        while place < len(files):
            each, place = decoder.raw_decode(files, place)
            found.append(each)
        return [f"{each['intent']} {each.get('outcome')}" for each in sorted(found, key=lambda run: str(run["since"]))]


def current() -> Scenario:
    """The scenario that molecule plays now."""
    return Scenario(os.environ["MOLECULE_SCENARIO_NAME"], pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]))


def main() -> int:
    known = argparse.ArgumentParser(prog="python -m tests.lab.scenario", description=__doc__)
    verbs = known.add_subparsers(dest="verb", required=True)
    verbs.add_parser("create")
    verbs.add_parser("destroy")
    verbs.add_parser("mark").add_argument("name")
    deploy = verbs.add_parser("deploy")
    deploy.add_argument("release", type=int)
    deploy.add_argument("--version")
    deploy.add_argument("--only")
    deploy.add_argument("--unmigrated", action="store_true")
    options = known.parse_args()
    scenario = current()
    if options.verb == "mark":
        first = {options.name: time.time()} if options.name != "begin" or "begin" not in scenario.told["marks"] else {}
        scenario.remember(marks={**scenario.told["marks"], **first})
    elif options.verb == "deploy":
        scenario.deploy(options)
    else:
        getattr(scenario, options.verb)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
