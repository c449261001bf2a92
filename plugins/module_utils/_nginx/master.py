# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""A running nginx: is its configuration whole, reload it, and which workers are left of before.

After SIGHUP the master starts new workers and tells the old ones to end. They take nothing new from then on, say so in their title,
and live until their last request or session is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import Place
from ansible_collections.payops.rollback.plugins.module_utils._traffic.sockets import LISTENING, sockets_of

WORKER, ENDING = "nginx: worker process", "is shutting down"


class Broken(Exception):
    """What nginx -t says of the configuration."""


class Master:
    def __init__(self, cli: Cli, program: str, config: str, pid_file: str) -> None:
        self.cli = cli
        self.program = program
        self.config = config
        self.pid_file = pid_file

    # -- its configuration ---------------------------------------------------------------------------------------------

    def test(self) -> set[str]:
        """The files that make up the configuration, if it is whole."""
        if not os.access(self.program, os.X_OK):
            raise RollbackError(f"{self.program} cannot be run. Name nginx's program with the option program.")
        done = self.cli([self.program, "-T", "-c", self.config])
        if done.rc != 0:
            lines = [line for line in done.stderr.splitlines() if "[emerg]" in line or "[alert]" in line or "[crit]" in line]
            raise Broken(" ".join(lines or done.stderr.splitlines()[-3:]).strip() or f"exit code {done.rc}")
        return {os.path.realpath(path) for path in re.findall(r"^# configuration file (.+):$", done.stdout, re.MULTILINE)}

    # -- its processes -------------------------------------------------------------------------------------------------

    def pid(self) -> int:
        """The master's process id, if it is one and runs this configuration."""
        hint = "Start nginx, or name its file with the option pid_file; then run the same command again."
        try:
            with open(self.pid_file, encoding="ascii", errors="replace") as handle:
                pid = int(handle.read())
        except (OSError, ValueError) as exc:
            raise RollbackError(f"{self.pid_file} does not say which process nginx is ({exc}). Nothing was touched. {hint}") from None
        title = _title(pid)
        if not title.startswith("nginx: master process"):
            raise RollbackError(f"{self.pid_file} names process {pid}, which is no master of nginx. Nothing was touched. {hint}")
        own = re.search(r" -c (/\S+)", title)
        if own and os.path.realpath(own.group(1)) != os.path.realpath(self.config):
            raise RollbackError(
                f"The nginx that {self.pid_file} names runs with {own.group(1)}, not with {self.config}. Nothing was touched. "
                "Say which is meant with the option config."
            )
        return pid

    def workers(self) -> dict[int, bool]:
        """Each worker, and whether it still takes new connections."""
        master = self.pid()
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and _parent(int(entry)) == master:
                title = _title(int(entry))
                if title.startswith(WORKER):
                    found[int(entry)] = ENDING not in title
        return found

    def ending(self) -> list[int]:
        return sorted(pid for pid, takes in self.workers().items() if not takes)

    def reload(self, wait_seconds: float) -> bool:
        """New workers run, and no old one takes anything new. False if nginx kept what it had."""
        before = {pid for pid, takes in self.workers().items() if takes}
        os.kill(self.pid(), signal.SIGHUP)
        deadline = time.monotonic() + wait_seconds
        while True:
            taking = {pid for pid, takes in self.workers().items() if takes}
            if taking - before and not taking & before:
                return True
            if time.monotonic() >= deadline:
                if taking - before:
                    raise RollbackError(
                        f"nginx has new workers, but the old ones ({', '.join(map(str, sorted(taking & before)))}) still take connections "
                        f"after {wait_seconds:g} s. Look at its error log.",
                        changed=True,
                    )
                return False
            time.sleep(0.05)


def _title(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            return handle.read().replace(b"\0", b" ").decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            return int(handle.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


# -- what a worker is still busy with ------------------------------------------------------------------------------------


def peers(pid: int) -> list[Place]:
    """The far ends of all TCP connections of a process. Those of a client are there, too."""
    mine = set()
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it was closed in between
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
                if target.startswith("socket:["):
                    mine.add(target[len("socket:[") : -1])
        return [each.peer for each in sockets_of(pid) if each.inode in mine and each.state != LISTENING]
    except (FileNotFoundError, ProcessLookupError):  # it has ended; whoever may not look must not take that for nobody
        return []


def places_of(address: str, port: int) -> set[Place]:
    """The addresses behind a name."""
    try:
        return {(str(each[4][0]), port) for each in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)}
    except OSError:
        return set()
