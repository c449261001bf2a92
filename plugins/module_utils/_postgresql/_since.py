# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which rows were written after a moment, by their ``xmin``.

``age()`` of a row's transaction is one subtraction, so a scan costs about as much as ``count(*)``; only the few rows that are young
enough are compared with the snapshot itself.
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import one, rows

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]

HALF_THE_XIDS = 1 << 31
# age() counts from the first moment at which a transaction asked for it; of what that transaction sees since, the age is below zero. Further
# below zero are rows of more than 2^31 transactions ago: vacuum froze them and left the old number there.
LATER = 10_000_000


class Since(t.NamedTuple):
    """A moment as ``pg_current_snapshot()`` gave it. ``exact`` where nobody was inside a transaction at that moment."""

    snapshot: str
    exact: bool


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
    recent = sql.SQL("pg_catalog.age({x}) BETWEEN {later} AND pg_catalog.age({start}::xid)").format(
        x=xmin, later=sql.Literal(-LATER), start=start
    )
    if not since.exact:
        return sql.SQL("({})").format(recent)
    full = sql.SQL("({oldest}::bigint + pg_catalog.age({start}::xid) - pg_catalog.age({x}))::text::xid8").format(
        oldest=sql.Literal(oldest), start=start, x=xmin
    )
    visible = sql.SQL("pg_catalog.pg_visible_in_snapshot({full}, {snapshot}::pg_snapshot)").format(
        full=full, snapshot=sql.Literal(since.snapshot)
    )
    return sql.SQL("({recent} AND NOT {visible})").format(recent=recent, visible=visible)


def rows_since(connection: t.Any, tables: t.Iterable[tuple[str, str]], since: Since) -> dict[tuple[str, str], int]:
    """Rows inserted or updated since a usable moment, per ``(schema, table)``; only tables that have some. Costs about as much as count(*)."""
    found = {}
    for schema, table in tables:
        query = sql.SQL("SELECT count(*) FROM {} AS r WHERE {}").format(sql.Identifier(schema, table), newer(since, "r"))
        count = int(one(connection, query))
        if count:
            found[schema, table] = count
    return found
