# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""From module parameters to the logic of pg_restore and pg_carry_back, and back to a result."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import cli_of, paths_of, run_of
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _carry_back, _restore, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import connect_of, readable_errors

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

LOCAL = ("", "localhost", "127.0.0.1", "::1")
LEAST_MARGIN = 10000
# Where rows come from behind which flip. A run that had not flipped has nothing to carry when it is undone.
CARRIED_FROM = {"live": "auto", "previous": "undone"}


def is_local(params: dict[str, t.Any]) -> bool:
    """Whether the server's files may be on this host."""
    return bool(params.get("login_unix_socket")) or params.get("login_host") in LOCAL or str(params.get("login_host")).startswith("/")


def picture(connection: t.Any, names: t.Sequence[str]) -> str:
    """The databases as they stand, for the diff."""
    lines = []
    for name, each in _state.databases(connection).items():
        if name in names or each.marker.get("database") in names:
            what = each.marker.get("kind") or "live"
            if what == "staged":
                what = f"staged, {each.marker.get('state')}"
            lines.append(f"{name}: OID {each.oid}, {what}, {'open' if each.open else 'closed'}")
    return "\n".join(lines) + "\n"


def restore(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if params["sequence_margin"] < LEAST_MARGIN:
        raise RollbackError(f"sequence_margin is {params['sequence_margin']}; expected at least {LEAST_MARGIN}.")
    if params["jobs"] < 1:
        raise RollbackError(f"jobs is {params['jobs']}; expected at least 1.")
    options = _restore.Options(
        databases=params["databases"],
        version=params["version"],
        again=params["again"],
        jobs=params["jobs"],
        allow_foreign=params["allow_foreign"],
        sequence_margin=params["sequence_margin"],
        accept_replication=params["accept_replication"],
        terminate_wait=params["terminate_wait"],
        skip_entries=params["skip_entries"],
        undo_run=params["undo_run"],
        count_newer=params["count_newer"],
        allow_plain_sql=params["allow_plain_sql"],
        legacy_path=params["legacy_path"],
        plain_sql_sha256=params["plain_sql_sha256"],
        plain_sql_roles=params["plain_sql_roles"],
        bin_dir=params["bin_dir"],
        local=is_local(params),
        ledgers=params["ledgers"] or [],
        poolers=params["poolers"],
        application_logins=params["application_logins"],
    )
    state = params["state"]
    with connect_of(module) as server, run_of(module, _state.COMPONENT, _restore.STEPS[state]) as run:
        with readable_errors("looking at the server"):
            work = _restore.Restore(server, cli_of(module), paths_of(module), options, run, state)
            before = picture(work.conn, work.names)
            try:
                with readable_errors(f"working on state {state}; the same command again looks at what happened and goes on"):
                    result: dict[str, t.Any] = getattr(work, state)()
            except RollbackError as exc:
                # what happened until then belongs to the record of a failure, too
                exc.details = {"steps": run.steps, "actions": work.actions, "changed": bool(work.actions), **exc.details}
                raise
            result["steps"] = run.steps
            result.setdefault("notes", work.report.notes)
            if module._diff:
                after = picture(work.conn, work.names) if work.acting else before
                planned = "".join(f"{line}\n" for line in result["plan"]) if not work.acting else ""
                result["diff"] = {"before": before, "after": after + planned}
    if params["carry"] and params["ledgers"] and state in CARRIED_FROM and not module.check_mode:
        _carry_behind(module, result, CARRIED_FROM[state])
    return result


def _carry_behind(module: AnsibleModule, result: dict[str, t.Any], source: str) -> None:
    """Rows of the ledgers right behind the flip, in the same call: customers wait, and each call of a module costs them time."""
    try:
        carried = carry_back(module, source, False)
    except RollbackError as exc:
        exc.details = {**result, **exc.details, "changed": result["changed"]}
        raise
    result["changed"] = result["changed"] or carried["changed"]
    result["actions"] = [*result.get("actions", []), *carried.pop("actions", [])]
    result["steps"] = [*result["steps"], *carried.pop("steps")]
    if "diff" in result:
        result["diff"]["after"] += carried.pop("diff", {}).get("after", "")
    result["carried_back"] = carried


def carried_of(module: AnsibleModule) -> dict[str, t.Any]:
    """The module pg_carry_back."""
    if module.params["ledgers"] is None:
        raise RollbackError("ledgers is missing. Name the tables whose rows are carried back.")
    return carry_back(module, module.params["source"], module.params["fire_triggers"])


def carry_back(module: AnsibleModule, source: str, fire_triggers: bool) -> dict[str, t.Any]:
    params = module.params
    with connect_of(module) as server, run_of(module, _carry_back.COMPONENT, _carry_back.STEPS) as run:
        with readable_errors("carrying rows back"):
            work = _carry_back.CarryBack(server, paths_of(module), run, params["databases"], params["ledgers"], source, fire_triggers)
            result = work.carried()
        result["steps"] = run.steps
        if module._diff:
            lines = "".join(f"{name}: {number} row(s) carried\n" for name, number in sorted(result["carried"].items()) if number)
            result["diff"] = {"before": "", "after": lines}
    return result
