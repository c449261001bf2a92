# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan tells before anything is touched."""

from __future__ import annotations

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _blockers
from ansible_collections.payops.rollback.plugins.plugin_utils import _report, _tables
from tests.unit.plugins.plugin_utils.answered import GATE, report, system


def test_the_plan_says_where_nothing_is_to_be_done() -> None:
    db = {"prepare": {"databases": {"shop": {"at_version": True}}, "plan": ["never read"]}}
    plan = _report.plan_report(system(db), GATE, "kejayangu", "full", [])
    assert plan["hosts"]["db1"]["postgresql"]["plan"] == ["is at v1 already"]
    assert plan["outage_ms"] is None


def test_the_plan_of_a_held_app_does_not_promise_no_outage() -> None:
    app = {"prepare": {"at_version": False, "plan": ["start api@v1 beside api (no outage)", "save"], "boot_seconds": 1.5}}
    db = {
        "prepare": {"plan": ["restore"], "estimate": {"staging_seconds": 3, "outage_ms": 120}, "databases": {"shop": {"at_version": False}}}
    }
    held = _report.plan_report(system(db, app), GATE, "kejayangu", "full", ["pm2"])
    assert held["hosts"]["app1"]["pm2"]["plan"] == [
        "answer 503 with Retry-After from before the databases flip until the release runs",
        "save",
    ]
    assert (held["staging_seconds"], held["outage_ms"]) == (3, 3620.0)
    untried = {"prepare": {**app["prepare"], "boot_seconds": None}}
    guessed = _report.plan_report(system(db, untried), GATE, "kejayangu", "full", ["pm2"])
    assert guessed["outage_ms"] == 5120.0 and guessed["outage_parts"][-1][1].endswith("(a guess: it was not tried yet)")
    free = _report.plan_report(system(db, app), GATE, "kejayangu", "application", [])
    assert free["hosts"]["app1"]["pm2"]["plan"][0].endswith("(no outage)")
    assert free["outage_ms"] == 120


def test_an_app_that_is_at_the_version_is_held_while_its_database_flips() -> None:
    """The release is the same, only the data goes back: the application answers 503 all the same."""
    app = {"prepare": {"at_version": True, "plan": []}}
    db = {"prepare": {"plan": ["restore"], "estimate": {"outage_ms": 120}, "databases": {"shop": {"at_version": False}}}}
    plan = _report.plan_report(system(db, app), GATE, "kejayangu", "full", ["pm2"])
    first, second = plan["hosts"]["app1"]["pm2"]["plan"]
    assert first.startswith("answer 503 with Retry-After") and second == "is at v1 already"
    assert plan["outage_ms"] == 5120.0
    db["prepare"]["databases"] = {"shop": {"at_version": True}}
    plan = _report.plan_report(system(db, app), GATE, "kejayangu", "full", ["pm2"])
    assert plan["hosts"]["app1"]["pm2"]["plan"] == ["is at v1 already"]


def test_the_plan_of_held_containers_tells_of_the_hold_alone() -> None:
    """What a recreate would cost, and a second project, are for the case without a hold."""
    lines = ["no second project serves meanwhile: a volume", "nobody is served meanwhile because of the volume", "recreate api"]
    prepared = {"at_version": False, "plan": ["start api beside it as shop-next (no outage)", *lines]}
    gate = {**GATE, "hosts": ["app1"], "components": ["docker"]}
    hosts = {"app1": {"rollback_components": ["docker"], "rollback_docker_prepare": prepared}}
    held = _report.plan_report(hosts, gate, "shop", "full", ["docker"])["hosts"]["app1"]["docker"]["plan"]
    assert held == ["answer 503 with Retry-After from before the databases flip until the release runs", "recreate api"]
    assert _report.plan_report(hosts, gate, "shop", "application", [])["hosts"]["app1"]["docker"]["plan"] == prepared["plan"]


def test_the_plan_says_what_will_happen_to_newer_rows_and_what_the_outage_is_made_of() -> None:
    planned = {
        "public.payments": {"newer": 3, "carried": "2-3", "stays": "0-1", "ledger": True},
        "public.carts": {"newer": 5, "carried": "0", "stays": "5", "ledger": False},
    }
    entry = {"at_version": False, "rows_since": {"public.payments": 3, "public.carts": 5, "public.other": 1}, "rows_planned": planned}
    estimate = {"staging_seconds": 3, "staging_is_least": True, "outage_ms": 90, "outage_is_measured": True, "recheck_seconds": 0.4}
    db = {"prepare": {"plan": ["restore"], "estimate": estimate, "databases": {"shop": entry}}}
    app = {"prepare": {"at_version": False, "plan": [], "boot_seconds": 1.5}}
    plan = _report.plan_report(system(db, app), GATE, "kejayangu", "full", ["pm2"])
    assert plan["rows"] == {
        "shop.public.payments": {"newer": 3, "carried": "2-3", "left": "0-1"},
        "shop.public.carts": {"newer": 5, "carried": "0", "left": "5"},
        "shop.public.other": 1,
    }
    assert plan["outage_ms"] == 3990.0
    lines = _tables.plan_table(plan).splitlines()
    assert "  staging:   at least 3.0 s, beside the live system" in lines
    assert "  outage:    about 4.0 s" in lines
    text = " ".join(" ".join(lines).split())
    assert (
        "made of 0.09 s flip (as the last one took), 0.40 s last look at the restored databases, 2.0 s between the hosts and the"
        " controller, 1.5 s start of the release until it answers its probes, as in its preflight" in text
    )
    assert "TABLE SINCE WILL BE CARRIED BACK STAYS IN KEPT" in text
    assert "shop.public.payments 3 2-3 0-1" in text


def test_a_database_restored_once_more_is_not_at_its_version_before_the_flip() -> None:
    assert _report.at_version({"databases": {"p": {"at_version": True, "staged": None}}})
    assert not _report.at_version({"databases": {"p": {"at_version": True, "staged": "p__r_1"}, "q": {"at_version": True, "staged": None}}})
    assert not _report.at_version({"databases": {}})


def test_a_check_of_an_emergency_says_that_nothing_was_stopped() -> None:
    hostvars = system(db={"stop": {"msg": "kejayangu: would be open to nobody."}}, app={"stop": {"msg": "stop api", "kept": "/srv/kept"}})
    text = _tables.run_table(report(hostvars, "planned", "emergency"))
    assert text.startswith("PLAN: emergency of kejayangu") and "WOULD BE DONE" in text
    assert "Nothing was changed. The same command without --check does it." in text
    assert "STOPPED" not in text and "is stopped" not in text and "kept" not in text and "took" not in text


def test_a_check_of_an_undo_says_what_it_would_do_and_what_is_in_the_way() -> None:
    hostvars = system(
        db={"undo": {"msg": "kejayangu: would have the name back.", "plan": [], "blockers": ["a standby cannot be renamed."]}},
        app={"undo": {"msg": "x", "plan": ["make v0 live", "start 2 instances"]}},
    )
    told = report(hostvars, "planned", "undo")["hosts"]
    assert told["app1"]["pm2"]["did"] == "make v0 live; start 2 instances"
    assert told["db1"]["postgresql"]["did"] == "BLOCKED: a standby cannot be renamed. kejayangu: would have the name back."
    for own in hostvars.values():
        own["transaction_answers"] = True
    hostvars["db1"]["transaction_lost"] = {"postgresql": "the server does not answer"}
    assert report(hostvars, "planned", "undo")["next"] == ["Nothing was changed."]  # and no promise that it would work


def test_what_databases_find_in_the_way_is_told_in_sentences() -> None:
    found = _blockers.Report()
    found.block("slot", "kejayangu", "kejayangu has the slot 's1'.", "Drop it.")
    hostvars = system(db={"prepare": {"plan": [], "blockers": found.blockers}, "undo": {"msg": "x", "blockers": found.blockers}})
    plan = _report.plan_report(hostvars, GATE, "kejayangu", "full", [])
    assert plan["hosts"]["db1"]["postgresql"]["blockers"] == ["kejayangu has the slot 's1'. Drop it."]
    told = report(hostvars, "planned", "undo")["hosts"]["db1"]["postgresql"]["did"]
    assert told == "BLOCKED: kejayangu has the slot 's1'. Drop it. x"
    hostvars = system(db={"complete": {"plan": ["BLOCKED: kejayangu has the slot 's1'. Drop it."], "blockers": found.blockers}})
    told = report(hostvars, "planned", "complete")["hosts"]["db1"]["postgresql"]["did"]
    assert told == "BLOCKED: kejayangu has the slot 's1'. Drop it."


def test_what_components_note_is_told_once() -> None:
    early, late = "Whether shop_jobs will get into shop was not tried.", "shop: no sequence goes on from public.old_seq."
    hostvars = system(db={"prepare": {"plan": ["restore"], "notes": [early]}, "flip": {"msg": "x", "notes": [early, late]}})
    plan = _report.plan_report(hostvars, GATE, "kejayangu", "full", [])
    assert plan["hosts"]["db1"]["postgresql"]["plan"] == ["restore", f"note: {early}"]
    said = report(hostvars, "done", "full")["next"]
    assert said[0] == f"db1 postgresql: {late}" and not any(early in text for text in said)
    said = report(system(db={"backup": {"msg": "x", "notes": [early]}}), "done", "backup")["next"]
    assert said[0] == f"db1 postgresql: {early}"
    hostvars["db1"]["rollback_postgresql_prepare"]["databases"] = {"shop": {"at_version": True}}
    plan = _report.plan_report(hostvars, GATE, "kejayangu", "full", [])
    assert plan["hosts"]["db1"]["postgresql"]["plan"] == ["is at v1 already"]
