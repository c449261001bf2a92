# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May this run start, as which run, to which version? Decided once, on the controller, before anything is touched."""

from __future__ import annotations

import datetime
import os
import shlex
import time
import typing as t

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.payops.rollback.plugins.module_utils._decide import decide, identity, is_alive, require
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import STAMP, now, now_after
from ansible_collections.payops.rollback.plugins.module_utils._merge import INTENTS, merge_points, versioned
from ansible_collections.payops.rollback.plugins.module_utils._overview import user_name
from ansible_collections.payops.rollback.plugins.module_utils._releases import merge_releases
from ansible_collections.payops.rollback.plugins.module_utils._resolve import resolve
from ansible_collections.payops.rollback.plugins.plugin_utils import _gate, _settings, _words

ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "roles")
SPEC: dict[str, t.Any] = {
    "system": {"type": "raw", "required": True},
    "intent": {
        "type": "str",
        "required": True,
        "choices": ["full", "database", "application", "gradual", "backup", "undo", "complete", "emergency", "recover", "points", "verify"],
    },
    "components": {"type": "list", "elements": "str", "required": True},
    "version": {"type": "raw"},
    "words": {"type": "list", "elements": "str", "default": []},
    "allow_partial": {"type": "bool", "default": False},
    "takeover": {"type": "str", "default": ""},
    "who": {"type": "str", "default": ""},
    "lock_host": {"type": "str", "default": ""},
}
# Intents that go to a version; the others take what is there.
VERSIONED = (*INTENTS, "backup")
# Intents that only look: the command is checked, hosts may be missing, and no lock stands in the way.
LOOKING = ("points", "verify")
ALL_THE_SAME = "that kept nothing from being stopped"
Infos = t.Dict[str, t.Dict[str, t.Any]]


class ActionModule(ActionBase):
    """Runs on the controller only; the documentation is in plugins/modules/rollback_gate.py."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        try:
            # Before the options are validated: that would turn the number 2.1 into the text "2.1".
            version, number = self._templar.template(self._task.args.get("version")), ""
            if self._task.args.get("intent") in VERSIONED:  # an emergency stops first and complains afterwards
                typed, version = version, _gate.check_version(version)
                number = str(typed) if isinstance(typed, int) else ""
            unused, args = self.validate_argument_spec(argument_spec=SPEC)
            return {"changed": False, **self._decide({**args, "version": version, "number": number}, task_vars)}
        except RollbackError as exc:
            raise AnsibleActionFail(str(exc), result={"msg": str(exc), "changed": False, **exc.details}) from exc

    def _decide(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        hostvars = task_vars["hostvars"]
        given = load_extra_vars(self._loader)
        complaint = self._complaint(args, task_vars, given)
        hosts = _gate.members({host: hostvars[host].get("rollback_components") for host in task_vars["groups"]["all"]})
        _gate.check_components(hosts, _gate.component_roles(ROLES), args["components"])
        looking = args["intent"] in LOOKING
        playing = _gate.check_limit(hosts, task_vars["ansible_play_hosts_all"], looking or args["allow_partial"])
        if looking:
            return {
                "hosts": playing,
                "members": {host: hosts[host] for host in playing},
                "components": args["components"],
                "who": args["who"] or _who(task_vars),
                "inventory": _inventory(),
                "playbooks": _gate.playbook_form(context.CLIARGS.get("args") or ()),
                "started": time.time(),
            }
        told = {host: hostvars[host].get("transaction_info") or {} for host in playing}
        infos: Infos = {host: info for host, info in told.items() if "runs" in info}  # an unreachable host has a result, too
        if args["intent"] != "emergency":  # that one waits for nobody
            _gate.check_answers(playing, infos, task_vars["ansible_play_hosts"])
        result: dict[str, t.Any] = {
            "now": now(),
            "hosts": playing,
            "members": {host: hosts[host] for host in playing},
            "versioned": versioned({host: hosts[host] for host in playing}),
            "who": args["who"] or _who(task_vars),
            "controller": identity(os.getppid()),
            "lock_host": args["lock_host"] if args["lock_host"] in playing else sorted(playing)[0],
            "components": args["components"],
            "takeover": args["takeover"],
            "warnings": _words.ignored_words(
                {host: [w for w in args["words"] if w in hostvars[host] and w not in given] for host in playing}
            ),
            "passed_over": [],
            "point": None,
            "exists": False,
            "target": None,
            "nothing": "",
            "complaint": complaint,
        }
        _settings.check_watch(args["intent"], {host: hostvars[host] for host in playing})
        self._choose(args, infos, hostvars, result)
        _gate.check_target(args["intent"], load_extra_vars(self._loader).get("version"), result["target"])
        self._claim(args, infos, result)
        return result

    def _complaint(self, args: dict[str, t.Any], task_vars: dict[str, t.Any], given: dict[str, t.Any]) -> str:
        """What is wrong with the words of the command. It is refused for that, but an emergency stops first and says so afterwards."""
        emergency = args["intent"] == "emergency"
        so = ALL_THE_SAME if emergency else _gate.UNTOUCHED
        own = task_vars["hostvars"][task_vars["inventory_hostname"]]
        try:
            _gate.check_loose_words(given, so)
            _gate.check_extra_variables(given, self._known_variables(args, task_vars), so)
            _words.check_words([word for word in args["words"] if word in task_vars and word not in own and word not in given], so)
            if not emergency:  # a value that is a template may fail in its own way, and nothing of an emergency depends on one
                _words.check_values({word: self._templar.template(given[word]) for word in args["words"] if word in given})
        except RollbackError as exc:
            if not emergency:
                raise
            return str(exc)
        return ""

    def _known_variables(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> set[str]:
        own = {str(name) for name in task_vars.get("rollback_extra_variables") or []}
        return own | set(args["words"]) | _gate.option_names(ROLES) | _gate.SYSTEM_VARIABLES

    def _choose(self, args: dict[str, t.Any], infos: Infos, hostvars: t.Any, result: dict[str, t.Any]) -> None:
        """Which point (or, for undo, which earlier run) this is about."""
        intent, version = args["intent"], args["version"]
        _gate.check_number(args["number"], version, {point["version"] for info in infos.values() for point in info["points"]})
        runs = [run for info in infos.values() for run in _runs(info)]
        result["version"] = version if intent in VERSIONED else None
        if intent == "backup":
            if version == "new":
                result["version"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d_%H%M%S")
            taken = [
                str(point["created"]) for info in infos.values() for point in info["points"] if point["created"] and not point["legacy"]
            ]
            result["now"] = now_after(max((moment for moment in taken if moment <= _soon()), default=None))
            result["exists"] = any(point["version"] == result["version"] for info in infos.values() for point in info["points"])
        elif intent in INTENTS:
            unfinished = [run for run in runs if run.get("state") == "open" and run.get("intent") == intent]
            if version == "latest" and unfinished:
                # The dead run was on its way somewhere: "the same command again" means there, not to what is newest now.
                version = max(unfinished, key=lambda run: str(run.get("since")))["version"]
            elif version == "latest" and intent == "gradual":
                version = _gate.halfway(runs) or version
            points = merge_points(
                {host: info["points"] for host, info in infos.items()},
                merge_releases(info["releases"] for info in infos.values()),
                result["members"],
            )
            chosen = resolve(version, intent, points, _live(infos, hostvars, args["components"]), _soon())
            result["warnings"] += chosen["warnings"]
            result.update(version=chosen["version"], point=chosen["point"], passed_over=chosen["skipped"])
        elif intent in ("undo", "complete"):
            target, undone_by, completed_by, same = _gate.last_rollback(runs)
            result["target"] = None if target is None else {**target, "runs": same}
            if target is None:
                result["nothing"] = "There is no rollback to take back: none was run on this system." if intent == "undo" else ""
            elif undone_by is not None and intent == "undo":
                result["nothing"] = (
                    f"The last rollback ({target['intent']} to {target['version']}, run {target['run']}) was taken back already "
                    f"by run {undone_by['run']}; nothing was done."
                )
            if target is not None and intent == "undo" and not result["nothing"]:
                if completed_by is not None:
                    raise RollbackError(
                        f"The last rollback ({target['intent']} to {target['version']}, run {target['run']}) was completed by "
                        f"{completed_by.get('who')} (run {completed_by['run']}): what it had replaced was dropped, so there is nothing to go "
                        "back to. To go to another point: rollback_points.yml lists them, rollback_full.yml -e version=<point>."
                    )
                result["version"] = target["version"]
                result["components"] = [name for name in args["components"] if name in target["components"]]

    def _claim(self, args: dict[str, t.Any], infos: Infos, result: dict[str, t.Any]) -> None:
        """Start anew, go on with a dead run, or refuse with the two commands that get out."""
        controller = result["controller"]
        run_id = _gate.run_id_of(controller, args["intent"], str(result["version"]))
        locks = [info["lock"] for info in infos.values() if info["lock"]]
        holder = max(locks, key=lambda lock: str(lock.get("since"))) if locks else None
        unfinished = {run["run"]: run for info in infos.values() for run in info["unfinished"]}
        holds = [{**hold, "host": host} for host, info in infos.items() for hold in info["holds"]]
        wanted = {
            "run": run_id,
            "intent": args["intent"],
            "version": result["version"],
            "controller": controller,
            "takeover": args["takeover"] or None,
            "inventory": _inventory(),
            "playbooks": _gate.playbook_form(context.CLIARGS.get("args") or ()),
        }
        alive = holder is not None and any(is_alive(lock, controller, time.time()) for lock in locks if lock["run"] == holder["run"])
        free = [run for run in unfinished.values() if holder is None or run["run"] != holder["run"]]
        decision = require(decide(holder, free, wanted, alive, holds))
        result.update(
            run_id=decision["run"],
            resume=decision["do"] == "resume",
            expect_holder={"run": holder["run"], "controller": holder["controller"]} if holder is not None and not alive else None,
            holds=holds,
            inventory=wanted["inventory"],
            playbooks=wanted["playbooks"],
            started=time.time(),
        )
        if decision["do"] == "resume":
            result["warnings"].append(f"Going on with run {decision['run']}, which did not finish.")


def _runs(info: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    lock = [{**info["lock"], "state": "open"}] if info["lock"] else []
    return [*info["runs"], *info["unfinished"], *lock]


def _live(infos: Infos, hostvars: t.Any, components: list[str]) -> dict[str, dict[str, dict[str, t.Any]]]:
    """What runs now: as the component itself saw it (its inspect verb), else as its last flip remembered it."""
    live: dict[str, dict[str, dict[str, t.Any]]] = {}
    for host, info in infos.items():
        live[host] = {}
        for component in components:
            seen = hostvars[host].get(f"rollback_{component}_observe") or {}
            if seen.get("live"):
                live[host][component] = dict(seen["live"])
                continue
            state = (info["states"].get(component) or {}).get("live") or {}
            if state and "version" not in state:  # several databases: the newest flip speaks for the server
                state = max(state.values(), key=lambda entry: str(entry.get("at")))
            if state:
                live[host][component] = {**state, "since": state.get("at")}
    return live


def _soon() -> str:
    """As far as the clocks of two machines may be apart."""
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)).strftime(STAMP)


def _inventory() -> str | None:
    return " -i ".join(shlex.quote(name) for name in context.CLIARGS.get("inventory") or []) or None


def _who(task_vars: dict[str, t.Any]) -> str:
    for name in ("awx_user_name", "tower_user_name"):
        if task_vars.get(name):
            return str(task_vars[name])
    return os.environ.get("SUDO_USER") or user_name()
