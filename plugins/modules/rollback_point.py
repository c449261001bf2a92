#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_point
short_description: Seal, pin, mark, delete or prune rollback points on this host
version_added: 1.0.0
description:
  - The components of a point are written by their own modules, such as M(payops.rollback.pg_snapshot). This module handles the point as a whole.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
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
      - V(sealed) writes the record of the whole point, which makes it complete. Do this last, on every host.
      - V(pinned) protects the point from V(pruned) and V(absent), V(unpinned) ends that.
      - V(good) and V(bad) mark O(releases) by word of a person, whatever was known of them before.
      - V(absent) removes the point, unless it is pinned, live or needed.
      - V(pruned) removes the points that neither O(keep_count) nor O(keep_days) keeps, or those of O(versions). The newest point of what
        is live, the last good point, pinned, needed by an unfinished run or by something kept, or a legacy backup stays.
    type: str
    choices: [sealed, pinned, unpinned, good, bad, absent, pruned]
    default: sealed
  version:
    description:
      - The point, as text. A number is refused, because V(2.10) would have become 2.1.
      - Required except with O(state=pruned).
    type: raw
  expected:
    description: Which components each host of the system has in this point. Required with O(state=sealed).
    type: dict
  inventory_host:
    description: The name of this host in O(expected). With it the point is sealed only if the components of this host are there.
    type: str
  created:
    description:
      - When the point was taken, in UTC as C(2023-12-01T12:00:00.000000Z). Give all hosts the same. By default, now.
    type: str
  who:
    description: The person who took, pinned or marked the point.
    type: str
  label:
    description: A few words on the point.
    type: str
  ticket:
    description: The change or incident that it belongs to.
    type: str
  reason:
    description: Why it was taken.
    type: str
  healthy:
    description: Whether the system was healthy when it was taken. Leave it out if nobody looked.
    type: bool
  why:
    description: Why the point is pinned or its releases are marked.
    type: str
  releases:
    description: The releases in the point, as their hosts know them. Required with O(state) V(good) and V(bad).
    type: list
    elements: str
  keep_count:
    description: Keep this many of the newest points. Good, unverified and unusable ones are counted apart.
    type: int
  keep_days:
    description: Keep points that are younger than this many days.
    type: int
  versions:
    description:
      - Remove these points instead, as far as they are here. One that is pinned, live or needed on this host stays.
      - Where the points lie on several hosts, decide once for all with P(payops.rollback.points_to_drop#filter); a host that decides
        alone sees only its own parts, and points would be left as halves.
    type: list
    elements: raw
  live:
    description: Versions and releases that are live now. What this host remembers is added.
    type: list
    elements: str
    default: []
  protect:
    description: Versions that other hosts need.
    type: list
    elements: str
    default: []
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
---
- name: Complete the point
  payops.rollback.rollback_point:
    store: /var/lib/payops-rollback
    system: kejayangu
    run_id: "{{ run.run_id }}"
    version: "20231201_120000"
    inventory_host: "{{ inventory_hostname }}"
    expected:
      app1: [pm2]
      db1: [postgresql]
    who: amina
    label: before release 2
    healthy: true

- name: Keep ten points and everything of the last month
  payops.rollback.rollback_point:
    store: /var/lib/payops-rollback
    system: kejayangu
    state: pruned
    keep_count: 10
    keep_days: 30

- name: Drop what was decided for all hosts
  payops.rollback.rollback_point:
    store: /var/lib/payops-rollback
    system: kejayangu
    state: pruned
    versions: "{{ plan.remove | map(attribute='version') | list }}"
"""

RETURN = r"""
msg:
  description: What happened, in one sentence.
  returned: always
  type: str
  sample: Point 20231201_120000 is sealed.
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
steps:
  description: The steps that were taken, with their times.
  returned: success
  type: list
  elements: dict
point:
  description: The record of the point, its pin, or the marks of its releases.
  returned: with O(state) V(sealed), V(pinned), V(unpinned), V(good) or V(bad)
  type: dict
removed:
  description: The points that were removed and why.
  returned: with O(state=pruned)
  type: list
  elements: dict
kept:
  description: The points that stay and why.
  returned: with O(state=pruned)
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._pointstate import change


def main() -> None:
    spec = run_argument_spec()
    spec.update(
        state={"type": "str", "choices": ["sealed", "pinned", "unpinned", "good", "bad", "absent", "pruned"], "default": "sealed"},
        version={"type": "raw"},
        expected={"type": "dict"},
        inventory_host={"type": "str"},
        created={"type": "str"},
        who={"type": "str"},
        label={"type": "str"},
        ticket={"type": "str"},
        reason={"type": "str"},
        healthy={"type": "bool"},
        why={"type": "str"},
        releases={"type": "list", "elements": "str"},
        keep_count={"type": "int"},
        keep_days={"type": "int"},
        versions={"type": "list", "elements": "raw"},
        live={"type": "list", "elements": "str", "default": []},
        protect={"type": "list", "elements": "str", "default": []},
    )
    module = AnsibleModule(
        argument_spec=spec,
        required_if=[
            ("state", "sealed", ["version", "expected"]),
            ("state", "pinned", ["version"]),
            ("state", "unpinned", ["version"]),
            ("state", "good", ["version", "releases", "who", "why"]),
            ("state", "bad", ["version", "releases", "who", "why"]),
            ("state", "absent", ["version"]),
            ("state", "pruned", ["keep_count", "keep_days", "versions"], True),
        ],
        supports_check_mode=True,
    )
    execute(module, change)


if __name__ == "__main__":
    main()
