# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over what the hosts answered. Each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.plugin_utils import _batches, _report, _verdict


def verb_results(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str], components: t.Iterable[str], verb: str) -> list[dict[str, t.Any]]:
    """See verb_results.yml beside this file."""
    found = []
    names = list(components)
    for host in hosts:
        own = hostvars[host]
        for component in names:
            result = own.get(f"rollback_{component}_{verb}")
            if result is not None and component in (own.get("rollback_components") or []) and not result.get("skipped"):
                found.append(
                    {
                        "host": str(host),
                        "component": str(component),
                        "verb": str(verb),
                        "at_version": _report.at_version(result),
                        "result": result,
                    }
                )
    return found


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "verb_results": verb_results,
            "batches": _batches.batches,
            "batch_needed": _batches.needed,
            "batch_plan": _batches.plan,
            "run_report": _report.run_report,
            "plan_report": _report.plan_report,
            "misfits": _report.misfits,
            "notices": _report.notices,
            "stops_sentence": _report.stops_sentence,
            "lost_hosts": _report.lost_hosts,
            "failed_sentence": _report.failed_sentence,
            "health": _verdict.health,
            "flip_marks": _verdict.flip_marks,
            "backup_marks": _verdict.backup_marks,
        }
