# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Files that survive a power cut, names that cannot escape their folder, and one canonical JSON."""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import hashlib
import json
import os
import re
import time
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._store import share_dir

STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def check_name(what: str, name: t.Any) -> str:
    """Return ``name`` if it is safe as one path component, or say why it is not."""
    if not isinstance(name, str):
        raise RollbackError(
            f"{what} must be text, found the {type(name).__name__} {name!r}. Quote it, for example '20231201_120000' or 'v{name}'."
        )
    if not SAFE_NAME.match(name):
        raise RollbackError(
            f"{what} {name!r} is not a safe name: expected 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit."
        )
    return name


def now() -> str:
    """The time in UTC, ISO 8601 with microseconds and a Z (sorts as text)."""
    return datetime.datetime.now(datetime.timezone.utc).strftime(STAMP)


def now_after(newest: t.Any) -> str:
    """Now, but later than ``newest`` (a time of ours): what goes by the order of times also holds when a clock was set back."""
    try:
        after = datetime.datetime.strptime(str(newest), STAMP) + datetime.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return now()
    return max(now(), after.strftime(STAMP))


def canonical_json(value: t.Any) -> bytes:
    """One byte string per value: sorted keys, no blanks, UTF-8. What hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fsync_dir(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str) -> None:
    """Flush the whole filesystem of ``path``: one call instead of one fsync per file of a large tree."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(fd) != 0:
            os.sync()
    finally:
        os.close(fd)


def make_dir(path: str, group: str | None = None) -> None:
    """Create ``path`` and its parents: 0700, or 2770 for ``group`` when several users share the store.

    Directories that exist are left as they are.
    """
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path) or "/"
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        if group is not None:
            share_dir(folder, group)
        fsync_dir(os.path.dirname(folder) or "/")


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` whole: temporary file, fsync, rename, fsync of the folder."""
    temporary = f"{path}.tmp-{os.getpid()}"
    # In a shared folder somebody may have put a link in the way: never written through, only removed.
    if os.path.lexists(temporary):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException as exc:
        if isinstance(exc, OSError) and exc.filename is None:  # a write knows its descriptor only; a person needs the disk that is full
            exc.filename = path
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    fsync_dir(os.path.dirname(path) or ".")


def write_json(path: str, value: t.Any, mode: int = 0o600) -> None:
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n", mode)


def read_json(path: str, default: t.Any = None) -> t.Any:
    """The JSON value in ``path``; ``default`` where the file is absent; an error where it is damaged."""
    try:
        with open(path, "rb") as handle:
            return json.loads(handle.read().decode("utf-8"))
    except FileNotFoundError:
        return default
    except (ValueError, UnicodeDecodeError) as exc:
        raise RollbackError(
            f"{path} is damaged: {exc}. Expected a JSON file written by payops.rollback; move it away and look at it."
        ) from exc


def open_own(path: str, flags: int, mode: int) -> int:
    """Open a file of ours, made with exactly ``mode`` where it is missing: a umask would keep the others of a shared store out."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(fd, mode)
    return fd


@contextmanager
def flock(path: str, wait: float, busy: str, mode: int = 0o600) -> t.Iterator[None]:
    """Hold an exclusive flock on ``path``; after ``wait`` seconds fail with the sentence ``busy``."""
    fd = open_own(path, os.O_RDWR, mode)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RollbackError(busy) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)
