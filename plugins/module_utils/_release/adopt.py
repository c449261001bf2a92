# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Persistent paths (.env, uploads, logs) move into one shared folder once; every tree then carries the same links to it."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import fsync_dir
from ansible_collections.payops.rollback.plugins.module_utils._release.exchange import exchange
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import Layout
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import walk


def to_adopt(layout: Layout, persistent: t.Iterable[str]) -> list[str]:
    """The persistent paths that still lie inside the live tree."""
    live = layout.live()
    return [name for name in persistent if _real(os.path.join(live, name))]


def _real(path: str) -> bool:
    return os.path.lexists(path) and not os.path.islink(path)


def adopt(layout: Layout, name: str, tree: str | None = None) -> None:
    """Exchange one persistent path of a tree (the live one) with a link to where it lies then. Readers notice nothing."""
    inside = os.path.join(tree or layout.live(), name)
    outside = os.path.join(layout.shared, name)
    if os.path.islink(outside) and not os.path.exists(outside):
        os.unlink(outside)  # prepared by a run that was killed before the exchange
    if os.path.lexists(outside):
        quoted = [shlex.quote(path) for path in (inside, outside)]
        raise RollbackError(
            f"{inside} is persistent and should move to {outside}, but that exists already: what was a link has become "
            f"{'a folder' if os.path.isdir(inside) else 'a file'} (sed -i, an editor or a deployment does that), and the application uses that "
            f"now. Copy what is missing from {outside} into it, then: mv {quoted[1]} {quoted[1]}.old && mv {quoted[0]} {quoted[1]} && "
            f"ln -s {quoted[1]} {quoted[0]}"
        )
    os.makedirs(os.path.dirname(outside), 0o755, exist_ok=True)
    os.symlink(outside, outside)
    try:
        exchange(inside, outside)
    except OSError as exc:
        os.unlink(outside)
        reason = {errno.EBUSY: "it is a mount point", errno.EXDEV: "it lies on another filesystem"}.get(
            exc.errno or 0, os.strerror(exc.errno or 0)
        )
        raise RollbackError(
            f"The persistent path {inside} cannot move to {outside}: {reason}. "
            f"Mount or move it to {outside} yourself and leave a symlink at {inside}."
        ) from exc
    fsync_dir(os.path.dirname(inside))


def link_persistent(layout: Layout, tree: str, persistent: t.Iterable[str]) -> None:
    """Give ``tree`` the links that the live tree has."""
    live = layout.live()
    for name in persistent:
        source, target = os.path.join(live, name), os.path.join(tree, name)
        if not os.path.islink(source) or os.path.islink(target):
            continue
        if os.path.isdir(target) and not os.listdir(target):
            os.rmdir(target)
        if os.path.lexists(target):
            raise RollbackError(
                f"{target} is persistent and lies in that tree, but the application writes to {os.path.realpath(source)}. "
                "Merge the first into the second by hand and remove it; nothing was switched."
            )
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            os.makedirs(parent, 0o755)
        where = os.readlink(source)
        if not os.path.isabs(where):
            where = os.path.normpath(os.path.join(os.path.dirname(source), where))
        os.symlink(where, target)


def share(layout: Layout, tree: str, persistent: t.Collection[str]) -> None:
    """Right before ``tree`` goes live: what customers wrote since it was staged, or wrote first into it, is in every tree."""
    only_there = [
        name
        for name in persistent
        if _real(os.path.join(tree, name))
        and not os.path.lexists(os.path.join(layout.live(), name))
        and not os.path.exists(os.path.join(layout.shared, name))
    ]
    inside = to_adopt(layout, persistent)
    if inside or only_there:
        layout.prepare()
    for name in inside:
        adopt(layout, name)
    for name in only_there:
        adopt(layout, name, tree)
    link_persistent(layout, tree, persistent)


def unshared(tree: str, persistent: t.Iterable[str], twin: bool = False) -> list[str]:
    """Persistent paths in the tree itself that hold something: without the tree it would be nowhere.

    In a ``twin`` of hard links only what the original does not have counts.
    """
    top = os.path.realpath(tree)
    found = []
    for name in persistent:
        path = os.path.join(top, name)
        if os.path.lexists(path) and os.path.realpath(path) == path:
            inside = [entry.stat(follow_symlinks=False) for unused, entry in walk(path)] if os.path.isdir(path) else [os.lstat(path)]
            files = [each for each in inside if stat.S_ISREG(each.st_mode) or stat.S_ISLNK(each.st_mode)]
            if any(each.st_size and not (twin and each.st_nlink > 1) for each in files):
                found.append(path)
    return found
