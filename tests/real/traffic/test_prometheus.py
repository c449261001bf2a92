# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds asked of a real Prometheus: no number is never a good one."""

from __future__ import annotations

import pathlib
import tempfile
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._probe import run_probes
from tests.lab import ports, traffic
from tests.lab.fixtures import unavailable


@pytest.fixture(scope="module")
def prometheus() -> t.Iterator[traffic.Prometheus]:
    """It watches itself, and a port where nothing listens."""
    missing = traffic.missing(traffic.PROMETHEUS)
    if missing:
        unavailable(missing)
    with tempfile.TemporaryDirectory(prefix="payops-prometheus-") as folder:
        started = traffic.Prometheus(pathlib.Path(folder), ports.free_port()).start()
        try:
            ports.wait_until(lambda: started.ask("up"), "the first scrape", 30)
            yield started
        finally:
            started.stop()


def ask(prometheus: traffic.Prometheus, query: str, **more: t.Any) -> tuple[bool, str]:
    probe = {"type": "prometheus", "url": prometheus.url, "query": query, "expect": {"max": 0.01}, **more}
    result = run_probes([probe], successes=1, deadline=3, interval=0.2)
    # the last attempt may have begun right at the deadline
    errors = [result["probes"][0].get(name) for name in ("first_error", "last_error")]
    return result["ok"], "; ".join(error for error in errors if error)


def test_a_number_within_its_threshold_passes(prometheus: traffic.Prometheus) -> None:
    assert ask(prometheus, "up") == (True, "")  # 0: nothing listens there
    assert ask(prometheus, "up", labels={"job": "haproxy"}) == (True, "")
    assert ask(prometheus, "scalar(vector(0.005))") == (True, "")


@pytest.mark.parametrize(
    ("query", "more", "words"),
    [
        ("up + 1", {}, "at most 0.01"),
        ("no_such_metric", {}, "no data: the query gives no series"),
        ("up / 0", {}, "NaN"),
        ("up or label_replace(up + 1, 'job', 'other', '', '')", {}, "at most 0.01"),  # one bad series of two
        ("up", {"labels": {"job": "payments"}}, "is not about job=payments"),
        ("up[1m]", {}, "gives a matrix"),
        ("up{", {}, "Prometheus refused the query"),
    ],
)
def test_everything_else_fails_and_says_why(prometheus: traffic.Prometheus, query: str, more: dict[str, t.Any], words: str) -> None:
    passed, said = ask(prometheus, query, **more)
    assert not passed and words in said, said


def test_a_prometheus_that_does_not_answer_fails(prometheus: traffic.Prometheus) -> None:
    passed, said = ask(prometheus, "up", url=f"http://127.0.0.1:{ports.free_port()}")
    assert not passed and said
