# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""How long nobody is served: what a plan foresees, and what the journals of a run say. Pure."""

from __future__ import annotations

import datetime
import typing as t

# Runs that stop everything, or start everything again; a rollback of one part leaves the other as it is.
STOPPING_OR_STARTING = ("emergency", "recover", "undo", "full")
BOOT = 3.0  # seconds until a release that was never tried on its host answers its probes
ROUND_TRIP = 2.0  # seconds for the calls from hold to start: three modules, each some tasks of the controller


def outage_parts(estimates: t.Sequence[t.Mapping[str, t.Any]], held: t.Sequence[t.Mapping[str, t.Any]]) -> list[tuple[float, str]]:
    """What the outage will be made of, each part with its seconds. Hosts work at the same time, so the slowest counts."""
    parts: list[tuple[float, str]] = []
    flips = [each for each in estimates if each.get("outage_ms") is not None]
    if flips:
        slowest = max(flips, key=lambda each: float(each["outage_ms"]))
        source = " (as the last one took)" if slowest.get("outage_is_measured") else " (none was measured on the host yet)"
        parts.append((float(slowest["outage_ms"]) / 1000, f"flip{source if 'outage_is_measured' in slowest else ''}"))
    if held:
        recheck = max([float(each.get("recheck_seconds") or 0) for each in estimates] or [0.0])
        parts += [(recheck, "last look at the restored databases")] if recheck else []
        boots = [float(each["boot_seconds"]) for each in held if each.get("boot_seconds") is not None]
        tried = len(boots) == len(held)
        parts.append((ROUND_TRIP, "between the hosts and the controller"))
        parts.append(
            (max(boots), "start of the release until it answers its probes, as in its preflight")
            if tried
            else (max([BOOT, *boots]), "start of the release until it answers its probes (a guess: it was not tried yet)")
        )
    return parts


def emergency_of(infos: t.Iterable[t.Mapping[str, t.Any]]) -> t.Mapping[str, t.Any]:
    """The emergency that stopped everything, where nothing has started everything again since; empty where there is none.

    ``infos``: what each host says of itself. Each has a record of its own; the one that was first counts.
    """
    runs = [run for info in infos for run in info.get("runs") or []]
    moved = [run for run in runs if run.get("intent") in STOPPING_OR_STARTING and run.get("outcome") in ("stopped", "done")]
    last: t.Mapping[str, t.Any] = max(moved, key=lambda run: str(run.get("since")), default={})
    same = [run for run in moved if run.get("run") == last.get("run")]
    return min(same, key=lambda run: str(run.get("since"))) if last.get("intent") == "emergency" else {}


def closed_before(infos: t.Iterable[t.Mapping[str, t.Any]], run_id: t.Any = None) -> list[str]:
    """When runs before this one took the applications away: an emergency, or a run that died and left them held."""
    known = list(infos)
    held = [hold.get("since") for info in known for hold in info.get("holds") or [] if hold.get("run") != run_id]
    return [str(stamp) for stamp in (emergency_of(known).get("since"), *held) if stamp]


def outage(
    found: t.Mapping[str, t.Mapping[str, t.Mapping[str, t.Any]]],
    journals: t.Iterable[t.Sequence[t.Mapping[str, t.Any]]] = (),
    before: t.Iterable[str] = (),
) -> float | None:
    """Milliseconds in which nobody who came anew was served, as the journals of the hosts say (one sequence of records per host).

    It begins when the workers of an application stop accepting (step ``leave``), unless the next release serves beside them already
    (``green``; a second project, which ``recreate`` names in ``beside``), and ends with the first answer of the next release (``serve``).
    So a run that was killed and continued is measured as a whole. What an earlier run took away is away since then (``before``).
    Where no application was taken away, what the flip of the databases measured.
    """
    closed = [moment for stamp in before if (moment := _seconds(stamp)) is not None]
    served: list[float] = []
    for journal in journals:
        beside = False
        for record in journal:
            step, ended = record.get("step"), record.get("phase") == "end"
            if step == "green" and ended:
                beside = True
            elif step in ("leave", "recreate") and not ended and not beside and not record.get("beside"):
                closed += [moment] if (moment := _seconds(record.get("at"))) is not None else []
            elif step == "serve" and ended:
                began = _seconds(record.get("started"))
                end = None if began is None else began + float(record.get("ms") or 0) / 1000
                first = _seconds(record.get("first_answer")) or end
                served += [] if beside or first is None else [first]
                beside = False
    if closed and served and max(served) > min(closed):
        return round((max(served) - min(closed)) * 1000, 1)
    measured = [
        float(results[verb]["outage_ms"])
        for parts in found.values()
        for results in parts.values()
        for verb in ("flip", "undo")
        if (results.get(verb) or {}).get("outage_ms") is not None
    ]
    return max(measured) if measured else None


def journals(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> dict[str, list[dict[str, t.Any]]]:
    """What each host wrote down of the run, whole, as it was closed."""
    return {host: (hostvars[host].get("transaction_closed") or {}).get("journal") or [] for host in hosts}


def measured(hostvars: t.Mapping[str, t.Any], hosts: t.Sequence[str], found: t.Mapping[str, t.Any], run_id: t.Any) -> float | None:
    """The outage of a run in milliseconds, from what the hosts said when it began and when it was closed."""
    return outage(
        found, journals(hostvars, hosts).values(), closed_before([hostvars[host].get("transaction_info") or {} for host in hosts], run_id)
    )


def _seconds(stamp: t.Any) -> float | None:
    try:
        return datetime.datetime.strptime(str(stamp), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:
        return None
