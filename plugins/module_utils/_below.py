# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Folders below the store, made, entered and removed without following a link.

Whoever shares the store may rename what is in it at any moment. What is opened here stays what it is: each folder is
entered from the open one above it, never by a path.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._store import SHARED, group_id, share_dir

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_FOLDER = (errno.ELOOP, errno.ENOTDIR)  # what the kernel says of a link, or of a file


def _enter(fd: int, name: str, path: str) -> int:
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as exc:
        if exc.errno not in NO_FOLDER:
            raise OSError(exc.errno, exc.strerror, path) from None
        linked = stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        raise RollbackError(
            f"{path} is {'a symbolic link' if linked else 'not a folder'}; expected a folder that payops.rollback has made. "
            f"The store was tampered with: see who put it there (ls -ld {path}), and move it away."
        ) from None


@contextmanager
def opened(base: str, *names: str) -> t.Iterator[int]:
    """The folder ``names`` below ``base``, which alone may be a link, as a descriptor."""
    fd = os.open(base, FOLDER)
    try:
        for number, name in enumerate(names, 1):
            inner = _enter(fd, name, os.path.join(base, *names[:number]))
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def make_below(base: str, path: str, group: str | None = None) -> None:
    """Create ``path`` and what is missing between it and ``base``: 0700, or 2770 for ``group``."""
    names = os.path.relpath(path, base).split(os.sep)
    for number, name in enumerate(names, 1):
        made = os.path.join(base, *names[:number])
        with opened(base, *names[: number - 1]) as fd:
            try:
                os.mkdir(name, 0o700, dir_fd=fd)
            except FileExistsError:
                os.close(_enter(fd, name, made))
                continue
            except OSError as exc:
                raise OSError(exc.errno, exc.strerror, made) from None
            if group is not None:
                _share(fd, name, made, group)
            os.fsync(fd)


def _share(fd: int, name: str, path: str, group: str) -> None:
    inner = _enter(fd, name, path)
    try:
        os.fchown(inner, -1, group_id(group))
        os.fchmod(inner, SHARED)
    except PermissionError:
        share_dir(path, group)  # fails as well, and says what to do
    finally:
        os.close(inner)


def not_ours(exc: OSError) -> bool:
    """Why something may stay: it is another user's, who may have removed or replaced it meanwhile."""
    return isinstance(exc, (PermissionError, FileNotFoundError)) or exc.errno in (errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)


def anything(unused: OSError) -> bool:
    return True


def remove(fd: int, name: str, forgive: t.Callable[[OSError], bool] | None = None) -> None:
    """Remove ``name`` in the open folder and all that is below it; of a link only the link."""
    try:
        try:
            inner = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=fd)
        except OSError as exc:
            if exc.errno not in NO_FOLDER:
                raise
            os.unlink(name, dir_fd=fd)
            return
        try:
            for each in os.listdir(inner):
                remove(inner, each, forgive)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=fd)
    except OSError as exc:
        if forgive is None or not forgive(exc):
            raise


def remove_below(base: str, path: str, forgive: t.Callable[[OSError], bool] | None = None) -> None:
    """Remove the folder ``path`` below ``base``."""
    *above, name = os.path.relpath(path, base).split(os.sep)
    try:
        with opened(base, *above) as fd:
            remove(fd, name, forgive)
    except OSError as exc:
        if forgive is None or not forgive(exc):
            raise OSError(exc.errno, exc.strerror, path) from None
