# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that stay tables, whatever people wrote into labels."""

from __future__ import annotations

import copy
import datetime
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.plugin_utils import _tables
from ansible_collections.payops.rollback.plugins.plugin_utils._tables import (
    Column,
    columns,
    cut,
    plan_table,
    points_rows,
    points_table,
    run_table,
    table,
)

NOW = datetime.datetime(2023, 12, 3, tzinfo=datetime.timezone.utc)
HOSTILE = "\x1b[2J\x1b[31mred\r\nfake row\t\u202eevil\u2028x" + "y" * 500


def point(version: str, **changes: t.Any) -> dict[str, t.Any]:
    return {
        "version": version,
        "created": "2023-12-01T12:00:00.000000Z",
        "hosts": {"app1": {"pm2": {}}, "app2": {"pm2": {}}, "db1": {"postgresql": {}}},
        "size": 123456789,
        "complete": True,
        "healthy": True,
        "release": {"status": "good", "who": None, "why": None, "when": None},
        "releases": [f"release-of-{version}"],
        "pinned": None,
        "legacy": False,
        "label": None,
        "ticket": None,
        "problems": [],
        "notes": [],
        **changes,
    }


def bad(why: str = "broken migration") -> dict[str, t.Any]:
    return {"status": "bad", "who": "amina", "why": why, "when": None}


def test_a_small_list_word_for_word() -> None:
    points = [
        point("20231202_110000", release=bad(), healthy=False),
        point("20231201_120000", pinned={"who": "juma", "why": "audit", "when": "w"}, ticket="CHG1"),
        point("20231201_080000", complete=False, problems=["app2 does not have it"]),
        point("backup_20231130_120000", legacy=True, healthy=None, release={"status": "unknown", "who": None, "why": None}),
    ]
    assert points_table(points, ["20231201_120000"], NOW, 104, ["pm2 is held closed."]).splitlines() == [
        "! pm2 is held closed.",
        "   VERSION                 AGE     SIZE  PARTS                         HEALTH      RELEASE  NOTE",
        "   20231202_110000         2 d  118 MiB  pm2@app1,app2 postgresql@db1  unhealthy   BAD",
        "     bad by amina: broken migration",
        "*  20231201_120000         2 d  118 MiB  pm2@app1,app2 postgresql@db1  healthy     good     pinned CHG1",
        "     pinned by juma: audit",
        "   20231201_080000         2 d  118 MiB  pm2@app1,app2 postgresql@db1  INCOMPLETE  good",
        "     ! app2 does not have it",
        "   backup_20231130_120000  2 d  118 MiB  pm2@app1,app2 postgresql@db1  unknown     unknown  legacy",
        "",
        "* live now",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    points = [
        point(
            "20231201_120000",
            label=HOSTILE,
            ticket="支付" * 60,
            pinned={"who": HOSTILE, "why": HOSTILE},
            release=bad(HOSTILE),
            problems=[HOSTILE] * 5,
        )
    ]
    points += [point("backup_20231130_120000", legacy=True, hosts={f"host{number}": {"pm2": {}, "postgresql": {}} for number in range(40)})]
    text = points_table(points, ["20231201_120000"], NOW, width, [HOSTILE])
    assert all(columns(line) <= width for line in text.splitlines()), text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "20231201_120000" in text
    assert "backup_20231130_120000" in text
    assert "! and 2 more" in text
    run = {"system": HOSTILE, "from": HOSTILE, "msg": HOSTILE, "hosts": {HOSTILE: {"pm2": {"did": HOSTILE, "kept": HOSTILE, "seconds": 3}}}}
    run.update(rows={HOSTILE: {"newer": 1, "carried": 0, "left": 1, "left_in": HOSTILE}}, next=[HOSTILE])
    plan = {"to": "v1", "hosts": {"db1": {"pm2": {"plan": [HOSTILE], "blockers": [HOSTILE]}}}, "rows": {HOSTILE: 1}, "warnings": [HOSTILE]}
    for shown in (run_table(run, width), plan_table(plan, width)):
        assert all(columns(line) <= width for line in shown.splitlines()), shown
        assert all(char.isprintable() or char == "\n" for char in shown)


def test_the_names_of_what_was_kept_are_never_cut() -> None:
    """Who looks for a row that was left needs each of them."""
    names = [f"payments_of_branch_{number}__kept_20231201T120000_0123456{number}" for number in range(4)]
    part = {"did": "live at point 20231201_120000", "kept": ", ".join(names), "seconds": 3}
    shown = run_table({"system": "demo", "hosts": {"db1": {"postgresql": part}}}, 80)
    assert all(name in shown for name in names), shown
    assert all(columns(line) <= 80 for line in shown.splitlines()), shown


def test_control_characters_cannot_fake_a_row() -> None:
    assert len(points_table([point("p1", label="x\n*  p0  fake")], [], NOW).splitlines()) == 2


def test_columns_line_up_with_wide_and_combining_characters() -> None:
    lines = table([Column("A"), Column("B")], [["支付", "x"], ["e\u0301e", "x"], ["ab", "x"]])
    assert [columns(line[: line.rindex(line[-1])]) for line in lines] == [6, 6, 6, 6]
    assert cut("支付支付", 6) == "支付…"
    assert columns(cut("支付支付", 5)) <= 5


def test_where_names_of_hosts_do_not_fit_their_number_does() -> None:
    assert "pm2@app1,app2 postgresql@db1" in points_table([point("p1")], [], NOW, 100)
    shown = points_table([point("backup_20231130_120000", label="before release 2")], [], NOW, 86)
    assert "pm2@2 postgresql@1" in shown
    assert "app1" not in shown


def test_no_points() -> None:
    assert points_table([], [], NOW).endswith("Take one with the playbook backup.yml.")


def test_rows_for_programs_are_plain_and_the_input_stays() -> None:
    points = [point("p1"), point("p2", release=bad())]
    before = copy.deepcopy(points)
    rows = points_rows(points, ["release-of-p1"], NOW)
    assert points == before
    assert [row["live"] for row in rows] == [True, False]
    assert rows[1]["release"] == "bad"
    assert rows[1]["release_by"] == "amina"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (123456789, "118 MiB"), (2**50, "1024 TiB"), (None, "?"), ("x", "?")],
)
def test_sizes(size: t.Any, text: str) -> None:
    assert _tables.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (0, "0 s"), (89, "89 s"), (300, "5 min"), (7200, "2 h"), (172800, "2 d"), (None, "?")]
)
def test_ages(seconds: float | None, text: str) -> None:
    assert _tables.span_text(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.094, "0.09 s"), (4.21, "4.2 s"), (75, "75 s"), (1234, "1,234 s"), (None, "")])
def test_durations(seconds: t.Any, text: str) -> None:
    assert _tables.duration_text(seconds) == text


def test_a_run_word_for_word() -> None:
    result = {
        "system": "kejayangu",
        "intent": "full",
        "outcome": "done",
        "from": "20231202_110000",
        "to": "20231201_120000",
        "outage_ms": 1840,
        "seconds": 42.1,
        "who": "amina",
        "hosts": {
            "app1": {"pm2": {"did": "switched 2 instances", "kept": "/srv/api.kept", "seconds": 3.2}},
            "db1": {"postgresql": {"did": "swapped kejayangu", "kept": "kejayangu__kept", "seconds": 0.09}},
        },
        "rows": {
            "kejayangu.public.payments": {"newer": 17, "carried": 17, "left": 0, "left_in": "kejayangu__kept"},
            "kejayangu.public.sessions": {"newer": 203, "carried": 0, "left": 203, "left_in": "kejayangu__kept"},
        },
        "next": ["Take it back with: ansible-playbook undo.yml"],
    }
    assert run_table(result).splitlines() == [
        "DONE: full of kejayangu",
        "  version:   20231202_110000 -> 20231201_120000",
        "  outage:    1.8 s (measured)",
        "  took:      42 s",
        "  by:        amina",
        "",
        "  HOST  COMPONENT   DONE                  KEPT AS            TOOK",
        "  app1  pm2         switched 2 instances  /srv/api.kept     3.2 s",
        "  db1   postgresql  swapped kejayangu     kejayangu__kept  0.09 s",
        "",
        "  Rows written or changed since the point:",
        "  TABLE                      SINCE  CARRIED BACK  LEFT  LEFT IN",
        "  kejayangu.public.payments     17            17     0",
        "  kejayangu.public.sessions    203             0   203  kejayangu__kept",
        "",
        "  Take it back with: ansible-playbook undo.yml",
    ]


def test_a_plan_shows_blockers_first() -> None:
    plan = {"system": "kejayangu", "intent": "full", "from": "a", "to": "b", "outage_ms": 1500, "staging_seconds": 30}
    plan["hosts"] = {
        "db1": {"postgresql": {"plan": ["Restore beside the live one"], "blockers": ["Role app_ro is missing"]}},
        "app1": {"pm2": {}},
    }
    plan.update(rows={"k.public.payments": 17}, skipped=[{"version": "p9", "why": "bad"}], warnings=["careful"])
    lines = plan_table(plan).splitlines()
    assert lines.index("  BLOCKED by 1:") < lines.index("    - Restore beside the live one")
    assert "    db1 postgresql: Role app_ro is missing" in lines
    assert "    - nothing to do" in lines
    assert "    p9: bad" in lines
    assert lines[-1] == "  ! careful"


def test_empty_inputs_are_no_error() -> None:
    assert run_table({}).startswith("?: rollback of ?")
    assert plan_table({}).startswith("PLAN: rollback of ?")


def test_what_somebody_must_find_or_copy_is_never_cut() -> None:
    kept = "kejayangu__kept_20261125T102512_fbb6dc6c"
    command = "ansible-playbook playbooks/complete.yml -i /srv/operations/inventories/production/kejayangu -i more"
    result = {
        "hosts": {
            "app1": {"pm2": {"did": "kejayangu-api at 20261125_102304 runs from /srv/api, verified", "kept": "/srv/api.rollback/kept-1", "seconds": 3}},
            "db1": {"postgresql": {"did": "kejayangu: live at point 20261125_102304.", "kept": kept, "seconds": 4}},
        },
        "rows": {"kejayangu.public.schema_migrations": {"newer": 1, "carried": 0, "left": 1, "left_in": kept}},
        "next": [f"It was right; drop what was replaced: {command}"],
    }  # fmt: skip
    lines = run_table(result).splitlines()
    assert lines[2:7] == [
        "  HOST  COMPONENT   DONE                                                            TOOK",
        "  app1  pm2         kejayangu-api at 20261125_102304 runs from /srv/api, verified  3.0 s",
        "    kept as /srv/api.rollback/kept-1",
        "  db1   postgresql  kejayangu: live at point 20261125_102304.                      4.0 s",
        f"    kept as {kept}",
    ]
    assert lines[-6:] == [
        "  TABLE                               SINCE  CARRIED BACK  LEFT",
        "  kejayangu.public.schema_migrations      1             0     1",
        f"    left in {kept}",
        "",
        "  It was right; drop what was replaced:",
        f"    {command}",
    ]


def test_what_was_done_goes_on_below_instead_of_being_cut() -> None:
    path = "/srv/" + "x" * 90
    did = f"kejayangu-api at 20261128_042713 runs from {path}, verified"
    text = run_table({"intent": "full", "outcome": "done", "hosts": {"app1": {"pm2": {"did": did, "seconds": 6, "kept": "/srv/kept"}}}})
    assert "…" not in text and all(len(line) <= 100 for line in text.splitlines())
    first = next(line for line in text.splitlines() if line.startswith("  app1"))
    assert first.endswith("6.0 s") and "kejayangu-api at 20261128_042713 runs from" in first
    assert text.count("x") == 90 and "verified" in text
    assert text.splitlines()[-1].strip() == "kept as /srv/kept"
