# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No application is rolled back that nothing would judge afterwards, by whichever playbook, in whichever role."""

from __future__ import annotations

import pathlib

import pytest
import yaml

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
PLAYBOOKS = ROLES.parent / "playbooks"


def intents_that_flip_applications() -> set[str]:
    found = set()
    for path in PLAYBOOKS.glob("rollback_*.yml"):
        given = yaml.safe_load(path.read_text(encoding="utf-8"))[0]["tasks"][0].get("vars") or {}
        if "pm2" in (given.get("transaction_components") or []) and given.get("transaction_intent") not in (None, "emergency", "points"):
            found.add(given["transaction_intent"])
    return found


@pytest.mark.parametrize("role", ["rollback_pm2", "rollback_docker"])
def test_something_must_tell_whether_it_is_healthy(role: str) -> None:
    tasks = yaml.safe_load((ROLES / role / "tasks" / "observe.yml").read_text(encoding="utf-8"))
    (check,) = [task for task in tasks if "Something must tell" in task["name"]]
    for intent in intents_that_flip_applications():
        assert f"'{intent}'" in check["when"], f"{role} lets a {intent} rollback begin that nothing could judge"
    assert intents_that_flip_applications() == {"full", "application", "gradual"}
