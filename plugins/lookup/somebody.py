# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a play, or an error where there are none. Documented in somebody.yml beside this file."""

from __future__ import annotations

import typing as t

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """Runs on the controller only, before a play has a host."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        groups = (variables or {}).get("groups") or {}
        if not groups.get("all") and not context.CLIARGS.get("syntax"):
            raise AnsibleError("The inventory names no host, so nothing was done. Give the right one with -i.")
        return ["all"]
