# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Hold: nobody is refused, nobody is served. A responder answers 503 with Retry-After, and no worker of the release is left."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.drain import listeners, listening_hosts
from ansible_collections.payops.rollback.plugins.module_utils._pm2.dump import save
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition
from ansible_collections.payops.rollback.plugins.module_utils._pm2.singletons import left_workers, stop_singletons, to_stop
from ansible_collections.payops.rollback.plugins.module_utils._pm2.switch import look
from ansible_collections.payops.rollback.plugins.module_utils._probed import answers_hold

CALM = 0.3  # seconds after the last worker in which PM2 must not have started a forgotten one again


def known_hosts(app: App, own: t.Sequence[Proc], port: int) -> list[str]:
    """Where the application listens; while it does not run, where it listened when it was last seen."""
    hosts = listening_hosts(port, app.pm2.proc)
    if any(process.alive for process in own) and hosts and app.releases.state().get("listening") != hosts:
        app.releases.remember(listening=hosts)
    return hosts or [str(host) for host in app.releases.state().get("listening") or []]


def hold_port(app: App, definition: Definition, port: int) -> list[str]:
    """Make sure that the responder is in PM2's list and online; the addresses it uses."""
    scene = look(app)
    hosts = known_hosts(app, scene.own, port)
    if scene.held:
        return hosts
    if scene.hold:
        app.remove(scene.hold, port, 0)
    script = app.responder()
    app.pm2.start(
        {
            "name": app.hold_name,
            "script": script,
            "cwd": os.path.dirname(script),
            "exec_mode": definition["exec_mode"],
            "instances": 1,
            "autorestart": True,
            "max_restarts": 1000,
            "vizion": False,
            "pmx": False,
            "kill_timeout": 1500,
            "env": {
                "PORT": str(port),
                "PAYOPS_HOLD_HOSTS": ",".join(hosts),
                "PAYOPS_HOLD_RETRY_AFTER": str(app.settings.retry_after),
                "PAYOPS_HOLD_RUN": app.run.run_id or "held",
            },
        }
    )
    _await(app, lambda: any(process.status == "online" for process in app.pm2.named(app.hold_name)), "The responder does not start")
    if definition["exec_mode"] == "cluster":
        try:
            _await(app, lambda: answers_hold(port, hosts), f"The responder does not answer on port {port}")
        except RollbackError as exc:
            daemon = app.pm2.daemon()
            others = listeners(port, {daemon.pid} if daemon else ())
            if not others:
                raise
            raise RollbackError(
                f"Port {port} belongs to {', '.join(others)}; expected {app.name} or nobody there. Stop it, then run the same command again."
            ) from exc
    return hosts


def _await(app: App, true: t.Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + app.settings.wait_seconds
    while not true():
        if time.monotonic() >= deadline:
            raise RollbackError(f"{otherwise} after {app.settings.wait_seconds:.0f} s. Look at: pm2 logs {app.hold_name}")
        time.sleep(0.05)


def held(app: App, port: int, processes: t.Sequence[Proc]) -> bool:
    """Whether nothing of the application runs but the responder, and it is written down."""
    ours = app.ours(processes)
    return (
        bool(app.releases.state().get("hold"))
        and [process.name for process in ours if process.alive] == [app.hold_name]
        and len(ours) == 1
        and not to_stop(app, processes)
        and answers_hold(port, listening_hosts(port))
    )


def hold(app: App, definition: Definition) -> None:
    """Responder first, then the application goes; nothing is refused between in cluster mode."""
    port = app.port(definition)
    since = time.time()
    with app.run.step("hold", port=port) as learnt:
        app.remember(app.releases.live_tree(), definition)
        known = app.releases.state().get("hold")
        record = {"since": now(), "deadline": since + app.settings.hold_seconds, "run": app.run.run_id, "port": port}
        app.releases.remember(hold=known or record)
        learnt["hosts"] = hold_port(app, definition, port)
    scene = look(app)
    stop_singletons(app, scene.all)
    leaving = [*scene.own, *scene.green]
    with app.run.step("leave", ids=[str(process.pm_id) for process in leaving]) as learnt:
        learnt["drained"] = app.remove(leaving, port)
    left_at = time.monotonic()
    with app.run.step("save"):
        save(app.pm2, app.name)
    with app.run.step("prove") as learnt:
        app.end_strays(calm=max(0.0, CALM - (time.monotonic() - left_at)))
        _await(app, lambda: answers_hold(port, listening_hosts(port)), f"The responder does not answer on port {port}")
        left = left_workers(app, app.releases.live_tree(), app.pm2.processes())
        if left:
            raise RollbackError(
                f"{app.name} is held, but {', '.join(left)} still runs the same release and may write. "
                "List it under singletons (or stop it), then run the same again. To end the hold: state=started."
            )
        learnt["workers_left"] = 0
    app.actions.append(f"{app.name} answers 503 on port {port}; state=started ends it")
