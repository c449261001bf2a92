# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The end of a rollback: the trees that only served going back are removed."""

from __future__ import annotations

import os

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import unshared
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Releases
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import remove_tree
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import identity, processes_inside
from ansible_collections.payops.rollback.plugins.module_utils._run import Run


def removable(releases: Releases) -> list[str]:
    """Trees that only serve going back: kept, staged and twins. Never the live one, nor releases that others made."""
    state = releases.state()
    own, live = releases.own(), releases.live_tree()
    kept = (state.get("kept") or {}).get("tree")
    return [
        path
        for tree, path in releases.layout.trees().items()
        if tree != live
        and os.path.dirname(path) == releases.layout.workshop
        and (tree in own or (releases.layout.kind == "exchange" and (tree == kept or os.path.basename(path).startswith("green-"))))
    ]


def complete(releases: Releases, run: Run) -> list[str]:
    """Remove what only served going back; the paths. Nothing that is in use, and nothing that alone holds something persistent."""
    state = releases.state()
    if state.get("switch"):
        raise RollbackError("A switch is unfinished; finish it with state=live, or go back with state=previous, before state=complete.")
    paths = removable(releases)
    if not paths and not any(state.get(key) for key in ("kept", "staged")):
        return []
    for path in (each for tree in paths for each in unshared(tree, releases.persistent, os.path.basename(tree).startswith("green-"))):
        name = os.path.relpath(path, releases.layout.workshop).split(os.sep, 1)[1]
        raise RollbackError(
            f"{path} is persistent and lies only in the tree that would be removed; nothing was removed. Move what is needed of it to "
            f"{os.path.join(releases.layout.live(), name)}, remove it, then complete again."
        )
    with run.step("complete", paths=paths):
        for path in paths:
            running = processes_inside(identity(path))
            if running:
                raise RollbackError(f"{path} is still the working directory of process {running[0]}. Stop it, then complete again.")
            remove_tree(path)
        releases.remember(kept=None, staged=None, undone=None, own={str(tree): name for tree, name in releases.own().items()})
    return paths
