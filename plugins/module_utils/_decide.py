# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""May this run start? Who is alive, who is dead, and what a refused person types next. Pure, apart from ``identity``.

A controller is known by ``{machine_id, boot_id, pid, started, host}``; see ``identity``.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

# Intents whose playbook has a longer name than they have.
PLAYBOOKS = {name: f"rollback_{name}" for name in ("full", "database", "application", "emergency", "gradual", "points")}
BARE = "{}.yml"  # how a playbook is named where nobody knows how this one was called
# What may be left unfinished without standing in the way of anything: a backup leaves no half point,
# and an emergency only stops things, which is what every rollback starts from.
HARMLESS = ("backup", "emergency")
# What may always take over from a dead run.
RESCUERS = ("undo", "emergency")
# How a run says that another has taken the lock over from it: what reports it knows it by these words.
REPLACED = "which it has replaced"

StartedOf = t.Callable[[int], t.Optional[str]]
Holder = t.Dict[str, t.Any]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def started_of(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None where there is no such process, or only its zombie."""
    text = _read(f"/proc/{pid}/stat")
    fields = text[text.rfind(")") + 1 :].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return fields[19]


def identity(pid: int | None = None) -> dict[str, t.Any]:
    """Who this process (or process ``pid`` of this machine) is, so that others can tell whether it still lives."""
    pid = os.getpid() if pid is None else pid
    return {
        "machine_id": _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id"),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "pid": pid,
        "started": started_of(pid),
        "host": os.uname().nodename,
    }


def same_machine(one: dict[str, t.Any], other: dict[str, t.Any]) -> bool:
    """Containers and cloned machines share machine ids, so the host name must be the same too."""
    return bool(one.get("machine_id")) and all(one.get(key) == other.get(key) for key in ("machine_id", "host"))


def is_alive(holder: Holder, here: dict[str, t.Any], now: float, started: StartedOf = started_of) -> bool:
    """Whether the controller of ``holder`` still runs, as far as it can be told on the machine ``here``.

    On its own machine: same boot, and its process with the same start time. Elsewhere: its lease.
    """
    controller = holder.get("controller") or {}
    if same_machine(controller, here):
        pid = controller.get("pid")
        if controller.get("boot_id") != here.get("boot_id") or not isinstance(pid, int) or pid <= 0:
            return False
        return controller.get("started") is not None and started(pid) == controller["started"]
    lease = holder.get("lease_until")
    return isinstance(lease, (int, float)) and lease > now


def command(intent: str | None, wanted: Holder, version: str | None = None, takeover: str | None = None) -> str:
    """What a person types for this, on one line: named as the playbook that runs was."""
    words = ["ansible-playbook", (wanted.get("playbooks") or BARE).format(PLAYBOOKS.get(str(intent), str(intent)))]
    if wanted.get("inventory"):
        words.append(f"-i {wanted['inventory']}")
    if version:
        words.append(f"-e version={version}")
    if takeover:
        words.append(f"-e takeover={takeover}")
    return " ".join(words)


def describe(run: Holder) -> str:
    """One clause that names a run."""
    controller = run.get("controller") or {}
    target = f" to {run['version']}" if run.get("version") else ""
    where = f" from {controller['host']}" if controller.get("host") else ""
    since = str(run.get("since"))[:19].replace("T", " ")
    return f"run {run.get('run')} ({run.get('intent')}{target}, started {since} UTC by {run.get('who') or 'nobody named'}{where})"


def _same_wish(run: Holder, wanted: Holder) -> bool:
    if run.get("intent") != wanted.get("intent"):
        return False
    return run.get("version") == wanted.get("version") or (wanted.get("intent") in RESCUERS and not wanted.get("version"))


def hold_notice(holds: t.Iterable[dict[str, t.Any]], wanted: Holder) -> str:
    """The first thing to read while something is held closed: until when, and the one command that ends it."""
    texts = []
    for item in holds:
        until = f" until {_moment(item['deadline'])}" if item.get("deadline") else ""
        end = item.get("command") or command("undo", wanted)
        texts.append(f"{item.get('component')} is held closed on {item.get('host') or 'this host'}{until}; end that with '{end}'.")
    return " ".join(texts) + (" " if texts else "")


def _moment(deadline: t.Any) -> str:
    """Components write seconds since 1970; people read a time."""
    if isinstance(deadline, (int, float)):
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(deadline))
    return str(deadline)


def _refuse(
    reason: str, ways: list[tuple[str, str]], wanted: Holder, holds: t.Iterable[dict[str, t.Any]], holder: Holder
) -> dict[str, t.Any]:
    """A refusal ends with the two commands that get out."""
    texts = ", or ".join(f"{what} '{line}'" for what, line in ways)
    message = f"{hold_notice(holds, wanted)}{reason[0].upper()}{reason[1:]} {texts[0].upper()}{texts[1:]}."
    return {"do": "refuse", "run": None, "from": None, "message": message, "commands": [line for unused, line in ways], "holder": holder}


def decide(
    holder: Holder | None,
    unfinished: list[Holder],
    wanted: Holder,
    alive: bool,
    holds: t.Iterable[dict[str, t.Any]] = (),
) -> dict[str, t.Any]:
    """``wanted``: {run, intent, version, controller, takeover, resume, inventory}; ``alive``: whether the holder is.

    Returns ``{do: start|resume|refuse, run, from, superseded, message, commands}``: with ``start`` and ``resume`` the
    run id to use, the run that is taken over from (or None) and harmless old runs to close; with ``refuse`` the
    message with the two commands that get out.
    """
    start = {"do": "start", "run": wanted["run"], "from": None, "superseded": [], "message": None, "commands": []}
    if holder is not None:
        return _against_holder(holder, wanted, alive, start, holds)
    harmless: list[t.Any] = []
    for old in sorted(unfinished, key=lambda item: str(item.get("since")), reverse=True):
        if old.get("run") == wanted["run"]:
            return {**start, "do": "resume", "from": old["run"], "superseded": harmless}
        decided = _after(old, wanted, start, "was never finished", holds)
        if decided["do"] != "start" or old.get("intent") not in HARMLESS:
            return {**decided, "superseded": harmless}
        harmless.append(old["run"])
    return {**start, "superseded": harmless}


def _against_holder(
    holder: Holder, wanted: Holder, alive: bool, start: dict[str, t.Any], holds: t.Iterable[dict[str, t.Any]]
) -> dict[str, t.Any]:
    """What may happen while somebody holds the lock."""
    run = holder.get("run")
    if run == wanted["run"] and (not alive or wanted.get("controller") == holder.get("controller")):
        return {**start, "do": "resume", "from": run}
    takeover = wanted.get("takeover")
    if (takeover == run and run != wanted["run"]) or (wanted.get("intent") == "emergency" and holder.get("intent") != "emergency"):
        return {**start, "from": run}
    same = command(wanted.get("intent"), wanted, wanted.get("version"))
    over = command(wanted.get("intent"), wanted, wanted.get("version"), run)
    if takeover:
        reason = f"the command says takeover={takeover}, but the lock is held by another: {describe(holder)}."
        return _refuse(reason, [("wait until it is over and type", same), ("take that one over with", over)], wanted, holds, holder)
    if alive:
        return _refuse(
            f"the lock is held by {describe(holder)}, which is still alive.",
            [("wait until it is over and type", same), ("only if it must not go on, take it over with", over)],
            wanted,
            holds,
            holder,
        )
    return _after(holder, wanted, start, "died without finishing and still holds the lock", holds)


def _after(old: Holder, wanted: Holder, start: dict[str, t.Any], what: str, holds: t.Iterable[dict[str, t.Any]]) -> dict[str, t.Any]:
    """What may follow a dead run."""
    run = old.get("run")
    if _same_wish(old, wanted) and wanted.get("resume", True):
        return {**start, "do": "resume", "run": run, "from": run}
    if wanted.get("takeover") == run or wanted.get("intent") in RESCUERS or old.get("intent") in HARMLESS:
        return {**start, "from": run}
    finish = ("finish it with", command(old.get("intent"), wanted, old.get("version")))
    back = ("take it back with", command("undo", wanted))
    if old.get("intent") == "undo":
        back = ("take it over with", command(wanted.get("intent"), wanted, wanted.get("version"), run))
    target = f" to {wanted['version']}" if wanted.get("version") else ""
    return _refuse(f"{describe(old)} {what}, so {wanted.get('intent')}{target} cannot start.", [finish, back], wanted, holds, old)


def require(decision: dict[str, t.Any]) -> dict[str, t.Any]:
    """The decision, or the refusal as an error."""
    if decision["do"] == "refuse":
        raise RollbackError(decision["message"], commands=decision["commands"], holder=decision["holder"])
    return decision
