# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""Which hosts go together in a gradual rollback, and what is left to be done in which batch. Pure."""

from __future__ import annotations

import math
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import DATABASES, TRAFFIC
from ansible_collections.payops.rollback.plugins.plugin_utils._report import at_version

Batch = t.Dict[str, t.Any]
HostVars = t.Mapping[str, t.Any]


def sizes(wanted: t.Any, hosts: int) -> list[int]:
    """Sizes such as ``[1, "50%", "100%"]`` as numbers of hosts, as many as it takes: percent are of all hosts, the last one repeats."""
    given = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    if not given:
        raise RollbackError("rollback_batches is empty; expected for example [1, 50%, 100%].")
    numbers = []
    for each in given:
        found = re.match(r"\s*(\d{1,6})\s*(%?)\s*\Z", str(each)) if not isinstance(each, bool) else None
        if not found or int(found[1]) < 1 or (found[2] and int(found[1]) > 100):
            raise RollbackError(f"rollback_batches has {each!r}; expected a number of hosts such as 1 or a part of them such as 50%.")
        numbers.append(max(1, math.floor(hosts * int(found[1]) / 100)) if found[2] else int(found[1]))
    result: list[int] = []
    while sum(result) < hosts:
        size = numbers[min(len(result), len(numbers) - 1)]
        result.append(min(size, hosts - sum(result)))
    return result


def batches(hostvars: HostVars, gate: t.Mapping[str, t.Any], wanted: t.Any) -> list[Batch]:
    """``[{number, of, name, hosts, before, after, canary}]``: canaries (``rollback_canary``) first, then as the inventory has them."""
    apps = [name for name in gate["components"] if name not in (*DATABASES, *TRAFFIC)]
    hosts = [str(host) for host in gate["hosts"] if any(name in apps for name in hostvars[host].get("rollback_components") or [])]
    hosts.sort(key=lambda host: str(hostvars[host].get("rollback_canary", False)).lower() not in ("true", "yes", "1", "on"))
    found: list[Batch] = []
    for size in sizes(wanted, len(hosts)):
        begin = sum(len(each["hosts"]) for each in found)
        found.append({"number": len(found) + 1, "hosts": hosts[begin : begin + size], "canary": not found and size < len(hosts)})
    for each in found:
        each.update(of=len(found), before=hosts[: hosts.index(each["hosts"][0])], after=hosts[hosts.index(each["hosts"][-1]) + 1 :])
        each["name"] = _name(each)
    return found


def _name(batch: Batch) -> str:
    return f"batch {batch['number']} of {batch['of']}{' (canary)' if batch['canary'] else ''}: {', '.join(batch['hosts'])}"


def needed(hostvars: HostVars, gate: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> bool:
    """Whether anything on these hosts is not at the version yet. After a crash what was flipped was perhaps never judged."""
    hosts = list(hosts)
    if gate.get("resume") or not _out_of_rotation(hostvars, gate).isdisjoint(_servers(hostvars, hosts)):
        return True
    for host in hosts:
        own = hostvars[host]
        for name in gate["components"]:
            if name in (own.get("rollback_components") or []) and name not in TRAFFIC:
                prepared = own.get(f"rollback_{name}_prepare")
                if prepared and not prepared.get("skipped") and not at_version(prepared):
                    return True
    return False


def _out_of_rotation(hostvars: HostVars, gate: t.Mapping[str, t.Any]) -> set[str]:
    """Servers that a run took out of a proxy and did not bring back, whoever's run that was."""
    return {
        str(key)
        for host in gate["hosts"]
        for name in TRAFFIC
        if name in (hostvars[host].get("rollback_components") or [])
        for key in ((hostvars[host].get(f"rollback_{name}_prepare") or {}).get("before") or {}).get("servers") or {}
    }


def plan(hostvars: HostVars, gate: t.Mapping[str, t.Any], wanted: t.Any) -> list[dict[str, t.Any]]:
    """The batches as the runbook would say them: ``[{name, steps}]``."""
    proxies = [str(host) for host in gate["hosts"] if any(name in TRAFFIC for name in hostvars[host].get("rollback_components") or [])]
    everywhere = _servers(hostvars, gate["hosts"])
    told = []
    for batch in batches(hostvars, gate, wanted):
        if not needed(hostvars, gate, batch["hosts"]):
            told.append({"name": batch["name"], "steps": [f"is at {gate['version']} already; nothing is done there"]})
            continue
        own = _servers(hostvars, batch["hosts"])
        rest = [name for name in everywhere if name not in own]
        steps = []
        if proxies and own:
            steps.append(f"disable new traffic to {', '.join(own)} at {', '.join(proxies)}, wait until no session is left")
            steps.append(f"shift traffic to {', '.join(rest) or 'nobody: this will be refused, take smaller batches'}")
        steps.append(f"update {', '.join(batch['hosts'])} to {gate['version']}, beside the others; verify each")
        if proxies and own:
            steps.append(f"re-enable {', '.join(own)} with the weight that it had")
        told.append({"name": batch["name"], "steps": [*steps, _gate_text(hostvars[batch["hosts"][0]])]})
    return told


def _servers(hostvars: HostVars, hosts: t.Iterable[str]) -> list[str]:
    return [
        f"{each['backend']}/{each['server']}"
        for host in hosts
        for each in hostvars[host].get("rollback_haproxy_servers") or []
        if isinstance(each, dict) and "backend" in each and "server" in each
    ]


def _gate_text(own: HostVars) -> str:
    probes = own.get("rollback_gate_probes") or []
    if not probes:
        return "gate: no threshold is declared (rollback_gate_probes), so only the application's own probes decide"
    return f"gate: {', '.join(str(probe.get('name') or probe.get('type', 'http')) for probe in probes)}; a failure takes this batch back and stops"
