# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print text as it is: tables lose their shape when they pass through a callback's JSON."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs on the controller only; the documentation is in plugins/modules/rollback_say.py."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        unused, args = self.validate_argument_spec(argument_spec={"text": {"type": "str", "required": True}})
        self._display.display(args["text"])
        return {"changed": False, "lines": len(args["text"].splitlines())}
