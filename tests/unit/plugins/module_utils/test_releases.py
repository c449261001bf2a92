# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases are good or bad."""

from __future__ import annotations

import copy
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import make_dir
from ansible_collections.payops.rollback.plugins.module_utils._releases import (
    Registry,
    load_releases,
    mark,
    mark_all,
    mark_bad,
    mark_good,
    merge_releases,
    registry_path,
    release_marks,
    save_releases,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

BAD: Registry = {"r2": {"status": "bad", "who": "amina", "when": "2023-12-02", "why": "broken migration", "version": "v2"}}


def test_marking_returns_a_new_registry() -> None:
    before = copy.deepcopy(BAD)
    after, refused = mark_good(BAD, "r1", who="juma", when="2023-12-03", why="verified", version="v1")
    assert refused is None
    assert before == BAD
    assert after["r1"] == {"status": "good", "who": "juma", "when": "2023-12-03", "why": "verified", "version": "v1"}


def test_bad_is_not_washed_clean_by_a_later_success() -> None:
    after, refused = mark_good(BAD, "r2", who="juma")
    assert after == BAD
    assert refused is not None
    assert "stays bad" in refused
    assert "amina" in refused
    assert "broken migration" in refused


def test_a_person_overrules_and_the_history_stays() -> None:
    after, refused = mark(BAD, "r2", "good", {"who": "juma", "why": "false alarm"}, overrule=True)
    assert refused is None
    assert after["r2"]["status"] == "good"
    assert after["r2"]["history"] == [BAD["r2"]]
    again, refused = mark_bad(after, "r2", who="amina", why="it was not")
    assert [entry["status"] for entry in again["r2"]["history"]] == ["bad", "good"]


def test_the_same_mark_again_changes_nothing() -> None:
    assert mark_bad(BAD, "r2", who="juma", why="other")[0] == BAD


@pytest.mark.parametrize(("release", "status"), [("", "good"), (None, "good"), ("r1", "fine"), (5, "bad")])
def test_wrong_marks_are_refused(release: str, status: str) -> None:
    sentence = "is marked good or bad; found 'fine'" if status == "fine" else "is named by its tree hash or image ID; found"
    with pytest.raises(RollbackError, match=sentence):
        mark({}, release, status, {})


def test_many_marks_at_once() -> None:
    marks = [{"release": "r2", "status": "good"}, {"release": "r3", "status": "bad", "why": "slow", "version": "v3"}]
    after, refused = mark_all(BAD, marks, "juma", "2024-01-01")
    assert len(refused) == 1
    assert after["r3"] == {"status": "bad", "who": "juma", "when": "2024-01-01", "why": "slow", "version": "v3"}


@pytest.mark.parametrize(
    ("reason", "verified", "bad", "good"),
    [
        ("rollback", True, ["r3"], ["r1"]),
        ("emergency", True, ["r3"], ["r1"]),
        ("corruption", True, [], ["r1"]),
        ("undo", True, [], ["r1"]),
        ("drill", True, [], ["r1"]),
        ("rollback", False, [], []),
    ],
)
def test_leaving_a_release_by_a_rollback_marks_it_bad(reason: str, verified: bool, bad: list[str], good: list[str]) -> None:
    marks = release_marks(["r3", "r1"], ["r1"], verified, reason)
    assert [item["release"] for item in marks if item["status"] == "bad"] == bad
    assert [item["release"] for item in marks if item["status"] == "good"] == good


def test_what_is_still_live_is_not_left() -> None:
    assert [item["status"] for item in release_marks(["r1"], ["r1"], True, "rollback")] == ["good"]


def test_bad_on_any_host_is_bad() -> None:
    good: Registry = {"r2": {"status": "good", "when": "2025-01-01"}, "r1": {"status": "good", "when": "2023-01-01", "who": "old"}}
    newer: Registry = {"r1": {"status": "good", "when": "2024-01-01", "who": "new"}}
    for order in ([BAD, good, newer], [newer, good, BAD]):
        merged = merge_releases(order)
        assert merged["r2"]["status"] == "bad"
        assert merged["r1"]["who"] == "new"


def test_the_file(tmp_path: pathlib.Path) -> None:
    paths = Paths(str(tmp_path), "kejayangu")
    assert load_releases(paths) == {}
    make_dir(paths.run)
    save_releases(paths, BAD)
    assert load_releases(paths) == BAD
    for damaged in ("{", "[]", '{"r1": "good"}'):
        pathlib.Path(registry_path(paths)).write_text(damaged)
        with pytest.raises(RollbackError, match="damaged"):
            load_releases(paths)


@pytest.mark.parametrize(
    ("left", "entered", "bad"), [("good", "bad", []), ("good", "good", ["r3"]), ("bad", "bad", ["r3"]), (None, "bad", ["r3"])]
)
def test_the_way_forward_is_no_verdict_on_what_it_leaves(left: str | None, entered: str, bad: list[str]) -> None:
    known: Registry = {"r1": {"status": entered}, **({"r3": {"status": left}} if left else {})}
    marks = release_marks(["r3"], ["r1"], True, "rollback", None, known)
    assert [item["release"] for item in marks if item["status"] == "bad"] == bad


def test_a_refused_mark_names_the_command_that_overrules() -> None:
    for known, given, point in ((BAD, "v9", "v9"), (BAD, None, "v2"), ({"r2": {"status": "bad"}}, None, "<point>")):
        unused, refused = mark_good(known, "r2", who="juma", version=given)
        assert refused is not None and f"rollback_points.yml -e good={point} -e \"reason='<why>'\"" in refused
