# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How an emergency comes in: the first module that stops something takes the lock itself, so that each host needs one call.

A store that is damaged or full keeps nobody from stopping: the module then acts on an empty store in memory, and says so.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

MEMORY = "/dev/shm"


def claim(paths: Paths, run_id: str, claimed: dict[str, t.Any], lease: int) -> None:
    """Take the lock of this host over from whoever holds it, another emergency included: stopping is what both want."""
    from ansible_collections.payops.rollback.plugins.module_utils._lock import open_run, read_lock

    holder = read_lock(paths)
    over = holder["run"] if holder is not None and holder.get("intent") == "emergency" and holder["run"] != run_id else None
    wanted = {**claimed, "run": run_id, "intent": "emergency", "evict": True, "resume": False, "takeover": over}
    open_run(paths, wanted, lease=lease)


def without_store(params: dict[str, t.Any], exc: Exception) -> bool:
    """Whether the emergency goes on after this error, from now on with an empty store in memory.

    Not where the lock was refused or lost: then it is another run that says what happens here.
    """
    details = getattr(exc, "details", {})
    if not params.get("claim") or isinstance(exc, Fenced) or "commands" in details:
        return False
    folder = tempfile.mkdtemp(prefix="payops-rollback-", dir=MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    params.update(store=folder, store_group=None, run_id=None, claim=None)
    return True
