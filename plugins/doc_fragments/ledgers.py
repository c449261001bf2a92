# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ledgers, the same for every module that knows them (``module_utils/_postgresql/_ledgers.ledger_option``)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  ledgers:
    description:
      - Tables that only ever grow and whose rows are money, messages to be sent, or keys that protect them.
        M(payops.rollback.pg_carry_back) carries their rows back, in the order of their foreign keys, in one transaction for each database.
      - Given to M(payops.rollback.pg_snapshot) and to M(payops.rollback.pg_restore), a ledger that could not be carried back (no such table, no key,
        a key that is not unique, tables that inherit from it)
        is refused there, long before anybody waits for it, and the plan says what will happen to its rows.
    type: list
    elements: dict
    suboptions:
      database:
        description: The production name of its database. Needed with more than one entry in O(databases).
        type: str
      schema:
        description: Its schema.
        type: str
        default: public
      table:
        description: Its name.
        type: str
        required: true
      key:
        description: The columns by which a row is recognised, which must have a unique index. The primary key if not given.
        type: list
        elements: str
        default: []
"""
