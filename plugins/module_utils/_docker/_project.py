# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The options of ``compose_rollback``; the documentation fragment is ``payops.rollback.compose``."""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._docker._compose import Compose
from ansible_collections.payops.rollback.plugins.module_utils._docker._containers import Containers
from ansible_collections.payops.rollback.plugins.module_utils._docker._engine import Engine
from ansible_collections.payops.rollback.plugins.module_utils._docker._files import Files
from ansible_collections.payops.rollback.plugins.module_utils._docker._options import docker_argument_spec, place_of
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import check_prefix
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Settings, Stack
from ansible_collections.payops.rollback.plugins.module_utils._docker._switch import folder_of_sets
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name
from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of, paths_of
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes, probe_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._run import Run

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def compose_argument_spec() -> dict[str, t.Any]:
    engine = {name: option for name, option in docker_argument_spec().items() if name != "registry"}
    return {
        **engine,
        "project_dir": {"type": "path", "required": True, "aliases": ["project_src"]},
        "project_name": {"type": "str"},
        "files": {"type": "list", "elements": "str", "default": []},
        "env_files": {"type": "list", "elements": "str", "default": []},
        "interpolate_from": {"type": "list", "elements": "str", "default": []},
        "compose_bin": {"type": "path"},
        "services": {"type": "list", "elements": "str", "default": []},
        "ports": {"type": "list", "elements": "int", "default": []},
        "config_from": {"type": "str", "choices": ["point", "live"], "default": "point"},
        "archive_images": {"type": "bool", "default": False},
        "kept_prefix": {"type": "str", "default": "payops-kept-"},
        "version": {"type": "str"},
        "probes": {**probe_argument_spec(), "default": []},
        "version_path": {"type": "str"},
        "successes": {"type": "int", "default": 3},
        "interval": {"type": "float", "default": 0.2},
        "hold_seconds": {"type": "int", "default": 900},
        "retry_after": {"type": "int", "default": 30},
        "stable_seconds": {"type": "float", "default": 3.0},
        "wait_seconds": {"type": "float", "default": 60.0},
        "drain_seconds": {"type": "float", "default": 10.0},
        "proxied_ports": {"type": "list", "elements": "int", "default": []},
        "proxied_against": {"type": "list", "elements": "str", "default": []},
        "proxies": {"type": "list", "elements": "str", "default": []},
        "next_ports": {"type": "list", "elements": "int", "default": []},
    }


def _settings(params: dict[str, t.Any]) -> Settings:
    values = {name: params[name] for name in Settings._fields if name in params}
    asks = params["probes"] and params["state"] != "stopped"  # what asks nothing is not kept from stopping by how it would ask
    values.update(
        probes=tuple(check_probes(params["probes"]) if asks else []),
        **{name: tuple(params[name]) for name in ("services", "ports", "proxied_ports", "proxied_against", "proxies", "next_ports")},
    )
    settings = Settings(**values)
    check_prefix(settings.kept_prefix)
    if settings.successes < 1:
        raise RollbackError(f"successes must be at least 1, found {settings.successes}.")
    for name in ("interval", "stable_seconds", "drain_seconds"):
        if getattr(settings, name) < 0:
            raise RollbackError(f"{name} must not be negative, found {getattr(settings, name)}.")
    if settings.wait_seconds <= 0:
        raise RollbackError(f"wait_seconds must be more than 0, found {settings.wait_seconds}.")
    return settings


@contextmanager
def stack_of(module: AnsibleModule, run: Run) -> t.Iterator[Stack]:
    params = module.params
    if params["version"] is not None:
        check_name("The version", params["version"])
    folder = os.path.realpath(params["project_dir"])
    if not os.path.isabs(params["project_dir"]):
        raise RollbackError(f"project_dir {params['project_dir']!r} is not an absolute path.")
    params.setdefault("registry", None)
    with place_of(module) as engine:
        if not isinstance(engine, Engine):
            raise RollbackError("compose_rollback acts on an engine.")
        paths = paths_of(module)
        settings = _settings(params)
        files = Files(folder, params["files"], params["env_files"], params["interpolate_from"], folder_of_sets(paths.run))
        compose = Compose(cli_of(module), params["compose_bin"], engine.connection, folder, paths.run, paths.group)
        yield Stack(paths, run, settings, compose, Containers(engine), files, params["project_name"])
