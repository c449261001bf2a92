# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The lock of one host and the record of each run.

``lock.json`` is created by link(2), which exactly one of any number of parallel starters wins. It changes hands only
under the flock that acting modules hold, and only if the holder is still the one that was seen: no module of the old
run is acting at that moment, and its next one is fenced out.
"""

from __future__ import annotations

import os
import signal
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._decide import Holder, decide, identity, is_alive, require
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    SAFE_NAME,
    check_name,
    flock,
    fsync_dir,
    now,
    now_after,
    read_json,
    write_json,
)
from ansible_collections.payops.rollback.plugins.module_utils._releases import load_releases, mark_all, save_releases
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, read_journal

ATTEMPTS = 20
# The outcome of a run that was opened here but refused by another host, so that it never started.
REFUSED = "refused"
# A controller that nobody described: it lives as long as its lease.
UNSEEN = {"machine_id": "", "boot_id": "", "pid": 0, "started": "", "host": ""}
RUN_KEYS = ("run", "intent", "version", "who", "since", "controller", "hosts", "components")


def run_file(paths: Paths, run_id: str) -> str:
    return os.path.join(paths.run_dir(run_id), "run.json")


def read_lock(paths: Paths) -> Holder | None:
    holder = read_json(paths.lock)
    if holder is not None and (not isinstance(holder, dict) or not isinstance(holder.get("run"), str)):
        raise RollbackError(
            f"{paths.lock} is damaged: it names no run, so nobody can tell who may act. "
            f"Make sure that no rollback is under way (fuser -v {paths.act}), move the file away, then run the same command again."
        )
    return t.cast("Holder | None", holder)


def list_runs(paths: Paths) -> list[Holder]:
    """Every run that this host knows, newest first."""
    found = []
    if os.path.isdir(paths.run):
        for name in os.listdir(paths.run):
            if SAFE_NAME.match(name) and os.path.isdir(os.path.join(paths.run, name)):
                run = read_json(os.path.join(paths.run, name, "run.json"))
                if isinstance(run, dict) and run.get("run") == name:
                    found.append(run)
    return sorted(found, key=lambda run: str(run.get("since")), reverse=True)


def unfinished_runs(runs: t.Iterable[Holder], holder: Holder | None) -> list[Holder]:
    """Runs that were opened, never closed, and do not hold the lock."""
    return [run for run in runs if run.get("state") == "open" and run.get("run") != (holder or {}).get("run")]


def make_run(wanted: dict[str, t.Any], since: str) -> Holder:
    """A checked run record from what the caller gives."""
    check_name("The run id", wanted.get("run"))
    if not wanted.get("intent"):
        raise RollbackError("A run needs an intent, such as full, database, application, backup or undo.")
    if wanted.get("version") is not None:
        check_name("The version", wanted["version"])
    controller = wanted.get("controller") or {**UNSEEN, "host": os.uname().nodename}
    missing = [key for key in ("machine_id", "boot_id", "pid", "started", "host") if key not in controller]
    if missing:
        raise RollbackError(f"The controller's identity lacks {', '.join(missing)}; expected machine_id, boot_id, pid, started and host.")
    run = {key: wanted.get(key) for key in RUN_KEYS}
    run.update(
        since=since, controller=dict(controller), hosts=list(wanted.get("hosts") or []), components=list(wanted.get("components") or [])
    )
    return run


# -- acquisition ------------------------------------------------------------------------------------------------------


def _create(paths: Paths, holder: Holder) -> bool:
    """Create ``lock.json`` whole, or say that somebody else has."""
    temporary = f"{paths.lock}.new-{os.getpid()}"
    write_json(temporary, holder, paths.file_mode)
    try:
        os.link(temporary, paths.lock)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    fsync_dir(paths.run)
    return True


def _unchanged(seen: Holder, found: Holder | None) -> bool:
    """Whether the lock is still held by the very holder that was judged; only its lease may have moved."""
    return found is not None and all(seen.get(key) == found.get(key) for key in ("run", "controller", "since", "turns"))


def _expected(judged: t.Any, seen: Holder) -> bool:
    """Whether ``seen`` is the holder that the caller judged dead: the same run by the same controller."""
    return isinstance(judged, dict) and bool(judged.get("run")) and all(judged.get(key) == seen.get(key) for key in ("run", "controller"))


def acting_pids(paths: Paths) -> list[int]:
    """The processes that hold the flock of acting modules, as the kernel tells."""
    try:
        found = os.stat(paths.act)
        with open("/proc/locks", encoding="ascii") as handle:
            lines = [line.split() for line in handle]
    except OSError:
        return []
    wanted = (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
    pids = []
    for fields in lines:
        if len(fields) < 6 or "->" in fields or fields[1] != "FLOCK":
            continue
        device = fields[5].split(":")
        if len(device) == 3 and (int(device[0], 16), int(device[1], 16), int(device[2])) == wanted and int(fields[4]) > 1:
            pids.append(int(fields[4]))
    return pids


def evict(paths: Paths) -> list[int]:
    """End the module that is acting, at whatever step: every step is safe to be killed in, and its programs die with it."""
    ended = []
    for pid in acting_pids(paths):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError as exc:
                raise RollbackError(
                    f"Process {pid} is acting on this host and belongs to another user. End it as root: kill -9 {pid}"
                ) from exc
            ended.append(pid)
    return ended


def _busy(paths: Paths, wait: float) -> str:
    pids = [str(pid) for pid in acting_pids(paths)]
    end = f"kill -9 {' '.join(pids)}" if pids else f"fuser -k {paths.act}"
    return (
        f"A module of payops.rollback is still acting on this host (process {', '.join(pids) or 'unknown'} holds {paths.act}); "
        f"waited {wait:.0f} s. Run the same command again when it is done, or end it on that host with '{end}': "
        "every step may be killed, and the next run goes on from there."
    )


def _replace(paths: Paths, seen: Holder, holder: Holder, wait: float) -> bool:
    """Hand the lock over from ``seen`` to ``holder`` unless somebody else was faster."""
    with flock(paths.act, wait, _busy(paths, wait), paths.file_mode):
        if not _unchanged(seen, read_lock(paths)):
            return False
        write_json(paths.lock, holder, paths.file_mode)
        return True


def open_run(
    paths: Paths,
    wanted: dict[str, t.Any],
    lease: int = 900,
    wait: float = 30.0,
    write: bool = True,
    here: dict[str, t.Any] | None = None,
    holds: t.Iterable[dict[str, t.Any]] = (),
) -> dict[str, t.Any]:
    """Take the lock of this host for ``wanted``: {run, intent, version, who, controller, hosts, components, takeover,
    expect_holder, resume, evict}. The run id in the result may be that of a dead run that is continued.
    """
    run = make_run(wanted, now_after(max((str(run.get("since")) for run in list_runs(paths)), default=None)))  # undo goes by their order
    if write:
        paths.make()
    for unused in range(ATTEMPTS):
        seen = read_lock(paths)
        if seen is not None and seen["run"] == run["run"] and seen.get("controller") == run["controller"]:
            return _repair(paths, seen, write)
        alive = seen is not None and is_alive(seen, here or identity(), time.time())
        if seen is not None and _expected(wanted.get("expect_holder"), seen):
            alive = False  # the caller asked on the holder's own controller and found it dead
        decision = require(decide(seen, unfinished_runs(list_runs(paths), seen), {**wanted, "controller": run["controller"]}, alive, holds))
        result = _grant(paths, run, seen, decision, lease, wait, write, bool(wanted.get("evict")))
        if result is not None:
            return result
    raise RollbackError(f"The lock {paths.lock} changed hands {ATTEMPTS} times while this run asked for it. Run the same command again.")


def _repair(paths: Paths, seen: Holder, write: bool) -> dict[str, t.Any]:
    """The lock is ours already. A crash between lock and run record left no record: write it now."""
    changed = read_json(run_file(paths, seen["run"])) is None
    if changed and write:
        _record(paths, {**{key: seen.get(key) for key in RUN_KEYS}, "state": "open"})
    return {"changed": changed, "run_id": seen["run"], "resumed": False, "took_over": None, "evicted": [], "holder": seen, "before": seen}


def _grant(
    paths: Paths, run: Holder, seen: Holder | None, decision: dict[str, t.Any], lease: int, wait: float, write: bool, ending: bool
) -> dict[str, t.Any] | None:
    """Carry a decision out; None if the lock changed meanwhile."""
    resumed = decision["do"] == "resume"
    old = read_json(run_file(paths, decision["from"])) if decision["from"] else None
    mine = {**run, "run": decision["run"]}
    if resumed:
        mine.update({key: (old or seen or run).get(key) for key in ("since", "version")})
    holder = {**mine, "lease_until": time.time() + lease, "turns": (seen or {}).get("turns", 0) + 1}
    evicted: list[int] = []
    if write:
        if seen is None:
            if not _create(paths, holder):
                return None
        else:
            evicted = evict(paths) if ending else []
            if not _replace(paths, seen, holder, wait):
                return None
        _write_records(paths, mine, old or seen, decision, resumed)
    took_over = None if resumed else decision["from"]
    return {
        "changed": True,
        "run_id": mine["run"],
        "resumed": resumed,
        "took_over": took_over,
        "evicted": evicted,
        "holder": holder,
        "before": seen,
    }


def _record(paths: Paths, run: Holder) -> None:
    paths.make_dir(paths.run_dir(run["run"]))
    write_json(run_file(paths, run["run"]), run, paths.file_mode)


def _write_records(paths: Paths, mine: Holder, old: Holder | None, decision: dict[str, t.Any], resumed: bool) -> None:
    turn = {"who": mine["who"], "when": now(), "controller": mine["controller"]}
    ended = {
        "state": "closed",
        "outcome": "taken_over",
        "closed_at": turn["when"],
        "taken_over_by": {**turn, "run": mine["run"], "intent": mine["intent"]},
    }
    for run_id in decision.get("superseded", []):
        _record(paths, {**(read_json(run_file(paths, run_id)) or {}), "run": run_id, **ended})
    if resumed:
        kept = {key: value for key, value in (old or {}).items() if key not in ("lease_until", "turns")}
        _record(paths, {**mine, **kept, "controller": mine["controller"], "state": "open", "resumed": [*kept.get("resumed", []), turn]})
        return
    record: Holder = {**mine, "state": "open"}
    if decision["from"]:
        base = {key: value for key, value in (old or {}).items() if key not in ("lease_until", "turns")}
        record["took_over"] = {
            **{key: base.get(key) for key in ("intent", "version", "who")},
            "run": decision["from"],
            "when": turn["when"],
        }
        _record(paths, {**base, "run": decision["from"], **ended})
    _record(paths, record)


# -- closing ----------------------------------------------------------------------------------------------------------


def close_run(
    paths: Paths, run_id: str, outcome: str, marks: list[dict[str, t.Any]] | None = None, wait: float = 30.0, write: bool = True
) -> dict[str, t.Any]:
    """Write the outcome, mark releases, and give the lock back. A run that was taken over changes nothing and says so."""
    record = read_json(run_file(paths, check_name("The run id", run_id)))
    holder = read_lock(paths)
    if record is None and (holder is None or holder["run"] != run_id):
        if outcome == REFUSED:
            return _nothing(paths, run_id, None)
        raise RollbackError(
            f"There is no run {run_id} on this host, so it cannot be closed; nothing was changed. rollback_points.yml shows which runs did not finish."
        )
    if not write:
        return _close(paths, run_id, outcome, marks or [], write)
    paths.make()
    with flock(paths.act, wait, _busy(paths, wait), paths.file_mode):
        return _close(paths, run_id, outcome, marks or [], write)


def _close(paths: Paths, run_id: str, outcome: str, marks: list[dict[str, t.Any]], write: bool) -> dict[str, t.Any]:
    holder = read_lock(paths)
    before = read_json(run_file(paths, run_id)) or {key: (holder or {}).get(key) for key in RUN_KEYS}
    result = _nothing(paths, run_id, before)
    ours = holder is not None and holder["run"] == run_id
    taken = before.get("outcome") == "taken_over" or (holder is not None and not ours)
    if taken and not ours:
        return {**result, "fenced": True}
    registry = result["releases"]
    marked, result["refused_marks"] = mark_all(registry, marks, before.get("who"), now())
    if outcome == REFUSED and (before.get("resumed") or result["journal"]):
        pass  # it was unfinished before this attempt to continue it, and still is
    elif before.get("state") != "closed" or before.get("outcome") != outcome:
        result["after"] = {**before, "state": "closed", "outcome": outcome, "closed_at": now()}
    result["releases"] = marked
    result["changed"] = ours or result["after"] is not before or marked != registry
    if write and result["changed"]:
        if marked != registry:
            save_releases(paths, marked)
        _record(paths, result["after"])
        if outcome == REFUSED and ours:
            _reopen(paths, run_id, before)
        if ours:
            os.unlink(paths.lock)
            fsync_dir(paths.run)
    return result


def _nothing(paths: Paths, run_id: str, before: Holder | None) -> dict[str, t.Any]:
    """The result of closing a run where there is nothing to change."""
    return {
        "changed": False,
        "fenced": False,
        "before": before or {},
        "after": before or {},
        "refused_marks": [],
        "releases": load_releases(paths),
        "journal": read_journal(paths, run_id),
    }


def _reopen(paths: Paths, run_id: str, record: Holder) -> None:
    """The run never started, because another host refused it: what it had taken over is unfinished again."""
    old_id = (record.get("took_over") or {}).get("run")
    old = read_json(run_file(paths, old_id)) if old_id else None
    if old and (old.get("taken_over_by") or {}).get("run") == run_id:
        gone = ("outcome", "closed_at", "taken_over_by")
        _record(paths, {**{key: value for key, value in old.items() if key not in gone}, "state": "open"})


def summarise_journal(records: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """Per component: the steps that ended, the one that may have happened (started, no end), and the last error."""
    summary: dict[str, t.Any] = {}
    for record in records:
        part = summary.setdefault(str(record.get("component")), {"finished": [], "open": None, "error": None, "last": None})
        step = record.get("step")
        if record.get("phase") == "start":
            part["open"] = step
        elif record.get("phase") == "end":
            part["open"] = None
            part["error"] = record.get("error")
            if not record.get("error"):
                part["finished"].append(step)
        part["last"] = record.get("at")
    return summary
