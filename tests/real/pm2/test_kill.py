# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every step: the same command finishes the job, and ``previous`` takes it back."""

from __future__ import annotations

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._pm2.backend import STEPS
from tests.real.pm2.conftest import MakeRig
from tests.real.pm2.rig import Load, Rig

# Which call passes through a step; every step must be here.
PASSES: dict[str, tuple[str, ...]] = {
    "archive": ("archived",),
    "prepare_layout": ("staged",),
    "adopt": ("staged",),
    "stage": ("staged",),
    "preflight": ("staged",),
    "hold": ("held",),
    "prove": ("held",),
    "green": ("live", "previous"),
    "singletons_stop": ("live", "held"),
    "leave": ("live", "previous", "held"),
    "flip": ("live", "previous"),
    "start": ("live", "previous"),
    "serve": ("live", "previous"),
    "verdict": ("live", "previous"),
    "singletons_start": ("live",),
    "save": ("live", "previous", "held"),
    "stop": ("stopped",),
    "complete": ("complete",),
}
# Steps between which the app, its folder or PM2's list is neither of the old release nor of the new one are killed when they have acted
# and their end is not written down yet, in the first call that passes through them. The others, other calls and phases with FULL=1.
BETWEEN = {"stage", "hold", "green", "leave", "flip", "start", "save", "stop"}
CASES = [
    pytest.param(
        state,
        step,
        phase,
        id=f"{state}-{step}-{phase}",
        marks=[] if step in BETWEEN and (state, phase) == (states[0], "during") else [pytest.mark.full],
    )
    for step, states in PASSES.items()
    for state in states
    for phase in ("before", "during", "after")
]
PLAYED = [("symlink", "cluster", "flip"), ("exchange", "fork", "serve")]
KINDS = [
    pytest.param(layout, mode, step, marks=[] if (layout, mode, step) in PLAYED else [pytest.mark.full])
    for layout in ("exchange", "symlink")
    for mode in ("cluster", "fork")
    for step in ("green", "leave", "flip", "start", "serve", "verdict", "save")
    if (mode, step) != ("fork", "green")
]


def test_every_step_is_killed() -> None:
    assert set(PASSES) == set(STEPS)


def prepare(rig: Rig, state: str) -> dict[str, object]:
    """Bring the rig to where ``state`` is the next thing to do; its further options."""
    rig.first_and_second()
    if state == "archived":
        return {"version": "v2"}
    if state in ("live", "previous", "complete"):
        rig.module("staged", version="v1")
    if state in ("previous", "complete"):
        rig.module("live", version="v1")
    return {"version": "v1"} if state in ("staged", "live") else {}


ENDS = {"archived": "2.0.0", "staged": "2.0.0", "live": "1.0.0", "previous": "2.0.0", "complete": "1.0.0"}


@pytest.mark.parametrize(("state", "step", "phase"), CASES)
def test_the_same_command_finishes_the_job(make_rig: MakeRig, state: str, step: str, phase: str) -> None:
    rig = make_rig(worker=True)
    options = prepare(rig, state)
    with Load(rig.port, 25) as load:
        assert rig.module(state, fault=f"pm2/{step}/{phase}=kill", **options) == {"killed": True}
        rig.module(state, **options)
    if state in ENDS:
        rig.check_complete(ENDS[state])
        assert not load.failed, load.failed
        assert not rig.module(state, **options)["changed"]
    elif state == "held":
        assert rig.list() == [("api@hold", 0, "online"), ("worker", 0, "stopped")]
        assert not load.failed, load.failed
    else:
        assert {status for unused, unused2, status in rig.list()} == {"stopped"}
    if state in ("held", "stopped"):
        rig.module("started")
        rig.check_complete("2.0.0")


@pytest.mark.parametrize(("layout", "mode", "step"), KINDS)
def test_previous_takes_back_what_was_killed(make_rig: MakeRig, layout: str, mode: str, step: str) -> None:
    rig = make_rig(layout, mode)
    prepare(rig, "live")
    with Load(rig.port, 25) as load:
        assert rig.module("live", fault=f"pm2/{step}/during=kill", version="v1") == {"killed": True}
        rig.module("previous")
    rig.check_complete("2.0.0")
    if mode == "cluster":
        assert not load.failed, load.failed
    assert not rig.module("previous")["changed"]
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
