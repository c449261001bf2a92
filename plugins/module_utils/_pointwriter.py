# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Writes one component of a rollback point: whole or not at all.

Usage::

    with new_component(paths, version, "postgresql", run_id) as writer:
        ... write files below writer.path ...
        manifest = writer.seal({"server_major": 15, ...})
"""

from __future__ import annotations

import json
import os
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._below import anything, remove_below
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    fsync_dir,
    now,
    sha256_bytes,
    sha256_file,
    sync_filesystem,
    write_atomic,
)
from ansible_collections.payops.rollback.plugins.module_utils._points import (
    CHECKSUMS,
    FORMAT,
    MANIFEST,
    MAX_MANIFEST,
    PARTIAL,
    RESERVED,
    SUMMARY,
    TRASH,
    check_component,
    check_relative,
    require_dir,
    walk_files,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths


def _fsync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pretty(value: t.Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def partials(paths: Paths, component: str) -> list[str]:
    """Unfinished folders of ``component``, in every point of this system, that a killed writer left."""
    found = []
    if os.path.isdir(paths.system):
        for version in sorted(os.listdir(paths.system)):
            folder = os.path.join(paths.system, version)
            if version.startswith(".") or os.path.islink(folder) or not os.path.isdir(folder):
                continue
            found += [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith(f"{PARTIAL}{component}-")]
    return found


def sweep_own(paths: Paths, component: str) -> None:
    """Remove what another user of a shared store has deleted but could not remove, because the files are this user's."""
    if os.path.isdir(paths.system):
        for name in os.listdir(paths.system):
            if name.startswith(TRASH):
                folder = os.path.join(paths.system, name)
                try:
                    remove_below(paths.store, os.path.join(folder, component), anything)
                except RollbackError:  # no folder: nothing of ours is in it
                    continue
                remove_if_empty(folder)


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        return


class PointWriter:
    """Writes one component beside its final name; see the module's docstring. Nothing is left on an error."""

    def __init__(self, paths: Paths, version: str, component: str, run_id: str | None = None) -> None:
        if version in RESERVED:
            raise RollbackError(
                f"A point cannot be named {version!r}: that word chooses a point. Take another name, such as 20231201_120000."
            )
        self.paths = paths
        self.version = version
        self.component = check_component(component)
        self.run_id = run_id
        self.final = paths.component(version, component)
        mark = sha256_bytes((run_id or f"alone-{os.getpid()}").encode())[:8]
        self.path = os.path.join(paths.version(version), f"{PARTIAL}{component}-{mark}")
        self.sealed = False

    def __enter__(self) -> PointWriter:
        if os.path.lexists(self.final):
            raise RollbackError(
                f"Point {self.version} already has the component {self.component} on this host ({self.final}). "
                "A point is never overwritten; take the backup under another version."
            )
        for left in partials(self.paths, self.component):
            remove_below(self.paths.store, left)
            remove_if_empty(os.path.dirname(left))
        sweep_own(self.paths, self.component)
        self.paths.make_dir(self.path)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self.sealed:
            remove_below(self.paths.store, self.path, anything)
            remove_if_empty(self.paths.version(self.version))

    def seal(self, facts: dict[str, t.Any], trees: t.Sequence[str] = ()) -> dict[str, t.Any]:
        """Hash and list every file below ``path``, flush everything, and give the folder its final name."""
        for rel in trees:
            require_dir(os.path.join(self.path, check_relative(rel, "The component")), f"tree {rel}")
        files: dict[str, dict[str, t.Any]] = {}
        for rel, found in walk_files(self.path, trees):
            check_relative(rel, "The component")
            if not stat.S_ISREG(found.st_mode):
                raise RollbackError(
                    f"{os.path.join(self.path, rel)} is not a regular file; only those (and declared trees) can be part of a point."
                )
            files[rel] = {"sha256": sha256_file(os.path.join(self.path, rel)), "size": found.st_size}
        sizes = {rel: sum(found.st_size for unused, found in walk_files(os.path.join(self.path, rel))) for rel in trees}
        manifest: dict[str, t.Any] = {
            "format": FORMAT,
            "component": self.component,
            "system": os.path.basename(self.paths.system),
            "version": self.version,
            "created": now(),
            "run": self.run_id,
            "host": os.uname().nodename,
            "files": files,
            "trees": {rel: {"size": size} for rel, size in sizes.items()},
            "size": sum(entry["size"] for entry in files.values()) + sum(sizes.values()),
            "facts": facts,
        }
        self._write(manifest)
        self._flush(files, trees)
        os.rename(self.path, self.final)
        self.sealed = True
        fsync_dir(self.paths.version(self.version))
        return manifest

    def _write(self, manifest: dict[str, t.Any]) -> None:
        mode = 0o640 if self.paths.group else 0o600
        data = _pretty(manifest)
        summary = {key: value for key, value in manifest.items() if key not in ("files", "trees", "facts")}
        summary.update(files=len(manifest["files"]), release=manifest["facts"].get("release"), manifest_size=len(data))
        summary_data = _pretty(summary)
        sums = {MANIFEST: sha256_bytes(data), SUMMARY: sha256_bytes(summary_data)}
        sums.update({rel: entry["sha256"] for rel, entry in sorted(manifest["files"].items())})
        lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode("utf-8")
        if max(len(data), len(lines)) > MAX_MANIFEST:
            raise RollbackError(f"The manifest of {self.component} would have {len(data)} bytes; at most {MAX_MANIFEST} are possible.")
        for name, content in ((MANIFEST, data), (SUMMARY, summary_data), (CHECKSUMS, lines)):
            write_atomic(os.path.join(self.path, name), content, mode)

    def _flush(self, files: t.Iterable[str], trees: t.Sequence[str]) -> None:
        for rel in files:
            _fsync_file(os.path.join(self.path, rel))
        skipped = {os.path.join(self.path, rel) for rel in trees}
        for folder, names, unused in os.walk(self.path):
            names[:] = [name for name in names if os.path.join(folder, name) not in skipped]
            fsync_dir(folder)
        if trees:
            sync_filesystem(self.path)


def new_component(paths: Paths, version: str, component: str, run_id: str | None = None) -> PointWriter:
    """A context manager that writes the component; inside, call ``seal(facts)`` last."""
    return PointWriter(paths, version, component, run_id)
