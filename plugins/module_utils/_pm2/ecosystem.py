# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How PM2 ran an application, taken from what PM2 holds, so that the same application can be started from another tree.

The environment holds secrets: a definition is only ever written to files of mode 0600.
"""

from __future__ import annotations

import os
import re
import typing as t
from decimal import Decimal

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Proc
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import Layout

Definition = t.Dict[str, t.Any]
KEPT = (
    "args",
    "node_args",
    "namespace",
    "max_memory_restart",
    "kill_timeout",
    "listen_timeout",
    "wait_ready",
    "shutdown_with_message",
    "autorestart",
    "max_restarts",
    "min_uptime",
    "restart_delay",
    "exp_backoff_restart_delay",
    "stop_exit_codes",
    "cron_restart",
    "watch",
    "ignore_watch",
    "watch_options",
    "merge_logs",
    "log_date_format",
    "log_type",
    "instance_var",
    "increment_var",
    "treekill",
    "source_map_support",
    "disable_source_map_support",
    "pmx",
    "automation",
    "vizion",
    "filter_env",
    "uid",
    "gid",
)
# What PM2 and the shell that once called it put into the environment; none of it belongs to the application. Sessions by their exact
# names only: SSH_SFTP_HOST is the application's.
FOREIGN = re.compile(
    r"(PM2_.*|pm_id|unique_id|NODE_APP_INSTANCE|NODE_CHANNEL_.*|NODE_UNIQUE_ID|PWD|OLDPWD|SHLVL|_|SUDO_(USER|UID|GID|COMMAND|HOME)|"
    r"SSH_(CLIENT|CONNECTION|TTY|AUTH_SOCK)|ANSIBLE_.*|PAYOPS_.*|XDG_SESSION_ID|TERM)\Z"
)


def definition_of(processes: t.Sequence[Proc], layout: Layout) -> Definition:
    """The definition of a running application, with paths relative to ``layout.home``. Refuses what a switch cannot serve."""
    first = processes[0]
    env = first.env
    home, real = layout.home, layout.live()
    inside = relative(first.cwd, home)
    if inside is None:
        if layout.kind == "symlink" and (relative(first.cwd, real) is not None or relative(first.cwd, layout.workshop) is not None):
            raise RollbackError(
                f"PM2 runs {first.name} from the resolved path {first.cwd}, not from {home}: it would never notice that {os.path.basename(home)} "
                f"points elsewhere. Once, and with the release that runs now: set an absolute cwd: {home} in the ecosystem file, then "
                f"'pm2 delete {first.name}', 'pm2 start <ecosystem file>' and 'pm2 save'.",
                reason="resolved_path",
            )
        raise RollbackError(
            f"PM2 runs {first.name} in {first.cwd}, which is not below {home}. Set app_dir (rollback_pm2_app_dir) to the folder in which "
            f"the application lives, or start it with cwd: {home}.",
            reason="other_path",
        )
    script = relative(first.script, home) or relative(first.script, real)
    definition: Definition = {
        "name": first.name,
        "cwd": inside,
        "script": script if script is not None else first.script,
        "exec_mode": first.exec_mode,
        "instances": len(processes),
        "env": application_env(first),
    }
    interpreter = env.get("exec_interpreter")
    if interpreter and interpreter != "node":
        definition["interpreter"] = interpreter
    definition.update({key: env[key] for key in KEPT if env.get(key) not in (None, "", [])})
    for key, source in (("out_file", "pm_out_log_path"), ("error_file", "pm_err_log_path")):
        log = _log_file(str(env.get(source) or ""), first)
        if log:
            definition[key] = log
    return definition


def relative(path: str, folder: str) -> str | None:
    """``path`` seen from ``folder``; None where it is not below it."""
    path, folder = os.path.normpath(path), os.path.normpath(folder)
    if path == folder:
        return "."
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip("/") + "/") else None


def _log_file(path: str, process: Proc) -> str | None:
    """The log file as it was configured; None where it is PM2's own default. PM2 adds the id to it for instances."""
    home = str((process.env.get("env") or {}).get("PM2_HOME") or process.env.get("PM2_HOME") or "")
    if not path or path == "/dev/null" or (home and os.path.dirname(path) == os.path.join(home, "logs")):
        return None if path != "/dev/null" else path
    if process.env.get("merge_logs"):
        return path
    return re.sub(r"-[0-9]+\.log$", ".log", path)  # as PM2 itself finds the id that it exchanges for the next


def application_env(process: Proc) -> dict[str, str]:
    """The environment as the application sees it: PM2 holds ``FEATURE: true`` as a boolean, and Node.js made text of it."""
    held = process.env.get("env") or {}
    return {
        key: _as_javascript(value)
        for key, value in held.items()
        if not FOREIGN.match(key)
        and not isinstance(value, (dict, list))
        and not (value is None and process.exec_mode == "fork")  # PM2 leaves null out there
        and not (key == process.name and value == "{}")
    }


def _as_javascript(value: t.Any) -> str:
    """``String(value)`` of JavaScript."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, float):
        return str(value)
    digits, unused, exponent = repr(value).partition("e")
    if exponent and not 1e-6 <= abs(value) < 1e21:
        return f"{digits}e{int(exponent):+d}"
    plain = format(Decimal(repr(value)), "f")
    return plain[:-2] if plain.endswith(".0") else plain


def started_from(definition: Definition, home: str, **changes: t.Any) -> Definition:
    """The definition as PM2 wants it, with the absolute paths of ``home`` (a tree, or the path that the app lives at)."""
    done = {**definition, **changes}
    cwd = home if definition["cwd"] == "." else os.path.join(home, definition["cwd"])
    script = definition["script"]
    done.update(cwd=cwd, script=script if os.path.isabs(script) else os.path.join(home, script))
    done["env"] = {**definition["env"], **(changes.get("env") or {})}
    return done


def public(definition: Definition) -> dict[str, t.Any]:
    """What may be shown: no value of the environment, no arguments."""
    shown: dict[str, t.Any] = {
        key: definition[key]
        for key in ("name", "cwd", "script", "exec_mode", "instances", "namespace", "cron_restart")
        if key in definition
    }
    return {**shown, "env": sorted(definition["env"])}


def differing(one: Definition, other: Definition) -> list[str]:
    """The names of environment variables that differ."""
    first, second = one["env"], other["env"]
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
