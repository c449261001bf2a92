# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.payops.rollback`` importable from a plain clone."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "playbooks" / "collections"))
sys.path.insert(0, str(ROOT))

pytest_plugins = ["tests.lab.fixtures"]

NOT_IN_THIS_VERSION = "not in this version: "
FULL = os.environ.get("FULL", "") not in ("", "0")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: part of a whole matrix of failures; without FULL=1 one of each kind is played")


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """What a version or a build of PostgreSQL cannot have is no gap of the tests, and is counted apart from what was skipped."""
    if report.skipped and isinstance(report.longrepr, tuple) and NOT_IN_THIS_VERSION in report.longrepr[2]:
        return "not in this version", "-", "NOT IN THIS VERSION"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without FULL=1 the rest of the matrices is left out, not skipped: all of it takes over an hour."""
    if FULL:
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
