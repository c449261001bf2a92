# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller is killed at each step that HAProxy takes in a playbook: the same command finishes, and nothing is left at the proxy."""

from __future__ import annotations

import contextlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import STEPS
from tests.e2e import places
from tests.e2e.behind_proxy import Fleet, deployed
from tests.e2e.harness import GOOD, NEXT
from tests.lab import traffic

# What a verb makes HAProxy do, step by step.
OF_VERBS = {
    "away": ("remember", "drain", "wait", "maint", "persist"),
    "back": ("weight", "ready", "verify", "forget", "persist"),
    "hold": ("remember", "share", "verify", "persist"),
    "stop": ("remember", "share", "verify", "persist"),
    "share": ("share", "verify", "persist"),
    "flip": ("share", "verify", "forget", "persist"),
    "start": ("verify", "forget"),
}
ELSEWHERE = {"route": "of a second project; test_docker_proxied.py", "receivers": "the first time only"}
# The verbs of a proxy that a playbook plays, and what is played before it so that there is something to do.
PLAYED = {
    "rollback_gradual": (("away", "back"), ""),
    "rollback_full": (("hold", "flip"), ""),
    "rollback_emergency": (("stop",), ""),
    "recover": (("share", "start"), "rollback_emergency"),
}
CASES = [(playbook, verb, step) for playbook, (verbs, unused) in PLAYED.items() for verb in verbs for step in OF_VERBS[verb]]
FIRST = {("rollback_gradual", "back", "ready")}


def test_every_step_and_verb_has_a_case() -> None:
    assert {step for steps in OF_VERBS.values() for step in steps} | set(ELSEWHERE) == set(STEPS)
    acting = {verb for verb in places.verbs("haproxy") if places.calls("haproxy", verb)}
    assert acting - set(OF_VERBS) == {"observe", "prepare", "undo", "route"}, "they read, or do what flip and ELSEWHERE do"


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    yield from deployed(Fleet, traffic.HAPROXY, traffic.PROMETHEUS)


@pytest.mark.parametrize("case", places.matrix(FIRST, CASES))
def test_the_same_command_finishes(fleet: Fleet, case: tuple[str, str, str]) -> None:
    playbook, unused, step = case
    (point,) = fleet.points()
    version = {"version": point} if playbook.startswith("rollback_") and playbook != "rollback_emergency" else {}
    before = PLAYED[playbook][1]
    gated = playbook == "rollback_gradual"
    fleet.set_variables(
        **fleet.settings(**({} if gated else {"rollback_gate_probes": [], "rollback_recover_steps": ["read_only", 50, 100]}))
    )
    with fleet.paying(30) if gated else contextlib.nullcontext():  # without requests the thresholds have nothing to say
        if before:
            fleet.play(before).ok()
        with fleet.stopped_at(f"haproxy/{step}/during", playbook, **version) as stopped:
            stopped.kill()
        again = fleet.play(playbook, **version).ok()
    if playbook == "rollback_emergency":
        assert again.outcome == "STOPPED" and fleet.proxy.get().status == 503
        fleet.play("recover").ok()
    else:
        assert again.outcome == "DONE"
    fleet.as_before()
    assert fleet.running() == [GOOD if version else NEXT] * 3
    if version:
        fleet.play("undo").ok()
        assert fleet.running() == [NEXT] * 3
        fleet.as_before()
