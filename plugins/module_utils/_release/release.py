# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``app_release``: the same trees, without a process manager."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import to_adopt
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record, Releases
from ansible_collections.payops.rollback.plugins.module_utils._release.forget import complete, removable
from ansible_collections.payops.rollback.plugins.module_utils._run import Run

STATES = ("archived", "staged", "live", "previous", "complete")
STEPS = ("archive", "prepare_layout", "adopt", "stage", "flip", "finish", "complete")
Result = t.Dict[str, t.Any]


class Backend:
    def __init__(self, releases: Releases, run: Run, check: bool) -> None:
        self.releases = releases
        self.run = run
        self.check = check
        self.actions: list[str] = []

    def reach(self, state: str, version: str | None) -> Result:
        before = self.picture()
        if state in ("archived", "staged", "live"):
            if version is None:
                raise RollbackError(f"state={state} needs version: the name of a rollback point, for example '20231201_120000'.")
            result: Result = getattr(self, state)(version)
        else:
            result = getattr(self, state)()
        result.setdefault("actions", self.actions)
        after = before if self.check else self.picture()
        will = result.pop("will", {})
        result.update(after, steps=self.run.steps, diff={"before": _shown(before), "after": _shown({**after, **will})})
        result.setdefault("msg", "; ".join(result["actions"]) or f"{self.releases.layout.home}: nothing to do")
        return result

    def picture(self) -> Result:
        state, live = self.releases.state(), self.releases.live_record()
        return {
            "layout": self.releases.layout.kind,
            "live": {key: live[key] for key in ("version", "release")},
            "kept": state.get("kept"),
            "staged": {key: state["staged"].get(key) for key in ("version", "release", "at")} if state.get("staged") else None,
            "unfinished": state.get("switch"),
        }

    def archived(self, version: str) -> Result:
        if self.check:
            there = os.path.isdir(self.releases.paths.component(version, self.releases.component))
            return {"changed": not there, "actions": [] if there else [f"archive {self.releases.layout.home} as {version}"]}
        done = self.releases.archive(self.run, version, {}, {})
        if done["changed"]:
            self.actions.append(f"archived release {done['release'][:12]} as {version}")
        return {**done, "version": version}

    def staged(self, version: str) -> Result:
        target = self.releases.target(version)
        at_version, drift = self.releases.at_version(target)
        told: Result = {"version": version, "release": target.release, "at_version": at_version, "drift": drift}
        if at_version:
            return {**told, "changed": False, "msg": f"{self.releases.layout.home} is at {version} already; nothing to stage"}
        if self.check:
            missing = [] if self.releases.staged(target) else [f"stage {version} in {self.releases.layout.workshop}"]
            missing += [
                f"move the persistent path {name} to {self.releases.layout.shared}"
                for name in to_adopt(self.releases.layout, self.releases.persistent)
            ]
            return {**told, "changed": bool(missing), "actions": missing}
        record = self.releases.stage(self.run, target)
        if record["changed"]:
            self.actions.append(f"staged {version} as {record['path']}")
        return {**told, "release": record["release"], "changed": record["changed"], "path": record["path"]}

    def live(self, version: str) -> Result:
        target = self.releases.target(version, hashes=False)
        at_version, drift = self.releases.at_version(target)
        told: Result = {"version": version, "release": target.release, "drift": drift, "at_version": at_version}
        if at_version:
            record: Record = {**self.releases.live_record(), "version": version}
        elif self.check:
            record = self.releases.staged(target) or {"version": version, "release": target.release, "tree": -1}
        else:
            if not self.releases.staged(target):
                self.staged(version)
            found = self.releases.staged(self.releases.target(version, hashes=False))
            if found is None:
                raise RollbackError(f"Release {version} was staged, but its tree is not there. Look at {self.releases.layout.workshop}.")
            record = found
        return {**told, "release": record["release"], **self._go(record)}

    def previous(self) -> Result:
        state = self.releases.state()
        if state.get("undone") and not state.get("switch"):
            return {"changed": False, "msg": f"{self.releases.layout.home} is back at the previous release already"}
        return self._go(self.releases.back(self.run.run_id), undone=True)

    def _go(self, record: Record, undone: bool = False) -> Result:
        if self.releases.live_tree() == record["tree"] and not self.releases.state().get("switch"):
            return {"changed": False}
        name = record.get("version") or str(record["release"])[:12]
        if self.check:
            will = {"live": {key: record.get(key) for key in ("version", "release")}}
            return {"changed": True, "actions": [f"make {name} live at {self.releases.layout.home}"], "will": will}
        with self.run.step("flip", tree=record["tree"]) as learnt:
            self.releases.begin(self.run, record, undone)
            learnt["replaced"] = self.releases.flip(record)
        with self.run.step("finish"):
            self.releases.finish(self.run, undone)
        self.actions.append(f"made {name} live at {self.releases.layout.home}")
        return {"changed": True}

    def complete(self) -> Result:
        state = self.releases.state()
        paths = removable(self.releases)
        had = bool(paths or state.get("kept") or state.get("staged"))
        if self.check:
            return {"changed": had, "actions": [f"remove {path}" for path in paths]}
        removed = complete(self.releases, self.run)
        if removed:
            self.actions.append(f"removed {', '.join(removed)}")
        return {"changed": had, "removed": removed}


def _shown(picture: Result) -> str:
    shown = {key: picture.get(key) for key in ("live", "kept", "staged")}
    if shown["kept"]:
        shown["kept"] = {key: shown["kept"].get(key) for key in ("version", "release", "path")}
    return json.dumps(shown, indent=2, sort_keys=True) + "\n"
