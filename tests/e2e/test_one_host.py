# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Application and database on one host, as KejaYangu has them."""

from __future__ import annotations

import json
import typing as t

import pytest

from tests.e2e.harness import NEXT, NOTE, World, make_world


@pytest.fixture(scope="module")
def one() -> t.Iterator[World]:
    for made in make_world("app1"):
        both = {"children": {name: {"hosts": {"app1": {"rollback_components": ["postgresql", "pm2"]}}} for name in ("database", "api")}}
        (made.inventory / "hosts.yml").write_text(f"---\n{json.dumps({'all': both})}\n", encoding="utf-8")
        made.play("backup").ok()
        made.deploy(1, NEXT, NOTE)
        yield made


def test_the_database_goes_back_although_the_application_cannot(one: World) -> None:
    """PM2 dies between the two flips: it can neither be held nor started, and that is no reason to leave the database."""
    with one.stopped_at("postgresql/swap/during", "rollback_full") as stopped:
        one.hosts[0].pm2.stop_daemon()
        played = stopped.finish()
    played.refused("app1", "hold | ", "undo | Run", "undo.yml")
    assert played.outcome == "HOSTS LEFT BEHIND"
    assert one.data_version() == NEXT
    told = played.text.rpartition("COMPONENT")[2].splitlines()
    rows = {
        words[1]: "COULD NOT GO BACK" in line
        for line in told
        if (words := line.split())[:1] == ["app1"] and words[1] in ("pm2", "postgresql")
    }
    assert rows == {"pm2": True, "postgresql": False}, told
    one.hosts[0].pm2.start_daemon()
    one.play("undo").ok()
    one.all_at(NEXT)
