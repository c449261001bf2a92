# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person typed with -e, and nothing else."""

from __future__ import annotations

DOCUMENTATION = r"""
name: typed
version_added: 1.0.0
author:
  - payops.rollback contributors (@payops)
short_description: The words that were given as extra variables
description:
  - Short words such as C(version) or C(label) are common names of inventory variables. This lookup takes only those that were
    given with C(-e), C(--extra-vars), or a survey or the extra variables of AWX, so that an inventory never says for whom a
    rollback goes where.
options:
  _terms:
    description:
      - The words to look for.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
---
- name: Say which version was asked for on the command line
  vars:
    typed: "{{ lookup('payops.rollback.typed', 'version', 'label') }}"
  ansible.builtin.debug:
    msg: "{{ typed.version | default('latest') }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary with those words that were given, each with its value in the type that it came in.
  type: list
  elements: dict
"""

import typing as t

from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars


class LookupModule(LookupBase):
    """Runs on the controller only."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        given = load_extra_vars(self._loader)
        return [{str(word): self._templar.template(given[word]) for word in terms if word in given}]
