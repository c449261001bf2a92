# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Everything about one host that a run must know before it starts. Reads only."""

from __future__ import annotations

import getpass
import os
import platform
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._decide import identity, is_alive
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._history import told
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._legacy import list_legacy
from ansible_collections.payops.rollback.plugins.module_utils._lock import (
    acting_pids,
    list_runs,
    read_lock,
    summarise_journal,
    unfinished_runs,
)
from ansible_collections.payops.rollback.plugins.module_utils._pointset import list_points
from ansible_collections.payops.rollback.plugins.module_utils._releases import load_releases
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, read_journal

STATE = ".state.json"


def read_states(paths: Paths) -> tuple[dict[str, t.Any], list[str]]:
    """Component -> what it remembers between runs; a damaged file becomes a sentence."""
    states: dict[str, t.Any] = {}
    problems: list[str] = []
    if os.path.isdir(paths.run):
        for name in sorted(os.listdir(paths.run)):
            if name.endswith(STATE) and not name.startswith("."):
                try:
                    states[name[: -len(STATE)]] = read_json(os.path.join(paths.run, name))
                except (RollbackError, OSError) as exc:
                    problems.append(str(exc))
    return states, problems


def holds_of(states: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """What is held closed now, with deadline and the command that ends it."""
    return [
        {"component": component, **state["hold"]}
        for component, state in states.items()
        if isinstance(state, dict) and isinstance(state.get("hold"), dict)
    ]


def free_disk(path: str) -> dict[str, t.Any]:
    """Free and total bytes where the store is or will be, for the user that asks."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    found = os.statvfs(path)
    return {"path": path, "free": found.f_bavail * found.f_frsize, "total": found.f_blocks * found.f_frsize}


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.geteuid())


def overview(paths: Paths, legacy_path: str | None, with_points: bool = True) -> dict[str, t.Any]:
    """See RETURN of rollback_run_info."""
    here = identity()
    holder = read_lock(paths)
    runs = list_runs(paths)
    unfinished = [{**run, "steps": summarise_journal(read_journal(paths, run["run"]))} for run in unfinished_runs(runs, holder)]
    states, problems = read_states(paths)
    points = list_points(paths) if with_points else []
    if with_points and legacy_path:
        points += list_legacy(legacy_path)
    return {
        "lock": holder,
        "lock_alive": None if holder is None else is_alive(holder, here, time.time()),
        "lock_steps": None if holder is None else summarise_journal(read_journal(paths, holder["run"])),
        "acting": acting_pids(paths),
        "unfinished": unfinished,
        "runs": told(runs),
        "states": states,
        "holds": holds_of(states),
        "releases": load_releases(paths),
        "points": points,
        "problems": problems,
        "disk": free_disk(paths.system),
        "python": platform.python_version(),
        "user": {"name": user_name(), "uid": os.geteuid()},
        "machine": {key: here[key] for key in ("machine_id", "boot_id", "host")},
        "time": time.time(),
    }
