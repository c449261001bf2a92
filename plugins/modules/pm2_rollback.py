#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_rollback
short_description: Roll an application under PM2 back to a rollback point, without refused requests
version_added: 1.0.0
description:
  - Archives the release of a PM2 application into a rollback point, stages a release beside the live one, tries it on a spare port,
    and switches to it and back.
  - In cluster mode the release first starts under a second name on the same port. The old workers finish their requests and go.
    At the end the application has its own name and its instances again. No request is refused or lost.
  - In fork mode the application is restarted. Its port is closed for the time that it takes to boot, and the plan says so.
  - It never believes an exit code of PM2. A release runs if its processes are new, stay up, have the release as their working directory,
    and all probes succeed.
  - A call that was killed anywhere is finished by the same call, or taken back with O(state=previous).
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.release
  - payops.rollback.pm2
  - payops.rollback.probes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  undo_run:
    description:
      - The runs whose switch O(state=previous) takes back, when those are others than O(run_id).
      - If none of them made the last switch, no switch is taken back; only a hold is ended.
    type: list
    elements: str
  state:
    description:
      - V(archived) means that the point holds the release that is live now, its C(node_modules), and how PM2 runs it.
      - V(staged) means that the release of the point lies beside the live one, and booted well on a spare port.
      - V(held) means that a responder answers every request with 503 and C(Retry-After), and no worker of the application is left.
      - V(live) means that the release of the point runs under the application's own name. It ends a hold, and stages first if needed.
      - V(previous) means that the release runs which the last switch replaced, or which an unfinished switch was leaving.
        It is refused where somebody has deployed or changed what is live since a finished switch, or replaced the kept release.
      - V(started) means that the release on the disk runs. It ends a hold or a stop.
      - V(stopped) means that the application and its singletons are stopped, and nobody answers. A C(cron_restart) does not start them
        again, as it would after C(pm2 stop); V(started) gives it back. It fails, after all is
        stopped, where PM2 runs anything else from the release.
      - V(complete) means that the replaced release is removed. There is no way back to it then.
        It is refused where something of O(persistent) lies in that tree alone.
    type: str
    choices: [archived, staged, held, live, previous, started, stopped, complete]
    required: true
  probes:
    description:
      - What must succeed before a release counts as healthy. Those that ask the application's own port are also used for the preflight.
    default: []
requirements:
  - PM2 5 or newer, and its node, on the host
  - Linux 3.15 or newer for layout=exchange
notes:
  - Run it as the user that owns the PM2 daemon.
  - The environment that PM2 holds is part of the point, in a file that only its owner can read.
seealso:
  - module: payops.rollback.app_release
  - module: payops.rollback.health_probe
  - module: payops.rollback.pg_restore
"""

EXAMPLES = r"""
---
- name: Keep the release that runs now as a rollback point
  payops.rollback.pm2_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    app: kejayangu-api
    app_dir: /srv/kejayangu/api
    version: "20231201_120000"
    state: archived

- name: Prepare a release and try it on a spare port
  payops.rollback.pm2_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    app: kejayangu-api
    app_dir: /srv/kejayangu/api
    version: "20231201_120000"
    probes:
      - url: http://localhost:5000/health
    version_path: version
    state: staged

- name: Switch to it
  payops.rollback.pm2_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    app: kejayangu-api
    app_dir: /srv/kejayangu/api
    version: "20231201_120000"
    probes:
      - url: http://localhost:5000/health
    version_path: version
    singletons: [kejayangu-worker]
    state: live

- name: Go back to what ran before
  payops.rollback.pm2_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    app: kejayangu-api
    app_dir: /srv/kejayangu/api
    state: previous
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: kejayangu-api at 20231201_120000 runs from /srv/kejayangu/api, verified
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
plan:
  description: How the switch goes, or went, including what it costs.
  returned: with state staged, live, previous or started
  type: list
  elements: str
live:
  description: The version, if it is known, and the tree hash of what is live.
  returned: success
  type: dict
kept:
  description: What the last switch replaced, and where it lies.
  returned: success
  type: dict
staged:
  description: What is staged.
  returned: success
  type: dict
hold:
  description: Since when the application is held, by which run, and its deadline as seconds since 1970.
  returned: success
  type: dict
unfinished:
  description: A switch that was begun and not finished.
  returned: success
  type: dict
processes:
  description: The processes of the application in PM2's list.
  returned: success
  type: list
  elements: dict
release:
  description: The tree hash of the release of O(version).
  returned: with O(version)
  type: str
at_version:
  description: Whether the release of O(version) was live already.
  returned: with state staged or live
  type: bool
drift:
  description: Files that were added to the live release since, at most 20.
  returned: with state staged or live
  type: list
  elements: str
preflight:
  description: The spare port and the probes of the preflight, and the seconds until they had succeeded.
  returned: when a preflight was run
  type: dict
boot_seconds:
  description: How long the release took to answer its probes in its preflight; null where it was not tried yet.
  returned: with state staged, unless the release is live already
  type: float
removed:
  description: The folders that were removed.
  returned: with O(state=complete)
  type: list
  elements: str
undone:
  description: Whether what ran before runs again.
  returned: when a switch failed
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec, run_of
from ansible_collections.payops.rollback.plugins.module_utils._pm2.backend import STATES, STEPS, Backend
from ansible_collections.payops.rollback.plugins.module_utils._pm2.options import app_of, pm2_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._release.options import release_argument_spec

COMPONENT = "pm2"


def reach(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    with run_of(module, COMPONENT, STEPS) as run:
        try:
            return Backend(app_of(module, COMPONENT, run), module.check_mode).reach(params["state"], params["version"], params["undo_run"])
        except RollbackError as exc:
            exc.details.setdefault("steps", run.steps)
            raise


def main() -> None:
    spec = {
        **run_argument_spec(),
        **release_argument_spec(),
        **pm2_argument_spec(),
        "state": {"type": "str", "choices": list(STATES), "required": True},
        "undo_run": {"type": "list", "elements": "str"},
    }
    required = [("state", state, ["version"]) for state in ("archived", "staged", "live")]
    execute(AnsibleModule(spec, supports_check_mode=True, required_if=required), reach)


if __name__ == "__main__":
    main()
