# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""From whatever is found to "the project runs these images by these files".

``settle`` looks at the engine and does what is missing, so a first switch, a switch that was killed anywhere, and the way back are
the same function with another record.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._hold import (
    bring_down,
    let_up,
    responders,
    start_responder,
    stop_responder,
)
from ansible_collections.payops.rollback.plugins.module_utils._docker._judge import Demand, await_containers
from ansible_collections.payops.rollback.plugins.module_utils._docker._kept import secure
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import short
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import Retag, wishes_of
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack, named
from ansible_collections.payops.rollback.plugins.module_utils._docker._way import SUFFIX, serving, way_of
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, run_probes
from ansible_collections.payops.rollback.plugins.module_utils._probed import await_probes, expecting

NOBODY_SERVED = "nobody is served meanwhile"  # how the plan tells of an outage; the report leaves it out where a hold answers instead
BRIEFLY = 5.0  # seconds for the health of what is put back


def moves_of(stack: Stack, record: Record) -> list[dict[str, str]]:
    """The tags that must name other images."""
    wanted: dict[str, str] = {}
    for service, reference in record["refs"].items():
        if reference is None:
            continue
        image = record["images"][service]
        if wanted.setdefault(reference, image) != image:
            raise RollbackError(
                f"Two services share the image name {reference}, but have different images in {named(record)}. Give each a name of its own."
            )
    return [
        {"tag": reference, "image": image}
        for reference, image in sorted(wanted.items())
        if (stack.containers.image(reference) or {}).get("image") != image
    ]


def why_outage(stack: Stack, scene: Scene) -> str:
    """Why the services cannot serve while they change."""
    reasons = []
    ports = ", ".join(str(port) for unused, port in stack.addresses(scene))
    if ports:
        reasons.append(f"the fixed host port{'s' if ',' in ports else ''} {ports}")
    volumes = sorted({name for each in scene.containers for name in each.volumes})
    if volumes:
        reasons.append(f"the volume{'s' if len(volumes) > 1 else ''} {', '.join(volumes)}")
    return " and ".join(reasons) or "no proxy sends customers elsewhere meanwhile"


def left_out(stack: Stack, scene: Scene) -> list[str]:
    """What a point does not hold although the services read it."""
    names, mounted = stack.files.unlisted(scene.files), stack.files.mounted(scene.spec)
    told = [f"{', '.join(names)} is in no point and stays as it is now: list it in env_files (rollback_docker_env_files)"] if names else []
    return [*told, *([f"{', '.join(mounted)} is mounted, in no point, and stays as it is now"] if mounted else [])]


def plan(stack: Stack, scene: Scene, to: Record) -> list[str]:
    """The same decisions as ``settle``, as sentences."""
    told = [f"make {each['tag']} name {short(each['image'])}" for each in moves_of(stack, to)]
    if not stack.has_config(to, scene):
        told.append(f"put the compose and environment files of {named(to)} back")
    changing = [
        name for name, image in sorted(to["images"].items()) if any(each.image != image for each in scene.of(name)) or not scene.of(name)
    ]
    still = sorted(name for name in to["images"] if name not in changing and any(not each.alive for each in scene.of(name)))
    if not stack.has_config(to, scene):
        changing = sorted(to["images"])
    if changing:
        way = way_of(stack, scene, to, held=bool(responders(stack)))
        twin = f"{scene.project}{SUFFIX}"
        if way.open:
            told.append(
                f"start {', '.join(way.services)} of {named(to)} beside it as {twin}, probe it there, and let the proxy send everybody "
                "there until nobody is left here (no outage)"
            )
        told.append(f"recreate what differs of {', '.join(changing)} from images that are here, without building or pulling")
        if way.open:
            told += [f"let the proxy send everybody here again, and remove {twin} (no outage)", *way.notes]
        elif any(each.alive for each in scene.containers):
            measured = stack.state().get("outage_ms")
            cost = f"{measured / 1000:.1f} s, as the last one took" if measured else "usually 1 to 5 s, none was measured here yet"
            told += [f"no second project serves meanwhile: {text}" for text in way.against]
            told.append(f"{NOBODY_SERVED} because of {why_outage(stack, scene)} ({cost})")
    if still:
        told.append(f"start {', '.join(still)}")
    if responders(stack):
        told.append("end the hold")
    return [*told, *left_out(stack, scene)] if told else told


def settle(stack: Stack, to: Record, judge: bool = True) -> None:
    """Make it true. Without ``judge`` failing probes are told and no failure: what ran before is put back even if it was ill."""
    settings = stack.settings
    scene = stack.look()
    probes = expecting(settings.probes, settings.version_path, to.get("app_version"))
    if serving(stack):  # what a probe hears through the proxy is the second project
        probes += [
            {"name": f"port {port}", "type": "tcp", "host": host or "127.0.0.1", "port": port} for host, port in stack.addresses(scene)
        ]
    what = f"{stack.name} at {named(to)}"
    with stack.run.step("secure") as learnt:
        running = {each.service: each.image for each in scene.containers}
        learnt["kept"] = [*secure(stack, running, to["refs"]), *secure(stack, to["images"], to["refs"])]
    if not stack.has_config(to, scene):
        with stack.run.step("files") as learnt:
            learnt["changed"] = stack.files.put(stack.files.kept(to["set"]))
        scene = stack.look()
    moves = moves_of(stack, to)
    if moves:
        retag = Retag(stack.containers.engine, stack.run, settings.kept_prefix, allow_new=True)
        retag.reach(retag.plan(wishes_of(moves, settings.kept_prefix)), False)
    differing = stack.differing(to, scene)
    was_held = bool(responders(stack))
    since = now()
    if differing:
        with stack.run.step("recreate", services=sorted(differing), beside=serving(stack)):
            alone = stack.must_be_alone(scene, ((stack.state().get("switch") or {}).get("from") or {}).get("set"))
            if was_held:
                # Made ready while the responder still answers; only starting needs the ports.
                stack.up(scene, differing, start=False, alone=alone)
                stop_responder(stack)
            stack.up(scene, differing, alone=alone)
            let_up(stack, stack.look().containers)
    elif was_held:
        stop_responder(stack)
    demand = Demand(scene.project, to["images"], settings.stable_seconds, settings.wait_seconds)
    restarts: dict[str, int] = {}
    with stack.run.step("serve") as learnt:
        await_containers(stack.containers, demand._replace(stable=0.0, healthy=False), restarts)
        learnt["first_answer"] = first_answer(stack, probes, demand, restarts, what, judge) if differing else since
    with stack.run.step("verdict") as learnt:
        await_containers(stack.containers, demand, restarts)
        wait = settings.wait_seconds if judge else min(settings.wait_seconds, BRIEFLY)
        ill = ""
        try:
            result = await_probes(probes, settings.successes, wait, settings.interval, what)
            learnt["probes"] = (result or {}).get("probes", [])
        except RollbackError as exc:
            if judge:
                raise
            learnt["ill"] = ill = str(exc)
    stack.actions.append(f"{what} runs, {f'but is not healthy: {ill}' if ill else 'verified' if probes else 'by its containers'}")


def first_answer(
    stack: Stack, probes: t.Sequence[dict[str, t.Any]], demand: Demand, restarts: dict[str, int], what: str, judge: bool
) -> str:
    """When the release first answered its probes; without probes, when its containers ran. One that ends again is not waited for."""
    deadline = time.monotonic() + (demand.wait if judge else BRIEFLY)
    while probes:
        result = run_probes(probes, 1, 0.5, 0.05)
        if result["ok"]:
            break
        if judge:
            await_containers(stack.containers, demand._replace(stable=0.0, healthy=False), restarts)
        if time.monotonic() >= deadline:
            if judge:
                raise RollbackError(f"{what} does not answer: {failure_message(result)}", probes=result["probes"])
            break
    return now()


def tidy(stack: Stack, undone: bool = False) -> None:
    """What is live is written down, and a hold is over."""
    with stack.run.step("save"):
        stack.finish(undone)
        stack.remember(hold=None)


def switch(stack: Stack, to: Record, undone: bool = False) -> None:
    """Go to ``to``; when that fails go back to what was, and say both."""
    scene = stack.look()
    leaving = stack.live_record(scene)
    stack.files.keep(scene.files)
    stack.remember(project=scene.project)
    was_held = bool(stack.state().get("hold"))
    record = stack.begin(to, leaving, undone)
    try:
        settle(stack, to, judge=not undone)
    except Fenced:
        raise
    except RollbackError as exc:
        raise _undo(stack, exc, record["from"], was_held) from exc
    tidy(stack, undone)


def _undo(stack: Stack, exc: RollbackError, back: Record, was_held: bool) -> RollbackError:
    """Return to what was live before; while held only its tags and files, for nothing may write before ``started``."""
    details = {**exc.details, "undone": True}
    try:
        if was_held:
            scene = stack.look()
            bring_down(stack, scene.project, stack.settings.drain_seconds)
            start_responder(stack, stack.addresses(scene))
            _put_back(stack, back)
            stack.remember(switch=None)
            return RollbackError(
                f"{exc} Tags and files were put back, and {stack.name} stays on hold: end it with state=started.", **details
            )
        settle(stack, back, judge=False)
        stack.remember(switch=None)
    except (RollbackError, OSError) as again:
        return RollbackError(
            f"{exc} Going back to {named(back)} failed, too: {again} Run state=previous again.",
            **{**details, "undone": False, "changed": True},
        )
    return RollbackError(f"{exc} {named(back)} runs again.", **details)


def _put_back(stack: Stack, back: Record) -> None:
    scene = stack.look()
    if back["set"] and not stack.has_config(back, scene):
        with stack.run.step("files"):
            stack.files.put(stack.files.kept(back["set"]))
    moves = moves_of(stack, back)
    if moves:
        retag = Retag(stack.containers.engine, stack.run, stack.settings.kept_prefix, allow_new=True)
        retag.reach(retag.plan(wishes_of(moves, stack.settings.kept_prefix)), False)
    scene = stack.look()
    differing = stack.differing(back, scene)
    alone = stack.must_be_alone(scene, None)
    stack.up(scene, differing, start=False, alone=alone)


def folder_of_sets(run_folder: str) -> str:
    return os.path.join(run_folder, "docker.sets")
