# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every step: the same command finishes the job, and ``previous`` takes it back."""

from __future__ import annotations

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._backend import STEPS
from tests.lab.ports import wait_until
from tests.real.docker.compose_rig import ComposeRig

# Which call passes through a step; every step must be here.
PASSES: dict[str, tuple[str, ...]] = {
    "archive": ("archived",),
    "stage": ("staged",),
    "hold": ("held",),
    "leave": ("held",),
    "prove": ("held",),
    "secure": ("live", "previous"),
    "files": ("live", "previous"),
    "remember": ("live", "previous"),
    "keep": ("live", "previous"),
    "tag": ("live", "previous"),
    "verify": ("live", "previous"),
    "recreate": ("live", "previous"),
    "serve": ("live", "previous"),
    "verdict": ("live", "previous"),
    "save": ("live", "previous"),
    "stop": ("stopped",),
    "complete": ("complete",),
}
# Fetching an image that is gone, and putting tags back after a failure, write nothing that a second call could find half done.
ELSEWHERE = {"load", "pull", "put_back"}
BEHIND_A_PROXY = {"beside", "alone"}  # test_beside.py
PLAYED = {"leave", "recreate"}
CASES = [
    pytest.param(
        state,
        step,
        phase,
        id=f"{state}-{step}-{phase}",
        marks=[] if (state, phase) == (states[0], "during") and step in PLAYED else [pytest.mark.full],
    )
    for step, states in PASSES.items()
    for state in states
    for phase in ("before", "during", "after")
]


def test_every_step_is_killed() -> None:
    assert set(PASSES) | ELSEWHERE | BEHIND_A_PROXY == set(STEPS)


@pytest.mark.parametrize(("state", "step", "phase"), CASES)
def test_the_same_command_finishes_the_job(compose_rig: ComposeRig, state: str, step: str, phase: str) -> None:
    rig = compose_rig
    rig.first_and_second()
    if state in ("previous", "complete"):
        rig.module("live", version="v1")
    options = {"version": "v2" if state == "archived" else "v1"} if state in ("archived", "staged", "live") else {}
    assert rig.run(state, fault=f"docker/{step}/{phase}=kill", **options) == {"killed": True}
    if state == "live":
        rig.module("previous")  # first the way back, then the same command to its end
        rig.check_complete("2.0.0")
        assert rig.run(state, fault=f"docker/{step}/{phase}=kill", **options) == {"killed": True}
    rig.module(state, **options)
    if state in ("held", "stopped"):
        assert rig.ask()[0] == (503 if state == "held" else 0)
        rig.module("started")
    else:
        assert not rig.module(state, **options)["changed"]
    rig.check_complete("1.0.0" if state in ("live", "complete") else "2.0.0")


WAYS = {"the same command": ("live",), "the way back": ("previous",), "an emergency": ("stopped", "started")}


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way == "an emergency" else pytest.mark.full) for way in WAYS])
@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.full), True], ids=["still-runs", "stopped-already"])
def test_compose_itself_is_killed_while_it_replaces_a_container(compose_rig: ComposeRig, way: str, stopped: bool) -> None:
    """The new one was made under a name for the meantime, which compose cannot give twice; the old one runs or not."""
    rig = compose_rig
    rig.first_and_second()
    started = rig.start_module("live", version="v1")
    own = f"{rig.project}-api-1"

    def replacing() -> bool:
        names = {each["Names"][0].lstrip("/"): each["State"] for each in rig.engine.client().containers(all=True)}
        return any(name.endswith(f"_{own}") for name in names) and not (stopped and names.get(own) == "running")

    wait_until(replacing, "compose to replace the container", 30, 0.002)
    started.kill()
    started.wait(10)
    for state in WAYS[way]:
        rig.module(state, **({"version": "v1"} if state == "live" else {}))
    # an emergency starts what has a container, and never one release's images by the other one's files
    expected = {"the same command": "1.0.0", "the way back": "2.0.0"}.get(way) or str(rig.ask()[1]["version"])
    rig.check_complete(expected)
    assert not [each for each in rig.engine.client().containers(all=True) if each["Names"][0].endswith(f"_{own}")]
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
