# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that every module of the collection documents."""

from __future__ import annotations


class ModuleDocFragment:
    # What each attribute means. The module adds support.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
  platform:
    description: Target operating systems that can be operated against.
    support: full
    platforms: posix, linux
"""

    # For modules that act on this host: the group that module_defaults can name.
    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/payops.rollback.rollback) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - payops.rollback.rollback
"""

    # For modules that read and never change anything.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module reads and changes nothing.
  diff_mode:
    support: N/A
    details:
      - This module reads and changes nothing.
  idempotent:
    support: full
    details:
      - This module reads and changes nothing.
"""
