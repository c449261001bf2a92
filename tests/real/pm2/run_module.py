# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one module in a process of its own, as ansible does: ``run_module.py <module> [--check]`` with the options as JSON on stdin."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "playbooks" / "collections"))

from ansible.module_utils.testing import patch_module_args  # noqa: E402


def main() -> None:
    args = json.load(sys.stdin)
    if "--check" in sys.argv:
        args["_ansible_check_mode"] = True
    module = importlib.import_module(f"ansible_collections.payops.rollback.plugins.modules.{sys.argv[1]}")
    with patch_module_args(args):
        module.main()


if __name__ == "__main__":
    main()
