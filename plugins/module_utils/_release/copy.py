# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Copies of whole trees that keep modes, times, links and (as root) owners. Shares blocks where the filesystem can."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sync_filesystem
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import walk

FICLONE = 0x40049409


class Copier:
    """``link=True`` makes hard links: a twin that costs no space, for a process that must not notice that its original moves."""

    def __init__(self, link: bool = False) -> None:
        self.link = link
        self.reflink = True
        self.owners = os.geteuid() == 0

    def _content(self, source: t.BinaryIO, target: t.BinaryIO) -> None:
        if self.reflink:
            try:
                fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
                return
            except OSError:
                self.reflink = False
        left = os.fstat(source.fileno()).st_size
        while left > 0:
            try:
                done = os.copy_file_range(source.fileno(), target.fileno(), left)
            except OSError as exc:
                if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                break
            if done == 0:
                break
            left -= done
        if left > 0:
            shutil.copyfileobj(source, target, 1 << 20)

    def file(self, source: str, target: str, found: os.stat_result) -> None:
        if self.link:
            try:
                os.link(source, target, follow_symlinks=False)
                return
            except OSError:
                self.link = False
        with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as reading:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as writing:
                try:
                    self._content(reading, writing)
                except OSError as exc:
                    exc.filename = target  # the calls know descriptors only, and a person needs the disk that is full
                    raise
                if self.owners:
                    os.fchown(fd, found.st_uid, found.st_gid)
                os.fchmod(fd, stat.S_IMODE(found.st_mode))
                os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))

    def tree(self, source: str, target: str, leave_out: t.Collection[str] = (), only: t.Collection[str] | None = None) -> None:
        """Copy ``source`` to the new folder ``target``; ``only`` limits the top-level names."""
        os.mkdir(target, 0o700)
        folders = [("", os.stat(source))]
        for relative, entry in walk(source, leave_out):
            if only is not None and relative.split("/")[0] not in only:
                continue
            found = entry.stat(follow_symlinks=False)
            place = os.path.join(target, relative)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(place, 0o700)
                folders.append((relative, found))
            elif stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(entry.path), place)
                if self.owners:
                    os.lchown(place, found.st_uid, found.st_gid)
            elif stat.S_ISREG(found.st_mode):
                self.file(entry.path, place, found)
            elif not (stat.S_ISSOCK(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
                raise RollbackError(f"{entry.path} is a device; a release consists of files, folders and links.")
        for relative, found in reversed(folders):
            place = os.path.join(target, relative) if relative else target
            if self.owners:
                os.chown(place, found.st_uid, found.st_gid)
            os.chmod(place, stat.S_IMODE(found.st_mode))


def copy_tree(
    source: str,
    target: str,
    leave_out: t.Collection[str] = (),
    link: bool = False,
    only: t.Collection[str] | None = None,
    sync: bool = True,
) -> None:
    """Copy beside the final name, flush, rename: ``target`` exists whole or not at all."""
    partial = os.path.join(os.path.dirname(target), f".partial-{os.path.basename(target)}")
    remove_tree(partial)
    try:
        Copier(link).tree(source, partial, leave_out, only)
        if sync:
            sync_filesystem(partial)
        os.rename(partial, target)
    except BaseException:
        remove_tree(partial)
        raise


def remove_tree(path: str) -> None:
    """Remove a tree even where the release made folders read-only. Absent is fine."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
        return
    if not os.path.isdir(path):
        return
    for folder, unused_names, unused_files in os.walk(path):
        if not os.access(folder, os.W_OK | os.X_OK):
            os.chmod(folder, 0o700)
    shutil.rmtree(path)
