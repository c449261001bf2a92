# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module says when it fails."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import execute


class Said(Exception):
    """What fail_json was given."""


class Module:
    params: t.ClassVar[dict[str, t.Any]] = {}

    def fail_json(self, msg: str, **details: t.Any) -> None:
        raise Said({"msg": msg, **details})


def test_details_never_hide_the_sentence() -> None:
    def action(module: t.Any) -> dict[str, t.Any]:
        raise RollbackError("The carry failed.", msg="what went well before", changed=True)

    with pytest.raises(Said) as caught:
        execute(t.cast(t.Any, Module()), action)
    assert caught.value.args[0] == {"msg": "The carry failed.", "changed": True}
