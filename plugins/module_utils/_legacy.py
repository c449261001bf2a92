# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Backups that a team's own rollback.sh wrote: ``rollback-versions/backup_<YYYYmmdd_HHMMSS>/``.

They are listed beside the native points and never changed or removed. Nothing in them was checked when they were
written, so their health is unknown and only a person who names one can roll back to it.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._points import walk_files

NAME = re.compile(r"backup_(\d{8}_\d{6})\Z")
SQL = "database_backup.sql"
SQL_END = b"PostgreSQL database dump complete"


def _kind(path: str) -> str | None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"


def _created(stamp: str, folder: str) -> str:
    """The name's time, which ``date`` wrote in the host's own time zone; the folder's own time where the name is no date."""
    try:
        moment = datetime.datetime.strptime(stamp, "%Y%m%d_%H%M%S").astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        moment = datetime.datetime.fromtimestamp(os.lstat(folder).st_mtime, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _sql_problem(path: str, size: int) -> str | None:
    if size == 0:
        return f"{SQL} is empty; pg_dump failed when it was taken."
    with open(path, "rb") as handle:
        handle.seek(max(0, size - 4096))
        if SQL_END not in handle.read():
            return f"{SQL} does not end with '{SQL_END.decode()}'; it is cut off or no pg_dump file."
    return None


def _part(size: int, created: str, damaged: str | None) -> dict[str, t.Any]:
    return {"size": size, "created": created, "run": None, "release": None, "damaged": damaged}


def legacy_entry(folder: str, stamp: str) -> dict[str, t.Any]:
    """One legacy backup in the same shape as a native point of this host."""
    created = _created(stamp, folder)
    kinds = {name: _kind(os.path.join(folder, name)) for name in ("src", "package.json", "package-lock.json", SQL)}
    problems = [f"{name} is a {kind}, which is not followed." for name, kind in kinds.items() if kind in ("link", "special")]
    components: dict[str, t.Any] = {}
    if kinds["src"] == "folder" and kinds["package-lock.json"] == "file":
        size = sum(found.st_size for unused, found in walk_files(os.path.join(folder, "src")))
        size += sum(os.path.getsize(os.path.join(folder, name)) for name in ("package.json", "package-lock.json") if kinds[name] == "file")
        damaged = None if size else "src is empty."
        if kinds["package.json"] != "file":
            damaged = "package.json is missing."
        components["pm2"] = _part(size, created, damaged)
    elif kinds["src"] == "folder":
        problems.append("package-lock.json is missing, so the packages that src needs are unknown.")
    if kinds[SQL] == "file":
        path = os.path.join(folder, SQL)
        size = os.path.getsize(path)
        components["postgresql"] = _part(size, created, _sql_problem(path, size))
    if not components:
        problems.append("It holds nothing that can be restored.")
    problems += [f"{name}: {part['damaged']}" for name, part in components.items() if part["damaged"]]
    return {
        "version": f"backup_{stamp}",
        "alias": stamp,
        "legacy": True,
        "path": folder,
        "created": created,
        "sealed": True,
        "record": None,
        "components": components,
        "unfinished": [],
        "size": sum(part["size"] for part in components.values()),
        "pinned": None,
        "problems": problems,
    }


def list_legacy(folder: str) -> list[dict[str, t.Any]]:
    """The legacy backups in ``folder`` (the ``rollback-versions`` of an application), newest first."""
    if not os.path.isdir(folder):
        return []
    found = []
    try:
        names = sorted(os.listdir(folder), reverse=True)
        for name in names:
            match = NAME.match(name)
            path = os.path.join(folder, name)
            if match and _kind(path) == "folder":
                found.append(legacy_entry(path, match.group(1)))
    except PermissionError as exc:
        raise RollbackError(
            f"The legacy backups in {folder} cannot be read: {exc}. Run as the application's user, or leave out legacy_path."
        ) from exc
    return found
