# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is odd about a host or a release on the worst day, and must neither stop a rollback nor be hidden by one."""

from __future__ import annotations

from tests.real.pm2.conftest import MakeRig


def test_a_release_whose_package_json_is_no_json(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    (rig.top / "package.json").write_text('<<<<<<< HEAD\n{"name": "api"}\n=======\n')
    rig.module("staged", version="v1")
    rig.module("held")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    (rig.top / "package.json").write_text("<<<<<<< HEAD\n")
    assert rig.module("stopped")["changed"]
    assert rig.list() == [("api", 0, "stopped"), ("api", 1, "stopped")]
