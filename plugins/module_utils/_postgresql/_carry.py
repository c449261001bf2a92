# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Bring rows of declared ledger tables from the replaced database into the live one: pure inserts, everything else is told.

Which rows of the replaced database are candidates is found by their ``xmin`` where it descends from the point (a scan
as fast as ``count(*)``, and only candidates are transferred), else all rows are. A candidate is

* *new*: its key is not in the live table. It is inserted, unless another constraint refuses it: then it is *conflicting*
* *changed*: the live row of that key is as the point had it. It is left
* *conflicting*: the live row of that key was written after the flip and differs. It is left
"""

from __future__ import annotations

import tempfile
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import one, quoted, rows

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

HALF_THE_XIDS = 1 << 31
SPOOL = 64 << 20
MOST_EXAMPLES = 20
TEXT_SETTINGS = (
    "DateStyle = 'ISO, YMD'", "TimeZone = 'UTC'", "IntervalStyle = 'postgres'", "extra_float_digits = 3", "bytea_output = 'hex'",
    "lc_monetary = 'C'", "xmloption = 'content'", "row_security = off",
)  # fmt: skip


class Ledger(t.NamedTuple):
    schema: str
    table: str
    key: tuple[str, ...] = ()  # empty: the primary key

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def identifier(self) -> t.Any:
        return sql.Identifier(self.schema, self.table)


class Since(t.NamedTuple):
    """A moment as ``pg_current_snapshot()`` gave it. ``exact`` where nobody was inside a transaction at that moment."""

    snapshot: str
    exact: bool


class Told(t.NamedTuple):
    """What happened to one table."""

    carried: int
    left: dict[str, int]
    examples: list[str]
    ms: float


def usable(connection: t.Any, since: Since | None) -> Since | None:
    """``since`` while transaction numbers can still be compared with it (half of their range), else None."""
    if since is None or not since.snapshot:
        return None
    query = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text, pg_catalog.pg_snapshot_xmin(%s::pg_snapshot)::text"
    now, then = (int(part) for part in rows(connection, query, (since.snapshot,))[0])
    return since if 0 <= now - then < HALF_THE_XIDS else None


def newer(since: Since, alias: str = "") -> t.Any:
    """SQL that is true for rows written since then.

    Numbers of subtransactions are not in a snapshot, so where transactions were open at that moment (``exact`` false)
    every row from the oldest of them on counts; comparing contents sorts those out.
    """
    oldest = int(since.snapshot.split(":")[0])
    xmin = sql.SQL(".").join([sql.Identifier(alias), sql.SQL("xmin")]) if alias else sql.SQL("xmin")
    start = sql.Literal(str(oldest % (1 << 32)))
    recent = sql.SQL("pg_catalog.age({x}) <= pg_catalog.age({start}::xid)").format(x=xmin, start=start)
    if not since.exact:
        return recent
    full = sql.SQL("({oldest}::bigint + pg_catalog.age({start}::xid) - pg_catalog.age({x}))::text::xid8").format(
        oldest=sql.Literal(oldest), start=start, x=xmin
    )
    visible = sql.SQL("pg_catalog.pg_visible_in_snapshot({full}, {snapshot}::pg_snapshot)").format(
        full=full, snapshot=sql.Literal(since.snapshot)
    )
    return sql.SQL("({recent} AND NOT {visible})").format(recent=recent, visible=visible)


def rows_since(connection: t.Any, tables: t.Iterable[tuple[str, str]], since: Since | None) -> dict[str, int]:
    """Rows inserted or updated since then, per table; only tables that have some. Costs about as much as count(*)."""
    if usable(connection, since) is None or since is None:
        return {}
    found = {}
    for schema, table in tables:
        query = sql.SQL("SELECT count(*) FROM {} AS r WHERE {}").format(sql.Identifier(schema, table), newer(since, "r"))
        count = int(one(connection, query))
        if count:
            found[f"{schema}.{table}"] = count
    return found


# -- what a ledger is -------------------------------------------------------------------------------------------------


def columns(connection: t.Any, ledger: Ledger) -> list[str]:
    """Columns that can be copied: not dropped, not generated."""
    found = rows(
        connection,
        """
        SELECT a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         ORDER BY a.attnum
        """,
        (ledger.schema, ledger.table),
    )
    return [row[0] for row in found]


def primary_key(connection: t.Any, ledger: Ledger) -> list[str]:
    found = rows(
        connection,
        """
        SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
         WHERE n.nspname = %s AND c.relname = %s AND i.indisprimary ORDER BY k.place
        """,
        (ledger.schema, ledger.table),
    )
    return [row[0] for row in found]


def in_order(connection: t.Any, ledgers: t.Sequence[Ledger]) -> tuple[list[Ledger], bool]:
    """Ledgers with those that others refer to first, and whether some refer to each other in a circle."""
    by_label = {ledger.label: ledger for ledger in ledgers}
    refers: dict[str, set[str]] = {label: set() for label in by_label}
    query = """
        SELECT DISTINCT n.nspname || '.' || c.relname, fn.nspname || '.' || fc.relname
          FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_class fc ON fc.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
         WHERE k.contype = 'f' AND k.conrelid <> k.confrelid
    """
    for child, parent in rows(connection, query):
        if child in by_label and parent in by_label:
            refers[child].add(parent)
    ordered: list[Ledger] = []
    circle = False
    while refers:
        free = sorted(label for label, parents in refers.items() if not parents & set(refers))
        if not free:
            circle, free = True, [min(refers)]
        for label in free:
            ordered.append(by_label[label])
            del refers[label]
    return ordered, circle


# -- one database -----------------------------------------------------------------------------------------------------


class Carrier:
    """Carries into ``live`` from ``source``. Both are sessions in autocommit; the work is one transaction in each."""

    def __init__(
        self, live: t.Any, source: t.Any, since: Since | None, live_since: Since | None, fire_triggers: bool = False, acting: bool = True
    ) -> None:
        self.live = live
        self.source = source
        self.since = usable(source, since)
        self.live_since = usable(live, live_since)
        self.fire_triggers = fire_triggers
        self.acting = acting

    def run(self, ledgers: t.Sequence[Ledger]) -> dict[str, Told]:
        for connection in (self.live, self.source):
            for setting in TEXT_SETTINGS + (() if self.fire_triggers else ("search_path = pg_catalog",)):
                rows(connection, f"SET {setting}")
        shapes = {ledger: self._shape(ledger) for ledger in ledgers}
        ordered, circle = in_order(self.live, ledgers)
        rows(self.live, "SET lock_timeout = '10s'")
        rows(self.source, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows(self.live, "BEGIN")
        try:
            if not circle:
                rows(self.live, "SET CONSTRAINTS ALL IMMEDIATE")
            told = {}
            for number, ledger in enumerate(ordered):
                told[ledger.label] = self._one(number, ledger, *shapes[ledger])
            rows(self.live, "COMMIT" if self.acting else "ROLLBACK")
        except psycopg2.Error as exc:
            if not self.live.closed:
                rows(self.live, "ROLLBACK")
            raise RollbackError(
                f"Carrying rows back failed: {str(exc).strip()}. Nothing was carried; every row is still in the replaced database."
            ) from exc
        finally:
            if not self.source.closed:
                rows(self.source, "ROLLBACK")
        return told

    def _shape(self, ledger: Ledger) -> tuple[list[str], list[str]]:
        """Columns in both databases, and the key. Refuses what cannot be carried."""
        here, there = columns(self.live, ledger), columns(self.source, ledger)
        for side, found in (("live", here), ("replaced", there)):
            if not found:
                raise RollbackError(f"The ledger {ledger.label} is no table of the {side} database. Correct the ledgers, or leave it out.")
        both = [column for column in here if column in there]
        key = list(ledger.key) or primary_key(self.live, ledger)
        if not key:
            raise RollbackError(f"The ledger {ledger.label} has no primary key. Declare its key, so that a row can be recognised.")
        missing = [column for column in key if column not in both]
        if missing:
            raise RollbackError(f"The ledger {ledger.label} lacks the key column(s) {', '.join(missing)} in one of the databases.")
        return both, key

    def _one(self, number: int, ledger: Ledger, names: list[str], key: list[str]) -> Told:
        begun = time.monotonic()
        parts = {
            "table": ledger.identifier,
            "heap": sql.Identifier("pg_temp", f"payops_carry_{number}"),
            "names": sql.SQL(", ").join(sql.Identifier(name) for name in names),
            "heap_names": sql.SQL(", ").join(sql.Identifier("h", name) for name in names),
            "same_key": sql.SQL(" AND ").join(sql.SQL("l.{0} = h.{0}").format(sql.Identifier(name)) for name in key),
            "no_key": sql.SQL(" OR ").join(sql.SQL("h.{} IS NULL").format(sql.Identifier(name)) for name in key),
            "mine": sql.SQL(", ").join(sql.Identifier("h", name) for name in names),
            "theirs": sql.SQL(", ").join(sql.Identifier("l", name) for name in names),
            "fresh": newer(self.live_since, "l") if self.live_since else sql.SQL("false"),
            "key_text": sql.SQL(" || ', ' || ").join(sql.SQL("h.{}::text").format(sql.Identifier(name)) for name in key),
        }
        if self.acting:
            self._do("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE", parts)
        self._do("CREATE TEMPORARY TABLE {heap} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA", parts)
        self._do("ALTER TABLE {heap} ADD payops_n bigint GENERATED ALWAYS AS IDENTITY, ADD payops_is text", parts)
        total = self._fetch(ledger, parts)
        self._do(
            """
            UPDATE {heap} h SET payops_is = CASE
              WHEN {no_key} THEN 'unkeyed'
              WHEN NOT EXISTS (SELECT FROM {table} l WHERE {same_key}) THEN 'new'
              WHEN EXISTS (SELECT FROM {table} l WHERE {same_key} AND ROW({theirs})::text = ROW({mine})::text) THEN 'same'
              WHEN EXISTS (SELECT FROM {table} l WHERE {same_key} AND {fresh}) THEN 'conflicting'
              ELSE 'changed' END
            """,
            parts,
        )
        kinds = dict(self._do("SELECT payops_is, count(*) FROM {heap} GROUP BY 1", parts))
        deleted = self._deleted(parts, total)
        examples = [
            f"{ledger.label} {key_text}: the live row was written after the flip and differs"
            for (key_text,) in self._do("SELECT {key_text} FROM {heap} h WHERE payops_is = 'conflicting' ORDER BY payops_n LIMIT 20", parts)
        ]
        carried, refused = kinds.get("new", 0), 0
        if self.acting and carried:
            carried = self._insert(ledger, parts, examples)
            refused = kinds["new"] - carried
            self._sequences(ledger, names)
        left = {"new": 0, "changed": kinds.get("changed", 0), "deleted": deleted,
                "conflicting": kinds.get("conflicting", 0) + kinds.get("unkeyed", 0) + refused}  # fmt: skip
        return Told(carried, left, examples[:MOST_EXAMPLES], round((time.monotonic() - begun) * 1000, 1))

    def _do(self, text: str, parts: dict[str, t.Any], values: t.Any = None) -> list[tuple[t.Any, ...]]:
        return rows(self.live, sql.SQL(text).format(**parts), values)

    def _fetch(self, ledger: Ledger, parts: dict[str, t.Any]) -> int:
        """Copy the candidates into the temporary table. Returns how many rows the source has in all."""
        where = newer(self.since, "r") if self.since else sql.SQL("true")
        select = sql.SQL("COPY (SELECT {names} FROM {table} AS r WHERE {where}) TO STDOUT").format(where=where, **parts)
        with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool, self.source.cursor() as out, self.live.cursor() as into:
            out.copy_expert(select, spool)
            spool.seek(0)
            into.copy_expert(sql.SQL("COPY {heap} ({names}) FROM STDIN").format(**parts), spool)
        self._do("ANALYZE {heap}", parts)
        return int(one(self.source, sql.SQL("SELECT count(*) FROM {}").format(ledger.identifier)))

    def _deleted(self, parts: dict[str, t.Any], total: int) -> int:
        """Rows that the point had and the replaced database no longer has: counted, not fetched."""
        old = int(self._do("SELECT count(*) FROM {table} l WHERE NOT {fresh}", parts)[0][0])
        unmatched = int(
            self._do("SELECT count(*) FROM {heap} h WHERE NOT EXISTS (SELECT FROM {table} l WHERE {same_key} AND NOT {fresh})", parts)[0][0]
        )
        return max(0, old - (total - unmatched))

    def _insert(self, ledger: Ledger, parts: dict[str, t.Any], examples: list[str]) -> int:
        """Insert what is new. Where a constraint refuses, halve until the refused rows are found; those are left."""
        triggers = [] if self.fire_triggers else self._triggers(ledger)
        for name, unused in triggers:
            rows(self.live, sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(ledger.identifier, sql.Identifier(name)))
        numbers = [row[0] for row in self._do("SELECT payops_n FROM {heap} WHERE payops_is = 'new' ORDER BY 1", parts)]
        waiting = [(0, len(numbers))]
        carried = 0
        while waiting:
            first, last = waiting.pop()
            rows(self.live, "SAVEPOINT payops")
            try:
                self._do(
                    "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {heap_names} FROM {heap} h"
                    " WHERE payops_is = 'new' AND payops_n BETWEEN %s AND %s ORDER BY payops_n",
                    parts,
                    (numbers[first], numbers[last - 1]),
                )
                carried += last - first
                rows(self.live, "RELEASE SAVEPOINT payops")
            except psycopg2.Error as exc:
                if self.live.closed:
                    raise
                rows(self.live, "ROLLBACK TO SAVEPOINT payops")
                if last - first > 1:
                    middle = (first + last) // 2
                    waiting += [(middle, last), (first, middle)]
                    continue
                key_text = self._do("SELECT {key_text} FROM {heap} h WHERE payops_n = %s", parts, (numbers[first],))[0][0]
                examples.append(f"{ledger.label} {key_text}: {exc.diag.message_primary} ({exc.diag.message_detail or exc.pgcode})")
        modes = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
        for name, mode in triggers:
            restore = sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(ledger.identifier, sql.SQL(modes[mode]), sql.Identifier(name))
            rows(self.live, restore)
        return carried

    def _triggers(self, ledger: Ledger) -> list[tuple[str, str]]:
        """User triggers that would fire, with the mode to restore. Foreign keys are internal triggers and stay on."""
        query = """
            SELECT t.tgname, t.tgenabled::text FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = %s AND c.relname = %s AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
        """
        return [(row[0], row[1]) for row in rows(self.live, query, (ledger.schema, ledger.table))]

    def _sequences(self, ledger: Ledger, names: t.Sequence[str]) -> None:
        """Identity and serial sequences past the highest number carried, never back."""
        query = """
            SELECT a.attname, sn.nspname, s.relname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
              JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
               AND n.nspname = %s AND c.relname = %s
        """
        for column, schema, sequence in rows(self.live, query, (ledger.schema, ledger.table)):
            if column not in names:
                continue
            rows(
                self.live,
                sql.SQL(
                    "SELECT pg_catalog.setval(%s::regclass, m.top, true) FROM (SELECT max({})::bigint AS top FROM {}) m, {} s"
                    " WHERE m.top > s.last_value AND m.top > 0"
                ).format(sql.Identifier(column), ledger.identifier, sql.Identifier(schema, sequence)),
                (quoted(schema, sequence),),
            )
