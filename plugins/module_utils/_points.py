# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""One component of one rollback point, believed only after it was checked.

A sealed component is a folder ``<store>/<system>/<version>/<component>/``::

    manifest.json      what the component is, its facts, and every file with SHA-256 and size
    summary.json       the few values that a list of points shows, so that listing parses no large manifest
    MANIFEST.sha256    checksums of both and of every file; ``sha256sum -c MANIFEST.sha256`` works by hand
    ...                the component's own files

``_pointwriter.py`` writes it. Below ``trees=("tree",)`` the component keeps large trees (node_modules) with a listing and a tree hash of its own;
they are neither hashed nor walked here, so the component itself must check them against its facts.
"""

from __future__ import annotations

import json
import os
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    check_name,
    read_json,
    sha256_bytes,
    sha256_file,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

FORMAT = 1
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
CHECKSUMS = "MANIFEST.sha256"
OWN_FILES = (MANIFEST, SUMMARY, CHECKSUMS)
PARTIAL = ".partial-"
TRASH = ".trash-"
MAX_MANIFEST = 64 << 20
MAX_SUMMARY = 1 << 20
RESERVED = ("latest", "previous")


def check_component(component: t.Any) -> str:
    return check_name("The component", component)


def read_regular(path: str, limit: int) -> bytes:
    """The bytes of a regular file that is no symbolic link and no longer than ``limit``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RollbackError(f"{path} is missing. The point is incomplete or damaged; choose another one.") from None
    except OSError as exc:
        if os.path.islink(path):
            raise RollbackError(
                f"{path} is a symbolic link; expected a regular file. The point was tampered with; choose another one."
            ) from exc
        raise RollbackError(f"{path} cannot be read: {exc.strerror}. Run as the owner of the store.") from exc
    with os.fdopen(fd, "rb") as handle:
        found = os.fstat(handle.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise RollbackError(f"{path} is not a regular file. The point was tampered with; choose another one.")
        if found.st_size > limit:
            raise RollbackError(
                f"{path} has {found.st_size} bytes; expected at most {limit}. The point is foreign or damaged; choose another one."
            )
        return handle.read(limit + 1)


def require_dir(path: str, what: str) -> None:
    """``path`` must be a real directory, not a symbolic link to one."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        raise RollbackError(f"{what} does not exist (looked for {path}); choose another point.") from None
    if not stat.S_ISDIR(mode):
        found = "a symbolic link" if stat.S_ISLNK(mode) else "not a folder"
        raise RollbackError(f"{path} is {found}; expected the folder of {what}. The store was tampered with; choose another point.")


def parse_json(data: bytes, path: str) -> dict[str, t.Any]:
    """A JSON object from bytes that may be hostile."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise RollbackError(f"{path} is not a JSON file in UTF-8 ({exc}). The point is damaged; choose another one.") from exc
    if not isinstance(value, dict):
        raise RollbackError(f"{path} holds a {type(value).__name__}; expected a JSON object. The point is damaged; choose another one.")
    return value


def check_relative(rel: t.Any, where: str) -> str:
    """Return ``rel`` if it names a file below its folder and nothing else, or say what is wrong with it."""
    bad = None
    if not isinstance(rel, str) or not rel:
        bad = "is not a name"
    elif rel.startswith("/"):
        bad = "is an absolute path"
    elif any(part in ("", ".", "..") for part in rel.split("/")):
        bad = "leaves or repeats its folder"
    elif any(ord(char) < 32 or ord(char) == 127 for char in rel) or "\\" in rel:
        bad = "has control characters or backslashes"
    elif rel in OWN_FILES:
        bad = "is a name that the manifest itself uses"
    else:
        try:
            rel.encode("utf-8")
        except UnicodeEncodeError:
            bad = "is not valid UTF-8"
    if bad is not None:
        raise RollbackError(f"{where} lists the file {rel!a}, which {bad}. The point is foreign or tampered with and was not used.")
    return t.cast(str, rel)


def _is_count(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_identity(value: dict[str, t.Any], path: str, system: str, version: str, component: str | None) -> None:
    """Refuse what was written by a later format, or for another system, version or component."""
    if value.get("format") != FORMAT:
        raise RollbackError(
            f"{path} has format {value.get('format')!r}; this collection reads format {FORMAT}. Use the version that wrote it."
        )
    for key, expected in (("system", system), ("version", version), ("component", component)):
        if value.get(key) != expected:
            raise RollbackError(
                f"{path} belongs to {key} {value.get(key)!r}; expected {expected!r}. It was copied from elsewhere and was not used."
            )


def check_manifest(value: dict[str, t.Any], path: str, system: str, version: str, component: str) -> dict[str, t.Any]:
    """Refuse a manifest of another shape, with names that escape the folder, or of another point."""
    check_identity(value, path, system, version, component)
    files, trees, facts = value.get("files"), value.get("trees"), value.get("facts")
    if not isinstance(files, dict) or not isinstance(trees, dict) or not isinstance(facts, dict) or not _is_count(value.get("size")):
        raise RollbackError(f"{path} lacks files, trees, facts or size. It is damaged; choose another point.")
    for rel, entry in files.items():
        check_relative(rel, path)
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        if not isinstance(digest, str) or len(digest) != 64 or not _is_count(entry.get("size")):
            raise RollbackError(f"{path} has no SHA-256 and size for {rel!a}. It is damaged; choose another point.")
    for rel in trees:
        check_relative(rel, path)
        if rel in files or any(name.startswith(f"{rel}/") for name in files):
            raise RollbackError(f"{path} lists {rel!a} both as a tree and as files. It is damaged; choose another point.")
    return value


def read_checksums(folder: str) -> dict[str, str]:
    """``MANIFEST.sha256`` as name -> digest."""
    path = os.path.join(folder, CHECKSUMS)
    found: dict[str, str] = {}
    for line in read_regular(path, MAX_MANIFEST).decode("utf-8", "replace").splitlines():
        digest, unused, name = line.partition("  ")
        found[name] = digest
    return found


def load_component(paths: Paths, version: str, component: str) -> dict[str, t.Any]:
    """The manifest, after it was checked against its checksum, this system, this version and this component."""
    folder = paths.component(version, check_component(component))
    require_dir(paths.version(version), f"point {version}")
    require_dir(folder, f"component {component} of point {version}")
    path = os.path.join(folder, MANIFEST)
    data = read_regular(path, MAX_MANIFEST)
    checksums = read_checksums(folder)
    if checksums.get(MANIFEST) != sha256_bytes(data):
        raise RollbackError(f"{path} differs from its checksum in {CHECKSUMS}. The point is damaged; choose another one.")
    manifest = check_manifest(parse_json(data, path), path, os.path.basename(paths.system), version, component)
    expected = {rel: entry["sha256"] for rel, entry in manifest["files"].items()}
    if {name: digest for name, digest in checksums.items() if name not in OWN_FILES} != expected:
        raise RollbackError(f"{CHECKSUMS} in {folder} names other files than {MANIFEST}. The point is damaged; choose another one.")
    return manifest


def walk_files(folder: str, trees: t.Iterable[str] = ()) -> t.Iterator[tuple[str, os.stat_result]]:
    """Every entry below ``folder`` that is no directory, as (relative name, lstat); ``trees`` are not entered."""
    skipped = set(trees)
    waiting = [""]
    while waiting:
        base = waiting.pop()
        with os.scandir(os.path.join(folder, base)) as entries:
            for entry in entries:
                rel = f"{base}/{entry.name}" if base else entry.name
                if rel in skipped:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(rel)
                else:
                    yield rel, entry.stat(follow_symlinks=False)


def verify_component(paths: Paths, version: str, component: str, hashes: bool = True) -> dict[str, t.Any]:
    """``load_component``, then every file: none missing, none extra, no link, right size and (``hashes``) right SHA-256."""
    manifest = load_component(paths, version, component)
    folder = paths.component(version, component)
    files: dict[str, dict[str, t.Any]] = manifest["files"]
    for rel in manifest["trees"]:
        require_dir(os.path.join(folder, rel), f"the folder {rel!a} of component {component} of point {version}")
    seen = set()
    for rel, found in walk_files(folder, manifest["trees"]):
        if rel in OWN_FILES:
            continue
        where = f"Point {version}, component {component}: the file {rel!a}"
        if rel not in files:
            raise RollbackError(f"{where} is not in the manifest. Somebody added it; the point was not used.")
        if not stat.S_ISREG(found.st_mode):
            raise RollbackError(f"{where} is a symbolic link or a special file; expected a regular file. The point was not used.")
        if found.st_size != files[rel]["size"]:
            raise RollbackError(
                f"{where} has {found.st_size} bytes; expected {files[rel]['size']}. The point is damaged; choose another one."
            )
        if hashes and sha256_file(os.path.join(folder, rel)) != files[rel]["sha256"]:
            raise RollbackError(f"{where} has another SHA-256 than the manifest. The point is damaged; choose another one.")
        seen.add(rel)
    missing = sorted(set(files) - seen)
    if missing:
        raise RollbackError(
            f"Point {version}, component {component}: {len(missing)} file(s) are missing, first {missing[0]!a}. "
            "The point is damaged; choose another one."
        )
    return manifest


def newest_with(paths: Paths, component: str, release: str) -> str | None:
    """The newest point whose ``component`` holds ``release``, by what the summaries say; the list of points names damaged ones."""
    best: tuple[str, str] | None = None
    for version in os.listdir(paths.system) if os.path.isdir(paths.system) else []:
        path = os.path.join(paths.system, version, component, SUMMARY)
        try:
            summary = read_json(path) if not version.startswith(".") and os.path.isfile(path) else None
        except (RollbackError, OSError):
            continue
        if isinstance(summary, dict) and summary.get("release") == release:
            best = max(best or ("", ""), (str(summary.get("created")), version))
    return best[1] if best else None
