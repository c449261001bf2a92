# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reads the variables of all hosts is evaluated once for all of them, not by each host: fifty hosts would read 2,500 times."""

from __future__ import annotations

import pathlib
import re
import typing as t

import yaml

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "transaction"
OF_ALL = re.compile(r"\bhostvars\b|\bansible_play_hosts_all\b")
# Evaluated by each host, and why that is well.
ALLOWED = {
    ("members.yml", "members | Leave hosts out that have no component"): "read only on a host without a component",
    ("complete.yml", "Say it"): "a run that failed, at its end",
    ("emergency.yml", "Where a stop could not take the lock"): "reads its own host only",
    ("emergency.yml", "emergency | Write the outcome down and give the lock back"): "reads its own host only",
    ("emergency.yml", "emergency | Say what is not as it should be"): "reads its own host only",
    ("emergency_again.yml", "Stop once more, with the lock"): "reads its own host only",
}


def heavy() -> set[str]:
    """The role's variables that read all hosts, also by way of another variable."""
    variables = {name: str(value) for name, value in yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8")).items()}
    found: set[str] = set()
    while True:
        more = {
            name
            for name, text in variables.items()
            if name not in found and (OF_ALL.search(text) or any(re.search(rf"\b{each}\b", text) for each in found))
        }
        if not more:
            return found
        found |= more


def tasks(listed: t.Any) -> t.Iterator[dict[str, t.Any]]:
    for task in listed or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part))


def evaluated_by_each() -> t.Iterator[tuple[str, str]]:
    names = heavy()
    for path in sorted((ROLE / "tasks").glob("*.yml")):
        for task in tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            # variables that are handed on are evaluated where they are used
            own = {key: value for key, value in task.items() if key not in ("block", "rescue", "always", "vars", "module_defaults")}
            text = yaml.safe_dump(own)
            if not task.get("run_once") and (OF_ALL.search(text) or any(re.search(rf"\b{name}\b", text) for name in names)):
                yield path.name, str(task.get("name"))


def test_the_variables_that_are_meant_are_found() -> None:
    assert {"transaction_needed", "transaction_flip_marks", "transaction_table", "transaction_gradual_outcome"} <= heavy()
    assert "transaction_traffic" not in heavy()


def test_no_host_reads_all_the_others() -> None:
    found = set(evaluated_by_each())
    assert found == set(ALLOWED)
