# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which run records matter later, and which may go. Backups are many and tell nothing that their points do not tell; whatever
else ran (rollbacks, undos, completes, emergencies) is what undo, complete and resume go by, and what an auditor asks for."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._below import anything, remove_below
from ansible_collections.payops.rollback.plugins.module_utils._lock import list_runs, read_lock
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

RECENT = 10
KEPT_BACKUPS = 100
Record = t.Dict[str, t.Any]


def is_backup(run: Record) -> bool:
    """Whether this is the record of a backup that is over."""
    return run.get("intent") == "backup" and run.get("state") == "closed"


def told(runs: t.Sequence[Record], recent: int = RECENT) -> list[Record]:
    """What a new run must know of ``runs`` (newest first): the recent ones, and all older ones but backups, however old."""
    return [run for number, run in enumerate(runs) if number < recent or not is_backup(run)]


def prune_runs(paths: Paths, keep: int = KEPT_BACKUPS) -> list[str]:
    """Remove the records of old backups; the ids. Bookkeeping: what cannot be removed stays."""
    holder = (read_lock(paths) or {}).get("run")
    old = [str(run["run"]) for run in list_runs(paths) if is_backup(run) and run["run"] != holder][keep:]
    for run_id in old:
        remove_below(paths.store, paths.run_dir(run_id), anything)
    return [run_id for run_id in old if not os.path.exists(paths.run_dir(run_id))]
