#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_point_info
short_description: List and verify the rollback points of this host
version_added: 1.0.0
description:
  - Lists native points and the backups that a team's own script wrote, newest first. Changes nothing.
  - One host sees only its own part. The filter P(payops.rollback.merge_points#filter) makes points of the whole system from all hosts.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.attributes.info_module
  - payops.rollback.run.store
options:
  versions:
    description: Look at these points only.
    type: list
    elements: raw
  verify:
    description:
      - V(names) checks identity and the checksum of each summary, which takes about a second for 1,000 points.
      - V(sizes) reads every manifest and compares the size of every file.
      - V(files) compares the SHA-256 of every file, too.
    type: str
    choices: [names, sizes, files]
    default: names
  legacy_path:
    description:
      - The folder C(rollback-versions) of an application, in which a team's own script left backups named C(backup_YYYYmmdd_HHMMSS).
    type: path
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
---
- name: List the points
  payops.rollback.rollback_point_info:
    store: /var/lib/payops-rollback
    system: kejayangu
  register: here

- name: Check every file of one point
  payops.rollback.rollback_point_info:
    store: /var/lib/payops-rollback
    system: kejayangu
    versions: ["20231201_120000"]
    verify: files
"""

RETURN = r"""
points:
  description: The points, newest first, then the legacy backups.
  returned: success
  type: list
  elements: dict
  contains:
    version:
      description: The name of the point.
      type: str
      sample: "20231201_120000"
    legacy:
      description: Whether the team's own script wrote it.
      type: bool
    alias:
      description: The timestamp of a legacy backup, by which it can be named too.
      type: str
    path:
      description: Its folder.
      type: str
    created:
      description: When it was taken, in UTC.
      type: str
    sealed:
      description: Whether its backup finished.
      type: bool
    record:
      description: What the whole point is - who took it, why, healthy or not, and which components each host should have.
      type: dict
    components:
      description: Each component on this host with size, release and, if damaged, what is wrong.
      type: dict
    unfinished:
      description: Components whose backup was interrupted.
      type: list
      elements: str
    size:
      description: Bytes on this host.
      type: int
    pinned:
      description: Who pinned it, when and why; none if nobody did.
      type: dict
    problems:
      description: What is wrong with it, in sentences.
      type: list
      elements: str
missing:
  description: Those of O(versions) that this host does not have.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._io import check_name
from ansible_collections.payops.rollback.plugins.module_utils._legacy import list_legacy
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of
from ansible_collections.payops.rollback.plugins.module_utils._pointset import VERIFY, list_points


def read(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    only = None if params["versions"] is None else [check_name("The version", version) for version in params["versions"]]
    points = list_points(paths_of(module), params["verify"], only)
    if params["legacy_path"]:
        legacy = list_legacy(params["legacy_path"])
        points += [point for point in legacy if only is None or point["version"] in only or point["alias"] in only]
    names = {name for point in points for name in (point["version"], point.get("alias"))}
    return {"changed": False, "points": points, "missing": [version for version in only or [] if version not in names]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "store_group": {"type": "str"},
            "system": {"type": "str", "required": True},
            "versions": {"type": "list", "elements": "raw"},
            "verify": {"type": "str", "choices": list(VERIFY), "default": "names"},
            "legacy_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    execute(module, read)


if __name__ == "__main__":
    main()
