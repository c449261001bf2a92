# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Everything that can be known to go wrong with a snapshot, looked for before a byte is written. Reads only."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _ledgers, _programs, _rights
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import (
    Server,
    plain,
    psycopg2,
    readable_errors,
    rows,
    value,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli

COMPONENT = "postgresql"
MARGIN = 1.3
RATIO = {"none": 1.0, "gzip": 0.5, "lz4": 0.6, "zstd": 0.4}
TABLE_BYTES = r"""
SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""


class Wish(t.NamedTuple):
    """What the module was asked for."""

    version: str
    databases: list[str]
    jobs: int = 2
    compress: str = "auto"
    verify: str = "full"
    lock_wait: int = 30
    require_restore_rights: bool = True
    ledgers: t.Sequence[dict[str, t.Any]] = ()


def preflight(server: Server, cli: Cli, paths: Paths, wish: Wish, bin_dir: str | None = None) -> dict[str, t.Any]:
    """Everything that can be known to go wrong, before a byte is written. Reads only."""
    if not wish.databases:
        raise RollbackError("databases is empty. Name at least one database.")
    if len(set(wish.databases)) != len(wish.databases):
        raise RollbackError(f"databases names one twice: {', '.join(wish.databases)}.")
    if wish.jobs < 1:
        raise RollbackError(f"jobs is {wish.jobs}: expected 1 or more.")
    server.maintenance_besides(wish.databases)
    programs = _programs.find(cli, server.major, bin_dir)
    codec = _programs.choose_codec(cli, programs, wish.compress)
    with readable_errors("looking at the server before the snapshot"):
        main = server.connect()
        names = [row[0] for row in rows(main, "SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1")]
        absent = [name for name in wish.databases if name not in names]
        if absent:
            raise RollbackError(
                f"The server at {server.where} has no database {', '.join(map(repr, absent))}. It has: {', '.join(map(repr, names))}."
            )
        server.refuse_transaction_pooler(wish.databases[0])
        jobs = _affordable_jobs(main, wish, len(wish.databases))
        blockers: list[str] = []
        needs: dict[str, list[str]] = {}
        table_bytes = {}
        for name in wish.databases:
            conn = server.connect(name, default_transaction_read_only="on", lock_timeout=f"{wish.lock_wait}s")
            blockers += _rights.missing_for_dump(conn, server, name)
            if wish.require_restore_rights:
                blockers += _rights.missing_for_restore(conn, server, name)
            if not server.is_superuser:
                needs[name] = _rights.only_superuser(conn)
            try:
                table_bytes[name] = int(value(conn, TABLE_BYTES))
            except psycopg2.errors.LockNotAvailable as exc:
                raise locked(name, exc, wish.lock_wait) from exc
            conn.close()
    if blockers:
        raise RollbackError(
            f"{len(blockers)} right(s) are missing: " + " ".join(dict.fromkeys(blockers)), blockers=list(dict.fromkeys(blockers))
        )
    with readable_errors("looking at the ledgers before the snapshot"):
        _ledgers.require(wish.databases, wish.ledgers, lambda name: server.connect(name, default_transaction_read_only="on"))
    needed = check_space(paths, codec, table_bytes)
    return {
        "programs": programs,
        "codec": codec,
        "jobs": jobs,
        "table_bytes": table_bytes,
        "needs_superuser": {name: found for name, found in needs.items() if found},
        "needed_bytes": needed,
        "main": main,
    }


def _affordable_jobs(main: t.Any, wish: Wish, databases: int) -> int:
    limit, reserved, used = rows(
        main,
        "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int "
        "+ coalesce(current_setting('reserved_connections', true)::int, 0), "
        "(SELECT count(*) FROM pg_stat_activity WHERE usename IS NOT NULL)",
    )[0]
    free = int(limit) - int(reserved) - int(used)
    # pg_dump needs one more than its jobs, each database one for its snapshot, and the watcher one.
    jobs = min(wish.jobs, free - databases - 2)
    if jobs < 1:
        raise RollbackError(
            f"The server has {free} free connections (max_connections {limit}, {used} used, {reserved} reserved), "
            f"expected at least {databases + 3}. End idle sessions or raise max_connections."
        )
    return jobs


def check_space(paths: Paths, codec: str, table_bytes: dict[str, int]) -> int:
    """Refuse when the store's filesystem cannot hold the dump; how much it needs, by the last snapshot's ratio if there is one."""
    needed = 0
    past = _last_ratios(paths, codec)
    for name, size in table_bytes.items():
        needed += int(size * past.get(name, RATIO[codec]) * MARGIN) + (1 << 20)
    folder = paths.system
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "/"
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise RollbackError(
            f"The store's filesystem ({folder}) has {free >> 20} MiB free; the dump needs about {needed >> 20} MiB. "
            "Prune old points or enlarge it.",
            free_bytes=free,
            needed_bytes=needed,
        )
    return needed


def _last_ratios(paths: Paths, codec: str) -> dict[str, float]:
    """Dump bytes per table byte of the newest point with this codec, per database."""
    if not os.path.isdir(paths.system):
        return {}
    folders = []
    for version in os.listdir(paths.system):
        path = os.path.join(paths.system, version, COMPONENT)
        if not version.startswith(".") and os.path.isdir(path):
            folders.append((os.path.getmtime(path), version))
    for unused, version in sorted(folders, reverse=True)[:1]:
        try:
            facts = load_component(paths, version, COMPONENT)["facts"]
            if facts["codec"] == codec:
                return {name: entry["dump_bytes"] / max(1, entry["table_bytes"]) for name, entry in facts["databases"].items()}
        except (RollbackError, KeyError, TypeError):
            return {}
    return {}


def locked(database: str, exc: BaseException, lock_wait: int) -> RollbackError:
    return RollbackError(
        f"Database {database!r}: {plain(exc)} (waited {lock_wait} s). Somebody holds or waits for an exclusive lock "
        "(a migration?); the snapshot did not queue the application behind it. Try again when it is done."
    )
