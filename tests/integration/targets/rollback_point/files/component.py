# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a component pm2 with one file: component.py STORE VERSION RELEASE."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[5]
# A clone resolves through its link; a copy below ansible_collections/payops/rollback through its own place.
sys.path[:0] = [str(ROOT / "playbooks" / "collections"), str((ROOT / "../../..").resolve())]

from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component  # noqa: E402
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths  # noqa: E402

store, version, release = sys.argv[1:]
with new_component(Paths(store, "kejayangu"), version, "pm2", None) as writer:
    pathlib.Path(writer.path, "file").write_text("content")
    writer.seal({"release": release})
