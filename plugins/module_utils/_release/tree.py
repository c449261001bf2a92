# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What a release is: every name, mode, symlink target and content of its tree, in one SHA-256.

Persistent paths (``.env``, uploads, logs) are left out, node_modules are not: a rollback needs no network.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, sha256_bytes

# relative path -> ["d", mode] | ["l", target] | ["f", mode, size, sha256]
Listing = t.Dict[str, t.List[t.Any]]
BLOCK = 1 << 20
WORKERS = 4


def _text(name: str) -> str:
    """A name that is not UTF-8 as text that JSON can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def left_out(relative: str, leave_out: t.Collection[str]) -> bool:
    return relative in leave_out


def walk(root: str, leave_out: t.Collection[str] = ()) -> t.Iterator[t.Tuple[str, os.DirEntry[str]]]:
    """Every entry below ``root`` except the paths in ``leave_out`` and what is below them; folders before their content.

    An application writes while it runs: what vanishes meanwhile was not there.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            found = os.scandir(os.path.join(root, folder) if folder else root)
        except (FileNotFoundError, NotADirectoryError):
            if not folder:
                raise
            continue
        with found as entries:
            for entry in entries:
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if left_out(relative, leave_out):
                    continue
                yield relative, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(relative)


def _present(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _hash(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb", buffering=0) as handle:
        while True:
            block = handle.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def list_tree(root: str, leave_out: t.Collection[str] = ()) -> Listing:
    """The listing of ``root``. Sockets and pipes are runtime, not release; devices are refused."""
    listing: Listing = {}
    files: list[tuple[str, str]] = []
    for relative, entry in walk(root, leave_out):
        found = _present(entry)
        if found is None:
            continue
        mode = stat.S_IMODE(found.st_mode)
        name = _text(relative)
        if stat.S_ISDIR(found.st_mode):
            listing[name] = ["d", mode]
        elif stat.S_ISLNK(found.st_mode):
            try:
                listing[name] = ["l", _text(os.readlink(entry.path))]
            except FileNotFoundError:
                continue
        elif stat.S_ISREG(found.st_mode):
            listing[name] = ["f", mode, found.st_size, ""]
            files.append((name, entry.path))
        elif stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
            raise RollbackError(
                f"{entry.path} is a device; a release consists of files, folders and links. Remove it or name it as persistent."
            )
    with ThreadPoolExecutor(WORKERS) as pool:
        for (name, unused), digest in zip(files, pool.map(_hash, [path for unused, path in files], chunksize=64)):
            if digest is None:
                del listing[name]
            else:
                listing[name][3] = digest
    return listing


def release_of(listing: Listing) -> str:
    """The tree hash: what *is* the same release, wherever and whenever it lies."""
    return sha256_bytes(canonical_json(listing))


def size_of(listing: Listing) -> int:
    return sum(int(entry[2]) for entry in listing.values() if entry[0] == "f")


def stamp(root: str, leave_out: t.Collection[str] = ()) -> str:
    """A cheap look at a tree (names, modes, sizes, modification times): whether anything was touched since the last look."""
    seen: dict[str, t.Any] = {}
    for relative, entry in walk(root, leave_out):
        found = _present(entry)
        if found is None:
            continue
        seen[_text(relative)] = [found.st_mode] if stat.S_ISDIR(found.st_mode) else [found.st_mode, found.st_size, found.st_mtime_ns]
    return sha256_bytes(canonical_json(seen))


class Difference(t.NamedTuple):
    missing: list[str]
    changed: list[str]
    added: list[str]

    def sentence(self) -> str:
        parts = []
        for what, names in (("missing", self.missing), ("changed", self.changed), ("added", self.added)):
            if names:
                parts.append(f"{len(names)} {what} (first {names[0]!a})")
        return ", ".join(parts) or "no difference"

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.added)


def compare(expected: Listing, found: Listing) -> Difference:
    return Difference(
        sorted(set(expected) - set(found)),
        sorted(name for name in set(expected) & set(found) if expected[name] != found[name]),
        sorted(set(found) - set(expected)),
    )


def check_persistent(names: t.Iterable[str]) -> tuple[str, ...]:
    """Persistent paths as clean relative paths, none inside another."""
    clean: list[str] = []
    for name in names:
        path = os.path.normpath(str(name))
        if not name or os.path.isabs(path) or path == "." or path.split("/")[0] == "..":
            raise RollbackError(
                f"The persistent path {name!r} is not usable: expected a path inside the application's folder, such as 'uploads'."
            )
        clean.append(path)
    ordered = sorted(set(clean))
    return tuple(name for name in ordered if not any(name.startswith(f"{other}/") for other in ordered))
