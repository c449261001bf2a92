# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which releases are known to be good or bad. A release is code, known by its tree hash or image ID.

``releases.json``: ``{release: {status: good|bad, who, when, why, version, history: [...]}}``. The functions are pure:
they return a new registry and never change the one that they were given.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

Registry = t.Dict[str, t.Dict[str, t.Any]]

# Reasons for which going back says nothing about the code that is left.
INNOCENT = ("corruption", "undo", "drill")


def registry_path(paths: Paths) -> str:
    return os.path.join(paths.run, "releases.json")


def load_releases(paths: Paths) -> Registry:
    found = read_json(registry_path(paths), {})
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise RollbackError(
            f"{registry_path(paths)} is damaged: expected one object per release. Move it away and mark the releases again."
        )
    return found


def save_releases(paths: Paths, registry: Registry) -> None:
    write_json(registry_path(paths), registry, paths.file_mode)


def mark(registry: Registry, release: str, status: str, entry: dict[str, t.Any], overrule: bool = False) -> tuple[Registry, str | None]:
    """The registry with ``release`` marked, and a sentence where the mark was refused.

    A bad release stays bad: a later success does not wash it clean unless a person says so (``overrule``).
    """
    if status not in ("good", "bad"):
        raise RollbackError(f"A release is marked good or bad; found {status!r}.")
    if not isinstance(release, str) or not release:
        raise RollbackError(f"A release is named by its tree hash or image ID; found {release!r}.")
    old = registry.get(release)
    if old is not None and old.get("status") == status:
        return dict(registry), None
    if old is not None and old.get("status") == "bad" and not overrule:
        version = entry.get("version") or old.get("version") or "<point>"
        return dict(registry), (
            f"Release {release} stays bad: {old.get('who')} marked it on {old.get('when')} ({old.get('why')}). "
            f"If that was wrong: rollback_points.yml -e good={version} -e \"reason='<why>'\""
        )
    new = {"status": status, **{key: entry.get(key) for key in ("who", "when", "why", "version")}}
    history = [] if old is None else [*old.get("history", []), {key: value for key, value in old.items() if key != "history"}]
    if history:
        new["history"] = history
    return {**registry, release: new}, None


def mark_good(registry: Registry, release: str, **entry: t.Any) -> tuple[Registry, str | None]:
    return mark(registry, release, "good", entry)


def mark_bad(registry: Registry, release: str, **entry: t.Any) -> tuple[Registry, str | None]:
    return mark(registry, release, "bad", entry)


def mark_all(registry: Registry, marks: t.Iterable[dict[str, t.Any]], who: str | None, when: str) -> tuple[Registry, list[str]]:
    """Apply ``[{release, status, why, version, overrule}]``; the sentences name the marks that were refused."""
    refused = []
    for item in marks:
        entry = {"who": item.get("who") or who, "when": when, "why": item.get("why"), "version": item.get("version")}
        registry, sentence = mark(registry, item["release"], item["status"], entry, bool(item.get("overrule")))
        if sentence:
            refused.append(sentence)
    return registry, refused


def release_marks(
    left: t.Iterable[str],
    entered: t.Iterable[str],
    verified: bool,
    reason: str,
    why: str | None = None,
    known: Registry | None = None,
) -> list[dict[str, t.Any]]:
    """Which marks a run leads to.

    A release that was verified healthy is good. The release that a rollback leaves is bad, except where the reason
    says nothing about the code (data corruption, undo, drill), where the rollback was not verified, or where it leaves a
    release that is ``known`` to be good for one that is known to be bad: that is the way forward again, not a verdict.
    """
    now_live = {release for release in entered if release}
    known = known or {}
    forward = any(known.get(release, {}).get("status") == "bad" for release in now_live)
    marks = []
    if verified:
        marks = [{"release": release, "status": "good", "why": why or "verified healthy"} for release in sorted(now_live)]
        if reason not in INNOCENT:
            gone = sorted({release for release in left if release} - now_live)
            gone = [release for release in gone if not (forward and known.get(release, {}).get("status") == "good")]
            marks += [{"release": release, "status": "bad", "why": why or f"left by a {reason}"} for release in gone]
    return marks


def merge_releases(registries: t.Iterable[Registry]) -> Registry:
    """One registry for the system: what any host knows; bad wins over good, then the newer entry."""
    merged: Registry = {}
    for registry in registries:
        for release, entry in registry.items():
            old = merged.get(release)
            rank = (entry.get("status") == "bad", str(entry.get("when") or ""))
            if old is None or rank > (old.get("status") == "bad", str(old.get("when") or "")):
                merged[release] = dict(entry)
    return merged
