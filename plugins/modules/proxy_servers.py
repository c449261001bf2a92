#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxy_servers
short_description: Which servers of a proxy take traffic, whichever kind of proxy it is
version_added: 1.0.0
description:
  - Runs M(payops.rollback.haproxy_servers) or M(payops.rollback.nginx_servers), as O(kind) says, with the same options.
  - Options that only the other kind knows are left away, so an inventory may say where both are.
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
options:
  kind:
    description:
      - The kind of proxy that the host has.
    type: str
    choices: [haproxy, nginx]
    required: true
  retry_after:
    description:
      - The seconds in C(Retry-After). HAProxy has its own copy of it in C(haproxy.cfg).
    type: int
    default: 30
  socket:
    description:
      - With O(kind=haproxy). The runtime socket, a path or C(host:port). HAProxy must have it with C(level admin).
    type: str
    default: /run/haproxy/admin.sock
  share_map:
    description:
      - With O(kind=haproxy). The map file that says how much each frontend lets in.
    type: path
    default: /etc/haproxy/payops-share.map
  receivers_map:
    description:
      - With O(kind=haproxy). The map file that lists O(receivers).
    type: path
    default: /etc/haproxy/payops-receivers.map
  state_file:
    description:
      - With O(kind=haproxy). The C(server-state-file) of HAProxy, if it has one. It is written after each change, so that a reload keeps the change.
      - Without it a reload puts servers back to what C(haproxy.cfg) says. What frontends let in survives a reload in any case.
    type: path
  folder:
    description:
      - With O(kind=nginx). Where the included files lie.
    type: path
    default: /etc/nginx/payops
  config:
    description:
      - With O(kind=nginx). The configuration that nginx runs with.
    type: path
    default: /etc/nginx/nginx.conf
  pid_file:
    description:
      - With O(kind=nginx). The file with the process id of nginx's master.
    type: path
    default: /run/nginx.pid
  program:
    description:
      - With O(kind=nginx). nginx itself, for C(nginx -T).
    type: path
    default: /usr/sbin/nginx
  client:
    description:
      - With O(kind=nginx). The nginx variables that tell clients apart, for O(state=limited). Behind a CDN for example V($http_x_forwarded_for).
    type: str
    default: $remote_addr
seealso:
  - module: payops.rollback.haproxy_servers
  - module: payops.rollback.nginx_servers
"""

EXAMPLES = r"""
---
- name: Take one server out of the traffic and wait for its sessions
  payops.rollback.proxy_servers:
    kind: "{{ rollback_haproxy_kind }}"
    store: /var/lib/payops-rollback
    system: sunny
    servers:
      - backend: payments
        server: app1
    state: maint
"""

RETURN = r"""
msg:
  description: What was done, in one sentence. Everything else is as the module of that kind returns it.
  returned: always
  type: str
  sample: no new traffic to payments/app1
"""
