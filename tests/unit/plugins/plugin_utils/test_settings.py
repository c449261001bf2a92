# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils import _settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rollback_gate_seconds", "5m"),
        ("rollback_gate_seconds", -1),
        ("rollback_gate_seconds", True),
        ("rollback_gate_seconds", [60]),
        ("rollback_gate_interval", "15s"),
        ("rollback_gate_interval", 0),
        ("rollback_gate_patience", "nan"),
        ("rollback_gate_probes", {"type": "http"}),
        ("rollback_batches", ["half"]),
    ],
)
def test_what_would_switch_a_gate_off_is_refused(name: str, value: t.Any) -> None:
    with pytest.raises(RollbackError, match=name):
        _settings.check_watch("gradual", {"app1": {}, "app2": {name: value}})
    _settings.check_watch("full", {"app1": {name: value}})  # which reads none of them


@pytest.mark.parametrize(
    "steps",
    [
        [],
        "read_only",
        ["readonly", 10],
        ["10 %"],
        [10, "read_only"],
        [50, 10],
        [10, 10],
        [0, 10],
        [101],
        [True],
        ["read_only", "read_only"],
    ],
)
def test_steps_of_a_recovery_that_mean_nothing(steps: t.Any) -> None:
    with pytest.raises(RollbackError, match="rollback_recover_steps of app1"):
        _settings.check_watch("recover", {"app1": {"rollback_recover_steps": steps}})


def test_what_people_write() -> None:
    own = {
        "rollback_gate_seconds": "300",
        "rollback_gate_interval": 0.5,
        "rollback_gate_patience": 0,
        "rollback_gate_probes": [],
        "rollback_batches": [1, "50%", "100%"],
        "rollback_recover_steps": ["read_only", "10", 50, 100],
    }
    _settings.check_watch("gradual", {"app1": own})
    _settings.check_watch("recover", {"app1": own})
    _settings.check_watch("recover", {"app1": {"rollback_recover_steps": [100]}})
