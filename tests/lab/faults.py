# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment in which modules break on purpose; without the folder in it the variable alone does nothing."""

from __future__ import annotations

import os
import pathlib
import typing as t

VARIABLE = "PAYOPS_ROLLBACK_FAULT"
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "faults"


def with_fault(fault: str | None, env: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """``env`` (by default this process's own) armed with one fault (see tests/faults/sitecustomize.py), or with none."""
    given = {key: value for key, value in (os.environ if env is None else env).items() if key != VARIABLE}
    if not fault:
        return given
    search = [str(FOLDER), *filter(None, [given.get("PYTHONPATH")])]
    return {**given, VARIABLE: fault, "PYTHONPATH": os.pathsep.join(search)}
