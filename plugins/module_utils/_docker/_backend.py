# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``compose_rollback``: each looks at what is true, and does what is missing."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker import _beside, _hold, _point, _way
from ansible_collections.payops.rollback.plugins.module_utils._docker._kept import droppable, secure
from ansible_collections.payops.rollback.plugins.module_utils._docker._picture import Result, picture, text
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import short
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import STEPS as RETAG_STEPS
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack, named, plain, shown, side_of
from ansible_collections.payops.rollback.plugins.module_utils._docker._switch import left_out, plan, settle, switch, tidy
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now

STATES = ("archived", "staged", "beside", "held", "live", "previous", "alone", "started", "stopped", "complete")
OWN_STEPS = (
    "archive",
    "load",
    "pull",
    "stage",
    "beside",
    "alone",
    "hold",
    "leave",
    "prove",
    "secure",
    "files",
    "recreate",
    "serve",
    "verdict",
    "save",
    "stop",
    "complete",
)
STEPS = (*OWN_STEPS, *RETAG_STEPS)


class Backend:
    def __init__(self, stack: Stack, check: bool) -> None:
        self.stack = stack
        self.check = check

    def reach(self, state: str, version: str | None, undo_run: t.Sequence[str] | None = None) -> Result:
        look = self.stack.look
        if state == "stopped":
            look = self.stack.look_to_stop
        else:
            self.stack.compose.require()
        before = picture(self.stack, look())
        if state in ("archived", "staged", "live"):
            if version is None:
                raise RollbackError(f"state={state} needs version: the name of a rollback point, for example '20231201_120000'.")
            result: Result = getattr(self, state)(version)
        elif state == "beside":
            result = self.beside(version, undo_run)
        elif state == "previous":
            result = self.previous(undo_run)
        else:
            result = getattr(self, state)()
        result.setdefault("actions", self.stack.actions)
        after = before if self.check else picture(self.stack, look())
        will = result.pop("will", {})
        result.update(
            after,
            steps=self.stack.run.steps,
            notes=list(dict.fromkeys(self.stack.notes)),
            diff={"before": text(before), "after": text({**after, **will})},
        )
        result.setdefault("msg", "; ".join(result["actions"]) or f"{self.stack.name}: nothing to do")
        return result

    # -- points and staging --------------------------------------------------------------------------------------------

    def archived(self, version: str) -> Result:
        stack = self.stack
        scene = stack.look()
        if os.path.isdir(stack.paths.component(version, COMPONENT)):
            found = _point.target(stack, version)
            other = "another release is live" if found.record["release"] != stack.live_record(scene, strict=True)["release"] else ""
            if not other and not stack.has_config(found.record, scene):
                other = "other compose or environment files are live"
            if other:
                raise RollbackError(
                    f"Point {version} already holds release {found.record['release'][:12]}, but {other}. "
                    "A point is never overwritten; take the backup under another version."
                )
            return {"changed": False, "release": found.record["release"], "size": None, "version": version}
        if self.check:
            return {"changed": True, "actions": [f"archive the images and files of {scene.project} as {version}"], "version": version}
        if not scene.spec:
            raise RollbackError(f"No point was taken: {stack.notes[0]}")
        stack.remember_seen(scene)
        done = _point.archive(stack, version, scene)
        stack.actions.append(f"archived release {done['release'][:12]} of {scene.project} as {version}")
        stack.actions += left_out(stack, scene)
        return {**done, "version": version}

    def staged(self, version: str) -> Result:
        stack = self.stack
        scene = stack.look()
        found = _point.target(stack, version)
        record = found.record
        told: Result = {"version": version, "release": record["release"], "at_version": stack.is_at(record, scene)}
        if told["at_version"]:
            if stack.runs(record, scene) and not any(stack.state().get(name) for name in ("switch", "hold", "beside")):
                return {**told, "changed": False, "msg": f"{scene.project} is at {version} already; nothing to stage"}
            said = f"images and files of {scene.project} are at {version} already, but it does not run from there yet"
            return {**told, "at_version": False, "changed": False, "msg": said, "plan": plan(stack, scene, record)}
        missing = _point.missing_images(stack, record)
        ready = side_of(stack.state().get("staged") or {}) == side_of(record) and not missing
        if self.check:
            actions = []
            for image in missing:
                how, what = _point.how_to_get(stack, found, image)
                if not how:
                    raise RollbackError(f"Image {short(image)} is gone: {what}. Choose another point, or bring the image here.")
                actions.append(f"{how} image {short(image)}{f' by {what}' if how == 'pull' else ' from the point'}")
            actions += [] if ready else [f"keep the files of {version} and check them"]
            return {**told, "changed": bool(actions), "actions": actions, "plan": plan(stack, scene, record)}
        if not ready:
            stack.actions += _point.fetch(stack, found)
            with stack.run.step("stage", version=version):
                secure(stack, record["images"], record["refs"])
                _point.keep_set(stack, version, found.facts)
                self._readable(record, scene)
                stack.remember(staged={**plain(record), "run": stack.run.run_id, "at": now()}, project=scene.project)
            stack.actions.append(f"staged {version}: every image is here")
        return {**told, "changed": not ready, "plan": plan(stack, scene, record)}

    def _readable(self, record: Record, scene: Scene) -> None:
        """Compose must be able to read the files of the point, and they must mean the same project."""
        stack = self.stack
        if stack.settings.config_from == "live":
            return
        files = stack.files.kept(record["set"])
        spec = stack.compose.config(stack.given_name, *stack.read(files, stack.files.place_of(record["set"])))
        if spec.get("name") != scene.project:
            raise RollbackError(
                f"The compose file of {named(record)} names the project {spec.get('name')}, what runs is {scene.project}. "
                "Set project_name to the one that is meant."
            )

    # -- held, live, previous --------------------------------------------------------------------------------------------

    def held(self) -> Result:
        stack = self.stack
        scene = stack.look()
        if _hold.held(stack, scene):
            return {"changed": False, "msg": f"{scene.project} is held already; state=started ends it"}
        ports = ", ".join(str(port) for unused, port in stack.addresses(scene))
        if self.check:
            return {
                "changed": True,
                "actions": [f"stop the services of {scene.project}{f' and answer 503 on port {ports}' if ports else ''}"],
            }
        try:
            _hold.hold(stack, scene)
        except RollbackError as exc:
            raise RollbackError(str(exc), **{"changed": True, "hold": stack.state().get("hold"), **exc.details}) from exc
        return {"changed": True}

    def live(self, version: str) -> Result:
        found = self._wanted(version)
        told: Result = {"version": version, "release": found["release"], "at_version": self.stack.is_at(found, self.stack.look())}
        if not self.check and not told["at_version"]:
            told["staged_now"] = self.staged(version)["changed"]
        return {**told, **self._go(found)}

    def _wanted(self, version: str) -> Record:
        """What ``version`` stands for; another one than that of an unfinished switch is refused."""
        stack = self.stack
        unfinished = stack.state().get("switch")
        if unfinished and version not in (unfinished["to"].get("version"), unfinished["from"].get("version")):
            raise RollbackError(
                f"A switch of {stack.name} to {named(unfinished['to'])} is unfinished. Finish it with state=live and "
                f"version={unfinished['to'].get('version')}, or go back with state=previous; then choose {version}.",
                unfinished=shown(unfinished),
            )
        return _point.target(stack, version, hashes=False).record

    def _go(self, record: Record, undone: bool = False) -> Result:
        stack = self.stack
        scene = stack.look()
        if stack.runs(record, scene) and not stack.state().get("switch") and not stack.state().get("hold"):
            return {"changed": False, "plan": []}
        steps = plan(stack, scene, record)
        if self.check:
            will = {"live": {key: record.get(key) for key in ("version", "release", "images")}}
            return {"changed": True, "plan": steps, "actions": steps, "will": will}
        if stack.is_at(record, scene) and not stack.state().get("switch"):
            self._start(record, not undone)
        else:
            switch(stack, record, undone)
        return {"changed": True, "plan": steps, **self._outage()}

    def _outage(self) -> Result:
        """What a plain recreate cost, by its own journal; remembered for the next plan."""
        steps = {each["step"]: each for each in self.stack.run.steps}
        began, served = steps.get("recreate", {}).get("started"), steps.get("serve", {}).get("first_answer")
        if not began or not served or "leave" in steps or steps["recreate"].get("beside") or self.stack.state().get("hold"):
            return {}
        took = round((seconds(served) - seconds(began)) * 1000, 1)
        self.stack.remember(outage_ms=took)
        return {"outage_ms": took}

    def previous(self, undo_run: t.Sequence[str] | None = None) -> Result:
        stack = self.stack
        record = self._way_back(undo_run)
        if record is None:
            if stack.state().get("hold") or _hold.responders(stack):
                return self.started(judge=False)
            return {"changed": False, "msg": f"{stack.name}: nothing to undo"}
        done = self._go(record, undone=True)
        return {**done, **({} if done["changed"] else {"msg": f"{stack.name} is back at {named(record)} already"})}

    def _way_back(self, undo_run: t.Sequence[str] | None) -> Record | None:
        """What ``previous`` goes to, also when it is there already; None where there is nothing to take back."""
        stack = self.stack
        state = stack.state()
        mine = {run for run in (*(undo_run or ()), stack.run.run_id) if run}
        if mine and not state.get("undone") and (state.get("switch") or state.get("live") or {}).get("run") not in mine:
            # The run that is taken back made no switch here (it failed before): an older one must not be undone instead.
            return None
        if state.get("undone") and not state.get("switch"):
            live: Record = state["live"]
            return live
        return stack.back()

    # -- beside, alone -----------------------------------------------------------------------------------------------------

    def beside(self, version: str | None, undo_run: t.Sequence[str] | None = None) -> Result:
        """Somebody serves while the services change, where that can be and is needed."""
        stack = self.stack
        record = self._wanted(version) if version is not None else self._way_back(undo_run)
        if version is not None and record is not None and not self.check and not stack.is_at(record, stack.look()):
            self.staged(version)
        scene = stack.look()
        state = stack.state()
        if record is None or (stack.runs(record, scene) and not state.get("switch")):
            return {"changed": False, "needed": False, "msg": f"{scene.project} runs what it shall run; nobody has to serve beside it"}
        way = _way.way_of(stack, scene, record, held=bool(state.get("hold") or _hold.responders(stack)))
        if not way.open:
            against = list(way.against) or ["proxied_ports names no port at which a proxy reaches the services"]
            return {
                "changed": False,
                "needed": False,
                "against": against,
                "msg": f"no second project of {scene.project}: {'; '.join(against)}",
            }
        stack.notes += way.notes
        if _way.serving(stack):
            return {"changed": False, "needed": True, "msg": f"{state['beside']['project']} serves already"}
        if self.check:
            return {"changed": True, "needed": True, "actions": [f"start {', '.join(way.services)} beside as {scene.project}{_way.SUFFIX}"]}
        try:
            _beside.bring_up(stack, scene, record, way)
        except RollbackError as exc:
            raise RollbackError(str(exc), **{"changed": True, "beside": _way.shown(stack.state().get("beside")), **exc.details}) from exc
        return {"changed": True, "needed": True}

    def alone(self) -> Result:
        twin = self.stack.state().get("beside")
        if not twin:
            return {"changed": False, "msg": f"{self.stack.name}: there is no second project"}
        _beside.require_proxies(self.stack)
        if self.check:
            return {"changed": True, "actions": [f"remove {twin['project']}"]}
        _beside.take_away(self.stack)
        return {"changed": True}

    # -- started, stopped, complete --------------------------------------------------------------------------------------

    def started(self, judge: bool = True) -> Result:
        stack = self.stack
        scene = stack.look()
        state = stack.state()
        switching = state.get("switch")
        record = _one_side(switching, stack.live_record(scene))
        if stack.runs(record, scene) and not (switching or state.get("hold") or state.get("policies") or _hold.responders(stack)):
            return {"changed": False}
        steps = plan(stack, scene, record)
        if self.check:
            return {"changed": True, "plan": steps, "actions": steps}
        if switching and side_of(switching["to"]) != side_of(record):
            stack.remember(switch=None)
        self._start(record, judge)
        return {"changed": True, "plan": steps}

    def _start(self, record: Record, judge: bool = True) -> None:
        """Run what is there. A hold that cannot end stays a hold."""
        stack = self.stack
        was_held = bool(_hold.responders(stack))
        stack.files.keep(stack.look().files)
        try:
            settle(stack, record, judge)
        except RollbackError as exc:
            if was_held:
                scene = stack.look()
                addresses = stack.addresses(scene)
                _hold.bring_down(stack, scene.project, stack.settings.drain_seconds)
                _hold.start_responder(stack, addresses)
                raise RollbackError(f"{exc} {stack.name} stays on hold.", **exc.details) from exc
            raise
        tidy(stack, bool(stack.state().get("undone")))

    def stopped(self) -> Result:
        stack = self.stack
        scene = stack.look_to_stop()
        alive = [each for each in _hold.all_of(stack, scene.project) if each.alive]
        if not alive and not _hold.responders(stack):
            return {"changed": False, "msg": f"{scene.project} is stopped already"}
        if self.check:
            return {"changed": True, "actions": [f"stop {each.name}" for each in alive] or ["end the responder"]}
        _hold.stop(stack, scene)
        return {"changed": True}

    def complete(self) -> Result:
        stack = self.stack
        state = stack.state()
        tags = droppable(stack)
        had = bool(state.get("kept") or state.get("staged"))
        if self.check:
            return {"changed": bool(tags) or had, "actions": [f"remove the tag {tag}" for tag in tags]}
        if state.get("switch"):
            raise RollbackError("A switch is unfinished; finish it with state=live, or go back with state=previous, before state=complete.")
        if state.get("beside"):
            raise RollbackError(
                f"{state['beside']['project']} may still serve beside {stack.name}. Send the proxy back to {stack.name}, then state=alone; "
                "the rollback that was interrupted does both when it is run again."
            )
        if state.get("hold"):
            raise RollbackError(f"{stack.name} is held. Finish with state=live, started or previous before complete.")
        if tags or had:
            with stack.run.step("complete", tags=tags):
                for tag in tags:
                    stack.run.fence()
                    stack.containers.untag(tag)
                stack.remember(kept=None, staged=None, undone=None)
                stack.files.forget([str((state.get("live") or {}).get("set"))])
            stack.actions.append(f"removed {', '.join(tags)}" if tags else "forgot the previous release")
        return {"changed": bool(tags) or had, "removed": tags}


def _one_side(switching: Record | None, found: Record) -> Record:
    """Of a switch that is under way its files may be there and its images not: what starts is one release whole, by the images."""
    sides: list[Record] = [switching["to"], switching["from"]] if switching else []
    fitting = [side for side in sides if side["images"] == found["images"]]
    return next((side for side in fitting if side_of(side) == side_of(found)), fitting[0] if fitting else found)


def seconds(stamp: str) -> float:
    import datetime

    return datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()
