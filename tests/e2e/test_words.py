# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only a person says where a rollback goes; an emergency stops first and reads the rest of its command afterwards."""

from __future__ import annotations

import os
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, World, differences
from tests.e2e.test_kinds import closed
from tests.lab.node import ROOT

COMMON: dict[str, t.Any] = {
    "version": "2.4.0",
    "label": "blue",
    "output": "/var/log",
    "corruption": True,
    "takeover": "x",
    "who": "www-data",
}


@pytest.mark.full
def test_variables_of_an_inventory_are_no_words(deployed: World) -> None:
    (point,) = deployed.points()
    deployed.set_variables(**deployed.quick, **COMMON)
    try:
        plan = deployed.play("rollback_full", "--check").ok()
        assert f"-> {point}" in plan.text and "version, who in the inventory (host app1, db1) was not read" in plan.flat
        backed_up = deployed.play("backup", label="green").ok()
        assert backed_up.facts["by"] != "www-data"
        newest = deployed.play("rollback_points", output="json").ok().json()[0]
        assert newest["label"] == "green" and newest["version"] != "2.4.0"
        stopped = deployed.play("rollback_emergency").ok()
        assert stopped.outcome == "STOPPED" and closed(deployed)
        deployed.play("recover").ok()
        deployed.all_at(NEXT)
        deployed.play("rollback_full", version=point).ok()
        deployed.all_at(GOOD)
    finally:
        deployed.set_variables(**deployed.quick)


@pytest.mark.full
def test_a_word_in_a_playbook_around_ours_is_refused(deployed: World) -> None:
    (point,) = deployed.points()
    path = deployed.folder / "around.yml"
    path.write_text(f"- import_playbook: payops.rollback.rollback_full\n  vars: {{version: '{point}'}}\n", encoding="utf-8")
    before = deployed.picture()
    played = deployed.play(os.path.relpath(path.with_suffix(""), ROOT / "playbooks"))
    played.refused("version is set by a playbook (such as vars: of import_playbook)", "nothing was touched", "-e version=")
    assert not differences(before, deployed.picture())


@pytest.mark.parametrize(
    "typed, sentence",
    [
        ("verison=x", "Unknown extra variable 'verison' (did you mean 'version'?); that kept nothing from being stopped"),
        *(pytest.param(f'{{"version": {text}}}', "ersion", marks=pytest.mark.full) for text in ("2.10", '""', '"../x"')),
        pytest.param("reason=it was slow", "A value after -e has spaces", marks=pytest.mark.full),
    ],
)
def test_an_emergency_stops_before_it_complains_of_its_command(deployed: World, typed: str, sentence: str) -> None:
    played = deployed.play("rollback_emergency", "-e", typed)
    assert played.rc != 0 and sentence in " ".join(played.text.partition("STOPPED: emergency of demo")[2].split())
    stopped_then_recovered(deployed)


@pytest.mark.full
def test_an_emergency_in_a_playbook_around_ours_stops_first(deployed: World) -> None:
    path = deployed.folder / "around.yml"
    path.write_text("- import_playbook: payops.rollback.rollback_emergency\n  vars: {reason: drill}\n", encoding="utf-8")
    played = deployed.play(os.path.relpath(path.with_suffix(""), ROOT / "playbooks"))
    said = " ".join(played.text.partition("STOPPED: emergency of demo")[2].split())
    assert played.rc != 0 and "reason is set by a playbook" in said and "that kept nothing from being stopped" in said
    stopped_then_recovered(deployed)


def stopped_then_recovered(deployed: World) -> None:
    assert closed(deployed)
    (host,) = deployed.hosts
    assert host.health()[0] in (0, 503)
    deployed.play("recover").ok()
    deployed.all_at(NEXT)
