#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_servers
short_description: Which servers of an nginx take traffic, and how much of it the server blocks let in
version_added: 1.0.0
description:
  - The same states as M(payops.rollback.haproxy_servers) has, for nginx. It writes files that C(nginx.conf) includes, and reloads.
  - The C(server) lines of each upstream lie in a file of their own, O(folder)C(/upstream-payments.conf) for C(upstream payments). The team
    writes it and this module changes only C(down), C(weight) and the address of the servers that are meant.
  - What server blocks let in lies in O(folder)C(/doors.conf), which this module writes whole.
  - Before anything is written C(nginx -T) must accept the configuration as it is, and after it with the change. If not, the files are put
    back, and the nginx that runs serves as before.
  - A reload is over when new workers run and no old one takes anything new. A drain is over when the old workers are gone.
  - A reload loads everything that was edited in C(nginx.conf) since the last one, too.
  - It remembers what was there before the first change. O(state=previous) brings back exactly that, whoever calls it.
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
  - nginx 1.18 or newer with C(map) and C(split_clients), on Linux
  - The right to write O(folder), to read what C(nginx.conf) names, such as keys, and to signal nginx. This is root as a rule.
notes:
  - |
    What the team puts into C(nginx.conf), for the upstream V(payments) and the frontend V(api). A refusal prints the lines for the frontend
    and the first C(doors.conf) with your own names::

      http {
          include /etc/nginx/payops/doors.conf;
          upstream payments {
              include /etc/nginx/payops/upstream-payments.conf;
          }
          server {
              # api
              if ($payops_shut_api) { rewrite ^ /.payops-rollback-shut last; }
              location = /.payops-rollback {
                  default_type text/plain;
                  return 200 "payops-share $payops_share_api";
              }
              location = /.payops-rollback-shut {
                  internal;
                  default_type application/json;
                  add_header Retry-After $payops_retry_after always;
                  add_header X-Payops-Hold 1 always;
                  return 503 '{"error":"maintenance"}';
              }
          }
      }
  - |
    C(upstream-payments.conf) has one server a line. The comment behind it is its name; without one it is called by its address::

      server 10.0.0.11:5000 weight=100; # app1
      server 10.0.0.12:5000 weight=100; # app2
  - nginx has one word for V(drained) and V(maint), which is C(down), so the two states are one here.
  - nginx has no health checks of its own. A server comes back when something listens at its address.
options:
  folder:
    description:
      - Where the included files lie.
    type: path
    default: /etc/nginx/payops
  config:
    description:
      - The configuration that nginx runs with.
    type: path
    default: /etc/nginx/nginx.conf
  pid_file:
    description:
      - The file with the process id of nginx's master.
    type: path
    default: /run/nginx.pid
  program:
    description:
      - nginx itself, for C(nginx -T).
    type: path
    default: /usr/sbin/nginx
  client:
    description:
      - The nginx variables that tell clients apart, for O(state=limited). Behind a CDN for example V($http_x_forwarded_for).
    type: str
    default: $remote_addr
  retry_after:
    description: The seconds in C(Retry-After).
    type: int
    default: 30
seealso:
  - module: payops.rollback.haproxy_servers
  - module: payops.rollback.health_probe
"""

EXAMPLES = r"""
---
- name: Answer 503 to people and webhooks, but not to M-Pesa
  payops.rollback.nginx_servers:
    store: /var/lib/payops-rollback
    system: sunny
    frontends:
      - name: api
        url: https://127.0.0.1
        server_name: api.sunnypayments.example
    receivers: [/webhooks/mpesa]
    state: held

- name: Take one server out of the traffic and wait for its sessions
  payops.rollback.nginx_servers:
    store: /var/lib/payops-rollback
    system: sunny
    servers:
      - backend: payments
        server: app1
    drain_seconds: 60
    state: maint

- name: Bring everything back as it was
  payops.rollback.nginx_servers:
    store: /var/lib/payops-rollback
    system: sunny
    state: previous
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: no new traffic to payments/app1
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
places:
  description: Where each of the servers is when it is not routed elsewhere, and its state.
  returned: with O(state=routed)
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
  description: The lines that are missing in C(nginx.conf), and the first C(doors.conf).
  returned: when a frontend is not prepared to be held
  type: str
sessions:
  description: The connections to each server that workers of before had when the time was over.
  returned: when draining failed
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._nginx.options import nginx_argument_spec, traffic_of
from ansible_collections.payops.rollback.plugins.module_utils._nginx.traffic import STEPS, Traffic
from ansible_collections.payops.rollback.plugins.module_utils._traffic.options import reach


def act(module: AnsibleModule) -> dict[str, t.Any]:
    return reach(module, Traffic, STEPS, traffic_of)


def main() -> None:
    execute(AnsibleModule({**run_argument_spec(), **nginx_argument_spec()}, supports_check_mode=True), act)


if __name__ == "__main__":
    main()
