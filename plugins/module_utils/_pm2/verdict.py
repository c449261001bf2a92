# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Does the release run? Never by an exit code: by pids, working directories, restarts that stay put, and probes."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._mask import dotenv, mask
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2, Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import identity

POLL = 0.05
RESTARTS = 2
TAIL = 1 << 16  # bytes of an error log that are looked at


class Demand(t.NamedTuple):
    """What must become true of all instances of one name."""

    name: str
    tree: int  # the tree whose files it must run
    inside: str  # its folder below the tree
    instances: int
    since: float  # seconds since the epoch
    stable: float
    wait: float


def shortcomings(demand: Demand, processes: t.Sequence[Proc], base: str) -> list[str]:
    """What is not (yet) as demanded, one phrase each. ``base`` is where the tree lies now."""
    found = []
    own = [process for process in processes if process.name == demand.name]
    if len(own) != demand.instances:
        found.append(f"{len(own)} of {demand.instances} instances are in PM2's list")
    wanted = identity(os.path.join(base, demand.inside)) if demand.inside != "." else demand.tree
    for process in own:
        who = f"instance {process.pm_id}"
        if str(process.pm_id).startswith("_old_"):
            found.append(f"{who} is a leftover of a reload")
        elif process.status != "online":
            found.append(f"{who} is {process.status}")
        elif process.started <= demand.since - 0.001:
            found.append(f"{who} (pid {process.pid}) has been running since before the switch")
        elif process.tree != wanted:
            found.append(f"{who} (pid {process.pid}) runs another release")
    return found


def hopeless(demand: Demand, processes: t.Sequence[Proc], before: t.Mapping[str, int] | None = None) -> str | None:
    """A reason not to wait any longer. ``before``: the restarts that each instance had at the first look; PM2 never forgets one."""
    for process in processes:
        if process.name == demand.name:
            restarts = process.restarts - (before or {}).get(str(process.pm_id), 0)
            if process.status in ("errored", "stopped"):
                return f"instance {process.pm_id} is {process.status} after {restarts} restarts"
            if restarts >= RESTARTS:
                return f"instance {process.pm_id} was restarted {restarts} times"
    return None


def await_processes(pm2: Pm2, demand: Demand, base: t.Callable[[], str], definition: Definition | None = None) -> list[Proc]:
    """Wait until everything demanded holds and nothing restarts for ``stable`` seconds; fail with what is missing."""
    deadline = time.monotonic() + demand.wait
    calm_since, calm = 0.0, None
    before: dict[str, int] = {}
    while True:
        processes = pm2.named(demand.name)
        for process in processes:
            # What was started for this demand counts from its first boot; what ran before may have been restarted by people for months.
            before.setdefault(str(process.pm_id), 0 if demand.since else process.restarts)
        missing = shortcomings(demand, processes, base())
        if not missing:
            picture = sorted((str(process.pm_id), process.pid, process.restarts) for process in processes)
            if picture != calm:
                calm, calm_since = picture, time.monotonic()
            if time.monotonic() - calm_since >= demand.stable:
                return processes
        else:
            calm = None
        reason = hopeless(demand, processes, before)
        if reason or time.monotonic() >= deadline:
            what = reason or f"after {demand.wait:.0f} s " + ("; ".join(missing) or "it does not stay stable")
            raise RollbackError(f"{demand.name} does not run as it should: {what}.{_tail(processes, definition)}", verdict=missing)
        time.sleep(POLL)


def _tail(processes: t.Sequence[Proc], definition: Definition | None) -> str:
    """The end of the application's error log, without its secrets."""
    for process in processes:
        path = str(process.env.get("pm_err_log_path") or "")
        try:
            with open(path, "rb") as handle:
                cut = max(0, os.path.getsize(path) - TAIL)
                handle.seek(cut)
                # Half a line may begin with half a secret.
                lines = handle.read().decode("utf-8", "replace").splitlines()[1 if cut else 0 :]
        except OSError:
            continue
        told = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("at ")][-6:]
        if told:
            own = definition or {}
            said = mask(" | ".join(told), own.get("env", {}), str(own.get("name", "")), dotenv(process.cwd))
            return f" Its error log ends with: {said[-700:]}"
    return ""
