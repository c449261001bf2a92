# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What one database holds, in numbers that are equal before a dump and after its restore.

``build`` reads it, ``compare`` checks another database against it, ``rows_since`` counts what was written later.
A manifest is plain JSON::

    {"oid": 16384, "snapshot": "751:751:", "lsn": "0/1A2B3C", "server_version_num": 150018,
     "verify": "full", "fingerprint": "<sha256 of the catalogue>", "catalogue": {...}, "properties": {...},
     "tables": {"public.payments": {"schema": "public", "table": "payments", "rows": 3, "hash": "-81..."}},
     "sequences": {"public.payments_id_seq": {"schema": ..., "sequence": ..., "last_value": 3, "is_called": true, "increment": 1, "cycle": false}},
     "large_objects": {"count": 0, "bytes": 0, "hash": "0"}, "notes": ["..."]}

``verify`` is ``full`` (rows and a 64-bit hash of each row), ``counts`` (rows) or ``files`` (no table is read).
"""

from __future__ import annotations

import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import fixed_settings, qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import dicts, execute, rows, value
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._since import Since, newer, usable
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import quoted

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]

VERIFY = ("full", "counts", "files")

# Tables whose rows pg_dump takes along: ordinary ones (leaf partitions too) outside extensions, and extensions' configuration tables,
# of which it takes the rows that the extension's condition names.
TABLES = r"""
SELECT n.nspname::text, c.relname::text,
  (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'),
  x.condition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend e ON e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e'
LEFT JOIN LATERAL (SELECT coalesce(nullif(ext.extcondition[array_position(ext.extconfig, c.oid)], ''), '') AS condition
  FROM pg_extension ext WHERE ext.oid = e.refobjid AND c.oid = ANY (ext.extconfig)) x ON true
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (e.objid IS NULL OR x.condition IS NOT NULL)
ORDER BY 1, 2"""

SEQUENCES = r"""
SELECT n.nspname::text, c.relname::text, s.seqincrement, s.seqcycle
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY 1, 2"""

NOTES = {
    "foreign table(s), whose rows are not in a dump": "SELECT count(*) FROM pg_foreign_table",
    "unlogged table(s), which a server crash empties": "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'",
    "materialized view(s), which a restore refreshes": "SELECT count(*) FROM pg_class WHERE relkind = 'm'",
    "subscription(s) of this database, which a restore makes disabled": "SELECT count(*) FROM pg_subscription "
    "WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    "event trigger(s), which only a superuser can restore": "SELECT count(*) FROM pg_event_trigger",
    "invalid index(es), which are not in a dump": "SELECT count(*) FROM pg_index WHERE NOT indisvalid",
}

BATCH = 200

# One large object may have 4 TB, one value of the server 1 GB: read in parts, each of which is hashed with its number. Their length is not
# asked for beforehand, because pg_largeobject is closed to those who may read the objects themselves.
LARGE_OBJECT_CHUNK = 16 << 20
LARGE_OBJECT_PARTS = """
WITH RECURSIVE part(oid, n, length, digest) AS (
  SELECT m.oid, 0::bigint, octet_length(x.d), md5(x.d)
  FROM pg_largeobject_metadata m CROSS JOIN LATERAL (SELECT lo_get(m.oid, 0, %(chunk)s) AS d OFFSET 0) x
  WHERE %(oids)s::oid[] IS NULL OR m.oid = ANY (%(oids)s::oid[])
  UNION ALL
  SELECT p.oid, p.n + 1, octet_length(x.d), md5(x.d)
  FROM part p CROSS JOIN LATERAL (SELECT lo_get(p.oid, (p.n + 1) * %(chunk)s, %(chunk)s) AS d OFFSET 0) x WHERE p.length = %(chunk)s)
"""
LARGE_OBJECTS = (
    LARGE_OBJECT_PARTS
    + "SELECT sum(length), sum(hashtextextended(oid::text || CASE WHEN n > 0 THEN '.' || n || '.' ELSE '' END || digest, 0)::numeric)::text"
    " FROM part"
)


def table_name(schema: str, table: str) -> str:
    """The key of a table in a manifest."""
    return qualified(schema, table)


@contextmanager
def one_snapshot(conn: t.Any) -> t.Iterator[None]:
    """A read-only repeatable-read transaction, unless the session is in a transaction already."""
    if conn.info.transaction_status != 0:
        yield
        return
    execute(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    try:
        yield
        execute(conn, "COMMIT")
    except BaseException:
        if conn.closed == 0 and conn.info.transaction_status != 0:
            execute(conn, "ROLLBACK")
        raise


def tables_of(conn: t.Any) -> list[tuple[str, str]]:
    """``(schema, table)`` of every table whose rows a dump holds."""
    with fixed_settings(conn):
        return [(row[0], row[1]) for row in rows(conn, TABLES)]


def count_tables(conn: t.Any, verify: str) -> dict[str, dict[str, t.Any]]:
    """Rows, and for ``full`` their hash, per table. The order of columns plays no part in the hash."""
    found = {}
    with fixed_settings(conn):
        for schema, table, columns, condition in rows(conn, TABLES):
            record = "ROW(" + ", ".join(f"t.{quoted(column)}" for column in columns or []) + ")"
            digest = f'coalesce(sum(hashtextextended({record}::text COLLATE "C", 0)::numeric), 0)::text' if verify == "full" else "NULL"
            count, hashed = rows(conn, f"SELECT count(*), {digest} FROM ONLY {quoted(schema, table)} t {condition or ''}")[0]
            entry = {"schema": schema, "table": table, "rows": int(count)}
            if hashed is not None:
                entry["hash"] = hashed
            found[qualified(schema, table)] = entry
    return found


def read_sequences(conn: t.Any) -> dict[str, dict[str, t.Any]]:
    """Where every sequence stands. Sequences know no snapshot: this is their value now."""
    listed = rows(conn, SEQUENCES)
    found = {}
    for start in range(0, len(listed), BATCH):
        part = listed[start : start + BATCH]
        union = " UNION ALL ".join(
            f"SELECT {number}, last_value, is_called FROM {quoted(schema, name)}"
            for number, (schema, name, unused, also) in enumerate(part)
        )
        for number, last_value, is_called in rows(conn, union):
            schema, name, increment, cycle = part[number]
            found[qualified(schema, name)] = {
                "schema": schema,
                "sequence": name,
                "last_value": int(last_value),
                "is_called": bool(is_called),
                "increment": int(increment),
                "cycle": bool(cycle),
            }
    return found


def read_large_objects(conn: t.Any, verify: str) -> dict[str, t.Any]:
    count = int(value(conn, "SELECT count(*) FROM pg_largeobject_metadata"))
    if not count or verify == "files":
        return {"count": count}
    size, digest = rows(conn, LARGE_OBJECTS, {"chunk": LARGE_OBJECT_CHUNK, "oids": None})[0]
    found = {"count": count, "bytes": int(size or 0)}
    if verify == "full":
        found["hash"] = digest
    return found


def large_object_hashes(conn: t.Any, oids: t.Iterable[int]) -> dict[int, str]:
    """The content of some large objects, each as a hash."""
    query = LARGE_OBJECT_PARTS + "SELECT oid::bigint, string_agg(digest, '.' ORDER BY n) FROM part GROUP BY 1"
    return dict(rows(conn, query, {"chunk": LARGE_OBJECT_CHUNK, "oids": sorted(oids)}))


def notes(conn: t.Any) -> list[str]:
    """What a dump treats in its own way, for the record: sentences, not blockers."""
    said = []
    for what, query in NOTES.items():
        count = int(value(conn, query))
        if count:
            said.append(f"{count} {what}")
    return said


def build(conn: t.Any, verify: str = "full") -> dict[str, t.Any]:
    """The manifest of the session's database. Runs inside the caller's snapshot if there is a transaction, else in one of its own."""
    if verify not in VERIFY:
        raise RollbackError(f"verify is {verify!r}: expected {', '.join(VERIFY)}.")
    with one_snapshot(conn):
        manifest = dicts(
            conn,
            "SELECT pg_current_snapshot()::text AS snapshot, "
            "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn, "
            "oid::bigint AS oid, datname::text AS database, current_setting('server_version_num')::int AS server_version_num "
            "FROM pg_database WHERE datname = current_database()",
        )[0]
        manifest["verify"] = verify
        # Before the rows: a value drawn later than this can only be larger.
        manifest["sequences"] = read_sequences(conn)
        catalogue = _catalogue.read(conn)
        manifest["catalogue"] = catalogue
        manifest["fingerprint"] = _catalogue.fingerprint(catalogue)
        manifest["properties"] = _catalogue.properties(conn, manifest["database"])
        manifest["properties"]["size"] = int(value(conn, "SELECT pg_database_size(current_database())"))
        manifest["tables"] = count_tables(conn, verify) if verify != "files" else {}
        manifest["large_objects"] = read_large_objects(conn, verify)
        manifest["notes"] = notes(conn)
    return manifest


def compare(
    manifest: dict[str, t.Any],
    conn: t.Any,
    verify: str | None = None,
    ignore: t.Iterable[str] = (),
    with_properties: bool = False,
) -> list[str]:
    """What differs between ``manifest`` and the session's database, in sentences; empty if nothing does.

    ``verify`` defaults to the manifest's own depth and is never deeper than that. ``ignore`` are patterns for the catalogue (see
    ``_catalogue.differences``). Database properties (owner, ACL, settings, ...) only ``with_properties``.
    """
    depth = manifest["verify"]
    if verify is not None and VERIFY.index(verify) > VERIFY.index(depth):
        depth = verify
    with one_snapshot(conn):
        said = compare_catalogue(manifest, conn, ignore)
        if depth != "files":
            said += compare_tables(manifest["tables"], count_tables(conn, depth))
        said += compare_sequences(manifest["sequences"], read_sequences(conn))
        found = read_large_objects(conn, depth)
        for key in ("count", "bytes", "hash"):
            if key in found and key in manifest["large_objects"] and found[key] != manifest["large_objects"][key]:
                said.append(f"large objects: {key} is {found[key]}, expected {manifest['large_objects'][key]}.")
        if with_properties:
            said += _catalogue.property_differences(
                manifest["properties"], _catalogue.properties(conn, value(conn, "SELECT current_database()"))
            )
    return said


def compare_catalogue(manifest: dict[str, t.Any], conn: t.Any, ignore: t.Iterable[str] = ()) -> list[str]:
    """Only the catalogue: what :func:`compare` says without reading a row."""
    return _catalogue.differences(manifest["catalogue"], _catalogue.read(conn), ignore)


def compare_tables(expected: dict[str, t.Any], found: dict[str, t.Any]) -> list[str]:
    said = []
    for name in sorted(set(expected) | set(found)):
        if name not in found:
            said.append(f"table {name} is missing, expected with {expected[name]['rows']} rows.")
        elif name not in expected:
            said.append(f"table {name} is here with {found[name]['rows']} rows but was not expected.")
        elif expected[name]["rows"] != found[name]["rows"]:
            said.append(f"table {name} has {found[name]['rows']} rows, expected {expected[name]['rows']}.")
        elif "hash" in expected[name] and "hash" in found[name] and expected[name]["hash"] != found[name]["hash"]:
            said.append(f"table {name} has the expected {found[name]['rows']} rows, but the content of some differs.")
    return said


def compare_sequences(expected: dict[str, t.Any], found: dict[str, t.Any]) -> list[str]:
    """A sequence may stand further on than recorded, never behind: a number must not be given out twice."""
    said = []
    for name in sorted(set(expected) | set(found)):
        if name not in found or name not in expected:
            said.append(f"sequence {name} {'is missing' if name not in found else 'is here but was not expected'}.")
            continue
        before, after = expected[name], found[name]
        if before["cycle"]:
            continue
        sign = 1 if before["increment"] > 0 else -1
        if (sign * after["last_value"], after["is_called"]) < (sign * before["last_value"], before["is_called"]):
            said.append(f"sequence {name} stands at {after['last_value']}, behind the expected {before['last_value']}.")
    return said


def rows_since(conn: t.Any, snapshot: str, tables: dict[str, dict[str, t.Any]] | None = None) -> dict[str, dict[str, int]]:
    """Rows written after ``snapshot`` (a text of pg_current_snapshot of this very database), per table that has any.

    ``{"public.payments": {"written": 7, "gone": 0, "rows": 10}}``: ``written`` are inserted or updated rows that exist now, ``gone`` is how
    many of the recorded rows (``tables`` of the manifest) are no more or were updated. Only xmin is read, so it costs about
    as much as counting. By their numbers, rows of subtransactions that were open at the snapshot look older: more such rows than were recorded
    are newer all the same. Only where as many of the old ones are gone they are not seen; compare keys where that matters.
    """
    found = {}
    since = Since(snapshot, True)
    with one_snapshot(conn), fixed_settings(conn):
        # In the snapshot in which the rows are read: a row that is younger than this number would be taken for an ancient one.
        if usable(conn, since) is None:
            raise RollbackError(
                f"The snapshot {snapshot} is not of this database's own history or is more than 2^31 transactions old. "
                "Rows since cannot be counted by it."
            )
        for schema, table, unused, condition in rows(conn, TABLES):
            name = qualified(schema, table)
            query = sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM ONLY {} AS t {}").format(
                newer(since, "t"), sql.Identifier(schema, table), sql.SQL(condition or "")
            )
            count, new = (int(number) for number in rows(conn, query)[0])
            recorded = (tables or {}).get(name, {}).get("rows")
            gone = max(0, recorded - (count - new)) if recorded is not None else 0
            new = max(new, count - recorded) if recorded is not None else new
            if new or gone:
                found[name] = {"written": new, "gone": gone, "rows": count}
    return found
