# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever breaks, at whatever step: all hosts end at one version, nothing that was paid is lost, the same command finishes."""

from __future__ import annotations

import pytest

from tests.e2e import places
from tests.e2e.harness import BAD, GOOD, NEXT, World
from tests.e2e.places import matrix
from tests.lab import ports

STEPS = list(dict.fromkeys((component, step) for component, step, unused in places.places("rollback_full")))


@pytest.mark.parametrize("place", matrix(set(), STEPS))
def test_a_step_that_fails_sends_everything_back(deployed: World, place: tuple[str, str]) -> None:
    fails(deployed, place, "fail")


@pytest.mark.parametrize("place", matrix({("postgresql", "swap")}, STEPS))
@pytest.mark.full
def test_a_module_that_is_killed_sends_everything_back(deployed: World, place: tuple[str, str]) -> None:
    fails(deployed, place, "kill")


def fails(world: World, place: tuple[str, str], what: str) -> None:
    (point,) = world.points()
    world.forget_if_needed(place[1])
    fault = world.once(*place, "during", what)
    with world.watching():
        played = world.play("rollback_full", version=point, fault=fault)
    assert not (world.folder / "fault").exists(), f"{place} was never reached:\n{played.text[-3000:]}"
    played.refused("It failed")
    assert played.outcome in ("UNDONE", "FAILED")
    world.all_at(NEXT)


@pytest.mark.full
def test_back_to_a_release_that_is_ill(world: World) -> None:
    """What is left is mostly ill already; a rollback that fails still puts it back, all of it."""
    with world.paying(rate=15):
        world.play("backup").ok()
        (point,) = world.points()
        world.deploy(2)
        ports.wait_until(lambda: all(world.hosts[0].health()[0] == 503 for look in range(4)), "2.0.0 to fall ill", 90, 0.25)
        fault = world.once("pm2", "start", "during", "fail")
        played = world.play("rollback_full", version=point, fault=fault)
        played.refused("It failed")
        assert played.outcome == "UNDONE", played.text[-4000:]
        assert world.versions() == {"db1": BAD, "app1": BAD}
        assert not world.locks() and not world.holds()
        world.play("rollback_full", version=point).ok()
        assert world.versions() == {"db1": GOOD, "app1": GOOD}
        world.play("undo").ok()
        assert world.versions() == {"db1": BAD, "app1": BAD}
        assert not world.locks() and not world.holds()
