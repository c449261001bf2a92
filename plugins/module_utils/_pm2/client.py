# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How PM2 is asked and told, and what is read behind its back: the daemon's owner and /proc.

PM2's exit codes are no verdict, an absent daemon answers ``[]`` and is started by asking, and ``pm2_env.cwd`` lies.
So: the daemon is checked before PM2 is called, and a process is believed for its pid, working directory and restarts.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import write_json
from ansible_collections.payops.rollback.plugins.module_utils._module import Cli, Completed
from ansible_collections.payops.rollback.plugins.module_utils._pm2.rpc import Refused, Unavailable, call
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import identity

START = "pm2-start-"
NOTED = "payops_cron_restart"  # in an entry whose timer was taken away: its times, see cron.py
ALIVE = ("online", "launching", "stopping", "waiting restart")


class Proc(t.NamedTuple):
    """One entry of ``pm2 jlist``, and what /proc says about it."""

    pm_id: t.Any
    name: str
    pid: int
    status: str
    restarts: int
    started: float  # seconds since the epoch
    exec_mode: str
    instance: t.Any
    cwd: str  # pm_cwd: the path it was started with
    script: str
    tree: int  # identity of the folder it really runs in; 0 when it does not run
    env: dict[str, t.Any]  # everything PM2 holds: secrets

    @property
    def alive(self) -> bool:
        return self.pid > 0 and self.status in ALIVE


def parse_jlist(text: str) -> list[dict[str, t.Any]]:
    """The JSON of ``pm2 jlist``, which may follow lines about PM2 itself."""
    for line in reversed(text.strip().splitlines()):
        if line.startswith("["):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, list):
                return [entry for entry in value if isinstance(entry, dict)]
    raise RollbackError(f"pm2 jlist gave no list: {text.strip()[:200]!r}. Expected JSON; try 'pm2 jlist' by hand as the same user.")


def proc_of(entry: dict[str, t.Any], proc: str = "/proc") -> Proc:
    env = entry.get("pm2_env") or {}
    if env.get(NOTED):
        env = {**env, "cron_restart": env[NOTED]}
    pid = int(entry.get("pid") or 0)
    return Proc(
        pm_id=entry.get("pm_id", env.get("pm_id")),
        name=str(entry.get("name")),
        pid=pid,
        status=str(env.get("status")),
        restarts=int(env.get("restart_time") or 0),
        started=float(env.get("pm_uptime") or 0) / 1000,
        exec_mode="cluster" if env.get("exec_mode") == "cluster_mode" else "fork",
        instance=env.get(env.get("instance_var") or "NODE_APP_INSTANCE"),
        cwd=str(env.get("pm_cwd") or ""),
        script=str(env.get("pm_exec_path") or ""),
        tree=identity(os.path.join(proc, str(pid), "cwd")) if pid else 0,
        env=env,
    )


class Daemon(t.NamedTuple):
    pid: int
    uid: int


class Pm2:
    def __init__(
        self,
        cli: Cli,
        home: str,
        scratch: str,
        pm2_bin: str,
        node_bin: str | None = None,
        user: str | None = None,
        proc: str = "/proc",
    ) -> None:
        self.cli = cli
        self.home = os.path.normpath(home)
        self.scratch = scratch
        self.pm2_bin = pm2_bin
        self.node_bin = node_bin
        self.user = user
        self.proc = proc

    # -- the daemon --------------------------------------------------------------------------------------------------

    def daemon(self) -> Daemon | None:
        """The daemon of this PM2_HOME, found without PM2 (asking PM2 would start one)."""
        try:
            with open(os.path.join(self.home, "pm2.pid"), encoding="ascii") as handle:
                pid = int(handle.read().strip())
            with open(os.path.join(self.proc, str(pid), "cmdline"), "rb") as handle:
                command = handle.read().replace(b"\0", b" ").decode("utf-8", "replace")
            uid = os.stat(os.path.join(self.proc, str(pid))).st_uid
        except (OSError, ValueError):
            return None
        if "God Daemon" not in command:
            return None
        return Daemon(pid, uid)

    def require(self) -> Daemon:
        """The daemon, or why it cannot be used."""
        me = os.geteuid()
        if self.user is not None:
            try:
                wanted = pwd.getpwnam(self.user).pw_uid
            except KeyError:
                raise RollbackError(
                    f"The user {self.user!r} does not exist on this host. Set user (rollback_pm2_user) to the owner of the PM2 daemon."
                ) from None
            if wanted != me:
                raise RollbackError(
                    f"This task runs as {_user(me)}, but PM2 belongs to {self.user} (option user). "
                    f"Set become_user: {self.user} on the task (rollback_pm2_user in an inventory)."
                )
        if not os.path.isdir(self.home):
            raise RollbackError(
                f"PM2_HOME {self.home} does not exist. PM2 keeps one daemon per folder and user; find the right one with: "
                "ps -eo user,args | grep 'God Daemon'"
            )
        daemon = self.daemon()
        if daemon is None:
            raise RollbackError(
                f"PM2 is not running: no daemon for PM2_HOME {self.home} (user {_user(me)}). Nothing was touched; an empty list would not mean "
                f"that the application is stopped. Start it with 'PM2_HOME={self.home} pm2 resurrect', or correct pm2_home "
                "(rollback_pm2_home) and become_user (rollback_pm2_user)."
            )
        if daemon.uid != me:
            raise RollbackError(
                f"The PM2 daemon of {self.home} (pid {daemon.pid}) belongs to {_user(daemon.uid)}, but this task runs as {_user(me)}. "
                f"Set become_user: {_user(daemon.uid)} on the task (rollback_pm2_user in an inventory)."
            )
        return daemon

    # -- calling -----------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        if self.node_bin:
            path = f"{os.path.dirname(self.node_bin)}:{path}"
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = os.environ.get("HOME", "/")
        return {"PATH": path, "HOME": home, "PM2_HOME": self.home, "PM2_NO_INTERACTION": "true", "NO_COLOR": "1", "LANG": "C.UTF-8"}

    def run(self, argv: t.Sequence[str]) -> Completed:
        """A program with nothing but our own environment: PM2 would merge the caller's into the application's."""
        clean = [f"{key}={value}" for key, value in self.environment().items()]
        return self.cli(["env", "-i", *clean, *argv], cwd="/")

    def call(self, *args: str) -> Completed:
        program = [self.node_bin, os.path.realpath(self.pm2_bin)] if self.node_bin else [self.pm2_bin]
        return self.run([*program, *args, "--silent"])

    def processes(self) -> list[Proc]:
        self.require()
        try:
            entries = call(os.path.join(self.home, "rpc.sock"), "getMonitorData", {})
        except (Unavailable, Refused):
            entries = None
        if not isinstance(entries, list):
            done = self.call("jlist")
            if done.rc != 0:
                raise RollbackError(f"pm2 jlist failed (rc {done.rc}): {done.stderr.strip()[-300:]}")
            entries = parse_jlist(done.stdout)
        return [proc_of(entry, self.proc) for entry in entries if isinstance(entry, dict)]

    def add(self, entry: dict[str, t.Any]) -> None:
        """Put an entry as PM2 keeps it into its list, as ``pm2 resurrect`` does: one of status ``stopped`` is not started."""
        call(os.path.join(self.home, "rpc.sock"), "prepare", entry)

    def delete(self, pm_id: t.Any) -> None:
        """Delete one entry. Read the list afterwards."""
        socket = os.path.join(self.home, "rpc.sock")
        try:
            # The daemon forgets no watch by itself: at the next change of a file it would start whatever has that name by then.
            with contextlib.suppress(Refused):
                call(socket, "stopWatch", "deleteProcessId", pm_id)
            call(socket, "deleteProcessId", pm_id)
        except Unavailable:
            self.call("delete", str(pm_id))
        except Refused:
            return

    def named(self, *names: str) -> list[Proc]:
        return [process for process in self.processes() if process.name in names]

    def strays(self, mine: t.Callable[[str], bool]) -> list[int]:
        """Processes that the daemon started for such a name and then forgot.

        PM2 starts a worker again that exits while it is being deleted, and then has no entry for it: it would serve and write unseen.
        """
        daemon = self.daemon()
        found = [entry for pid in children_of(daemon.pid, self.proc) for entry in [started_as(pid, self.proc)] if entry] if daemon else []
        wanted = [(pid, pm_id) for pid, name, pm_id in found if mine(name)]
        known = {str(process.pm_id) for process in self.processes()} if wanted else set()
        return [pid for pid, pm_id in wanted if pm_id not in known]

    def start(self, definition: dict[str, t.Any]) -> None:
        """Start an application by a file of mode 0600. The exit code is no verdict; see ``verdict``."""
        path = os.path.join(self.scratch, f"{START}{os.getpid()}.json")
        try:
            write_json(path, {"apps": [definition]})
            done = self.call("start", path)
        finally:
            if os.path.exists(path):
                os.unlink(path)
        if done.rc != 0:
            raise RollbackError(f"pm2 start {definition['name']} failed (rc {done.rc}): {(done.stderr or done.stdout).strip()[-300:]}")

    def sweep(self) -> None:
        """Remove what a killed module left of its start files: they hold the whole environment."""
        for path in glob.glob(os.path.join(glob.escape(self.scratch), f"{START}*.json*")):
            writer = os.path.basename(path)[len(START) :].partition(".")[0]
            if not os.path.exists(os.path.join(self.proc, writer)):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def act(self, what: str, target: str) -> Completed:
        """``stop`` or ``restart`` by name. An unknown name is no error: read the list afterwards."""
        return self.call(what, target)


def children_of(parent: int, proc: str = "/proc") -> list[int]:
    """Process ids whose parent is ``parent``; zombies do not count."""
    found = []
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                with open(os.path.join(proc, name, "stat"), encoding="utf-8", errors="replace") as handle:
                    fields = handle.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] not in ("Z", "X"):
                found.append(int(name))
    return found


def started_as(pid: int, proc: str = "/proc") -> tuple[int, str, str] | None:
    """(pid, name, id) under which PM2 started a process, as its environment says."""
    try:
        with open(os.path.join(proc, str(pid), "environ"), "rb") as handle:
            env = dict(item.partition("=")[::2] for item in handle.read().decode("utf-8", "replace").split("\0"))
        known = json.loads(env["pm2_env"]) if "pm2_env" in env else env
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or "name" not in known or "pm_id" not in known:
        return None
    return pid, str(known["name"]), str(known["pm_id"])


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
