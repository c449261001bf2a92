# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing a point. Each defect of another tool that these rules answer is named."""

from __future__ import annotations

import itertools
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import merge_points
from ansible_collections.payops.rollback.plugins.module_utils._releases import Registry
from ansible_collections.payops.rollback.plugins.module_utils._resolve import resolve
from tests.unit.plugins.module_utils.listings import INVENTORY, Listings, bad, damage, history, legacy, live, native, part, stamp, why

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
    with pytest.raises(RollbackError) as refused:
        resolve("p2", "full", points)
    assert str(refused.value) == (
        "Point p2 cannot be used for a rollback (full): pm2 on app2 is damaged: another SHA-256. Complete ones, newest first: p1."
    )
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
