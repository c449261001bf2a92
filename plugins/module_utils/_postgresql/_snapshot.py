# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Take a verified snapshot of databases of one server into a rollback point.

One exported snapshot per database serves pg_dump and the manifest, so the counts and hashes are of exactly the rows in the dump. The point
exists only when every file was read to its end and everything is on disk.

A component folder holds one folder per database, named by a number (a database name may hold slashes and quotes)::

    manifest.json ... facts: {"server_major": 15, "codec": "zstd", "databases": {"shop": {"folder": "1", ...manifest...}}}
    1/toc.dat, 1/3012.dat.zst, ...
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._points import verify_component
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _archive, _manifest, _programs, _rights, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import (
    Server,
    execute,
    plain,
    psycopg2,
    rows,
    value,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._preflight import COMPONENT, Wish, locked, preflight
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli

STEPS = ("preflight", "freeze", "dump", "count", "read", "seal")
# What pg_dump locks, too. Tables of an extension come with it, and an owner may not even read them.
LOCKED = r"""
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid WHERE e.classid = 'pg_class'::regclass
    AND e.objid = c.oid AND e.deptype = 'e' AND NOT c.oid = ANY (coalesce(x.extconfig, '{}')))
ORDER BY c.oid"""
TABLE_OIDS = r"""
SELECT n.nspname::text, c.relname::text, c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"""
# Visible to every role, unlike what others are waiting for in pg_stat_activity.
WAITING = """
SELECT DISTINCT l.pid FROM pg_locks l WHERE NOT l.granted
  AND EXISTS (SELECT FROM pg_stat_activity o WHERE o.application_name = %s AND o.pid = ANY (pg_blocking_pids(l.pid)))"""


class _Frozen(t.NamedTuple):
    """A database held in one exported snapshot."""

    name: str
    folder: str
    conn: t.Any
    snapshot: str
    sequences: dict[str, t.Any]


def present(paths: Paths, wish: Wish) -> dict[str, t.Any] | None:
    """The manifest of the point's component if it is there, checked file by file; None if it is not."""
    if not os.path.lexists(paths.component(wish.version, COMPONENT)):
        return None
    manifest = verify_component(paths, wish.version, COMPONENT)
    found = sorted(manifest["facts"]["databases"])
    if found != sorted(wish.databases):
        raise RollbackError(
            f"Point {wish.version} holds the databases {', '.join(found)}, expected {', '.join(sorted(wish.databases))}. "
            "A point is never overwritten; take the backup under another version."
        )
    return manifest


def summary(manifest: dict[str, t.Any]) -> dict[str, t.Any]:
    """What results show of a sealed component: numbers, no settings and no catalogue."""
    facts = manifest["facts"]
    return {
        "version": manifest["version"],
        "size": manifest["size"],
        "server_major": facts["server_major"],
        "profile": facts["profile"],
        "codec": facts["codec"],
        "needs_superuser": facts["needs_superuser"],
        "databases": {
            name: {
                "folder": entry["folder"],
                "tables": len(entry["tables"]),
                "rows": sum(table.get("rows", 0) for table in entry["tables"].values()),
                "bytes": entry["dump_bytes"],
                "fingerprint": entry["fingerprint"],
                "oid": entry["oid"],
                "verify": entry["verify"],
                "notes": entry["notes"],
            }
            for name, entry in facts["databases"].items()
        },
    }


def _notes(needs_superuser: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """What the login of today could not bring back, said while another one can still be found."""
    return [
        f"{name}: only a superuser can restore {', '.join(objects)}. Log in as one when you go back to this point."
        for name, objects in needs_superuser.items()
    ]


class _GiveWay(threading.Thread):
    """Ends our sessions when somebody's statement has waited for their locks for ``seconds``: a waiting ALTER TABLE would
    otherwise queue the whole application behind it for as long as the dump takes."""

    def __init__(self, server: Server, seconds: int) -> None:
        super().__init__(daemon=True)
        self.conn = server.connect()
        self.application_name = server.application_name
        self.seconds = seconds
        self.stopped = threading.Event()
        self.waiting: str | None = None

    def run(self) -> None:
        since: dict[int, float] = {}
        while not self.stopped.wait(min(1.0, self.seconds / 4)):
            try:
                waiting = [row[0] for row in rows(self.conn, WAITING, [self.application_name])]
                since = {pid: since.get(pid, time.monotonic()) for pid in waiting}
                if since and time.monotonic() - min(since.values()) >= self.seconds:
                    pid = min(since, key=lambda each: since[each])
                    database, query = rows(self.conn, "SELECT datname::text, left(query, 200) FROM pg_stat_activity WHERE pid = %s", [pid])[
                        0
                    ]
                    self.waiting = f"process {pid} in database {database}: {query}"
                    rows(
                        self.conn,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()",
                        [self.application_name],
                    )
                    return
            except (psycopg2.Error, IndexError):
                return

    def __enter__(self) -> _GiveWay:
        self.start()
        return self

    def __exit__(self, *exc_info: t.Any) -> None:
        self.stopped.set()
        self.join(5)

    def explain(self) -> None:
        if self.waiting is not None:
            raise RollbackError(
                f"A statement had waited {self.seconds} s for the snapshot's locks ({self.waiting}), so the snapshot gave way. "
                "Let the migration finish, then take the snapshot again."
            )


def reach(
    server: Server, cli: Cli, run: Run, paths: Paths, wish: Wish, bin_dir: str | None = None, check_mode: bool = False
) -> dict[str, t.Any]:
    """The module's result: the point holds the databases, as it did before or from now on. In check mode only what would be done."""
    manifest = present(paths, wish)
    names = ", ".join(wish.databases)
    if manifest is not None:
        found = summary(manifest)
        return {
            "changed": False,
            "msg": f"Point {wish.version} already holds {names}; every file is as recorded.",
            "actions": [],
            "steps": run.steps,
            "point": found,
            "notes": _notes(found["needs_superuser"]),
            "diff": {"before": {"point": found}, "after": {"point": found}},
        }
    if check_mode:
        with run.step("preflight"):
            plan = preflight(server, cli, paths, wish, bin_dir)
        megabytes = sum(plan["table_bytes"].values()) >> 20
        action = f"dump {names} ({megabytes} MiB of tables) with {plan['codec']} and {plan['jobs']} jobs into point {wish.version}"
        return {
            "changed": True,
            "msg": f"Would {action}.",
            "actions": [action],
            "steps": run.steps,
            "point": {},
            "notes": _notes(plan["needs_superuser"]),
            "diff": {"before": {"point": None}, "after": {"point": {"version": wish.version, "databases": wish.databases}}},
        }
    found = summary(take(server, cli, run, paths, wish, bin_dir))
    tables = sum(entry["tables"] for entry in found["databases"].values())
    counted = sum(entry["rows"] for entry in found["databases"].values())
    return {
        "changed": True,
        "msg": f"Point {wish.version} holds {len(wish.databases)} database(s), {tables} tables, {counted} rows, verified.",
        "actions": [f"dumped {names} into point {wish.version}"],
        "steps": run.steps,
        "point": found,
        "notes": _notes(found["needs_superuser"]),
        "diff": {"before": {"point": None}, "after": {"point": found}},
    }


def take(server: Server, cli: Cli, run: Run, paths: Paths, wish: Wish, bin_dir: str | None = None) -> dict[str, t.Any]:
    """Take the snapshot; the sealed component's manifest. Leaves nothing under the final name on any failure."""
    with new_component(paths, wish.version, COMPONENT, run.run_id) as writer, _umask(0o007 if paths.group else 0o077):
        with run.step("preflight") as learnt:
            plan = preflight(server, cli, paths, wish, bin_dir)
            main = plan["main"]
            programs: _programs.Programs = plan["programs"]
            learnt.update(codec=plan["codec"], jobs=plan["jobs"], needed_bytes=plan["needed_bytes"], pg_dump=programs.version)
            _state.hold_names(main, wish.databases)
        with _GiveWay(server, wish.lock_wait) as watcher:
            try:
                databases = _write(server, cli, run, wish, writer.path, plan, bool(paths.group))
            except RollbackError:
                watcher.explain()
                raise
            except psycopg2.Error as exc:
                watcher.explain()
                raise RollbackError(f"PostgreSQL refused during the snapshot: {plain(exc)}", sqlstate=exc.pgcode) from exc
        with run.step("seal") as learnt:
            facts = {
                "server_major": server.major,
                "server_version": server.server_version,
                "server_version_num": server.server_version_num,
                "system_identifier": server.system_identifier,
                "timeline": server.timeline,
                "pg_dump": programs.version,
                "profile": _rights.profile(server),
                "login_user": server.user,
                "codec": plan["codec"],
                "needs_superuser": plan["needs_superuser"],
                "roles": _rights.roles(main),
                "databases": databases,
            }
            manifest = writer.seal(facts)
            learnt.update(size=manifest["size"], files=len(manifest["files"]))
    return manifest


@contextmanager
def _umask(mask: int) -> t.Iterator[None]:
    """pg_dump would write files that everybody may read."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _write(server: Server, cli: Cli, run: Run, wish: Wish, path: str, plan: dict[str, t.Any], group: bool) -> dict[str, dict[str, t.Any]]:
    programs: _programs.Programs = plan["programs"]
    frozen: list[_Frozen] = []
    with run.step("freeze") as learnt:
        for number, name in enumerate(wish.databases, start=1):
            frozen.append(freeze(server, name, str(number), wish.lock_wait))
        learnt["snapshots"] = {each.name: each.snapshot for each in frozen}
    with run.step("dump"):
        for each in frozen:
            folder = os.path.join(path, each.folder)
            dump(server, cli, programs, each, folder, plan["codec"], plan["jobs"], wish.lock_wait)
            if group:
                os.chmod(folder, 0o2770)
    databases: dict[str, dict[str, t.Any]] = {}
    oids: dict[str, dict[int, t.Any]] = {}
    with run.step("count") as learnt:
        for each in frozen:
            manifest = _manifest.build(each.conn, wish.verify)
            manifest.update(sequences=each.sequences, folder=each.folder, table_bytes=plan["table_bytes"][each.name])
            tables = {(schema, table): oid for schema, table, oid in rows(each.conn, TABLE_OIDS)}
            in_scope = _manifest.tables_of(each.conn)
            oids[each.name] = {int(tables[key]): manifest["tables"].get(_manifest.table_name(*key), {}).get("rows") for key in in_scope}
            databases[each.name] = manifest
            execute(each.conn, "COMMIT")
            each.conn.close()
            learnt[each.name] = len(in_scope)
    with run.step("read") as learnt:
        for each in frozen:
            found = _archive.check(cli, programs, os.path.join(path, each.folder), plan["codec"], oids[each.name])
            databases[each.name]["dump_bytes"] = found["bytes"]
            learnt[each.name] = found
    return databases


def freeze(server: Server, database: str, folder: str, lock_wait: int) -> _Frozen:
    """Lock every table against changes of its shape, then export the snapshot. Rows stay free to be written."""
    conn = server.connect(database, lock_timeout=f"{lock_wait}s")
    try:
        listed = rows(conn, LOCKED)
        # LOCK TABLE takes no snapshot, so what the first query sees is at least as new as the locks.
        execute(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        _lock(conn, listed)
        snapshot = value(conn, "SELECT pg_export_snapshot()")
        _lock(conn, [table for table in rows(conn, LOCKED) if table not in set(listed)])
        # Sequences know no snapshot: read before pg_dump reads them, the dump can only stand further on, never behind.
        sequences = _manifest.read_sequences(conn)
    except psycopg2.errors.LockNotAvailable as exc:
        raise locked(database, exc, lock_wait) from exc
    except psycopg2.errors.OutOfMemory as exc:
        raise RollbackError(f"Database {database!r} has {len(listed)} tables: {plain(exc)}. Raise max_locks_per_transaction.") from exc
    except psycopg2.errors.UndefinedTable as exc:
        raise RollbackError(f"Database {database!r}: {plain(exc)}. A table was dropped meanwhile; take the snapshot again.") from exc
    return _Frozen(database, folder, conn, snapshot, sequences)


def _lock(conn: t.Any, tables: t.Sequence[t.Any]) -> None:
    for start in range(0, len(tables), 100):
        names = ("ONLY " + _state.quoted(*table) for table in tables[start : start + 100])
        execute(conn, f"LOCK TABLE {', '.join(names)} IN ACCESS SHARE MODE")


def dump(
    server: Server, cli: Cli, programs: _programs.Programs, frozen: _Frozen, folder: str, codec: str, jobs: int, lock_wait: int
) -> None:
    """pg_dump of the exported snapshot into ``folder``."""
    done = cli(
        [
            programs.pg_dump,
            "--format=directory",
            f"--jobs={jobs}",
            f"--compress={_programs.compress_argument(programs, codec)}",
            f"--snapshot={frozen.snapshot}",
            f"--lock-wait-timeout={lock_wait * 1000}",
            "--no-sync",
            f"--file={folder}",
            *server.program_args(frozen.name),
        ],
        env=server.program_env(),
    )
    if done.rc != 0:
        said = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
        how = f"was killed by signal {-done.rc}" if done.rc < 0 else f"failed with exit code {done.rc}"
        full = "No space left on device" in done.stderr
        do = f". Make room on the disk of {os.path.dirname(folder)} (prune old points), then run the same command again." if full else ""
        raise RollbackError(f"pg_dump of database {frozen.name!r} {how}: {' '.join(said[:4])}{do}", stderr_lines=said[:40])
