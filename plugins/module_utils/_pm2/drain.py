# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Take workers of a cluster away without losing a request: they stop accepting, finish what they have, then go.

The message is the one that Node's own ``cluster.disconnect()`` sends, so it works for applications that handle no signal at all.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2, Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.rpc import Refused, Unavailable, call

POLL = 0.005
CALM = 2


def open_connections(pid: int, port: int, proc: str = "/proc") -> int:
    """How many clients are connected to this process at ``port``."""
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
        return 0
    count = 0
    for family in ("tcp", "tcp6"):
        try:
            with open(os.path.join(proc, str(pid), "net", family), encoding="ascii") as handle:
                lines = handle.read().splitlines()[1:]
        except OSError:
            continue
        wanted = f":{port:04X}"
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[3] == "01" and columns[1].endswith(wanted) and columns[9] in own:
                count += 1
    return count


def drain(pm2: Pm2, processes: t.Sequence[Proc], port: int, seconds: float) -> list[dict[str, t.Any]]:
    """Ask the cluster workers to finish, and delete each as soon as it has; after ``seconds`` whatever it still has open."""
    socket = os.path.join(pm2.home, "rpc.sock")
    told: list[dict[str, t.Any]] = []
    waiting: list[Proc] = []
    calm: dict[t.Any, int] = {}
    for process in processes:
        gentle = (
            seconds > 0 and process.exec_mode == "cluster" and process.status == "online" and not str(process.pm_id).startswith("_old_")
        )
        if gentle:
            packet = {"id": process.pm_id, "topic": "drain", "data": {}, "cmd": "NODE_CLUSTER", "act": "disconnect"}
            try:
                call(socket, "sendDataToProcessId", packet)
            except (Unavailable, Refused):
                gentle = False
        if gentle:
            waiting.append(process)
            calm[process.pm_id] = 0
        else:
            pm2.delete(process.pm_id)
            told.append({"id": str(process.pm_id), "drained": False})
    deadline = time.monotonic() + seconds
    while waiting:
        time.sleep(POLL)
        for process in list(waiting):
            count = open_connections(process.pid, port, pm2.proc)
            calm[process.pm_id] = calm[process.pm_id] + 1 if count == 0 else 0
            if calm[process.pm_id] >= CALM or time.monotonic() >= deadline:
                waiting.remove(process)
                pm2.delete(process.pm_id)
                told.append({"id": str(process.pm_id), "drained": count == 0, "open_connections": count})
    return told
