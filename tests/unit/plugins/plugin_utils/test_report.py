# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what hosts answered to what a person reads: nothing is counted twice, nothing that failed is hidden."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.plugin_utils import _report, _rows, _tables
from tests.unit.plugins.plugin_utils.answered import GATE, report, system


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


def test_rows_are_told_as_carried_or_left_and_where() -> None:
    db = {
        "prepare": {"databases": {"shop": {"rows_since": {"public.payments": 12, "public.carts": 5, "public.users": 0}}}},
        "flip": {
            "kept": {"shop": "shop__kept_x"},
            "carried_back": {
                "carried": {"shop.public.payments": 10},
                "left": {"shop.public.payments": {"new": 0, "changed": 2}},
                "left_in": {"shop": "shop__kept_x"},
            },
        },
    }
    rows = _rows.rows_of(_report.answers(system(db), ["db1", "app1"], ["postgresql", "pm2"]), "flip")
    assert rows["shop.public.payments"] == {"newer": 12, "carried": 10, "left": 2, "left_in": "shop__kept_x"}
    assert rows["shop.public.carts"] == {"newer": 5, "carried": 0, "left": 5, "left_in": "shop__kept_x"}
    assert "shop.public.users" not in rows


def test_a_database_whose_name_has_dots_is_told_from_the_tables() -> None:
    kept = {"shop": "shop__kept_x", "shop.old": "shop.old__kept_x"}
    carried = {"carried": {}, "left": {"shop.old.public.carts": {"new": 3}}, "left_in": kept}
    db = {
        "prepare": {"databases": {"shop.old": {"rows_since": {"public.users": 2}}}},
        "flip": {"kept": kept, "carried_back": carried},
    }
    rows = _rows.rows_of(_report.answers(system(db), ["db1"], ["postgresql"]), "flip")
    assert {name: entry["left_in"] for name, entry in rows.items()} == {
        "shop.old.public.carts": "shop.old__kept_x",
        "shop.old.public.users": "shop.old__kept_x",
    }


def test_rows_that_an_interrupted_run_left_are_work_and_are_told_with_their_place() -> None:
    entry = {
        "at_version": True,
        "to_carry": True,
        "rows_since": {"public.carts": 3},
        "rows_waiting": {"public.payments": 2, "public.carts": 4},
    }
    assert not _report.at_version({"databases": {"shop": entry}})
    assert _report.at_version({"databases": {"shop": {**entry, "to_carry": False}}})
    db = {
        "prepare": {"databases": {"shop": entry}},
        "flip": {
            "kept": {"shop": "shop__kept_x"},
            "carried_back": {"carried": {"shop.public.payments": 2}, "left": {}, "left_in": {"shop": "shop__kept_x"}},
        },
    }
    rows = _rows.rows_of(_report.answers(system(db), ["db1"], ["postgresql"]), "flip")
    assert rows == {
        "shop.public.payments": {"newer": 2, "carried": 2, "left": 0, "left_in": "shop__kept_x"},
        "shop.public.carts": {"newer": 4, "carried": 0, "left": 4, "left_in": "shop__kept_x"},
    }


def test_rows_of_a_database_that_stayed_are_not_told_as_left_behind() -> None:
    db = {"prepare": {"databases": {"shop": {"at_version": True, "rows_since": {"public.payments": 5}}}}, "flip": {"kept": {}}}
    report = _report.run_report(system(db), GATE, "done", "kejayangu", "full")
    assert report["rows"] == {} and not [text for text in report["next"] if "not carried back" in text]


def test_a_host_that_could_not_go_back_is_named_with_the_repair() -> None:
    hostvars = system(app={"undo": {"failed": True, "msg": "no"}})
    hostvars["app1"]["transaction_lost"] = {"pm2": "undo: the disk is gone"}
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
    hostvars["app1"].update(transaction_answers=True, transaction_lost={"pm2": "no disk"})
    assert _report.lost_hosts(hostvars, GATE["hosts"]) == {"app1": "no disk"}


def test_an_emergency_says_what_it_did_not_stop() -> None:
    """A host that did not answer, and one that refused: everything else is stopped, which must not read as everything."""
    stopped = system(db={"stop": {"msg": "closed"}}, app={"stop": {"msg": "stopped"}})
    report = _report.run_report(stopped, GATE, "stopped", "kejayangu", "emergency")
    assert report["outcome"] == "stopped" and report["next"][0].startswith("Everything is stopped. Go on with: ansible-playbook")
    for app, why in (({}, "nobody came to stop it"), ({"stop": {"failed": True, "msg": "no pm2"}}, "no pm2")):
        report = _report.run_report(system(db={"stop": {"msg": "closed"}}, app=app), GATE, "stopped", "kejayangu", "emergency")
        assert report["outcome"] == "not_stopped"
        assert report["hosts"]["app1"]["pm2"]["did"] == f"NOT STOPPED: {why}"
        assert report["hosts"]["db1"]["postgresql"]["did"] == "closed"
        assert report["next"][0].startswith("NOT STOPPED: pm2 on app1. It may still take payments.")
        assert not [text for text in report["next"] if "Everything" in text]


def test_a_recover_that_failed_does_not_say_that_nothing_was_touched() -> None:
    sentence = _report.failed_sentence(system(), {"hosts": []}, "not_started")
    assert sentence.startswith("It failed, and not everything that was stopped runs again") and "before anything" not in sentence


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
    texts = _report.notices(hostvars, ["a", "b"], {"inventory": "inv", "playbooks": "playbooks/{}.yml"})
    assert len(texts) == 2
    assert "ansible-playbook playbooks/undo.yml -i inv" in texts[0]
    assert "r1" in texts[1]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (
            {"intent": "full", "version": "v1"},
            "Run r1 (full to v1, by w) did not finish or is under way. The same command again finishes it; U takes it back.",
        ),
        (
            {"intent": "emergency", "version": None},
            "Run r1 (emergency, by w) did not finish or is under way. The same command again finishes it.",
        ),
        (
            {"intent": "undo", "version": "v1"},
            "Run r1 (undo to v1, by w) did not finish or is under way. The same command again finishes it.",
        ),
    ],
)
def test_what_is_told_to_type_fits_the_run(run: dict[str, t.Any], says: str) -> None:
    hostvars = {"a": {"transaction_info": {"lock": {"run": "r1", "who": "w", **run}}}}
    assert _report.notices(hostvars, ["a"], {}) == [says.replace("U ", "ansible-playbook undo.yml ")]


def test_a_deadline_in_seconds_is_a_time_for_people() -> None:
    hold = {"component": "pm2", "since": "2026-01-01T00:00:00Z", "deadline": 1701433800.5}
    (text,) = _report.notices({"a": {"transaction_info": {"holds": [hold]}}}, ["a"], {})
    assert "(deadline 2023-12-01T12:30:00Z). End it: ansible-playbook undo.yml" in text


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ({"version": "v0", "release": "abcdef0123456789"}, "v0"),
        ({"version": None, "release": "abcdef0123456789"}, "release abcdef012345"),
        ({}, None),
    ],
)
def test_from_which_version_it_went_is_known_by_the_code_that_ran(live: dict[str, t.Any], expected: str | None) -> None:
    report = _report.run_report(system(app={"observe": {"live": live}}), GATE, "done", "kejayangu", "full")
    assert (report["from"], report["to"]) == (expected, "v1")
    undo = _report.run_report(system(app={"observe": {"live": live}}), GATE, "done", "kejayangu", "undo")
    assert (undo["from"], undo["to"]) == ("v1", "before it")


def test_databases_alone_come_from_the_live_data() -> None:
    gate = {**GATE, "components": ["postgresql"]}
    assert _report.run_report(system(), gate, "done", "kejayangu", "database")["from"] == "the live data"
    assert _report.plan_report(system(), gate, "kejayangu", "database", [])["from"] == "the live data"


def test_what_was_kept_is_told_by_its_path_or_by_its_names() -> None:
    db = {"flip": {"kept": {"shop": "shop__kept_1", "bank": "bank__kept_1"}, "msg": "flipped"}}
    app = {"flip": {"kept": {"path": "/srv/api.rollback/kept", "release": "x"}, "msg": "switched", "steps": [{"ms": 1500}, {"ms": None}]}}
    hosts = _report.run_report(system(db, app), GATE, "done", "kejayangu", "full")["hosts"]
    assert hosts["db1"]["postgresql"]["kept"] == "shop__kept_1, bank__kept_1"
    assert hosts["app1"]["pm2"] == {"did": "switched", "kept": "/srv/api.rollback/kept", "seconds": 1.5}


def test_complete_tells_rows_that_are_gone() -> None:
    dropped = {"database": "shop", "name": "shop__kept_x", "only_there": {"public.audit": 7, "public.log": 9}, "at_most": ["public.log"]}
    hostvars = system({"complete": {"changed": True, "dropped": [dropped]}})
    report = _report.run_report(hostvars, GATE, "done", "kejayangu", "complete")
    text = " ".join(_tables.run_table(report).split())
    assert "Rows that are gone with what was dropped: TABLE ROWS WERE ONLY IN" in text
    assert "shop.public.audit 7 shop__kept_x" in text and "shop.public.log at most 9 shop__kept_x" in text


def test_what_an_emergency_stopped_before_is_not_what_became_of_it() -> None:
    stopped = {"stop": {"msg": "stopped api", "changed": True}, "flip": {"msg": "api runs v1", "changed": True}}
    assert report(system(app=stopped), "done", "full")["hosts"]["app1"]["pm2"]["did"] == "api runs v1"
    assert report(system(app=stopped), "stopped", "emergency")["hosts"]["app1"]["pm2"]["did"] == "stopped api"


def test_an_emergency_says_whom_it_replaced() -> None:
    hostvars = system(db={"stop": {"msg": "closed"}}, app={"stop": {"msg": "stopped"}})
    old = {"run": "r1", "intent": "full", "version": "v1", "who": "amina", "when": "2026-01-01T00:00:00.000000Z"}
    for own in hostvars.values():
        own["transaction_closed"] = {"run": {"run": GATE["run_id"], "took_over": old}}
    said = report(hostvars, "stopped", "emergency")["next"]
    assert [text for text in said if "taken over" in text] == [
        "The lock was taken over from run r1 (full to v1, by amina): it starts nothing any more, and fails."
    ]
    del hostvars["app1"]["transaction_closed"], hostvars["db1"]["transaction_closed"]["run"]["took_over"]
    assert not [text for text in report(hostvars, "stopped", "emergency")["next"] if "taken over" in text]


def test_who_was_replaced_by_another_run_does_not_advise_to_take_it_back() -> None:
    hostvars = system(db={"flip": {}}, app={"flip": {}})
    why = f"flip: The lock of this host is held by run 1, not by run 2, {_report.REPLACED}."
    for own in hostvars.values():
        own.update(transaction_answers=True, transaction_lost={"pm2": why})
    said = report(hostvars, "lost", "full")["next"]
    assert len(said) == 1 and "rollback_points.yml" in said[0] and "undo.yml" not in said[0]
    assert "undo.yml" not in _report.failed_sentence(hostvars, GATE, "lost")
    hostvars["db1"]["transaction_lost"] = {"postgresql": "the disk is gone"}  # something of its own is to be repaired
    assert "undo.yml" in report(hostvars, "lost", "full")["next"][0] and "undo.yml" in _report.failed_sentence(hostvars, GATE, "lost")


@pytest.mark.parametrize(
    ("later", "stopped"),
    [
        ([], True),
        ([("backup", "failed")], True),
        ([("recover", "failed")], True),
        ([("full", "refused")], True),
        ([("database", "done")], True),  # the applications are still stopped
        ([("application", "done")], True),  # the databases are still closed
        ([("recover", "done")], False),
        ([("full", "done")], False),
        ([("undo", "done"), ("emergency", "stopped")], True),
    ],
)
def test_while_everything_is_stopped_the_list_says_so_first(later: list[tuple[str, str]], stopped: bool) -> None:
    runs = [
        {"run": f"r{number}", "intent": intent, "outcome": outcome, "who": "otieno", "since": f"2026-11-28T05:2{number}:00.000000Z"}
        for number, (intent, outcome) in enumerate([("full", "done"), ("emergency", "stopped"), *later])
    ]
    hostvars = system()
    hostvars["db1"]["transaction_info"] = hostvars["app1"]["transaction_info"] = {"runs": runs}
    said = _report.notices(hostvars, ["db1", "app1"], GATE)
    assert (said != []) is stopped
    if stopped:
        assert len(said) == 1 and said[0].startswith("Everything was stopped at 2026-11-28 05:2")
        assert said[0].endswith("ansible-playbook recover.yml -i inventories/kejayangu")


def test_an_undo_says_how_many_rows_stay_in_what_it_replaced() -> None:
    left = {"carried": {"shop.payments": 2}, "left": {"shop.payments": 7}, "left_in": {"shop": "shop__kept_1"}}
    said = report(system(db={"undo": {"carried_back": left, "kept": {"shop": "shop__kept_1"}}}), "done", "undo")["next"]
    assert said == ["7 newer rows were not carried back; they are in shop__kept_1."]


def test_a_run_that_was_killed_and_continued_tells_what_its_killed_part_did() -> None:
    """The module that exchanged the databases and carried the payments back answered nobody."""
    moves = [["shop", 1, "shop__kept_1", 2], ["new", None, "never", 3]]
    carried = {"carried": {"shop.public.payments": 5}, "left": {"shop.public.payments": {"changed": 2, "new": 0}}}
    hostvars = system(db={"prepare": {"at_version": True}, "flip": {"changed": False, "kept": {}, "msg": "already at point v1"}})
    hostvars["db1"]["transaction_closed"] = {
        "journal": [
            {"step": "swap", "phase": "start", "component": "postgresql", "moves": moves},
            {"step": "carry", "phase": "end", "component": "postgresql", **carried},
            {"step": "carry", "phase": "end", "component": "postgresql", "carried": {}, "left": {}},
        ]
    }
    told = report(hostvars, "done", "full", resume=True)
    assert told["rows"] == {"shop.public.payments": {"newer": 7, "carried": 5, "left": 2, "left_in": "shop__kept_1"}}
    assert told["hosts"]["db1"]["postgresql"]["kept"] == "shop__kept_1"
    assert told["next"][0] == "2 newer rows were not carried back; they are in shop__kept_1."
    for outcome, resume in (("done", False), ("undone", True)):
        told = report(hostvars, outcome, "full", resume=resume)
        assert told["rows"] == {} and told["hosts"]["db1"]["postgresql"]["kept"] is None


def test_the_killed_part_is_told_of_a_database_whose_name_has_dots() -> None:
    journal = [
        {"component": "postgresql", "step": "swap", "phase": "start", "moves": [["pay.ke", 7, "pay.ke__kept"]]},
        {"component": "postgresql", "step": "carry", "phase": "end", "carried": {"pay.ke.public.payments": 2}, "left": {}},
    ]
    assert _rows.recall({"db1": journal}).rows["pay.ke.public.payments"]["left_in"] == "pay.ke__kept"


def test_a_backup_says_which_old_points_it_has_dropped() -> None:
    hostvars = system()
    assert report(hostvars, "done", "backup")["next"][1:] == []
    removed = [{"version": f"v{number}", "why": "too old"} for number in range(1, 10)]
    hostvars["db1"]["transaction_pruned"] = {"removed": removed}
    hostvars["app1"]["transaction_pruned"] = {"removed": removed[:3]}
    said = report(hostvars, "done", "backup")["next"][-1]
    assert said == "Dropped 9 old point(s), as keep_count and keep_days say: v1, v2, v3, v4, v5, v6, v7, v8 and 1 more."
