# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Backups of the old script: ``backup_<time>/{src,package.json,package-lock.json}`` without node_modules."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sync_filesystem
from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import Copier, remove_tree

PARTS = ("src", "package.json", "package-lock.json")


def legacy_folder(legacy_path: str, version: str) -> str:
    """``legacy_path`` is the backup itself or the folder that holds it."""
    for folder in (legacy_path, os.path.join(legacy_path, version)):
        if os.path.isdir(os.path.join(folder, "src")) and not os.path.islink(os.path.join(folder, "src")):
            return folder
    raise RollbackError(
        f"There is no legacy backup {version} in {legacy_path}: expected the folder 'src' in it or in {legacy_path}/{version}. "
        "Set legacy_path (rollback_legacy_path) to the folder that rollback.sh wrote, for example <app>/rollback-versions."
    )


def _same_file(one: str, other: str) -> bool:
    try:
        with open(one, "rb") as first, open(other, "rb") as second:
            return first.read() == second.read()
    except FileNotFoundError:
        return False


def dependencies(folder: str, live: str, allow_npm_ci: bool) -> str:
    """``reuse`` or ``npm_ci``: where node_modules come from. Refused when neither is safe."""
    lock = os.path.join(folder, "package-lock.json")
    if _same_file(lock, os.path.join(live, "package-lock.json")):
        return "reuse"
    if os.path.isfile(lock) and allow_npm_ci:
        return "npm_ci"
    if not os.path.isfile(lock):
        raise RollbackError(
            f"{folder} has no package-lock.json, so nobody knows which dependencies this release ran with. "
            "Copy the right package-lock.json there, or choose another point."
        )
    raise RollbackError(
        f"{lock} differs from the live package-lock.json, so the live node_modules do not belong to this release, and the backup has none. "
        "Nothing was touched. Set allow_npm_ci=true to install them from the registry beside the live release before any switch, "
        "or choose a point that was written by payops.rollback: it holds node_modules."
    )


def build(
    folder: str, live: str, target: str, persistent: t.Collection[str], how: str, cli: Cli, npm: t.Sequence[str], env: dict[str, str]
) -> None:
    """Build the tree in ``target`` (new): the live tree with ``src`` and ``package*.json`` of the backup."""
    replaced = {*PARTS, *(("node_modules",) if how == "npm_ci" else ())}
    partial = os.path.join(os.path.dirname(target), f".partial-{os.path.basename(target)}")
    remove_tree(partial)
    try:
        Copier().tree(live, partial, {*persistent, *replaced})
        for name in PARTS:
            source, place = os.path.join(folder, name), os.path.join(partial, name)
            if os.path.isdir(source):
                Copier().tree(source, place)
            elif os.path.isfile(source):
                Copier().file(source, place, os.stat(source))
        if how == "npm_ci":
            done = cli([*npm, "ci", "--no-audit", "--no-fund"], env=env, cwd=partial)
            if done.rc != 0:
                raise RollbackError(
                    f"npm ci failed in the staged release (rc {done.rc}): {(done.stderr or done.stdout).strip()[-600:]} "
                    "The live release was not touched."
                )
        sync_filesystem(partial)
        os.rename(partial, target)
    except BaseException:
        remove_tree(partial)
        raise


def app_version(tree: str) -> str | None:
    """What package.json calls itself; applications tell it in their health answer.

    The file is the release's, and a bad release is what a rollback is for: whatever is wrong with it, nobody is stopped by it.
    """
    path = os.path.join(tree, "package.json")
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as handle:
            package = json.loads(handle.read().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    version = package.get("version") if isinstance(package, dict) else None
    return version if isinstance(version, str) and version and version.isprintable() else None
