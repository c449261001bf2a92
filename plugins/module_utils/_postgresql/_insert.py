# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Insert what :mod:`_carry` found to be new. What a constraint refuses is left; the rest goes in."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import Ledger, equal, equality
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import quoted, rows

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

MOST_NAMED = 20
# Of these no row is at fault: the connection, a deadlock, rights, a full disk, a lock, an end that somebody asked for.
NO_ROWS_FAULT = ("08", "25", "40", "42501", "53", "55", "57", "58", "F0", "XX")
MODES = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}


def do(connection: t.Any, text: str, parts: dict[str, t.Any]) -> list[tuple[t.Any, ...]]:
    """One statement. Values are among ``parts``, never beside them: a percent sign in a name would be taken for one of theirs."""
    return rows(connection, sql.SQL(text).format(**parts))


class Candidates:
    """Rows of one ledger in temporary tables of the live session: as text, and (``heap``) in the live types with what each is."""

    def __init__(self, live: t.Any, number: int, ledger: Ledger, names: list[str], key: list[str], lost: list[str]) -> None:
        self.live = live
        self.ledger = ledger
        self.names = names
        self.key = key
        self.lost = lost
        self.examples: list[str] = []
        self.unfit = self.deleted = 0
        self.ms = 0.0
        self.equals = equality(live, ledger)

        def listed(text: str, given: t.Iterable[str], between: str = ", ") -> t.Any:
            return sql.SQL(between).join(sql.SQL(text).format(sql.Identifier(name)) for name in given)

        self.parts: dict[str, t.Any] = {
            "table": ledger.identifier,
            "heap": sql.Identifier("pg_temp", f"payops_carry_{number}"),
            "text": sql.Identifier("pg_temp", f"payops_text_{number}"),
            "gone": sql.Identifier("pg_temp", f"payops_gone_{number}"),
            "names": listed("{}", names),
            "all_names": listed("{}", names + lost),
            "texts": listed("{} text", names + lost),
            "mine": listed("h.{}", names),
            "theirs": listed("l.{}", names),
            "key_names": listed("{}", key),
            "key_values": sql.SQL(", ").join(
                sql.SQL("{}::text" if name in self.equals else "{}").format(sql.Identifier(name)) for name in key
            ),
            "key_of_l": listed("l.{}::text", key),
            "gone_key": equal(self.equals, key, "g"),
            "same_key": equal(self.equals, key),
            "same_text": listed("l.{0}::text = h.{0}", key, " AND "),
            "no_key": listed("h.{} IS NULL", key, " OR "),
            "key_text": listed("coalesce(h.{}, 'NULL')", key, " || ', ' || "),
        }
        self.do("CREATE TEMPORARY TABLE {text} (payops_n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {texts}) ON COMMIT DROP")
        self.do("CREATE TEMPORARY TABLE {heap} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA")
        self.do("ALTER TABLE {heap} ADD payops_n bigint PRIMARY KEY, ADD payops_is text")

    def do(self, text: str) -> list[tuple[t.Any, ...]]:
        return do(self.live, text, self.parts)

    def marked(self, kind: str, most: int | None = None) -> list[int]:
        query = "SELECT payops_n FROM {heap} WHERE payops_is = {kind} ORDER BY 1 LIMIT {most}"
        return [row[0] for row in do(self.live, query, {**self.parts, "kind": sql.Literal(kind), "most": sql.Literal(most)})]

    def mark(self, numbers: t.Sequence[int], kind: str, before: str) -> None:
        """These rows become ``kind``, and all others that were of the kind ``before`` become new."""
        query = "UPDATE {heap} SET payops_is = CASE WHEN payops_n = ANY ({numbers}::bigint[]) THEN {kind} ELSE 'new' END WHERE payops_is = {before}"
        values = {"numbers": sql.Literal(list(numbers)), "kind": sql.Literal(kind), "before": sql.Literal(before)}
        do(self.live, query, {**self.parts, **values})

    def say(self, numbers: t.Sequence[int], why: str) -> None:
        """Name some of these rows by key, for people."""
        shown = list(numbers)[: max(0, MOST_NAMED - len(self.examples))]
        if shown:
            query = "SELECT {key_text} FROM {text} h WHERE payops_n = ANY ({shown}) ORDER BY payops_n"
            found = do(self.live, query, {**self.parts, "shown": sql.Literal(shown)})
            self.examples += [f"{self.ledger.label} {key}: {why}" for (key,) in found]


def halve(live: t.Any, text: str, parts: dict[str, t.Any], numbers: t.Sequence[int]) -> dict[int, str]:
    """Execute ``text`` for all of these rows. Where one is refused, halve until the refused ones are found: their numbers, each with the reason."""
    refused: dict[int, str] = {}
    waiting = [(0, len(numbers))] if numbers else []
    while waiting:
        first, last = waiting.pop()
        span = {"first": sql.Literal(numbers[first]), "last": sql.Literal(numbers[last - 1])}
        try:  # one message to the server, not three
            do(live, f"SAVEPOINT payops; {text}; RELEASE SAVEPOINT payops", {**parts, **span})
        except psycopg2.Error as exc:
            if live.closed or (exc.pgcode or "08").startswith(NO_ROWS_FAULT):
                raise
            rows(live, "ROLLBACK TO SAVEPOINT payops; RELEASE SAVEPOINT payops")
            if last - first > 1:
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]
            else:
                refused[numbers[first]] = f"{exc.diag.message_primary} ({exc.diag.message_detail or exc.pgcode})"
    return refused


def insert(live: t.Any, candidates: t.Sequence[Candidates], fire_triggers: bool, circle: bool, itself: bool) -> None:
    """Insert the new rows of all ledgers, which are in the order of their foreign keys.

    Where they refer to each other in a circle, foreign keys that may wait are checked at the end; if that fails, each at once. Where rows may
    refer to others of the same table or circle, refused ones are tried again until nothing changes.
    """
    triggers = [] if fire_triggers else [trigger for each in candidates for trigger in _triggers(live, each.ledger)]
    for statement, _unused in triggers:
        rows(live, statement)
    rows(live, "SAVEPOINT payops_all")
    try:
        if not circle:
            rows(live, "SET CONSTRAINTS ALL IMMEDIATE")
        refused = _all(live, candidates, circle or itself)
        rows(live, "SET CONSTRAINTS ALL IMMEDIATE")  # before the triggers: a table with a check that waits cannot be altered
    except psycopg2.IntegrityError:
        if not circle:
            raise
        rows(live, "ROLLBACK TO SAVEPOINT payops_all")
        rows(live, "SET CONSTRAINTS ALL IMMEDIATE")
        refused = _all(live, candidates, True)
    for each, reasons in zip(candidates, refused):
        for number, why in reasons.items():
            each.say([number], why)
        _kept_out(each)
        _sequences(live, each)
    for _unused, statement in triggers:
        rows(live, statement)


def _kept_out(each: Candidates) -> None:
    """A trigger or a rule may let an insert succeed and no row appear. What is not there was not carried."""
    query = "SELECT payops_n FROM {heap} h WHERE payops_is = 'new' AND NOT EXISTS (SELECT FROM {table} l WHERE {same_key}) ORDER BY 1"
    missing = [number for (number,) in each.do(query)]
    if missing:
        each.mark(missing, "refused", "new")
        each.say(missing, "a trigger or a rule of the live table kept it out, or gave it another key")


def _all(live: t.Any, candidates: t.Sequence[Candidates], again: bool) -> list[dict[int, str]]:
    refused = [_new(live, each, "new") for each in candidates]
    while again and any(refused):
        before = sum(map(len, refused))
        refused = [_new(live, each, "refused") if reasons else {} for each, reasons in zip(candidates, refused)]
        again = sum(map(len, refused)) < before
    return refused


def _new(live: t.Any, each: Candidates, kind: str) -> dict[int, str]:
    begun = time.monotonic()
    text = (
        "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {mine} FROM {heap} h"
        " WHERE payops_is = {kind} AND payops_n BETWEEN {first} AND {last} ORDER BY payops_n"
    )
    refused = halve(live, text, {**each.parts, "kind": sql.Literal(kind)}, each.marked(kind))
    if refused or kind != "new":
        each.mark(list(refused), "refused", kind)
    each.ms += (time.monotonic() - begun) * 1000
    return refused


def _triggers(live: t.Any, ledger: Ledger) -> list[tuple[t.Any, t.Any]]:
    """Statements that disable each user trigger and rule that would act, and that put it back. Foreign keys are internal triggers and stay on.

    A trigger of a partitioned table takes its copies on the partitions along; partitions may have others of their own, or a copy in
    another mode than the rest.
    """
    query = """
        SELECT 'TRIGGER', n.nspname, c.relname, t.tgname, t.tgenabled::text, p.tgenabled::text, x.level
          FROM (SELECT %s::regclass AS relid, 0 AS level UNION SELECT relid, level FROM pg_catalog.pg_partition_tree(%s)) x
          JOIN pg_catalog.pg_class c ON c.oid = x.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid LEFT JOIN pg_catalog.pg_trigger p ON p.oid = t.tgparentid
         WHERE NOT t.tgisinternal
        UNION ALL SELECT 'RULE', n.nspname, c.relname, r.rulename, r.ev_enabled::text, NULL, 0
          FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE r.ev_class = %s::regclass AND r.ev_type = '3'
         ORDER BY 7, 1, 2, 3, 4
    """
    statements = []
    for kind, schema, table, name, mode, above, _level in rows(live, query, (quoted(ledger.schema, ledger.table),) * 3):
        if mode != above and (mode in "OA" or (above is not None and above in "OA")):
            change, where, what = sql.SQL(f"ALTER TABLE {{}} {{}} {kind} {{}}"), sql.Identifier(schema, table), sql.Identifier(name)
            statements.append((change.format(where, sql.SQL("DISABLE"), what), change.format(where, sql.SQL(MODES[mode]), what)))
    return statements


def _sequences(live: t.Any, each: Candidates) -> None:
    """Identity and serial sequences past the highest number carried, never back.

    Only numbers count: a sequence may belong to a column of texts that are made from it. Only carried ones count, and not the highest that the
    sequence can give: a row with a number that somebody chose must not bring it to its end.
    """
    query = """
        SELECT a.attname, sn.nspname, s.relname, q.seqmax
          FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
          JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
          JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
           AND d.refobjid = %s::regclass AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
    """
    for column, schema, sequence, highest in rows(live, query, (quoted(each.ledger.schema, each.ledger.table),)):
        if column not in each.names:
            continue
        parts = {
            "column": sql.Identifier(column),
            "sequence": sql.Identifier(schema, sequence),
            "named": sql.Literal(quoted(schema, sequence)),
            "highest": sql.Literal(highest),
        }
        text = (
            "SELECT pg_catalog.setval({named}::regclass, m.top, true) FROM (SELECT max({column})::bigint AS top FROM {heap}"
            " WHERE payops_is = 'new' AND {column} < {highest}) m, {sequence} s WHERE m.top > s.last_value AND m.top > 0"
        )
        do(live, text, {**each.parts, **parts})
