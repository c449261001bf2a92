# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_postgresql._connection.postgresql_argument_spec``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - The host of the PostgreSQL server. The local socket if empty.
      - It must be the server itself or a session pooler. A transaction pooler is refused.
    type: str
    default: ""
  login_port:
    description: The port of the PostgreSQL server.
    type: int
    default: 5432
  login_user:
    description:
      - The role to log in as.
      - Either a superuser, or a role with CREATEDB that is a member of C(pg_signal_backend) and of every role that owns something in the databases.
    type: str
    default: postgres
  login_password:
    description:
      - The password of O(login_user).
      - It reaches C(pg_dump) and C(pg_restore) through a file in memory, never by argument or environment.
    type: str
  login_unix_socket:
    description: The folder of the server's socket. Used instead of O(login_host).
    type: str
    default: ""
  login_db:
    description:
      - The maintenance database, from which others are looked at, renamed and closed.
      - If it is itself among the databases, C(postgres) or C(template1) is used.
    type: str
    default: postgres
  ssl_mode:
    description: How TLS is negotiated with the server, as in libpq.
    type: str
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
    default: prefer
  ca_cert:
    description: The file with the certificate authorities that the server's certificate is checked against.
    type: path
  ssl_cert:
    description: The file with the client certificate.
    type: path
  ssl_key:
    description: The file with the key of the client certificate.
    type: path
  connect_params:
    description:
      - Further connection parameters of libpq. A password in here is refused, use O(login_password).
    type: dict
    default: {}
  bin_dir:
    description:
      - The folder with C(pg_dump) and C(pg_restore) of the server's major version.
      - Looked for in the usual folders of that version and in E(PATH) if not given.
    type: path
requirements:
  - psycopg2
  - pg_dump and pg_restore of the server's own major version, for modules that dump or restore
"""
