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
  state:
    description:
      - V(observed) reads, and fails if a frontend of O(frontends) is not prepared to be held. The message has the lines for C(haproxy.cfg).
      - V(held) means that O(frontends) answer 503 with C(Retry-After) to everybody but O(receivers).
      - V(closed) means that O(frontends) answer 503 with C(Retry-After) to everybody, receivers included.
      - V(limited) means that O(frontends) let O(share) percent of the clients in, and never more than before.
      - V(drained) means that O(servers) get nothing new and have no session left.
      - V(maint) means the same, and that they are out of rotation, for clients with a cookie, too.
      - V(ready) means that O(servers) are in rotation with O(percent) of their weight, and HAProxy's health checks agree.
      - V(routed) means that O(servers) are at O(address), or where they were before if it is empty.
      - V(previous) means that all is as it was before the first of these changes, except for V(routed). With O(servers) only they are.
    type: str
    choices: [observed, held, closed, limited, drained, maint, ready, routed, previous]
    required: true
  socket:
    description:
      - The runtime socket, a path or C(host:port). HAProxy must have it with C(level admin).
    type: str
    default: /run/haproxy/admin.sock
  servers:
    description:
      - The servers that are meant.
    type: list
    elements: dict
    default: []
    suboptions:
      backend:
        description: The backend, as C(haproxy.cfg) names it.
        type: str
        required: true
      server:
        description: The server in it.
        type: str
        required: true
  frontends:
    description:
      - The frontends that can be held. Each must have the lines that the role C(rollback_haproxy) shows.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The frontend, as C(haproxy.cfg) names it.
        type: str
        required: true
      url:
        description:
          - Where it answers, as seen from this host, for example V(http://127.0.0.1). It is asked whether it does what it was told.
        type: str
        required: true
      validate_certs:
        description: Whether its certificate must be trusted and for its name.
        type: bool
        default: true
      ca_cert:
        description: The file on this host with the certificates that are trusted, instead of the system's.
        type: path
      server_name:
        description: The name that the certificate must be for, if it is not the host in O(frontends[].url).
        type: str
  receivers:
    description:
      - Beginnings of paths that stay up with O(state=held) and O(state=limited), for providers that do not try again, such as M-Pesa.
      - What is behind them must be up then, so it should be a backend of its own and not the application that is rolled back.
    type: list
    elements: str
    default: []
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
  share:
    description: With O(state=limited), the percentage of clients to let in. V(0) is O(state=held), V(-1) is O(state=closed).
    type: int
    default: 100
  percent:
    description: With O(state=ready), the percentage of the weight in C(haproxy.cfg).
    type: int
    default: 100
  ramp:
    description:
      - The percentages of its weight that a server gets first when it comes back into rotation. A server of weight 1 has no smaller one.
    type: list
    elements: int
    default: []
  ramp_seconds:
    description: How many seconds lie between two of O(ramp).
    type: float
    default: 5.0
  drain_seconds:
    description: For how many seconds to wait until no session is left.
    type: float
    default: 30.0
  cut_sessions:
    description: Go on over sessions that are left then, instead of failing.
    type: bool
    default: false
  min_left:
    description: How many other servers of the backend must take traffic before one is drained.
    type: int
    default: 1
  wait_seconds:
    description: How long to wait for HAProxy's health checks to agree.
    type: float
    default: 30.0
  hold_seconds:
    description: After how many seconds a hold counts as overdue. The deadline is written down and reported; nothing ends a hold by itself.
    type: int
    default: 900
  address:
    description:
      - With O(state=routed), the IP address and port, for example V(10.0.0.12:5001). Something must listen there.
      - If it is empty, the address that the servers had before.
    type: str
    default: ""
  state_file:
    description:
      - The C(server-state-file) of HAProxy, if it has one. It is written after each change, so that a reload keeps the change.
      - Without it a reload puts servers back to what C(haproxy.cfg) says. What frontends let in survives a reload in any case.
    type: path
seealso:
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
sessions:
  description: The sessions that were left when the time was over.
  returned: when draining failed
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.options import haproxy_argument_spec, traffic_of
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import COMPONENT, STEPS
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec, run_of
from ansible_collections.payops.rollback.plugins.module_utils._traffic.options import keys_of


def reach(module: AnsibleModule) -> dict[str, t.Any]:
    state = module.params["state"]
    with run_of(module, COMPONENT, STEPS, acting=state != "observed") as run:
        try:
            return traffic_of(module, run).reach(state, keys_of(module, "HAProxy"))
        except RollbackError as exc:
            exc.details.setdefault("steps", run.steps)
            raise


def main() -> None:
    execute(AnsibleModule({**run_argument_spec(), **haproxy_argument_spec()}, supports_check_mode=True), reach)


if __name__ == "__main__":
    main()
