# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Bring rows of declared ledger tables from the replaced database into the live one: pure inserts, everything else is told.

Which rows of the replaced database are candidates is found by their ``xmin`` where it descends from the point (a scan
as fast as ``count(*)``, and only candidates are transferred), else all rows are. A candidate is

* *new*: its key is not in the live table. It is inserted, unless another constraint refuses it: then it is *conflicting*
* *changed*: the live row of that key is as the point had it. It is left
* *conflicting*: the live row of that key was written after the flip and differs, the live columns cannot hold it unchanged, or it may be a row
  that the live table has under another key, which the replaced one no longer has. It is left, so that nothing is ever there twice
"""

from __future__ import annotations

import tempfile
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _insert
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._insert import Candidates, do, halve
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import (
    Column,
    Ledger,
    described,
    equal,
    heirs,
    in_order,
    primary_key,
    unique,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import one, rows

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

HALF_THE_XIDS = 1 << 31
SPOOL = 64 << 20
MOST_EXAMPLES = 20
BATCH = 500
TEXT_SETTINGS = (
    "DateStyle = 'ISO, YMD'", "TimeZone = 'UTC'", "IntervalStyle = 'postgres'", "extra_float_digits = 3", "bytea_output = 'hex'",
    "lc_monetary = 'C'", "xmloption = 'content'", "row_security = off",
)  # fmt: skip


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
    lost: dict[str, int]  # rows carried with a value in a column that the live table does not have


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
            found[qualified(schema, table)] = count
    return found


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
        ordered, circle, itself = in_order(self.live, ledgers)
        rows(self.live, "SET lock_timeout = '10s'")
        rows(self.source, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows(self.live, "BEGIN")
        try:
            sorted_out = [self._sort_out(number, ledger, *shapes[ledger]) for number, ledger in enumerate(ordered)]
            if self.acting:
                _insert.insert(self.live, sorted_out, self.fire_triggers, circle, itself)
            told = {each.ledger.label: self._told(each) for each in sorted_out}
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

    def _shape(self, ledger: Ledger) -> tuple[dict[str, Column], dict[str, Column], list[str]]:
        """Columns here and there, and the key. Refuses what cannot be carried."""
        here, there = described(self.live, ledger), described(self.source, ledger)
        for side, connection, found in (("live", self.live, here), ("replaced", self.source, there)):
            if not found:
                raise RollbackError(f"The ledger {ledger.label} is no table of the {side} database. Correct the ledgers, or leave it out.")
            inherits = heirs(connection, ledger)
            if inherits:
                raise RollbackError(
                    f"The ledger {ledger.label} of the {side} database has {', '.join(inherits)} inherit from it. Leave it out."
                )
        key = list(ledger.key) or primary_key(self.live, ledger)
        if not key:
            raise RollbackError(f"The ledger {ledger.label} has no primary key. Declare its key, so that a row can be recognised.")
        missing = [column for column in key if column not in here or column not in there]
        if missing:
            raise RollbackError(f"The ledger {ledger.label} lacks the key column(s) {', '.join(missing)} in one of the databases.")
        if not unique(self.live, ledger, key):
            raise RollbackError(
                f"The key {', '.join(key)} of the ledger {ledger.label} is not unique. Declare columns that have a unique index."
            )
        return here, there, key

    def _sort_out(self, number: int, ledger: Ledger, here: dict[str, Column], there: dict[str, Column], key: list[str]) -> Candidates:
        """Fetch the candidates and decide what becomes of each."""
        begun = time.monotonic()
        names = [column for column in here if column in there]
        each = Candidates(self.live, number, ledger, names, key, [column for column in there if column not in here])
        parts = each.parts
        parts["fresh"] = newer(self.live_since, "l") if self.live_since else sql.SQL("false")
        if self.acting:
            each.do("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        total = self._fetch(each, here, there)
        each.do(
            """
            UPDATE {heap} h SET payops_is = CASE
              WHEN {no_key} THEN 'unkeyed'
              WHEN NOT EXISTS (SELECT FROM {table} l WHERE {same_key}) THEN 'new'
              WHEN EXISTS (SELECT FROM {table} l WHERE {same_key} AND ROW({theirs})::text = ROW({mine})::text) THEN 'same'
              WHEN EXISTS (SELECT FROM {table} l WHERE {same_key} AND {fresh}) THEN 'conflicting'
              ELSE 'changed' END
            """
        )
        each.do("ANALYZE {heap}")  # what is new is asked for often
        each.deleted = self._deleted(each, total)
        each.say(each.marked("conflicting"), "the live row was written after the flip and differs")
        self._moved(each, here)
        each.ms = (time.monotonic() - begun) * 1000
        return each

    def _fetch(self, each: Candidates, here: dict[str, Column], there: dict[str, Column]) -> int:
        """Copy the candidates, first as text: one that the live columns cannot hold is left alone. Returns how many rows the source has."""
        where = newer(self.since, "r") if self.since else sql.SQL("true")
        select = sql.SQL("COPY (SELECT {all_names} FROM {table} AS r WHERE {where}) TO STDOUT").format(where=where, **each.parts)
        with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool, self.source.cursor() as out, self.live.cursor() as into:
            out.copy_expert(select, spool)
            spool.seek(0)
            into.copy_expert(sql.SQL("COPY {text} ({all_names}) FROM STDIN").format(**each.parts), spool)
        each.do("ANALYZE {text}")
        casts = [sql.SQL("h.{}::{}").format(sql.Identifier(name), sql.SQL(here[name].bare)) for name in each.names]
        last = int(each.do("SELECT coalesce(max(payops_n), 0) FROM {text}")[0][0])
        # without a length, which the assignment checks: a cast to a length would cut silently
        refused = halve(
            self.live,
            "INSERT INTO {heap} ({names}, payops_n) SELECT {casts}, h.payops_n FROM {text} h WHERE h.payops_n BETWEEN {first} AND {last}",
            {**each.parts, "casts": sql.SQL(", ").join(casts)},
            range(1, last + 1),
        )
        each.unfit += len(refused)
        for number, why in refused.items():
            each.say([number], why)
        doubtful = [name for name in each.names if here[name].type != there[name].type or not (here[name].plain or here[name].labels)]
        if doubtful:
            intact = sql.SQL(" AND ").join(_intact(name, there[name]) for name in doubtful)
            query = "DELETE FROM {heap} v USING {text} h WHERE h.payops_n = v.payops_n AND NOT ({intact}) RETURNING h.payops_n"
            altered = sorted(row[0] for row in do(self.live, query, {**each.parts, "intact": intact}))
            each.unfit += len(altered)
            each.say(altered, f"the live table would not hold it unchanged; its type differs in {', '.join(doubtful)}")
        each.do("ANALYZE {heap}")
        return int(one(self.source, sql.SQL("SELECT count(*) FROM {}").format(each.ledger.identifier)))

    def _deleted(self, each: Candidates, total: int) -> int:
        """Rows that the point had and the replaced database no longer has: counted, not fetched."""
        old = int(each.do("SELECT count(*) FROM {table} l WHERE NOT {fresh}")[0][0])
        unmatched = int(
            each.do("SELECT count(*) FROM {heap} h WHERE NOT EXISTS (SELECT FROM {table} l WHERE {same_key} AND NOT {fresh})")[0][0]
        )
        if each.unfit:
            query = "SELECT count(*) FROM {text} h WHERE NOT EXISTS (SELECT FROM {heap} v WHERE v.payops_n = h.payops_n)"
            unmatched += int(each.do(query + " AND NOT EXISTS (SELECT FROM {table} l WHERE {same_text} AND NOT {fresh})")[0][0])
        return max(0, old - (total - unmatched))

    def _moved(self, each: Candidates, here: dict[str, Column]) -> None:
        """Mark new rows that may be old ones under another key, so that no payment is there twice.

        Where a column of the key was updated, the live table has the row under the old key, which the replaced one no longer has. Both have the
        same number where a sequence gives one; else the same value in a column of the key in which all live rows differ, or, if there is none,
        in all columns of the key but one. Another unique column needs no care: its constraint refuses the second one.
        """
        numbered = [name for name in each.names if here[name].numbered]
        if numbered == each.key or (not numbered and len(each.key) == 1) or not each.marked("new", 1):
            return
        telling = numbered
        if not numbered:
            held = {name: self._held(each, name) for name in each.key}
            if not any(held.values()):
                return  # no new row shares anything with a live one
            telling = [name for name in each.key if held[name] < 2 and self._all_differ(each, name)]
        shared = [[name] for name in telling] or [[other for other in each.key if other != name] for name in each.key]
        alike = [equal(each.equals, group) for group in shared]
        # what the application wrote since the flip under a part of the key says nothing
        old = sql.SQL("true") if telling else sql.SQL("NOT {fresh}").format(**each.parts)
        near: set[tuple[t.Any, ...]] = set()
        for same in alike:
            query = "SELECT {key_of_l} FROM {table} l WHERE {old} AND EXISTS (SELECT FROM {heap} h WHERE h.payops_is = 'new' AND {same})"
            near.update(do(self.live, query, {**each.parts, "old": old, "same": same}))
        gone = sorted(near - self._still_there(each, sorted(near)))
        if not gone:
            return
        each.do("CREATE TEMPORARY TABLE {gone} ON COMMIT DROP AS SELECT {key_names} FROM {table} WITH NO DATA")
        for start in range(0, len(gone), BATCH):
            do(self.live, "INSERT INTO {gone} VALUES {listed}", {**each.parts, "listed": _listed(gone[start : start + BATCH])})
        for same in alike:
            query = (
                "UPDATE {heap} h SET payops_is = 'moved' FROM {table} l JOIN {gone} g ON {gone_key} WHERE h.payops_is = 'new' AND {same}"
            )
            do(self.live, query, {**each.parts, "same": same})
        each.say(each.marked("moved"), "it may be a live row under another key, one that the replaced database no longer has")

    def _held(self, each: Candidates, name: str) -> int:
        """How many live rows, at most, have a value of this column that a new row has, too."""
        query = "SELECT l.{name} FROM {table} l WHERE EXISTS (SELECT FROM {heap} h WHERE h.payops_is = 'new' AND {same})"
        query = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM (" + query + ") x GROUP BY x.{name}) y"
        return int(do(self.live, query, {**each.parts, "name": sql.Identifier(name), "same": equal(each.equals, [name])})[0][0])

    def _all_differ(self, each: Candidates, name: str) -> bool:
        query = "SELECT 1 FROM {table} l GROUP BY l.{name} HAVING count(*) > 1 LIMIT 1"
        return not do(self.live, query, {**each.parts, "name": sql.Identifier(name)})

    def _still_there(self, each: Candidates, keys: t.Sequence[tuple[t.Any, ...]]) -> set[tuple[t.Any, ...]]:
        found: set[tuple[t.Any, ...]] = set()
        for start in range(0, len(keys), BATCH):
            query = "SELECT {key_of_l} FROM {table} l WHERE ({key_values}) IN ({listed})"
            found.update(do(self.source, query, {**each.parts, "listed": _listed(keys[start : start + BATCH])}))
        return found

    def _told(self, each: Candidates) -> Told:
        kinds = dict(each.do("SELECT payops_is, count(*) FROM {heap} GROUP BY 1"))
        lost = {}
        for name in each.lost:
            query = "SELECT count(h.{name}) FROM {text} h JOIN {heap} v USING (payops_n) WHERE v.payops_is = 'new'"
            lost[name] = int(do(self.live, query, {**each.parts, "name": sql.Identifier(name)})[0][0])
        left = {"new": 0, "changed": kinds.get("changed", 0), "deleted": each.deleted,
                "conflicting": sum(kinds.get(kind, 0) for kind in ("conflicting", "unkeyed", "moved", "refused")) + each.unfit}  # fmt: skip
        return Told(
            kinds.get("new", 0), left, each.examples[:MOST_EXAMPLES], round(each.ms, 1), {name: many for name, many in lost.items() if many}
        )


def _intact(name: str, source: Column) -> t.Any:
    """SQL that is true where the text ``h`` became the value ``v`` without a change: back in the source's type it reads the same."""
    value = sql.SQL("pg_catalog.format('%s', v.{})").format(sql.Identifier(name))
    back = sql.SQL("pg_catalog.format('%s', {}::{})").format(value, sql.SQL(source.type)) if source.plain else value
    return sql.SQL("CASE WHEN pg_catalog.num_nonnulls(v.{0}) = 0 THEN h.{0} IS NULL ELSE {1} = h.{0} END").format(
        sql.Identifier(name), back
    )


def _listed(keys: t.Iterable[tuple[t.Any, ...]]) -> t.Any:
    return sql.SQL(", ").join(sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key))) for key in keys)
