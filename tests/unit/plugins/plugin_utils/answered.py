# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts have answered, as reports are made of it."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.plugin_utils import _report

GATE: dict[str, t.Any] = {
    "hosts": ["db1", "app1"],
    "components": ["postgresql", "pm2"],
    "version": "v1",
    "who": "wanjiku",
    "run_id": "3f9a12bc",
    "started": 0,
    "inventory": "inventories/kejayangu",
    "passed_over": [],
    "warnings": [],
}


def system(db: dict[str, t.Any] | None = None, app: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
    return {
        "db1": {"rollback_components": ["postgresql"], **{f"rollback_postgresql_{verb}": value for verb, value in (db or {}).items()}},
        "app1": {"rollback_components": ["pm2"], **{f"rollback_pm2_{verb}": value for verb, value in (app or {}).items()}},
    }


def report(hostvars: dict[str, t.Any], outcome: str, intent: str, **gate: t.Any) -> dict[str, t.Any]:
    return _report.run_report(hostvars, {**GATE, **gate}, outcome, "kejayangu", intent)
