# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The thin shell around every module: shared options, one place that turns errors into fail_json, one way to call programs."""

from __future__ import annotations

import os
import typing as t

from ansible.module_utils.common.text.converters import to_text

from ansible_collections.payops.rollback.plugins.module_utils._claim import claim, without_store
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run
from ansible_collections.payops.rollback.plugins.module_utils._store import refusal, shared_group

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


class Completed(t.NamedTuple):
    """What a program said. Text is UTF-8 with damaged bytes replaced."""

    rc: int
    stdout: str
    stderr: str


# How logic calls programs: cli(["pg_dump", ...], env={...}) -> Completed. Tests pass a function of their own.
Cli = t.Callable[..., Completed]


def run_argument_spec() -> dict[str, t.Any]:
    """Options of every module that acts in a run; the documentation fragment is ``payops.rollback.run``."""
    return {
        "store": {"type": "path", "required": True},
        "store_group": {"type": "str"},
        "system": {"type": "str", "required": True},
        "run_id": {"type": "str"},
        "lease": {"type": "int", "default": 900},
        "claim": {
            "type": "dict",
            "options": {
                "who": {"type": "str", "required": True},
                "controller": {"type": "dict", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "components": {"type": "list", "elements": "str", "required": True},
            },
        },
    }


def paths_of(module: AnsibleModule) -> Paths:
    return Paths(module.params["store"], module.params["system"], module.params["store_group"])


def run_of(module: AnsibleModule, component: str, steps: t.Sequence[str], acting: bool = True) -> Run:
    """The run that ``module`` takes part in. In check mode it neither locks nor writes."""
    if module.params["claim"] and module.params["run_id"] and acting and not module.check_mode:
        claim(paths_of(module), module.params["run_id"], module.params["claim"], module.params["lease"])
    return Run(
        paths_of(module),
        component,
        steps,
        run_id=module.params["run_id"],
        acting=acting and not module.check_mode,
        lease=module.params["lease"],
    )


def cli_of(module: AnsibleModule) -> Cli:
    """Call programs by argument vector: no shell, nothing expanded, the C.UTF-8 locale, a missing folder is an error.

    ``env`` adds to the environment. ``die_with_parent`` (default true) has the kernel kill the program when this
    module dies, so that a killed module leaves no pg_restore behind.
    """
    setpriv = module.get_bin_path("setpriv")

    def call(
        argv: t.Sequence[str],
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        data: bytes | None = None,
        die_with_parent: bool = True,
    ) -> Completed:
        command = [str(part) for part in argv]
        if die_with_parent and setpriv and os.path.exists("/proc/self"):
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        rc, stdout, stderr = module.run_command(
            command,
            environ_update={"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            data=data,
            binary_data=True,
            encoding=None,
            expand_user_and_vars=False,
            ignore_invalid_cwd=False,
            handle_exceptions=False,
        )
        return Completed(rc, to_text(stdout, errors="replace"), to_text(stderr, errors="replace"))

    return call


def execute(module: AnsibleModule, action: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> None:
    """Run ``action`` and exit. Its dict is the result; a RollbackError becomes the failure that people read."""
    try:
        result = _act(module, action)
    except RollbackError as exc:
        details = {"changed": False, **exc.details}
        details.pop("msg", None)
        module.fail_json(msg=str(exc), **details)
    except OSError as exc:
        module.fail_json(msg=_refused(module, exc))
    else:
        module.exit_json(**result)


def _act(module: AnsibleModule, action: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> dict[str, t.Any]:
    try:
        return action(module)
    except (RollbackError, OSError) as exc:
        why = str(exc) if isinstance(exc, RollbackError) else _refused(module, exc)
        if not without_store(module.params, exc) or module.check_mode:
            raise
    return {**action(module), "unrecorded": why}


def _refused(module: AnsibleModule, exc: OSError) -> str:
    """What a person reads when the operating system refused something."""
    store = module.params.get("store")
    if isinstance(exc, PermissionError) and store and str(exc.filename).startswith(store):
        return refusal(store, str(exc.filename), module.params.get("store_group") or shared_group(store))
    return f"The operating system refused: {exc}. Check free space, owner and mode of that path, then run the same command again."
