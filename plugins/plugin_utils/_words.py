# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""The short words of playbooks/vars/words.yml count only when somebody typed them. What to say of the others."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

FLAGS = ("allow_partial", "accept_schema_change", "again", "corruption", "allow_plain_sql", "allow_npm_ci", "require_healthy")
NUMBERS = ("keep_count", "keep_days")
BOOLEANS = ("true", "yes", "on", "y", "t", "1", "false", "no", "off", "n", "f", "0")


def check_values(typed: t.Mapping[str, t.Any]) -> None:
    """Refuse a value that would count as its opposite: Ansible reads ``corruption=ture`` as no, and ``keep_count=1O`` as nothing.

    An empty value counts as not given, which is what a survey makes of a question that nobody answered.
    """
    for word, value in typed.items():
        text = "" if value is None else str(value).strip()
        if word in FLAGS and text and text.lower() not in BOOLEANS:
            expected = "true or false"
        elif word in NUMBERS and text and not text.isdecimal():
            expected = "a whole number"
        else:
            continue
        raise RollbackError(
            f"{word}={text} is not understood: expected {expected}. Nothing was touched; correct it and type the command again."
        )


def check_words(found: t.Sequence[str], so: str = "nothing was touched") -> None:
    """Refuse words that a playbook around ours sets: they would count for nothing, and ``latest`` is not what it asked for."""
    if found:
        raise RollbackError(
            f"{', '.join(sorted(found))} is set by a playbook (such as vars: of import_playbook), where it counts for nothing; {so}. "
            f"Give it on the command line (-e {sorted(found)[0]}=...), or in AWX as a survey question or extra variable."
        )


def ignored_words(found: dict[str, list[str]]) -> list[str]:
    """One sentence for inventory variables that carry the name of a word (host -> names): they count for nothing."""
    names = sorted({name for words in found.values() for name in words})
    hosts = sorted(host for host, words in found.items() if words)
    if not names:
        return []
    return [f"{', '.join(names)} in the inventory (host {', '.join(hosts)}) was not read; such words count only with -e or from a survey."]
