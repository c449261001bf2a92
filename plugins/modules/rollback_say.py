#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_say
short_description: Print a table or a sentence as it is
version_added: 1.0.0
author:
  - payops.rollback contributors (@payops)
description:
  - Prints text on the controller without quoting or wrapping, so that tables keep their shape.
  - Changes nothing and contacts no host.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  text:
    description:
      - What to print. Lines are kept as they are.
    type: str
    required: true
"""

EXAMPLES = r"""
---
- name: Say where to look
  payops.rollback.rollback_say:
    text: "The points of this system are in {{ rollback_store }}."
"""

RETURN = r"""
lines:
  description: The number of lines printed.
  returned: success
  type: int
  sample: 12
"""
