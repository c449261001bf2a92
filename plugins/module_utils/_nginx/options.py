# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options of ``nginx_servers``."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of
from ansible_collections.payops.rollback.plugins.module_utils._nginx.doors import Doors, Places
from ansible_collections.payops.rollback.plugins.module_utils._nginx.master import Master
from ansible_collections.payops.rollback.plugins.module_utils._nginx.traffic import Traffic
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import check_frontends
from ansible_collections.payops.rollback.plugins.module_utils._traffic.options import settings_of, traffic_argument_spec

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

DOORS = "doors.conf"


def nginx_argument_spec() -> dict[str, t.Any]:
    return {
        **traffic_argument_spec(),
        "folder": {"type": "path", "default": "/etc/nginx/payops"},
        "config": {"type": "path", "default": "/etc/nginx/nginx.conf"},
        "pid_file": {"type": "path", "default": "/run/nginx.pid"},
        "program": {"type": "path", "default": "/usr/sbin/nginx"},
        "client": {"type": "str", "default": "$remote_addr"},
    }


def traffic_of(module: AnsibleModule, run: Run) -> Traffic:
    params = module.params
    settings = settings_of(module)
    folder = params["folder"]
    if not os.path.isdir(folder):
        raise RollbackError(
            f"{folder} is missing. It is where the files lie that nginx.conf includes: upstream-<name>.conf with the server lines of an upstream, "
            f"and {DOORS} for what can be held. Make it as the documentation of nginx_servers shows, or name another with the option folder."
        )
    if params["state"] != "observed" and not module.check_mode and not os.access(folder, os.W_OK):
        raise RollbackError(f"{folder} cannot be written by this user. Run as root (rollback_haproxy_user: root).")
    places = Places(os.path.join(folder, DOORS), params["retry_after"], params["client"])
    master = Master(cli_of(module), params["program"], params["config"], params["pid_file"])
    return Traffic(master, folder, Doors(check_frontends(params["frontends"]), places), run, settings, module.check_mode)
