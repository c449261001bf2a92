# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of rollback_point: sealed, pinned, unpinned, good, bad, absent, pruned."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name, now
from ansible_collections.payops.rollback.plugins.module_utils._lock import list_runs
from ansible_collections.payops.rollback.plugins.module_utils._merge import DATABASES, release_status
from ansible_collections.payops.rollback.plugins.module_utils._module import run_of
from ansible_collections.payops.rollback.plugins.module_utils._overview import read_states
from ansible_collections.payops.rollback.plugins.module_utils._pointset import (
    delete_point,
    list_points,
    pin_point,
    seal_point,
    sweep_trash,
    unpin_point,
    versions,
)
from ansible_collections.payops.rollback.plugins.module_utils._releases import Registry, load_releases, mark_all, save_releases
from ansible_collections.payops.rollback.plugins.module_utils._retention import needs_of, plan_retention
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

COMPONENT = "point"
STEPS = ("seal", "pin", "unpin", "mark", "delete", "prune")
RECORD_OPTIONS = ("expected", "created", "who", "label", "ticket", "reason", "healthy")


def needs(paths: Paths, protect: t.Iterable[str] = (), skip_run: str | None = None) -> tuple[set[str], dict[str, str]]:
    """What is live on this host (versions and releases), and which points something still needs: version -> why."""
    states, problems = read_states(paths)
    if problems:
        raise RollbackError(f"{problems[0]} Nothing is removed while it is unknown what is live.")
    live, needed = needs_of(states, list_runs(paths), set(versions(paths)), skip_run)
    return live, {**needed, **dict.fromkeys(protect, "another host needs it")}


def _sealed(module: AnsibleModule, run: Run, version: str) -> dict[str, t.Any]:
    params = module.params
    record = {**{key: params[key] for key in RECORD_OPTIONS}, "run": params["run_id"]}
    host = params["inventory_host"]
    done = seal_point(run.paths, version, record, host, write=False)
    if done["changed"] and run.acting:
        with run.step("seal", version=version):
            done = seal_point(run.paths, version, {**record, "created": done["after"]["created"]}, host)
    return {**_result(done, f"Sealed point {version}", f"Point {version} is sealed."), "point": done["after"]}


def _pinned(module: AnsibleModule, run: Run, version: str) -> dict[str, t.Any]:
    who, why = module.params["who"], module.params["why"]
    done = pin_point(run.paths, version, who, why, write=False)
    if done["changed"] and run.acting:
        with run.step("pin", version=version):
            done = pin_point(run.paths, version, who, why)
    return {**_result(done, f"Pinned point {version}", f"Point {version} is pinned."), "point": done["after"]}


def _unpinned(module: AnsibleModule, run: Run, version: str) -> dict[str, t.Any]:
    done = unpin_point(run.paths, version, write=False)
    if done["changed"] and run.acting:
        with run.step("unpin", version=version):
            unpin_point(run.paths, version)
    return {**_result(done, f"Unpinned point {version}", f"Point {version} is not pinned."), "point": done["after"]}


def _marked(module: AnsibleModule, run: Run, version: str) -> dict[str, t.Any]:
    params = module.params
    status, releases = params["state"], params["releases"]
    if not releases:
        raise RollbackError(f"Point {version} names no release, so there is nothing to mark {status}.")
    before = load_releases(run.paths)
    marks = [{"release": name, "status": status, "why": params["why"], "version": version, "overrule": True} for name in releases]
    after = mark_all(before, marks, params["who"], now())[0]
    if after != before and run.acting:
        with run.step("mark", version=version, status=status):
            save_releases(run.paths, after)
    own = {name: after.get(name) for name in releases}
    done = {"changed": after != before, "before": {name: before.get(name) for name in releases}, "after": own}
    sentence = f"The release of point {version} is marked {status}."
    return {**_result(done, f"Marked the release of point {version} {status}", sentence), "point": own}


def _absent(module: AnsibleModule, run: Run, version: str) -> dict[str, t.Any]:
    found = list_points(run.paths, only=[version])
    exists = version in versions(run.paths)
    if exists:
        if any(point["pinned"] for point in found):
            raise RollbackError(f"Point {version} is pinned ({found[0]['pinned'].get('why')}). Unpin it first if it may really go.")
        live, needed = needs(run.paths, module.params["protect"], skip_run=module.params["run_id"])
        if version in live | set(module.params["live"]):
            raise RollbackError(f"Point {version} is live on this host. Nothing was removed.")
        if version in needed:
            raise RollbackError(f"Point {version} is needed: {needed[version]}. Nothing was removed.")
        if run.acting:
            with run.step("delete", version=version):
                delete_point(run.paths, version)
    done = {"changed": exists, "before": {"version": version, "exists": exists}, "after": {"version": version, "exists": False}}
    return _result(done, f"Removed point {version}", f"Point {version} is absent.")


def _pruned(module: AnsibleModule, run: Run) -> dict[str, t.Any]:
    params = module.params
    listing = list_points(run.paths)
    live, needed = needs(run.paths, params["protect"], skip_run=params["run_id"])
    registry = load_releases(run.paths)
    points = [local_point(entry, registry, params["inventory_host"]) for entry in listing]
    if params["versions"] is None:
        moment = datetime.datetime.now(datetime.timezone.utc)
        plan = plan_retention(points, params["keep_count"], params["keep_days"], moment, live | set(params["live"]), needed)
    else:
        plan = _asked(points, [check_name("The version", version) for version in params["versions"]], live, needed)
    removed = [item["version"] for item in plan["remove"]]
    if removed and run.acting:
        with run.step("prune", versions=removed):
            for version in removed:
                delete_point(run.paths, version)
    elif run.acting:
        sweep_trash(run.paths)
    before = [point["version"] for point in points]
    done = {
        "changed": bool(removed),
        "before": {"points": before},
        "after": {"points": [version for version in before if version not in removed]},
    }
    result = _result(
        done, "", f"{len(before) - len(removed)} point(s) stay, {len(removed)} {'removed' if run.acting else 'would be removed'}."
    )
    result["actions"] = [f"Removed point {item['version']}: {item['why']}" for item in plan["remove"]]
    return {**result, "removed": plan["remove"], "kept": plan["keep"]}


def _asked(points: list[dict[str, t.Any]], wanted: list[str], live: set[str], needed: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """The plan where it was decided elsewhere what goes. What this host itself needs stays all the same."""
    plan: dict[str, list[dict[str, str]]] = {"remove": [], "keep": []}
    for point in points:
        version = point["version"]
        why = (f"pinned ({point['pinned'].get('why') or 'no reason given'})" if point["pinned"] else None) or (
            "live" if version in live else f"needed ({needed[version]})" if version in needed else None
        )
        if version in wanted and why is None:
            plan["remove"].append({"version": version, "why": "it was asked for"})
        else:
            plan["keep"].append({"version": version, "why": why or "it was not asked for"})
    return plan


def local_point(entry: dict[str, t.Any], registry: Registry, host: str | None) -> dict[str, t.Any]:
    """What pruning must know of the part of a point that lies on this host."""
    record = entry["record"] or {}
    own = (record.get("expected") or {}).get(host, [])
    parts = entry["components"]
    releases = [str(part["release"]) for name, part in parts.items() if part["release"] and name not in DATABASES]
    return {
        **{key: entry[key] for key in ("version", "legacy", "created", "pinned")},
        "releases": releases,
        "release": release_status(releases, record.get("healthy"), registry),
        "complete": entry["sealed"] and not entry["problems"] and all(name in parts for name in own),
    }


def _result(done: dict[str, t.Any], action: str, msg: str) -> dict[str, t.Any]:
    return {
        "changed": done["changed"],
        "msg": msg,
        "actions": [action] if done["changed"] and action else [],
        "diff": {"before": done["before"] or {}, "after": done["after"] or {}},
    }


def change(module: AnsibleModule) -> dict[str, t.Any]:
    """Carry out the state that the module was asked for."""
    state = module.params["state"]
    with run_of(module, COMPONENT, STEPS) as run:
        if state == "pruned":
            result = _pruned(module, run)
        else:
            handlers = {"sealed": _sealed, "pinned": _pinned, "unpinned": _unpinned, "good": _marked, "bad": _marked, "absent": _absent}
            result = handlers[state](module, run, check_name("The version", module.params["version"]))
        return {**result, "steps": run.steps}
