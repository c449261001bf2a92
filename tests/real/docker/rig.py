# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_retag in a process of its own, on a registry or an engine."""

from __future__ import annotations

import os
import pathlib
import typing as t

from ansible.module_utils.common.parameters import PASS_VARS

from tests.lab import modules


class Rig:
    """``options`` say which engine or registry."""

    def __init__(self, store: pathlib.Path, **options: t.Any) -> None:
        self.store = store
        self.options = options

    def given(self, tags: dict[str, str] | list[t.Any], check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """The options of a call. ``tags`` is {tag: image}, or the option as it is."""
        wanted = [{"tag": tag, "image": image} for tag, image in tags.items()] if isinstance(tags, dict) else tags
        return {
            "store": str(self.store),
            "system": "shop",
            "tags": wanted,
            "_ansible_diff": True,
            # from ansible-core 2.20 on a result holds the options only where that is asked for
            **({"_ansible_inject_invocation": True} if "inject_invocation" in PASS_VARS else {}),
            **({"_ansible_check_mode": True} if check else {}),
            **self.options,
            **options,
        }

    def start(
        self, tags: dict[str, str] | list[t.Any], fault: str = "", check: bool = False, env: t.Any = None, **options: t.Any
    ) -> modules.Started:
        own = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return modules.start("image_retag", self.given(tags, check, **options), fault, {**own, **(env or {})})

    def run(self, tags: dict[str, str] | list[t.Any], **more: t.Any) -> dict[str, t.Any]:
        return modules.result_of(self.start(tags, **more))

    def ok(self, tags: dict[str, str] | list[t.Any], **more: t.Any) -> dict[str, t.Any]:
        result = self.run(tags, **more)
        assert not result.get("failed") and not result.get("killed"), result
        return result

    def refused(self, tags: dict[str, str] | list[t.Any], **more: t.Any) -> str:
        """The sentence of a refusal that changed nothing."""
        result = self.run(tags, **more)
        assert result.get("failed"), result
        assert not result.get("changed"), result
        message = str(result["msg"])
        assert message.endswith(".") and "Traceback" not in message and "\n" not in message, message
        return message
