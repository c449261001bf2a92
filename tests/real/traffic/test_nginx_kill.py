# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 around every step that nginx_servers declares: the same call finishes the job, and ``previous`` brings back what was there."""

from __future__ import annotations

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._nginx.traffic import STEPS
from tests.lab import traffic
from tests.real.traffic.nginx_rig import NginxRig

# The calls that go through a step.
PASSES = {
    "held": ("remember", "write", "reload", "verify"),
    "maint": ("remember", "write", "reload", "wait"),
    "routed": ("remember", "write", "reload"),
    "previous": ("ready", "write", "reload", "verify", "forget"),
}
PHASES = ("before", "during", "after")
# By default one case of each step, and those where the file is new and nginx is not.
DEFAULT = {("held", "remember"), ("held", "write"), ("held", "reload"), ("maint", "write"), ("maint", "wait"), ("routed", "write")}
DEFAULT |= {("previous", step) for step in PASSES["previous"]}
PLACES = [
    pytest.param(
        state, step, phase, id=f"{state}-{step}-{phase}", marks=[] if phase == "during" and (state, step) in DEFAULT else [pytest.mark.full]
    )
    for state, steps in PASSES.items()
    for step in steps
    for phase in PHASES
]


def test_every_step_has_a_case() -> None:
    assert {step for steps in PASSES.values() for step in steps} == {step for unused, step in DEFAULT} == set(STEPS)


@pytest.mark.parametrize(("state", "step", "phase"), PLACES)
def test_killed(nginx_rig: NginxRig, state: str, step: str, phase: str) -> None:
    rig = nginx_rig
    green = traffic.Echo("green")
    if state == "routed":
        green.start()
    servers = ("app1",) if state in ("maint", "routed") else ()
    options = {"address": f"127.0.0.1:{green.port}"} if state == "routed" else {}
    if state == "previous":
        rig.ok("held")
        rig.ok("maint", "app1")
    try:
        assert rig.run(state, *servers, fault=f"nginx/{step}/{phase}=kill", **options) == {"killed": True}
        if step in ("remember", "write") and phase == "before":
            assert rig.files() == rig.first or state == "previous"
        rig.ok(state, *servers, **options)
        assert not rig.ok(state, *servers, **options)["changed"]
        if state == "held":
            assert rig.share() == "0" and rig.proxy.get().status == 503
        elif state == "maint":
            assert rig.proxy.answering() == {"app2", "app3"}
        elif state == "routed":
            assert rig.proxy.answering() == {"green", "app2", "app3"}
            rig.ok("routed", "app1")
        rig.ok("previous")
        rig.as_before()
    finally:
        if state == "routed":
            green.stop()
