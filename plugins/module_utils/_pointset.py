# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Whole points on one host: seal, list, pin, delete.

``point.json`` beside the component folders says what the whole point consists of on all hosts. It is the same on
every host and written last, so a point without it is a backup that did not finish.
"""

from __future__ import annotations

import datetime
import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._below import not_ours, opened, remove
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    SAFE_NAME,
    canonical_json,
    check_name,
    fsync_dir,
    now,
    sha256_bytes,
    write_json,
)
from ansible_collections.payops.rollback.plugins.module_utils._points import (
    CHECKSUMS,
    FORMAT,
    MANIFEST,
    MAX_SUMMARY,
    PARTIAL,
    RESERVED,
    SUMMARY,
    TRASH,
    check_component,
    check_identity,
    load_component,
    parse_json,
    read_checksums,
    read_regular,
    require_dir,
    verify_component,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

POINT = "point.json"
PIN = "pin.json"
VERIFY = ("names", "sizes", "files")
RECORD_TEXTS = ("who", "label", "ticket", "reason")
RECORD_FIXED = ("format", "system", "version", "run", "who", "expected")


# -- the record of a whole point --------------------------------------------------------------------------------------


def make_record(paths: Paths, version: str, given: dict[str, t.Any], created: str | None = None) -> dict[str, t.Any]:
    """A checked ``point.json`` from what the caller gives: who, label, ticket, reason, healthy, run, expected."""
    if version in RESERVED:
        raise RollbackError(f"A point cannot be named {version!r}: that word chooses a point.")
    expected = given.get("expected")
    if not isinstance(expected, dict) or not expected:
        raise RollbackError(
            "A point needs 'expected': which components each host has, for example {db1: [postgresql], app1: [pm2]}. Found none."
        )
    checked: dict[str, list[str]] = {}
    for host, components in expected.items():
        if not isinstance(host, str) or not host or not isinstance(components, (list, tuple)) or not components:
            raise RollbackError(f"'expected' must map each host to a list of components; found {host!r}: {components!r}.")
        checked[host] = sorted({check_component(component) for component in components})
    healthy = given.get("healthy")
    if healthy is not None and not isinstance(healthy, bool):
        raise RollbackError(f"'healthy' must be true, false or left out; found {healthy!r}.")
    if created is not None:
        try:
            datetime.datetime.strptime(created, "%Y-%m-%dT%H:%M:%S.%fZ")
        except (TypeError, ValueError):
            raise RollbackError(f"'created' must be a time in UTC such as 2023-12-01T12:00:00.000000Z; found {created!r}.") from None
    record: dict[str, t.Any] = {key: None if given.get(key) in (None, "") else str(given[key]) for key in (*RECORD_TEXTS, "run")}
    record.update(
        format=FORMAT,
        system=os.path.basename(paths.system),
        version=check_name("The version", version),
        created=created or now(),
        healthy=healthy,
        expected=checked,
    )
    return record


def load_record(paths: Paths, version: str) -> dict[str, t.Any] | None:
    """The record of a point, None where it was never sealed; refused where it is damaged or foreign."""
    path = os.path.join(paths.version(version), POINT)
    if not os.path.lexists(path):
        return None
    record = parse_json(read_regular(path, MAX_SUMMARY), path)
    check_identity({**record, "component": None}, path, os.path.basename(paths.system), version, None)
    expected = record.get("expected")
    if not isinstance(expected, dict) or not all(
        isinstance(host, str) and isinstance(names, list) and all(isinstance(name, str) and SAFE_NAME.match(name) for name in names)
        for host, names in expected.items()
    ):
        raise RollbackError(f"{path} does not say which components each host has. It is damaged; choose another point.")
    return record


def seal_point(paths: Paths, version: str, record: dict[str, t.Any], host: str | None = None, write: bool = True) -> dict[str, t.Any]:
    """Write ``point.json``, the last file of a point; ``host`` is this host's name in ``record['expected']``.

    Sealing again with the same record changes nothing. Later a point may still be found healthy or get another label,
    ticket or reason; what it consists of and who took it never changes.
    """
    before = load_record(paths, version)
    made = make_record(paths, version, record, created=record.get("created") or (before or {}).get("created"))
    if host is not None:
        if host not in made["expected"]:
            raise RollbackError(f"Host {host} is not part of point {version}; expected one of {', '.join(sorted(made['expected']))}.")
        for component in made["expected"][host]:
            load_component(paths, version, component)
    if before is not None:
        different = [key for key in RECORD_FIXED if before.get(key) != made[key]]
        if different:
            raise RollbackError(
                f"Point {version} is sealed already and differs in {', '.join(different)} "
                f"(found {before.get(different[0])!r}, wanted {made[different[0]]!r}). Take the backup under another version."
            )
        made["created"] = before.get("created")
    changed = before is None or canonical_json(before) != canonical_json(made)
    if changed and write:
        require_dir(paths.version(version), f"point {version}")
        write_json(os.path.join(paths.version(version), POINT), made, paths.file_mode)
    return {"changed": changed, "before": before, "after": made}


# -- pins -------------------------------------------------------------------------------------------------------------


def read_pin(paths: Paths, version: str) -> dict[str, t.Any] | None:
    path = os.path.join(paths.version(version), PIN)
    return parse_json(read_regular(path, MAX_SUMMARY), path) if os.path.lexists(path) else None


def pin_point(paths: Paths, version: str, who: str | None, why: str | None, write: bool = True) -> dict[str, t.Any]:
    """Protect a point from pruning and deletion. Pinning again for the same reason changes nothing."""
    require_dir(paths.version(version), f"point {version}")
    before = read_pin(paths, version)
    if before is not None and before.get("who") == who and before.get("why") == why:
        return {"changed": False, "before": before, "after": before}
    after = {"who": who, "why": why, "when": now()}
    if write:
        write_json(os.path.join(paths.version(version), PIN), after, paths.file_mode)
    return {"changed": True, "before": before, "after": after}


def unpin_point(paths: Paths, version: str, write: bool = True) -> dict[str, t.Any]:
    require_dir(paths.version(version), f"point {version}")
    path = os.path.join(paths.version(version), PIN)
    if not os.path.lexists(path):
        return {"changed": False, "before": None, "after": None}
    before = read_pin(paths, version)
    if write:
        os.unlink(path)
        fsync_dir(paths.version(version))
    return {"changed": True, "before": before, "after": None}


# -- deletion ---------------------------------------------------------------------------------------------------------


def sweep_trash(paths: Paths) -> None:
    """Remove what an interrupted deletion left."""
    if os.path.isdir(paths.system):
        for name in os.listdir(paths.system):
            if name.startswith(TRASH):
                _remove(paths, name)


def _remove(paths: Paths, name: str) -> None:
    """Remove what may be removed. In a shared store a component's files are its user's, who removes them at his next backup."""
    with opened(paths.store, os.path.basename(paths.system)) as system:
        remove(system, name, not_ours)


def delete_point(paths: Paths, version: str) -> bool:
    """Take a point out of use in one rename, then remove it. The caller has checked that nothing needs it."""
    folder = paths.version(version)
    sweep_trash(paths)
    if not os.path.lexists(folder):
        return False
    require_dir(folder, f"point {version}")
    if read_pin(paths, version) is not None:
        raise RollbackError(f"Point {version} is pinned. Unpin it first if it may really go.")
    trash = f"{TRASH}{version}-{os.getpid()}-{time.monotonic_ns()}"
    with opened(paths.store, os.path.basename(paths.system)) as system:
        os.rename(version, trash, src_dir_fd=system, dst_dir_fd=system)
        os.fsync(system)
    _remove(paths, trash)
    return True


# -- the list ---------------------------------------------------------------------------------------------------------


def versions(paths: Paths) -> list[str]:
    """The names of all points on this host."""
    try:
        with os.scandir(paths.system) as entries:
            return sorted(entry.name for entry in entries if SAFE_NAME.match(entry.name) and (entry.is_dir() or entry.is_symlink()))
    except FileNotFoundError:
        return []


def _component_entry(paths: Paths, version: str, component: str, verify: str) -> dict[str, t.Any]:
    entry: dict[str, t.Any] = {"size": None, "created": None, "run": None, "release": None, "damaged": None}
    folder = os.path.join(paths.version(version), component)
    try:
        require_dir(folder, f"component {component} of point {version}")
        checksums = read_checksums(folder)
        path = os.path.join(folder, SUMMARY)
        data = read_regular(path, MAX_SUMMARY)
        if checksums.get(SUMMARY) != sha256_bytes(data):
            raise RollbackError(f"{path} differs from its checksum in {CHECKSUMS}. The point is damaged; choose another one.")
        summary = parse_json(data, path)
        check_identity(summary, path, os.path.basename(paths.system), version, component)
        entry.update({key: summary.get(key) for key in ("size", "created", "run", "release")})
        manifest = os.path.join(folder, MANIFEST)
        if not os.path.exists(manifest) or os.path.getsize(manifest) != summary.get("manifest_size"):
            raise RollbackError(
                f"{manifest} is missing or has another size than it was sealed with. The point is damaged; choose another one."
            )
        if verify != "names":
            verify_component(paths, version, component, hashes=verify == "files")
    except (RollbackError, OSError) as exc:
        entry["damaged"] = str(exc)
    return entry


def point_entry(paths: Paths, version: str, verify: str = "names") -> dict[str, t.Any] | None:
    """One line of the list; None for a folder that holds nothing of a point."""
    entry: dict[str, t.Any] = {
        "version": version,
        "legacy": False,
        "path": paths.version(version),
        "created": None,
        "sealed": False,
        "record": None,
        "components": {},
        "unfinished": [],
        "size": 0,
        "pinned": None,
        "problems": [],
    }
    try:
        require_dir(entry["path"], f"point {version}")
        with os.scandir(entry["path"]) as entries:
            names = sorted(item.name for item in entries if item.is_dir() or item.is_symlink())
    except (RollbackError, OSError) as exc:
        entry["problems"].append(str(exc))
        return entry
    for reader, key in ((load_record, "record"), (read_pin, "pinned")):
        try:
            entry[key] = reader(paths, version)
        except (RollbackError, OSError) as exc:
            entry["problems"].append(str(exc))
            if key == "pinned":  # a damaged pin still protects
                entry[key] = {"who": None, "why": "the pin is damaged", "when": None}
    entry["unfinished"] = [name[len(PARTIAL) :].rsplit("-", 1)[0] for name in names if name.startswith(PARTIAL)]
    for name in names:
        if SAFE_NAME.match(name) and name not in (POINT, PIN):
            entry["components"][name] = _component_entry(paths, version, name, verify)
    if not entry["components"] and entry["record"] is None and not entry["unfinished"] and not entry["problems"]:
        return None
    created = [part["created"] for part in entry["components"].values() if isinstance(part["created"], str)]
    entry["sealed"] = entry["record"] is not None
    entry["created"] = (entry["record"] or {}).get("created") or max(created, default=None)
    entry["size"] = sum(part["size"] for part in entry["components"].values() if isinstance(part["size"], int))
    entry["problems"] += [f"{name}: {part['damaged']}" for name, part in entry["components"].items() if part["damaged"]]
    return entry


def list_points(paths: Paths, verify: str = "names", only: t.Sequence[str] | None = None) -> list[dict[str, t.Any]]:
    """All points on this host, newest first. ``verify``: names (fast), sizes (every manifest and file size), files (every hash)."""
    wanted = versions(paths) if only is None else [name for name in versions(paths) if name in only]
    found = [point_entry(paths, version, verify) for version in wanted]
    return sorted((entry for entry in found if entry), key=lambda entry: (str(entry["created"] or ""), entry["version"]), reverse=True)
