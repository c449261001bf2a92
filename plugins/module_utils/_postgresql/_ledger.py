# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What a ledger is in one database: its columns, by what a row is recognised, and what other ledgers it refers to."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import rows

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]


class Ledger(t.NamedTuple):
    schema: str
    table: str
    key: tuple[str, ...] = ()  # empty: the primary key

    @property
    def label(self) -> str:
        """As manifests and counts spell tables."""
        return qualified(self.schema, self.table)

    @property
    def identifier(self) -> t.Any:
        return sql.Identifier(self.schema, self.table)


class Column(t.NamedTuple):
    type: str
    bare: str  # the type without its length or precision
    plain: bool  # a type of the server's own, so every database has it
    labels: list[str] | None  # of an enum
    numbered: bool  # an identity or a sequence gives its values, so no two rows ever have the same


def described(connection: t.Any, ledger: Ledger) -> dict[str, Column]:
    """Columns that can be copied: not dropped, not generated."""
    found = rows(
        connection,
        """
        SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.format_type(a.atttypid, -1),
               y.typnamespace = 'pg_catalog'::regnamespace,
               (SELECT pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid),
               a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') LIKE 'nextval(%%'
          FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
          LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         ORDER BY a.attnum
        """,
        (ledger.schema, ledger.table),
    )
    return {row[0]: Column(*row[1:]) for row in found}


def columns(connection: t.Any, ledger: Ledger) -> list[str]:
    return list(described(connection, ledger))


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


def equality(connection: t.Any, ledger: Ledger) -> dict[str, t.Any]:
    """By column the operator by which its values are equal. That of an extension's type is in no schema of the search path."""
    query = """
        WITH RECURSIVE base (attname, type) AS (
          SELECT a.attname, a.atttypid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
          UNION ALL SELECT b.attname, y.typbasetype FROM base b JOIN pg_catalog.pg_type y ON y.oid = b.type WHERE y.typtype = 'd')
        SELECT b.attname, n.nspname, o.oprname FROM base b JOIN pg_catalog.pg_am m ON m.amname = 'btree'
          JOIN pg_catalog.pg_opclass k ON k.opcmethod = m.oid AND k.opcintype = b.type AND k.opcdefault
          JOIN pg_catalog.pg_amop p ON p.amopfamily = k.opcfamily AND p.amoplefttype = k.opcintype AND p.amoprighttype = k.opcintype
            AND p.amopstrategy = 3
          JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
         WHERE n.nspname <> 'pg_catalog'
    """
    found = rows(connection, query, (ledger.schema, ledger.table))
    return {column: sql.SQL("OPERATOR({}." + operator + ")").format(sql.Identifier(schema)) for column, schema, operator in found}


def equal(equals: t.Mapping[str, t.Any], names: t.Iterable[str], alias: str = "h") -> t.Any:
    """SQL that is true for a live row ``l`` and another one that have the same values of these columns."""
    same = [
        sql.SQL("{} {} {}").format(sql.Identifier("l", name), equals.get(name, sql.SQL("=")), sql.Identifier(alias, name)) for name in names
    ]
    return sql.SQL(" AND ").join(same)


def unique(connection: t.Any, ledger: Ledger, key: t.Sequence[str]) -> bool:
    """Whether an index allows each value of exactly these columns only once."""
    query = """
        SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL (SELECT pg_catalog.array_agg(a.attname::text) AS names FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts) x
         WHERE n.nspname = %s AND c.relname = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
           AND x.names @> %s::text[] AND x.names <@ %s::text[]
    """
    return bool(rows(connection, query, (ledger.schema, ledger.table, list(key), list(key))))


def heirs(connection: t.Any, ledger: Ledger) -> list[str]:
    """Tables that inherit from it and are no partitions. Their rows look like its own, but would be inserted into it."""
    query = """
        SELECT i.inhrelid::regclass::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'r' ORDER BY 1
    """
    return [row[0] for row in rows(connection, query, (ledger.schema, ledger.table))]


def in_order(connection: t.Any, ledgers: t.Sequence[Ledger]) -> tuple[list[Ledger], bool, bool]:
    """Ledgers with those that others refer to first, whether some refer to each other in a circle, and whether one refers to itself."""
    by_label = {ledger.label: ledger for ledger in ledgers}
    refers: dict[str, set[str]] = {label: set() for label in by_label}
    query = """
        SELECT DISTINCT n.nspname, c.relname, fn.nspname, fc.relname
          FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_class fc ON fc.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
         WHERE k.contype = 'f'
    """
    itself = False
    for found in rows(connection, query):
        child, parent = qualified(*found[:2]), qualified(*found[2:])
        if child == parent:
            itself = itself or child in by_label
        elif child in by_label and parent in by_label:
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
    return ordered, circle, itself
