# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A filter that is documented, or used by a role, is there."""

from __future__ import annotations

import pathlib
import re

from ansible_collections.payops.rollback.plugins.filter import answers, points

ROOT = pathlib.Path(__file__).resolve().parents[4]
NAMES = {**answers.FilterModule().filters(), **points.FilterModule().filters()}


def test_documented_filters_exist_and_the_others_are_documented() -> None:
    assert {path.stem for path in (ROOT / "plugins" / "filter").glob("*.yml")} == set(NAMES)


def test_filters_that_roles_use_exist() -> None:
    used = set()
    for path in [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").glob("*.yml")]:
        used |= set(re.findall(r"\|\s*payops\.rollback\.(\w+)", path.read_text(encoding="utf-8")))
    assert used and used <= set(NAMES), used - set(NAMES)
