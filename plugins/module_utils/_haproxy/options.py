# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options of ``haproxy_servers``."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import Doors, Places
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import Runtime
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import Traffic
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import check_frontends
from ansible_collections.payops.rollback.plugins.module_utils._traffic.options import settings_of, traffic_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._traffic.states import OF_SERVERS

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def haproxy_argument_spec() -> dict[str, t.Any]:
    return {
        **traffic_argument_spec(),
        "socket": {"type": "str", "default": "/run/haproxy/admin.sock"},
        "share_map": {"type": "path", "default": "/etc/haproxy/payops-share.map"},
        "receivers_map": {"type": "path", "default": "/etc/haproxy/payops-receivers.map"},
        "state_file": {"type": "path"},
    }


def traffic_of(module: AnsibleModule, run: Run) -> Traffic:
    params = module.params
    settings = settings_of(module)
    runtime = Runtime(params["socket"])
    places = Places(params["share_map"], params["receivers_map"], params["retry_after"])
    doors = Doors(runtime, check_frontends(params["frontends"]), places)
    if doors.frontends and not module.check_mode and params["state"] not in ("observed", *OF_SERVERS):
        for folder in sorted({os.path.dirname(path) for path in (places.share_map, places.receivers_map)}):
            if not os.access(folder, os.W_OK):
                raise RollbackError(
                    f"{folder} cannot be written by this user, but HAProxy's maps are there. Run as root (rollback_haproxy_user: root)."
                )
    return Traffic(runtime, doors, run, settings, module.check_mode, params["state_file"])
