# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what hosts answered to what a person reads: nothing is counted twice, nothing that failed is hidden."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.plugin_utils import _report

GATE: dict[str, t.Any] = {
    "hosts": ["db1", "app1"],
    "components": ["postgresql", "pm2"],
    "version": "v1",
    "who": "wanjiku",
    "run_id": "3f9a12bc",
    "started": 0,
    "inventory": "inventories/kejayangu",
    "passed_over": [],
    "warnings": [],
}


def system(db: dict[str, t.Any] | None = None, app: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
    return {
        "db1": {"rollback_components": ["postgresql"], **{f"rollback_postgresql_{verb}": value for verb, value in (db or {}).items()}},
        "app1": {"rollback_components": ["pm2"], **{f"rollback_pm2_{verb}": value for verb, value in (app or {}).items()}},
    }


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({}, False),
        ({"at_version": True}, True),
        ({"at_version": False}, False),
        ({"databases": {"a": {"at_version": True}, "b": {"at_version": True}}}, True),
        ({"databases": {"a": {"at_version": True}, "b": {"at_version": False}}}, False),
        ({"databases": {}}, False),
        ({"at_version": None, "databases": {"a": {"at_version": True}}}, True),
    ],
)
def test_nothing_to_flip_means_every_part_is_at_the_version(result: dict[str, t.Any], expected: bool) -> None:
    assert _report.at_version(result) is expected


def test_only_hosts_with_the_component_answer_for_it_and_skipped_verbs_do_not_count() -> None:
    hostvars = system(db={"prepare": {"at_version": True}}, app={"flip": {"skipped": True}})
    hostvars["app1"]["rollback_postgresql_prepare"] = {"at_version": False}
    assert _report.answers(hostvars, ["db1", "app1"], ["postgresql", "pm2"]) == {
        "db1": {"postgresql": {"prepare": {"at_version": True}}},
        "app1": {"pm2": {}},
    }


def step(name: str, second: float, ms: float, phase: str = "end") -> dict[str, t.Any]:
    return {"step": name, "phase": phase, "started": f"2026-01-01T00:00:{second:09.6f}Z", "ms": ms}


def test_the_outage_lasts_from_the_first_hold_to_the_last_step_that_serves_again() -> None:
    journal = [
        step("preflight", 1, 5000),
        step("hold", 10, 500),
        step("swap", 11, 100),
        step("start", 12, 1500),
        step("verdict", 13.5, 8000),
        step("save", 14, 9000),
    ]
    assert _report.outage({}, journal) == 3500.0


def test_a_hold_of_the_killed_run_counts_too() -> None:
    journal = [step("hold", 10, 500, "start"), step("hold", 10, 500), step("hold", 30, 1), step("start", 40, 1000)]
    assert _report.outage({}, journal) == 31000.0


def test_without_a_hold_the_flip_has_measured_it() -> None:
    found = {"db1": {"postgresql": {"flip": {"outage_ms": 97.5}}}}
    assert _report.outage(found, [step("swap", 11, 100)]) == 97.5
    assert _report.outage({}, []) is None


def test_rows_are_told_as_carried_or_left_and_where() -> None:
    db = {
        "prepare": {"databases": {"shop": {"rows_since": {"public.payments": 12, "public.carts": 5, "public.users": 0}}}},
        "flip": {"kept": {"shop": "shop__kept_x"}},
        "flip_carried": {
            "carried": {"shop.public.payments": 10},
            "left": {"shop.public.payments": {"new": 0, "changed": 2}},
            "left_in": {"shop": "shop__kept_x"},
        },
    }
    rows = _report.rows_of(_report.answers(system(db), ["db1", "app1"], ["postgresql", "pm2"]), "flip")
    assert rows["shop.public.payments"] == {"newer": 12, "carried": 10, "left": 2, "left_in": "shop__kept_x"}
    assert rows["shop.public.carts"] == {"newer": 5, "carried": 0, "left": 5, "left_in": "shop__kept_x"}
    assert "shop.public.users" not in rows


def test_a_host_that_could_not_go_back_is_named_with_the_repair() -> None:
    hostvars = system(app={"undo": {"failed": True, "msg": "no"}})
    hostvars["app1"]["transaction_lost"] = "undo: the disk is gone"
    hostvars["app1"]["transaction_failure"] = "flip: no"
    report = _report.run_report(hostvars, GATE, "lost", "kejayangu", "full")
    assert report["hosts"]["app1"]["pm2"]["did"] == "COULD NOT GO BACK: undo: the disk is gone"
    assert report["next"] == ["app1 could not go back. Repair with: ansible-playbook undo.yml -i inventories/kejayangu"]
    assert report["msg"] == "app1: flip: no"


def test_a_host_that_stopped_answering_is_left_behind() -> None:
    hostvars = system()
    assert _report.lost_hosts(hostvars, GATE["hosts"]) == {}
    hostvars["db1"]["transaction_answers"] = True
    assert _report.lost_hosts(hostvars, GATE["hosts"]) == {"app1": "it did not answer any more"}
    hostvars["app1"].update(transaction_answers=True, transaction_lost="no disk")
    assert _report.lost_hosts(hostvars, GATE["hosts"]) == {"app1": "no disk"}


def test_a_good_end_says_how_to_take_it_back_and_what_was_left() -> None:
    db = {"prepare": {"databases": {"shop": {"rows_since": {"public.carts": 5}}}}, "flip": {"kept": {"shop": "k"}, "msg": "flipped"}}
    report = _report.run_report(system(db), GATE, "done", "kejayangu", "full")
    assert report["next"][0].startswith("5 newer rows were not carried back")
    assert "undo.yml -i inventories/kejayangu" in report["next"][1]
    assert report["hosts"]["db1"]["postgresql"] == {"did": "flipped", "kept": "k", "seconds": 0}


def test_what_does_not_fit_is_said_in_sentences() -> None:
    hostvars = system(
        db={"inspect": {"databases": {"shop": {"catalogue_differences": ["a", "b", "c", "d"]}}}},
        app={"inspect": {"app": "api", "at_version": False, "live": {"version": None, "release": "abcdef0123456789"}}},
    )
    assert _report.misfits(hostvars, ["db1", "app1"], ["postgresql", "pm2"]) == [
        "the schema of shop on db1 has changed (a; b; c and 1 more)",
        "api on app1 runs the release abcdef012345",
    ]
    assert _report.misfits(system(app={"inspect": {"at_version": True, "live": {"release": "x"}}}), ["app1"], ["pm2"]) == []


def test_holds_and_unfinished_runs_come_first_and_once() -> None:
    run = {"run": "r1", "intent": "full", "version": "v1", "who": "w"}
    hostvars: dict[str, t.Any] = {
        "a": {"transaction_info": {"holds": [{"component": "pm2", "since": "s", "deadline": "d"}], "lock": run, "unfinished": []}},
        "b": {"transaction_info": {"holds": [], "lock": None, "unfinished": [run]}},
    }
    texts = _report.notices(hostvars, ["a", "b"], "-i inv")
    assert len(texts) == 2
    assert "ansible-playbook undo.yml -i inv" in texts[0]
    assert "r1" in texts[1]


def test_the_plan_of_a_held_app_does_not_promise_no_outage() -> None:
    app = {"prepare": {"at_version": False, "plan": ["start api@v1 beside api (no outage)", "save"], "preflight": {"seconds": 1.5}}}
    db = {
        "prepare": {"plan": ["restore"], "estimate": {"staging_seconds": 3, "outage_ms": 120}, "databases": {"shop": {"at_version": False}}}
    }
    held = _report.plan_report(system(db, app), GATE, "kejayangu", "full", True)
    assert held["hosts"]["app1"]["pm2"]["plan"] == [
        "answer 503 with Retry-After from before the databases flip until the release runs",
        "save",
    ]
    assert (held["staging_seconds"], held["outage_ms"]) == (3, 3620.0)
    free = _report.plan_report(system(db, app), GATE, "kejayangu", "application", False)
    assert free["hosts"]["app1"]["pm2"]["plan"][0].endswith("(no outage)")
    assert free["outage_ms"] == 120


def test_a_database_restored_once_more_is_not_at_its_version_before_the_flip() -> None:
    assert _report.at_version({"databases": {"p": {"at_version": True, "staged": None}}})
    assert not _report.at_version({"databases": {"p": {"at_version": True, "staged": "p__r_1"}, "q": {"at_version": True, "staged": None}}})
    assert not _report.at_version({"databases": {}})
