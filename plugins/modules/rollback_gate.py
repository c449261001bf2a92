#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_gate
short_description: Decide whether a run may start, as which run, to which version
version_added: 1.0.0
author:
  - payops.rollback contributors (@payops)
description:
  - Runs once, on the controller, before anything is touched. It changes nothing.
  - It refuses a version that is not text, extra variables that nothing would read, components that no role serves,
    words that a playbook around ours sets (they count only as extra variables; those of an inventory are named in RV(warnings)),
    a C(--limit) to a part of the system, a point that is unknown or incomplete, and a lock that somebody alive holds.
    Each refusal says what was found, what was expected and what to type next.
  - It needs the result of M(payops.rollback.rollback_run_info) on every host, registered as C(transaction_info). An emergency does without.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  system:
    description:
      - Name of the system, as the inventory says it.
    type: raw
    required: true
  intent:
    description:
      - What the run is for.
      - With V(points) and V(verify), which only look, just the command is checked, and only RV(hosts), RV(members) and RV(components) are returned.
    type: str
    required: true
    choices: [full, database, application, gradual, backup, undo, complete, emergency, recover, points, verify]
  components:
    description:
      - The components that the playbook is about, in the order in which they flip.
    type: list
    elements: str
    required: true
  version:
    description:
      - The wished-for point, V(latest) or V(previous); V(new) makes a name for a backup. Anything but text is refused.
      - Left out for O(intent=undo) and O(intent=complete). An extra variable C(version) that names another point than the last rollback's
        is refused there.
    type: raw
  words:
    description:
      - Extra variables that the playbook reads, beside those that the argument specs of the roles declare.
    type: list
    elements: str
    default: []
  allow_partial:
    description:
      - Accept that C(--limit) leaves hosts of the system out.
    type: bool
    default: false
  takeover:
    description:
      - The run id of a holder of the lock that is known to be dead; empty for none.
    type: str
    default: ""
  who:
    description:
      - Who asked for the run. By default the AWX user, else the user of the shell.
    type: str
    default: ""
  lock_host:
    description:
      - The host on which the lock is won first. By default the first of the system by name.
    type: str
    default: ""
"""

EXAMPLES = r"""
---
- name: Read every host
  payops.rollback.rollback_run_info:
    store: /var/lib/payops-rollback
    system: kejayangu
  register: transaction_info

- name: May this run start?
  payops.rollback.rollback_gate:
    system: kejayangu
    intent: full
    version: latest
    components: [postgresql, pm2]
  run_once: true
  register: transaction_gate
"""

RETURN = r"""
run_id:
  description: The id of this run, or of the dead one that it continues.
  returned: success
  type: str
  sample: 3f9a12bc
resume:
  description: Whether a run that did not finish is continued.
  returned: success
  type: bool
version:
  description: The name of the point that was chosen; for O(intent=undo) the one that the rollback went to.
  returned: success
  type: str
  sample: "20231201_120000"
point:
  description: The chosen point as M(payops.rollback.rollback_point_info) describes it, over all hosts.
  returned: success
  type: dict
passed_over:
  description: Points that V(latest) or V(previous) passed over, each with C(version) and C(why).
  returned: success
  type: list
  elements: dict
warnings:
  description: Sentences that a person should read.
  returned: success
  type: list
  elements: str
complaint:
  description: What an emergency has to say about the command once everything is stopped. Other intents refuse such a command.
  returned: success, but not for the intents V(points) and V(verify)
  type: str
hosts:
  description: The hosts of the system that take part.
  returned: success
  type: list
  elements: str
members:
  description: Host to components.
  returned: success
  type: dict
versioned:
  description: The same without what has no version of its own, such as a proxy. These are the parts of a point.
  returned: success, unless O(intent) only looks
  type: dict
components:
  description: The components that this run is about, in order.
  returned: success
  type: list
  elements: str
target:
  description: For O(intent=undo) and O(intent=complete) the run that they are about.
  returned: success
  type: dict
nothing:
  description: A sentence when there is nothing to do, else empty.
  returned: success
  type: str
lock_host:
  description: The host on which the lock is won first.
  returned: success
  type: str
expect_holder:
  description: The dead holder of the lock as it was seen, none where the lock is free.
  returned: success
  type: dict
controller:
  description: Who runs this, so that others can tell whether it lives.
  returned: success
  type: dict
now:
  description: When the decision was made, in UTC.
  returned: success
  type: str
playbooks:
  description: >-
    How this playbook was named, with V({}) in place of its name (such as V(playbooks/{}.yml)), for commands that people are told to type.
  returned: success
  type: str
inventory:
  description: The inventory as it was given, for commands that people are told to type.
  returned: success
  type: str
who:
  description: Who asked for the run.
  returned: success
  type: str
  sample: wanjiku
"""
