# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Stopped on purpose: by a hold, with a responder on the published ports, or by a stop, with nobody there."""

from __future__ import annotations

import os
import signal
import sys
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker import _holder
from ansible_collections.payops.rollback.plugins.module_utils._docker._containers import Address, Container
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Scene, Stack
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._probed import answers_hold

PROGRAM = "docker-hold.py"
CALM = 0.5  # seconds in which nothing may have started again: an order that reached the engine before its sender was killed
STOP_SECONDS = 2.0  # an emergency does not wait for a release that does not listen


# -- the responder ------------------------------------------------------------------------------------------------------


def responders(stack: Stack) -> list[int]:
    """Process ids of our responder, found by its program: what was written down may be older than a crash."""
    wanted = os.path.join(stack.paths.run, PROGRAM).encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as handle:
                    words = handle.read().split(b"\0")
            except OSError:
                continue
            if wanted in words[:4] and not (len(words) > 1 and words[1] == b"--pdeathsig"):
                found.append(int(name))
    return found


def start_responder(stack: Stack, addresses: t.Sequence[Address]) -> None:
    if responders(stack) or not addresses:
        return
    path = os.path.join(stack.paths.run, PROGRAM)
    source = _holder.__loader__.get_source(_holder.__name__)  # type: ignore[union-attr]
    write_atomic(path, str(source).encode("utf-8"), 0o644)
    words = [str(stack.settings.retry_after), stack.run.run_id or "held", *(f"{host}:{port}" for host, port in addresses)]
    done = stack.compose.cli([sys.executable, "-I", path, *words], die_with_parent=False)
    if done.rc != 0:
        raise RollbackError(f"The responder does not start: {done.stderr.strip()[-300:]}. Run the same command again.")


def stop_responder(stack: Stack) -> None:
    """End it; the ports are free when this returns."""
    until = time.monotonic() + 5
    signum = signal.SIGTERM
    while True:
        left = responders(stack)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue
            except PermissionError as exc:
                raise RollbackError(f"The responder (pid {pid}) belongs to another user. End it there: kill {pid}") from exc
        if time.monotonic() > until:
            signum = signal.SIGKILL
        time.sleep(0.02)


def answered(addresses: t.Sequence[Address]) -> bool:
    """Whether the responder answers on every port."""
    return all(answers_hold(port, [host] if host else []) for host, port in addresses)


# -- containers ---------------------------------------------------------------------------------------------------------


def keep_down(stack: Stack, containers: t.Sequence[Container]) -> None:
    """What is stopped now stays so when the engine or the machine starts again."""
    known = dict(stack.state().get("policies") or {})
    for each in containers:
        if each.policy.get("Name") not in ("", "no", None):
            known.setdefault(each.id, each.policy)
    stack.remember(policies=known or None)
    for each in containers:
        if each.policy.get("Name") not in ("", "no", None):
            stack.containers.set_policy(each, {"Name": "no"})


def let_up(stack: Stack, containers: t.Sequence[Container]) -> None:
    """The restart policies that the containers had; of those that were removed meanwhile nothing is left to know."""
    known = stack.state().get("policies") or {}
    for each in containers:
        if each.id in known and each.policy.get("Name") in ("", "no", None):
            stack.containers.set_policy(each, known[each.id])
    stack.remember(policies=None)


def all_of(stack: Stack, project: str) -> list[Container]:
    """The containers of the services, and of a second project that serves beside them."""
    services = stack.settings.services
    twin = (stack.state().get("beside") or {}).get("project")
    beside = stack.containers.of_project(twin) if twin else []
    return [*(each for each in stack.containers.of_project(project) if not services or each.service in services), *beside]


def bring_down(stack: Stack, project: str, seconds: float) -> list[str]:
    """Stop everything that may write, until nothing starts again; the names of what ran."""
    stopped: dict[str, None] = {}
    deadline = time.monotonic() + seconds + stack.settings.wait_seconds
    calm = 0.0
    while True:
        alive = [each for each in all_of(stack, project) if each.alive]
        if not alive:
            calm = calm or time.monotonic()
            if time.monotonic() - calm >= CALM:
                return list(stopped)
        else:
            calm = 0.0
            stopped.update(dict.fromkeys(each.name for each in alive))
            keep_down(stack, alive)
            stack.containers.stop(alive, seconds)
        if time.monotonic() > deadline:
            raise RollbackError(
                f"{alive[0].name} starts again and again. Find out who starts it: docker events --filter container={alive[0].name}"
            )
        time.sleep(0.05)


# -- states -------------------------------------------------------------------------------------------------------------


def held(stack: Stack, scene: Scene) -> bool:
    """Whether nothing of the project's services runs but the responder, and it is written down."""
    addresses = stack.addresses(scene)
    return (
        bool(stack.state().get("hold"))
        and not any(each.alive for each in all_of(stack, scene.project))
        and (not addresses or (bool(responders(stack)) and answered(addresses)))
    )


def hold(stack: Stack, scene: Scene) -> None:
    """The responder waits for the ports, the containers finish and go; nothing of the release is left."""
    addresses = stack.addresses(scene)
    with stack.run.step("hold", ports=[f"{host}:{port}" for host, port in addresses]):
        record = {
            "since": now(),
            "deadline": time.time() + stack.settings.hold_seconds,
            "run": stack.run.run_id,
            "ports": [list(each) for each in addresses],
        }
        known = stack.state().get("hold")
        stack.remember(hold={**known, "ports": record["ports"]} if known else record, project=scene.project)
        start_responder(stack, addresses)
    with stack.run.step("leave") as learnt:
        learnt["stopped"] = bring_down(stack, scene.project, stack.settings.drain_seconds)
    with stack.run.step("prove") as learnt:
        until = time.monotonic() + stack.settings.wait_seconds
        while not (responders(stack) and answered(addresses)) and addresses:
            start_responder(stack, addresses)
            if time.monotonic() > until:
                shown = ", ".join(str(port) for unused, port in addresses)
                raise RollbackError(
                    f"{stack.name} is stopped, but the responder does not answer on port {shown}: something else listens there. "
                    "Stop it, then run the same again. To end the hold: state=started."
                )
            time.sleep(0.05)
        learnt["containers_left"] = 0
    where = ", ".join(str(port) for unused, port in addresses)
    stack.actions.append(f"{stack.name} {f'answers 503 on port {where}' if where else 'is stopped'}; state=started ends it")


def stop(stack: Stack, scene: Scene) -> None:
    with stack.run.step("stop") as learnt:
        stack.remember_seen(scene)
        learnt["stopped"] = bring_down(stack, scene.project, STOP_SECONDS)
        stop_responder(stack)
        stack.remember(hold=None)
    stack.actions.append(f"stopped {', '.join(learnt['stopped']) or 'the responder'}; state=started starts the release that is there")
