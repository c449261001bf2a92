# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 around every step that the code declares: the same call finishes the job, and ``previous`` brings back what was there."""

from __future__ import annotations

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import STEPS
from tests.lab import traffic
from tests.real.traffic.rig import Rig

# The calls that go through a step.
PASSES = {
    "held": ("remember", "receivers", "share", "persist", "verify"),
    "maint": ("remember", "drain", "wait", "maint", "persist"),
    "routed": ("remember", "route", "verify", "wait", "persist"),
    "previous": ("weight", "ready", "share", "verify", "forget", "persist"),
}
PHASES = ("before", "during", "after")
PLACES = [
    pytest.param(state, step, phase, id=f"{state}-{step}-{phase}", marks=[] if phase == "during" else [pytest.mark.full])
    for state, steps in PASSES.items()
    for step in steps
    for phase in PHASES
]


def test_every_step_has_a_case() -> None:
    assert {step for steps in PASSES.values() for step in steps} == set(STEPS)


@pytest.mark.parametrize(("state", "step", "phase"), PLACES)
def test_killed(rig: Rig, state: str, step: str, phase: str) -> None:
    green = traffic.Echo("green")
    if state == "routed":
        green.start()
    servers = ("app1",) if state in ("maint", "routed") else ()
    options = {"address": f"127.0.0.1:{green.port}"} if state == "routed" else {}
    if state == "previous":
        rig.ok("held")
        rig.ok("maint", "app1")
    try:
        assert rig.run(state, *servers, fault=f"haproxy/{step}/{phase}=kill", **options) == {"killed": True}
        if step == "remember" and phase == "before":
            rig.as_before()
        rig.ok(state, *servers, **options)
        assert not rig.ok(state, *servers, **options)["changed"]
        if state == "held":
            assert rig.share() == "0" and rig.proxy.get().status == 503
        elif state == "maint":
            assert rig.proxy.states()["app1"][0] & 1
        elif state == "routed":
            assert rig.proxy.states()["app1"][2].endswith(f":{green.port}")
            assert rig.run("routed", "app1", fault=f"haproxy/{step}/{phase}=kill") == {"killed": True}
            rig.ok("routed", "app1")
        rig.ok("previous")
        rig.as_before()
        rig.proxy.reload()  # and a reload finds the same
        rig.as_before()
    finally:
        if state == "routed":
            green.stop()
