# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``pm2_rollback``: each reads what is true, and does what is missing."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, read_json, sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition, public
from ansible_collections.payops.rollback.plugins.module_utils._pm2.hold import held, hold, hold_port, known_hosts
from ansible_collections.payops.rollback.plugins.module_utils._pm2.preflight import preflight
from ansible_collections.payops.rollback.plugins.module_utils._pm2.singletons import check_singletons, check_unlisted
from ansible_collections.payops.rollback.plugins.module_utils._pm2.stop import stopped
from ansible_collections.payops.rollback.plugins.module_utils._pm2.switch import look, plan, runs, settle, settled, switch, tidy
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import to_adopt
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record, Target
from ansible_collections.payops.rollback.plugins.module_utils._release.forget import complete, removable

STATES = ("archived", "staged", "held", "live", "previous", "started", "stopped", "complete")
STEPS = (
    "archive",
    "prepare_layout",
    "adopt",
    "stage",
    "preflight",
    "hold",
    "singletons_stop",
    "green",
    "leave",
    "prove",
    "flip",
    "start",
    "serve",
    "verdict",
    "singletons_start",
    "save",
    "stop",
    "complete",
)
PROCESS = "process.json"
Result = t.Dict[str, t.Any]


class Backend:
    def __init__(self, app: App, check: bool) -> None:
        self.app = app
        self.releases = app.releases
        self.check = check

    def reach(self, state: str, version: str | None, undo_run: t.Sequence[str] | None = None) -> Result:
        self.app.pm2.require()
        if not self.check:
            self.app.pm2.sweep()
        stopping = state == "stopped"
        before = self.picture(files=self.check or not stopping, needed=not stopping)
        if state in ("archived", "staged", "live"):
            if version is None:
                raise RollbackError(f"state={state} needs version: the name of a rollback point, for example '20231201_120000'.")
            result: Result = getattr(self, state)(version)
        elif state == "previous":
            result = self.previous(undo_run)
        else:
            result = getattr(self, state)()
        acted = self.app.actions
        result.setdefault("actions", acted)
        after = before if self.check else self.picture(needed=not stopping)
        if stopping:
            before["live"] = after["live"]
        result.update(
            after, steps=self.app.run.steps, diff={"before": _shown(before), "after": _shown({**after, **result.pop("will", {})})}
        )
        result.setdefault("msg", "; ".join(result["actions"]) or f"{self.app.name}: nothing to do")
        return result

    def picture(self, files: bool = True, needed: bool = True) -> Result:
        """What is true now, without any secret. ``files``: look at the release, too; unless ``needed`` only where that can be done.

        An emergency stop neither waits for the files nor fails because of them: it looks at them when nothing runs any more.
        """
        processes = self.app.pm2.processes()
        state: Result = {}
        live: Record = {"version": None, "release": None}
        try:
            state = self.releases.state()
            if files:
                live = self.releases.live_record()
        except (RollbackError, OSError):
            if needed:
                raise
        return {
            "app": self.app.name,
            "layout": self.releases.layout.kind,
            "live": {key: live[key] for key in ("version", "release")},
            "kept": state.get("kept"),
            "staged": {key: state["staged"].get(key) for key in ("version", "release", "at")} if state.get("staged") else None,
            "hold": state.get("hold"),
            "unfinished": state.get("switch"),
            "processes": [
                {"name": process.name, "id": str(process.pm_id), "instance": process.instance, "status": process.status, "pid": process.pid}
                for process in self.app.ours(processes)
            ],
        }

    # -- points ------------------------------------------------------------------------------------------------------

    def archived(self, version: str) -> Result:
        app = self.app
        definition = app.live_definition(app.pm2.processes())
        facts = {"app": app.name, "process": public(definition)}
        if self.check:
            there = os.path.isdir(self.releases.paths.component(version, self.releases.component))
            return {"changed": not there, "actions": [] if there else [f"archive the live release of {app.name} as {version}"]}
        done = self.releases.archive(app.run, version, facts, {PROCESS: json.dumps(definition, sort_keys=True).encode("utf-8")})
        known_hosts(app, look(app).own, app.port(app.customised(definition)))
        if done["changed"]:
            app.actions.append(f"archived release {done['release'][:12]} of {app.name} as {version}")
        return {"changed": done["changed"], "release": done["release"], "size": done["size"], "version": version}

    def wanted_definition(self, target: Target, live: Definition) -> Definition:
        """How the target is to be run: as it ran when the point was taken, or with today's environment."""
        if target.facts.get("legacy"):
            return self.app.customised(live)
        path = os.path.join(self.releases.paths.component(target.version, self.releases.component), PROCESS)
        found: Definition = read_json(path)
        if not isinstance(found, dict) or "env" not in found:
            raise RollbackError(f"{path} does not say how {self.app.name} was run. The point is damaged; choose another one.")
        if self.app.settings.env_from == "live":
            found = {**found, "env": live["env"]}
        # How many instances serve is today's business, not the point's.
        return self.app.customised({**found, "instances": live["instances"]})

    # -- staged ------------------------------------------------------------------------------------------------------

    def staged(self, version: str) -> Result:
        app = self.app
        processes = app.pm2.processes()
        check_singletons(app, processes)
        live = app.live_definition(processes)
        target = self.releases.target(version)
        at_version, drift = self.releases.at_version(target)
        told: Result = {"version": version, "release": target.release, "at_version": at_version, "drift": drift}
        if at_version:
            scene = look(app)
            serves = runs(app, scene, self.releases.live_tree(), app.customised(live)) and not (scene.green or scene.hold)
            if serves and not self.releases.state().get("switch"):
                return {**told, "changed": False, "msg": f"{app.name} is at {version} already; nothing to stage"}
            # The files are there, but whoever put them there did not come to the end: there is still something to do.
            steps = plan(app, scene, {**self.releases.live_record(), "version": version}, app.customised(live))
            said = f"the files of {app.name} are at {version} already, but it does not run from there yet"
            return {**told, "at_version": False, "changed": False, "msg": said, "plan": steps}
        check_unlisted(app, processes)
        definition = self.wanted_definition(target, live)
        app.port(definition)
        ready = self.releases.staged(target)
        tried = self.releases.state().get("preflight") or {}
        mark = sha256_bytes(canonical_json(definition))
        boots = ready is not None and tried.get("tree") == ready["tree"] and tried.get("mark") == mark
        told["boot_seconds"] = tried.get("seconds") if boots else None
        if self.check:
            missing = [] if ready else [f"stage {version} in {self.releases.layout.workshop}"]
            missing += [
                f"move the persistent path {name} to {self.releases.layout.shared}"
                for name in to_adopt(self.releases.layout, self.releases.persistent)
            ]
            if app.settings.preflight and not boots:
                missing.append(f"boot {version} on a spare port")
            return {
                **told,
                "changed": bool(missing),
                "actions": missing,
                "plan": plan(app, look(app), ready or _foreign(target), definition),
            }
        app.remember(self.releases.live_tree(), live)
        record = self.releases.stage(app.run, target)
        app.remember(record["tree"], definition)
        changed = bool(record["changed"])
        if changed:
            app.actions.append(f"staged {version} as {record['path']}")
        told["release"] = record["release"]
        if app.settings.preflight and not (tried.get("tree") == record["tree"] and tried.get("mark") == mark):
            told["preflight"] = preflight(app, record, record["path"], definition, live)
            told["boot_seconds"] = told["preflight"]["seconds"]
            self.releases.remember(preflight={"tree": record["tree"], "mark": mark, "seconds": told["boot_seconds"]})
            changed = True
        return {**told, "changed": changed, "path": record["path"], "plan": plan(app, look(app), record, definition)}

    # -- held --------------------------------------------------------------------------------------------------------

    def held(self) -> Result:
        app = self.app
        processes = app.pm2.processes()
        check_singletons(app, processes)
        definition = app.customised(app.live_definition(processes))
        port = app.port(definition)
        if held(app, port, processes):
            return {"changed": False, "msg": f"{app.name} is held already; state=started ends it"}
        if self.check:
            return {"changed": True, "actions": [f"answer 503 on port {port}, let {app.name} finish its requests and take it down"]}
        try:
            hold(app, definition)
        except RollbackError as exc:
            raise RollbackError(str(exc), **{"changed": True, "hold": self.releases.state().get("hold"), **exc.details}) from exc
        return {"changed": True}

    # -- live and previous -------------------------------------------------------------------------------------------

    def live(self, version: str) -> Result:
        app = self.app
        processes = app.pm2.processes()
        check_singletons(app, processes)
        live = app.live_definition(processes)
        self._same_switch(version)
        target = self.releases.target(version, hashes=False)
        at_version, drift = self.releases.at_version(target)
        told: Result = {"version": version, "release": target.release, "drift": drift, "at_version": at_version}
        if at_version:
            record: Record = {**self.releases.live_record(), "version": version}
            if self.releases.state().get("switch"):
                definition = app.definition_for(record["tree"], self.wanted_definition(target, live))
            else:
                definition = app.customised(live)
        elif self.check:
            record, definition = self.releases.staged(target) or _foreign(target), self.wanted_definition(target, live)
        else:
            if not self.releases.staged(target):
                told["staged_now"] = self.staged(version)["changed"]
            found = self.releases.staged(self.releases.target(version, hashes=False))
            if found is None:
                raise RollbackError(f"Release {version} was staged, but its tree is not there. Look at {self.releases.layout.workshop}.")
            record = found
            definition = app.definition_for(record["tree"], self.wanted_definition(target, live))
        return {**told, **self._go(record, definition), "release": record["release"]}

    def _same_switch(self, version: str) -> None:
        unfinished = self.releases.state().get("switch")
        if unfinished and version not in (unfinished["to"].get("version"), unfinished["from"].get("version")):
            raise RollbackError(
                f"A switch of {self.app.name} to {unfinished['to'].get('version')} is unfinished. Finish it with state=live and "
                f"version={unfinished['to'].get('version')}, or go back with state=previous; then choose {version}.",
                unfinished=unfinished,
            )

    def _go(self, record: Record, definition: Definition, undone: bool = False) -> Result:
        app = self.app
        scene = look(app)
        if settled(app, scene, record["tree"], definition):
            return {"changed": False, "plan": []}
        steps = plan(app, scene, record, definition)
        if self.check:
            return {
                "changed": True,
                "plan": steps,
                "actions": steps,
                "will": {"live": {key: record.get(key) for key in ("version", "release")}},
            }
        if record["tree"] == self.releases.live_tree() and not self.releases.state().get("switch"):
            self._start(record, definition, not undone)
        else:
            switch(app, record, definition, undone)
        return {"changed": True, "plan": steps}

    def previous(self, undo_run: t.Sequence[str] | None = None) -> Result:
        app = self.app
        processes = app.pm2.processes()
        live = app.live_definition(processes)
        state = self.releases.state()
        mine = {run for run in (*(undo_run or ()), app.run.run_id) if run}
        if mine and not state.get("undone") and (state.get("switch") or state.get("live") or {}).get("run") not in mine:
            # The run that is taken back made no switch here (it failed before): an older one must not be undone instead.
            if state.get("hold") or look(app).hold:
                return self.started(judge=False)
            return {"changed": False, "msg": f"{app.name}: nothing to undo"}
        if state.get("undone") and not state.get("switch"):
            record: Record = self.releases.live_record()
            done = self._go(record, self._today(record, live), undone=True)
            name = record["version"] or str(record["release"])[:12]
            return {**done, **({} if done["changed"] else {"msg": f"{app.name} is back at {name} already"})}
        record = self.releases.back(app.run.run_id)
        return self._go(record, app.definition_for(record["tree"], live), undone=True)

    # -- started, stopped, complete ----------------------------------------------------------------------------------

    def started(self, judge: bool = True) -> Result:
        app = self.app
        processes = app.pm2.processes()
        record: Record = self.releases.live_record()
        definition = self._today(record, app.live_definition(processes))
        if settled(app, look(app), record["tree"], definition):
            return {"changed": False}
        steps = plan(app, look(app), record, definition)
        if self.check:
            return {"changed": True, "plan": steps, "actions": steps}
        unfinished = self.releases.state().get("switch")
        if unfinished and unfinished["to"]["tree"] != record["tree"]:
            self.releases.remember(switch=None)
        self._start(record, definition, judge)
        return {"changed": True, "plan": steps}

    def _today(self, record: Record, live: Definition) -> Definition:
        """How the live release is run: as it was when something of ours stopped it or began to switch, otherwise as PM2 runs it now."""
        state = self.releases.state()
        begun = any(state.get(key) for key in ("switch", "hold", "stopped", "singletons"))
        return self.app.definition_for(record["tree"], live) if begun else self.app.customised(live)

    def _start(self, record: Record, definition: Definition, judge: bool = True) -> None:
        """Run what is on the disk. A hold that cannot end stays a hold."""
        app = self.app
        was_held = look(app).held
        app.remember(record["tree"], definition)
        try:
            settle(app, record, definition, judge)
        except RollbackError as exc:
            if was_held:
                port = app.port(definition)
                hold_port(app, definition, port)
                app.remove(look(app).own, port, 1)
                raise RollbackError(f"{exc} {app.name} stays on hold.", **exc.details) from exc
            raise
        tidy(app, bool(self.releases.state().get("undone")))

    def stopped(self) -> Result:
        return stopped(self.app, self.check)

    def complete(self) -> Result:
        state = self.releases.state()
        if self.check:
            paths = removable(self.releases)
            return {"changed": bool(paths or state.get("kept")), "actions": [f"remove {path}" for path in paths]}
        if not state.get("switch") and not self._quiet():
            raise RollbackError(
                f"{self.app.name} is in the middle of something. Finish with state=live, started or previous before complete."
            )
        had = bool(state.get("kept") or state.get("staged"))
        paths = complete(self.releases, self.app.run)
        if paths or had:
            self.releases.remember(preflight=None)
            self.app.actions.append(f"removed {', '.join(paths)}" if paths else "forgot the previous release")
        return {"changed": bool(paths) or had, "removed": paths}

    def _quiet(self) -> bool:
        scene = look(self.app)
        definition = self.app.live_definition(scene.all)
        return (
            runs(self.app, scene, self.releases.live_tree(), {**definition, "instances": len(scene.own)})
            and not scene.green
            and not scene.hold
        )


def _foreign(target: Target) -> Record:
    """A record of a release that is not staged yet, for plans."""
    return {"version": target.version, "release": target.release, "tree": -1, "app_version": target.facts.get("app_version")}


def _shown(picture: Result) -> str:
    shown = {key: picture.get(key) for key in ("live", "kept", "staged", "hold", "processes")}
    if shown["kept"]:
        shown["kept"] = {key: shown["kept"].get(key) for key in ("version", "release", "path")}
    shown["processes"] = sorted({f"{process['name']} {process['status']}" for process in shown["processes"] or []})
    return json.dumps(shown, indent=2, sort_keys=True) + "\n"
