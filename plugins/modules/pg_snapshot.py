#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_snapshot
short_description: Have a verified snapshot of PostgreSQL databases in a rollback point
version_added: 1.0.0
description:
  - Dumps databases of one server while they are in use, and records what they hold from the very same snapshot of the server, that is the number of
    rows and a hash of all rows of each table, sequences, large objects, and the catalogue with every owner and grant.
  - The point gets the component only after every file of the dump was read to its end and everything is on disk. Until then it does not exist.
  - Rows can be written all the time. A change of a table's shape waits for the snapshot, and after O(lock_wait) seconds the snapshot gives way to it.
  - What would make the snapshot fail or a restore impossible is looked for first, and named, such as missing rights, programs of another version,
    too little space or too few connections.
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
      - Looks for everything that could go wrong, and writes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - A component that is there is checked file by file and left as it is.
options:
  version:
    description: The rollback point.
    type: str
    required: true
  databases:
    description: The databases. One point holds all of them.
    type: list
    elements: str
    required: true
  jobs:
    description:
      - How many tables are dumped at a time. Fewer if the server has not enough free connections.
    type: int
    default: 2
  compress:
    description:
      - How the dump is compressed. With V(auto) the best of zstd, lz4 and gzip that this C(pg_dump) can write.
      - Before PostgreSQL 16 only V(gzip) and V(none) exist.
    type: str
    choices: [auto, zstd, lz4, gzip, none]
    default: auto
  verify:
    description:
      - What is recorded of the rows. With V(full) their number and a hash of all of them, with V(counts) their number, with V(files) nothing.
      - V(full) takes about as long as the dump. A restore can only check what was recorded.
    type: str
    choices: [full, counts, files]
    default: full
  lock_wait:
    description:
      - For how many seconds the snapshot waits for a lock, and for how many seconds others wait for one of its own before it gives way.
    type: int
    default: 30
  restore_rights:
    description:
      - Whether rights that O(login_user) lacks for a restore are a failure already now.
      - Use V(ignored) if another login restores.
    type: str
    choices: [required, ignored]
    default: required
  state:
    description: The only state there is. M(payops.rollback.rollback_point) removes points.
    type: str
    choices: [present]
    default: present
author:
  - payops.rollback contributors (@payops)
seealso:
  - module: payops.rollback.pg_restore
  - module: payops.rollback.pg_check
  - module: payops.rollback.rollback_point
"""

EXAMPLES = r"""
---
- name: Have the shop's database in the point of this deployment
  payops.rollback.pg_snapshot:
    store: /var/lib/payops-rollback
    system: kejayangu
    version: "20231201_120000"
    databases: [kejayangu]
    login_unix_socket: /var/run/postgresql

- name: Two databases of one server, as a role that is no superuser
  payops.rollback.pg_snapshot:
    store: /var/lib/payops-rollback
    system: kejayangu
    version: "20231201_120000"
    databases: [shop, ledger]
    login_host: db1.internal
    login_user: rollback
    login_password: "{{ vault_rollback_password }}"
    ssl_mode: verify-full
    jobs: 4
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: Point 20231201_120000 holds 1 database, 12 tables, 48211 rows, verified.
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
steps:
  description: The steps with their times in milliseconds.
  returned: success
  type: list
  elements: dict
blockers:
  description: Rights that are missing, each with the statement that grants it, or ledgers that could not be carried back.
  returned: when something stands in the way
  type: list
  elements: str
notes:
  description: What stops nothing and should be known, such as what O(login_user) could not restore.
  returned: success
  type: list
  elements: str
point:
  description: What the point holds. Empty in check mode before it exists.
  returned: success
  type: dict
  contains:
    version:
      description: The rollback point.
      type: str
    size:
      description: Bytes of all files.
      type: int
    codec:
      description: How the dump is compressed.
      type: str
    profile:
      description: What the login is, V(superuser) or V(owner).
      type: str
    server_major:
      description: The server's major version.
      type: int
    needs_superuser:
      description: By database, what only a superuser can restore and O(login_user) is not.
      type: dict
    databases:
      description: By database, its folder in the component, tables, rows, bytes, fingerprint of the catalogue, and notes.
      type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of, execute, paths_of, run_argument_spec, run_of
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _snapshot
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import connect_of, postgresql_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledgers import ledger_option


def have_snapshot(module: AnsibleModule) -> dict[str, t.Any]:
    given = module.params
    wish = _snapshot.Wish(
        version=given["version"],
        databases=given["databases"],
        jobs=given["jobs"],
        compress=given["compress"],
        verify=given["verify"],
        lock_wait=given["lock_wait"],
        require_restore_rights=given["restore_rights"] == "required",
        ledgers=given["ledgers"] or (),
    )
    with connect_of(module) as server, run_of(module, _snapshot.COMPONENT, _snapshot.STEPS) as run:
        return _snapshot.reach(server, cli_of(module), run, paths_of(module), wish, given["bin_dir"], module.check_mode)


def main() -> None:
    spec = {
        **run_argument_spec(),
        **postgresql_argument_spec(),
        "version": {"type": "str", "required": True},
        "databases": {"type": "list", "elements": "str", "required": True},
        "jobs": {"type": "int", "default": 2},
        "compress": {"type": "str", "default": "auto", "choices": ["auto", "zstd", "lz4", "gzip", "none"]},
        "verify": {"type": "str", "default": "full", "choices": ["full", "counts", "files"]},
        "lock_wait": {"type": "int", "default": 30},
        "ledgers": ledger_option(),
        "restore_rights": {"type": "str", "default": "required", "choices": ["required", "ignored"]},
        "state": {"type": "str", "default": "present", "choices": ["present"]},
    }
    execute(AnsibleModule(spec, supports_check_mode=True), have_snapshot)


if __name__ == "__main__":
    main()
