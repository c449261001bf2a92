#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_probe
short_description: Ask whether a payment system is healthy, and wait for it until a deadline
version_added: 1.0.0
description:
  - Runs HTTP, TCP, TLS and SQL probes from this host, all at the same time.
  - Each probe must succeed O(successes) times in a row before O(deadline). One failure starts its count again.
  - Fails if one of them does not, with the last and the first error of each.
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.attributes.info_module
  - payops.rollback.probes
options:
  probes:
    required: true
  successes:
    description:
      - How many times in a row each probe must succeed.
    type: int
    default: 3
  deadline:
    description:
      - After how many seconds the whole call ends.
    type: float
    default: 30.0
  interval:
    description:
      - How many seconds lie between the beginnings of two attempts of a probe; a slow answer is waited for.
    type: float
    default: 0.5
  stable_seconds:
    description:
      - How many seconds lie at least between the first and the last of the successes in a row, in addition to O(successes).
      - To watch something for a while without counting how often it is asked meanwhile.
    type: float
    default: 0.0
notes:
  - The probes change nothing by themselves. What a request or a query with side effects does is up to the one who writes it.
seealso:
  - module: payops.rollback.pm2_rollback
  - module: payops.rollback.pg_check
"""

EXAMPLES = r"""
---
- name: The API answers as version 20231201_120000, its payments work, and its security headers are there
  payops.rollback.health_probe:
    probes:
      - name: api
        url: http://localhost:5000/health
        max_ms: 500
        expect_json:
          - path: status
            in: [ok, healthy]
          - path: version
            equals: "20231201_120000"
        expect_headers:
          - name: X-Content-Type-Options
            equals: nosniff
          - name: X-Powered-By
            exists: false
      - name: payments
        url: http://localhost:5000/health/payments
        expect_json:
          - path: providers.mpesa.status
            equals: operational
          - path: providers.stripe.status
            equals: operational
      - name: payments table
        type: sql
        login_host: localhost
        login_user: kejayangu_user
        login_password: "{{ kejayangu_db_password }}"
        database: kejayangu
        query: SELECT count(*) FROM payments
        expect:
          min: 1

- name: The certificate is good for another 30 days
  payops.rollback.health_probe:
    successes: 1
    probes:
      - type: tls
        host: api.kejayangu.example
        min_days: 30
"""

RETURN = r"""
ok:
  description: Whether all probes succeeded.
  returned: always, unless the input is refused
  type: bool
  sample: true
successes:
  description: How many successes in a row were asked for.
  returned: always, unless the input is refused
  type: int
  sample: 3
seconds:
  description: How long it took.
  returned: always, unless the input is refused
  type: float
  sample: 1.03
skipped_probes:
  description: The names of the probes that were not sent because of check mode.
  returned: always, unless the input is refused
  type: list
  elements: str
  sample: []
probe_errors:
  description: What is wrong with the probes, one sentence each.
  returned: if the input is refused
  type: list
  elements: str
  sample: ["api: url is missing"]
probes:
  description: One entry per probe.
  returned: always, unless the input is refused
  type: list
  elements: dict
  contains:
    name:
      description: The name of the probe.
      type: str
    type:
      description: The type of the probe.
      type: str
    ok:
      description: Whether it succeeded often enough.
      type: bool
    attempts:
      description: How often it was tried.
      type: int
    consecutive:
      description: How many of the last attempts succeeded in a row.
      type: int
    p50_ms:
      description: The median time of the attempts that succeeded, V(null) if none did.
      type: float
    p95_ms:
      description: The time within which 95 percent of the successful attempts lay.
      type: float
    first_error:
      description: What was wrong the first time, V(null) if nothing ever was.
      type: str
    last_error:
      description: What was wrong the last time.
      type: str
    observed:
      description: What was seen last, for example the status, the JSON values that were asked for, the value of the query or the days left.
      type: dict
  sample:
    - name: api
      type: http
      ok: true
      attempts: 3
      consecutive: 3
      p50_ms: 3.1
      p95_ms: 4.0
      first_error:
      last_error:
      observed: {status: 200, ms: 3.1, json: {status: ok, version: "20231201_120000"}}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import execute
from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, run_probes, success_message
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes, probe_argument_spec


def probe(module: AnsibleModule) -> dict[str, t.Any]:
    probes = check_probes(module.params["probes"])
    skipped = [entry for entry in probes if module.check_mode and entry.get("method") == "POST"]
    probes = [entry for entry in probes if entry not in skipped]
    result: dict[str, t.Any] = {"ok": True, "probes": [], "successes": module.params["successes"], "stable_seconds": 0.0, "seconds": 0.0}
    if probes:
        result = run_probes(
            probes, module.params["successes"], module.params["deadline"], module.params["interval"], module.params["stable_seconds"]
        )
    result["skipped_probes"] = [entry["name"] for entry in skipped]
    if not result["ok"]:
        raise RollbackError(failure_message(result), **result)
    return {"changed": False, "msg": success_message(result), **result}


def main() -> None:
    spec = {
        "probes": {**probe_argument_spec(), "required": True},
        "successes": {"type": "int", "default": 3},
        "deadline": {"type": "float", "default": 30.0},
        "interval": {"type": "float", "default": 0.5},
        "stable_seconds": {"type": "float", "default": 0.0},
    }
    execute(AnsibleModule(spec, supports_check_mode=True), probe)


if __name__ == "__main__":
    main()
