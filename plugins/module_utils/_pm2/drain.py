# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Take workers of a cluster away without losing a request: they stop accepting, answer what they have, then go.

The message is the one that Node's own ``cluster.disconnect()`` sends, so it works for applications that handle no signal at all.

Node alone would lose a connection now and then: a worker without work hangs up on the daemon at once, while the daemon may just
be handing it a connection; then it exits, PM2 starts it again, and the new one is killed with requests. So an anchor is dropped
first: one connection of ours per worker, with half a request. The worker stays, says "not mine" to what comes late, and finishes
what it has. When every request that came was answered, it is deleted; clients may keep their connections open for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2, Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.rpc import Refused, Unavailable, call
from ansible_collections.payops.rollback.plugins.module_utils._pm2.traffic import Watch

POLL = 0.005
CALM = 0.5
CALM_ANCHORED = 0.3  # what a handler still does behind its answer
SETTLE = 0.25
GRACE = 0.5
ANCHOR_TRIES = 40


def listening_hosts(port: int, proc: str = "/proc") -> list[str]:
    """The addresses on which somebody listens at ``port``: the responder must use the same to share it."""
    return sorted({address for address, unused in _listening(port, proc)})


def listeners(port: int, but: t.Container[int], proc: str = "/proc") -> list[str]:
    """The programs that listen at ``port``, as "nginx (pid 17)", but for those process ids. Other users' are seen only by root."""
    inodes = {inode for unused, inode in _listening(port, proc)}
    found = []
    for name in os.listdir(proc) if inodes else []:
        if name.isdigit() and int(name) not in but and inodes & sockets_of(int(name), proc):
            with contextlib.suppress(OSError), open(os.path.join(proc, name, "comm"), encoding="utf-8", errors="replace") as handle:
                found.append(f"{handle.read().strip()} (pid {name})")
    return sorted(found)


def _listening(port: int, proc: str) -> list[tuple[str, str]]:
    found = []
    for family in ("tcp", "tcp6"):
        try:
            with open(os.path.join(proc, "net", family), encoding="ascii") as handle:
                lines = handle.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            address, unused, number = columns[1].rpartition(":")
            if columns[3] == "0A" and int(number, 16) == port:
                found.append((_address(address), columns[9]))
    return found


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = [raw[index : index + 4][::-1] for index in range(0, len(raw), 4)]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, b"".join(words))


def sockets_of(pid: int, proc: str = "/proc") -> set[str]:
    """The inodes of the sockets that a process has open."""
    folder = os.path.join(proc, str(pid), "fd")
    own = set()
    try:
        for name in os.listdir(folder):
            try:
                link = os.readlink(os.path.join(folder, name))
            except OSError:
                continue
            if link.startswith("socket:["):
                own.add(link[8:-1])
    except OSError:
        return set()
    return own


def established(port: int, proc: str = "/proc", pid: int | str = "self") -> list[tuple[int, str]]:
    """(port of the client, inode) of each connection that is open at ``port``."""
    found = []
    for family in ("tcp", "tcp6"):
        try:
            with open(os.path.join(proc, str(pid), "net", family), encoding="ascii") as handle:
                lines = handle.read().splitlines()[1:]
        except OSError:
            continue
        wanted = f":{port:04X}"
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[3] == "01" and columns[1].endswith(wanted):
                found.append((int(columns[2].rpartition(":")[2], 16), columns[9]))
    return found


def open_connections(pid: int, port: int, proc: str = "/proc", but: int = 0) -> int:
    """How many clients are connected to this process at ``port``, not counting the one with the port ``but``."""
    own = sockets_of(pid, proc)
    return sum(1 for client, inode in established(port, proc, pid) if inode in own and client != but)


def drop_anchors(pids: t.Sequence[int], hosts: t.Sequence[str], port: int, proc: str = "/proc") -> dict[int, socket.socket]:
    """One half request at each of these workers. The daemon deals connections in turn, so a few tries reach them all."""
    wanted: set[int] = set(pids)
    kept: dict[int, socket.socket] = {}
    host = next((name for name in hosts if name not in ("::", "0.0.0.0")), "127.0.0.1")
    for unused in range(ANCHOR_TRIES):
        if not wanted:
            break
        try:
            anchor = socket.create_connection((host, port), timeout=1)
            anchor.sendall(b"GET /")
        except OSError:
            break
        found = _taken_by(anchor.getsockname()[1], wanted, port, proc)
        if found is None:
            anchor.close()
        else:
            wanted.discard(found)
            kept[found] = anchor
    return kept


def _taken_by(client: int, pids: t.Collection[int], port: int, proc: str) -> int | None:
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        inodes = {inode for number, inode in established(port, proc) if number == client}
        for pid in pids:
            if inodes & sockets_of(pid, proc):
                return pid
        time.sleep(POLL)
    return None


def channel(pid: int, proc: str = "/proc") -> tuple[str, str] | None:
    """The worker's line to the daemon as (link in /proc, what it points to). Node closes it when the last request is finished."""
    try:
        with open(os.path.join(proc, str(pid), "environ"), "rb") as handle:
            variables = dict(item.partition(b"=")[::2] for item in handle.read().split(b"\0"))
        link = os.path.join(proc, str(pid), "fd", str(int(variables[b"NODE_CHANNEL_FD"])))
        return link, os.readlink(link)
    except (OSError, KeyError, ValueError):
        return None


class Leaving:
    """A worker that was asked to finish."""

    def __init__(self, process: Proc, proc: str, anchor: socket.socket | None, watch: Watch) -> None:
        self.process = process
        self.watch = watch
        self.proc = proc
        self.anchor = anchor
        self.anchor_port = int(anchor.getsockname()[1]) if anchor else 0
        self.line = channel(process.pid, proc)
        self.since = time.monotonic()
        self.calm_since: float | None = None

    def open(self) -> int:
        """Connections with a request that was not answered; all open ones where the kernel does not tell."""
        waiting = self.watch.busy(sockets_of(self.process.pid, self.proc), self.anchor_port)
        return open_connections(self.process.pid, self.watch.port, self.proc, self.anchor_port) if waiting is None else waiting

    def finished(self) -> bool:
        if not os.path.exists(os.path.join(self.proc, str(self.process.pid))):
            return True
        if self.anchor is None and self.line is not None:
            link, target = self.line
            try:
                return os.readlink(link) != target
            except OSError:
                return True
        # Nobody but the anchor has waited for an answer for a moment, and the worker has had the time to stop accepting.
        if self.open():
            self.calm_since = None
        elif self.calm_since is None:
            self.calm_since = time.monotonic()
        enough = CALM if self.anchor is None else CALM_ANCHORED
        calm = self.calm_since is not None and time.monotonic() - self.calm_since >= enough
        return calm and time.monotonic() - self.since >= SETTLE


def ask_to_leave(pm2: Pm2, process: Proc, anchor: socket.socket | None, watch: Watch) -> Leaving | None:
    """Tell one worker to finish; None where that is not possible and it can only be killed."""
    if process.exec_mode != "cluster" or process.status not in ("online", "launching") or not isinstance(process.pm_id, int):
        return None
    leaving = Leaving(process, pm2.proc, anchor, watch)
    packet = {"id": process.pm_id, "topic": "drain", "data": {}, "cmd": "NODE_CLUSTER", "act": "disconnect"}
    try:
        call(os.path.join(pm2.home, "rpc.sock"), "sendDataToProcessId", packet)
    except (Unavailable, Refused):
        return None
    return leaving


class Remover:
    """Deletes in the background: the daemon answers only when a process is gone, and the next one may be finished meanwhile."""

    def __init__(self, pm2: Pm2, until: float | None = None) -> None:
        self.pm2 = pm2
        self.until = until  # when a process that was asked to go is ended by force; None leaves that to PM2's kill_timeout
        self.told: list[dict[str, t.Any]] = []
        self.threads: list[threading.Thread] = []

    def delete(self, process: Proc, drained: bool, count: int, anchor: socket.socket | None) -> None:
        thread = threading.Thread(target=self._delete, args=(process, anchor), daemon=True)
        thread.start()
        self.threads.append(thread)
        self.told.append({"id": str(process.pm_id), "drained": drained, "open_connections": count})

    def _delete(self, process: Proc, anchor: socket.socket | None) -> None:
        if anchor is not None:
            # Taken up only when PM2 knows that the process is to stop; one that handles the signal then need not wait for it.
            threading.Timer(SETTLE, anchor.close).start()
        # What it still does has nothing to do with a request; a sick release often waits for a pool that never empties.
        force = (
            threading.Timer(max(GRACE, self.until - time.monotonic()), _end, (process.pid,))
            if self.until is not None and process.pid > 0
            else None
        )
        if force is not None:
            force.start()
        try:
            self.pm2.delete(process.pm_id)
        finally:
            if force is not None:
                force.cancel()

    def wait(self) -> list[dict[str, t.Any]]:
        for thread in self.threads:
            thread.join(60)
        return self.told


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def drain(pm2: Pm2, processes: t.Sequence[Proc], port: int, seconds: float) -> list[dict[str, t.Any]]:
    """Ask the cluster workers to finish, and delete each as soon as it has answered; after ``seconds`` whatever it still does."""
    deadline = time.monotonic() + seconds
    remover = Remover(pm2, deadline if seconds > 0 else None)
    watch = Watch(port)
    waiting: list[Leaving] = []
    workers = [process.pid for process in processes if process.exec_mode == "cluster" and process.status == "online"]
    anchors = drop_anchors(workers, listening_hosts(port, pm2.proc), port, pm2.proc) if seconds > 0 else {}
    for process in processes:
        leaving = ask_to_leave(pm2, process, anchors.get(process.pid), watch) if seconds > 0 else None
        if leaving is not None:
            waiting.append(leaving)
        else:
            remover.delete(process, False, 0, anchors.get(process.pid))
    while waiting:
        time.sleep(POLL)
        watch.look()
        for leaving in list(waiting):
            late = time.monotonic() >= deadline
            done = leaving.finished()
            if not (done or late):
                continue
            waiting.remove(leaving)
            if leaving.anchor is None and not late:
                # It may have exited by itself, and PM2 may have started it again: the new one may have requests already.
                again = _restarted(pm2, leaving.process)
                follower = ask_to_leave(pm2, again, None, watch) if again else None
                if follower is not None:
                    waiting.append(follower)
                    continue
            remover.delete(leaving.process, done, 0 if done else leaving.open(), leaving.anchor)
    return remover.wait()


def _restarted(pm2: Pm2, process: Proc) -> Proc | None:
    for found in pm2.named(process.name):
        if found.pm_id == process.pm_id and found.pid not in (0, process.pid) and found.status in ("online", "launching"):
            return found
    return None
