# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part D: hosts that are reached by ssh. What customers notice of a rollback of three of them behind a proxy, how long payments are
taken after somebody typed an emergency, and what an application rollback costs on 1, 10 and 50 hosts."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import pathlib
import resource
import statistics
import subprocess
import time
import typing as t

from tests.bench.call import Failed
from tests.bench.common import Options, attempt, say
from tests.bench.stats import Records, rotated
from tests.e2e.hosts import GOOD, NEXT, Hosts
from tests.e2e.played import Played
from tests.lab import docker as lab_docker
from tests.lab import images, ports
from tests.lab.docker import Engine
from tests.lab.fleet import API, FIVE, SSH, Host
from tests.lab.node import NodeMissing

GRADUAL = ("gradual", "server-by-server", "emergency")
SIZES = (1, 10, 50)  # hosts
RUNS = 3  # at most, of each of these but the largest, which is played once
RATE = 30.0
FORKS = 10  # the hosts share the controller's processors
TAIL = 1.5
OLD = "/srv/payments/old-release"
CALLBACKS = pathlib.Path(__file__).resolve().parent / "callbacks"
PM2 = "sudo -u payments env PM2_HOME=/home/payments/.pm2 HOME=/home/payments /opt/pm2/bin/pm2"
# stop, copy the kept files back, restart. `npm ci` is left out: nothing in the dependencies differs, and no package comes from afar.
COPY = f"sudo -u payments cp -a {OLD}/src {OLD}/package.json {OLD}/package-lock.json {API}/"
BY_HAND = f"{PM2} stop all && {COPY} && {PM2} restart all"


class Servers(Hosts):
    """Hosts on which playbooks are counted."""

    def environment_of_play(self) -> dict[str, str]:
        tally = {"ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "tally"}
        return {**super().environment_of_play(), **tally, "PAYOPS_TALLY": str(self.folder / "tally.json"), "ANSIBLE_FORKS": str(FORKS)}

    def must(self, playbook: str, **words: t.Any) -> Played:
        """A long playbook that has to succeed."""
        played = self.finish(self.start_play(playbook, **words), patience=3600)
        if played.rc != 0:
            raise Failed(f"{playbook} ended with {played.rc}: {played.flat[-600:]}")
        return played

    def tally(self) -> dict[str, int]:
        """What the last playbook was: results of tasks, and how many of them came from a module on a host."""
        return dict(json.loads((self.folder / "tally.json").read_text(encoding="utf-8")))

    def ssh(self, host: Host, line: str) -> None:
        """A line of shell there, over a connection that stays open."""
        path = f"ControlPath={self.folder}/ssh-%h"
        argv = ["ssh", *SSH.split(), "-o", path, "-i", str(self.key), f"deploy@{host.address}", line]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Failed(f"{host.name}: {line[:80]}: {done.stderr.strip()[-300:]}")


class Gradual:
    """Three application hosts behind a proxy, there and back; the way back is not measured."""

    def __init__(self, options: Options, records: Records, folder: pathlib.Path, engine: Engine) -> None:
        self.options, self.records = options, records
        self.servers = Servers(engine, folder, FIVE)

    def run(self) -> None:
        say("fleet: proxy, three application hosts, database; two releases and a point")
        servers = self.servers
        try:
            servers.start().set_up(GOOD)
            servers.inventory()
            servers.must("backup")
            for host in servers.apps:
                host.as_payments("cp", "-a", f"{API}/.", OLD)
            servers.deploy(1, NEXT)
            for number in range(self.options.runs):
                say(f"fleet, run {number + 1} of {self.options.runs}")
                for method in rotated(GRADUAL, number):
                    attempt(self.records, method, functools.partial(self._measure, method))
        finally:
            servers.clear()

    def _measure(self, method: str) -> None:
        self._all_have(NEXT)
        if method == "emergency":
            self._emergency()
            return
        with self.servers.paying(RATE, "--retries", "0", "--grace", "5"):
            time.sleep(TAIL)
            begin = time.monotonic()
            if method == "gradual":
                self.servers.must("rollback_gradual")
            else:
                self._server_by_server()
            seconds = time.monotonic() - begin
            time.sleep(TAIL)
        self._all_have(GOOD)
        report = self.servers.report()
        for measure, value in (("failed", report["failed"]), ("requests", report["requests"]), ("outage", report["outage_seconds"])):
            self.records.add(method, measure, value)
        self.records.add(method, "command", seconds)
        if method == "gradual":
            self.servers.must("undo")
        else:
            self.servers.deploy(1, NEXT)

    def _server_by_server(self) -> None:
        """As the team's runbook, on one server after the other: stop, copy, restart, look until it answers."""
        for host in self.servers.apps:
            self.servers.ssh(host, BY_HAND)
            self._await_good(host)

    @staticmethod
    def _await_good(host: Host) -> None:
        ports.wait_until(lambda: host.version() == GOOD, f"{GOOD} on {host.name}", 60)

    def _emergency(self) -> None:
        with self.servers.paying(RATE, "--retries", "0", "--grace", "5", closed=True):
            time.sleep(TAIL)
            begin, enter = time.monotonic(), time.time()
            self.servers.must("rollback_emergency")
            seconds = time.monotonic() - begin
            time.sleep(TAIL)
        self.records.add("emergency", "last payment", self.servers.last_payment() - enter)
        self.records.add("emergency", "command", seconds)
        self.servers.must("recover")

    def _all_have(self, version: str) -> None:
        found = {host.name: host.version() for host in self.servers.apps}
        if set(found.values()) == {version}:
            return
        if version == NEXT:  # whatever failed before and left them elsewhere has been written down
            self.servers.deploy(1, NEXT)
            return
        raise Failed(f"{found}, expected {version}")


class Crowd:
    """``rollback_application`` on more and more hosts. All of them, and the controller, share this machine's processors."""

    def __init__(self, options: Options, records: Records, folder: pathlib.Path, engine: Engine) -> None:
        self.options, self.records = options, records
        apps = {f"app{number:02d}": ["apps"] for number in range(1, max(SIZES) + 1)}
        self.servers = Servers(engine, folder, {"db1": ["database"], **apps})

    def run(self) -> None:
        say(f"fleet: {max(SIZES)} application hosts")
        try:
            self.servers.start().set_up(GOOD)
            for size in SIZES:
                attempt(self.records, f"hosts-{size}", functools.partial(self._measure, size))
        finally:
            self.servers.clear()

    def _measure(self, size: int) -> None:
        servers, method = self.servers, f"hosts-{size}"
        apps = servers.apps[:size]
        names = {host.name for host in apps}
        # fifty hosts on two processors take longer for everything than hosts of their own
        servers.inventory(only=names, rollback_pm2_wait_seconds=600)
        if apps[0].version() != GOOD:
            servers.deploy(1, GOOD, only=names)
        servers.must("backup")
        servers.deploy(1, NEXT, only=names)
        for number in range(1 if size == max(SIZES) else min(self.options.runs, RUNS)):
            if number:
                servers.must("undo")
            say(f"    {size} hosts, run {number + 1}")
            before, begin = self._processor(), time.monotonic()
            servers.must("rollback_application")
            seconds, processor = time.monotonic() - begin, self._processor() - before
            wrong = [host.name for host in apps if host.version() != GOOD]
            if wrong:
                raise Failed(f"{', '.join(wrong)} did not go back")
            tally = servers.tally()
            calls = tally["modules"] / size
            self.records.add(method, "wall", seconds)
            self.records.add(method, "controller", processor)
            self.records.add(method, "tasks", tally["results"] / size)
            self.records.add(method, "modules", calls)
            self.records.add(method, "floor", self._round_trip(apps) * calls)

    @staticmethod
    def _processor() -> float:
        """Seconds of processor of all children of this process that have ended, and of theirs: a playbook with its workers and ssh."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def _round_trip(self, apps: t.Sequence[Host]) -> float:
        """Seconds until a Python has started and ended on all of them at once, over connections that are open."""
        took = []
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(apps)) as pool:
            for unused in range(4):
                begin = time.monotonic()
                list(pool.map(lambda host: self.servers.ssh(host, "python3 -c pass"), apps))
                took.append(time.monotonic() - begin)
        return statistics.median(took[1:])  # the first has opened the connections


def measure(options: Options, records: Records, folder: pathlib.Path) -> dict[str, t.Any]:
    folder.mkdir(parents=True, exist_ok=True)
    methods = (*GRADUAL, *(f"hosts-{size}" for size in SIZES))
    reason = lab_docker.unusable() or images.unusable()
    if reason:
        for method in methods:
            records.miss(method, reason, failure=False)
        return {}
    try:
        with Engine(containers=True) as engine:
            Gradual(options, records, folder / "gradual", engine).run()
            Crowd(options, records, folder / "crowd", engine).run()
    except NodeMissing as exc:
        for method in methods:
            records.miss(method, str(exc), failure=False)
    return {"rate": RATE}
