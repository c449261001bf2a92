# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part B: the sample payment API goes from one release to another while customers pay, in each way, several times.

Two hosts, both this machine: on one the collection works, on the other pm2 alone, so that neither finds what the other left.
Every switch goes to that one of two good releases which is not live, or to one that cannot boot.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from tests.bench import call
from tests.bench.common import Options, attempt, cache, say
from tests.bench.stats import Records, outage, rotated
from tests.client.report import Ack, Failure, read
from tests.lab import app, ports, processes
from tests.lab.node import ROOT, find_node
from tests.lab.system import AppHost, System

GOOD = ("1.0.0", "1.0.1")
BAD = "0.9.9"
TAIL = 1.5
METHODS = ("ours", "reload", "recreate", "manual", "ours-bad", "reload-bad")
CANNOT_BOOT = "throw new Error('this release cannot boot');\n"


@dataclasses.dataclass(frozen=True)
class Seen:
    """A switch as the customers saw it."""

    requests: int
    failed: int
    errors: dict[str, int]
    outage: float
    command: float
    code: int


def counted(acks: t.Sequence[Ack], failures: t.Sequence[Failure], begin: float, end: float, command: float, code: int) -> Seen:
    """From what the clients wrote down. A failure that becomes known after the end (a timeout) counts all the same."""
    good = [ack.time for ack in acks]
    bad = [failure for failure in failures if failure.time >= begin]
    errors: dict[str, int] = {}
    for failure in bad:
        name = f"{failure.error} ({'new' if failure.new_connection else 'kept'} connection)"
        errors[name] = errors.get(name, 0) + 1
    answered = len([mark for mark in good if mark >= begin])
    return Seen(answered + len(bad), len(bad), errors, outage(good, begin, end), command, code)


class Application:
    """One database, two application hosts, three releases."""

    def __init__(self, options: Options, records: Records, folder: pathlib.Path) -> None:
        self.options = options
        self.records = records
        self.system = System(folder, ("ours", "rivals"), history=2000)
        self.ours, self.rivals = self.system.hosts
        self.releases = folder / "releases"
        self.npm: list[str] | None = None

    def facts(self) -> dict[str, t.Any]:
        pm2 = self.ours.pm2.run("--version", "--silent", check=False).stdout.strip().splitlines()
        return {"node": find_node().version, "pm2": pm2[-1] if pm2 else "?", "rate": self.options.rate}

    def run(self) -> dict[str, t.Any]:
        try:
            self._prepare()
            for number in range(self.options.runs):
                say(f"application, run {number + 1} of {self.options.runs}")
                for method in rotated(METHODS, number):
                    attempt(self.records, method, getattr(self, "_" + method.replace("-", "_")))
            return self.facts()
        finally:
            self.system.clear()

    # --- what is needed -------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        say("application: PostgreSQL, two PM2 daemons, releases, points")
        system = self.system
        system.make_folder()
        system.start_database()
        system.deploy_first()
        for host in system.hosts:
            # On a busy machine a second is too short for a new worker's first connection, whoever starts that worker.
            with (host.api / ".env").open("a", encoding="utf-8") as handle:
                handle.write("CONNECT_TIMEOUT_MS=4000\n")
            host.pm2.run("reload", app.APP_NAME)
        for version in (*GOOD, BAD):
            app.build_release(self.releases / version, 1, version)
        server = self.releases / BAD / "src" / "server.js"
        server.write_text(CANNOT_BOOT + server.read_text(encoding="utf-8"), encoding="utf-8")
        self._npm_cache()
        self._module("archived", version=GOOD[0])
        self._put(self.ours, GOOD[1])
        self.ours.pm2.run("reload", app.APP_NAME)
        self._wait(self.ours, GOOD[1])
        self._module("archived", version=GOOD[1])
        self._put(self.ours, BAD)
        self._module("archived", version=BAD)
        self._put(self.ours, GOOD[1])

    def _npm_cache(self) -> None:
        """npm ci from a cache, as on a server that has installed this before; without it the manual steps go without."""
        node = find_node()
        quiet = ("--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error")
        store = str(cache("bench") / "npm")
        scratch = self.releases / "npm"
        scratch.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(self.releases / GOOD[0] / name, scratch / name)
        for more in ("--prefer-offline", "--offline"):
            argv = [*node.npm, "ci", *quiet, "--cache", store, more]
            done = subprocess.run(argv, cwd=scratch, env=node.env(), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = " ".join((done.stderr or done.stdout).split())[:160]
                self.records.note(f"The manual steps were measured without npm ci, which cannot run here: {said}")
                return
        self.npm = argv

    def _put(self, host: AppHost, version: str) -> None:
        """The files of a release over those that are there, as the team deploys; no process notices yet."""
        source = self.releases / version
        shutil.rmtree(host.api / "src")
        shutil.copytree(source / "src", host.api / "src")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(source / name, host.api / name)

    def _version(self, host: AppHost) -> str:
        status, answer = host.health()
        return str(answer.get("version")) if status == 200 else ""

    def _wait(self, host: AppHost, version: str, timeout: float = 60) -> None:
        ports.wait_until(lambda: self._version(host) == version, f"{version} on {host.name}", timeout, 0.1)

    def _other(self, host: AppHost) -> str:
        """The good release that is not live."""
        return GOOD[1] if self._version(host) == GOOD[0] else GOOD[0]

    def _module(self, state: str, fails: bool = False, **more: t.Any) -> call.Ran:
        host = self.ours
        options = {
            "store": str(self.system.store),
            "system": "bench",
            "app": app.APP_NAME,
            "app_dir": str(host.api),
            "pm2_home": str(host.pm2.home),
            "pm2_bin": host.pm2.bin,
            "node_bin": host.pm2.node_bin,
            "port": host.port,
            "probes": [{"name": "health", "url": f"http://127.0.0.1:{host.port}/health"}],
            "version_path": "version",
            "state": state,
        }
        return call.module("pm2_rollback", {**options, **more}, fails)

    def _fresh(self) -> str:
        """The rivals' daemon anew: PM2 forgets workers that crashed while it reloaded, and they would answer in the next run."""
        host = self.rivals
        host.pm2.stop_daemon()
        host.pm2.start_daemon()
        if self._installed not in GOOD:
            self._put(host, GOOD[0])
        host.pm2.start(host.api / "ecosystem.config.js")
        self._wait(host, self._installed)
        return self._other(host)

    @property
    def _installed(self) -> str:
        """The version of the files on the rivals' host, whatever runs."""
        return str(json.loads((self.rivals.api / "package.json").read_text(encoding="utf-8"))["version"])

    def _pids(self, host: AppHost) -> dict[int, int]:
        return {each["pid"]: each["pm2_env"]["restart_time"] for each in host.pm2.apps(app.APP_NAME)}

    # --- one switch under load ------------------------------------------------------------------------------------------

    def _switch(self, method: str, host: AppHost, version: str, command: t.Callable[[], int]) -> None:
        """Run the command while customers pay, and write down what they saw. ``version`` shall serve afterwards."""
        folder = self.system.folder / "customers"
        shutil.rmtree(folder, ignore_errors=True)
        words = ("--port", host.port, "--folder", folder, "--rate", self.options.rate, "--retries", 0, "--no-callbacks", "--grace", 8)
        argv = [sys.executable, "-m", "tests.client", *(str(word) for word in words)]
        folder.mkdir()
        customers = processes.start(argv, log=folder / "client.log", cwd=ROOT)
        try:
            ports.wait_until(lambda: len(read(folder / "acks.jsonl", Ack)) >= self.options.rate, "payments to flow", 30, 0.2)
            begin = time.time()
            code = command()
            command_seconds = time.time() - begin
            time.sleep(TAIL)
            end = time.time()
        finally:
            processes.stop(customers, signum=signal.SIGTERM, timeout=30)
        failures = read(folder / "failures.jsonl", Failure)
        early = len([failure for failure in failures if failure.time < begin])
        if early:
            self.records.note(f"{method}: {early} requests of one run failed before the switch began; this machine was overloaded.")
        seen = counted(read(folder / "acks.jsonl", Ack), failures, begin, end, command_seconds, code)
        serving = self._version(host) == version
        say(f"    {method}: {seen.failed} failed of {seen.requests}, exit {code}, {version if serving else 'DOWN'} {seen.errors or ''}")
        values = {
            "requests": seen.requests,
            "failed": seen.failed,
            "outage": seen.outage,
            "command": seen.command,
            "exit code": seen.code,
            "serving": serving,
        }
        for name, value in values.items():
            self.records.add(method, name, float(value))
        for error, count in seen.errors.items():
            self.records.add(method, f"failed: {error}", float(count))

    # --- methods --------------------------------------------------------------------------------------------------------

    def _ours(self) -> None:
        target = self._other(self.ours)
        staged = self._module("staged", version=target)
        self.records.add("ours", "staging", staged.seconds)
        told: list[call.Ran] = []

        def command() -> int:
            told.append(self._module("live", version=target))
            return 0

        self._switch("ours", self.ours, target, command)
        for step, seconds in told[0].steps().items():
            self.records.add("ours", f"switch: {step}", seconds)

    def _ours_bad(self) -> None:
        """The trial on a spare port would refuse this release long before; it is switched off to show the switch itself."""
        live = self._version(self.ours)
        before = self._pids(self.ours)

        def command() -> int:
            told.append(self._module("live", fails=True, version=BAD, preflight=False))
            return 0 if told[0].ok else 1

        told: list[call.Ran] = []
        self._switch("ours-bad", self.ours, live, command)
        if told[0].ok or "undone" not in told[0].result:  # refused before the switch: that would prove nothing
            raise call.Failed(f"pm2_rollback never tried the bad release: {told[0].result.get('msg')}")
        self.records.add("ours-bad", "untouched", float(bool(before) and self._pids(self.ours) == before))

    def _reload(self) -> None:
        target = self._fresh()
        self._put(self.rivals, target)
        self._switch("reload", self.rivals, target, lambda: self._pm2("reload", app.APP_NAME))

    def _recreate(self) -> None:
        target = self._fresh()
        self._put(self.rivals, target)
        self._switch("recreate", self.rivals, target, self._delete_and_start)

    def _manual(self) -> None:
        target = self._fresh()
        api = self.rivals.api
        backup = api / "rollback-versions" / "backup_bench"
        shutil.rmtree(backup, ignore_errors=True)
        backup.mkdir(parents=True)
        shutil.copytree(self.releases / target / "src", backup / "src")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(self.releases / target / name, backup / name)
        self.records.note(
            "Two of the team's manual steps were mended, or they would have restored nothing: 'pm2 rollback' does not exist, and "
            "'cp -r backup/src ./src' copies into ./src/src."
        )

        def command() -> int:
            code = self._pm2("stop", app.APP_NAME)
            call.program(["cp", "-r", f"{backup}/src/.", "./src"], cwd=api)
            call.program(["cp", f"{backup}/package.json", f"{backup}/package-lock.json", "./"], cwd=api)
            if self.npm is not None:
                call.program(self.npm, cwd=api, env=find_node().env())
            return self._pm2("restart", app.APP_NAME) or code

        self._switch("manual", self.rivals, target, command)

    def _reload_bad(self) -> None:
        self._fresh()
        live = self._version(self.rivals)
        self._put(self.rivals, BAD)
        self._switch("reload-bad", self.rivals, live, lambda: self._pm2("reload", app.APP_NAME))

    def _pm2(self, *words: str) -> int:
        return self.rivals.pm2.run(*words, check=False).returncode

    def _delete_and_start(self) -> int:
        code = self._pm2("delete", app.APP_NAME)
        done = self.rivals.pm2.run("start", str(self.rivals.api / "ecosystem.config.js"), cwd=self.rivals.api, check=False)
        return done.returncode or code


def measure(options: Options, records: Records, folder: pathlib.Path) -> dict[str, t.Any]:
    """Run all of part B; facts about where it ran."""
    return Application(options, records, folder).run()
