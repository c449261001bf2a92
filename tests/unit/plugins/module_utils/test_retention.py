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
from ansible_collections.payops.rollback.plugins.module_utils._retention import mentioned, plan_retention, plan_together

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


def test_while_no_good_point_can_be_used_the_newest_of_a_good_release_stays() -> None:
    # A host that joined, or a folder that could not be read for once, makes every older point incomplete.
    assert removed(points("bbbbii"), 2) == ["p3", "p4", "p6"]
    assert removed(points("uuuuii"), days=3) == ["p4", "p6"]
    assert removed(points("uuiiig"), 2, days=1) == ["p5"]


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


def test_nightly_points_of_a_release_that_stays_live_go_all_but_the_newest() -> None:
    found = points("g" * 20)
    for point in found:
        point["releases"] = ["r1"]
    assert removed(found, 3, live=["r1"]) == [f"p{number}" for number in range(4, 21)]
    found[0]["complete"] = False  # what is usable is kept, not what is newest
    found[1]["releases"] = ["r2"]
    assert "p3" not in removed(found, 1, live=["r1"]) and "p4" in removed(found, 1, live=["r1"])


def listed(hosts: dict[str, str], number: int, release: str, healthy: bool | None = True) -> dict[str, dict[str, t.Any]]:
    """What each host (host -> its component) lists of the point p<number>, that many days old."""
    created = (NOW - datetime.timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record = {"created": created, "healthy": healthy, "expected": {host: [name] for host, name in hosts.items()}}
    part = {"size": 1, "created": created, "run": "r", "damaged": None}
    return {
        host: {
            "version": f"p{number}",
            "legacy": False,
            "path": f"/store/p{number}",
            "created": created,
            "sealed": True,
            "record": record,
            "components": {name: {**part, "release": release if name == "pm2" else None}},
            "unfinished": [],
            "size": 1,
            "pinned": None,
            "problems": [],
        }
        for host, name in hosts.items()
    }


HOSTS = {"app1": "pm2", "db1": "postgresql"}


def asked(found: list[dict[str, dict[str, t.Any]]], **more: t.Any) -> dict[str, dict[str, t.Any]]:
    return {
        host: {"points": [point[host] for point in found], "states": {}, "unfinished": [], "releases": {}, "problems": [], **more}
        for host in HOSTS
    }


def together(infos: dict[str, dict[str, t.Any]], count: int | None = 10, days: int | None = 30, **more: t.Any) -> dict[str, list[str]]:
    plan = plan_together(infos, {host: [name] for host, name in HOSTS.items()}, count, days, NOW, **more)
    return {what: [item["version"] for item in items] for what, items in plan.items()}


def test_all_hosts_drop_the_same_points() -> None:
    infos = asked([listed(HOSTS, number, "r1") for number in range(1, 181)])
    assert together(infos, live=["r1"]) == {
        "remove": [f"p{number}" for number in range(31, 181)],
        "keep": [f"p{number}" for number in range(1, 31)],
    }


def test_what_is_good_by_mark_is_so_on_the_host_of_the_database_too() -> None:
    infos = asked([listed(HOSTS, number, f"r{number}", False if number == 60 else None) for number in [*range(1, 15), 60]])
    infos["app1"]["releases"] = {"r60": {"status": "good", "who": "amina"}}
    assert together(infos, 3, None, live=["r1"]) == {
        "remove": [f"p{number}" for number in range(4, 15)],
        "keep": ["p1", "p2", "p3", "p60"],
    }


def test_what_one_host_needs_stays_on_all() -> None:
    infos = asked([listed(HOSTS, number, f"r{number}") for number in range(1, 7)])
    infos["db1"]["states"] = {"postgresql": {"kept": {"payments": {"version": "p5"}}}}
    infos["app1"]["unfinished"] = [{"run": "a", "state": "open", "version": "p4"}, {"run": "me", "state": "open", "version": "p6"}]
    assert together(infos, 1, None, run="me", protect=["p3"])["remove"] == ["p2", "p6"]


def test_a_point_with_a_part_on_a_host_that_takes_no_part_stays() -> None:
    more = {**HOSTS, "app2": "pm2"}
    infos = asked([listed(HOSTS, 1, "r1"), listed(more, 2, "r2"), listed(HOSTS, 3, "r3")])
    assert together(infos, 1, None, inventory=list(more))["remove"] == ["p3"]
    assert together(infos, 1, None, inventory=list(HOSTS))["remove"] == ["p2", "p3"]


@pytest.mark.parametrize("missing", [{"problems": ["pm2.state.json is damaged."]}, {}])
def test_nothing_goes_while_one_host_does_not_say_what_it_needs(missing: dict[str, t.Any]) -> None:
    infos = asked([listed(HOSTS, number, f"r{number}") for number in range(1, 5)])
    infos["db1"] = {**infos["db1"], **missing} if missing else {"unreachable": True}
    with pytest.raises(RollbackError, match="Nothing is removed while it is unknown what is live"):
        together(infos, 1, None)
