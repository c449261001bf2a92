# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""From whatever is found to "the application under its own name, instances 0..n-1, running this tree".

``settle`` reads PM2's list and the folders and does what is missing, so a first switch, a switch that was killed anywhere,
and the way back are the same function with another target.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.cron import disarmed
from ansible_collections.payops.rollback.plugins.module_utils._pm2.dump import live_facts, problems, save
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition, started_from
from ansible_collections.payops.rollback.plugins.module_utils._pm2.singletons import prove_left, start_singletons, stop_singletons, to_stop
from ansible_collections.payops.rollback.plugins.module_utils._pm2.verdict import Demand, await_processes
from ansible_collections.payops.rollback.plugins.module_utils._probed import await_probes, await_seen, expecting
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import link_persistent, unshared
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import copy_tree, remove_tree
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import identity

RESTART_DELAY_MS = 3000
BRIEFLY = 5.0  # seconds for the health of what is put back


class Scene(t.NamedTuple):
    """What is true at one moment."""

    own: list[Proc]
    green: list[Proc]  # any helper name but hold and preflight
    hold: list[Proc]
    all: list[Proc]

    @property
    def held(self) -> bool:
        return any(process.alive for process in self.hold)


def look(app: App) -> Scene:
    processes = app.pm2.processes()
    ours = app.ours(processes)
    special = (app.name, app.hold_name, app.preflight_name)
    return Scene(
        own=[process for process in ours if process.name == app.name],
        green=[process for process in ours if process.name not in special],
        hold=[process for process in ours if process.name == app.hold_name],
        all=processes,
    )


def shares_port(processes: t.Sequence[Proc]) -> bool:
    """Whether these run, and in cluster mode: then others of cluster mode can listen on the same port beside them."""
    alive = [process for process in processes if process.alive]
    return bool(alive) and all(process.exec_mode == "cluster" for process in alive)


def runs(app: App, scene: Scene, tree: int, definition: Definition) -> bool:
    """Whether the application already runs that tree under its own name, complete, from the path it lives at."""
    home = app.releases.layout.home
    wanted = home if definition["cwd"] == "." else os.path.join(home, definition["cwd"])
    inside = identity(wanted)
    return (
        app.releases.live_tree() == tree
        and len(scene.own) == int(definition["instances"])
        and all(
            process.status == "online" and process.tree == inside and process.cwd == wanted and process.exec_mode == definition["exec_mode"]
            for process in scene.own
        )
    )


def settled(app: App, scene: Scene, tree: int, definition: Definition) -> bool:
    """``runs``, and nothing of ours is left beside it, and a reboot would bring up the same."""
    return (
        runs(app, scene, tree, definition)
        and not scene.green
        and not scene.hold
        and not app.releases.state().get("switch")
        and not app.releases.state().get("singletons")
        and not any(disarmed(process) for process in scene.all if process.name in app.settings.singletons)
        and not problems(app.pm2, live_facts(app.pm2, app.name), app.name)
    )


def plan(app: App, scene: Scene, to: Record, definition: Definition) -> list[str]:
    """The same decisions as ``settle``, as sentences."""
    name = to.get("version") or str(to.get("release"))[:12]
    told = []
    stopping = sorted({process.name for process in to_stop(app, scene.all)})
    if stopping:
        told.append(f"stop {', '.join(stopping)}")
    if not runs(app, scene, to["tree"], definition):
        serving = any(process.alive for process in scene.own)
        if definition["exec_mode"] == "cluster" and shares_port(scene.own) and not scene.held:
            told.append(
                f"start {app.green_name(to)} beside {app.name} on the same port, then let the old workers finish and go (no outage)"
            )
        elif serving:
            told.append(f"restart {app.name}: fork mode, so its port is closed for the time that it takes to boot (usually 0.4 to 1 s)")
        if app.releases.live_tree() != to["tree"]:
            told.append(f"make {name} live at {app.releases.layout.home} in one atomic {app.releases.layout.kind}")
        told.append(f"start {definition['instances']} instance(s) of {app.name} from there and judge them")
    if scene.held:
        told.append("end the hold")
    told.append("save PM2's list")
    return told


def base_for_green(app: App, to: Record) -> str:
    """A path that keeps meaning the same files while trees are exchanged: the release itself, or a twin of hard links."""
    path = app.releases.layout.find(to["tree"])
    if path is None:
        raise RollbackError(f"The tree of {to.get('version')} is gone. Stage it again with state=staged.")
    if app.releases.layout.kind == "symlink":
        return path
    twin = os.path.join(app.releases.layout.workshop, f"green-{str(to['release'])[:12]}")
    if not os.path.isdir(twin):
        copy_tree(path, twin, link=True, sync=False)
    link_persistent(app.releases.layout, twin, app.releases.persistent)
    return twin


def settle(app: App, to: Record, definition: Definition, judge: bool = True) -> None:
    """Make it true. Raises with the old release still serving wherever that is possible; see ``switch`` for the rest.

    Without ``judge`` failing probes are told and no failure: what ran before is put back even if it was ill, as it mostly was.
    """
    settings, layout = app.settings, app.releases.layout
    port = app.port(definition)
    cluster = definition["exec_mode"] == "cluster"
    probes = expecting(settings.probes, settings.version_path, to.get("app_version"))
    scene = look(app)
    stop_singletons(app, scene.all)
    if not runs(app, scene, to["tree"], definition):
        app.releases.share(to)
        serving = [process for process in scene.own if process.alive]
        if cluster and shares_port(serving) and not scene.held and not _green_serves(app, scene, to, definition):
            _drop_green(app, {process.name for process in scene.green}, port)
            _green(app, to, definition, probes if judge else (), port)
            scene = look(app)
        if scene.own:
            with app.run.step("leave", ids=[str(process.pm_id) for process in scene.own]) as learnt:
                learnt["drained"] = app.remove(scene.own, port)
        with app.run.step("flip", tree=to["tree"]) as learnt:
            learnt["replaced"] = app.releases.flip(to)
        with app.run.step("start", instances=definition["instances"]):
            # A responder that had to guess the address would keep the application from its own.
            guessed = bool(scene.hold) and not app.releases.state().get("listening")
            if not cluster or guessed or not shares_port([*scene.hold, *scene.green]):
                app.remove([*scene.hold, *scene.green], port, 0)
            since = time.time()
            app.pm2.start(started_from(definition, layout.home))
        was_held = bool(scene.hold)
    else:
        was_held = scene.held
        since = 0.0
    demand = Demand(
        app.name, to["tree"], definition["cwd"], int(definition["instances"]), since, settings.stable_seconds, settings.wait_seconds
    )
    what = f"{app.name} at {to.get('version') or str(to.get('release'))[:12]}"
    with app.run.step("serve") as learnt:
        # Customers are let in as soon as the release answers them; whether it stays up is judged while it serves.
        # Without a probe that tells it from the responder, only time shows that it listens.
        blind = was_held and not any((probe.get("type") or "http") == "http" for probe in probes)
        await_processes(app.pm2, demand if blind else demand._replace(stable=0.0), lambda: layout.home, definition)
        if was_held:
            learnt["first_answer"] = _end_hold(app, probes, port, what, judge)
    with app.run.step("verdict") as learnt:
        await_processes(app.pm2, demand, lambda: layout.home, definition)
        scene = look(app)
        if scene.green and not scene.hold and judge:
            await_probes(probes, settings.successes, settings.wait_seconds, settings.interval, what)
        app.remove(scene.green, port)
        wait = settings.wait_seconds if judge else min(settings.wait_seconds, BRIEFLY)
        ill = ""
        try:
            result = await_probes(probes, settings.successes, wait, settings.interval, what)
            learnt["probes"] = (result or {}).get("probes", [])
        except RollbackError as exc:
            if judge:
                raise
            learnt["ill"] = ill = str(exc)
    app.actions.append(f"{what} runs from {layout.home}, {f'but is not healthy: {ill}' if ill else 'verified'}")


def _end_hold(app: App, probes: t.Sequence[dict[str, t.Any]], port: int, what: str, judge: bool) -> str:
    """Take the responder away once the release answers beside it; when it first did."""
    settings = app.settings
    first = None
    try:
        first = await_seen(probes, settings.successes, settings.wait_seconds if judge else BRIEFLY, what)
    except RollbackError:
        if judge:
            raise
    app.remove(look(app).hold, port, 0)
    return first or now()


def _green_serves(app: App, scene: Scene, to: Record, definition: Definition) -> bool:
    """Whether a killed run has brought all of green up already. One that waits for its restart serves nobody."""
    wanted = [process for process in scene.green if process.name == app.green_name(to)]
    inside = identity(base_for_green(app, to)) if wanted else 0
    if definition["cwd"] != "." and wanted:
        inside = identity(os.path.join(base_for_green(app, to), definition["cwd"]))
    return len(wanted) == int(definition["instances"]) and all(process.status == "online" and process.tree == inside for process in wanted)


def _drop_green(app: App, names: t.Collection[str], port: int) -> None:
    """Delete until nothing comes back: PM2 sets a timer for a worker that waits for its restart, and deleting does not stop the timer."""
    until = time.monotonic()
    last = until + 2 * RESTART_DELAY_MS / 1000 + app.settings.wait_seconds
    while True:
        found = [process for name in sorted(names) for process in app.pm2.named(name)]
        if found:
            if any(process.status != "online" for process in found):
                until = time.monotonic() + RESTART_DELAY_MS / 1000 + 1
            try:
                app.remove(found, port)  # it shared the port: customers may be waiting for its answers
            except RollbackError:
                if time.monotonic() >= last:
                    raise
        elif time.monotonic() >= until:
            return
        time.sleep(0.1)


def _green(app: App, to: Record, definition: Definition, probes: t.Sequence[dict[str, t.Any]], port: int) -> None:
    """Start the release under a second name on the same port. Whatever fails here leaves the old release as it was."""
    settings, name = app.settings, app.green_name(to)
    with app.run.step("green", process=name):
        try:
            base = base_for_green(app, to)
            instances = int(definition["instances"])
            since = time.time()
            # The delay: a worker that has finished exits, and must not come back before it is deleted.
            changes = {"name": name, "watch": False, "restart_delay": RESTART_DELAY_MS}
            app.pm2.start(started_from({key: value for key, value in definition.items() if key != "cron_restart"}, base, **changes))
            demand = Demand(
                name, identity(base), definition["cwd"], instances, since, min(1.0, settings.stable_seconds), settings.wait_seconds
            )
            await_processes(app.pm2, demand, lambda: base, definition)
            await_seen(probes, settings.successes, settings.wait_seconds, name)
        except RollbackError as exc:
            _drop_green(app, {name}, port)
            raise RollbackError(f"{exc} The old release went on serving all the time.", **{**exc.details, "untouched": True}) from exc


def tidy(app: App, undone: bool = False) -> None:
    """Singletons, memory of the switch, twins, and PM2's saved list."""
    start_singletons(app)
    prove_left(app)
    with app.run.step("save"):
        app.end_strays()
        app.releases.finish(app.run, undone)
        app.releases.remember(hold=None, stopped=None)
        save(app.pm2, app.name)
        _remove_twins(app)


def _remove_twins(app: App) -> None:
    layout = app.releases.layout
    if layout.kind == "exchange" and os.path.isdir(layout.workshop):
        for name in os.listdir(layout.workshop):
            path = os.path.join(layout.workshop, name)
            if name.startswith("green-") and not unshared(path, app.releases.persistent, twin=True):
                remove_tree(path)


def switch(app: App, to: Record, definition: Definition, undone: bool = False) -> None:
    """Go to ``to``; when that fails go back to what was, and say both."""
    scene = look(app)
    held = scene.held
    leaving = app.running_definition(scene.all)
    if leaving is not None:
        app.remember(app.releases.live_tree(), leaving)
    app.remember(to["tree"], definition)
    record = app.releases.begin(app.run, to, undone)
    try:
        settle(app, to, definition, judge=not undone)
    except RollbackError as exc:
        raise _undo(app, exc, record["from"], held) from exc
    tidy(app, undone)


def _undo(app: App, exc: RollbackError, back: Record, held: bool) -> RollbackError:
    """Return to the release that was live before; while held only its files, for nothing may write before ``started``."""
    from ansible_collections.payops.rollback.plugins.module_utils._pm2.hold import hold_port

    details = {**exc.details, "undone": True}
    definition = app.remembered(back["tree"])
    try:
        if definition is None or app.releases.layout.find(back["tree"]) is None:
            raise RollbackError("what was live before is not known any more")
        definition = app.customised(definition)
        if held:
            port = app.port(definition)
            hold_port(app, definition, port)
            app.remove(look(app).own, port)
            app.releases.flip(back)
            app.releases.remember(switch=None)
            return RollbackError(f"{exc} The files were put back, and {app.name} stays on hold: end it with state=started.", **details)
        if not (exc.details.get("untouched") and runs(app, look(app), back["tree"], definition)):
            settle(app, back, definition, judge=False)
        start_singletons(app)
        app.releases.remember(switch=None)
        save(app.pm2, app.name)
        _remove_twins(app)
    except (RollbackError, OSError) as second:
        details["undone"] = False
        return RollbackError(f"{exc} Going back failed as well: {second} Run the same with state=previous.", **details)
    return RollbackError(f"{exc} {app.name} runs what it ran before.", **details)
