# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure half of the gate: may this command start at all? Every function returns, or raises one sentence for people."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import os
import shlex
import typing as t

import yaml

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name

# Set by ansible-playbook, AWX and Tower themselves; nobody types them by mistake.
FOREIGN_PREFIXES = ("ansible_", "awx_", "tower_")
# Where Ansible puts the words of -e that are not name=value.
LOOSE_WORDS = "_raw_params"
UNTOUCHED = "nothing was touched"
# What an inventory says of a whole system.
SYSTEM_VARIABLES = frozenset(
    (
        "rollback_system",
        "rollback_store",
        "rollback_store_group",
        "rollback_lock_host",
        "rollback_legacy_path",
        "rollback_extra_variables",
        "rollback_keep_count",
        "rollback_keep_days",
        "rollback_batches",
        "rollback_canary",
        "rollback_gate_probes",
        "rollback_gate_seconds",
        "rollback_gate_interval",
        "rollback_gate_patience",
        "rollback_recover_steps",
    )
)


def check_version(version: t.Any) -> str:
    """The version as text. AWX and JSON turn 2.10 into the number 2.1, so a number is refused before all else."""
    if version is None or (isinstance(version, str) and not version.strip()):
        raise RollbackError(
            "The version is empty. Give the name of a point such as -e version=20231201_120000 (rollback_points.yml lists them), "
            "or leave the variable out altogether to mean the latest."
        )
    if isinstance(version, int) and _moment(version):
        return _moment(version)
    if not isinstance(version, str):
        kind = next((plain.__name__ for plain in (bool, int, float, list, dict) if isinstance(version, plain)), "value")
        raise RollbackError(
            f"The version must be text, found the {kind} {version!r}: a survey or JSON changed its type, and "
            f"digits may already be lost. Name points so that they cannot be numbers (v{version}), and in JSON put quotes around it."
        )
    return check_name("The version", str(version))


def _moment(number: int) -> str:
    """YAML, and so AWX, reads 20231201_120000 as the number 20231201120000: of a whole second nothing is lost. Empty for other numbers."""
    text = str(int(number))
    try:
        datetime.datetime.strptime(text, "%Y%m%d%H%M%S")
    except ValueError:
        return ""
    return f"{text[:8]}_{text[8:]}" if len(text) == 14 else ""


def check_number(number: str, version: str, points: t.Container[str]) -> None:
    """A number was read as a moment; refuse that where a point has the number itself for a name."""
    if number and number in points:
        raise RollbackError(
            f"version is the number {number}, which may mean the point {number} or {version} (YAML drops the underscore). "
            f'Put quotes around it: -e \'{{"version": "{number}"}}\'. Nothing was touched.'
        )


def check_loose_words(found: t.Container[str], so: str = UNTOUCHED) -> None:
    """Ansible splits ``-e reason='it was slow'`` at its spaces, for the shell has taken the quotes: the reason would be 'it'.

    The words are not shown, they may belong to a password.
    """
    if LOOSE_WORDS in found:
        raise RollbackError(
            f"A value after -e has spaces, and Ansible cuts it off at the first; {so}. "
            "Put quotes of its own around it, inside those of the shell: -e \"reason='it was slow'\"."
        )


def check_extra_variables(found: t.Iterable[str], known: t.Iterable[str], so: str = UNTOUCHED) -> None:
    """Refuse a variable that nothing would read: a misspelt ``verison=`` must not mean the latest."""
    names = sorted(set(known))
    unknown = [name for name in found if name not in names and not name.startswith(FOREIGN_PREFIXES)]
    if not unknown:
        return
    sentences = []
    for name in unknown:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        sentences.append(f"'{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""))
    raise RollbackError(
        f"Unknown extra variable {', '.join(sentences)}; {so}. "
        "Correct it, or list names of your own in rollback_extra_variables in the inventory.",
        unknown=unknown,
    )


def members(components_by_host: dict[str, t.Any]) -> dict[str, list[str]]:
    """The hosts of the system with their components, checked for shape."""
    found: dict[str, list[str]] = {}
    for host, components in components_by_host.items():
        if components is None:
            continue
        if not isinstance(components, (list, tuple)) or any(not isinstance(name, str) for name in components):
            raise RollbackError(
                f"rollback_components of host {host} is {components!r}; expected a list such as [pm2]. Correct it in the inventory."
            )
        if components:
            found[str(host)] = [str(name) for name in components]
    if not found:
        raise RollbackError(
            "No host of this inventory has rollback_components, so there is nothing to do. "
            "Set rollback_components: [postgresql] or [pm2] for the hosts that have them, or give another -i."
        )
    return found


def check_components(hosts: dict[str, list[str]], known: t.Iterable[str], wanted: t.Sequence[str]) -> None:
    """Every component that an inventory names has a role, and at least one host has one that this playbook is about."""
    names = sorted(set(known))
    for host, components in hosts.items():
        for component in components:
            if component not in names:
                close = difflib.get_close_matches(component, names, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise RollbackError(f"Host {host} has the unknown component {component!r}; known are {', '.join(names)}.{hint}")
    if not any(component in wanted for components in hosts.values() for component in components):
        raise RollbackError(
            f"This playbook is about {', '.join(wanted)}, but no host of the inventory has one of them in rollback_components. "
            "Use the playbook that fits, or correct the inventory."
        )


def check_limit(hosts: t.Iterable[str], playing: t.Iterable[str], allow_partial: bool) -> list[str]:
    """The hosts of the system that take part; a part of them only when that was said aloud."""
    everyone = list(hosts)
    here = set(playing)
    missing = [host for host in everyone if host not in here]
    if missing and not allow_partial:
        raise RollbackError(
            f"--limit leaves out {', '.join(missing)}: the hosts of one system would run different versions. "
            "Leave --limit away, or accept that with -e allow_partial=true."
        )
    taking_part = [host for host in everyone if host in here]
    if not taking_part:
        raise RollbackError(f"--limit leaves no host of this system ({', '.join(everyone)}); nothing would be done.")
    return taking_part


def check_answers(playing: t.Sequence[str], answered: t.Container[str], active: t.Container[str]) -> None:
    """Every host has answered, and none failed in a play before: it would be left behind at another version."""
    silent = [host for host in playing if host not in answered or host not in active]
    if silent:
        raise RollbackError(
            f"Host {', '.join(silent)} did not answer, or failed before, so it would be left behind at another version; this run touched nothing. "
            "Repair it and run the same command again, or leave it out with --limit and -e allow_partial=true."
        )


def run_id_of(identity: dict[str, t.Any], intent: str, version: str) -> str:
    """Eight hexadecimal digits, the same for every task of one ansible-playbook process and intent."""
    text = "|".join(str(identity[key]) for key in sorted(identity)) + f"|{intent}|{version}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def playbook_form(called: t.Sequence[str]) -> str:
    """How to name another playbook of ours so that it can be typed where this one was: ``{}`` stands for its name.

    Beside the one that was called, or by collection name, where somebody's own playbook has imported ours.
    """
    path = str(called[0]) if called else ""
    folder = os.path.dirname(path)
    if path.endswith((".yml", ".yaml")) and os.path.isfile(os.path.join(folder, "undo.yml")):
        return shlex.quote(os.path.join(folder, "NAME.yml")).replace("{", "{{").replace("}", "}}").replace("NAME", "{}")
    return "payops.rollback.{}"


ROLLBACKS = ("full", "database", "application", "gradual")
# How a run ended that left something which undo can take back. An open one may have.
REVERSIBLE = (None, "done", "lost", "taken_over", "partial")
UNFINISHED = ("lost", "taken_over", "partial")


class Last(t.NamedTuple):
    """The rollback that ``undo`` is about, and what came after it."""

    target: dict[str, t.Any] | None
    undone_by: dict[str, t.Any] | None
    completed_by: dict[str, t.Any] | None
    runs: list[str]  # the target and the runs that it took over on the way to the same point: one rollback to people


def last_rollback(runs: t.Iterable[dict[str, t.Any]]) -> Last:
    """``runs`` are run records of any number of hosts, in any order, repeated or not."""
    newest = sorted({str(run["run"]): run for run in runs}.values(), key=lambda run: str(run.get("since")), reverse=True)
    undone_by = completed_by = None
    for number, run in enumerate(newest):
        if run.get("intent") == "undo" and run.get("outcome") == "done":
            undone_by = undone_by or run
        elif run.get("intent") == "complete" and run.get("outcome") not in ("failed", "refused"):
            completed_by = completed_by or run
        elif run.get("intent") in ROLLBACKS and run.get("outcome") in REVERSIBLE:
            return Last(run, undone_by, completed_by, [str(run["run"]), *_same_way(run, newest[number + 1 :])])
    return Last(None, undone_by, completed_by, [])


def halfway(runs: t.Iterable[dict[str, t.Any]]) -> str | None:
    """Where a gradual rollback was going that stopped at one of its batches and was neither finished nor taken back since."""
    last = last_rollback(runs)
    stopped = last.target is not None and last.target.get("intent") == "gradual" and last.target.get("outcome") == "partial"
    return str(last.target["version"]) if last.target is not None and stopped and not last.undone_by and not last.completed_by else None


def check_target(intent: str, version: t.Any, target: dict[str, t.Any] | None) -> None:
    """undo and complete are about the last rollback; somebody who names another point means something else."""
    if intent not in ("undo", "complete") or target is None or not isinstance(version, str) or version in ("", "latest", "previous"):
        return
    if version != target.get("version"):
        raise RollbackError(
            f"{intent}.yml is about the last rollback, which went to {target.get('version')} (run {target.get('run')}), "
            f"but the command names {version}. Leave version away if that rollback is meant; "
            f"to go to {version}, type rollback_full.yml -e version={version}."
        )


def _same_way(target: dict[str, t.Any], older: t.Iterable[dict[str, t.Any]]) -> list[str]:
    """Unfinished attempts at the same point before the target: what they had flipped it found flipped.

    Runs that flipped nothing (a recover, a backup, a complete that was refused), and those that took back what they had
    flipped, do not stand between.
    """
    found = []
    for run in older:
        if run.get("intent") in ROLLBACKS and run.get("outcome") in REVERSIBLE:
            if run.get("outcome") not in UNFINISHED or run.get("version") != target.get("version"):
                break
            found.append(str(run["run"]))
        elif run.get("intent") in ("undo", "complete") and run.get("outcome") not in ("failed", "refused"):
            break
    return found


def option_names(roles_dir: str) -> set[str]:
    """Every variable that an argument spec of our roles declares."""
    names: set[str] = set()
    for role in os.listdir(roles_dir):
        path = os.path.join(roles_dir, role, "meta", "argument_specs.yml")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as handle:
                specs = yaml.safe_load(handle)["argument_specs"]
            names.update(name for spec in specs.values() for name in spec.get("options", {}))
    return names


def component_roles(roles_dir: str) -> list[str]:
    """The components that this collection knows: one role ``rollback_<component>`` each."""
    prefix = "rollback_"
    return sorted(name[len(prefix) :] for name in os.listdir(roles_dir) if name.startswith(prefix))
