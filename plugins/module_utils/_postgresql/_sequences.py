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
    """Where a sequence stands. ``value`` is the last number given out, or None when none was."""

    value: int | None
    start: int
    increment: int
    low: int
    high: int
    cycles: bool


def read(connection: t.Any) -> dict[str, Sequence]:
    """Every sequence of a database by its quoted, qualified name. Read from the relation itself: the view hides what we may not use."""
    listed = rows(
        connection,
        """
        SELECT n.nspname, c.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle
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


def plan(
    live: t.Mapping[str, Sequence], mine: t.Mapping[str, Sequence], margin: int, days: t.Mapping[str, int]
) -> dict[str, dict[str, t.Any]]:
    """What to set: {sequence: {live, from, to}} for those in both databases. ``days`` are the numbers that a day uses of each."""
    found: dict[str, dict[str, t.Any]] = {}
    for name in sorted(set(live) & set(mine)):
        wanted = target(live[name], mine[name], margin, days.get(name, 0))
        if wanted is not None:
            found[name] = {"live": live[name].value, "from": mine[name].value, "to": wanted}
    return found


def apply(connection: t.Any, planned: t.Mapping[str, dict[str, t.Any]]) -> None:
    for name, each in planned.items():
        rows(connection, "SELECT pg_catalog.setval(%s::regclass, %s, true)", (name, each["to"]))


def behind(live: t.Mapping[str, Sequence], replaced: t.Mapping[str, Sequence]) -> list[str]:
    """Sequences of the live database that would give out a number which the replaced one has given out already."""
    found = []
    for name in sorted(set(live) & set(replaced)):
        now, old = live[name], replaced[name]
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
