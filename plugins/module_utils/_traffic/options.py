# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options that the modules of all kinds of proxies share; the documentation fragment is ``payops.rollback.traffic``."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import run_of
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import CLOSED, OPEN, check_receivers
from ansible_collections.payops.rollback.plugins.module_utils._traffic.states import OF_SERVERS, STATES, Result, Settings, Traffic

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def traffic_argument_spec() -> dict[str, t.Any]:
    return {
        "state": {"type": "str", "choices": list(STATES), "required": True},
        "servers": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"backend": {"type": "str", "required": True}, "server": {"type": "str", "required": True}},
        },
        "frontends": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "url": {"type": "str", "required": True},
                "validate_certs": {"type": "bool", "default": True},
                "ca_cert": {"type": "path"},
                "server_name": {"type": "str"},
            },
        },
        "receivers": {"type": "list", "elements": "str", "default": []},
        "retry_after": {"type": "int", "default": 30},
        "share": {"type": "int", "default": OPEN},
        "percent": {"type": "int", "default": 100},
        "ramp": {"type": "list", "elements": "int", "default": []},
        "ramp_seconds": {"type": "float", "default": 5.0},
        "drain_seconds": {"type": "float", "default": 30.0},
        "cut_sessions": {"type": "bool", "default": False},
        "min_left": {"type": "int", "default": 1},
        "wait_seconds": {"type": "float", "default": 30.0},
        "accept_down": {"type": "bool", "default": False},
        "hold_seconds": {"type": "int", "default": 900},
        "address": {"type": "str", "default": ""},
        "ports": {"type": "dict", "default": {}},
    }


def settings_of(module: AnsibleModule) -> Settings:
    params = module.params
    for name, low, high in (("share", CLOSED, OPEN), ("percent", 1, 100)):
        if not low <= params[name] <= high:
            raise RollbackError(f"{name} must be from {low} to {high}, found {params[name]}.")
    wrong = [percent for percent in params["ramp"] if not 1 <= percent <= 100]
    if wrong or sorted(params["ramp"]) != params["ramp"]:
        raise RollbackError(f"ramp must be percentages from 1 to 100 that rise, found {params['ramp']}.")
    values: dict[str, t.Any] = {name: params[name] for name in Settings._fields}
    values["receivers"] = tuple(check_receivers(params["receivers"]))
    return Settings(**values)


def keys_of(module: AnsibleModule, proxy: str) -> list[str]:
    """``backend/server`` of each of the servers."""
    found: list[str] = []
    for each in module.params["servers"]:
        key = f"{each['backend']}/{each['server']}"
        if any(char.isspace() or char == ";" for char in key) or key.count("/") != 1:
            raise RollbackError(f"{key!r} does not name a server of {proxy}; expected the names as its configuration has them.")
        if key not in found:
            found.append(key)
    if module.params["state"] in OF_SERVERS and not found:
        raise RollbackError(f"state={module.params['state']} needs servers, such as [{{backend: payments, server: app1}}]; found none.")
    return found


def reach(
    module: AnsibleModule, kind: type[Traffic[t.Any]], steps: t.Sequence[str], make: t.Callable[[AnsibleModule, Run], Traffic[t.Any]]
) -> Result:
    """What the module of one kind of proxy does; a refusal tells the steps that were taken before it."""
    state = module.params["state"]
    with run_of(module, kind.component, steps, acting=state != "observed") as run:
        try:
            return make(module, run).reach(state, keys_of(module, kind.proxy))
        except RollbackError as exc:
            exc.details.setdefault("steps", run.steps)
            raise
