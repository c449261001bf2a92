# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_traffic/options.py``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state:
    description:
      - V(observed) reads, and fails if a frontend of O(frontends) is not prepared to be held. The message has the lines to add.
      - V(held) means that O(frontends) answer 503 with C(Retry-After) to everybody but O(receivers).
      - V(closed) means that O(frontends) answer 503 with C(Retry-After) to everybody, receivers included.
      - V(limited) means that O(frontends) let O(share) percent of the clients in, and never more than before.
      - V(drained) means that O(servers) get nothing new and have no session left.
      - V(maint) means the same, and that they are out of rotation, for clients with a cookie, too.
      - V(ready) means that O(servers) are in rotation with O(percent) of their weight, and healthy as far as the proxy can tell.
      - V(routed) means that O(servers) are at O(address) or at O(ports), or where they were before if both are empty, and that the proxy has no
        connection left to where they were until now.
      - V(previous) means that all is as it was before the first of these changes, except for V(routed). With O(servers) only they are.
    type: str
    choices: [observed, held, closed, limited, drained, maint, ready, routed, previous]
    required: true
  servers:
    description:
      - The servers that are meant.
    type: list
    elements: dict
    default: []
    suboptions:
      backend:
        description: The backend, as the proxy's configuration names it; an C(upstream) of nginx.
        type: str
        required: true
      server:
        description: The server in it.
        type: str
        required: true
  frontends:
    description:
      - The frontends that can be held. Each must have the lines that the role C(rollback_haproxy) shows, with this name in them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The frontend, as the proxy's configuration names it; a C(server) block of nginx.
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
  share:
    description: With O(state=limited), the percentage of clients to let in. V(0) is O(state=held), V(-1) is O(state=closed).
    type: int
    default: 100
  percent:
    description: With O(state=ready), the percentage of the weight that a person gave the server.
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
    description: For how many seconds to wait until no session is left; with O(state=routed), no connection.
    type: float
    default: 30.0
  cut_sessions:
    description: Go on over sessions or connections that are left then, instead of failing.
    type: bool
    default: false
  min_left:
    description: How many other servers of the backend must take traffic before one is drained.
    type: int
    default: 1
  wait_seconds:
    description: How long to wait for the proxy, and for a server to be healthy.
    type: float
    default: 30.0
  accept_down:
    description:
      - With O(state=previous) a server that does not become healthy in O(wait_seconds) is put back to what it was all the same, and that is
        no failure. For a way back to where it may have been ill already.
    type: bool
    default: false
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
  ports:
    description:
      - With O(state=routed) and instead of O(address), which port of the same host to use instead of which. The keys are the ports until now.
      - So one call is right for servers that a proxy reaches at several addresses. Something must listen there.
    type: dict
    default: {}
"""
