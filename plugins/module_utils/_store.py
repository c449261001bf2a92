# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""To whom the store belongs: to one user (0700), or to a group of users that act on one host (2770).

A shared folder has no sticky bit: a file is replaced by rename, also one that another user of the group wrote.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

SHARED = 0o2770
# What every user of the store reads and replaces. Whatever else lies in it belongs to the component that wrote it.
COMMON = ("lock.json", "act.lock", "run.json", "releases.json", "point.json", "pin.json")
COMMON_ENDINGS = (".state.json", ".jsonl")
READ = ("manifest.json", "summary.json", "MANIFEST.sha256")


def group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise RollbackError(
            f"The group {group!r} does not exist on this host, so nobody can share the store. "
            f"Make it (groupadd {group}), or set rollback_store_group to one that the users of the store have."
        ) from None


def _mark(path: str, gid: int, mode: int, kind: t.Callable[[int], bool]) -> None:
    """Group and mode of ``path`` itself: a link that somebody put in its place is not followed."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not kind(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink != 1):
            raise RollbackError(f"{path} is not what payops.rollback made there. The store was tampered with; look at it.")
        if found.st_gid != gid:
            os.fchown(fd, -1, gid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def share_dir(path: str, group: str) -> None:
    """Give a folder of ours to ``group``; what is made in it later has that group, too."""
    gid = group_id(group)
    try:
        _mark(path, gid, SHARED, stat.S_ISDIR)
    except PermissionError:
        raise RollbackError(
            f"{path} cannot be given to the group {group}: {_who(os.geteuid())}, the user of this task, is not in it. "
            f"Add that user once, as root: usermod -aG {group} {_who(os.geteuid())}"
        ) from None


def make_way(store: str) -> None:
    """The folders above the store are nobody's secret: every user of the store passes through them (0755)."""
    missing = []
    folder = os.path.dirname(store.rstrip("/"))
    while not os.path.isdir(folder) and folder != "/":
        missing.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        _mark(folder, os.lstat(folder).st_gid, 0o755, stat.S_ISDIR)


def shared_group(store: str) -> str | None:
    """The group that shares a store which exists, as its mode tells."""
    try:
        found = os.stat(store)
    except OSError:
        return None
    if found.st_mode & stat.S_ISGID and found.st_mode & stat.S_IWGRP:
        return _group(found.st_gid)
    return None


def share_existing(store: str, system: str, group: str) -> None:
    """``rollback_store_group`` was set after the store had been made: share what is in it. The owner or root can."""
    try:
        found = os.stat(store)
    except OSError:
        return
    gid = group_id(group)
    shared = (found.st_gid == gid and stat.S_IMODE(found.st_mode) == SHARED) or found.st_mode & stat.S_IWOTH
    if shared or os.geteuid() not in (0, found.st_uid):
        return
    for folder, names, files in os.walk(system):
        depth = os.path.relpath(folder, system).count(os.sep) + (folder != system)
        if depth == 2 and os.sep + ".run" + os.sep not in folder:
            names[:] = []  # a component: its own files stay its own
        share_dir(folder, group)
        for name in files:
            if name in COMMON or name.endswith(COMMON_ENDINGS):
                _mark(os.path.join(folder, name), gid, 0o660, stat.S_ISREG)
            elif name in READ:
                _mark(os.path.join(folder, name), gid, 0o640, stat.S_ISREG)
    share_dir(store, group)  # last: until here a crash is made good by the next run


def _who(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _visible(path: str) -> str:
    """The last part of ``path`` that this user can look at."""
    while path != "/":
        try:
            os.lstat(path)
            return path
        except OSError:
            path = os.path.dirname(path)
    return path


def share_command(store: str, group: str) -> str:
    """The same as :func:`share_existing` for a shell: secrets of a component, and trees whose hashes know their modes, stay as they are."""
    common = " -o ".join(f"-name '{name}'" for name in (*COMMON, *(f"*{ending}" for ending in COMMON_ENDINGS)))
    read = " -o ".join(f"-name '{name}'" for name in READ)
    return (
        f"find {store} -type d -path '{store}/*/*/*/*' ! -path '{store}/*/.run/*' -prune"
        f" -o -type d -exec chgrp {group} {{}} + -exec chmod 2770 {{}} +"
        f" -o -type f -links 1 '(' {common} ')' -exec chgrp {group} {{}} + -exec chmod 660 {{}} +"
        f" -o -type f -links 1 '(' {read} ')' -exec chgrp {group} {{}} + -exec chmod 640 {{}} +"
    )


def refusal(store: str, path: str, group: str | None) -> str:
    """What stands in the way of this user at ``path`` in the store, and what to do."""
    blocking = _visible(path)
    found = os.lstat(blocking)
    me = _who(os.geteuid())
    said = (
        f"{me}, the user of this task, may not use {path}: {blocking} belongs to {_who(found.st_uid)}:{_group(found.st_gid)}, "
        f"mode {stat.S_IMODE(found.st_mode):04o}. "
    )
    if len(blocking) < len(store.rstrip("/")) and not os.access(blocking, os.X_OK):
        return f"{said}Let every user of the store pass through it, as {_who(found.st_uid)} or root: chmod o+x {blocking}"
    if len(blocking) < len(store.rstrip("/")):
        share = f"-m 2770 -g {group}" if group else f"-m 0700 -o {me}"
        return f"{said}Make the store once, as root: install -d {share} {store}"
    if group and shared_group(store) == group:
        return f"{said}The store is shared by the group {group}. Add {me} to it once, as root: usermod -aG {group} {me}"
    if group:
        return f"{said}The store was made before it was shared by the group {group}. Share it once, as root: {share_command(store, group)}"
    return (
        f"{said}Either let one user do everything on this host (ansible_become_user in the inventory), or share the store: "
        "set rollback_store_group to a group that has both users, and run the same command again."
    )
