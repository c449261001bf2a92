#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_check
short_description: Ask PostgreSQL databases whether their data holds and how they differ from a rollback point
version_added: 1.0.0
description:
  - Runs declared queries, counts rows, looks for rows whose foreign key points nowhere and for invalid indexes.
  - With O(version) it also tells whether each database is at that point, how its catalogue differs, and how many rows were written since.
  - Everything is read in read-only transactions. Nothing is changed.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.attributes.info_module
  - payops.rollback.run
  - payops.rollback.postgresql
options:
  databases:
    description: The databases.
    type: list
    elements: str
    required: true
  version:
    description: The rollback point that the databases are compared with.
    type: str
  queries:
    description: Queries that must find what is expected.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the result calls the query.
        type: str
        required: true
      database:
        description: The database that is asked. The first of O(databases) if not given.
        type: str
      sql:
        description: One query. It runs in a read-only transaction that is rolled back.
        type: str
        required: true
      expect:
        description:
          - The first column of the first row. A list stands for the whole first row, C({min, max}) for a range of numbers.
          - V(true) if not given.
        type: raw
  count_tables:
    description: Tables whose rows are counted.
    type: list
    elements: dict
    default: []
    suboptions:
      database:
        description: The database. The first of O(databases) if not given.
        type: str
      schema:
        description: The schema.
        type: str
        default: public
      table:
        description: The table.
        type: str
        required: true
      min:
        description: The fewest rows that are all right.
        type: int
        default: 0
  orphans:
    description:
      - Look for rows whose foreign key points nowhere.
      - Those of a constraint that is C(NOT VALID) were always tolerated, so they are reported and are no failure.
    type: bool
    default: true
  invalid_indexes:
    description: Look for invalid indexes.
    type: bool
    default: true
  timeout:
    description: For how many seconds a check may run. A query that takes longer has failed, another check is reported as not finished.
    type: int
    default: 60
  verdict:
    description:
      - With V(fail) the module fails if a check does. With V(report) it only tells.
      - V(report) with O(version), otherwise V(fail), if not given.
    type: str
    choices: [fail, report]
author:
  - payops.rollback contributors (@payops)
seealso:
  - module: payops.rollback.pg_restore
  - module: payops.rollback.health_probe
"""

EXAMPLES = r"""
---
- name: The shop's data holds
  payops.rollback.pg_check:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu]
    login_unix_socket: /var/run/postgresql
    queries:
      - name: no payment without a reference
        sql: SELECT count(*) FROM payments WHERE reference IS NULL
        expect: 0
      - name: schema version
        sql: SELECT max(version) FROM migrations
        expect: {min: 12}
    count_tables:
      - table: users
        min: 1

- name: What was written since the point, and which columns, indexes and grants differ
  payops.rollback.pg_check:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu]
    version: "20231201_120000"
    login_unix_socket: /var/run/postgresql
"""

RETURN = r"""
msg:
  description: How many checks failed, and which, in one sentence.
  returned: always
  type: str
  sample: 4 check(s), 0 failed.
checks:
  description: Every check.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: What was checked.
      type: str
    database:
      description: Where.
      type: str
    kind:
      description: V(query), V(count), V(invalid_indexes) or V(orphans).
      type: str
    ok:
      description: Whether it holds. Null is worth a look and proves nothing.
      type: bool
    found:
      description: What was found.
      type: raw
    expected:
      description: What was expected.
      type: raw
failed_checks:
  description: The checks that failed, each in one sentence.
  returned: always
  type: list
  elements: str
databases:
  description: By database, how it differs from the point. Empty without O(version).
  returned: success
  type: dict
  contains:
    at_version:
      description:
        - Whether a flip to the point made this database, or the point was taken from it, while its catalogue is still that of the point.
      type: bool
    live_version:
      description: The point that the last flip brought.
      type: str
    catalogue_differences:
      description: What differs in columns, indexes, grants and everything else but rows, in sentences.
      type: list
      elements: str
    rows_since:
      description: By table, rows that were inserted or updated since the point.
      type: dict
    rows_gone:
      description: By table, how many of the point's rows were deleted or updated since.
      type: dict
    rows_since_is_estimate:
      description: Whether only the numbers of rows could be compared, because this database has another history than the point.
      type: bool
actions:
  description: Always empty.
  returned: success
  type: list
steps:
  description: Always empty.
  returned: success
  type: list
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _check
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import connect_of, postgresql_argument_spec


def ask(module: AnsibleModule) -> dict[str, t.Any]:
    given = module.params
    wish = _check.Wish(
        databases=given["databases"],
        version=given["version"],
        queries=given["queries"],
        count_tables=given["count_tables"],
        orphans=given["orphans"],
        invalid_indexes=given["invalid_indexes"],
        timeout=given["timeout"],
    )
    with connect_of(module) as server:
        found = _check.result(server, paths_of(module), wish)
    verdict = given["verdict"] or ("report" if given["version"] else "fail")
    if found["failed_checks"] and verdict == "fail":
        raise RollbackError(found.pop("msg"), **found)
    return found


def main() -> None:
    query = {
        "name": {"type": "str", "required": True},
        "database": {"type": "str"},
        "sql": {"type": "str", "required": True},
        "expect": {"type": "raw"},
    }
    table = {
        "database": {"type": "str"},
        "schema": {"type": "str", "default": "public"},
        "table": {"type": "str", "required": True},
        "min": {"type": "int", "default": 0},
    }
    spec = {
        **run_argument_spec(),
        **postgresql_argument_spec(),
        "databases": {"type": "list", "elements": "str", "required": True},
        "version": {"type": "str"},
        "queries": {"type": "list", "elements": "dict", "default": [], "options": query},
        "count_tables": {"type": "list", "elements": "dict", "default": [], "options": table},
        "orphans": {"type": "bool", "default": True},
        "invalid_indexes": {"type": "bool", "default": True},
        "timeout": {"type": "int", "default": 60},
        "verdict": {"type": "str", "choices": ["fail", "report"]},
    }
    execute(AnsibleModule(spec, supports_check_mode=True), ask)


if __name__ == "__main__":
    main()
