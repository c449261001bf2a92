# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _sequences
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._sequences import Sequence

BIG = 2**63 - 1


def seq(value: int | None, increment: int = 1, low: int = 1, high: int = BIG, cycles: bool = False, start: int = 1) -> Sequence:
    return Sequence(value, start, increment, low, high, cycles)


@pytest.mark.parametrize(
    ("live", "mine", "margin", "day", "expected"),
    [
        (seq(None), seq(5), 10_000, 0, None),  # never used: nothing to protect
        (seq(100), seq(50), 10_000, 0, 10_100),
        (seq(100), seq(None), 10_000, 0, 10_100),
        (seq(100), seq(50), 10_000, 86_400, 86_500),  # a day of use is more
        (seq(100), seq(20_000), 10_000, 0, None),  # already ahead: never back
        (seq(100, 10), seq(50, 10), 10_000, 0, 100_100),  # in steps of the increment
        (seq(-100, -1, -BIG, -1), seq(-50, -1, -BIG, -1), 10_000, 0, -10_100),
        (seq(-100, -1, -BIG, -1), seq(-20_000, -1, -BIG, -1), 10_000, 0, None),
        (seq(32_000, high=32_767), seq(50, high=32_767), 10_000, 0, 32_383),  # smallint: half of what is left
        (seq(32_767, high=32_767), seq(50, high=32_767), 10_000, 0, 32_767),  # used up stays used up
        (seq(500, cycles=True), seq(50, cycles=True), 10_000, 0, 500),
        (seq(500, cycles=True), seq(900, cycles=True), 10_000, 0, 500),
        (seq(40_000), seq(50, high=32_767), 10_000, 0, 32_767),  # was a smaller type in the point
    ],
)
def test_target(live: Sequence, mine: Sequence, margin: int, day: int, expected: int | None) -> None:
    assert _sequences.target(live, mine, margin, day) == expected


def test_a_day_is_reckoned_from_what_was_used_since_the_point() -> None:
    assert _sequences.a_day(seq(1_600), 1_000, 3600) == 14_400
    assert _sequences.a_day(seq(1_600, 2), 1_000, 3600) == 7_200
    assert _sequences.a_day(seq(1_600), 1_000, 5) == 0
    assert _sequences.a_day(seq(1_600), None, 3600) == 0


def test_plan_takes_sequences_of_both() -> None:
    planned = _sequences.plan({"a": seq(7), "gone": seq(1)}, {"a": seq(3), "new": seq(1)}, 10_000, {"a": 4})
    assert planned == {"a": {"live": 7, "from": 3, "to": 10_007}}
    assert _sequences.plan({"a": seq(7)}, {"a": seq(3)}, 10_000, {"a": 50_000})["a"]["to"] == 50_007


def test_a_renamed_sequence_is_known_by_its_column() -> None:
    def of(value: int | None, owner: str | None) -> Sequence:
        return seq(value)._replace(owner=owner)

    live = {"b": of(700, "t.id"), "free": seq(9), "unused": seq(None)}
    assert _sequences.plan(live, {"a": of(3, "t.id")}, 100, {"b": 200}) == {"a": {"live": 700, "from": 3, "to": 900}}
    assert _sequences.alone(live, {"a": of(3, "t.id")}) == ["free"]
    assert _sequences.behind({"a": of(3, "t.id")}, live)
    # two that exchanged their names: past both
    live = {"a": of(700, "u.id"), "b": of(50, "t.id")}
    planned = _sequences.plan(live, {"a": of(3, "t.id"), "b": of(4, "u.id")}, 100, {})
    assert {name: each["to"] for name, each in planned.items()} == {"a": 800, "b": 800}


@pytest.mark.parametrize(
    ("now", "old", "late"),
    [
        (seq(10), seq(9), False),
        (seq(10), seq(10), False),
        (seq(9), seq(10), True),
        (seq(None), seq(1), True),
        (seq(None), seq(None), False),
        (seq(-9, -1, -BIG, -1), seq(-10, -1, -BIG, -1), True),
        (seq(5, cycles=True), seq(10, cycles=True), False),
    ],
)
def test_behind(now: Sequence, old: Sequence, late: bool) -> None:
    assert bool(_sequences.behind({"s": now}, {"s": old})) is late
    if late:
        with pytest.raises(RollbackError, match="would give out numbers twice"):
            _sequences.require_ahead({"s": now}, {"s": old}, "shop")
