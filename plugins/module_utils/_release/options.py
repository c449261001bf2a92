# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options that ``app_release`` and ``pm2_rollback`` share; the documentation fragment is ``payops.rollback.release``."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name
from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of, paths_of
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Legacy, Releases
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import detect
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import check_persistent

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PERSISTENT = (".env", "uploads", "logs", "rollback-versions")


def release_argument_spec() -> dict[str, t.Any]:
    return {
        "app_dir": {"type": "path", "required": True},
        "layout": {"type": "str", "choices": ["auto", "symlink", "exchange"], "default": "auto"},
        "version": {"type": "str"},
        "persistent": {"type": "list", "elements": "str", "default": list(PERSISTENT)},
        "legacy_path": {"type": "path"},
        "allow_npm_ci": {"type": "bool", "default": False},
    }


def releases_of(module: AnsibleModule, component: str, node_bin: str | None = None) -> Releases:
    params = module.params
    if params["version"] is not None:
        check_name("The version", params["version"])
    legacy = None
    if params["legacy_path"]:
        beside = os.path.join(os.path.dirname(node_bin), "npm") if node_bin else ""
        npm = beside if os.path.exists(beside) else module.get_bin_path("npm")
        if params["allow_npm_ci"] and not npm:
            raise RollbackError(
                "allow_npm_ci=true needs npm, but it is not in PATH. Install it, "
                "or set node_bin (rollback_pm2_node_bin) to the node that it belongs to."
            )
        path = f"{os.path.dirname(npm)}:{os.environ.get('PATH', '')}" if npm else os.environ.get("PATH", "")
        legacy = Legacy(params["legacy_path"], params["allow_npm_ci"], cli_of(module), (npm or "npm",), {"PATH": path})
    layout = detect(params["app_dir"], params["layout"], there=params["state"] != "stopped")
    return Releases(layout, paths_of(module), component, check_persistent(params["persistent"]), legacy)
