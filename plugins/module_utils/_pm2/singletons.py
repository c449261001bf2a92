# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Workers and cron jobs of the release that are not the application: none of them may go on running the release that was left."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.cron import arm, armed, disarm, disarmed
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import relative
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import processes_inside

LEAVING = 5.0  # seconds that the children of what was stopped have to end as well


def check_singletons(app: App, processes: t.Sequence[Proc]) -> None:
    """Refuse those that PM2 would start again from the release that is left, because it holds that release's own path."""
    layout = app.releases.layout
    for process in processes:
        if process.name not in app.settings.singletons or not (process.alive or armed(process)):
            continue
        for path in (process.cwd, process.script):
            if relative(path, layout.home) is None and any(relative(path, folder) is not None for folder in _releases(app)):
                raise RollbackError(
                    f"PM2 runs the singleton {process.name} from {path}, not from {layout.home}: it would go on running that release after "
                    f"a switch. Once, and with the release that runs now: set an absolute cwd: {layout.home} in the ecosystem file, then "
                    f"'pm2 delete {process.name}', 'pm2 start <ecosystem file> --only {process.name}' and 'pm2 save'.",
                    reason="resolved_path",
                )


def unlisted(app: App, processes: t.Sequence[Proc]) -> list[str]:
    """What else PM2 runs from the release, and nobody has named as a singleton."""
    tree = app.releases.live_tree()
    inside = processes_inside(tree, app.pm2.proc) if tree else []
    ours = {*app.settings.singletons, *(process.name for process in app.ours(processes))}
    return sorted({process.name for process in processes if process.pid in inside or _belongs(app, process)} - ours)


def check_unlisted(app: App, processes: t.Sequence[Proc]) -> None:
    """Refuse a switch while nothing is touched if PM2 runs anything else from the release that is left; ``prove_left`` would fail after it."""
    names = unlisted(app, processes)
    if names:
        raise RollbackError(
            f"PM2 runs {', '.join(names)} from the release of {app.name}, too, and after a switch it would still run what was left. "
            "Nothing was touched. List it under singletons, or stop it."
        )


def _belongs(app: App, process: Proc) -> bool:
    """Whether it runs, or will at its time, a program of the release, wherever it was started from."""
    folders = (app.releases.layout.home, app.releases.layout.live())
    return (process.alive or armed(process)) and any(
        relative(path, folder) is not None for path in (process.cwd, process.script) for folder in folders
    )


def _releases(app: App) -> list[str]:
    """Where only releases of the application lie: the live one, and their folder unless it may hold other applications, too."""
    layout = app.releases.layout
    apart = layout.workshop != os.path.dirname(layout.home) and relative(layout.workshop, os.path.dirname(layout.home)) is not None
    return [layout.live(), *([layout.workshop] if apart else [])]


def to_stop(app: App, processes: t.Sequence[Proc]) -> list[Proc]:
    """The listed singletons that run, or that PM2 would start at their time."""
    return [process for process in processes if process.name in app.settings.singletons and (process.alive or armed(process))]


def stop_singletons(app: App, processes: t.Sequence[Proc]) -> list[str]:
    """Stop the listed singletons, and remember which of them ran, so that only those start again."""
    stopping = to_stop(app, processes)
    if not stopping:
        return []
    names = sorted({process.name for process in stopping})
    alive = {process.name for process in stopping if process.alive}
    with app.run.step("singletons_stop", names=names):
        known = app.releases.state().get("singletons", [])
        app.releases.remember(singletons=sorted({*known, *alive}) or None)
        for name in sorted(alive):
            app.pm2.act("stop", name)
        disarm(app.pm2, names)
        app.await_gone([process.pid for process in stopping if process.pid])
    app.actions.append(f"stopped {', '.join(names)}")
    return names


def start_singletons(app: App) -> list[str]:
    """Start the singletons that were stopped here, now from the release that is live."""
    names = [str(name) for name in app.releases.state().get("singletons", [])]
    waiting = {process.name for process in app.pm2.named(*app.settings.singletons, *names) if disarmed(process)}
    if not names and not waiting:
        return []
    with app.run.step("singletons_start", names=names):
        arm(app.pm2, waiting, names)
        for name in names:
            if name not in waiting:
                app.pm2.act("restart", name)
        deadline = time.monotonic() + app.settings.wait_seconds
        while True:
            found = app.pm2.named(*names)
            wrong = [(process, problem) for process in found for problem in [_problem(app, process)] if problem]
            if {process.name for process in found} == set(names) and not wrong:
                break
            if time.monotonic() >= deadline or any(process.status == "errored" for process in found):
                what = ", ".join(f"{process.name} {problem}" for process, problem in wrong) or "one is missing from PM2's list"
                raise RollbackError(f"The singletons do not run again: {what}. Look at: pm2 logs {' '.join(names)}")
            time.sleep(0.2)
        app.releases.remember(singletons=None)
    if names:
        app.actions.append(f"started {', '.join(names)}")
    return names


def _problem(app: App, process: Proc) -> str | None:
    """What a started singleton lacks. Where it runs is read from /proc: PM2 only knows what it was told."""
    if process.status != "online":
        return f"is {process.status}"
    try:
        path = os.readlink(os.path.join(app.pm2.proc, str(process.pid), "cwd"))
    except OSError:
        return f"(pid {process.pid}) is gone"
    live, *workshop = _releases(app)
    if relative(path, live) is None and any(relative(path, folder) is not None for folder in workshop):
        return f"(pid {process.pid}) runs in {path}, which is not the live release"
    return None


def left_workers(app: App, tree: int, processes: t.Sequence[Proc]) -> list[str]:
    """Processes that still run the release in ``tree``: PM2's own, and node processes beside PM2.

    A shell in the folder does not count, nor does somebody who reads ``pm2 logs`` there.
    """
    named = {process.pid: process.name for process in processes if process.pid}
    daemon = app.pm2.daemon()  # its own working directory is where somebody once typed pm2 start
    found = []
    for pid in processes_inside(tree, app.pm2.proc):
        if daemon is not None and pid == daemon.pid:
            continue
        try:
            program = os.path.basename(os.readlink(os.path.join(app.pm2.proc, str(pid), "exe")))
            with open(os.path.join(app.pm2.proc, str(pid), "cmdline"), "rb") as handle:
                script = handle.read().split(b"\0")[1:2]
        except OSError:
            continue
        if pid in named or (program.startswith("node") and [os.path.basename(name) for name in script] != [b"pm2"]):
            found.append(f"{named.get(pid, program)} (pid {pid})")
    return found


def prove_left(app: App) -> None:
    """Nothing runs the release any more that the switch under way leaves. The switch is not finished before: the same call goes on."""
    left = ((app.releases.state().get("switch") or {}).get("from") or {}).get("tree")
    if not left or left == app.releases.live_tree():
        return
    deadline = time.monotonic() + min(LEAVING, app.settings.wait_seconds)
    while True:
        found = left_workers(app, left, app.pm2.processes())
        if not found:
            return
        if time.monotonic() >= deadline:
            raise RollbackError(
                f"{app.name} is switched, but {', '.join(found)} still runs the release that was left and may write. "
                "List it under singletons (or stop it), then run the same again. To go back: state=previous."
            )
        time.sleep(0.1)
