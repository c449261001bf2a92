# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module of the kind of proxy that a host has: so a role is written once, whatever the proxy."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.options import haproxy_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._nginx.options import nginx_argument_spec

KINDS = {"haproxy": haproxy_argument_spec, "nginx": nginx_argument_spec}


class ActionModule(ActionBase):
    """Hands its options on; the documentation is in plugins/modules/proxy_servers.py."""

    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        options = dict(self._task.args)
        kind = options.pop("kind", None)
        if kind not in KINDS:
            raise AnsibleActionFail(f"kind must be one of {', '.join(sorted(KINDS))}, found {kind!r} (rollback_haproxy_kind).")
        # An inventory may say where both kinds are; what only the other one knows is left away.
        foreign = {name for spec in KINDS.values() for name in spec()} - set(KINDS[kind]())
        options = {name: value for name, value in options.items() if name not in foreign}
        result.update(self._execute_module(module_name=f"payops.rollback.{kind}_servers", module_args=options, task_vars=task_vars))
        return result
