# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""One application under PM2: its names, its definitions, and the two movements that everything is made of: start and remove."""

from __future__ import annotations

import os
import signal
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name, make_dir, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2, Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.drain import drain
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition, definition_of
from ansible_collections.payops.rollback.plugins.module_utils._pm2.scripts import install
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record, Releases
from ansible_collections.payops.rollback.plugins.module_utils._run import Run


class Settings(t.NamedTuple):
    """The options of the module that say how, not what."""

    app: str
    port: int | None = None
    port_variable: str = "PORT"
    instances: int | None = None
    exec_mode: str | None = None
    script: str | None = None
    env_from: str = "point"
    env: dict[str, str] = {}
    probes: tuple[dict[str, t.Any], ...] = ()
    version_path: str | None = None
    successes: int = 3
    interval: float = 0.2
    singletons: tuple[str, ...] = ()
    preflight: bool = True
    preflight_env: dict[str, str] = {}
    hold_seconds: int = 900
    retry_after: int = 30
    stable_seconds: float = 2.0
    wait_seconds: float = 30.0
    drain_seconds: float = 10.0


class App:
    def __init__(self, pm2: Pm2, releases: Releases, settings: Settings, run: Run) -> None:
        self.pm2 = pm2
        self.releases = releases
        self.settings = settings
        self.run = run
        self.name = settings.app
        self.hold_name = f"{settings.app}@hold"
        self.preflight_name = f"{settings.app}@preflight"
        self.actions: list[str] = []

    # -- names and paths ---------------------------------------------------------------------------------------------

    @property
    def scratch(self) -> str:
        return self.releases.paths.run

    def green_name(self, record: Record) -> str:
        return f"{self.name}@{record.get('version') or str(record.get('release'))[:12]}"

    def ours(self, processes: t.Sequence[Proc]) -> list[Proc]:
        """The application under its own name and under every helper name of ours."""
        return [process for process in processes if process.name == self.name or process.name.startswith(f"{self.name}@")]

    def responder(self) -> str:
        make_dir(self.scratch, self.releases.paths.group)
        return install(self.scratch)

    # -- definitions: how each tree is run; secrets, so 0600 ---------------------------------------------------------

    @property
    def _definitions_file(self) -> str:
        return os.path.join(self.scratch, "pm2.definitions.json")

    def remembered(self, tree: int) -> Definition | None:
        found = (read_json(self._definitions_file, {}) or {}).get(str(tree))
        return found if isinstance(found, dict) and found.get("name") == self.name else None

    def remember(self, tree: int, definition: Definition) -> None:
        known = read_json(self._definitions_file, {}) or {}
        if known.get(str(tree)) != definition:
            trees = self.releases.layout.trees()
            known = {key: value for key, value in known.items() if int(key) in trees}
            write_json(self._definitions_file, {**known, str(tree): definition}, 0o600)

    def running_definition(self, processes: t.Sequence[Proc]) -> Definition | None:
        own = [process for process in processes if process.name == self.name and not str(process.pm_id).startswith("_old_")]
        return definition_of(own, self.releases.layout) if own else None

    def live_definition(self, processes: t.Sequence[Proc]) -> Definition:
        """How the live release is run: as PM2 holds it, or as remembered while it is held or stopped."""
        found = self.running_definition(processes) or self.remembered(self.releases.live_tree())
        if found is None:
            names = sorted({process.name for process in processes})
            raise RollbackError(
                f"PM2 ({self.pm2.home}) has no application called {self.name}; it has {', '.join(names) or 'none'}. "
                f"Set app (rollback_pm2_app) to the right name, or start it once: pm2 start <ecosystem file> --only {self.name}"
            )
        return found

    def definition_for(self, tree: int, fallback: Definition) -> Definition:
        """The definition of a tree, with the options of this call on top."""
        found = self.remembered(tree) or fallback
        return self.customised(found)

    def customised(self, definition: Definition) -> Definition:
        done = {**definition, "name": self.name, "env": {**definition["env"], **self.settings.env}}
        for key in ("instances", "exec_mode", "script"):
            value = getattr(self.settings, key)
            if value is not None:
                done[key] = value
        return done

    def port(self, definition: Definition) -> int:
        value = self.settings.port if self.settings.port is not None else definition["env"].get(self.settings.port_variable)
        try:
            port = int(str(value))
        except ValueError:
            port = 0
        if not 0 < port < 65536:
            raise RollbackError(
                f"The port of {self.name} is not known: its environment in PM2 has no usable {self.settings.port_variable} (found {value!r}). "
                "Set port (rollback_pm2_port)."
            )
        return port

    # -- movements ---------------------------------------------------------------------------------------------------

    def remove(self, processes: t.Sequence[Proc], port: int, seconds: float | None = None) -> list[dict[str, t.Any]]:
        """Take processes out of PM2: cluster workers finish their requests first. Ends when their pids are gone."""
        if not processes:
            return []
        wait = self.settings.drain_seconds if seconds is None else seconds
        ids = {(str(process.pm_id), process.name) for process in processes}
        told = drain(self.pm2, processes, port, wait)
        left = [process for process in self.pm2.processes() if (str(process.pm_id), process.name) in ids]
        if left:
            raise RollbackError(
                f"PM2 does not delete {left[0].name} (id {left[0].pm_id}, {left[0].status}). Try: pm2 delete {left[0].pm_id}"
            )
        self.await_gone([process.pid for process in processes if process.pid])
        self.end_strays()
        return told

    def end_strays(self, calm: float = 0.0) -> list[int]:
        """End what PM2 started of ours and forgot; look again until for ``calm`` seconds nothing has come."""
        ended: list[int] = []
        until = time.monotonic() + calm
        while True:
            left = self.pm2.strays(lambda name: name == self.name or name.startswith(f"{self.name}@"))
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if left:
                self.await_gone(left)
                self.actions.append(f"ended process {', '.join(str(pid) for pid in left)}, which PM2 had started again and forgotten")
                ended += left
                until = time.monotonic() + calm
            elif time.monotonic() >= until:
                return ended
            time.sleep(0.05)

    def await_gone(self, pids: t.Sequence[int], wait: float = 10.0) -> None:
        deadline = time.monotonic() + wait
        for pid in pids:
            while os.path.exists(os.path.join(self.pm2.proc, str(pid))):
                if time.monotonic() >= deadline:
                    raise RollbackError(f"Process {pid} is still there {wait:.0f} s after PM2 deleted it. Look at it: ps -fp {pid}")
                time.sleep(0.02)


def check_settings(settings: Settings) -> Settings:
    check_name("The application's name", settings.app)
    if settings.app in settings.singletons:
        raise RollbackError(
            f"{settings.app} is listed as its own singleton. List only the other PM2 applications (workers, cron jobs) there."
        )
    return settings
