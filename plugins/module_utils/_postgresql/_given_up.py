# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The end: dropping what flips and undos replaced, after saying which rows are only there and will be gone.

Rows of a replaced database that were written since the point (found by ``xmin``, as fast as ``count(*)``) are compared with the live one: in
the same form, found by the primary key, or by their whole content where there is none. Where the two have no common history, tables
of which number and hash of all rows are equal hold nothing of their own, and the others are compared row by row.
"""

from __future__ import annotations

import tempfile
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _carry,
    _ledger,
    _manifest,
    _pending,
    _since,
    _stage,
    _state,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import Ledger
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._since import Since
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, Window, one, rows

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

MOST_BYTES = 4 << 30  # a table without common history that is larger is told with all of its rows, not copied for a comparison
WHAT = {"kept": "what a flip replaced", "undone": "what an undo replaced", "staged": "restored beside, never live"}


class Own(t.NamedTuple):
    """Rows of one table that are only in a replaced database. Not ``exact``: at most that many."""

    rows: int
    exact: bool = True


def complete(work: Restore) -> dict[str, t.Any]:
    """Drop what all flips and undos replaced. The one step that gives rows up, so it is never part of another."""
    found = work.found()
    doomed = [each for name in work.names for each in _state.ours(found, name)]
    with work.run.step("preflight"):
        for each in doomed:
            _attached(work, each)
        for name in work.names:
            for source in _pending.owed(work.paths, found, name, work.run.run_id):
                _never_carried(work, source.database)
    with work.run.step("count") as learnt:
        own = {each.name: _count(work, found, each) for each in doomed}
        learnt["only_there"] = {name: {table: number.rows for table, number in tables.items()} for name, tables in own.items() if tables}
    told = [_told(work, each, own[each.name]) for each in doomed]
    work.result["plan"] += [_sentence(entry) for entry in told]
    work.result["plan"] += [f"BLOCKED: {each['what']} {each['do']}" for each in work.report.blockers]
    work.stop_if_blocked()
    with work.run.step("drop") as learnt:
        for each in doomed:
            if work.acting:
                _state.drop(work.conn, each)
        learnt["dropped"] = told
    for entry in told:
        work.actions.append(
            f"dropped {entry['name']} ({entry['kind']}, {entry['bytes'] >> 20} MiB, {_rows_text(entry) or 'no row of its own'})"
        )
    for name in work.names:
        work.result["databases"][name] = {"live_oid": found[name].oid if name in found else None, "staged": None, "kept": None}
    work.result.update(dropped=told, changed=work.result["changed"] or bool(told))
    gone = sum(sum(entry["only_there"].values()) for entry in told)
    work.result["msg"] = "Nothing is kept or staged."
    if told:
        verb, fate = ("Dropped", "are") if work.acting else ("Would drop", "would be")
        work.result["msg"] = f"{verb} {', '.join(entry['name'] for entry in told)}; {gone} row(s) that were only there {fate} gone."
    return work.result


def _told(work: Restore, each: Database, own: t.Mapping[str, Own]) -> dict[str, t.Any]:
    size = int(one(work.conn, "SELECT pg_catalog.pg_database_size(%s::oid)", (each.oid,)) or 0)
    return {
        "database": each.marker["database"], "name": each.name, "oid": each.oid, "bytes": size, "kind": each.marker.get("kind"),
        "run": _pending.actor(each), "version": each.marker.get("version"), "at": each.marker.get("at"),
        "only_there": {table: number.rows for table, number in sorted(own.items())},
        "at_most": sorted(table for table, number in own.items() if not number.exact),
    }  # fmt: skip


def _rows_text(each: t.Mapping[str, t.Any]) -> str:
    return ", ".join(
        f"{'at most ' if table in each['at_most'] else ''}{number} row(s) of {table}" for table, number in each["only_there"].items()
    )


def _sentence(each: t.Mapping[str, t.Any]) -> str:
    what = f"{each['database']}: drop {each['name']} ({WHAT.get(each['kind'], each['kind'])}, run {each['run']}, point {each['version']})"
    text = _rows_text(each)
    return f"{what}: {text} are only there and will be gone." if text else f"{what}: it holds no row of its own."


# -- what is only there -----------------------------------------------------------------------------------------------


def _count(work: Restore, found: t.Mapping[str, Database], each: Database) -> dict[str, Own]:
    """Rows per table that the live database does not have. A database that cannot be read is not dropped."""
    name = each.marker["database"]
    if each.marker.get("kind") not in ("kept", "undone") or each.invalid or name not in found:
        return {}
    try:
        with (
            _stage.session_on(work.conn, work.server, name, read_only=False) as live,
            Window(work.conn, work.server.connect, each) as inside,
        ):
            return _compare(live, inside, each)
    except psycopg2.Error as exc:
        what = f"The rows of {each.name} could not be compared with those of {name} ({str(exc).strip().splitlines()[0]})."
        work.report.block("uncounted", name, what, "Nothing is dropped whose rows were not counted. Mend that, then complete again.")
        return {}


def _compare(live: t.Any, inside: t.Any, each: Database) -> dict[str, Own]:
    marker = each.marker
    since = _since.usable(inside, Since(marker["since"], bool(marker.get("since_exact"))) if marker.get("since") else None)
    candidates = _since.rows_since(inside, _manifest.tables_of(inside), since) if since else _different(live, inside)
    for connection in (live, inside):
        for setting in (*_carry.TEXT_SETTINGS, "search_path = pg_catalog"):
            rows(connection, f"SET {setting}")
    own: dict[str, Own] = {}
    rows(inside, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    rows(live, "BEGIN")
    try:
        for number, ((schema, table), count) in enumerate(candidates.items()):
            rows(live, "SAVEPOINT payops")
            try:
                counted = _own_rows(live, inside, Ledger(schema, table), since, number, count)
            except psycopg2.DataError:  # the live columns cannot hold some of them, as a type or a label that was added since
                rows(live, "ROLLBACK TO SAVEPOINT payops")
                counted = Own(count, False)
            if counted.rows:
                own[qualified(schema, table)] = counted
        blobs = _own_objects(live, inside)
        if blobs:
            own["large objects"] = Own(blobs)
    finally:
        for connection in (live, inside):
            if not connection.closed:
                rows(connection, "ROLLBACK")
    return own


def _different(live: t.Any, inside: t.Any) -> dict[tuple[str, str], int]:
    """Tables with rows of which the live database does not hold the very same."""
    here, there = _manifest.count_tables(live, "full"), _manifest.count_tables(inside, "full")
    return {
        (entry["schema"], entry["table"]): entry["rows"]
        for name, entry in there.items()
        if entry["rows"] and (here.get(name, {}).get("rows"), here.get(name, {}).get("hash")) != (entry["rows"], entry["hash"])
    }


def _own_objects(live: t.Any, inside: t.Any) -> int:
    """Large objects that the live database does not have, or has with another content."""
    objects = "SELECT oid::bigint FROM pg_catalog.pg_largeobject_metadata"
    there, here = ({row[0] for row in rows(connection, objects)} for connection in (inside, live))
    both = there & here
    if not both:
        return len(there)
    mine, theirs = (_manifest.large_object_hashes(connection, both) for connection in (inside, live))
    return len(there - both) + sum(mine[oid] != theirs[oid] for oid in both)


def _own_rows(live: t.Any, inside: t.Any, table: Ledger, since: Since | None, number: int, count: int) -> Own:
    there, here = _ledger.columns(inside, table), _ledger.columns(live, table)
    if not set(there) <= set(here):
        return Own(count)  # the live database has no place for them, or for a part of each
    key = [column for column in _ledger.primary_key(live, table) if column in there]
    if not key:
        since = None  # the same content may be there several times: only all of them can be compared
    if (
        since is None
        and int(one(inside, "SELECT pg_catalog.pg_table_size(%s::regclass)", (_state.quoted(table.schema, table.table),))) > MOST_BYTES
    ):
        return Own(count, False)
    heap = sql.Identifier("pg_temp", f"payops_own_{number}")
    names = sql.SQL(", ").join(sql.Identifier(column) for column in there)
    rows(live, sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(heap, names, table.identifier))
    where = _since.newer(since, "r") if since else sql.SQL("true")
    select = sql.SQL("COPY (SELECT {} FROM {} AS r WHERE {}) TO STDOUT").format(names, table.identifier, where)
    with tempfile.SpooledTemporaryFile(max_size=_carry.SPOOL) as spool, inside.cursor() as out, live.cursor() as into:
        out.copy_expert(select, spool)
        spool.seek(0)
        into.copy_expert(sql.SQL("COPY {} ({}) FROM STDIN").format(heap, names), spool)
    rows(live, sql.SQL("ANALYZE {}").format(heap))
    mine, theirs = (
        sql.SQL("ROW({})::text").format(sql.SQL(", ").join(sql.Identifier(alias, column) for column in there)) for alias in "hl"
    )
    if key:
        same = _ledger.equal(_ledger.equality(live, table), key)
        query = sql.SQL("SELECT count(*) FROM {} h WHERE NOT EXISTS (SELECT FROM {} l WHERE {} AND {} = {})")
        return Own(int(one(live, query.format(heap, table.identifier, same, mine, theirs))))
    query = sql.SQL(
        "SELECT coalesce(sum(greatest(a.n - coalesce(b.n, 0), 0)), 0) FROM (SELECT {} AS r, count(*) AS n FROM {} h GROUP BY 1) a"
        " LEFT JOIN (SELECT {} AS r, count(*) AS n FROM {} l GROUP BY 1) b USING (r)"
    )
    return Own(int(one(live, query.format(mine, heap, theirs, table.identifier))))


# -- what must not be dropped -----------------------------------------------------------------------------------------


def _never_carried(work: Restore, database: Database) -> None:
    run, version = _pending.actor(database), database.marker.get("version")
    work.report.block(
        "owed",
        database.name,
        f"Run {run} (point {version}) was interrupted before it carried rows back out of {database.name}; dropping it would lose them.",
        f"Finish that with rollback_full.yml -e version={version}, or take it back with undo.yml; then complete.",
    )


def _attached(work: Restore, database: Database) -> None:
    """DROP DATABASE silently drops replication slots with it; refuse while anything still belongs to the database."""
    advice = "Drop it yourself if it is not needed any more, then complete again."
    query = "SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = %s"
    for (slot,) in _state.rows(work.conn, query, (database.name,)):
        work.report.block("slot", database.name, f"{database.name} has the logical replication slot {slot!r}.", advice)
    for (subscription,) in _state.rows(work.conn, "SELECT subname FROM pg_catalog.pg_subscription WHERE subdbid = %s", (database.oid,)):
        work.report.block("subscription", database.name, f"{database.name} has the subscription {subscription!r}.", advice)
    for (gid,) in _state.rows(work.conn, "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = %s", (database.name,)):
        work.report.block("prepared", database.name, f"{database.name} has the prepared transaction {gid!r}.", advice)
