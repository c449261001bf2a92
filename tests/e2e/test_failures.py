# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever breaks, at whatever step: all hosts end at one version, nothing that was paid is lost, the same command finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._pm2 import backend as pm2
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _carry_back, _restore
from tests.e2e.harness import BAD, GOOD, NEXT, World
from tests.lab import ports

# Steps of pm2 that a full rollback of the sample system has no reason to take.
ELSEWHERE = {
    "archive": "backup",
    "prepare_layout": "the first time only",
    "adopt": "the first time only",
    "singletons_stop": "there are none",
    "singletons_start": "there are none",
    "green": "nothing runs beside the responder of a hold",
    "stop": "emergency",
    "complete": "complete",
}
STEPS = [
    *[("postgresql", step) for step in _restore.STEPS["live"]],
    *[("postgresql", step) for step in _carry_back.STEPS],
    *[("pm2", step) for step in pm2.STEPS if step not in ELSEWHERE],
]
SOME = {("postgresql", "load"), ("postgresql", "swap"), ("pm2", "leave"), ("pm2", "flip"), ("pm2", "start")}


def matrix(some: t.Container[t.Any], cases: t.Iterable[t.Any]) -> list[t.Any]:
    return [pytest.param(case, id="-".join(case), marks=[] if case in some else pytest.mark.full) for case in cases]


def test_every_step_is_in_the_matrix_or_has_a_reason() -> None:
    assert set(ELSEWHERE) <= set(pm2.STEPS), "a reason for a step that is no more"
    assert {step for component, step in STEPS if component == "pm2"} | set(ELSEWHERE) == set(pm2.STEPS)
    assert {step for component, step in STEPS if component == "postgresql"} >= {*_restore.STAGED, *_restore.LIVE}


@pytest.mark.parametrize("place", matrix(SOME, STEPS))
def test_a_step_that_fails_sends_everything_back(deployed: World, place: tuple[str, str]) -> None:
    fails(deployed, place, "fail")


@pytest.mark.parametrize("place", matrix({("postgresql", "swap"), ("pm2", "flip")}, STEPS))
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


PHASES = [
    ("postgresql", "load", "during"),
    ("postgresql", "seal", "after"),
    ("pm2", "stage", "during"),
    ("pm2", "preflight", "during"),
    ("pm2", "hold", "during"),
    ("pm2", "leave", "during"),
    ("postgresql", "sequences", "during"),
    ("postgresql", "swap", "before"),
    ("postgresql", "swap", "during"),
    ("postgresql", "remember", "before"),
    ("postgresql", "carry", "before"),
    ("postgresql", "carry", "during"),
    ("pm2", "flip", "before"),
    ("pm2", "flip", "during"),
    ("pm2", "start", "during"),
    ("pm2", "verdict", "during"),
    ("pm2", "save", "during"),
]


@pytest.mark.parametrize("place", matrix({("postgresql", "swap", "during"), ("pm2", "flip", "during")}, PHASES))
def test_a_killed_controller_is_followed_by_the_same_command(deployed: World, place: tuple[str, str, str]) -> None:
    (point,) = deployed.points()
    deployed.forget_if_needed(place[1])
    with deployed.watching():
        with deployed.stopped_at("/".join(place), "rollback_full", version=point) as stopped:
            stopped.kill()
        assert deployed.locks()
        done = deployed.play("rollback_full", version=point).ok()
        assert "Going on with run" in done.flat or "continued" in done.flat, done.text[-3000:]
        deployed.all_at(GOOD)
        deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.parametrize("place", matrix({("postgresql", "carry", "before"), ("pm2", "start", "during")}, PHASES))
def test_a_killed_controller_is_followed_by_undo(deployed: World, place: tuple[str, str, str]) -> None:
    (point,) = deployed.points()
    deployed.forget_if_needed(place[1])
    with deployed.watching():
        with deployed.stopped_at("/".join(place), "rollback_full", version=point) as stopped:
            stopped.kill()
        deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
@pytest.mark.parametrize("place", matrix((), [("postgresql", "swap", "during"), ("pm2", "leave", "during"), ("pm2", "flip", "during")]))
def test_an_undo_that_is_killed_is_followed_by_undo(deployed: World, place: tuple[str, str, str]) -> None:
    (point,) = deployed.points()
    deployed.play("rollback_full", version=point).ok()
    with deployed.stopped_at("/".join(place), "undo") as stopped:
        stopped.kill()
    deployed.play("rollback_full", version=point).refused("undo.yml")
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)], ids=["ctrl-c", "sigterm"])
def test_interrupted_between_hold_and_start(deployed: World, signum: signal.Signals) -> None:
    """Neither rescue nor always runs then. The list says first what to type, and another rollback is refused."""
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/swap/before", "rollback_full", version=point) as stopped:
        assert stopped.interrupt(signum) != 0
        stopped.kill()
    assert deployed.hosts[0].health()[0] == 503
    listed = deployed.play("rollback_points").ok()
    assert "answers 503 since" in listed.flat and "undo.yml" in listed.flat and "did not finish" in listed.flat
    assert listed.flat.index("answers 503 since") < listed.flat.index("did not finish") < listed.flat.index("VERSION AGE")
    deployed.play("rollback_application", version=point).refused("rollback_full.yml", "undo.yml")
    deployed.play("rollback_full").ok()  # no version: where the dead run was going
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_killed_while_it_verifies(deployed: World) -> None:
    (point,) = deployed.points()
    with deployed.stopped_at("pm2/save/after", "rollback_full", version=point) as stopped:
        stopped.go_on()
        ports.wait_until(lambda: "TASK [verify | pm2]" in stopped.text(), "the verdict", 120)
        stopped.kill()
    done = deployed.play("rollback_full", version=point)
    done.ok()
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_a_module_that_outlives_its_controller_is_fenced(deployed: World) -> None:
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/sequences/after", "rollback_full", version=point) as stopped:
        stopped.kill_controller()
        assert os.path.exists(f"/proc/{stopped.module}"), "the module died with its controller"
        busy = deployed.play("undo")
        assert "acting on this host" in busy.flat and str(stopped.module) in busy.flat, busy.text
        stopped.go_on()
        ports.wait_until(lambda: not os.path.exists(f"/proc/{stopped.module}"), "the end of the module", 60)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_the_database_server_loses_power_at_the_flip(deployed: World) -> None:
    (point,) = deployed.points()
    cluster = deployed.ready()[0]
    with deployed.stopped_at("postgresql/swap/during", "rollback_full", version=point) as stopped:
        cluster.kill9()
        broken = stopped.finish()
        assert broken.rc != 0
        cluster.start()
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


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


@pytest.mark.full
def test_undo_from_another_controller(deployed: World) -> None:
    """The lease of a controller elsewhere has not run out: only saying so aloud takes over."""
    (point,) = deployed.points()
    with deployed.stopped_at("pm2/flip/before", "rollback_full", version=point) as stopped:
        stopped.kill()
    refused = elsewhere(deployed, "undo")
    assert refused.returncode != 0 and "takeover=" in refused.stdout, refused.stdout
    run = refused.stdout.split("takeover=")[1].split()[0].strip("'\".,")
    done = elsewhere(deployed, "undo", takeover=run, who="night shift")
    assert done.returncode == 0, done.stdout
    deployed.all_at(NEXT)


def elsewhere(world: World, playbook: str, **words: t.Any) -> subprocess.CompletedProcess[str]:
    """A playbook as a machine of another name plays it."""
    argv = ["unshare", "--uts", "--map-root-user", "sh", "-c", 'hostname another-controller && exec "$@"', "sh"]
    return subprocess.run(
        [*(argv if os.geteuid() else [word for word in argv if word != "--map-root-user"]), *world.argv(playbook, **words)],
        cwd=world.root,
        env=world.env(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
