# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_retag in a process of its own, on a registry or an engine."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

from tests.lab.faults import with_fault

ROOT = pathlib.Path(__file__).resolve().parents[3]
RUNNER = """
import json, sys
from importlib import import_module
from ansible.module_utils.testing import patch_module_args
given = json.load(sys.stdin)
module = import_module("ansible_collections.payops.rollback.plugins.modules.image_retag")
with patch_module_args(given):
    module.main()
"""


class Rig:
    """``options`` say which engine or registry."""

    def __init__(self, store: pathlib.Path, **options: t.Any) -> None:
        self.store = store
        self.options = options

    def start(
        self, tags: dict[str, str] | list[t.Any], fault: str = "", check: bool = False, env: t.Any = None, **options: t.Any
    ) -> subprocess.Popen[str]:
        """``tags`` is {tag: image}, or the option as it is."""
        wanted = [{"tag": tag, "image": image} for tag, image in tags.items()] if isinstance(tags, dict) else tags
        given = {
            "store": str(self.store),
            "system": "shop",
            "tags": wanted,
            "_ansible_diff": True,
            "_ansible_inject_invocation": True,
            **self.options,
            **options,
        }
        if check:
            given["_ansible_check_mode"] = True
        own = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        own = with_fault(fault, {**own, "PYTHONPATH": str(ROOT / "playbooks" / "collections"), **(env or {})})
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, tags: dict[str, str] | list[t.Any], **more: t.Any) -> dict[str, t.Any]:
        return answer(self.start(tags, **more))

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


def answer(process: subprocess.Popen[str]) -> dict[str, t.Any]:
    """The module's result; ``{"killed": True}`` if it was."""
    stdout, stderr = process.communicate(timeout=120)
    if process.returncode == -9:
        return {"killed": True}
    assert stdout.strip(), stderr
    result: dict[str, t.Any] = json.loads(stdout.strip().splitlines()[-1])
    return result
