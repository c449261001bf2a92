#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Keep, stage and switch the release of an application on the disk
version_added: 1.0.0
description:
  - Archives the release that is live into a rollback point, stages a release beside it, and makes it live in one atomic step of the kernel.
  - A release is known by its tree hash, which covers names, modes, symlinks and contents, C(node_modules) included, but not O(persistent).
  - No file of a live release is changed. What was replaced is kept until O(state=complete).
  - It starts and stops nothing. Use M(payops.rollback.pm2_rollback) for applications under PM2.
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.release
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(archived) means that the point holds the release that is live now.
      - V(staged) means that the release of the point lies beside the live one, checked file by file.
      - V(live) means that the release of the point lies at O(app_dir). It stages first if needed.
      - V(previous) means that the release lies there which the last switch replaced, or which an unfinished switch was leaving.
        It is refused where somebody has deployed or changed what is live since a finished switch, or replaced the kept release.
      - V(complete) means that the replaced release is removed. There is no way back to it then.
        It is refused where something of O(persistent) lies in that tree alone.
    type: str
    choices: [archived, staged, live, previous, complete]
    required: true
seealso:
  - module: payops.rollback.pm2_rollback
"""

EXAMPLES = r"""
---
- name: Keep the release that is live now as a rollback point
  payops.rollback.app_release:
    store: /var/lib/payops-rollback
    system: polaris
    app_dir: /srv/polaris/current
    version: "20231201_120000"
    state: archived

- name: Make it live again
  payops.rollback.app_release:
    store: /var/lib/payops-rollback
    system: polaris
    app_dir: /srv/polaris/current
    version: "20231201_120000"
    state: live
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: made 20231201_120000 live at /srv/polaris/current
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
unfinished:
  description: A switch that was begun and not finished.
  returned: success
  type: dict
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
removed:
  description: The folders that were removed.
  returned: with O(state=complete)
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec, run_of
from ansible_collections.payops.rollback.plugins.module_utils._release.options import release_argument_spec, releases_of
from ansible_collections.payops.rollback.plugins.module_utils._release.release import STATES, STEPS, Backend

COMPONENT = "release"


def reach(module: AnsibleModule) -> dict[str, t.Any]:
    with run_of(module, COMPONENT, STEPS) as run:
        return Backend(releases_of(module, COMPONENT), run, module.check_mode).reach(module.params["state"], module.params["version"])


def main() -> None:
    spec = {
        **run_argument_spec(),
        **release_argument_spec(),
        "state": {"type": "str", "choices": list(STATES), "required": True},
    }
    required = [("state", state, ["version"]) for state in ("archived", "staged", "live")]
    execute(AnsibleModule(spec, supports_check_mode=True, required_if=required), reach)


if __name__ == "__main__":
    main()
