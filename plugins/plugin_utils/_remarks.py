# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""What components say beside what they do: what is in the way, and what a person should know. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.plugin_utils._rows import Answers


def obstacles(result: t.Mapping[str, t.Any]) -> list[str]:
    """What is in the way, one sentence or two each. Databases say apart what was found and what to do."""
    return [f"{each['what']} {each['do']}".strip() if isinstance(each, dict) else str(each) for each in result.get("blockers") or []]


def in_a_row(texts: t.Iterable[str]) -> str:
    """Sentences and steps as one text, each once: a plan may name what is in the way, too."""
    return " ".join(text if text.endswith(".") else f"{text};" for text in dict.fromkeys(texts)).rstrip(";")


def notes(result: t.Mapping[str, t.Any]) -> list[str]:
    """What stops nothing and should be known."""
    return [str(text) for text in result.get("notes") or []]


def found_later(found: Answers) -> list[str]:
    """Notes of a backup, and those of a switch or of the way back that no plan had."""
    return [
        f"{host} {name}: {text}"
        for host, parts in found.items()
        for name, results in parts.items()
        for verb in ("backup", "flip", "undo")
        for text in notes(results.get(verb) or {})
        if text not in notes(results.get("prepare") or {})
    ]


def taken_over(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> list[str]:
    """From which runs an emergency took the lock, a sentence for each: whoever types them must know why they fail."""
    taken = [((hostvars[host].get("transaction_closed") or {}).get("run") or {}).get("took_over") or {} for host in hosts]
    said = []
    for old in {str(each["run"]): each for each in taken if each.get("run")}.values():
        what = f"{old.get('intent') or 'of an unknown kind'}{' to ' + str(old['version']) if old.get('version') else ''}"
        said.append(
            f"The lock was taken over from run {old['run']} ({what}, by {old.get('who') or 'nobody named'}): it starts nothing any more, and fails."
        )
    return said
