#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_run_info
short_description: Read what a rollback run must know about this host
version_added: 1.0.0
description:
  - Reads the lock, unfinished runs with their steps, points, releases, what is held closed, and the free space of the store, in one call.
  - Changes nothing and needs no lock.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.attributes.info_module
  - payops.rollback.run.store
options:
  legacy_path:
    description:
      - The folder C(rollback-versions) of an application, in which a team's own script left backups named C(backup_YYYYmmdd_HHMMSS).
    type: path
  points:
    description: Whether to list the rollback points.
    type: bool
    default: true
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
---
- name: Look at the host before anything starts
  payops.rollback.rollback_run_info:
    store: /var/lib/payops-rollback
    system: kejayangu
    legacy_path: /srv/kejayangu/api/rollback-versions
  register: before
"""

RETURN = r"""
lock:
  description: Who holds the lock of this host; none if nobody does.
  returned: success
  type: dict
lock_alive:
  description:
    - Whether that run is alive, as far as this host can tell. For a controller elsewhere that is whether its lease is still running.
  returned: success
  type: bool
lock_steps:
  description: What that run did so far, per component.
  returned: success
  type: dict
acting:
  description: The processes of modules that act on this host now.
  returned: success
  type: list
  elements: int
unfinished:
  description: Runs that were opened, never closed, and hold no lock, newest first. C(steps) says what they did per component.
  returned: success
  type: list
  elements: dict
runs:
  description: The last ten runs, and of the older ones all but backups, newest first.
  returned: success
  type: list
  elements: dict
states:
  description: What each component remembers between runs.
  returned: success
  type: dict
holds:
  description: What is held closed now, until when, and the command that ends it.
  returned: success
  type: list
  elements: dict
releases:
  description: The releases known on this host, good and bad.
  returned: success
  type: dict
points:
  description:
    - The points of this host, newest first, then the legacy backups. M(payops.rollback.rollback_point_info) describes an element.
  returned: success
  type: list
  elements: dict
problems:
  description: Files that are damaged.
  returned: success
  type: list
  elements: str
disk:
  description: Free and total bytes where the store is.
  returned: success
  type: dict
  sample: {path: /var/lib/payops-rollback/kejayangu, free: 52613349376, total: 105089261568}
python:
  description: The version of Python on this host.
  returned: success
  type: str
user:
  description: The user as whom the module ran.
  returned: success
  type: dict
  sample: {name: postgres, uid: 26}
machine:
  description: Machine id, boot id and name of this host.
  returned: success
  type: dict
time:
  description: The time of this host, in seconds since 1970.
  returned: success
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of
from ansible_collections.payops.rollback.plugins.module_utils._overview import overview


def read(module: AnsibleModule) -> dict[str, t.Any]:
    return {"changed": False, **overview(paths_of(module), module.params["legacy_path"], module.params["points"])}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "store_group": {"type": "str"},
            "system": {"type": "str", "required": True},
            "legacy_path": {"type": "path"},
            "points": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    execute(module, read)


if __name__ == "__main__":
    main()
