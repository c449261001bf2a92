# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients' figures and the comparison of acknowledgements with databases."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.client.check import Rows, compare
from tests.client.report import Ack, Failure, gaps, percentile, read, summary


def ack(number: int, amount: str = "10.00", key: str | None = None, time: float = 0.0, attempts: int = 1) -> Ack:
    return Ack(time, str(number), amount, key or f"k{number}", "stripe", attempts, False, 0.01)


def rows(*acks: Ack, amount: str | None = None) -> Rows:
    return Rows({each.id: amount or each.amount for each in acks}, {each.key: each.id for each in acks})


NONE = Rows({}, {})


def test_all_live() -> None:
    verdict = compare([ack(1), ack(2)], rows(ack(1), ack(2)), {})
    assert verdict.ok
    assert verdict.live == ["1", "2"]
    assert verdict.sentence() == "2 acknowledged payments: 2 live, 0 kept, 0 lost, 0 twice"


def test_kept_says_where() -> None:
    verdict = compare([ack(1), ack(2)], rows(ack(1)), {"old": rows(ack(1), ack(2))})
    assert verdict.ok
    assert verdict.kept == {"old": ["2"]}
    assert "1 live, 1 kept (old)" in verdict.sentence()


def test_lost_payment_is_found() -> None:
    verdict = compare([ack(1)], NONE, {"old": NONE})
    assert not verdict.ok
    assert verdict.lost == ["1"]


def test_another_amount_is_not_the_same_payment() -> None:
    verdict = compare([ack(1, "10.50")], rows(ack(1), amount="10.00"), {})
    assert not verdict.ok
    assert verdict.wrong_amount == ["1"]


def test_amounts_are_compared_as_numbers() -> None:
    assert compare([ack(1, "10.5")], rows(ack(1), amount="10.50"), {}).ok


def test_same_row_live_and_kept_is_not_twice() -> None:
    verdict = compare([ack(1)], rows(ack(1)), {"old": rows(ack(1))})
    assert verdict.ok


def test_one_key_charged_twice_is_found() -> None:
    first, second = ack(1, key="same"), ack(7, key="same")
    verdict = compare([second], rows(second), {"old": rows(first)})
    assert verdict.twice == ["same"]
    assert not verdict.ok


def test_an_id_given_to_two_payments_is_found() -> None:
    one, two = ack(5, key="a"), ack(5, key="b")
    verdict = compare([one, two], rows(two), {"old": rows(one)})
    assert verdict.reused_id == ["5"]
    assert not verdict.ok


def test_an_id_of_somebody_else_is_not_mine() -> None:
    mine, other = ack(5, key="mine"), ack(5, key="other")
    verdict = compare([mine], Rows({"5": "10.00"}, {"mine": "9", "other": other.id}), {})
    assert verdict.lost == ["5"]


def test_a_half_written_last_line_does_not_count(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "acks.jsonl"
    path.write_text(json.dumps(ack(1).__dict__) + "\n" + '{"time": 1')
    assert [each.id for each in read(path, Ack)] == ["1"]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "acks.jsonl"
    path.write_text('{"time": 1\n' + json.dumps(ack(1).__dict__) + "\n")
    with pytest.raises(ValueError):
        read(path, Ack)


def test_gaps_count_the_silence_at_both_ends() -> None:
    assert [gap.seconds for gap in gaps([], 10, 14)] == [4]
    assert [gap.seconds for gap in gaps([11, 12], 10, 15)] == [3, 1, 1]


def test_gaps_reach_over_the_edges_of_the_window() -> None:
    found = gaps([9, 10.5, 16], 10, 15)
    assert (found[0].start, found[0].end) == (10.5, 16)


def test_percentile_is_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.95) == 95
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([], 0.5) == 0.0


def test_summary_of_a_window() -> None:
    acks = [ack(1, time=1), ack(2, time=2), ack(3, time=6, attempts=2), ack(4, time=20)]
    failures = [Failure(3, "k3", 1, "payment", "HTTP 503", True), Failure(4, "k1", 1, "callback", "HTTP 503", True)]
    found = summary(acks, failures, 0, 10)
    assert found["requests"] == 4
    assert (found["acknowledged"], found["failed"], found["failed_callbacks"]) == (3, 1, 1)
    assert found["retried_with_success"] == 1
    assert found["outage_seconds"] == 14
    assert found["errors"] == {"HTTP 503": 2}
