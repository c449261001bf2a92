# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller, a module or the server dies, whatever is played: the same command finishes, or undo goes back.

The cases come from the collection (tests/e2e/places.py). One of each kind is always played, all with FULL=1.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.e2e import places
from tests.e2e.harness import GOOD, NEXT, World
from tests.e2e.places import Place, matrix
from tests.e2e.test_kinds import closed
from tests.lab import ports, processes

FULL_ROLLBACK = places.places("rollback_full")
OTHERS = [(playbook, *place) for playbook in places.PLAYBOOKS if playbook != "rollback_full" for place in places.places(playbook)]
# What is played first, so that there is something to do.
FIRST = {"undo": "rollback_full", "complete": "rollback_full", "recover": "rollback_emergency"}
SOME_OTHERS = {("undo", "postgresql", "swap", "during")}


def test_every_playbook_and_every_verb_has_its_cases_or_a_reason() -> None:
    """A new playbook, verb, or task file that plays verbs has no case until somebody says where it is played."""
    assert {path.stem for path in (places.ROOT / "playbooks").glob("*.yml")} == set(places.PLAYBOOKS) | set(places.NO_CASE_OF_ITS_OWN)
    tasks = [path.stem for path in (places.ROLES / "transaction" / "tasks").glob("*.yml")]
    files = {name for name in tasks if any(places.acts(verb) for verb in places.verbs_of(name))}
    known = {file for files_of, unused in places.PLAYBOOKS.values() for file in files_of}
    assert files == known | set(places.NO_PLAYBOOK_OF_ITS_OWN)
    played = {verb for file in known for verb in places.verbs_of(file)}
    for component in places.components():
        never = {verb for verb in places.verbs(component) if places.calls(component, verb)} - played
        assert not never, f"{component}: nothing is interrupted in {sorted(never)}"


def test_every_step_is_in_a_case_or_has_a_reason() -> None:
    taken = {(component, step) for playbook in places.PLAYBOOKS for component, step, unused in places.places(playbook)}
    declared = {found for component in places.components() for verb in places.verbs(component) for found in places.steps(component, verb)}
    reasons = {(component, step) for playbook, component, step in places.NOT_TAKEN if not playbook}
    assert taken.isdisjoint(reasons)
    assert taken | reasons == declared
    assert {step for component, step in declared if component == "pm2"} == set(places.pm2.STEPS)
    for playbook, component, step in places.NOT_TAKEN:
        assert (component, step) in declared, f"a reason for a step that is no more: {playbook} {component} {step}"


@pytest.mark.parametrize("place", matrix({("postgresql", "swap", "during")}, FULL_ROLLBACK))
def test_a_killed_controller_is_followed_by_the_same_command(deployed: World, place: Place) -> None:
    (point,) = deployed.points()
    deployed.forget_if_needed(place[1])
    with deployed.watching():
        with deployed.stopped_at("/".join(place), "rollback_full", version=point) as stopped:
            stopped.kill()
        assert deployed.locks()
        done = deployed.play("rollback_full", version=point).ok()
        assert "Going on with run" in done.flat or "continued" in done.flat, done.text[-3000:]
        assert "__kept_" in done.text, "the killed part had exchanged the databases; who reads the table must know what is kept where"
        deployed.all_at(GOOD)
        deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.parametrize("place", matrix(set(), FULL_ROLLBACK))
def test_a_killed_controller_is_followed_by_undo(deployed: World, place: Place) -> None:
    (point,) = deployed.points()
    deployed.forget_if_needed(place[1])
    with deployed.watching():
        with deployed.stopped_at("/".join(place), "rollback_full", version=point) as stopped:
            stopped.kill()
        deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.parametrize("case", matrix(SOME_OTHERS, OTHERS))
@pytest.mark.full
def test_another_playbook_that_is_killed_is_played_again(deployed: World, case: tuple[str, str, str, str]) -> None:
    playbook, *place = case
    before = deployed.points()
    if playbook in FIRST:
        deployed.play(FIRST[playbook]).ok()
    with deployed.watching(closed_is_fine=playbook in ("rollback_emergency", "recover")):
        with deployed.stopped_at("/".join(place), playbook) as stopped:
            stopped.kill()
        assert deployed.locks(), "nothing says that a run was under way"
        if playbook == "undo":
            deployed.play("rollback_full", version=before[0]).refused("undo.yml")
        deployed.play(playbook).ok()
        if playbook == "rollback_emergency":
            deployed.play("recover").ok()
    if playbook == "complete":
        assert deployed.kept() == []
    deployed.all_at(GOOD if playbook == "complete" else NEXT)
    if playbook == "backup":
        rows = {row["version"]: row for row in deployed.play("rollback_points", output="json").ok().json()}
        (new,) = set(deployed.points()) - set(before)
        assert rows[new]["complete"] is True, rows[new]
        assert all(row["complete"] is False for version, row in rows.items() if version not in (new, *before)), rows
        for path in deployed.store.glob("*/demo/[0-9]*"):
            if path.name not in before:
                shutil.rmtree(path)


@pytest.mark.full
def test_an_emergency_stop_and_its_recovery_are_both_killed(deployed: World) -> None:
    with deployed.watching(closed_is_fine=True):
        with deployed.stopped_at("postgresql_access/alter/during", "rollback_emergency") as stopped:
            stopped.kill()
        assert deployed.play("rollback_emergency").ok().outcome == "STOPPED"
        assert deployed.hosts[0].health()[0] in (0, 503)
        with deployed.stopped_at("pm2/start/during", "recover") as stopped:
            stopped.kill()
        assert deployed.play("recover").ok().outcome == "DONE"
    deployed.all_at(NEXT)


# --- signals, modules and servers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "way"),
    [
        pytest.param(signal.SIGINT, "rollback_full", id="ctrl-c-same"),
        pytest.param(signal.SIGTERM, "undo", id="sigterm-undo", marks=pytest.mark.full),
        pytest.param(signal.SIGINT, "undo", id="ctrl-c-undo", marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, "rollback_full", id="sigterm-same", marks=pytest.mark.full),
    ],
)
def test_interrupted_between_hold_and_start(deployed: World, signum: signal.Signals, way: str) -> None:
    """Neither rescue nor always runs then. The list says first what to type, and another rollback is refused."""
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/swap/before", "rollback_full", version=point) as stopped:
        assert stopped.interrupt(signum) != 0
        stopped.kill()
    assert deployed.hosts[0].health()[0] == 503
    if way == "rollback_full":
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


def test_a_module_that_outlives_its_controller_is_fenced(deployed: World) -> None:
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/sequences/after", "rollback_full", version=point) as stopped:
        stopped.kill_controller()
        assert os.path.exists(f"/proc/{stopped.module}"), "the module died with its controller"
        busy = deployed.play("undo")
        busy.refused("acting on this host", str(stopped.module))
        stopped.go_on()
        ports.wait_until(lambda: not os.path.exists(f"/proc/{stopped.module}"), "the end of the module", 60)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


def test_the_database_server_loses_power_at_the_flip(deployed: World) -> None:
    (point,) = deployed.points()
    cluster = deployed.ready()[0]
    with deployed.stopped_at("postgresql/swap/during", "rollback_full", version=point) as stopped:
        cluster.kill9()
        broken = stopped.finish()
        cluster.start()
    broken.refused("could not go back (repair: undo.yml)")
    assert broken.outcome == "HOSTS LEFT BEHIND", broken.text[-3000:]
    deployed.play("undo").ok()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_a_run_that_lost_its_lock_does_nothing_more(deployed: World) -> None:
    """Somebody takes over from a run that lives. Its module was killed, so that it lets go; the winner undoes, the loser stops."""
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/load/during", "rollback_full", version=point) as stopped:
        run = deployed.holder()["run"]
        stopped.freeze_controller()
        processes.signal_pid(stopped.module, signal.SIGKILL)
        deployed.play("undo").refused("still alive", f"takeover={run}")
        deployed.play("undo", takeover=run).ok()
        loser = stopped.finish()
    loser.refused(f"Run {run} does not hold the lock of this host any more")
    deployed.all_at(NEXT)


def test_a_run_that_an_emergency_replaced_starts_nothing_any_more(deployed: World) -> None:
    """It lives, and goes on as soon as the emergency has stopped everything."""
    (point,) = deployed.points()
    with deployed.stopped_at("pm2/flip/before", "rollback_full", version=point) as stopped:
        run = deployed.holder()["run"]
        stopped.freeze_controller()
        emergency = deployed.play("rollback_emergency").ok()
        loser = stopped.finish()
    assert f"The lock was taken over from run {run} (full to {point}, by " in emergency.flat
    loser.refused(f"Run {run} does not hold the lock of this host any more")
    (host,) = deployed.hosts
    assert host.health()[0] in (0, 503) and closed(deployed)
    deployed.play("rollback_full", version=point).ok()
    deployed.all_at(GOOD)
