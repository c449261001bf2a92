# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook said, and a playbook that stands still."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import typing as t

from tests.lab import ports, processes

if t.TYPE_CHECKING:
    from tests.e2e.harness import World

TIMEOUT = 300.0
RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)
OUTCOME = re.compile(r"^(DONE|UNDONE|FAILED|STOPPED|HOSTS LEFT BEHIND): (\w+) of (\S+)$", re.MULTILINE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Played:
    """What one ansible-playbook said."""

    rc: int
    text: str

    @property
    def flat(self) -> str:
        """The text with line breaks and indentation folded away."""
        return " ".join(self.text.split())

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        return {
            host: {key: int(value) for key, value in (pair.split("=") for pair in rest.split())} for host, rest in RECAP.findall(self.text)
        }

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.recap.values())

    @property
    def outcome(self) -> str | None:
        """DONE, UNDONE, ...: the heading of the last table."""
        found = OUTCOME.findall(self.text)
        return found[-1][0] if found else None

    @property
    def facts(self) -> dict[str, str]:
        """The lines under that heading: version, outage, took, by, run."""
        start = [match.end() for match in OUTCOME.finditer(self.text)]
        if not start:
            return {}
        block = self.text[start[-1] :].lstrip("\n").split("\n\n")[0]
        return dict(re.findall(r"^  (\w+):\s+(.+)$", block, re.MULTILINE))

    @property
    def run(self) -> str:
        return self.facts["run"]

    def json(self) -> t.Any:
        """The JSON document in the output."""
        for match in re.finditer(r"^[\[{]", self.text, re.MULTILINE):
            with contextlib.suppress(ValueError):
                return json.JSONDecoder().raw_decode(self.text[match.start() :])[0]
        raise AssertionError(f"no JSON in:\n{self.text}")

    def ok(self) -> Played:
        assert self.rc == 0, f"exit code {self.rc}:\n{self.text}"
        return self

    def refused(self, *sentences: str) -> Played:
        """Failed, and said so."""
        assert self.rc != 0, f"exit code 0, expected a refusal:\n{self.text}"
        for sentence in sentences:
            assert sentence in self.flat, f"{sentence!r} is not in:\n{self.text}"
        return self


class Stopped:
    """A playbook that stands still."""

    def __init__(self, world: World, process: subprocess.Popen[bytes], log: t.IO[bytes], mark: pathlib.Path) -> None:
        self.world = world
        self.process = process
        self._module = 0
        self._frozen: list[int] = []
        self._log = log
        self._mark = mark

    @property
    def module(self) -> int:
        """The process that stands still; 0 before it does."""
        while not self._module and self._mark.exists():  # the file is there a moment before its content
            with contextlib.suppress(OSError, ValueError):
                self._module = int(self._mark.read_text(encoding="ascii"))
        return self._module

    def stands(self) -> bool:
        """Whether it stands still, perhaps again."""
        return self._mark.exists()

    def text(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL to the controller, its workers and its modules at once."""
        family = [self.process.pid, *processes.descendants(self.process.pid)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family[1:]:
            processes.signal_pid(pid, signal.SIGKILL)
        self.process.wait(30)
        processes.wait_gone(family, 10)

    def kill_controller(self) -> None:
        """SIGKILL to ansible-playbook and its workers only: the module knows nothing of it."""
        modules = {self.module, *processes.descendants(self.module)} if self.module else set()
        family = [pid for pid in processes.descendants(self.process.pid) if pid not in modules]
        for pid in [self.process.pid, *family]:
            processes.signal_pid(pid, signal.SIGKILL)
        self.process.wait(30)

    def freeze_controller(self) -> None:
        """SIGSTOP to ansible-playbook and its workers: alive, and late. :meth:`finish` lets them go on."""
        modules = {self.module, *processes.descendants(self.module)} if self.module else set()
        self._frozen = [pid for pid in [self.process.pid, *processes.descendants(self.process.pid)] if pid not in modules]
        for pid in self._frozen:
            processes.signal_pid(pid, signal.SIGSTOP)

    def interrupt(self, signum: int) -> int:
        """Ctrl-C goes to every process of the terminal, SIGTERM to the controller alone. The exit code."""
        if signum == signal.SIGINT:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)
        return self.process.wait(60)

    def go_on(self) -> None:
        self._mark.unlink(missing_ok=True)

    def finish(self) -> Played:
        """Let it go on to its end."""
        self.go_on()
        for pid in self._frozen:
            processes.signal_pid(pid, signal.SIGCONT)
        # The way back may come to the same place; it is not to stand still there.
        ports.wait_until(lambda: self.go_on() or self.process.poll() is not None, "the playbook to end", TIMEOUT)
        return self.world._played(self.process.returncode, self.text())
