# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging the hosts' lists and choosing a point. Each defect of another tool that these rules answer is named."""

from __future__ import annotations

import copy
import itertools
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import merge_points
from ansible_collections.payops.rollback.plugins.module_utils._releases import Registry
from ansible_collections.payops.rollback.plugins.module_utils._resolve import resolve

INVENTORY = {"app1": ["pm2"], "app2": ["pm2"], "db1": ["postgresql"]}
Listings = t.Dict[str, t.List[t.Dict[str, t.Any]]]


def part(release: str | None = None, damaged: str | None = None) -> dict[str, t.Any]:
    return {"size": 10, "created": "c", "run": "r", "release": release, "damaged": damaged}


def stamp(day: int) -> str:
    return f"2023-12-{day:02d}T12:00:00.000000Z"


def native(listings: Listings, version: str, day: int, release: str, healthy: bool | None = True, **changes: t.Any) -> None:
    """Add a point to every host; ``changes``: host -> function that changes its entry, or None for no entry."""
    record = {
        "version": version,
        "created": stamp(day),
        "who": "amina",
        "healthy": healthy,
        "run": "r",
        "expected": copy.deepcopy(INVENTORY),
    }
    for host, components in INVENTORY.items():
        entry = {
            "version": version,
            "legacy": False,
            "path": f"/store/{version}",
            "created": stamp(day),
            "sealed": True,
            "record": copy.deepcopy(record),
            "components": {name: part(release if name == "pm2" else None) for name in components},
            "unfinished": [],
            "size": 10,
            "pinned": None,
            "problems": [],
        }
        if host in changes:
            if changes[host] is None:
                continue
            changes[host](entry)
        listings.setdefault(host, []).append(entry)


def legacy(listings: Listings, host: str, stamp_text: str, components: dict[str, t.Any]) -> None:
    listings.setdefault(host, []).append(
        {
            "version": f"backup_{stamp_text}",
            "alias": stamp_text,
            "legacy": True,
            "path": f"/app/{stamp_text}",
            "created": stamp(1),
            "sealed": True,
            "record": None,
            "components": components,
            "unfinished": [],
            "size": 5,
            "pinned": None,
            "problems": [],
        }
    )


def live(release: str, version: str | None = None, since: str | None = None) -> dict[str, t.Any]:
    state = {"release": release, "version": version, "since": since}
    return {"app1": {"pm2": dict(state)}, "app2": {"pm2": dict(state)}, "db1": {"postgresql": {"version": version, "since": since}}}


def bad(*releases: str) -> Registry:
    return {release: {"status": "bad", "who": "amina", "when": "w", "why": "broken migration"} for release in releases}


def history(releases: str = "r1 r2 r3", registry: Registry | None = None) -> list[dict[str, t.Any]]:
    """p1, p2, ... one per day, each of its release."""
    listings: Listings = {}
    for day, release in enumerate(releases.split(), start=1):
        native(listings, f"p{day}", day, release)
    return merge_points(listings, registry, INVENTORY)


def why(chosen: dict[str, t.Any]) -> dict[str, str]:
    return {item["version"]: item["why"] for item in chosen["skipped"]}


# -- merging ----------------------------------------------------------------------------------------------------------


def test_merging_gives_newest_first_and_changes_no_input() -> None:
    listings: Listings = {}
    for day in (2, 1, 3):
        native(listings, f"p{day}", day, f"r{day}")
    before = copy.deepcopy(listings)
    points = merge_points(listings, {}, INVENTORY)
    assert listings == before
    assert [point["version"] for point in points] == ["p3", "p2", "p1"]
    first = points[0]
    assert first["complete"] is True
    assert first["complete_for"] == {"full": True, "application": True, "database": True}
    assert first["releases"] == ["r3"]
    assert first["size"] == 30
    assert first["problems"] == []
    points[0]["hosts"]["app1"]["pm2"]["size"] = 0
    points[0]["expected"]["app1"].append("x")
    assert listings == before


def clear(key: str) -> t.Callable[[dict[str, t.Any]], None]:
    return lambda entry: entry.update({key: {} if key == "components" else None})


def damage(name: str) -> t.Callable[[dict[str, t.Any]], None]:
    return lambda entry: entry["components"][name].update(damaged="another SHA-256")


INCOMPLETE: dict[str, tuple[dict[str, t.Any], dict[str, bool], str]] = {
    "one application host has nothing": ({"app2": None}, {"full": False, "application": False, "database": True}, "app2 does not have it"),
    "one host lacks the component": (
        {"app2": clear("components")},
        {"full": False, "application": False, "database": True},
        "pm2 is missing on app2",
    ),
    "damaged application": ({"app1": damage("pm2")}, {"full": False, "application": False, "database": True}, "pm2 on app1 is damaged"),
    "damaged database": (
        {"db1": damage("postgresql")},
        {"full": False, "application": True, "database": False},
        "postgresql on db1 is damaged",
    ),
    "not sealed on one host": (
        {"app1": clear("record")},
        {"full": False, "application": False, "database": True},
        "its record is missing or damaged on app1",
    ),
    "never sealed": (
        {host: clear("record") for host in INVENTORY},
        {"full": False, "application": False, "database": False},
        "its backup did not finish",
    ),
    "two records": (
        {"db1": lambda entry: entry["record"].update(run="other")},
        {"full": False, "application": False, "database": False},
        "another record of it",
    ),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_point_is_complete_only_if_every_part_is(name: str) -> None:
    changes, expected, message = INCOMPLETE[name]
    listings: Listings = {}
    native(listings, "p1", 1, "r1", **changes)
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete"] is False
    assert point["complete_for"] == expected
    assert any(message in text for text in point["problems"]), point["problems"]


def test_a_host_that_joined_since_has_no_such_point() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1")
    point = merge_points(listings, {}, {**INVENTORY, "app3": ["pm2"]})[0]
    assert point["complete_for"] == {"full": False, "application": False, "database": True}
    assert point["problems"] == ["app3 has pm2 now but no pm2 in this point"]


def test_a_host_that_is_gone_for_good_is_only_a_note() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1", app2=None)
    inventory = {host: names for host, names in INVENTORY.items() if host != "app2"}
    point = merge_points(listings, {}, inventory)[0]
    assert point["complete"] is True
    assert "no longer in the inventory" in point["notes"][0]
    assert resolve("p1", "full", [point])["warnings"][0].startswith("p1: host app2")


def test_a_point_of_the_database_alone_serves_no_full_rollback() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1", app1=None, app2=None, db1=lambda entry: entry["record"].update(expected={"db1": ["postgresql"]}))
    point = merge_points(listings, {})[0]
    assert point["complete_for"] == {"full": True, "application": False, "database": True}
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": False, "application": False, "database": True}


def test_bad_on_one_host_makes_the_point_bad() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1", app2=lambda entry: entry["components"]["pm2"].update(release="r9"))
    point = merge_points(listings, {"r1": {"status": "good"}, **bad("r9")}, INVENTORY)[0]
    assert point["release"]["status"] == "bad"
    assert point["release"]["why"] == "broken migration"


def test_healthy_points_count_as_good_unless_known_bad() -> None:
    for healthy, registry, status in ((True, {}, "good"), (None, {}, "unknown"), (False, {}, "unknown"), (True, bad("r1"), "bad")):
        listings: Listings = {}
        native(listings, "p1", 1, "r1", healthy)
        assert merge_points(listings, registry, INVENTORY)[0]["release"]["status"] == status


def test_legacy_sql_is_needed_where_the_database_is_and_legacy_code_on_each_host() -> None:
    listings: Listings = {"db1": [], "app2": []}
    legacy(listings, "app1", "20231201_120000", {"pm2": part(), "postgresql": part()})
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": False, "application": False, "database": False}
    for intent in ("full", "database"):
        with pytest.raises(RollbackError) as caught:
            resolve("backup_20231201_120000", intent, merge_points(listings, {}, INVENTORY))
        assert "its SQL dump is on app1, but postgresql is on db1; copy the folder" in str(caught.value)
        assert "scp -3 -rp app1:/app/20231201_120000 db1:/app/" in str(caught.value)
    legacy(listings, "db1", "20231201_120000", {"postgresql": part()})
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": False, "application": False, "database": True}
    legacy(listings, "app2", "20231201_120000", {"pm2": part(), "postgresql": part(damaged="is empty")})
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": True, "application": True, "database": True}
    assert point["release"]["status"] == "unknown"


def test_a_native_point_wins_over_a_legacy_backup_of_its_name() -> None:
    listings: Listings = {}
    native(listings, "backup_20231201_120000", 2, "r1")
    legacy(listings, "app1", "20231201_120000", {"pm2": part()})
    assert [point["legacy"] for point in merge_points(listings, {}, INVENTORY)] == [False]


# -- latest -----------------------------------------------------------------------------------------------------------


def test_latest_is_the_newest_good_point_that_is_not_what_runs() -> None:
    chosen = resolve("latest", "full", history("r1 r2 r3"), live("r3"))
    assert chosen["version"] == "p2"
    assert why(chosen) == {"p3": "its release is the one that runs now"}


def test_latest_skips_bad_unverified_incomplete_and_legacy_and_says_so() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1")
    native(listings, "p2", 2, "r2")
    native(listings, "p3", 3, "r3", healthy=None)
    native(listings, "p4", 4, "r4", app2=None)
    legacy(listings, "app1", "20231201_120000", {"pm2": part(), "postgresql": part()})
    legacy(listings, "app2", "20231201_120000", {"pm2": part()})
    legacy(listings, "db1", "20231201_120000", {"postgresql": part()})
    listings["db1"][-1]["created"] = stamp(9)
    listings["app1"][-1]["created"] = listings["app2"][-1]["created"] = stamp(9)
    chosen = resolve("latest", "full", merge_points(listings, bad("r2"), INVENTORY), live("r5"))
    assert chosen["version"] == "p1"
    found = why(chosen)
    assert "marked bad by amina (broken migration)" in found["p2"]
    assert "never verified healthy" in found["p3"]
    assert "app2 does not have it" in found["p4"]
    assert "legacy backup" in found["backup_20231201_120000"]


def test_latest_of_the_database_is_the_newest_complete_point_of_any_release() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1")
    native(listings, "p2", 2, "r2", healthy=None, app1=damage("pm2"))
    native(listings, "p3", 3, "r3", db1=damage("postgresql"))
    assert resolve("latest", "database", merge_points(listings, bad("r2"), INVENTORY), live("r2"))["version"] == "p2"


def test_without_a_good_point_latest_names_what_there_is_and_fails() -> None:
    # Deployer #2052: a rollback without a candidate exited 0.
    with pytest.raises(RollbackError) as caught:
        resolve("latest", "full", history("r1", bad("r1")), live("r2"))
    assert "No rollback point fits 'latest' (full). p1: its release was marked bad" in str(caught.value)
    assert caught.value.details["skipped"][0]["version"] == "p1"
    with pytest.raises(RollbackError, match="No point exists yet; take one with"):
        resolve("latest", "full", [], {})


# -- previous ---------------------------------------------------------------------------------------------------------


def walk(points: t.Callable[[Registry], list[dict[str, t.Any]]], running: str, steps: int, keep: bool = True) -> list[str]:
    """Roll back to ``previous`` again and again, as the playbooks do: the release that is left becomes bad."""
    registry: Registry = {}
    state = live(running)
    landed = []
    for unused in range(steps):
        listed = points(registry)
        try:
            point = resolve("previous", "full", listed, state)["point"]
        except RollbackError:
            landed.append("refused")
            continue
        registry = {**registry, **(bad(running) if keep else {})}
        running = point["releases"][0]
        state = live(running, point["version"], stamp(20))
        landed.append(point["version"])
    return landed


def test_repeated_rollbacks_walk_back_and_stop() -> None:
    # Ansistrano defect 1: with kept releases the second rollback changes nothing. pm2-deploy and Helm: it flips to the bad one.
    for keep in (True, False):
        assert walk(lambda registry: history("r1 r2 r3", registry), "r4", 4, keep) == ["p3", "p2", "p1", "refused"]


def test_previous_of_a_live_release_that_has_points() -> None:
    assert walk(lambda registry: history("r1 r2 r3", registry), "r3", 3) == ["p2", "p1", "refused"]


def test_a_bad_release_between_is_never_landed_on() -> None:
    # trellis #1148: deploy 2 (bad), back to 1, deploy 3 (bad), back: lands on the bad 2.
    points = history("r1 r2 r1 r3", bad("r2", "r3"))
    assert resolve("previous", "full", points, live("r3"))["version"] == "p3"
    points = history("r1 r2 r3", bad("r2"))
    chosen = resolve("previous", "full", points, live("r3"))
    assert chosen["version"] == "p1"
    assert "marked bad" in why(chosen)["p2"]


def test_helm_a_rollback_after_a_rollback_does_not_return_to_the_bad_one() -> None:
    points = history("r1 r2", bad("r2"))
    with pytest.raises(RollbackError, match="No rollback point fits 'previous'"):
        resolve("previous", "full", points, live("r1", "p1", stamp(5)))


def test_previous_goes_by_what_is_live_and_not_by_folder_times() -> None:
    # Ansistrano defect 3: a write in an old folder changed its time, and the bad release stayed.
    points = history("r1 r2 r3")
    for point in points:
        point["paths"] = {"app1": "/somewhere/else"}
    assert resolve("previous", "full", points, live("r2"))["version"] == "p1"
    assert resolve("previous", "full", points, live("r2", "p2", stamp(9)))["version"] == "p1"


def test_rolling_forward_again_by_name_works() -> None:
    # Ansistrano defect 2: rolling forward after a rollback left the live link dangling.
    points = history("r1 r2 r3")
    assert resolve("p3", "full", points, live("r1", "p1", stamp(9)))["version"] == "p3"


def test_previous_steps_over_points_of_the_same_release() -> None:
    points = history("r1 r2 r2 r2")
    assert resolve("previous", "full", points, live("r2"))["version"] == "p1"


def test_a_deployment_after_a_rollback_moves_the_place() -> None:
    points = history("r1 r2 r3")
    # Rolled back to p1 once, but r4 was deployed since: the remembered version no longer says where the system stands.
    assert resolve("previous", "full", points, live("r4", "p1", stamp(4)))["version"] == "p3"


def test_previous_of_the_database_walks_back_from_where_it_stands() -> None:
    points = history("r1 r2 r3")
    assert resolve("previous", "database", points, live("r3"))["version"] == "p3"
    assert resolve("previous", "database", points, live("r3", "p3", stamp(9)))["version"] == "p2"
    assert resolve("previous", "database", points, live("r3", "p2", stamp(9)))["version"] == "p1"
    # Points were taken since that rollback: the system has moved on.
    assert resolve("previous", "database", points, live("r3", "p1", stamp(2)))["version"] == "p3"
    assert resolve("previous", "database", history("r1 r2 r3", bad("r3")), live("r4"))["version"] == "p2"


@pytest.mark.parametrize("statuses", list(itertools.product("gbu", repeat=4)))
def test_previous_and_latest_never_land_on_bad(statuses: tuple[str, ...]) -> None:
    listings: Listings = {}
    registry: Registry = {}
    for day, status in enumerate(statuses, start=1):
        native(listings, f"p{day}", day, f"r{day}", healthy=None)
        if status != "u":
            registry[f"r{day}"] = {"status": "good" if status == "g" else "bad"}
    points = merge_points(listings, registry, INVENTORY)
    for running, wanted in itertools.product(("r4", "r2", "other"), ("latest", "previous")):
        try:
            point = resolve(wanted, "full", points, live(running))["point"]
        except RollbackError:
            continue
        assert point["release"]["status"] == "good"
        assert running not in point["releases"]


# -- names ------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_fails_with_what_exists() -> None:
    # Kamal: a missing version printed red text and exited 0.
    with pytest.raises(RollbackError) as caught:
        resolve("p22", "full", history("r1 r2 r3"))
    assert "There is no rollback point 'p22'. Did you mean p2" in str(caught.value)
    assert "These exist, newest first: p3, p2, p1." in str(caught.value)


def test_a_bare_timestamp_reaches_the_legacy_backup_unless_a_point_has_that_name() -> None:
    listings: Listings = {}
    legacy(listings, "app1", "20231201_120000", {"pm2": part(), "postgresql": part()})
    inventory = {"app1": ["pm2", "postgresql"]}
    for wanted in ("20231201_120000", "backup_20231201_120000"):
        chosen = resolve(wanted, "full", merge_points(listings, {}, inventory))
        assert chosen["version"] == "backup_20231201_120000"
        assert "never verified healthy" in chosen["warnings"][0]
    native(listings, "20231201_120000", 5, "r1")
    assert resolve("20231201_120000", "full", merge_points(listings, {}, INVENTORY))["point"]["legacy"] is False


def test_an_incomplete_named_point_is_refused_for_what_it_cannot_do() -> None:
    listings: Listings = {}
    native(listings, "p1", 1, "r1")
    native(listings, "p2", 2, "r2", app2=damage("pm2"))
    points = merge_points(listings, {}, INVENTORY)
    with pytest.raises(
        RollbackError, match=r"Point p2 cannot be used for a rollback \(full\): pm2 on app2 is damaged.*Complete ones, newest first: p1"
    ):
        resolve("p2", "full", points)
    assert resolve("p2", "database", points)["version"] == "p2"


def test_a_named_bad_point_is_used_with_a_warning() -> None:
    chosen = resolve("p1", "full", history("r1", bad("r1")), live("r2"))
    assert chosen["warnings"] == ["The release of p1 was marked bad by amina on w: broken migration."]


@pytest.mark.parametrize("version", [2.1, 20231201, None, True, "", "../x", ["p1"]])
def test_what_is_no_name_is_refused(version: t.Any) -> None:
    with pytest.raises(RollbackError, match="version"):
        resolve(version, "full", history())


def test_an_unknown_intent_is_refused() -> None:
    with pytest.raises(RollbackError, match="intent"):
        resolve("latest", "emergency", history())


def test_where_a_clock_was_wrong_latest_is_not_guessed() -> None:
    points = history("r1 r2 r3")
    newest = str(points[0]["created"])
    assert resolve("latest", "full", points, live("r9"), newest)["version"] == "p3"
    with pytest.raises(
        RollbackError, match="Point p3 says that it was taken at .* a clock was wrong, so nobody can tell .* 'latest'. Name one"
    ):
        resolve("latest", "full", points, live("r9"), str(points[1]["created"]))
    assert resolve("p1", "full", points, live("r9"), str(points[1]["created"]))["version"] == "p1"
