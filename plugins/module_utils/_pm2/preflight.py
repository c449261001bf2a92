# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Boot the release alone on a spare port, before anything is switched. PM2 itself never does this."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pm2.app import App
from ansible_collections.payops.rollback.plugins.module_utils._pm2.ecosystem import Definition, differing, started_from
from ansible_collections.payops.rollback.plugins.module_utils._pm2.verdict import Demand, await_processes
from ansible_collections.payops.rollback.plugins.module_utils._probed import aimed, await_probes, expecting, spare_port
from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record


def preflight(app: App, record: Record, path: str, definition: Definition, live: Definition | None) -> dict[str, t.Any]:
    """Start ``<app>@preflight`` from the staged tree, judge it, and always remove it."""
    settings = app.settings
    port, spare = app.port(definition), spare_port()
    env = {settings.port_variable: str(spare), "PAYOPS_PREFLIGHT": "1", **settings.preflight_env}
    changes = {"name": app.preflight_name, "exec_mode": "fork", "instances": 1, "autorestart": False, "watch": False, "env": env}
    trial = started_from({key: value for key, value in definition.items() if key != "cron_restart"}, path, **changes)
    with app.run.step("preflight", version=record.get("version"), port=spare) as learnt:
        try:
            app.remove(app.pm2.named(app.preflight_name), spare, 0)
            since = time.time()
            app.pm2.start(trial)
            demand = Demand(
                app.preflight_name, record["tree"], definition["cwd"], 1, since, min(1.0, settings.stable_seconds), settings.wait_seconds
            )
            await_processes(app.pm2, demand, lambda: path, trial)
            probes = aimed(expecting(settings.probes, settings.version_path, record.get("app_version")), port, spare)
            result = await_probes(
                probes, settings.successes, settings.wait_seconds, settings.interval, f"The release on the spare port {spare}"
            )
            learnt.update(seconds=round(time.time() - since, 3), probes=len(probes))
        except RollbackError as exc:
            names = differing(definition, live) if live else []
            hint = f" Environment variables that differ from the live ones: {', '.join(names)} (env_from=live uses those)." if names else ""
            if "EADDRINUSE" in str(exc) or "nothing listens" in str(exc):
                hint += (
                    f" It was told by {settings.port_variable} to listen on port {spare}; if the application takes its port from another "
                    "variable, name that in port_variable (rollback_pm2_port_variable), and if from none, set preflight=false (rollback_pm2_preflight)."
                )
            raise RollbackError(
                f"The preflight of {record.get('version')} failed, and the live release was not touched. {exc}{hint}", **exc.details
            ) from exc
        finally:
            app.remove(app.pm2.named(app.preflight_name), spare, 0)
    app.actions.append(f"booted {record.get('version')} on the spare port {spare}, healthy")
    return {"port": spare, "probes": (result or {}).get("probes", []), "seconds": learnt["seconds"]}
