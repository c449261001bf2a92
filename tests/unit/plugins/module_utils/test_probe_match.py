# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._probe_match import (
    check_conditions,
    parse_path,
    same,
    unmet,
    values_at,
)

HEALTH = {
    "status": "ok",
    "version": "20231201_120000",
    "checks": [{"name": "db", "ok": True, "ms": 3}, {"name": "mpesa", "ok": False}],
    "details": {"db.main": {"pool": 10}},
}


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("status", ["status"]),
        ("$.status", ["status"]),
        ("checks[0].name", ["checks", 0, "name"]),
        ("checks[-1]", ["checks", -1]),
        ("checks[*].ok", ["checks", None, "ok"]),
        ("details['db.main'].pool", ["details", "db.main", "pool"]),
        ("[0]", [0]),
        ("$", []),
    ],
)
def test_paths_are_read(path: str, steps: list[t.Any]) -> None:
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["a[", "a[]", "a..b", "a['b]", "a[x]"])
def test_a_path_that_makes_no_sense_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        parse_path(path)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("status", ["ok"]),
        ("checks[1].name", ["mpesa"]),
        ("checks[-1].name", ["mpesa"]),
        ("checks[*].ok", [True, False]),
        ("details['db.main'].pool", [10]),
        ("details[*].pool", [10]),
        ("nothing", []),
        ("checks[2].name", []),
        ("checks[-3]", []),
        ("status[0]", []),
        ("status.x", []),
        ("status[*]", []),
    ],
)
def test_values_are_found(path: str, values: list[t.Any]) -> None:
    assert values_at(HEALTH, path) == values


def test_an_entry_without_the_key_makes_the_whole_path_absent() -> None:
    """checks[*].ms holds for the database only: the other check must not be overlooked."""
    assert values_at(HEALTH, "checks[*].ms") == []


@pytest.mark.parametrize(
    ("wanted", "values", "reason"),
    [
        ({"equals": "ok"}, ["ok"], None),
        ({"equals": "ok"}, ["OK"], "is 'OK', expected 'ok'"),
        ({"equals": True}, [True], None),
        ({"equals": True}, [1], "is 1, expected true"),
        ({"equals": 1}, [True], "is true, expected 1"),
        ({"equals": 200}, ["200"], "is '200', expected 200"),
        ({"equals": False}, [False], None),
        ({"equals": 0}, [None], "is null, expected 0"),
        ({"equals": True}, [True, False], "is false, expected true"),
        ({"in": ["ok", None]}, [None], None),
        ({"in": ["ok", "up"]}, ["down"], "is 'down', expected one of 'ok', 'up'"),
        ({"in": [1]}, [True], "is true, expected one of 1"),
        ({"min": 1}, [1], None),
        ({"min": 1}, [0], "is 0, expected a number of at least 1"),
        ({"max": 5}, [5.5], "is 5.5, expected a number of at most 5"),
        ({"min": 1, "max": 5}, [3], None),
        ({"min": 1}, ["3"], "is '3', expected a number of at least 1"),
        ({"min": 0}, [True], "is true, expected a number of at least 0"),
        ({"matches": "^v2"}, ["v2.1"], None),
        ({"matches": "^v2"}, ["v1"], "is 'v1', expected to match '^v2'"),
        ({"exists": True}, [None], None),
        ({"exists": True}, [], "is absent"),
        ({"exists": False}, [], None),
        ({"exists": False}, ["Express"], "is 'Express', expected to be absent"),
        ({"equals": "x"}, [], "is absent"),
        ({"equals": None, "in": None, "exists": None, "min": 2}, [3], None),
    ],
)
def test_conditions(wanted: dict[str, t.Any], values: list[t.Any], reason: str | None) -> None:
    assert unmet(wanted, values) == reason


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(unmet({"equals": 1}, ["x" * 5000]) or "") < 200


@pytest.mark.parametrize(
    ("left", "right", "equal"), [([1, 2], [1, 2], True), ({"a": 1}, {"a": 2}, False), (1, 1.0, True), (None, 0, False)]
)
def test_same(left: t.Any, right: t.Any, equal: bool) -> None:
    assert same(left, right) is equal


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "expects nothing"),
        ({"equals": None}, "expects nothing"),
        ({"matches": "("}, "not a regular expression"),
        ({"matches": 5}, "not a regular expression"),
        ({"in": "ok"}, "must be a list"),
        ({"min": "1"}, "must be a number"),
        ({"max": True}, "must be a number"),
        ({"exists": False, "equals": 1}, "absent"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(wanted: dict[str, t.Any], message: str) -> None:
    assert message in "; ".join(check_conditions("here", wanted))
