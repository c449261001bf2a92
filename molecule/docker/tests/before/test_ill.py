# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bad release is what customers meet before anybody rolls back."""

from __future__ import annotations

from tests.lab import ports
from tests.lab.fleet import fetch
from tests.lab.scenario import current


def test_the_release_is_ill() -> None:
    scenario = current()
    assert scenario.compose is not None and scenario.compose.version() == "2.0.0"
    health = f"http://127.0.0.1:{scenario.compose.port}/health"
    ports.wait_until(lambda: fetch(health).status == 503, "the bug that only traffic shows", 60, 0.5)
