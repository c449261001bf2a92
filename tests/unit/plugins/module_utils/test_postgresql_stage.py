# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import Completed
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _blockers,
    _carry_back,
    _flip,
    _names,
    _pending,
    _plan,
    _preflight,
    _since,
    _stage,
    _state,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


def database(name: str, oid: int, **marker: t.Any) -> Database:
    limit = marker.pop("limit", -1)
    comment = _names.write_marker(marker) if marker else None
    return Database(name, oid, not marker, limit, "owner", False, comment, _names.read_marker(comment))


def world(*given: Database) -> dict[str, Database]:
    return {each.name: each for each in given}


@pytest.mark.parametrize("name", ["shop", "x" * 63, "\u00e9" * 31, "\u20ac" * 21])
def test_names_fit_and_stay_apart(name: str) -> None:
    staged, kept = _names.staged_name(name, "run"), _names.kept_name(name, "run", MOMENT)
    for each in (staged, kept, _names.free_name(kept, {kept})):
        assert len(each.encode()) <= 63
    assert kept.endswith("__kept_20260102T030405_" + _names.run8("run"))
    assert _names.free_name(kept, {kept}) != kept
    other = _names.kept_name(name[:-1] + "y", "run", MOMENT)
    assert other != kept


def test_markers_of_others_are_not_ours() -> None:
    for comment in (None, "", "payments of the shop", "{not json", '{"a": 1}', "[1]", '{"payops_rollback": 2}'):
        assert _names.read_marker(comment) == {}
    assert _names.read_marker(_names.write_marker({"kind": "kept"}))["kind"] == "kept"


def test_which_flip_made_the_live_database(tmp_path: pathlib.Path) -> None:
    paths = Paths(str(tmp_path), "shop")
    kept = database("p__kept_1", 10, kind="kept", database="p", live_oid=20, version="v1", run="r", at="t", seq=1, snapshot="5:5:")
    assert _state.live_record(paths, world(database("p", 20), kept), "p") == {
        "version": "v1", "oid": 20, "run": "r", "at": "t", "snapshot": "5:5:", "manifest": None,
    }  # fmt: skip
    assert _state.live_record(paths, world(database("p", 99), kept), "p") is None
    assert _state.live_record(paths, world(kept), "p") is None


def test_the_state_file_counts_only_for_its_oid(tmp_path: pathlib.Path) -> None:
    paths = Paths(str(tmp_path), "shop")
    (tmp_path / "shop" / ".run").mkdir(parents=True)
    assert _state.save_live(paths, {"p": {"version": "v1", "oid": 20, "run": "r", "at": "t"}})
    assert not _state.save_live(paths, {"p": {"version": "v1", "oid": 20, "run": "r", "at": "t"}})
    _state.note_staging(paths, ["p__r_00000000"])
    assert _state.live_record(paths, world(database("p", 20)), "p") is not None, "other keys of the file were lost"
    assert _state.live_record(paths, world(database("p", 21)), "p") is None
    _state.save_live(paths, {"p": None})
    assert _state.live_record(paths, world(database("p", 20)), "p") is None


def test_leftovers_are_only_ours(tmp_path: pathlib.Path) -> None:
    paths = Paths(str(tmp_path), "shop")
    (tmp_path / "shop" / ".run").mkdir(parents=True)
    _state.note_staging(paths, ["p__r_0123abcd", "p__r_other", "q"])
    found = world(
        database("p", 1),
        database("p__r_0123abcd", 2),  # created, not yet marked, written down before
        database("p__r_aaaaaaaa", 3),  # looks like ours, but nobody wrote it down
        database("q", 4),
        database("p__r_bbbbbbbb", 5, kind="staged", database="p", state="loading"),
        database("p__r_cccccccc", 6, kind="staged", database="p", state="verified"),
        database("p__kept_x", 7, kind="kept", database="p", limit=-2),
        database("z", 8, kind="staged", database="z", state="loading"),
    )
    assert sorted(each.oid for each in _state.leftovers(paths, found, ["p"])) == [2, 5, 7]


def test_what_is_undone() -> None:
    first = database("k1", 10, kind="kept", database="p", live_oid=20, run="r1", seq=1)
    second = database("k2", 20, kind="kept", database="p", live_oid=30, run="r2", seq=2)
    back = database("k3", 30, kind="undone", database="p", live_oid=20, run="r2", seq=3)
    chosen = _flip.to_undo(world(database("p", 30), first, second), "p", None)
    assert chosen is second
    assert _flip.to_undo(world(database("p", 30), first, second), "p", {"r2"}) is second
    assert _flip.to_undo(world(database("p", 30), first, second), "p", {"r3"}) is None
    with pytest.raises(RollbackError, match="Run r2 flipped after it: undo that one first"):
        _flip.to_undo(world(database("p", 30), first, second), "p", {"r1"})
    undone = world(database("p", 20), first, back)
    assert _flip.to_undo(undone, "p", None) is None, "a second undo in a row goes further back"
    assert _flip.to_undo(undone, "p", {"r2"}) is None
    assert _flip.to_undo(undone, "p", {"r1"}) is first
    with pytest.raises(RollbackError, match="Somebody renamed databases by hand"):
        _flip.to_undo(world(database("p", 77), first), "p", {"r1"})


def test_rows_come_only_from_what_this_run_replaced() -> None:
    old = database("k1", 10, kind="kept", database="p", live_oid=20, run="last month", seq=1)
    found = world(database("p", 20), old)
    assert _pending.source_of(found, "p", {"today"}, "auto") is None
    assert _pending.source_of(found, "p", {"last month"}, "auto") is old
    assert _pending.source_of(found, "p", set(), "auto") is old
    assert _pending.source_of(found, "p", set(), "undone") is None
    assert _pending.source_of(world(database("p", 21), old), "p", set(), "auto") is None


def test_what_an_interrupted_run_left_is_owed_through_every_flip_since() -> None:
    first = database("a", 10, kind="kept", database="p", live_oid=20, run="r1", seq=1, snapshot="s1")
    second = database("b", 20, kind="kept", database="p", live_oid=30, run="r2", seq=2, snapshot="s2")
    found = world(database("p", 30), first, second)

    def names(runs: set[str], broken: set[str]) -> list[tuple[str, str | None, bool]]:
        return [(each.database.name, each.moment, each.direct) for each in _pending.sources(found, "p", runs, broken)]

    assert names({"r2"}, {"r1"}) == [("b", "s2", True), ("a", "s2", False)]
    assert names({"r2"}, set()) == [("b", "s2", True)]
    assert names({"r3"}, {"r1", "r2"}) == [("b", "s2", True), ("a", "s2", False)]
    assert names({"r3"}, {"r1"}) == [], "what the last flip replaced was carried, and with it everything before"
    assert names(set(), set()) == [("b", "s2", True)]


def test_a_circle_of_markers_ends() -> None:
    """An undo exchanges the same two databases again and again."""
    back = database("b", 20, kind="undone", database="p", live_oid=10, run="r1", undo_run="u1", seq=2)
    odd = database("c", 10, kind="kept", database="p", live_oid=20, run="r1", seq=3)
    found = {**world(database("p", 10), back), "c": odd}
    assert [each.database.name for each in _pending.sources(found, "p", {"x"}, {"u1", "r1"})] == ["b"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("e", "emergency", "stopped"), ("r1", "full", "taken_over")], {"r1"}),
        ([("r2", "full", "done"), ("r1", "full", "taken_over")], set()),
        ([("b", "backup", "done"), ("v", "recover", "done"), ("r1", "database", None)], {"r1"}),
        ([("r2", "full", "undone"), ("r3", "full", "failed"), ("a", "application", "done"), ("r1", "full", "lost")], {"r1"}),
        ([("u", "undo", "taken_over"), ("r1", "full", "done"), ("r0", "full", "taken_over")], {"u"}),
        ([("me", "full", None), ("r1", "full", "unchanged"), ("r0", "full", "lost")], set()),
    ],
)
def test_which_runs_may_have_stopped_half_way(runs: list[tuple[str, str, str | None]], expected: set[str]) -> None:
    records = [dict(zip(("run", "intent", "outcome"), run)) for run in runs]
    assert _pending.interrupted(records, "me") == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("search_path", '"$user", public, "My ""x"""', ["$user", "public", 'My "x"']),
        ("search_path", '""', [""]),
        ("DateStyle", "ISO, DMY", ["ISO, DMY"]),
        ("statement_timeout", "30s", ["30s"]),
    ],
)
def test_values_of_settings(name: str, text: str, expected: list[str]) -> None:
    assert _stage.setting_values(name, text) == expected


def test_entries_that_are_left_out() -> None:
    entries = [
        "5; 3466 17 EVENT TRIGGER - audit postgres",
        "9; 1259 20 TABLE public payments owner",
        "12; 0 20 TABLE DATA public payments owner",
    ]
    left = _stage.skipped(entries, ["EVENT TRIGGER - audit"])
    assert left == entries[:1]
    assert _stage.ignored(left) == ["event trigger audit*"]
    assert _stage.skipped(entries, []) == []


class FakeServer:
    def program_args(self, name: str) -> list[str]:
        return ["-d", name]

    def program_env(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("rc", "stderr", "why"),
    [
        (1, "pg_restore: error: boom", "ended with 1 while filling s: pg_restore: error: boom"),
        (-11, "", "was killed by signal 11"),
        (0, "pg_restore: warning: errors ignored on restore: 3", "errors ignored"),
    ],
)
def test_anything_but_a_clean_end_is_an_error(rc: int, stderr: str, why: str) -> None:
    def cli(argv: t.Sequence[str], **unused: t.Any) -> Completed:
        if "-l" in argv:
            return Completed(0, "1; 2 3 TABLE public t o\n", "")
        assert "--exit-on-error" in argv
        return Completed(rc, "", stderr)

    with pytest.raises(RollbackError, match=why):
        _stage.load(cli, t.cast(t.Any, FakeServer()), "pg_restore", "/x", "s", 2, [])


def test_a_table_of_contents_that_cannot_be_read() -> None:
    with pytest.raises(RollbackError, match="cannot read the archive /x: bad. The point is damaged; choose another one"):
        _stage.toc_entries(lambda argv: Completed(1, "1; 2 3 TABLE public t o\n", "bad"), "pg_restore", "/x")


def test_a_standby_is_no_place_to_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"pg_is_in_recovery": True, "synchronous_standby_names": "ANY 1 (b)"}
    monkeypatch.setattr(_blockers, "one", lambda connection, query: next(found for name, found in answers.items() if name in query))
    monkeypatch.setattr(_blockers, "who_am_i", lambda connection: {"name": "op", "superuser": False, "createdb": True})
    monkeypatch.setattr(_blockers, "rows", lambda connection, query: [("b",), ("a",)])
    report = _blockers.Report()
    _blockers.server_level(None, report, creating=True)
    assert [each["code"] for each in report.blockers] == ["standby"]
    assert "synchronous standby (ANY 1 (b))" in report.notes[0] and "until they reconnect: a, b." in report.notes[1]


def test_a_worker_that_comes_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(7, None, False, False, "", "pg_cron launcher"), (8, "app", False, False, "node", "client backend")]
    monkeypatch.setattr(_blockers, "rows", lambda connection, query, values=None: found)
    report = _blockers.Report()
    _blockers._sessions(None, report, database("shop", 5), {"name": "op", "superuser": False, "signal": False}, True)
    assert [each["code"] for each in report.blockers] == ["worker", "signal"]
    assert "background worker 'pg_cron launcher', session 7" in report.blockers[0]["what"]


@pytest.mark.parametrize("now, then, may", [(105, 100, True), ((1 << 31) + 99, 100, True), ((1 << 31) + 100, 100, False), (99, 100, False)])
def test_transaction_numbers_are_compared_over_half_their_range(monkeypatch: pytest.MonkeyPatch, now: int, then: int, may: bool) -> None:
    monkeypatch.setattr(_since, "rows", lambda connection, query, values: [(str(now), str(then))])
    since = _since.Since(f"{then}:{then}:", True)
    assert _since.usable(None, since) == (since if may else None)


def test_too_few_connections_for_a_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_preflight, "rows", lambda conn, query: [(20, 3, 10)])
    wish = _preflight.Wish("v", ["a", "b"], jobs=8)
    assert _preflight._affordable_jobs(None, wish, 2) == 3
    monkeypatch.setattr(_preflight, "rows", lambda conn, query: [(20, 3, 13)])
    with pytest.raises(RollbackError, match="has 4 free connections .* expected at least 5"):
        _preflight._affordable_jobs(None, wish, 2)


def test_rules_of_pg_hba() -> None:
    assert _blockers.hba_matches(["all"], "shop__r_1")
    assert _blockers.hba_matches(["shop", "shop__r_1"], "shop__r_1")
    assert _blockers.hba_matches(["/^shop"], "shop__r_1")
    assert _blockers.hba_matches(["+group"], "anybody")
    assert not _blockers.hba_matches(["shop"], "shop__r_1")
    assert not _blockers.hba_matches(["replication"], "shop__r_1")
    assert not _blockers.hba_matches(None, "shop__r_1")


def test_ledgers() -> None:
    parsed = _carry_back.parse_ledgers(["a"], [{"table": "t", "key": ["id"]}])
    assert [(name, each.label, each.key) for name, found in parsed.items() for each in found] == [("a", "public.t", ("id",))]
    for databases, given, why in (
        (["a", "b"], [{"table": "t"}], "names no database"),
        (["a"], [{"table": "t", "database": "b"}], "not among databases"),
        (["a"], [{"table": "t"}, {"table": "t", "schema": "public"}], "declared twice"),
    ):
        with pytest.raises(RollbackError, match=why):
            _carry_back.parse_ledgers(databases, t.cast("list[dict[str, t.Any]]", given))


def test_a_changed_schema_is_told_in_one_sentence() -> None:
    came = "is here but was not expected."
    found = [f"column public.fees.percent {came}", f"constraint public.fees.fees_pkey {came}", "column public.pay.ref is missing.",
             f"index public.fees_pkey {came}", f"relation public.fees {came}"]  # fmt: skip
    assert _plan.schema_changes(found) == [
        "the live schema differs from the point: relation public.fees is here but was not expected; column public.pay.ref is missing; "
        "index public.fees_pkey is here but was not expected."
    ]
    (many,) = _plan.schema_changes([f"column public.pay.c{number} is missing." for number in range(20)])
    assert "c7 is missing; and 12 more" in many and "c8" not in many
    assert _plan.schema_changes([]) == []
