# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""From what the hosts answered to what a person reads at the end: the inputs of run_table and plan_table. Pure."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._decide import REPLACED, command
from ansible_collections.payops.rollback.plugins.module_utils._merge import DATABASES, TRAFFIC
from ansible_collections.payops.rollback.plugins.plugin_utils._outage import emergency_of, journals, measured, outage_parts
from ansible_collections.payops.rollback.plugins.plugin_utils._remarks import found_later, in_a_row, notes, obstacles, taken_over
from ansible_collections.payops.rollback.plugins.plugin_utils._rows import Answers, dropped_points, foreseen, gone, recall, rows_of
from ansible_collections.payops.rollback.plugins.plugin_utils._verdict import health

VERBS = ("backup", "prepare", "hold", "away", "flip", "back", "share", "undo", "stop", "start", "complete")
# Verbs that change what customers meet; the others happen beside the live system.
ACTING = ("backup", "hold", "away", "flip", "back", "share", "undo", "stop", "start", "complete")
# Runs that exchange something, so that there is something to take back.
ROLLBACKS = ("full", "database", "application", "gradual")


def answers(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], components: t.Iterable[str]) -> Answers:
    """host -> component -> verb -> module result, as the component roles registered them."""
    found: Answers = {}
    names = list(components)
    for host in hosts:
        own = hostvars[host]
        for component in names:
            if component in (own.get("rollback_components") or []):
                results = {verb: own.get(f"rollback_{component}_{verb}") for verb in (*VERBS, "observe", "verify")}
                found.setdefault(str(host), {})[str(component)] = {
                    verb: result for verb, result in results.items() if result is not None and not result.get("skipped")
                }
    return found


def at_version(result: t.Mapping[str, t.Any]) -> bool:
    """Whether a component that answered to prepare has nothing to flip: said at the top, or for every database."""
    if result.get("at_version") is not None:
        return bool(result["at_version"])
    databases = result.get("databases")
    return (
        isinstance(databases, dict)
        and bool(databases)
        and all(
            # one that was restored beside it although it is at the version (again=true) waits to be flipped in,
            # and rows that an interrupted run left wait to be carried back
            (entry or {}).get("at_version") and not (entry or {}).get("staged") and not (entry or {}).get("to_carry")
            for entry in databases.values()
        )
    )


def lost_hosts(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> dict[str, str]:
    """host -> why it could not go back. A host that stopped answering runs no rescue, so it never says ``transaction_answers``."""
    names = [str(host) for host in hosts]
    lost = {host: "; ".join(dict.fromkeys(map(str, parts.values()))) for host, parts in _lost_parts(hostvars, names).items()}
    if any(hostvars[host].get("transaction_answers") for host in names):
        lost.update({host: "it did not answer any more" for host in names if not hostvars[host].get("transaction_answers")})
    return lost


def _lost_parts(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> dict[str, dict[str, str]]:
    """host -> component -> why that could not go back; the host's other components have."""
    return {str(host): hostvars[host]["transaction_lost"] for host in hosts if hostvars[host].get("transaction_lost")}


def _replaced(lost: t.Mapping[str, str]) -> bool:
    """Whether nothing went wrong on the way back but that another run had taken the lock over, which does the rest."""
    return bool(lost) and all(REPLACED in why for why in lost.values())


def not_stopped(found: Answers) -> dict[str, dict[str, str]]:
    """host -> component -> why an emergency did not stop it: it may still take payments."""
    running: dict[str, dict[str, str]] = {}
    for host, parts in found.items():
        for name, results in parts.items():
            stop = results.get("stop")
            if stop is None or stop.get("failed") or stop.get("unreachable"):
                why = "nobody came to stop it" if stop is None else str(stop.get("msg") or "it did not say why")
                running.setdefault(host, {})[name] = why
    return running


def stops_sentence(hostvars: t.Mapping[str, t.Any], host: str, components: t.Sequence[str]) -> str:
    """What an emergency did not stop on a host, or could not write down there; empty where all is as it should be."""
    found = answers(hostvars, [host], components)
    texts = [f"{name} on {host} is NOT STOPPED: {why}" for name, why in not_stopped(found).get(host, {}).items()]
    for name, results in found.get(host, {}).items():
        why = (results.get("stop") or {}).get("unrecorded")
        if why:
            texts.append(
                f"{name} on {host} is stopped, but this could not be written down there, and nobody holds the lock of that host: {why}"
            )
    return " ".join(texts)


def run_report(
    hostvars: t.Mapping[str, t.Any],
    gate: t.Mapping[str, t.Any],
    outcome: str,
    system: str,
    intent: str,
    reason: str = "",
    components: t.Sequence[str] | None = None,
) -> dict[str, t.Any]:
    """What ``run_table`` takes."""
    found = answered = answers(hostvars, gate["hosts"], components or gate["components"])
    if intent != "emergency":  # what an emergency of the same playbook stopped is not what became of it
        found = {host: {name: {**results, "stop": {}} for name, results in parts.items()} for host, parts in found.items()}
    failure, sick = (_each(hostvars, gate["hosts"], f"transaction_{name}") for name in ("failure", "unhealthy"))
    lost, parts_lost = lost_hosts(hostvars, gate["hosts"]), _lost_parts(hostvars, gate["hosts"])
    running = not_stopped(found) if outcome == "stopped" else {}
    before = recall(journals(hostvars, gate["hosts"]) if outcome == "done" and gate.get("resume") and intent in ROLLBACKS else {})
    rows = before.rows | rows_of(found, "undo" if outcome in ("undone", "lost", "failed") or intent == "undo" else "flip")
    report: dict[str, t.Any] = {
        "system": system,
        "intent": intent,
        "outcome": "not_stopped" if running else outcome,
        "from": _from(found, gate.get("version")) if intent not in ("backup", "complete") else None,
        "to": gate.get("version") if intent not in ("undo", "complete") else (gate.get("target") or {}).get("before"),
        "outage_ms": measured(hostvars, gate["hosts"], answered, gate.get("run_id")),
        "health": health_text(hostvars, gate["hosts"], components or gate["components"], "healthy" if intent == "backup" else "verify"),
        "seconds": datetime.datetime.now(datetime.timezone.utc).timestamp() - float(gate.get("started") or 0),
        "who": gate.get("who"),
        "reason": reason,
        "run_id": gate.get("run_id"),
        "hosts": {
            host: {
                name: _row(results, (parts_lost.get(host) or dict.fromkeys(parts, lost.get(host))).get(name), before.kept.get((host, name)))
                for name, results in parts.items()
            }
            for host, parts in found.items()
        },
        "rows": rows,
        "gone": gone(found),
        "msg": "; ".join(f"{host}: {text}" for host, text in failure.items()),
        "next": found_later(found) + _next(gate, outcome, intent, lost, sick, rows, running),
    }
    for host, names in running.items():
        for name, why in names.items():
            report["hosts"][host][name]["did"] = f"NOT STOPPED: {why}"
    for host, parts in found.items():
        for name, results in parts.items():
            if (results.get("stop") or {}).get("unrecorded"):
                report["hosts"][host][name]["did"] = f"stopped, not written down: {results['stop']['unrecorded']}"
    if intent == "verify":
        verdict = health(hostvars, gate["hosts"], components or gate["components"], "verify")
        report["outcome"] = {True: "healthy", False: "sick", None: "unchecked"}[verdict["healthy"]]
        report["hosts"] = {host: {name: {"did": text} for name, text in told.items()} for host, told in verdict["parts"].items()}
        report["from"] = report["to"] = None
        report["next"] = []  # the line on health has said it
    if intent == "backup" and outcome == "done" and report["health"] != "yes":
        report["next"] += [
            f"This point is not a good release; latest passes it over. Go back to it by name: -e version={gate.get('version')}"
        ]
    if intent == "backup" and outcome == "done":
        report["next"] += dropped_points(hostvars, gate["hosts"])
    if intent == "undo":
        report["from"], report["to"] = gate.get("version"), "before it"
    if intent == "emergency":
        report["next"] = [*taken_over(hostvars, gate["hosts"]), *report["next"]]
        for row in (row for parts in report["hosts"].values() for row in parts.values()):
            row["kept"] = None  # what an earlier rollback keeps is not of interest now
    if outcome == "planned":
        told = ["Nothing was changed. The same command without --check does it."] if not lost else ["Nothing was changed."]
        report.update(_planned(found), seconds=None, run_id=None, next=told)
    return report


def _planned(found: Answers) -> dict[str, t.Any]:
    """What stands in the table of a check: what each component said that it would do, and nothing that is kept yet."""
    hosts: dict[str, dict[str, t.Any]] = {}
    for host, parts in found.items():
        for name, results in parts.items():
            last: t.Mapping[str, t.Any] = next((results[verb] for verb in reversed(ACTING) if results.get(verb)), {})
            texts = [f"BLOCKED: {text}" for text in obstacles(last)]
            texts += [str(text) for text in last.get("plan") or []] or [str(last.get("msg") or "nothing to do")]
            hosts.setdefault(host, {})[name] = {"did": in_a_row(texts)}
    return {"hosts": hosts, "outage_ms": None}


def health_text(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], components: t.Sequence[str], verb: str) -> str | None:
    """What a table says of health; None where the run did not come to ask."""
    names = list(hosts)
    if not any(f"rollback_{component}_{verb}" in hostvars[host] for host in names for component in components):
        return None
    return str(health(hostvars, names, components, verb)["text"])


def failed_sentence(hostvars: t.Mapping[str, t.Any], gate: t.Mapping[str, t.Any], outcome: str = "failed") -> str:
    """The one sentence that a failed run ends with: where every host is now, and each reason once."""
    lost = lost_hosts(hostvars, gate["hosts"])
    idle = any(hostvars[host].get("transaction_flipping") is False for host in gate["hosts"])
    where = {
        "failed": f"nothing was changed, because everything is at {gate.get('version')} already" if idle else None,
        "undone": "every host is back at the version it had",
        "lost": "another run has taken its place and says how it ends"
        if _replaced(lost)
        else f"{', '.join(lost)} could not go back (repair: undo.yml)",
        "partial": _where_it_stopped(hostvars, gate),
        "done": "every batch is done, but the system as a whole is not healthy (verify.yml looks again, undo.yml takes all of it back)",
        "not_started": "not everything that was stopped runs again (repair what is named here, then recover.yml again)",
    }.get(outcome)
    reasons = [*_each(hostvars, gate["hosts"], "transaction_failure").values(), *lost.values()]
    why = "; ".join(dict.fromkeys(reasons)) or "the same on another host"
    return f"It failed{f', and {where}' if where else ' before anything live was touched'}: {why}"


def _where_it_stopped(hostvars: t.Mapping[str, t.Any], gate: t.Mapping[str, t.Any]) -> str:
    """A gradual rollback that stopped: which hosts are done, which went back, which were not touched."""
    batch = next((hostvars[host]["transaction_stopped"] for host in gate["hosts"] if hostvars[host].get("transaction_stopped")), None)
    if batch is None:
        return ""
    hosts = [str(host) for host in batch["hosts"]]
    others = [str(host) for host in batch.get("before") or []]
    after = [str(host) for host in batch.get("after") or []]
    rest = f"; {', '.join(after)} {'was' if len(after) == 1 else 'were'} not touched" if after else ""
    return (
        f"it stopped at batch {batch['number']} of {batch['of']}: {', '.join(hosts)} {'is' if len(hosts) == 1 else 'are'} back at the version "
        f"from before, {', '.join(others)} {'stays' if len(others) == 1 else 'stay'} at {gate.get('version')}{rest}. "
        "The same command goes on from there, undo.yml takes the finished batches back"
    )


def plan_report(
    hostvars: t.Mapping[str, t.Any],
    gate: t.Mapping[str, t.Any],
    system: str,
    intent: str,
    hold: t.Container[str],
    batches: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> dict[str, t.Any]:
    """What ``plan_table`` takes. ``hold``: the components that answer 503 while the databases flip."""
    found = answers(hostvars, gate["hosts"], gate["components"])
    estimates: list[dict[str, t.Any]] = []
    rows: dict[str, t.Any] = {}
    hosts: dict[str, dict[str, t.Any]] = {}
    for host, parts in found.items():
        for name, results in parts.items():
            prepared = results.get("prepare") or {}
            plan = [str(text) for text in prepared.get("plan") or []] + [f"note: {text}" for text in notes(prepared)]
            if at_version(prepared) and name not in TRAFFIC:
                plan = [f"is at {gate['version']} already"]
            hosts.setdefault(host, {})[name] = {"plan": plan, "blockers": obstacles(prepared)}
            estimates += [prepared["estimate"]] if prepared.get("estimate") else []
            rows.update(foreseen(prepared))
    prepares = [
        (host, name, results["prepare"]) for host, parts in found.items() for name, results in parts.items() if results.get("prepare")
    ]
    flips = any(not at_version(prepared) for host, name, prepared in prepares)
    # An application that is at the version already is held, too, while anything else flips: it must not write meanwhile.
    held = [each for each in prepares if each[1] in hold and (not at_version(each[2]) or (flips and each[1] not in TRAFFIC))]
    for host, name, prepared in held:
        # Beside a database flip the release does not start beside the old one: nothing may write meanwhile.
        untrue = ("(no outage)", "nobody is served meanwhile", "no second project serves meanwhile")
        lines = [text for text in hosts[host][name]["plan"] if not any(words in text for words in untrue)]
        hosts[host][name]["plan"] = ["answer 503 with Retry-After from before the databases flip until the release runs", *lines]
    made_of = outage_parts(estimates, [prepared for host, name, prepared in held])
    staging = [each["staging_seconds"] for each in estimates if each.get("staging_seconds") is not None]
    return {
        "system": system,
        "intent": intent,
        "from": _from(found, gate.get("version")),
        "to": gate.get("version"),
        "staging_seconds": max(staging) if staging else None,
        "staging_is_least": any(each.get("staging_is_least") for each in estimates),
        "outage_ms": round(1000 * sum(seconds for seconds, what in made_of), 1) if made_of else None,
        "outage_parts": made_of if len(made_of) > 1 else [],
        "batches": [dict(batch) for batch in batches],
        "hosts": hosts,
        "rows": rows,
        "skipped": gate.get("passed_over") or [],
        "warnings": gate.get("warnings") or [],
    }


def _moment(deadline: t.Any) -> str:
    if isinstance(deadline, (int, float)):
        return datetime.datetime.fromtimestamp(deadline, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(deadline or "none")


def _each(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], name: str) -> dict[str, str]:
    return {str(host): str(hostvars[host][name]) for host in hosts if hostvars[host].get(name)}


def _from(found: Answers, to: t.Any = None) -> str | None:
    """Which version the code was at before: the point that holds it, else the start of its hash. Hosts at ``to`` come last. Data has no version."""
    named: list[str] = []
    for parts in found.values():
        for results in parts.values():
            live = (results.get("observe") or {}).get("live") or {}
            if live.get("version") or live.get("release"):
                named.append(str(live.get("version") or f"release {str(live['release'])[:12]}"))
    data_alone = found and all(name in DATABASES for parts in found.values() for name in parts)
    return next((name for name in named if name != to), named[0] if named else "the live data" if data_alone else None)


def _row(results: dict[str, t.Any], lost: str | None, before: str | None = None) -> dict[str, t.Any]:
    acted = [verb for verb in ACTING if verb in results]
    steps = [step for result in results.values() for step in result.get("steps") or []]
    did = next((str(results[verb].get("msg") or "") for verb in reversed(acted) if results[verb].get("msg")), "")
    if lost:
        did = f"COULD NOT GO BACK: {lost}"
    elif at_version(results.get("prepare") or {}) and not any(results[verb].get("changed") for verb in acted):
        did = "was there already"
    kept: t.Any = next((results[verb]["kept"] for verb in reversed(acted) if results[verb].get("kept")), before)
    if isinstance(kept, dict):
        kept = kept.get("path") or ", ".join(str(value) for value in kept.values() if isinstance(value, str))
    return {"did": did, "kept": kept, "seconds": round(sum(float(step.get("ms") or 0) for step in steps) / 1000, 2)}


def _next(
    gate: t.Mapping[str, t.Any],
    outcome: str,
    intent: str,
    lost: dict[str, str],
    sick: dict[str, str],
    rows: dict[str, t.Any],
    running: t.Mapping[str, t.Mapping[str, str]] | None = None,
) -> list[str]:
    if _replaced(lost):
        return [f"Another run has taken the place of this one and says how it ends. How things stand: {command('points', dict(gate))}"]
    if lost:
        return [f"{', '.join(lost)} could not go back. Repair with: {command('undo', dict(gate))}"]
    texts = []
    if sick:
        texts.append(f"What runs now is not healthy: {'; '.join(f'{host}: {text}' for host, text in sick.items())}")
    if outcome == "partial":
        texts.append(f"Repair what failed, then go on with the same command. Take the finished batches back: {command('undo', dict(gate))}")
    if outcome in ("done", "undone") and intent in (*ROLLBACKS, "undo"):
        left = sum(int(entry.get("left") or 0) for entry in rows.values())
        if left:
            places = sorted({str(entry["left_in"]) for entry in rows.values() if entry.get("left") and entry.get("left_in")})
            texts.append(f"{left} newer rows were not carried back; they are in {', '.join(places) or 'what was kept'}.")
    if outcome == "done" and intent in ROLLBACKS:
        texts.append(f"Take it back: {command('undo', dict(gate))}")
        texts.append(f"It was right; drop what was replaced: {command('complete', dict(gate))}")
    if outcome == "stopped":
        where = "; ".join(f"{', '.join(names)} on {host}" for host, names in (running or {}).items())
        if where:
            texts.append(f"NOT STOPPED: {where}. It may still take payments. Type the same command again, or stop it there by hand.")
        texts.append(f"{'Then go' if where else 'Everything is stopped. Go'} on with: {command('full', dict(gate), '<point>')}")
        texts.append(f"To start again what was stopped: {command('recover', dict(gate))}")
    return texts


def misfits(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], components: t.Iterable[str]) -> list[str]:
    """What the components that stay differ in from the point, one sentence each."""
    texts: list[str] = []
    names = list(components)
    for host in hosts:
        for component in names:
            result = hostvars[host].get(f"rollback_{component}_inspect") or {}
            databases = result.get("databases")
            for database, entry in (databases if isinstance(databases, dict) else {}).items():
                different = [str(text) for text in entry.get("catalogue_differences") or []]
                more = f" and {len(different) - 3} more" if len(different) > 3 else ""
                if different:
                    texts.append(f"the schema of {database} on {host} has changed ({'; '.join(different[:3])}{more})")
            live = result.get("live") or {}
            if result.get("at_version") is False and live.get("release"):
                texts.append(f"{result.get('app') or component} on {host} runs the release {live.get('version') or live['release'][:12]}")
    return texts


def notices(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], gate: t.Mapping[str, t.Any]) -> list[str]:
    """What a list of points says first: what is held closed, and runs that did not finish, each with the command that ends it."""
    texts: list[str] = []
    stopped = _stopped([hostvars[host].get("transaction_info") or {} for host in hosts])
    held = [f"{stopped} To start again what was stopped: {command('recover', dict(gate))}"] if stopped else []
    undo, seen = command("undo", dict(gate)), set()
    for host in hosts:
        info = hostvars[host].get("transaction_info") or {}
        for hold in info.get("holds") or []:
            held.append(
                f"{hold.get('component')} on {host} answers 503 since {hold.get('since')} (deadline {_moment(hold.get('deadline'))}). End it: {undo}"
            )
        for run in [info.get("lock"), *(info.get("unfinished") or [])]:
            if run and run["run"] not in seen:
                seen.add(run["run"])
                target = f" to {run['version']}" if run.get("version") else ""
                back = f"; {undo} takes it back" if run.get("intent") in ROLLBACKS else ""
                texts.append(f"Run {run['run']} ({run.get('intent')}{target}, by {run.get('who')}) did not finish or is under way. "
                             f"The same command again finishes it{back}.")  # fmt: skip
    return held + texts


def _stopped(infos: t.Iterable[t.Mapping[str, t.Any]]) -> str:
    """One sentence if the last run that stopped or started anything was an emergency."""
    last = emergency_of(infos)
    since = str(last.get("since"))[:19].replace("T", " ")
    return (
        f"Everything was stopped at {since} UTC by {last.get('who') or 'nobody named'} (emergency, run {last.get('run')})." if last else ""
    )
