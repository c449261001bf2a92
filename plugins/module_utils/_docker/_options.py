# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Options that say which engine or registry is meant, named as community.docker names them."""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager

from ansible.module_utils.basic import env_fallback, missing_required_lib

from ansible_collections.payops.rollback.plugins.module_utils._docker import _engine, _http
from ansible_collections.payops.rollback.plugins.module_utils._docker._registry import Registry
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def docker_argument_spec() -> dict[str, t.Any]:
    """The documentation fragment is ``payops.rollback.docker``."""
    return {
        "docker_host": {
            "type": "str",
            "default": _engine.DEFAULT_HOST,
            "fallback": (env_fallback, ["DOCKER_HOST"]),
            "aliases": ["docker_url"],
        },
        "api_version": {
            "type": "str",
            "default": "auto",
            "fallback": (env_fallback, ["DOCKER_API_VERSION"]),
            "aliases": ["docker_api_version"],
        },
        "timeout": {"type": "int", "default": 60, "fallback": (env_fallback, ["DOCKER_TIMEOUT"])},
        "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["DOCKER_TLS"])},
        "validate_certs": {
            "type": "bool",
            "default": False,
            "fallback": (env_fallback, ["DOCKER_TLS_VERIFY"]),
            "aliases": ["tls_verify"],
        },
        "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
        "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
        "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"]},
        "registry": {
            "type": "dict",
            "options": {
                "url": {"type": "str", "required": True},
                "username": {"type": "str"},
                "password": {"type": "str", "no_log": True},
                "validate_certs": {"type": "bool", "default": True},
                "ca_path": {"type": "path"},
                "client_cert": {"type": "path"},
                "client_key": {"type": "path"},
            },
            "required_together": [("username", "password")],
        },
    }


@contextmanager
def place_of(module: AnsibleModule) -> t.Iterator[_engine.Engine | Registry]:
    """The engine or the registry that ``module``'s options name; fails the module when its library is missing."""
    given = module.params
    if given["timeout"] < 1:
        raise RollbackError(f"timeout is {given['timeout']}; expected at least 1 second.")
    place: _engine.Engine | Registry
    if given["registry"] is not None:
        if _http.REQUESTS_ERROR is not None:
            module.fail_json(msg=missing_required_lib("requests", reason="for registries"), exception=_http.REQUESTS_ERROR)
        place = Registry(_http.Connection(timeout=given["timeout"], **given["registry"]))
    else:
        if _engine.DOCKER_ERROR is not None:
            module.fail_json(msg=missing_required_lib("docker", reason="for Docker engines"), exception=_engine.DOCKER_ERROR)
        folder = os.environ.get("DOCKER_CERT_PATH") if given["tls"] or given["validate_certs"] else None
        files = {"ca_path": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
        paths: dict[str, t.Any] = {
            option: given[option] or (os.path.join(folder, name) if folder else None) for option, name in files.items()
        }
        rest = {option: given[option] for option in ("docker_host", "api_version", "timeout", "tls", "validate_certs")}
        place = _engine.Engine(_engine.Connection(**rest, **paths))
    try:
        yield place
    finally:
        place.close()
