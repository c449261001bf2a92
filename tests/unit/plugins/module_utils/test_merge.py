# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging the lists of all hosts: which points are whole, and what is known of their releases."""

from __future__ import annotations

import copy
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import merge_points
from ansible_collections.payops.rollback.plugins.module_utils._resolve import resolve
from tests.unit.plugins.module_utils.listings import INVENTORY, Listings, bad, damage, legacy, native, part


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
    assert first["complete_for"] == {"full": True, "application": True, "gradual": True, "database": True}
    assert first["releases"] == ["r3"]
    assert first["size"] == 30
    assert first["problems"] == []
    points[0]["hosts"]["app1"]["pm2"]["size"] = 0
    points[0]["expected"]["app1"].append("x")
    assert listings == before


def clear(key: str) -> t.Callable[[dict[str, t.Any]], None]:
    return lambda entry: entry.update({key: {} if key == "components" else None})


INCOMPLETE: dict[str, tuple[dict[str, t.Any], dict[str, bool], str]] = {
    "one application host has nothing": (
        {"app2": None},
        {"full": False, "application": False, "gradual": False, "database": True},
        "app2 does not have it",
    ),
    "one host lacks the component": (
        {"app2": clear("components")},
        {"full": False, "application": False, "gradual": False, "database": True},
        "pm2 is missing on app2",
    ),
    "damaged application": (
        {"app1": damage("pm2")},
        {"full": False, "application": False, "gradual": False, "database": True},
        "pm2 on app1 is damaged",
    ),
    "damaged database": (
        {"db1": damage("postgresql")},
        {"full": False, "application": True, "gradual": True, "database": False},
        "postgresql on db1 is damaged",
    ),
    "not sealed on one host": (
        {"app1": clear("record")},
        {"full": False, "application": False, "gradual": False, "database": True},
        "its record is missing or damaged on app1",
    ),
    "never sealed": (
        {host: clear("record") for host in INVENTORY},
        {"full": False, "application": False, "gradual": False, "database": False},
        "its backup did not finish",
    ),
    "two records": (
        {"db1": lambda entry: entry["record"].update(run="other")},
        {"full": False, "application": False, "gradual": False, "database": False},
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
    assert point["complete_for"] == {"full": False, "application": False, "gradual": False, "database": True}
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
    assert point["complete_for"] == {"full": True, "application": False, "gradual": False, "database": True}
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": False, "application": False, "gradual": False, "database": True}


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
    assert point["complete_for"] == {"full": False, "application": False, "gradual": False, "database": False}
    for intent in ("full", "database"):
        with pytest.raises(RollbackError) as caught:
            resolve("backup_20231201_120000", intent, merge_points(listings, {}, INVENTORY))
        assert "its SQL dump is on app1, but postgresql is on db1; copy the folder" in str(caught.value)
        assert "scp -3 -rp app1:/app/20231201_120000 db1:/app/" in str(caught.value)
    legacy(listings, "db1", "20231201_120000", {"postgresql": part()})
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": False, "application": False, "gradual": False, "database": True}
    legacy(listings, "app2", "20231201_120000", {"pm2": part(), "postgresql": part(damaged="is empty")})
    point = merge_points(listings, {}, INVENTORY)[0]
    assert point["complete_for"] == {"full": True, "application": True, "gradual": True, "database": True}
    assert point["release"]["status"] == "unknown"


def test_a_native_point_wins_over_a_legacy_backup_of_its_name() -> None:
    listings: Listings = {}
    native(listings, "backup_20231201_120000", 2, "r1")
    legacy(listings, "app1", "20231201_120000", {"pm2": part()})
    assert [point["legacy"] for point in merge_points(listings, {}, INVENTORY)] == [False]
