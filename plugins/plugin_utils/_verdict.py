# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""Is the system healthy, as far as anybody looked? And which releases does that make good or bad? Pure.

Healthy has three values. ``None`` is "not checked": nobody asked, or all that is known is that a port accepts connections, which a
process that answers 500 to every payment does, too. A release is called good for ``True`` alone.
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._merge import DATABASES
from ansible_collections.payops.rollback.plugins.module_utils._releases import merge_releases, release_marks

# Probes that say nothing about what is answered.
PORT_ONLY = ("tcp", "tls")
HostVars = t.Mapping[str, t.Any]


class Part(t.NamedTuple):
    """What is known of one component on one host."""

    host: str
    component: str
    healthy: bool | None
    text: str
    asked: bool


def judge(result: t.Mapping[str, t.Any] | None) -> tuple[bool | None, str]:
    """What a probing module's result (health_probe or pg_check) says."""
    if not result or result.get("skipped"):
        return None, "nobody looked"
    if result.get("failed") or not ("checks" in result or result.get("ok")):
        return False, str(result.get("msg") or "the check itself failed and did not say why")
    probes = result.get("probes")
    if probes is None:
        return True, str(result.get("msg") or "checked")
    if all(probe.get("type") in PORT_ONLY for probe in probes):
        return None, f"only that the port answers ({', '.join(str(probe.get('name')) for probe in probes)}); declare http probes"
    return True, f"{len(probes)} probe(s) succeeded: {', '.join(str(probe.get('name')) for probe in probes)}"


def parts(hostvars: HostVars, hosts: t.Iterable[str], components: t.Iterable[str], verb: str) -> list[Part]:
    """One entry for each component on each host. A backup asks nothing of databases: it reads all of them."""
    found = []
    names = [str(name) for name in components]
    for host in hosts:
        own = hostvars[host]
        for name in names:
            if name not in (own.get("rollback_components") or []):
                continue
            result = own.get(f"rollback_{name}_{verb}")
            if verb != "healthy" or name not in DATABASES:
                found.append(Part(str(host), name, *judge(result), bool(result) and not result.get("skipped")))
    return found


def health(hostvars: HostVars, hosts: t.Iterable[str], components: t.Iterable[str], verb: str) -> dict[str, t.Any]:
    """``healthy`` (true, false, none), ``asked`` (whether every part was looked at), ``text`` in a few words, and
    ``parts``: host -> component -> sentence.
    """
    found = parts(hostvars, hosts, components, verb)
    told: dict[str, dict[str, str]] = {}
    for part in found:
        told.setdefault(part.host, {})[part.component] = part.text if part.healthy is not None else f"NOT CHECKED: {part.text}"
        if part.healthy is False:
            told[part.host][part.component] = f"NOT HEALTHY: {part.text}"
    sick = [part for part in found if part.healthy is False]
    unknown = [part for part in found if part.healthy is None]
    asked = bool(found) and all(part.asked for part in found)
    if sick:
        return {"healthy": False, "asked": asked, "text": "NO: " + _named(sick), "parts": told}
    if unknown or not found:
        return {"healthy": None, "asked": asked, "text": "not checked: " + (_named(unknown) or "nothing was asked"), "parts": told}
    return {"healthy": True, "asked": asked, "text": "yes", "parts": told}


def _named(found: t.Sequence[Part]) -> str:
    """The hosts that say the same stand together."""
    hosts: dict[str, list[str]] = {}
    for part in found:
        hosts.setdefault(part.text, []).append(part.host)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in hosts.items())


def releases_of(hostvars: HostVars, hosts: t.Iterable[str], components: t.Iterable[str], verb: str) -> list[str]:
    """The releases that a verb's results call live (for backup: that were copied)."""
    found = set()
    names = [str(name) for name in components]
    for host in hosts:
        own = hostvars[host]
        for name in names:
            result = own.get(f"rollback_{name}_{verb}") or {}
            release = result.get("release") if verb == "backup" else (result.get("live") or {}).get("release")
            if release and name in (own.get("rollback_components") or []):
                found.add(str(release))
    return sorted(found)


def known_releases(hostvars: HostVars, hosts: t.Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """What the system knew about releases when the run began."""
    return merge_releases((hostvars[host].get("transaction_info") or {}).get("releases") or {} for host in hosts)


def flip_marks(hostvars: HostVars, gate: t.Mapping[str, t.Any], corruption: bool = False, why: str = "") -> list[dict[str, t.Any]]:
    """The marks that a rollback leads to once it was verified."""
    hosts, components = gate["hosts"], gate["components"]
    entered = releases_of(hostvars, hosts, components, "flip")
    if not entered:
        return []  # nothing was left: the same command again, or the databases alone
    marks = release_marks(
        releases_of(hostvars, hosts, components, "observe"),
        entered,
        health(hostvars, hosts, components, "verify")["healthy"] is True,
        "corruption" if corruption else "rollback",
        str(why) if why else None,
        known_releases(hostvars, hosts),
    )
    return [{**mark, "version": gate.get("version")} if mark["status"] == "good" else mark for mark in marks]


def backup_marks(hostvars: HostVars, gate: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """The marks that a backup leads to: what was healthy when it was copied is good."""
    hosts, components = gate["hosts"], gate["components"]
    return release_marks(
        [],
        releases_of(hostvars, hosts, components, "backup"),
        health(hostvars, hosts, components, "healthy")["healthy"] is True,
        "backup",
        f"healthy when point {gate.get('version')} was taken",
    )
