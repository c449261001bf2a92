# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option in ``_probe.probe_argument_spec``. A module adds whether it is required."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  probes:
    description:
      - What is asked, all of it at the same time.
      - Everything in here is checked before anything is sent.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - What the probe is called in results and messages. Each name once.
          - Made from what is asked if not given.
        type: str
      type:
        description:
          - V(http) sends one request on a new connection. Redirects are not followed and proxies are not used,
            because the server's own first answer counts.
          - V(tcp) connects and hangs up.
          - V(tls) looks at the certificate that the server shows.
          - V(sql) logs in to PostgreSQL and runs a query in a read-only transaction that is rolled back. Needs psycopg2 on the host.
          - V(prometheus) asks a Prometheus server for a number now. No data is a failure, and so is NaN, which a rate of nothing gives.
        type: str
        choices: [http, tcp, tls, sql, prometheus]
        default: http
      timeout:
        description:
          - How many seconds one attempt may take.
        type: float
        default: 5.0
      max_ms:
        description:
          - An attempt that takes more milliseconds than this counts as failed, whatever it answered. For V(http) and V(sql).
        type: int
      url:
        description:
          - For V(http), the address, for example V(http://localhost:5000/health). For V(prometheus) the server's, for example
            V(http://prometheus.example:9090). No login in it.
        type: str
      method:
        description:
          - For V(http). V(GET) if not given. V(POST) is not sent in check mode.
        type: str
        choices: [GET, HEAD, OPTIONS, POST]
      status:
        description:
          - For V(http), the status codes that are right. V([200]) if not given.
        type: list
        elements: int
      headers:
        description:
          - For V(http) and V(prometheus), headers to send. V(Host) asks one server of several for the name of all.
        type: dict
      secret_headers:
        description:
          - For V(http) and V(prometheus), headers to send that are kept out of results and logs, for example C(Authorization).
        type: dict
      url_username:
        description:
          - For V(http) and V(prometheus), the user of basic authentication.
        type: str
      url_password:
        description:
          - For V(http) and V(prometheus), the password of basic authentication.
        type: str
      body:
        description:
          - For V(http) with O(probes[].method=POST), what is sent. A mapping or list is sent as JSON.
        type: raw
      expect_headers:
        description:
          - For V(http), what the headers of the answer must be, for example the security headers. All conditions of an entry must hold.
        type: list
        elements: dict
        suboptions:
          name:
            description:
              - The header, in any case.
            type: str
            required: true

          equals: &equals
            description:
              - The value. V(true) is not V(1), and the text V("200") is not the number V(200).
            type: raw
          in: &in
            description:
              - The values of which it must be one.
            type: list
            elements: raw
          min: &min
            description:
              - It must be a number and at least this.
            type: float
          max: &max
            description:
              - It must be a number and at most this.
            type: float
          matches: &matches
            description:
              - A regular expression that must match somewhere in it. Anchor it with V(^) and V($) to match all of it.
            type: str
          exists: &exists
            description:
              - V(true) if it only needs to be there, V(false) if it must be absent.
            type: bool

      expect_json:
        description:
          - For V(http), what the values in the JSON body must be. All conditions of an entry must hold.
        type: list
        elements: dict
        suboptions:
          path:
            description:
              - Where the value is, for example V(status), V(checks[0].name), V(nodes[*].ok) (each of them) or V(details['db.main']).
            type: str
            required: true

          equals: *equals
          in: *in
          min: *min
          max: *max
          matches: *matches
          exists: *exists

      expect_body:
        description:
          - For V(http), a regular expression that must match somewhere in the body.
        type: str
      validate_certs:
        description:
          - For V(http) and V(tls), whether the certificate must be trusted. V(true) if not given.
        type: bool
      ca_cert:
        description:
          - The file on this host with the certificates that are trusted, instead of the system's. For V(http), V(tls) and V(sql).
        type: path
      server_name:
        description:
          - For V(http) and V(tls), the name that the certificate must be for, if it is not the host that is connected to.
        type: str
      host:
        description:
          - For V(tcp) and V(tls), the host.
        type: str
      port:
        description:
          - For V(tcp) and V(tls), the port. V(443) for V(tls) if not given.
        type: int
      min_days:
        description:
          - For V(tls), for how many days the certificate must still be valid. V(14) if not given.
        type: int
      database:
        description:
          - For V(sql), the database.
        type: str
      query:
        description:
          - For V(sql), the query. V(SELECT 1) if not given.
          - For V(prometheus), the PromQL expression. It must give a number for each series, so take a rate or a quantile of it.
        type: str
      expect:
        description:
          - For V(sql), what the first column of the first row must be. All conditions must hold. One row must come back if not given.
          - For V(prometheus), what the value of each series must be, for example at most V(0.5) with C(max).
        type: dict
        suboptions:

          equals:
            description:
              - The value. V(true) is not V(1), and the text V("200") is not the number V(200).
            type: raw
          in:
            description:
              - The values of which it must be one.
            type: list
            elements: raw
          min:
            description:
              - It must be a number and at least this.
            type: float
          max:
            description:
              - It must be a number and at most this.
            type: float
          matches:
            description:
              - A regular expression that must match somewhere in it. Anchor it with V(^) and V($) to match all of it.
            type: str
          exists:
            description:
              - V(true) if it only needs to be there, V(false) if it must be absent.
            type: bool

      labels:
        description:
          - For V(prometheus), labels that each series must have, for example C(instance) with V(app1:3000), so that a query about another
            host or about all of them together is not taken for this one.
        type: dict
      login_host:
        description:
          - For V(sql), the server's host. The local socket if not given.
        type: str
      login_port:
        description:
          - For V(sql), the server's port. V(5432) if not given.
        type: int
      login_unix_socket:
        description:
          - For V(sql), the folder of the server's socket.
        type: path
      login_user:
        description:
          - For V(sql), the user to log in as.
        type: str
      login_password:
        description:
          - For V(sql), the password.
        type: str
      ssl_mode:
        description:
          - For V(sql), how much TLS is asked of the server. V(prefer) if not given.
        type: str
        choices: [allow, disable, prefer, require, verify-ca, verify-full]
"""
