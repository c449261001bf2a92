# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a run can be interrupted, read from the collection: which playbook takes which verbs, which modules a verb calls, which
steps a module declares. Nobody has to think of a new verb or step: it is in the list, or a test fails until it has a reason."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest
import yaml

from ansible_collections.payops.rollback.plugins.module_utils._merge import TRAFFIC
from ansible_collections.payops.rollback.plugins.module_utils._pm2 import backend as pm2
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _access, _carry_back, _restore, _snapshot
from tests.real.pm2.test_kill import PASSES

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
PREFIX = "payops.rollback."

# component, step, phase (see tests/README.md)
Place = t.Tuple[str, str, str]

# Which task files of the transaction role a playbook plays, and the components in its order.
PLAYBOOKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "backup": (("backup",), ("postgresql", "pm2")),
    "rollback_full": (("rollback", "flip"), ("postgresql", "pm2")),
    "undo": (("undo_only",), ("postgresql", "pm2")),
    "complete": (("complete",), ("postgresql", "pm2")),
    "rollback_emergency": (("emergency",), ("pm2", "postgresql")),
    "recover": (("recover",), ("postgresql", "pm2")),
}
NO_PLAYBOOK_OF_ITS_OWN = {
    "go_back": "what undo does, after a failure; test_failures.py",
    **dict.fromkeys(("gradual", "batch_steps", "batch_back"), "several application hosts behind a proxy; test_fleet.py"),
    "recover_steps": "behind a proxy; test_fleet.py",
}
NO_CASE_OF_ITS_OWN = {
    "rollback_database": "plays a part of rollback_full; test_owed.py",
    "rollback_application": "plays a part of rollback_full",
    "rollback_gradual": "several application hosts behind a proxy; test_fleet.py",
    "rollback_points": "reads only, but for a pin, which is one rename",
    "verify": "reads only",
}
# Modules without steps: they change nothing.
READ_ONLY = ("pg_check", "health_probe", "rollback_say")


def _pm2_steps(state: str) -> list[str]:
    if state == "started":  # the second half of a switch
        return [step for step in pm2.STEPS if "live" in PASSES.get(step, ()) and step not in ("flip", "leave")]
    return [step for step in pm2.STEPS if state in PASSES.get(step, ())]


START = "{{ rollback_postgresql_start_access }}"  # without a proxy that is read_write
STEPS_OF: dict[str, t.Callable[[dict[str, t.Any]], t.Sequence[str]]] = {
    "pg_snapshot": lambda options: _snapshot.STEPS,
    "pg_restore": lambda options: _restore.STEPS[options["state"]],
    "pg_carry_back": lambda options: _carry_back.STEPS,
    "pg_access": lambda options: [
        step for step in _access.STEPS if step == "alter" or (step == "forget") == (options["access"] in ("read_write", START))
    ],
    "pm2_rollback": lambda options: _pm2_steps(options["state"]),
}

# Steps that the system under test has no reason to take, by playbook ("" for all).
NOT_TAKEN: dict[tuple[str, str, str], str] = {
    ("", "pm2", "prepare_layout"): "the first time only",
    ("", "pm2", "adopt"): "the first time only",
    ("", "pm2", "singletons_stop"): "there are none",
    ("", "pm2", "singletons_start"): "there are none",
    ("", "pm2", "green"): "nothing runs beside the responder of a hold or a stopped app",
    ("rollback_full", _access.COMPONENT, "alter"): "opens what an emergency closed; recover",
    ("rollback_full", _access.COMPONENT, "forget"): "opens what an emergency closed; recover",
    **{("undo", _access.COMPONENT, step): "opens or closes what an emergency had closed; test_kinds.py" for step in _access.STEPS},
}


def components() -> list[str]:
    """Those of a world on one host. A proxy is killed in real/traffic/test_kill.py, and with its playbooks in test_fleet.py; a compose
    project in real/docker/test_compose_kill.py and test_beside.py, and with its playbooks in test_docker_proxied.py."""
    return sorted(name for path in ROLES.glob("rollback_*") if (name := path.name[len("rollback_") :]) not in (*TRAFFIC, "docker"))


def verbs(component: str) -> list[str]:
    """The verbs of a component: its task files."""
    return sorted(path.stem for path in (ROLES / f"rollback_{component}" / "tasks").glob("*.yml"))


def verbs_of(task_file: str) -> list[str]:
    """The verbs that a task file of the transaction role plays, in order."""
    text = (ROLES / "transaction" / "tasks" / f"{task_file}.yml").read_text(encoding="utf-8")
    return re.findall(r"^\s*transaction_verb: (\w+)$", text, re.MULTILINE)


def calls(component: str, verb: str) -> list[tuple[str, dict[str, t.Any]]]:
    """The modules of the collection that a verb calls to act, with their options."""
    tasks = yaml.safe_load((ROLES / f"rollback_{component}" / "tasks" / f"{verb}.yml").read_text(encoding="utf-8"))
    found = []
    for task in tasks:
        for key, options in task.items():
            if key.startswith(PREFIX) and task.get("check_mode") is not True and key[len(PREFIX) :] not in READ_ONLY:
                found.append((key[len(PREFIX) :], dict(options or {})))
    return found


def steps(component: str, verb: str) -> list[tuple[str, str]]:
    """The steps of a verb, each with the name that its module has in the journal; a module that is not known here is an error."""
    found = []
    for module, options in calls(component, verb):
        name = _access.COMPONENT if module == "pg_access" else component
        found += [(name, step) for step in STEPS_OF[module](options)]
    return found


def acts(verb: str) -> bool:
    """Whether a verb changes anything for any component."""
    return any(calls(component, verb) for component in components() if verb in verbs(component))


def places(playbook: str) -> list[Place]:
    """Every step of a playbook when it has acted and its end is not journalled, and each verb's beginning."""
    files, order = PLAYBOOKS[playbook]
    found: dict[Place, None] = {}
    for verb in [verb for file in files for verb in verbs_of(file)]:
        for component in order:
            taken = [
                (name, step)
                for name, step in steps(component, verb)
                if ("", name, step) not in NOT_TAKEN and (playbook, name, step) not in NOT_TAKEN
            ]
            for number, (name, step) in enumerate(taken):
                for phase in ("before", "during") if number == 0 else ("during",):
                    found.setdefault((name, step, phase))
    return list(found)


def matrix(some: t.Container[t.Any], cases: t.Iterable[t.Any]) -> list[t.Any]:
    """Parameters of a test: those in ``some`` are always played, the others with FULL=1."""
    return [pytest.param(case, id="-".join(case), marks=[] if case in some else pytest.mark.full) for case in cases]
