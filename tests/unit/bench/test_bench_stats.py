# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians, ratios and gaps of the benchmark."""

from __future__ import annotations

import pytest

from tests.bench.application import counted
from tests.bench.stats import Records, Sample, outage, ratio, rotated, total
from tests.client.report import Ack, Failure


def test_sample_is_median_and_extremes_in_the_order_taken() -> None:
    sample = Sample((3.0, 1.0, 2.0, 10.0))
    assert (sample.median, sample.low, sample.high) == (2.5, 1.0, 10.0)
    assert sample.to_json() == {"median": 2.5, "min": 1.0, "max": 10.0, "values": [3.0, 1.0, 2.0, 10.0]}


def test_records_collect_by_method_and_measure() -> None:
    records = Records()
    for value in (2.0, 1.0, 3.0):
        records.add("ours", "staging", value)
    records.add("ours", "flip", 1)
    assert records.median("ours", "staging") == 2.0
    assert records.measures("ours") == ["staging", "flip"]
    assert records.get("ours", "outage") is None
    assert records.median("nobody", "staging") is None


def test_a_method_that_failed_later_has_no_numbers_at_all() -> None:
    records = Records()
    records.add("dslr", "restore", 1.0)
    records.miss("dslr", "no  network\nhere", failure=False)
    records.miss("dslr", "a second reason", failure=True)
    assert records.get("dslr", "restore") is None
    assert records.measures("dslr") == []
    assert records.reason("dslr") == "no network here"
    assert records.failures == []
    assert records.to_json()["methods"] == {"dslr": {"missing": "no network here"}}


def test_what_should_have_run_is_a_failure() -> None:
    records = Records()
    records.miss("ours", "", failure=True)
    assert records.failures == ["ours: no reason known"]


def test_notes_are_said_once() -> None:
    records = Records()
    records.note("busy")
    records.note("busy")
    assert records.to_json()["notes"] == ["busy"]


@pytest.mark.parametrize(
    ("successes", "begin", "end", "expected"),
    [
        ([0.0, 1.0, 2.0, 3.0], 0.5, 2.5, 1.0),
        ([0.0, 1.0, 4.0, 5.0], 2.0, 3.0, 3.0),  # both ends of the silence lie outside
        ([0.0, 9.0, 9.1, 9.2, 20.0], 9.05, 9.15, 0.1),  # silences that do not touch the window do not count
        ([1.0], 0.5, 6.0, 5.0),  # silent until the end
        ([], 2.0, 6.0, 4.0),
        ([5.0, 1.0, 3.0], 0.0, 5.0, 2.0),  # any order
    ],
)
def test_outage_is_the_longest_silence_that_touches_the_window(successes: list[float], begin: float, end: float, expected: float) -> None:
    assert outage(successes, begin, end) == pytest.approx(expected)


def test_ratio_needs_both_numbers() -> None:
    assert ratio(6.0, 2.0) == 3.0
    assert ratio(None, 2.0) is None
    assert ratio(2.0, None) is None
    assert ratio(2.0, 0.0) is None


def test_a_sum_with_a_part_missing_is_no_sum() -> None:
    assert total(1.0, 2.0) == 3.0
    assert total(1.0, None) is None


def test_each_method_comes_first_once() -> None:
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert rotated("abc", 1) == ["b", "c", "a"]
    assert rotated([], 3) == []


def _ack(time: float) -> Ack:
    return Ack(time, "1", "1.00", "k", "mpesa", 1, False, 0.01)


def _failure(time: float, error: str) -> Failure:
    return Failure(time, "k", 1, "payment", error, True)


def test_switch_counts_from_its_beginning_and_timeouts_known_later() -> None:
    acks = [_ack(time) for time in (9.0, 9.9, 10.1, 12.0, 12.1)]
    failures = [_failure(9.5, "early"), _failure(11.0, "refused"), _failure(17.0, "timeout")]
    seen = counted(acks, failures, begin=10.0, end=12.05, command=1.5, code=0)
    assert (seen.requests, seen.failed) == (5, 2)
    assert seen.errors == {"refused (new connection)": 1, "timeout (new connection)": 1}
    assert seen.outage == pytest.approx(1.9)
