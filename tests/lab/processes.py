# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that a test owns: started in a session of their own, ended by their process id and never by a name."""

from __future__ import annotations

import ctypes
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import threading
import time
import typing as t

PR_SET_PDEATHSIG = 1


def unprivileged_user() -> str | None:
    """Whom servers run as that refuse root: ``postgres`` where it exists, else ``nobody``; None for an ordinary user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise RuntimeError("running as root and neither the user postgres nor nobody exists")


def as_user(user: str | None) -> dict[str, t.Any]:
    """Arguments for :mod:`subprocess` that drop to ``user`` (nothing to drop for None)."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def user_can_run(user: str | None, argv: t.Sequence[str]) -> bool:
    """Whether the user may execute this program, tried for real: a checkout below /root is closed to others."""
    try:
        done = subprocess.run(list(argv), capture_output=True, timeout=20, check=False, cwd="/", **as_user(user))
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _die_with_parent(signum: int) -> t.Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)

    return arm


def start(
    argv: t.Sequence[str],
    *,
    log: pathlib.Path | None = None,
    user: str | None = None,
    env: t.Mapping[str, str] | None = None,
    cwd: str | pathlib.Path | None = None,
    outlive: bool = False,
    end_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, output to ``log``.

    Unless it shall ``outlive`` us the kernel sends it ``end_signal`` when this process dies, even by kill -9, so that
    an interrupted test run leaves no servers behind.
    """
    arm: t.Callable[[], None] | None = None
    if not outlive and sys.platform.startswith("linux") and threading.current_thread() is threading.main_thread():
        arm = _die_with_parent(end_signal)
    out: t.IO[bytes] | int = subprocess.DEVNULL if log is None else log.open("ab")
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=arm,
            **as_user(user),
        )
    finally:
        if not isinstance(out, int):
            out.close()


def alive(pid: int) -> bool:
    """Whether a process with this id exists and is not a zombie."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Children, their children and so on."""
    found: list[int] = []
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            found.append(child)
            todo.append(child)
    return found


def signal_pid(pid: int, signum: int) -> bool:
    assert pid > 0, "a signal to 0 would go to the whole group of the tests"
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def wait_gone(pids: t.Iterable[int], timeout: float) -> list[int]:
    """Wait for processes to end; returns those that are still there."""
    deadline = time.monotonic() + timeout
    left = list(pids)
    while left:
        left = [pid for pid in left if alive(pid)]
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    return left


def stop(process: subprocess.Popen[bytes] | int, *, signum: int = signal.SIGTERM, timeout: float = 15.0) -> int | None:
    """End one process politely, then by SIGKILL; its exit code if it was our child."""
    pid = process if isinstance(process, int) else process.pid
    if isinstance(process, subprocess.Popen):
        if process.poll() is None:
            process.send_signal(signum)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout)
        return process.returncode
    if signal_pid(pid, signum) and wait_gone([pid], timeout):
        signal_pid(pid, signal.SIGKILL)
        wait_gone([pid], timeout)
    return None


def stop_group(process: subprocess.Popen[bytes], *, signum: int = signal.SIGTERM, timeout: float = 15.0) -> int | None:
    """End a process started by :func:`start` with everything in its process group."""
    group = process.pid
    if process.poll() is None:
        os.killpg(group, signum)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait(timeout)
    return process.returncode
