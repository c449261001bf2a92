# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Sequences go forward only: a number that a customer or a payment provider has seen is never given out twice."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import quoted, rows

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]

DAY = 86400.0
SHORTEST = 60.0  # seconds of use from which a day is reckoned


class Sequence(t.NamedTuple):
    """Where a sequence stands. ``value`` is the last number given out, or None when none was; ``owner`` the column that it belongs to."""

    value: int | None
    start: int
    increment: int
    low: int
    high: int
    cycles: bool
    owner: str | None = None


def read(connection: t.Any) -> dict[str, Sequence]:
    """Every sequence of a database by its quoted, qualified name. Read from the relation itself: the view hides what we may not use."""
    listed = rows(
        connection,
        """
        SELECT n.nspname, c.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
               (SELECT pg_catalog.concat_ws('.', pg_catalog.quote_ident(tn.nspname), pg_catalog.quote_ident(tc.relname),
                                            pg_catalog.quote_ident(a.attname))
                  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class tc ON tc.oid = d.refobjid
                       JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                   AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i') LIMIT 1)
          FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2
        """,
    )
    found: dict[str, Sequence] = {}
    for first in range(0, len(listed), 200):
        part = listed[first : first + 200]
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}::int, last_value, is_called FROM {}").format(sql.Literal(number), sql.Identifier(row[0], row[1]))
            for number, row in enumerate(part)
        )
        for number, value, called in rows(connection, query):
            schema, name, *rest = part[number]
            found[label(schema, name)] = Sequence(value if called else None, *rest)
    return found


def label(schema: str, name: str) -> str:
    """``schema.name``, quoted where SQL needs it, as people read it and as regclass accepts it."""
    return quoted(schema, name)


def target(live: Sequence, mine: Sequence, margin: int, day: int = 0) -> int | None:
    """The value to set, or None when nothing has to move.

    ``live`` is the sequence that is in use, ``mine`` the one that will be. The distance is the margin or a day's use in
    numbers, whichever is more, in steps of the increment; at the end of the range it shrinks to half of what is left,
    and a sequence that cycles is only brought to where the live one stands, because no number of it is unique.
    """
    if live.value is None:
        return None
    up = live.increment > 0
    limit = mine.high if up else mine.low
    if live.cycles or mine.cycles:
        wanted = live.value
    else:
        room = abs(limit - live.value)
        distance = min(max(margin, day) * abs(live.increment), room // 2)
        distance -= distance % abs(live.increment)
        wanted = live.value + (distance if up else -distance)
    if wanted > mine.high or wanted < mine.low:
        return None if mine.value == limit else limit
    if mine.value is not None and ((mine.value >= wanted) if up else (mine.value <= wanted)) and not live.cycles:
        return None
    return wanted if mine.value != wanted else None


def a_day(live: Sequence, then: int | None, seconds: float) -> int:
    """Numbers used in a day, measured between the point and now; 0 when it cannot be said."""
    if live.value is None or then is None or seconds < SHORTEST:
        return 0
    used = abs(live.value - then) // max(1, abs(live.increment))
    return int(used * DAY / seconds)


def counterparts(old: t.Mapping[str, Sequence], new: t.Mapping[str, Sequence]) -> dict[str, list[str]]:
    """By sequence of ``new`` those of ``old`` whose numbers it must not give out again: of its name, and of its column (renamed ones)."""
    by_owner: dict[str, list[str]] = {}
    for name, each in old.items():
        if each.owner is not None:
            by_owner.setdefault(each.owner, []).append(name)
    return {
        name: sorted({*([name] if name in old else []), *(by_owner.get(each.owner, []) if each.owner is not None else [])})
        for name, each in sorted(new.items())
    }


def alone(old: t.Mapping[str, Sequence], new: t.Mapping[str, Sequence]) -> list[str]:
    """Sequences of ``old`` that gave numbers out and that nothing in ``new`` goes on from."""
    matched = {other for others in counterparts(old, new).values() for other in others}
    return sorted(name for name, each in old.items() if each.value is not None and name not in matched)


def plan(
    live: t.Mapping[str, Sequence], mine: t.Mapping[str, Sequence], margin: int, days: t.Mapping[str, int]
) -> dict[str, dict[str, t.Any]]:
    """What to set: {sequence: {live, from, to}} for those in both databases. ``days`` are the numbers that a day uses of each live one."""
    found: dict[str, dict[str, t.Any]] = {}
    for name, others in counterparts(live, mine).items():
        standing = mine[name]
        for other in others:
            wanted = target(live[other], standing, margin, days.get(other, 0))
            if wanted is not None:
                found[name] = {"live": live[other].value, "from": mine[name].value, "to": wanted}
                standing = standing._replace(value=wanted)
    return found


def apply(connection: t.Any, planned: t.Mapping[str, dict[str, t.Any]]) -> None:
    for name, each in planned.items():
        rows(connection, "SELECT pg_catalog.setval(%s::regclass, %s, true)", (name, each["to"]))


def behind(live: t.Mapping[str, Sequence], replaced: t.Mapping[str, Sequence]) -> list[str]:
    """Sequences of the live database that would give out a number which the replaced one has given out already."""
    found = []
    for name, other in ((name, other) for name, others in counterparts(replaced, live).items() for other in others):
        now, old = live[name], replaced[other]
        if old.value is None or old.cycles or now.cycles or not now.low <= old.value <= now.high:
            continue
        upcoming = now.start if now.value is None else now.value
        late = upcoming < old.value if now.increment > 0 else upcoming > old.value
        if late or (now.value is None and upcoming == old.value):
            found.append(f"{name} stands at {now.value}, the replaced one at {old.value}")
    return found


def require_ahead(live: t.Mapping[str, Sequence], replaced: t.Mapping[str, Sequence], database: str) -> None:
    late = behind(live, replaced)
    if late:
        raise RollbackError(
            f"Sequences of {database} are behind the replaced database: {'; '.join(late)}. They would give out numbers twice."
        )
