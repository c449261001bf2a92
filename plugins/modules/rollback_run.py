#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_run
short_description: Open or close a rollback run on this host
version_added: 1.0.0
description:
  - A run holds the lock of this host. While it does, modules of other runs refuse to act.
  - Of any number of parallel starters exactly one gets the lock.
  - A run whose controller died is found by the next one. The same intent and version continue it under its own run id,
    an undo or an emergency takes over, anything else is refused with the two commands that get out.
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
  run_id:
    description:
      - The run. With O(state=open) the result may name another one in RV(run_id), namely the dead run that is continued.
    required: true
  state:
    description:
      - With V(open) the run holds the lock of this host.
      - With V(closed) its outcome is written, releases are marked, and the lock is given back. The records of the last hundred
        backups and of all other runs stay.
    type: str
    choices: [open, closed]
    default: open
  intent:
    description: What the run is for. Required with O(state=open).
    type: str
    choices: [full, database, application, gradual, emergency, undo, complete, backup, recover, drill]
  version:
    description: The point that the run is about, as text. A number is refused, because V(2.10) would have become 2.1.
    type: raw
  who:
    description: The person who started the run.
    type: str
  controller:
    description:
      - Who the controller is, so that others can tell whether it still lives.
      - Without it the run counts as alive for O(lease) seconds after its last module.
    type: dict
    suboptions:
      machine_id:
        description: The content of C(/etc/machine-id).
        type: str
        required: true
      boot_id:
        description: The content of C(/proc/sys/kernel/random/boot_id).
        type: str
        required: true
      pid:
        description: The process that runs the playbook.
        type: int
        required: true
      started:
        description: When that process started, in clock ticks since boot (field 22 of C(/proc/PID/stat)).
        type: str
        required: true
      host:
        description: The name of the controller.
        type: str
        required: true
  components:
    description: The components that the run touches on this host.
    type: list
    elements: str
    default: []
  hosts:
    description: All hosts of the run.
    type: list
    elements: str
    default: []
  takeover:
    description:
      - The run id whose lock is taken by force, although it may be alive. Both run records say so.
      - An emergency takes over any other run without being told which.
    type: str
  expect_holder:
    description:
      - The holder, as RV(payops.rollback.rollback_run_info#module:lock) showed it, that was found dead on its own controller.
      - Its lock is taken only if it is still the holder.
    type: dict
  resume:
    description: Continue a dead run of the same intent and version under its own run id.
    type: bool
    default: true
  evict:
    description:
      - End the module that acts on this host for the run that is taken over, instead of waiting for it.
      - Every step of this collection may be killed; what it left is finished or undone by the next run.
    type: bool
    default: false
  wait:
    description: For how many seconds to wait for a module that is acting, before giving up.
    type: int
    default: 30
  inventory:
    description: How the inventory is named on the command line, so that the commands in a refusal can be typed as they stand.
    type: str
  playbooks:
    description: How a playbook of this collection is named on the command line, with V({}) in place of its name, such as V(playbooks/{}.yml).
    type: str
  outcome:
    description:
      - How the run ended. Required with O(state=closed).
      - V(unchanged) is a rollback that found everything in place. V(done) is what C(undo) takes back.
    type: str
    choices: [done, unchanged, undone, lost, failed, refused, stopped]
  releases:
    description:
      - Releases to mark with O(state=closed). A bad release stays bad unless overruled.
    type: list
    elements: dict
    default: []
    suboptions:
      release:
        description: The tree hash or image ID of the code.
        type: str
        required: true
      status:
        description: What is known about it.
        type: str
        choices: [good, bad]
        required: true
      why:
        description: Why.
        type: str
      version:
        description: The point that it belongs to.
        type: str
      overrule:
        description: Mark it good although it was marked bad before.
        type: bool
        default: false
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
---
- name: Take the lock of this host
  payops.rollback.rollback_run:
    store: /var/lib/payops-rollback
    system: kejayangu
    run_id: 20261121T231500Z-3f9a
    intent: full
    version: "20231201_120000"
    who: amina
    controller: "{{ gate.controller }}"
    components: [pm2]
    hosts: [app1, app2, db1]
  register: run

- name: Give it back
  payops.rollback.rollback_run:
    store: /var/lib/payops-rollback
    system: kejayangu
    run_id: "{{ run.run_id }}"
    state: closed
    outcome: done
    releases:
      - release: 9f86d081884c7d65
        status: bad
        why: broken migration
"""

RETURN = r"""
msg:
  description: What happened, in one sentence.
  returned: always
  type: str
  sample: Run 20261121T231500Z-3f9a holds the lock of this host.
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
run_id:
  description: The run that holds the lock, which may be the dead run that is continued.
  returned: success
  type: str
  sample: 20261121T231500Z-3f9a
resumed:
  description: Whether a dead run is continued.
  returned: with O(state=open)
  type: bool
took_over:
  description: The run whose lock was taken.
  returned: with O(state=open)
  type: str
evicted:
  description: The processes that were ended.
  returned: with O(state=open)
  type: list
  elements: int
lock:
  description: The lock as it is now.
  returned: with O(state=open)
  type: dict
fenced:
  description: Whether the run had lost the lock to another one, so that closing it changed nothing.
  returned: with O(state=closed)
  type: bool
run:
  description: The record of the run.
  returned: with O(state=closed)
  type: dict
journal:
  description: Every step that the run took on this host, in time order.
  returned: with O(state=closed)
  type: list
  elements: dict
releases:
  description: The releases known on this host, good and bad.
  returned: with O(state=closed)
  type: dict
refused_marks:
  description: Marks that were not made, and why.
  returned: with O(state=closed)
  type: list
  elements: str
commands:
  description: The two commands that get out of a refusal.
  returned: when the run may not start
  type: list
  elements: str
holder:
  description: The run that stands in the way.
  returned: when the run may not start
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._history import prune_runs
from ansible_collections.payops.rollback.plugins.module_utils._lock import close_run, open_run
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._overview import holds_of, read_states

WANTED = (
    "intent",
    "version",
    "who",
    "controller",
    "components",
    "hosts",
    "takeover",
    "expect_holder",
    "resume",
    "evict",
    "inventory",
    "playbooks",
)


def opened(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    paths = paths_of(module)
    wanted = {"run": params["run_id"], **{key: params[key] for key in WANTED}}
    holds = holds_of(read_states(paths)[0])
    done = open_run(paths, wanted, lease=params["lease"], wait=params["wait"], write=not module.check_mode, holds=holds)
    run_id, how = done["run_id"], ""
    if done["resumed"]:
        how = ", continued after its controller died"
    elif done["took_over"]:
        how = f", taken over from run {done['took_over']}"
    actions = [f"Ended process {pid}, which was acting for the run before" for pid in done["evicted"]]
    if done["changed"]:
        actions.append(f"Took the lock for run {run_id}{how}")
    return {
        "changed": done["changed"],
        "msg": f"Run {run_id} {'would hold' if module.check_mode and done['changed'] else 'holds'} the lock of this host{how}.",
        "actions": actions,
        "run_id": run_id,
        "resumed": done["resumed"],
        "took_over": done["took_over"],
        "evicted": done["evicted"],
        "lock": done["holder"],
        "diff": {"before": done["before"] or {}, "after": done["holder"]},
    }


def closed(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    done = close_run(paths_of(module), params["run_id"], params["outcome"], params["releases"], params["wait"], write=not module.check_mode)
    if not module.check_mode:
        prune_runs(paths_of(module))
    for sentence in done["refused_marks"]:
        module.warn(sentence)
    msg = f"Run {params['run_id']} is closed: {done['after'].get('outcome') or params['outcome']}."
    if done["fenced"]:
        msg = f"Run {params['run_id']} had lost the lock of this host to another run; nothing was changed."
        module.warn(msg)
    return {
        "changed": done["changed"],
        "msg": msg,
        "actions": [f"Closed run {params['run_id']} as {params['outcome']}"] if done["changed"] else [],
        "run_id": params["run_id"],
        "fenced": done["fenced"],
        "run": done["after"],
        "journal": done["journal"],
        "releases": done["releases"],
        "refused_marks": done["refused_marks"],
        "diff": {"before": done["before"], "after": done["after"]},
    }


def main() -> None:
    spec = run_argument_spec()
    spec["run_id"] = {"type": "str", "required": True}
    identity_spec = {
        key: {"type": "int" if key == "pid" else "str", "required": True} for key in ("machine_id", "boot_id", "pid", "started", "host")
    }
    spec.update(
        state={"type": "str", "choices": ["open", "closed"], "default": "open"},
        intent={
            "type": "str",
            "choices": ["full", "database", "application", "gradual", "emergency", "undo", "complete", "backup", "recover", "drill"],
        },
        version={"type": "raw"},
        who={"type": "str"},
        controller={"type": "dict", "options": identity_spec},
        components={"type": "list", "elements": "str", "default": []},
        hosts={"type": "list", "elements": "str", "default": []},
        takeover={"type": "str"},
        expect_holder={"type": "dict"},
        resume={"type": "bool", "default": True},
        evict={"type": "bool", "default": False},
        wait={"type": "int", "default": 30},
        inventory={"type": "str"},
        playbooks={"type": "str"},
        outcome={"type": "str", "choices": ["done", "unchanged", "undone", "lost", "failed", "refused", "stopped"]},
        releases={
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "release": {"type": "str", "required": True},
                "status": {"type": "str", "choices": ["good", "bad"], "required": True},
                "why": {"type": "str"},
                "version": {"type": "str"},
                "overrule": {"type": "bool", "default": False},
            },
        },
    )
    module = AnsibleModule(
        argument_spec=spec,
        required_if=[("state", "open", ["intent"]), ("state", "closed", ["outcome"])],
        supports_check_mode=True,
    )
    execute(module, opened if module.params["state"] == "open" else closed)


if __name__ == "__main__":
    main()
