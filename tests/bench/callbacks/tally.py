# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what a playbook does: results of tasks, and those for which a module ran on a host. For the benchmark."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: tally
type: notification
short_description: Counts results of tasks
description: Written as JSON to the file that the environment variable PAYOPS_TALLY names.
requirements: [to be enabled]
"""


# What never leaves the controller.
HERE = {"set_fact", "assert", "debug", "fail", "include_role", "include_tasks", "validate_argument_spec", "rollback_gate", "rollback_say"}


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "tally"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.count = {"results": 0, "modules": 0}

    def _count(self, result: t.Any, ran: bool = True) -> None:
        self.count["results"] += 1
        self.count["modules"] += ran and result.task.action.rpartition(".")[2] not in HERE

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._count(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._count(result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._count(result, ran=False)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        pathlib.Path(os.environ["PAYOPS_TALLY"]).write_text(json.dumps(self.count), encoding="utf-8")
