# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the transaction's tasks where only the order keeps a promise."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml

TASKS = pathlib.Path(__file__).resolve().parents[2] / "roles" / "transaction" / "tasks"


def tasks(name: str) -> list[dict[str, t.Any]]:
    return t.cast("list[dict[str, t.Any]]", yaml.safe_load((TASKS / name).read_text(encoding="utf-8")))


def verbs(task: dict[str, t.Any]) -> list[str]:
    """The verbs that a task or a block plays."""
    inside = [verb for part in ("block", "rescue", "always") for each in task.get(part, []) for verb in verbs(each)]
    own = (task.get("vars") or {}).get("transaction_verb")
    return [*([own] if own else []), *inside]


@pytest.mark.parametrize("name", ["go_back.yml", "undo_only.yml"])
def test_a_host_says_that_it_answers_only_after_it_has_gone_back(name: str) -> None:
    """Whoever stops answering in between runs no rescue: had it said so before, it would count as gone back."""
    order = tasks(name)
    undo = next(number for number, task in enumerate(order) if "undo" in verbs(task))
    said = [number for number, task in enumerate(order) if "transaction_answers" in (task.get("ansible.builtin.set_fact") or {})]
    assert said == [undo + 1]
    assert order[undo]["any_errors_fatal"] is False, "one host that cannot go back would stop the others"
    assert order[undo]["vars"]["transaction_each"] == "attempt"


def test_on_the_way_back_each_component_is_tried() -> None:
    (each,) = tasks("attempt.yml")
    assert each["any_errors_fatal"] is False
    assert "transaction_lost" in each["rescue"][0]["ansible.builtin.set_fact"]
    back = [task for name in ("go_back.yml", "undo_only.yml", "batch_back.yml") for task in tasks(name) if "undo" in verbs(task)]
    assert len(back) == 3
    assert all(task["vars"]["transaction_each"] == "attempt" for task in back), "one that fails would keep the others from going back"


def test_old_points_that_cannot_be_dropped_do_not_cost_the_new_one() -> None:
    """The rescue of a backup takes its point away; a failure of pruning must not get there."""
    whole, told = tasks("backup.yml")[-2:]
    assert any(each.get("payops.rollback.rollback_point", {}).get("state") == "absent" for each in whole["rescue"])
    pruning = [each for each in whole["block"] if "pruned" in str(each)]
    assert len(pruning) == 1 and pruning[0]["rescue"] and pruning[0]["any_errors_fatal"] is False
    decided = next(each for each in pruning[0]["block"] if "points_to_drop" in str(each))
    assert decided["run_once"] is True, "each host would decide for itself what it keeps of a point"
    assert told["when"] == "transaction_not_pruned is defined" and "ansible.builtin.fail" in told, "nobody would hear of it"


@pytest.mark.parametrize("name", ["main.yml", "emergency.yml", "emergency_report.yml", "points.yml", "verify_only.yml"])
def test_every_way_in_leaves_bystanders_out_first_and_checks_the_command_before_it_acts(name: str) -> None:
    order = tasks(name)
    assert order[0]["ansible.builtin.import_tasks"] == "members.yml"
    if name in ("points.yml", "verify_only.yml"):
        assert "payops.rollback.rollback_gate" in order[1]


def test_tags_are_refused_whatever_they_are() -> None:
    first = tasks("members.yml")[0]
    assert "ansible_run_tags" in first["ansible.builtin.assert"]["that"] and first["tags"] == ["always"]


def roles_tasks(verb: str) -> list[dict[str, t.Any]]:
    path = TASKS.parents[1] / "rollback_postgresql" / "tasks" / f"{verb}.yml"
    return t.cast("list[dict[str, t.Any]]", yaml.safe_load(path.read_text(encoding="utf-8")))


def test_owed_rows_are_carried_before_anybody_is_let_in() -> None:
    """Behind a proxy applications and receivers run already, and the databases open for readers first."""
    carry, opening = roles_tasks("start")
    assert "payops.rollback.pg_carry_back" in carry and "payops.rollback.pg_access" in opening
    assert "access" not in str(carry["when"])


@pytest.mark.parametrize("verb", ["prepare", "undo"])
def test_what_an_emergency_closed_is_opened_when_its_databases_are_looked_after(verb: str) -> None:
    """A point that is damaged, and a flip backwards that fails, leave it closed."""
    modules = [key for task in roles_tasks(verb) for key in task if key.startswith("payops.rollback.")]
    assert modules[0] == "payops.rollback.pg_restore" and set(modules[1:]) == {"payops.rollback.pg_access"}
