# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real playbooks on hosts that the controller reaches by ssh alone (tests/lab/fleet.py), and customers who pay at the entrance."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import typing as t

from tests.client import check
from tests.client.report import Ack, read
from tests.e2e.played import COLOURS, TIMEOUT, Played
from tests.lab import docker, fleet, images, ports, processes
from tests.lab.fixtures import unavailable
from tests.lab.node import ROOT, NodeMissing
from tests.lab.system import ansible_playbook

GOOD, NEXT = "1.0.0", "1.1.0"
SMALL = "app3"  # its store is small enough to be filled
NOTE = "ALTER TABLE payments ADD COLUMN note text;"


class Hosts(fleet.Fleet):
    """A fleet under test."""

    last: Played | None = None

    @property
    def clients(self) -> pathlib.Path:
        return self.folder / "clients"

    def start_play(self, playbook: str, *more: str, **words: t.Any) -> subprocess.Popen[str]:
        given = ["-e", json.dumps(words)] if words else []
        argv = [ansible_playbook(), f"playbooks/{playbook}.yml", "-i", str(self.folder / "inventory"), *given, *more]
        pipes: dict[str, t.Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(argv, cwd=ROOT, env=self.environment_of_play(), **pipes, text=True, errors="replace")

    def environment_of_play(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        # its connections are its own: one that another run has left would answer for a host that is gone
        connections = tempfile.mkdtemp(prefix="cp", dir=self.folder)
        env.update(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_NOCOLOR="1", ANSIBLE_NOCOWS="1")
        return {**env, "ANSIBLE_SSH_CONTROL_PATH_DIR": connections}

    def finish(self, process: subprocess.Popen[str], patience: float = TIMEOUT) -> Played:
        text = process.communicate(timeout=patience)[0]
        assert self.password not in text, "a password is in the output"
        self.last = Played(process.returncode, COLOURS.sub("", text))
        with (self.folder / "played.log").open("a", encoding="utf-8") as handle:
            handle.write(self.last.text)
        return self.last

    def play(self, playbook: str, *more: str, **words: t.Any) -> Played:
        return self.finish(self.start_play(playbook, *more, **words))

    @contextlib.contextmanager
    def paying(self, rate: float = 20, *more: str, closed: bool = False) -> t.Iterator[None]:
        """Customers pay at the entrance all the time; at the end every acknowledged payment is looked up, unless all is closed then."""
        (self.clients / "report.json").unlink(missing_ok=True)  # of the customers before
        argv = [sys.executable, "-m", "tests.client", "--host", self.entrance.address, "--port", str(self.entrance.port), *more]
        process = processes.start([*argv, "--folder", str(self.clients), "--rate", str(rate)], log=self.folder / "clients.log", cwd=ROOT)
        try:
            ports.wait_until(lambda: self.report().get("acknowledged"), "the first payment", 60)
            yield
        finally:
            processes.stop(process, signum=signal.SIGTERM, timeout=60)
        if not closed:
            self.payments_are_safe()

    def payments_are_safe(self) -> None:
        found = check.check(self.clients / "acks.jsonl", self.server.params(), fleet.DATABASE)
        assert found.ok, found.sentence()

    def report(self) -> dict[str, t.Any]:
        try:
            return dict(json.loads((self.clients / "report.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def last_payment(self) -> float:
        """When the last payment was acknowledged, as the customers' own file says."""
        return max(each.time for each in read(self.clients / "acks.jsonl", Ack))

    def shown(self, what: str) -> str:
        """The state of every host, for people who read the tests' output."""
        text = f"{what}: " + ", ".join(f"{name} {state}" for name, state in self.versions().items())
        print(text)
        return text

    def all_at(self, version: str, but: t.Container[str] = ()) -> None:
        found = {name: state for name, state in self.versions().items() if name not in but}
        wanted = {name: "answers 200" if self.hosts[name] in self.of("proxies") else version for name in found}
        assert found == wanted, f"{found}, expected {wanted}"

    def locks(self) -> list[str]:
        """Hosts on which a run holds the lock."""
        return [host.name for host in self.hosts.values() if host.succeeds("test", "-e", f"{fleet.STORE}/payments/.run/lock.json")]


def five_hosts() -> t.Iterator[Hosts]:
    """Proxy, three application hosts, database: a point of 1.0.0, then 1.1.0 with a migration of its own."""
    reason = docker.unusable() or images.unusable()
    if reason:
        unavailable(reason)
    with docker.Engine(containers=True) as engine:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="payops-hosts-"))
        made = Hosts(engine, folder, fleet.FIVE, small={SMALL: 96 * 1024**2})
        try:
            made.start().set_up(GOOD)
            made.inventory()
            made.play("backup").ok()
            made.deploy(1, NEXT, NOTE)
            yield made
        except NodeMissing as exc:
            unavailable(str(exc))
        finally:
            made.clear()
            shutil.rmtree(folder, ignore_errors=True)
