# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job from end to end, while customers pay all the time."""

from __future__ import annotations

import pytest

from tests.e2e.harness import BAD, GOOD, NEXT, NOTE, World, differences, settle_clock


def test_backup_list_rollback_undo_complete(world: World) -> None:
    with world.paying(), world.watching():
        backup = world.play("backup", label="before 1.1.0", ticket="OPS-7").ok()
        assert backup.outcome == "DONE" and backup.recap.keys() == {"db1", "app1"}
        (point,) = world.points()
        table = world.play("rollback_points").ok()
        assert table.changed == 0
        assert point in table.text and "pm2@app1 postgresql@db1" in table.text and "before 1.1.0" in table.text
        (row,) = world.play("rollback_points", output="json").ok().json()
        assert (row["version"], row["complete"], row["healthy"], row["release"], row["live"]) == (point, True, True, "good", True)
        assert (row["label"], row["ticket"]) == ("before 1.1.0", "OPS-7")

        world.deploy(1, NEXT, NOTE)
        world.await_payments()
        done = world.play("rollback_full", version=point, reason="1.1.0 charges twice").ok()
        assert done.outcome == "DONE" and done.facts["version"].endswith(f"-> {point}")
        assert "measured" in done.facts["outage"]
        world.all_at(GOOD)

        before = world.picture()["databases"]
        again = world.play("rollback_full", version=point).ok()
        assert again.outcome == "DONE" and again.changed == 0
        assert "hold | Answer 503" not in again.text, "held although there was nothing to do"
        assert world.picture()["databases"] == before
        world.all_at(GOOD)
        (row,) = world.play("rollback_points", output="json").ok().json()
        assert row["live"] is True

        world.await_payments()
        undone = world.paste(done, "Take it back").ok()
        assert undone.outcome == "DONE"
        world.all_at(NEXT)
        twice = world.play("undo").ok()
        assert "taken back already" in twice.flat and twice.changed == 0
        world.all_at(NEXT)

        world.await_payments()
        world.play("rollback_full", version=point).ok()
        world.all_at(GOOD)
    kept = world.kept()
    assert kept
    looked = world.play("complete", "--check").ok()
    assert all(f"drop {name} (" in looked.flat for name in kept), looked.text
    assert "only there and will be gone" in looked.flat or "it holds no row of its own" in looked.flat
    assert world.kept() == kept
    # What was only kept is given up now, by a person who says so.
    (world.clients / "acks.jsonl").unlink()
    complete = world.play("complete").ok()
    assert complete.outcome == "DONE" and world.kept() == []
    world.all_at(GOOD)
    assert world.play("complete").ok().changed == 0
    late = world.play("undo")
    late.refused("was completed by", "nothing to go back to")
    world.all_at(GOOD)


@pytest.mark.full
def test_without_a_version_it_never_lands_on_a_release_that_was_left(world: World) -> None:
    """``latest`` and ``previous`` walk back over good releases only, however often they are asked."""
    oldest = world.play("backup", label="oldest").ok() and world.points()[-1]
    world.deploy(1, "1.0.5")
    settle_clock()
    world.play("backup", label="middle").ok()
    middle = world.points()[-1]
    world.deploy(1, NEXT, NOTE)
    settle_clock()
    world.play("backup", label="newest, of what turns out bad").ok()
    newest = world.points()[-1]

    world.play("rollback_full").ok()  # newest is what runs now
    assert world.versions() == {"db1": GOOD, "app1": "1.0.5"}
    again = world.play("rollback_full").ok()  # not forward to the bad one
    rows = {row["version"]: row for row in world.play("rollback_points", output="json").ok().json()}
    assert rows[newest]["release"] == "bad" and rows[newest]["release_by"], rows[newest]
    assert world.versions()["app1"] in ("1.0.5", GOOD), again.text
    landed = [world.versions()["app1"]]
    for turn in range(2):
        played = world.play("rollback_full", version="previous")
        landed.append(world.versions()["app1"])
        assert NEXT not in landed, f"{landed}\n{played.text}"
        if played.rc != 0:
            played.refused("No rollback point fits 'previous'")
    assert landed[-1] == GOOD, landed
    named = world.play("rollback_full", version=newest)  # by its name even a bad one, said aloud
    assert named.rc == 0 and world.versions()["app1"] == NEXT, named.text
    assert middle in rows and oldest in rows


def test_a_release_with_a_broken_migration_under_load(world: World) -> None:
    """The real case: release 2.0.0 falls ill under traffic and has damaged old payments."""
    with world.paying(rate=15), world.watching():
        world.play("backup").ok()
        world.deploy(2)
        world.await_payments(5)
        done = world.play("rollback_full").ok()
        assert done.outcome == "DONE"
        world.await_payments()
    assert BAD not in world.versions().values()
    world.all_at(GOOD)
    damaged = world.sql("SELECT count(*) FROM payments WHERE status = 'pending' AND reference LIKE 'history-%'")
    assert damaged == [(0,)]


def test_check_mode_shows_a_plan_and_changes_nothing(deployed: World) -> None:
    """Every playbook, before a rollback, after one, and while everything is stopped."""
    (point,) = deployed.points()
    before = deployed.picture()
    for playbook, words in (
        ("backup", {"version": "never"}),
        ("rollback_full", {"version": point}),
        ("rollback_emergency", {}),
        ("rollback_emergency", {"version": point}),
        ("undo", {}),
        ("complete", {}),
        ("verify", {}),
        ("recover", {}),
        ("rollback_points", {}),
    ):
        played = deployed.play(playbook, "--check", "--diff", **words).ok()
        assert not differences(before, deployed.picture()), f"{playbook} --check\n{played.text[-3000:]}"
        assert "Everything is stopped" not in played.flat
        if playbook == "undo":
            assert "There is no rollback to take back" in played.flat
        elif playbook not in ("verify", "rollback_points"):
            assert f"PLAN: {playbook.removeprefix('rollback_')} of demo" in played.text, played.text[-3000:]
        if playbook == "rollback_full":
            assert "PLAN: full of demo" in played.text and "public.payments.note" in played.text
            assert "answer 503 with Retry-After" in played.flat and "(no outage)" not in played.flat
            assert "start of the release until it answers its probes (a guess: it was not tried yet)" in played.flat
    deployed.all_at(NEXT)

    deployed.play("rollback_full", version=point).ok()
    before = deployed.picture()
    (kept,) = deployed.kept()
    planned = deployed.play("undo", "--check").ok()
    assert "PLAN: undo of demo" in planned.text and f"give the name back to {kept}" in planned.flat, planned.text
    assert not differences(before, deployed.picture())

    deployed.play("rollback_emergency").ok()
    planned = deployed.play("recover", "--check").ok()
    assert "PLAN: recover of demo" in planned.text, planned.text
    assert all(host.health()[0] != 200 for host in deployed.hosts) and deployed.locks() == []
    listed = deployed.play("rollback_points").ok()
    assert "Everything was stopped at" in listed.flat
    deployed.paste(listed, "stopped").ok()
    assert "Everything was stopped" not in deployed.play("rollback_points").ok().flat
    deployed.all_at(GOOD)
