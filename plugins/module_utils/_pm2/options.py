# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options of ``pm2_rollback``; the documentation fragment is ``payops.rollback.pm2``."""

from __future__ import annotations

import os
import pwd
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App, Settings, check_settings
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes, probe_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._release.options import releases_of
from ansible_collections.payops.rollback.plugins.module_utils._run import Run

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def pm2_argument_spec() -> dict[str, t.Any]:
    return {
        "app": {"type": "str", "required": True},
        "pm2_home": {"type": "path"},
        "pm2_bin": {"type": "path"},
        "node_bin": {"type": "path"},
        "user": {"type": "str"},
        "port": {"type": "int"},
        "port_variable": {"type": "str", "default": "PORT"},
        "instances": {"type": "int"},
        "exec_mode": {"type": "str", "choices": ["cluster", "fork"]},
        "script": {"type": "str"},
        "env_from": {"type": "str", "choices": ["point", "live"], "default": "point"},
        "env": {"type": "dict", "no_log": True, "default": {}},
        "probes": {**probe_argument_spec(), "default": []},
        "version_path": {"type": "str"},
        "successes": {"type": "int", "default": 3},
        "interval": {"type": "float", "default": 0.2},
        "singletons": {"type": "list", "elements": "str", "default": []},
        "preflight": {"type": "bool", "default": True},
        "preflight_env": {"type": "dict", "no_log": True, "default": {}},
        "hold_seconds": {"type": "int", "default": 900},
        "retry_after": {"type": "int", "default": 30},
        "stable_seconds": {"type": "float", "default": 2.0},
        "wait_seconds": {"type": "float", "default": 30.0},
        "drain_seconds": {"type": "float", "default": 10.0},
    }


def _settings(params: dict[str, t.Any]) -> Settings:
    asks = params["probes"] and params["state"] != "stopped"  # what asks nothing is not kept from stopping by how it would ask
    probes = check_probes(params["probes"]) if asks else []
    values = {name: params[name] for name in Settings._fields if name in params}
    values.update(
        probes=tuple(probes),
        singletons=tuple(params["singletons"]),
        env={str(key): _text(value) for key, value in params["env"].items()},
        preflight_env={str(key): _text(value) for key, value in params["preflight_env"].items()},
    )
    settings = Settings(**values)
    if settings.instances is not None and settings.instances < 1:
        raise RollbackError(f"instances must be at least 1, found {settings.instances}.")
    if settings.successes < 1:
        raise RollbackError(f"successes must be at least 1, found {settings.successes}.")
    return check_settings(settings)


def _text(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def app_of(module: AnsibleModule, component: str, run: Run) -> App:
    params = module.params
    settings = _settings(params)
    node = params["node_bin"] or module.get_bin_path("node")
    if not node or not os.access(node, os.X_OK):
        raise RollbackError(
            f"node was not found ({params['node_bin'] or 'not in PATH'}). Set node_bin (rollback_pm2_node_bin) to its full path, for example /usr/bin/node."
        )
    program = params["pm2_bin"] or module.get_bin_path("pm2", opt_dirs=[os.path.dirname(node)])
    if not program or not os.path.exists(program):
        raise RollbackError(
            f"pm2 was not found ({params['pm2_bin'] or 'not in PATH'}). Set pm2_bin (rollback_pm2_bin) to its full path, as 'which pm2' shows it."
        )
    home = params["pm2_home"] or os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".pm2")
    releases = releases_of(module, component, node)
    pm2 = Pm2(cli_of(module), home, releases.paths.run, program, node, params["user"])
    return App(pm2, releases, settings, run)
