# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healthy is said only of what was looked at; good and bad follow from it, and from what a person says."""

from __future__ import annotations

import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, World, differences, settle_clock


def sick(world: World) -> dict[str, t.Any]:
    """A probe that the running release fails."""
    probe = {"name": "ledger", "url": f"http://127.0.0.1:{world.hosts[0].port}/no-such-page", "status": [200]}
    return {**world.quick, "rollback_pm2_wait_seconds": 3, "rollback_pm2_probes": [probe]}


def rows(world: World) -> dict[str, dict[str, t.Any]]:
    return {row["version"]: row for row in world.play("rollback_points", output="json").ok().json()}


@pytest.mark.full
def test_without_probes_nothing_is_called_good(deployed: World) -> None:
    (point,) = deployed.points()
    try:
        deployed.set_variables(**deployed.quick, rollback_pm2_probes=[], rollback_pm2_port=0)
        before = deployed.picture()
        deployed.play("rollback_full", version=point).refused("Nothing would tell whether kejayangu-api is healthy", "nothing was touched")
        assert not differences(before, deployed.picture())
        deployed.play("verify").refused("not checked: app1: nobody looked")

        port = deployed.hosts[0].port
        deployed.set_variables(**deployed.quick, rollback_pm2_probes=[], rollback_pm2_port=port)
        assert "NOT CHECKED: verify of demo" in deployed.play("verify").ok().text
        settle_clock()
        backed_up = deployed.play("backup").ok()
        assert backed_up.facts["healthy"].startswith("not checked: app1: only that the port answers")
        assert "not a good release" in backed_up.flat
        unchecked = deployed.points()[-1]
        done = deployed.play("rollback_full", version=point).ok()
        assert done.facts["healthy"].startswith("not checked: app1: only that the port answers (port ")
        deployed.all_at(GOOD)
        found = rows(deployed)
        assert (found[point]["healthy"], found[point]["release"]) == (True, "good")
        assert (found[unchecked]["healthy"], found[unchecked]["release"]) == (None, "unknown")
    finally:
        deployed.set_variables(**deployed.quick)


@pytest.mark.full
def test_a_point_of_a_sick_release_says_so(deployed: World) -> None:
    (point,) = deployed.points()
    try:
        deployed.set_variables(**sick(deployed))
        refused = deployed.play("backup", require_healthy=True)
        refused.refused("No point was taken: require_healthy=true", "NO: app1:", "ledger", "404")
        assert deployed.points() == [point] and not deployed.locks()
        settle_clock()
        done = deployed.play("backup").ok()
        assert done.outcome == "DONE" and done.facts["healthy"].startswith("NO: app1:")
        for text in ("ledger", "404", "This point is not a good release"):
            assert text in done.flat
        row = rows(deployed)[deployed.points()[-1]]
        assert row["healthy"] is False and row["release"] != "good"
        red = deployed.play("verify").refused("NOT HEALTHY: verify of demo", "ledger")
        assert "check(s), 0 failed" in red.flat, "what is well is told, too"
    finally:
        deployed.set_variables(**deployed.quick)
    green = deployed.play("verify").ok()
    assert "HEALTHY: verify of demo" in green.text and "healthy: yes" in green.flat and "4 probe(s) succeeded" in green.flat


@pytest.mark.full
def test_the_way_forward_by_name_keeps_the_good_release_good(deployed: World) -> None:
    (old,) = deployed.points()
    settle_clock()
    deployed.play("backup", require_healthy=True).ok()
    new = deployed.points()[-1]
    deployed.play("rollback_full", version=old, reason="slow").ok()
    assert rows(deployed)[new]["release"] == "bad"
    forward = deployed.play("rollback_full", version=new, again=True).ok()
    assert "rollback_points.yml -e good=" in forward.flat
    found = rows(deployed)
    assert (found[old]["release"], found[new]["release"]) == ("good", "bad")
    assert f"-> {old}" in deployed.play("rollback_full", "--check").ok().text

    deployed.play("rollback_points", good=new).refused("must know why")
    deployed.play("rollback_points", good="nope", reason="x").refused("There is no rollback point named nope")
    deployed.play("rollback_points", good=new, reason="it was the network", who="wanjiku").ok()
    row = rows(deployed)[new]
    assert (row["release"], row["release_by"], row["release_why"]) == ("good", "wanjiku", "it was the network")
    shown = deployed.play("rollback_points", bad=new, reason="it was not").ok()
    assert "bad by" in shown.text and "bad by ?" not in shown.text and "it was not" in shown.text
    pinned = deployed.play("rollback_points", pin=old, reason="audit").ok()
    assert "pinned by" in pinned.text and "pinned by ?" not in pinned.text
    deployed.all_at(NEXT)


def test_a_rollback_that_has_nothing_to_do_leaves_a_sick_system_alone(deployed: World) -> None:
    """People type the command again just when they doubt that all is well; it must not hold or restart what serves customers."""
    (point,) = deployed.points()
    deployed.play("rollback_full", version=point).ok()
    before = deployed.picture(runs=False)
    try:
        deployed.set_variables(**sick(deployed))
        played = deployed.play("rollback_full", version=point)
    finally:
        deployed.set_variables(**deployed.quick)
    played.refused(f"nothing was changed, because everything is at {point} already", "ledger", "404")
    assert played.outcome == "FAILED" and played.changed == 0
    assert not differences(before, deployed.picture(runs=False))
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)
