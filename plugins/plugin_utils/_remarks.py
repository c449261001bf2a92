# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""What components say beside what they do: what is in the way. Pure."""

from __future__ import annotations

import typing as t


def obstacles(result: t.Mapping[str, t.Any]) -> list[str]:
    """What is in the way, one sentence or two each. Databases say apart what was found and what to do."""
    return [f"{each['what']} {each['do']}".strip() if isinstance(each, dict) else str(each) for each in result.get("blockers") or []]
