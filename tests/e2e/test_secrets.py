# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database password, full of characters that break tools, shows nowhere: not even where Ansible says all it knows."""

from __future__ import annotations

import json
import os
import pathlib

from tests.e2e.harness import NEXT, World
from tests.e2e.watch import forms


def test_a_rollback_that_fails_and_goes_back_with_vvv(deployed: World) -> None:
    """Every verb but complete: prepare, hold, flip, verify, undo; a failure shows what a success leaves out."""
    (point,) = deployed.points()
    log = deployed.folder / "verbose.log"
    log.unlink(missing_ok=True)
    fault = deployed.once("pm2", "start", "during", "fail")
    with deployed.watching():
        more = {"ANSIBLE_LOG_PATH": str(log), "ANSIBLE_INJECT_INVOCATION": "1"}  # every module's arguments, too
        played = deployed.play("rollback_full", "-vvv", "--diff", fault=fault, version=point, more_env=more)
    played.refused("It failed")
    assert "module_args" in played.text and "login_password" in played.text, "it was not verbose"
    told = log.read_text(encoding="utf-8", errors="replace")
    assert "module_args" in told
    shown = {"the output": played.text, "the log": told, **records(deployed)}
    assert any(name.endswith("postgresql.jsonl") for name in shown), sorted(shown)
    secrets = forms(deployed.ready()[0].password)
    found = [f"{name} has the password as {form!r}" for name, text in shown.items() for form in secrets if form in text]
    assert not found, found[:5]
    deployed.all_at(NEXT)


def test_the_forms_are_what_tools_make_of_it(deployed: World) -> None:
    """What the test above looks for would be found: the forms in files that do hold the password."""
    password = deployed.ready()[0].password
    assert len({*"'\"\\$@:/%# "} & {*password}) == 10
    (host,) = deployed.hosts
    assert any(form in (host.api / ".env").read_text(encoding="utf-8") for form in forms(password)[1:])
    assert any(form in json.dumps({"login_password": password}) for form in forms(password))


def records(world: World) -> dict[str, str]:
    """Journals, locks, states and results: everything below .run on every host."""
    found = {}
    for folder in world.store.glob("*/*/.run"):
        for base, unused, files in os.walk(folder):
            for name in files:
                path = pathlib.Path(base) / name
                found[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return found
