# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Stopping: needs PM2's names only, and proves at the end that nothing of the application runs."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.cron import armed, disarm
from ansible_collections.payops.rollback.plugins.module_utils._pm2.dump import save
from ansible_collections.payops.rollback.plugins.module_utils._pm2.hold import known_hosts
from ansible_collections.payops.rollback.plugins.module_utils._pm2.singletons import to_stop, unlisted
from ansible_collections.payops.rollback.plugins.module_utils._pm2.switch import look

Result = t.Dict[str, t.Any]


def stopped(app: App, check: bool) -> Result:
    """Stop the application and its singletons, whatever became of its files, its state file or the disk."""
    scene = look(app)
    processes = scene.all
    alive = [process for process in [*scene.own, *scene.green, *scene.hold] if process.alive or armed(process)]
    singletons = to_stop(app, processes)
    if not (scene.own or scene.green or scene.hold):
        app.live_definition(processes)  # a name that nobody has ever heard of is not stopped, but wrong
    if not alive and not singletons:
        _nothing_else(app, processes)
        return {"changed": False, "msg": f"{app.name} is stopped already"}
    if check:
        return {"changed": True, "actions": [f"stop {name}" for name in sorted({process.name for process in [*alive, *singletons]})]}
    with app.run.step("stop") as learnt:
        port = _note(app, scene.own, processes)
        names = sorted({process.name for process in singletons})
        unwritten = _remember(app, sorted({process.name for process in singletons if process.alive}))
        stopping = [*sorted({process.name for process in scene.own}), *names]
        for name in stopping:
            app.pm2.act("stop", name)
        app.remove([*scene.green, *scene.hold], port, 0)
        disarm(app.pm2, stopping)
        app.await_gone([process.pid for process in [*alive, *singletons] if process.pid])
        _prove(app)
        if unwritten is not None:
            raise RollbackError(f"{app.name} is stopped, but that could not be written down: {unwritten}") from unwritten
        app.releases.remember(hold=None)
        learnt["stopped"] = sorted({process.name for process in [*alive, *singletons]})
    with app.run.step("save"):
        save(app.pm2, app.name)
    _nothing_else(app, app.pm2.processes())
    app.actions.append(f"stopped {', '.join(learnt['stopped'])}; state=started starts the release that is on the disk")
    return {"changed": True}


def _nothing_else(app: App, processes: t.Sequence[Proc]) -> None:
    """What nobody has listed is nothing to stop unasked, and nothing to keep quiet about."""
    others = unlisted(app, processes)
    if others:
        raise RollbackError(
            f"{app.name} is stopped, but PM2 runs {', '.join(others)} from its release, too, which may take payments or write. "
            f"Stop it with 'pm2 stop {' '.join(others)}', and list it under singletons, so that the next stop includes it."
        )


def _remember(app: App, singletons: list[str]) -> RollbackError | OSError | None:
    """Write down what ``started`` starts again; why that was not possible. A full disk or a damaged file keeps nothing running."""
    try:
        known = app.releases.state().get("singletons", [])
        app.releases.remember(stopped={"since": now(), "run": app.run.run_id}, singletons=sorted({*known, *singletons}) or None)
    except (RollbackError, OSError) as exc:
        return exc
    return None


def _note(app: App, own: t.Sequence[Proc], processes: t.Sequence[Proc]) -> int:
    """Remember for ``started`` how and where the application ran; its port. 0: not known, and no reason not to stop it."""
    try:
        definition = app.live_definition(processes)
        if app.releases.live_tree():
            app.remember(app.releases.live_tree(), definition)
        port = app.port(app.customised(definition))
        known_hosts(app, own, port)
    except (RollbackError, OSError):
        return 0
    return port


def _prove(app: App) -> None:
    deadline = time.monotonic() + app.settings.wait_seconds
    while True:
        left: list[Proc] = [
            process
            for process in app.pm2.processes()
            if process.alive and (process.name in app.settings.singletons or process in app.ours([process]))
        ]
        if not left:
            return
        if time.monotonic() >= deadline:
            raise RollbackError(f"{left[0].name} (pid {left[0].pid}) is {left[0].status}, expected stopped. Try: pm2 stop {left[0].name}")
        time.sleep(0.1)
        again = {process.name for process in left if process.status != "stopping"}  # its time came while it was being stopped
        for name in sorted(again):
            app.pm2.act("stop", name)
        disarm(app.pm2, again)
