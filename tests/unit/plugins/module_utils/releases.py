# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small application with releases, and the states of app_release on it."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Releases
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import detect
from ansible_collections.payops.rollback.plugins.module_utils._release.release import STEPS, Backend
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run


def write(root: pathlib.Path, version: str) -> None:
    (root / "src").mkdir(parents=True, exist_ok=True)
    (root / "src" / "main.js").write_text(f"// {version}\n")
    (root / "package.json").write_text(f'{{"version": "{version}"}}')
    if not (root / "bin").is_symlink():
        (root / "bin").symlink_to("src/main.js")
    (root / "uploads").mkdir(exist_ok=True)


def backend(app: pathlib.Path, check: bool = False) -> Backend:
    paths = Paths(str(app.parent / "store"), "demo")
    releases = Releases(detect(str(app)), paths, "release", ("uploads",))
    return Backend(releases, Run(paths, "release", STEPS, acting=not check), check)


def reach(app: pathlib.Path, state: str, version: str | None = None, check: bool = False) -> dict[str, t.Any]:
    made = backend(app, check)
    with made.run:
        return made.reach(state, version)
