#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_servers
short_description: Which servers of an HAProxy take traffic, and how much of it the frontends let in
version_added: 1.0.0
description:
  - Takes servers out of the traffic and brings them back, sends them to another address and back, and answers 503 with C(Retry-After)
    while something is repaired. All of it at run time, without a reload.
  - It reads again after everything that it writes, because HAProxy answers errors as text.
  - It remembers what was there before the first change. O(state=previous) brings back exactly that, whoever calls it.
  - It speaks to the runtime socket itself, and not through C(community.general.haproxy), because that module knows nothing of the lock of a
    run (a proxy that an emergency closed must not be opened again by the run that the emergency replaced), has no check mode and does not wait
    for sessions.
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.traffic
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - HAProxy 2.4 or newer
options:
  socket:
    description:
      - The runtime socket, a path or C(host:port). HAProxy must have it with C(level admin).
    type: str
    default: /run/haproxy/admin.sock
  share_map:
    description: The map file that says how much each frontend lets in.
    type: path
    default: /etc/haproxy/payops-share.map
  receivers_map:
    description: The map file that lists O(receivers).
    type: path
    default: /etc/haproxy/payops-receivers.map
  retry_after:
    description: The seconds in C(Retry-After), for the lines that are shown. HAProxy has its own copy of it in C(haproxy.cfg).
    type: int
    default: 30
  state_file:
    description:
      - The C(server-state-file) of HAProxy, if it has one. It is written after each change, so that a reload keeps the change.
      - Without it a reload puts servers back to what C(haproxy.cfg) says. What frontends let in survives a reload in any case.
    type: path
seealso:
  - module: payops.rollback.nginx_servers
  - module: payops.rollback.pm2_rollback
  - module: payops.rollback.health_probe
"""

EXAMPLES = r"""
---
- name: Answer 503 to people and webhooks, but not to M-Pesa
  payops.rollback.haproxy_servers:
    store: /var/lib/payops-rollback
    system: sunny
    frontends:
      - name: api
        url: https://127.0.0.1
        server_name: api.sunnypayments.example
    receivers: [/webhooks/mpesa]
    state: held

- name: Take one server out of the traffic and wait for its sessions
  payops.rollback.haproxy_servers:
    store: /var/lib/payops-rollback
    system: sunny
    servers:
      - backend: payments
        server: app1
    drain_seconds: 60
    state: maint

- name: Bring everything back as it was, app1 with more traffic step by step
  payops.rollback.haproxy_servers:
    store: /var/lib/payops-rollback
    system: sunny
    ramp: [10, 50]
    state: previous
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: no new traffic to payments/app1; payments/app1 out of rotation
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
frontends:
  description: The percentage of clients that each frontend lets in. V(0) is nobody but the receivers, V(-1) nobody at all.
  returned: success
  type: dict
receivers:
  description: The beginnings of paths that stay up.
  returned: success
  type: list
  elements: str
servers:
  description: State, weight and address of every server, by C(backend/server).
  returned: success
  type: dict
before:
  description: What was there before the changes that are not taken back yet.
  returned: success
  type: dict
hold:
  description: Since when a frontend is held, by which run, and the deadline as seconds since 1970.
  returned: success
  type: dict
notes:
  description: What a person should know, for example that a backend has no server that takes traffic.
  returned: with O(state=observed)
  type: list
  elements: str
plan:
  description: What can be held, and what stays up.
  returned: with O(state=observed)
  type: list
  elements: str
at_version:
  description: Always true. A proxy has no version of its own.
  returned: with O(state=observed)
  type: bool
snippet:
  description: The lines that are missing in C(haproxy.cfg).
  returned: when a frontend is not prepared to be held
  type: str
places:
  description:
    - Where each of the servers is when it is not routed elsewhere, and its state.
    - With C(against), why nobody should be sent elsewhere in order to stop what is there, if anything stands against it.
  returned: with O(state=routed)
  type: dict
sessions:
  description: The sessions or connections that were left when the time was over.
  returned: when draining failed
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.options import haproxy_argument_spec, traffic_of
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import STEPS, Traffic
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._traffic.options import reach


def act(module: AnsibleModule) -> dict[str, t.Any]:
    return reach(module, Traffic, STEPS, traffic_of)


def main() -> None:
    execute(AnsibleModule({**run_argument_spec(), **haproxy_argument_spec()}, supports_check_mode=True), act)


if __name__ == "__main__":
    main()
