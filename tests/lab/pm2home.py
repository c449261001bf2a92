# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PM2 daemon of its own for a test: its own PM2_HOME, ended by process id."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import typing as t

from tests.lab import ports, processes
from tests.lab.node import Pm2Program, install_pm2


class Pm2Error(RuntimeError):
    """A PM2 command failed."""


class Pm2Home:
    """One PM2 daemon. The folder is short on purpose: its sockets must fit into a socket address."""

    def __init__(self, home: str | os.PathLike[str] | None = None, program: Pm2Program | None = None) -> None:
        self.program = program or install_pm2()
        self.home = pathlib.Path(home) if home is not None else pathlib.Path(tempfile.mkdtemp(prefix="payops-pm2-"))
        self.home.mkdir(parents=True, exist_ok=True)
        # In front of every command; `setpriv ...` makes the daemon another user's.
        self.prefix: tuple[str, ...] = ()

    @property
    def bin(self) -> str:
        return str(self.program.bin)

    @property
    def node_bin(self) -> str:
        return str(self.program.node.bin)

    def env(self, extra: t.Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment for the pm2 program; without the caller's PM2_*, NODE_* and application variables."""
        kept = {key: value for key, value in self.program.node.env().items() if not key.startswith(("PM2_", "NODE_", "PG", "DATABASE_"))}
        kept.pop("PORT", None)
        return {**kept, "PM2_HOME": str(self.home), "PM2_NO_INTERACTION": "true", "NO_COLOR": "1", **(extra or {})}

    def run(
        self,
        *args: str,
        cwd: str | os.PathLike[str] | None = None,
        env: t.Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run one pm2 command."""
        done = subprocess.run(
            [*self.prefix, self.bin, *args], cwd=cwd or "/", env=self.env(env), capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise Pm2Error(f"pm2 {' '.join(args)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done

    @property
    def daemon_pid(self) -> int | None:
        """The daemon's process id while it lives; never starts one."""
        try:
            pid = int((self.home / "pm2.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if processes.alive(pid) else None

    def start_daemon(self) -> int:
        self.run("ping", "--silent")
        return ports.wait_until(lambda: self.daemon_pid, "the PM2 daemon")

    def jlist(self) -> list[dict[str, t.Any]]:
        """What PM2 runs; an empty list without starting a daemon when there is none."""
        if self.daemon_pid is None:
            return []
        return list(json.loads(self.run("jlist", "--silent").stdout))

    def apps(self, name: str) -> list[dict[str, t.Any]]:
        return [each for each in self.jlist() if each["name"] == name]

    def start(self, ecosystem: str | os.PathLike[str], env: t.Mapping[str, str] | None = None) -> None:
        """``pm2 start`` an ecosystem file; PM2's exit code says little, so look at :meth:`apps` or the port afterwards."""
        self.run("start", str(ecosystem), cwd=pathlib.Path(ecosystem).parent, env=env)

    def kill9(self) -> None:
        """SIGKILL to the daemon alone."""
        pid = self.daemon_pid
        if pid is not None:
            processes.signal_pid(pid, signal.SIGKILL)
            processes.wait_gone([pid], 10)

    def stop_daemon(self) -> None:
        """End the daemon and everything it started."""
        pid = self.daemon_pid
        if pid is None:
            return
        family = [pid, *processes.descendants(pid)]
        try:
            self.run("kill", "--silent", check=False, timeout=30)
        except subprocess.TimeoutExpired:
            pass
        for left in processes.wait_gone(family, 8):
            processes.signal_pid(left, signal.SIGKILL)
        processes.wait_gone(family, 5)

    def destroy(self) -> None:
        self.stop_daemon()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Pm2Home:
        self.start_daemon()
        return self

    def __exit__(self, *exc: object) -> None:
        self.destroy()
