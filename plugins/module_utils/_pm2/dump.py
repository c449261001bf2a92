# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""``pm2 save``, so that a reboot brings up what is live. The dump holds every secret of the environment: mode 0600 from its first byte."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import Pm2

FILES = ("dump.pm2", "dump.pm2.bak")


def facts_of(entry: dict[str, t.Any]) -> tuple[str, str, str]:
    env = entry.get("pm2_env") if isinstance(entry.get("pm2_env"), dict) else entry
    env = t.cast("dict[str, t.Any]", env)
    return str(entry.get("name") or env.get("name")), str(env.get("pm_cwd") or ""), str(env.get("pm_exec_path") or "")


def problems(pm2: Pm2, wanted: t.Sequence[tuple[str, str, str]], prefix: str) -> list[str]:
    """What the saved list says otherwise than ``wanted`` about the names ``prefix`` and ``prefix@...``; and a readable mode."""
    path = os.path.join(pm2.home, FILES[0])
    entries = read_json(path)
    if not isinstance(entries, list):
        return [f"{path} does not exist"]
    found = []
    saved = sorted(facts for facts in map(facts_of, entries) if facts[0] == prefix or facts[0].startswith(f"{prefix}@"))
    if saved != sorted(wanted):
        found.append(f"{path} lists {saved}, expected {sorted(wanted)}")
    for name in FILES:
        place = os.path.join(pm2.home, name)
        if os.path.exists(place) and stat.S_IMODE(os.stat(place).st_mode) & 0o077:
            found.append(f"{place} can be read by others")
    return found


def live_facts(pm2: Pm2, prefix: str) -> list[tuple[str, str, str]]:
    return [
        (process.name, process.cwd, process.script)
        for process in pm2.processes()
        if process.name == prefix or process.name.startswith(f"{prefix}@")
    ]


def save(pm2: Pm2, prefix: str) -> None:
    """Save the process list, then read it back."""
    for name in FILES:
        path = os.path.join(pm2.home, name)
        if os.path.exists(path):
            os.chmod(path, 0o600)
    program = [pm2.node_bin, os.path.realpath(pm2.pm2_bin)] if pm2.node_bin else [pm2.pm2_bin]
    done = pm2.run(["sh", "-c", 'umask 077 && exec "$@"', "sh", *program, "save", "--force", "--silent"])
    wrong = problems(pm2, live_facts(pm2, prefix), prefix)
    if done.rc != 0 or wrong:
        raise RollbackError(
            f"pm2 save did not save what runs: {'; '.join(wrong) or done.stderr.strip()[-300:]}. "
            "The application runs, but a reboot would not bring it up like this. Run 'pm2 save' by hand and look at its output."
        )
