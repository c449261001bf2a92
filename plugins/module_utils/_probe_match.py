# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What an answer must look like: values inside JSON, and the conditions they must meet. Pure, no network."""

from __future__ import annotations

import re
import typing as t

CONDITIONS = ("equals", "in", "min", "max", "matches", "exists")

_STEP = re.compile(r"""\.?(?P<key>[^.\[\]'"]+)|\[(?P<index>-?\d+)\]|\[(?P<all>\*)\]|\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]""")


def parse_path(path: str) -> list[t.Any]:
    """The steps of ``checks[0].status``, ``$.a['b.c']`` or ``nodes[*].ok``: texts, numbers, and None for every entry."""
    rest = path[1:] if path.startswith("$") else path
    steps: list[t.Any] = []
    while rest:
        found = _STEP.match(rest)
        if found is None:
            raise ValueError(f"not understood at {rest!r}; write it as status, checks[0].name, nodes[*].ok or a['b.c']")
        if found.group("index") is not None:
            steps.append(int(found.group("index")))
        elif found.group("all") is not None:
            steps.append(None)
        else:
            steps.append(found.group("key") or found.group("quoted"))
        rest = rest[found.end() :]
    return steps


def values_at(document: t.Any, path: str) -> list[t.Any]:
    """Every value that ``path`` names in ``document``; an entry that lacks one makes the whole path absent (no values)."""
    found = [document]
    for step in parse_path(path):
        following: list[t.Any] = []
        for value in found:
            if step is None:
                if not isinstance(value, (list, dict)):
                    return []
                following.extend(value.values() if isinstance(value, dict) else value)
            elif isinstance(step, int) and isinstance(value, list):
                if not -len(value) <= step < len(value):
                    return []
                following.append(value[step])
            elif isinstance(value, dict) and str(step) in value:
                following.append(value[str(step)])
            else:
                return []
        found = following
    return found


def check_conditions(where: str, wanted: dict[str, t.Any]) -> list[str]:
    """What is wrong with conditions that somebody wrote."""
    given = [name for name in CONDITIONS if wanted.get(name) is not None]
    wrong = []
    if not given:
        wrong.append(f"{where} expects nothing; give at least one of {', '.join(CONDITIONS)}")
    if wanted.get("exists") is False and len(given) > 1:
        wrong.append(f"{where} must be absent (exists: false) and {given[0]} something at once; drop one of the two")
    if "matches" in given:
        wrong.extend(check_regex(f"{where}.matches", wanted["matches"]))
    if "in" in given and not isinstance(wanted["in"], list):
        wrong.append(f"{where}.in must be a list, found {wanted['in']!r}")
    for name in ("min", "max"):
        if name in given and not _is_number(wanted[name]):
            wrong.append(f"{where}.{name} must be a number, found {wanted[name]!r}")
    return wrong


def check_regex(where: str, pattern: t.Any) -> list[str]:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as exc:
        return [f"{where} {pattern!r} is not a regular expression: {exc}"]
    return []


def unmet(wanted: dict[str, t.Any], values: t.Sequence[t.Any]) -> str | None:
    """Why ``values`` (all values found at one place) do not meet the conditions, or None when they do."""
    if wanted.get("exists") is False:
        return f"is {_show(values[0])}, expected to be absent" if values else None
    if not values:
        return "is absent"
    for value in values:
        reason = _unmet_by(wanted, value)
        if reason is not None:
            return f"is {_show(value)}, expected {reason}"
    return None


def _unmet_by(wanted: dict[str, t.Any], value: t.Any) -> str | None:
    if wanted.get("equals") is not None and not same(wanted["equals"], value):
        return _show(wanted["equals"])
    if wanted.get("in") is not None and not any(same(choice, value) for choice in wanted["in"]):
        return "one of " + ", ".join(_show(choice) for choice in wanted["in"])
    for name, word, fits in (("min", "at least", lambda bound: value >= bound), ("max", "at most", lambda bound: value <= bound)):
        bound = wanted.get(name)
        if bound is not None and not (_is_number(value) and fits(bound)):
            return f"a number of {word} {bound:g}"
    if wanted.get("matches") is not None and re.search(wanted["matches"], value if isinstance(value, str) else _show(value)) is None:
        return f"to match {wanted['matches']!r}"
    return None


def same(wanted: t.Any, value: t.Any) -> bool:
    """Equality of JSON values: true is not 1, and the text "200" is not the number 200."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return wanted is value
    return bool(wanted == value)


def _is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _show(value: t.Any) -> str:
    """The value as a reader of JSON would write it, cut to one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
