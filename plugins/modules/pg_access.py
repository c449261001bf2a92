#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_access
short_description: Have PostgreSQL databases accept everybody, readers only, or nobody
version_added: 1.0.0
description:
  - Closes databases in an emergency and opens them again, all of them in one transaction.
  - What each database had before is remembered on this host, so that V(read_write) gives exactly that back.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.postgresql
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  databases:
    description: The databases.
    type: list
    elements: str
    required: true
  access:
    description:
      - Who is let in.
      - With V(nobody) the databases refuse every new session, also of superusers, and every session that is open is ended.
      - With V(read_only) new transactions cannot write and every session that is open before is ended. A session may switch that off
        for itself, so it stops honest programs, and nobody else.
      - With V(read_write) the databases are as they were before. What this module neither closed nor locked is left as it is, which
        RV(msg) says.
    type: str
    choices: [read_write, read_only, nobody]
    required: true
  terminate_wait:
    description: For how many seconds to wait until sessions have ended.
    type: int
    default: 10
author:
  - payops.rollback contributors (@payops)
seealso:
  - module: payops.rollback.pg_restore
  - module: payops.rollback.pg_check
"""

EXAMPLES = r"""
---
- name: Stop everything that is written to the shop's database
  payops.rollback.pg_access:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu]
    access: nobody
    login_unix_socket: /var/run/postgresql

- name: Open it again, as it was
  payops.rollback.pg_access:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu]
    access: read_write
    login_unix_socket: /var/run/postgresql
"""

RETURN = r"""
msg:
  description: Who is let in now, in one sentence.
  returned: always
  type: str
  sample: "kejayangu: open to nobody."
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
databases:
  description: By database, who is let in (C(access)) and who was before (C(was)).
  returned: success
  type: dict
  sample: {kejayangu: {access: nobody, was: read_write}}
sessions:
  description: Sessions that did not end in time.
  returned: when some did not
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of, run_argument_spec, run_of
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _access
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import connect_of, postgresql_argument_spec


def have_access(module: AnsibleModule) -> dict[str, t.Any]:
    given = module.params
    with connect_of(module) as server, run_of(module, _access.COMPONENT, _access.STEPS) as run:
        access = _access.Access(server, run, paths_of(module), given["databases"], given["terminate_wait"])
        return access.reach(given["access"], module.check_mode)


def main() -> None:
    spec = {
        **run_argument_spec(),
        **postgresql_argument_spec(),
        "databases": {"type": "list", "elements": "str", "required": True},
        "access": {"type": "str", "required": True, "choices": list(_access.ACCESS)},
        "terminate_wait": {"type": "int", "default": 10},
    }
    execute(AnsibleModule(spec, supports_check_mode=True), have_access)


if __name__ == "__main__":
    main()
