#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_carry_back
short_description: Carry rows of ledgers, written since the point, into the live PostgreSQL databases
version_added: 1.0.0
description:
  - After M(payops.rollback.pg_restore) gave a database back its state of a point, rows that were written since then are only in the kept database.
    This module inserts those of declared ledger tables into the live one. After an undo it works in the other direction, with the rows that
    were written between the flip and the undo.
  - Only pure inserts are carried. A row whose key exists with other content, or that another constraint refuses, is left, counted and shown.
    Nothing is ever overwritten or silently skipped, and nothing is removed from the kept database.
  - Declare the table of idempotency keys as a ledger, too. Otherwise a customer's retry pays twice.
  - Call it before the application starts. The candidates are found by the number of the transaction that wrote them, which costs about as much as
    C(count(*)) on each ledger, twice. Where the kept database does not descend from the point, all rows of the ledgers are compared.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.postgresql
  - payops.rollback.ledgers
attributes:
  check_mode:
    support: full
    details:
      - Counts what would be carried. Rows that a constraint would refuse are found only when they are inserted.
      - To look into a kept database, which is closed, it is opened for the moment of one login, also in check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: Rows of the ledgers are in the live databases.
    type: str
    choices: [carried]
    default: carried
  databases:
    description: The production names.
    type: list
    elements: str
    required: true
  source:
    description:
      - Which replaced database rows come from. V(auto) takes the one that the present live database replaced, V(kept) only one that a flip replaced,
        V(undone) only one that an undo replaced.
      - Inside a run only a database is used that this run (or a run it took over) replaced, and those that interrupted runs replaced since the
        last one that came to its end, because their rows are still owed. With V(undone) the latter only in a run opened for an undo.
    type: str
    choices: [auto, kept, undone]
    default: auto
  fire_triggers:
    description:
      - Let the triggers of the ledgers fire for carried rows. Otherwise they are disabled within the transaction and put back as they were;
        foreign keys are checked in any case.
    type: bool
    default: false
seealso:
  - module: payops.rollback.pg_restore
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
- name: No payment is lost and none is taken twice
  payops.rollback.pg_carry_back:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    ledgers:
      - table: payments
      - table: idempotency_keys
        key: [key]
    login_unix_socket: /var/run/postgresql
"""

RETURN = r"""
carried:
  description: Rows carried, by C(database.schema.table).
  returned: success
  type: dict
left:
  description:
    - What was not carried, by C(database.schema.table). C(changed) rows have another content in the kept database, C(deleted) are no longer there,
      C(conflicting) were written on both sides, have no key, were refused by a constraint, do not fit into the live columns, or may be a live row
      under another key (a row of the live table that the kept one no longer has, where a column of the key was updated).
  returned: success
  type: dict
left_in:
  description:
    - The name of the kept database that still holds all of it, by production name. Several, with a comma between them, where an interrupted
      run had replaced one, too.
  returned: success
  type: dict
columns_lost:
  description:
    - Columns that the live table does not have, by C(database.schema.table), with the number of carried rows that have a value there.
      The value is only in the kept database.
  returned: success
  type: dict
examples:
  description: Up to 20 conflicting rows per table by key, each with the reason.
  returned: success
  type: list
  elements: str
compared:
  description: For each database whether only V(rows written since) or V(all rows) were compared.
  returned: success
  type: dict
milliseconds:
  description: What each table took.
  returned: success
  type: dict
actions:
  description: What was done, in sentences.
  returned: success
  type: list
  elements: str
steps:
  description: Timed steps.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import postgresql_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._entry import carried_of
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledgers import ledger_option


def argument_spec() -> dict[str, dict]:
    return {
        **run_argument_spec(),
        **postgresql_argument_spec(),
        "state": {"type": "str", "choices": ["carried"], "default": "carried"},
        "databases": {"type": "list", "elements": "str", "required": True},
        "ledgers": ledger_option(),
        "source": {"type": "str", "choices": ["auto", "kept", "undone"], "default": "auto"},
        "fire_triggers": {"type": "bool", "default": False},
    }


def main() -> None:
    execute(AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True), carried_of)


if __name__ == "__main__":
    main()
