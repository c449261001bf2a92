# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure half of the gate: each refusal with its sentence, each acceptance with its value."""

from __future__ import annotations

import datetime
import pathlib
import typing as t

import pytest
from ansible.parsing.splitter import parse_kv

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils import _gate


@pytest.mark.parametrize("version", ["20231201_120000", "v2.10", "latest", "2.3.1", "backup_20231201_120000"])
def test_text_is_a_version(version: str) -> None:
    assert _gate.check_version(version) == version


@pytest.mark.parametrize(
    ("found", "says"),
    [
        # What an AWX survey or JSON makes of what a person typed.
        (2.1, "float 2.1"),
        (20260101, "int 20260101"),
        (False, "bool False"),
        (datetime.date(2026, 11, 21), "date"),
        (["a"], "list"),
        (None, "empty"),
        ("", "empty"),
        ("  ", "empty"),
        ("../x", "not a safe name"),
        ("a/b", "not a safe name"),
        ("x" * 101, "not a safe name"),
        ("a\n", "not a safe name"),
        ("-rf", "not a safe name"),
        ("v1;id", "not a safe name"),
    ],
)
def test_what_is_no_version_is_refused(found: t.Any, says: str) -> None:
    with pytest.raises(RollbackError, match=says):
        _gate.check_version(found)


def test_a_misspelt_variable_never_means_the_latest() -> None:
    with pytest.raises(RollbackError, match="'verison' .did you mean 'version'") as refused:
        _gate.check_extra_variables(["verison", "ansible_user", "awx_job_id"], ["version", "ticket"])
    assert refused.value.details["unknown"] == ["verison"]


def test_words_that_a_value_with_spaces_lost_are_not_called_a_variable() -> None:
    with pytest.raises(RollbackError) as refused:
        _gate.check_loose_words(parse_kv("reason=late on Friday"))
    assert "-e \"reason='it was slow'\"" in str(refused.value) and "_raw_params" not in str(refused.value)
    _gate.check_loose_words(parse_kv("reason='late on Friday'"))


def test_known_variables_pass() -> None:
    _gate.check_extra_variables(["version", "awx_job_id", "tower_job_id", "ansible_check_mode"], ["version"])


def test_hosts_without_components_are_no_members() -> None:
    assert _gate.members({"a": ["pm2"], "b": None, "c": []}) == {"a": ["pm2"]}


@pytest.mark.parametrize(("given", "says"), [({"a": None}, "nothing to do"), ({"a": "pm2"}, "expected a list")])
def test_an_inventory_without_members_is_refused(given: dict[str, t.Any], says: str) -> None:
    with pytest.raises(RollbackError, match=says):
        _gate.members(given)


def test_unknown_components_are_named_with_the_likely_one() -> None:
    with pytest.raises(RollbackError, match="'postgres'; known are pm2, postgresql. Did you mean postgresql"):
        _gate.check_components({"a": ["postgres"]}, ["pm2", "postgresql"], ["pm2"])
    with pytest.raises(RollbackError, match="no host of the inventory has one"):
        _gate.check_components({"a": ["postgresql"]}, ["pm2", "postgresql"], ["pm2"])


def test_a_limit_to_a_part_must_be_said_aloud() -> None:
    with pytest.raises(RollbackError, match="--limit leaves out b.*allow_partial=true"):
        _gate.check_limit(["a", "b"], ["a"], False)
    assert _gate.check_limit(["a", "b"], ["a"], True) == ["a"]
    assert _gate.check_limit(["a", "b"], ["b", "a", "bystander"], False) == ["a", "b"]
    with pytest.raises(RollbackError, match="leaves no host"):
        _gate.check_limit(["a"], ["bystander"], True)


def test_a_host_that_was_lost_on_the_way_is_not_left_behind() -> None:
    """What a play before (an emergency stop) failed on takes no part in the next play, but belongs to the system all the same."""
    _gate.check_answers(["a", "b"], {"a": {}, "b": {}}, ["a", "b"])
    with pytest.raises(RollbackError, match="Host b did not answer"):
        _gate.check_answers(["a", "b"], {"a": {}}, ["a", "b"])
    with pytest.raises(RollbackError, match="Host a, b did not answer, or failed before"):
        _gate.check_answers(["a", "b"], {"a": {}}, ["b"])


def _run(run: str, since: int, intent: str, outcome: str | None) -> dict[str, t.Any]:
    return {"run": run, "since": f"2026-01-01T00:00:{since:02d}Z", "intent": intent, "outcome": outcome, "version": "v"}


@pytest.mark.parametrize(
    ("runs", "target", "undone_by"),
    [
        ([], None, None),
        ([_run("b", 1, "backup", "done")], None, None),
        ([_run("r", 1, "full", "done"), _run("b", 2, "backup", "done")], "r", None),
        ([_run("r", 1, "full", None)], "r", None),
        ([_run("r", 1, "full", "taken_over"), _run("u", 2, "undo", None)], "r", None),
        ([_run("r", 1, "full", "done"), _run("u", 2, "undo", "done")], "r", "u"),
        # A rollback that undid itself leaves nothing: the one before it is meant.
        ([_run("q", 1, "full", "done"), _run("r", 2, "full", "undone")], "q", None),
        ([_run("q", 1, "full", "done"), _run("r", 2, "full", "refused")], "q", None),
        # A rollback after an undo is the last one again.
        ([_run("q", 1, "full", "done"), _run("u", 2, "undo", "done"), _run("r", 3, "database", "done")], "r", None),
    ],
)
def test_which_rollback_undo_is_about(runs: list[dict[str, t.Any]], target: str | None, undone_by: str | None) -> None:
    found, by, completed, same = _gate.last_rollback(list(reversed(runs)) + runs)
    assert (found and found["run"], by and by["run"]) == (target, undone_by)
    assert completed is None and same[:1] == ([target] if target else [])


def test_a_run_that_found_everything_in_place_is_not_what_undo_is_about() -> None:
    runs = [_run("r", 1, "full", "done"), _run("s", 2, "full", "unchanged")]
    assert (_gate.last_rollback(runs).target or {})["run"] == "r"


def test_after_complete_there_is_no_way_back() -> None:
    runs = [_run("r", 1, "full", "done"), _run("c", 2, "complete", "done")]
    assert (_gate.last_rollback(runs).completed_by or {})["run"] == "c"
    assert _gate.last_rollback([*runs, _run("s", 3, "full", "done")]).completed_by is None
    assert _gate.last_rollback([runs[0], _run("c", 2, "complete", "failed")]).completed_by is None


def test_what_a_run_took_over_on_the_same_way_is_taken_back_with_it() -> None:
    same = {"version": "v1"}
    older = {**_run("q", 1, "full", "taken_over"), **same}
    runs = [older, _run("e", 2, "emergency", "stopped"), {**_run("r", 3, "full", "done"), **same}]
    assert _gate.last_rollback(runs).runs == ["r", "q"]
    assert _gate.last_rollback([{**older, "version": "v2"}, runs[2]]).runs == ["r"]
    assert _gate.last_rollback([{**older, "outcome": "done"}, runs[2]]).runs == ["r"]


@pytest.mark.parametrize(
    ("intent", "outcome", "expected"),
    [
        ("recover", "done", ["r", "q"]),
        ("backup", "done", ["r", "q"]),
        ("complete", "failed", ["r", "q"]),
        ("full", "undone", ["r", "q"]),
        ("full", "failed", ["r", "q"]),
        ("full", "unchanged", ["r", "q"]),
        ("full", "done", ["r"]),
        ("undo", "done", ["r"]),
        ("undo", "taken_over", ["r"]),
        ("complete", "done", ["r"]),
    ],
)
def test_what_stands_between_two_attempts_at_the_same_point(intent: str, outcome: str, expected: list[str]) -> None:
    for first in ("taken_over", "lost"):
        runs = [_run("q", 1, "full", first), _run("x", 2, intent, outcome), _run("r", 3, "full", "done")]
        assert _gate.last_rollback(runs).runs == expected


@pytest.mark.parametrize("number", [2.1, 20231201, 202312011200, 20231301120000, 2023120112000, 0, True])
def test_a_number_is_refused(number: t.Any) -> None:
    with pytest.raises(RollbackError, match="must be text"):
        _gate.check_version(number)


def test_a_number_that_is_also_the_name_of_a_point_is_no_moment() -> None:
    with pytest.raises(RollbackError, match="may mean the point 20231201120000 or 20231201_120000"):
        _gate.check_number("20231201120000", "20231201_120000", {"20231201120000", "20231201_120000"})
    _gate.check_number("20231201120000", "20231201_120000", {"20231201_120000"})
    _gate.check_number("", "20231201120000", {"20231201120000"})  # typed as text


def test_a_moment_that_yaml_made_a_number_is_still_that_moment() -> None:
    assert _gate.check_version(20231201120000) == "20231201_120000"


def test_one_process_has_one_run_id_per_intent() -> None:
    me = {"machine_id": "m", "boot_id": "b", "pid": 1, "started": "2", "host": "h"}
    assert _gate.run_id_of(me, "full", "v1") == _gate.run_id_of(dict(reversed(me.items())), "full", "v1")
    assert len({_gate.run_id_of(me, "full", "v1"), _gate.run_id_of(me, "undo", "v1"), _gate.run_id_of({**me, "pid": 2}, "full", "v1")}) == 3


def test_what_the_roles_declare_is_known_and_nothing_else(tmp_path: pathlib.Path) -> None:
    """The names that may be given with -e, and the components, follow the roles: a new role needs no list here."""
    spec = tmp_path / "rollback_redis" / "meta" / "argument_specs.yml"
    spec.parent.mkdir(parents=True)
    spec.write_text("argument_specs:\n  main: {options: {rollback_redis_port: {}}}\n  flip: {}\n", encoding="utf-8")
    (tmp_path / "transaction").mkdir()
    assert _gate.option_names(str(tmp_path)) == {"rollback_redis_port"}
    assert _gate.component_roles(str(tmp_path)) == ["redis"]
    ours = str(pathlib.Path(__file__).resolve().parents[4] / "roles")
    assert {"transaction_reason", "rollback_pm2_port", "rollback_postgresql_databases"} <= _gate.option_names(ours)
    assert _gate.component_roles(ours) == ["docker", "haproxy", "pm2", "postgresql"]


@pytest.mark.parametrize("intent", ["undo", "complete"])
def test_another_point_than_the_last_rollbacks_is_not_what_undo_and_complete_are_about(intent: str) -> None:
    target = {"run": "r1", "version": "v1"}
    with pytest.raises(
        RollbackError, match=rf"{intent}.yml is about the last rollback, which went to v1 .run r1., but the command names v2"
    ):
        _gate.check_target(intent, "v2", target)
    for version in ("v1", None, "", "latest", "previous", 2.1):
        _gate.check_target(intent, version, target)
    _gate.check_target(intent, "v2", None)
    _gate.check_target("full", "v2", target)


def test_other_playbooks_are_named_as_this_one_was(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("playbooks", "a {b} c", "own"):
        (tmp_path / folder).mkdir()
    for name in ("playbooks/undo.yml", "a {b} c/undo.yml", "undo.yml", "own/site.yml"):
        (tmp_path / name).touch()
    for called, typed in (
        ("playbooks/rollback_full.yml", "playbooks/undo.yml"),
        ("rollback_full.yml", "undo.yml"),
        ("a {b} c/rollback_full.yml", "'a {b} c/undo.yml'"),
        ("payops.rollback.rollback_full", "payops.rollback.undo"),
        ("own/site.yml", "payops.rollback.undo"),
    ):
        assert _gate.playbook_form([called]).format("undo") == typed
