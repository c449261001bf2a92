# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Ask databases whether their data holds, and how they differ from a point. Nothing is changed.

A check has ``ok`` true, false, or none: none is worth a look but proves nothing (rows that a NOT VALID foreign key
always tolerated, a check that did not end in time).
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _manifest, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import (
    Server,
    execute,
    plain,
    psycopg2,
    readable_errors,
    rows,
    value,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

COMPONENT = "postgresql"

INVALID_INDEXES = r"""
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT (i.indisvalid AND i.indisready) AND n.nspname !~ '^pg_(catalog|temp)' ORDER BY 1"""
FOREIGN_KEYS = """
SELECT k.conname::text, k.conrelid::regclass::text, k.confrelid::regclass::text, k.convalidated, k.confmatchtype::text,
  (SELECT array_agg(quote_ident(a.attname) ORDER BY x.n) FROM unnest(k.conkey) WITH ORDINALITY x(num, n)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.num),
  (SELECT array_agg(quote_ident(a.attname) ORDER BY x.n) FROM unnest(k.confkey) WITH ORDINALITY x(num, n)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.num),
  (SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END FROM pg_class c WHERE c.oid = k.conrelid),
  (SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END FROM pg_class c WHERE c.oid = k.confrelid), {temporal} AS temporal
FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY 2, 1"""


class Wish(t.NamedTuple):
    """What the module was asked for."""

    databases: list[str]
    version: str | None = None
    queries: list[dict[str, t.Any]] = []
    count_tables: list[dict[str, t.Any]] = []
    orphans: bool = True
    invalid_indexes: bool = True
    timeout: int = 60


def as_text(found: t.Any) -> str:
    """Values as they are compared: ``expect: 5`` and ``expect: "5"`` are one, true is ``true``."""
    if isinstance(found, bool):
        return "true" if found else "false"
    if found is None:
        return "null"
    if isinstance(found, (list, tuple)):
        return "[" + ", ".join(as_text(each) for each in found) + "]"
    text = str(found)
    return text.lower() if text.lower() in ("true", "false") else text


def as_json(found: t.Any) -> t.Any:
    """A value of the database for a result."""
    if found is None or isinstance(found, (bool, int, str)):
        return found
    return [as_json(each) for each in found] if isinstance(found, (list, tuple)) else str(found)


def holds(found: t.Any, expect: t.Any) -> bool:
    """Whether what a query found is what was expected: a value, a list (the whole first row), or ``{min:, max:}``."""
    if isinstance(expect, dict):
        unknown = sorted(set(expect) - {"min", "max"})
        if unknown or not expect:
            raise RollbackError(f"expect has {', '.join(unknown) or 'nothing'}: expected a value, a list, or min and max.")
        try:
            number = float(found)
            return all(number >= float(expect["min"]) if key == "min" else number <= float(expect["max"]) for key in expect)
        except (TypeError, ValueError):
            return False
    return as_text(found) == as_text(expect)


def run_checks(server: Server, wish: Wish) -> list[dict[str, t.Any]]:
    """Every check as ``{name, database, kind, ok, found, expected}``."""
    if not wish.databases:
        raise RollbackError("databases is empty. Name at least one database.")
    for asked in [*wish.queries, *wish.count_tables]:
        if asked.get("database") not in (None, *wish.databases):
            raise RollbackError(
                f"A check names the database {asked['database']!r}, which is not among databases: {', '.join(wish.databases)}."
            )
    checks = []
    for name in wish.databases:
        conn = server.connect(name, default_transaction_read_only="on", statement_timeout=f"{wish.timeout}s")
        mine = [asked for asked in wish.queries if (asked.get("database") or wish.databases[0]) == name]
        checks += [_query(conn, name, asked, wish.timeout) for asked in mine]
        counted = [asked for asked in wish.count_tables if (asked.get("database") or wish.databases[0]) == name]
        checks += [_count(conn, name, asked, wish.timeout) for asked in counted]
        if wish.invalid_indexes:
            with readable_errors("looking for invalid indexes"):
                execute(conn, "SET search_path = ''")
                invalid = [row[0] for row in rows(conn, INVALID_INDEXES)]
            checks.append(_check("invalid indexes", name, "invalid_indexes", not invalid, invalid, []))
        if wish.orphans:
            checks += _orphans(conn, name, wish.timeout)
        conn.close()
    return checks


def _check(name: str, database: str, kind: str, ok: bool | None, found: t.Any, expected: t.Any) -> dict[str, t.Any]:
    return {"name": name, "database": database, "kind": kind, "ok": ok, "found": found, "expected": expected}


def _ask(conn: t.Any, sql: str) -> t.Any:
    """The first row of a query in a read-only transaction that is rolled back."""
    execute(conn, "BEGIN READ ONLY")
    try:
        with conn.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None
    finally:
        if conn.closed == 0:
            execute(conn, "ROLLBACK")


def _query(conn: t.Any, database: str, asked: dict[str, t.Any], timeout: int) -> dict[str, t.Any]:
    expect = True if asked.get("expect") is None else asked["expect"]
    try:
        row = _ask(conn, asked["sql"])
    except psycopg2.errors.QueryCanceled:
        return _check(asked["name"], database, "query", False, f"not finished in {timeout} s", expect)
    except psycopg2.Error as exc:
        return _check(asked["name"], database, "query", False, f"error: {plain(exc)}", expect)
    found = None if row is None else (list(row) if isinstance(expect, list) else row[0])
    return _check(asked["name"], database, "query", holds(found, expect), as_json(found), expect)


def _count(conn: t.Any, database: str, asked: dict[str, t.Any], timeout: int) -> dict[str, t.Any]:
    table = _manifest.table_name(asked.get("schema") or "public", asked["table"])
    least = int(asked.get("min") or 0)
    quoted = _state.quoted(asked.get("schema") or "public", asked["table"])
    try:
        found = _ask(conn, f"SELECT count(*) FROM {quoted}")[0]
    except psycopg2.errors.QueryCanceled:
        return _check(f"rows of {table}", database, "count", None, f"not finished in {timeout} s", {"min": least})
    except psycopg2.Error as exc:
        return _check(f"rows of {table}", database, "count", False, f"error: {plain(exc)}", {"min": least})
    return _check(f"rows of {table}", database, "count", int(found) >= least, int(found), {"min": least})


def _orphans(conn: t.Any, database: str, timeout: int) -> list[dict[str, t.Any]]:
    """Rows whose foreign key points nowhere, per constraint. A validated one must have none."""
    checks = []
    with readable_errors("listing foreign keys"):
        execute(conn, "SET search_path = ''")
        keys = rows(conn, FOREIGN_KEYS.replace("{temporal}", "k.conperiod" if conn.server_version >= 180000 else "false"))
    for name, table, target, validated, match, columns, targets, only, target_only, temporal in keys:
        if temporal:
            continue
        what = f"orphans of {name} on {table}"
        present = " AND ".join(f"c.{column} IS NOT NULL" for column in columns)
        if match == "f":
            present = "(" + " OR ".join(f"c.{column} IS NOT NULL" for column in columns) + ")"
        same = " AND ".join(f"p.{other} = c.{column}" for column, other in zip(columns, targets))
        try:
            sql = f"SELECT count(*) FROM {only}{table} c WHERE {present} AND NOT EXISTS (SELECT FROM {target_only}{target} p WHERE {same})"
            found = int(_ask(conn, f"SET LOCAL search_path = pg_catalog, public; {sql}")[0])
        except psycopg2.errors.QueryCanceled:
            checks.append(_check(what, database, "orphans", None, f"not finished in {timeout} s", 0))
            continue
        except psycopg2.Error as exc:
            checks.append(_check(what, database, "orphans", None, f"error: {plain(exc)}", 0))
            continue
        ok: bool | None = found == 0
        if found and not validated:
            ok = None
        checks.append(_check(what, database, "orphans", ok, found, 0))
    return checks


def compare(server: Server, paths: Paths, wish: Wish) -> dict[str, dict[str, t.Any]]:
    """Per database how it differs from the point ``version``, and whether it is at it.

    At a version is the database that a flip to it made, or the one that the point was taken from, while its catalogue is the point's.
    """
    if wish.version is None:
        return {}
    point = load_component(paths, wish.version, COMPONENT)
    facts = point["facts"]
    server.maintenance_besides(wish.databases)
    found = {}
    with readable_errors("comparing the databases with the point"):
        listed = _state.databases(server.connect())
        for name in wish.databases:
            entry = facts["databases"].get(name)
            if entry is None:
                raise RollbackError(
                    f"Point {wish.version} does not hold database {name!r}. It holds: {', '.join(sorted(facts['databases']))}."
                )
            if name not in listed:
                raise RollbackError(f"The server at {server.where} has no database {name!r}.")
            record = _state.live_record(paths, listed, name)
            found[name] = _compare_one(server, name, wish.version, entry, record, facts)
    return found


def _compare_one(
    server: Server, name: str, version: str, entry: dict[str, t.Any], record: dict[str, t.Any] | None, facts: t.Mapping[str, t.Any]
) -> dict[str, t.Any]:
    conn = server.connect(name, default_transaction_read_only="on")
    oid = int(value(conn, "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"))
    differences = _manifest.compare_catalogue(entry, conn)
    system_identifier = facts.get("system_identifier")
    same_cluster = system_identifier is not None and system_identifier == server.system_identifier
    flipped = record is not None and record.get("version") == version
    taken_from = same_cluster and entry["oid"] == oid
    told: dict[str, t.Any] = {
        "version": version,
        "oid": oid,
        "at_version": not differences and (flipped or taken_from),
        "live_version": record.get("version") if record else None,
        "catalogue_differences": differences,
    }
    comparable = taken_from and server.shares_history(facts)
    snapshot = record.get("snapshot") if flipped and record else (entry["snapshot"] if comparable else None)
    if snapshot:
        since = _manifest.rows_since(conn, snapshot, entry["tables"])
        told["rows_since"] = {table: each["written"] for table, each in since.items() if each["written"]}
        told["rows_gone"] = {table: each["gone"] for table, each in since.items() if each["gone"]}
        told["rows_since_is_estimate"] = False
    else:
        counted = _manifest.count_tables(conn, "counts")
        recorded = entry["tables"]
        more = {table: each["rows"] - recorded.get(table, {}).get("rows", 0) for table, each in counted.items() if recorded}
        told["rows_since"] = {table: number for table, number in more.items() if number > 0}
        told["rows_gone"] = {table: -number for table, number in more.items() if number < 0}
        told["rows_since_is_estimate"] = True
    conn.close()
    return told


def result(server: Server, paths: Paths, wish: Wish) -> dict[str, t.Any]:
    """The module's result; ``failed_checks`` names what does not hold."""
    databases = compare(server, paths, wish)
    checks = run_checks(server, wish)
    failed = [check for check in checks if check["ok"] is False]
    doubtful = [check for check in checks if check["ok"] is None]
    sentences = [f"{check['name']} in {check['database']}: found {check['found']}, expected {check['expected']}" for check in failed]
    differing = {name: len(entry["catalogue_differences"]) for name, entry in databases.items() if entry["catalogue_differences"]}
    msg = f"{len(checks)} check(s), {len(failed)} failed"
    if doubtful:
        msg += f", {len(doubtful)} to look at"
    if sentences:
        msg += ": " + "; ".join(sentences[:5])
    for name, count in differing.items():
        msg += f". {name} differs from point {wish.version} in {count} catalogue entr{'y' if count == 1 else 'ies'}"
    return {
        "changed": False,
        "msg": msg + ".",
        "checks": checks,
        "failed_checks": sentences,
        "databases": databases,
        "actions": [],
        "steps": [],
    }
