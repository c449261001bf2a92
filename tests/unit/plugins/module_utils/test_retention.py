# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points may go. Each defect of another tool that these rules answer is named."""

from __future__ import annotations

import copy
import datetime
import itertools
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._retention import mentioned, plan_retention

NOW = datetime.datetime(2024, 1, 31, tzinfo=datetime.timezone.utc)


def points(statuses: str) -> list[dict[str, t.Any]]:
    """Newest first: g good, b bad, u unverified, i incomplete; p1 is the newest and one day old."""
    words = {"g": "good", "b": "bad", "u": "unknown", "i": "good"}
    return [
        {
            "version": f"p{number}",
            "created": (NOW - datetime.timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "legacy": False,
            "pinned": None,
            "releases": [f"r{number}"],
            "release": {"status": words[status]},
            "complete": status != "i",
        }
        for number, status in enumerate(statuses, start=1)
    ]


def removed(found: list[dict[str, t.Any]], count: int | None = None, days: float | None = None, **more: t.Any) -> list[str]:
    return [item["version"] for item in plan_retention(found, count, days, NOW, **more)["remove"]]


def test_by_count() -> None:
    assert removed(points("ggggg"), 2) == ["p3", "p4", "p5"]
    assert removed(points("ggggg"), 9) == []


def test_by_age() -> None:
    assert removed(points("ggggg"), days=3) == ["p4", "p5"]
    assert removed(points("ggggg"), days=0.5 + 0.5) == ["p2", "p3", "p4", "p5"]


def test_a_point_goes_only_if_neither_rule_keeps_it() -> None:
    assert removed(points("ggggg"), 1, 3) == ["p4", "p5"]
    assert removed(points("ggggg"), 4, 2) == ["p5"]


def test_the_live_point_stays_even_as_the_oldest() -> None:
    # Ansistrano defect 5: keep 2 with the oldest release live (after a rollback) deleted the live one.
    assert removed(points("ggggg"), 2, live=["p5"]) == ["p3", "p4"]
    assert removed(points("ggggg"), 2, live=["r5"]) == ["p3", "p4"]


def test_failed_deployments_never_push_out_good_points() -> None:
    # Capistrano #1907: failed deployments evict the good release.
    assert "p6" not in removed(points("iiiiiggg"), 2)
    assert removed(points("iiiiiggg"), 2) == ["p3", "p4", "p5", "p8"]


def test_keep_five_does_not_keep_zero_good_ones() -> None:
    # Deployer #814: keep 5, all five bad, kept 0 good.
    assert removed(points("bbbbbbg"), 5) == ["p6"]
    assert removed(points("uuuuuug"), 5) == ["p6"]


def test_the_last_good_live_and_pinned_always_stay() -> None:
    for statuses in itertools.product("gbui", repeat=5):
        found = points("".join(statuses))
        found[4]["pinned"] = {"why": "audit"}
        for count, days in ((1, None), (None, 1), (1, 1), (3, None)):
            gone = removed(found, count, days, live=["p4"], needed={"p3": "kept database"})
            last_good = next((point["version"] for point, status in zip(found, statuses, strict=True) if status == "g"), None)
            assert not {last_good, "p3", "p4", "p5"} & set(gone), (statuses, count, days)


def test_reasons_are_given_for_every_point() -> None:
    found = points("gbgg")
    found[3]["legacy"] = True
    plan = plan_retention(found, None, 1, NOW, needed={"p3": "run r1 is not finished"})
    assert plan["remove"] == [{"version": "p2", "why": "unusable, number 1 of its kind, 2 days old"}]
    assert [item["why"] for item in plan["keep"]] == [
        "the last good point",
        "needed (run r1 is not finished)",
        "legacy backups belong to the team's own script",
    ]


def test_a_point_without_an_age_is_not_old() -> None:
    found = points("gg")
    found[1]["created"] = None
    assert removed(found, days=1) == []


@pytest.mark.parametrize(("count", "days"), [(0, None), (-1, None), (None, 0), (3, -1), (None, None)])
def test_numbers_that_would_remove_everything_are_refused(count: int | None, days: int | None) -> None:
    with pytest.raises(RollbackError, match="must be at least 1; found|Say what to keep: keep_count, keep_days or both"):
        plan_retention(points("g"), count, days, NOW)


def test_the_input_is_not_changed() -> None:
    found = points("gbui")
    before = copy.deepcopy(found)
    plan_retention(found, 1, 1, NOW, ["p1"], {"p2": "x"})
    assert found == before


def test_every_version_that_a_state_names_is_found() -> None:
    state = {
        "version": "p1",
        "kept": {"payments": {"name": "payments__kept", "at": "p2"}},
        "list": ["p3", ["p4"]],
        "p5": True,
        "n": 6,
        "none": None,
    }
    assert mentioned(state, {"p1", "p2", "p3", "p4", "p5", "p6"}) == {"p1", "p2", "p3", "p4", "p5"}
    assert mentioned({}, {"p1"}) == set()
