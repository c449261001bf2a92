# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same small application in both layouts."""

from __future__ import annotations

import pathlib

import pytest

from tests.unit.plugins.module_utils.releases import write


@pytest.fixture(params=["exchange", "symlink"])
def app(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    if request.param == "exchange":
        home = tmp_path / "api"
        write(home, "1.0.0")
        return home
    write(tmp_path / "releases" / "one", "1.0.0")
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "one")
    return tmp_path / "current"
