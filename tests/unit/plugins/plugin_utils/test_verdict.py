# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healthy is said only of what was looked at, and good follows from nothing less."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.plugin_utils import _report, _tables, _verdict

HTTP = {"ok": True, "probes": [{"name": "api", "type": "http"}, {"name": "port", "type": "tcp"}]}
PORT = {"ok": True, "probes": [{"name": "port 5000", "type": "tcp"}]}
SICK = {"ok": False, "failed": False, "msg": "api: status is 500, expected 200", "probes": [{"name": "api", "type": "http"}]}
DATA = {"checks": [], "msg": "4 check(s), 0 failed."}
GATE: dict[str, t.Any] = {"hosts": ["db1", "app1"], "components": ["postgresql", "pm2"], "version": "v1", "started": 0}
COMPONENTS = ["postgresql", "pm2"]


def hosts(verify: t.Any, verb: str = "verify", data: t.Any = "as usual", **more: t.Any) -> dict[str, t.Any]:
    app = {f"rollback_pm2_{name}": value for name, value in {verb: verify, **more}.items() if value is not None}
    db = {} if data is None else {f"rollback_postgresql_{verb}": DATA if data == "as usual" else data}
    return {"db1": {"rollback_components": ["postgresql"], **db}, "app1": {"rollback_components": ["pm2"], **app}}


@pytest.mark.parametrize(
    ("result", "healthy", "asked", "says"),
    [
        (HTTP, True, True, "yes"),
        (PORT, None, True, "not checked: app1: only that the port answers (port 5000); declare http probes"),
        (SICK, False, True, "NO: app1: api: status is 500, expected 200"),
        ({"skipped": True}, None, False, "not checked: app1: nobody looked"),
        (None, None, False, "not checked: app1: nobody looked"),
        ({"failed": True, "msg": "no python"}, False, True, "NO: app1: no python"),
        ({"failed": False}, False, True, "NO: app1: the check itself failed and did not say why"),
    ],
)
def test_what_an_application_answers(result: t.Any, healthy: bool | None, asked: bool, says: str) -> None:
    found = _verdict.health(hosts(result), ["db1", "app1"], COMPONENTS, "verify")
    assert (found["healthy"], found["asked"], found["text"]) == (healthy, asked, says)


def test_data_that_does_not_hold_is_not_healthy() -> None:
    found = _verdict.health(hosts(HTTP, data={"failed": True, "checks": [], "msg": "orphans"}), ["db1", "app1"], COMPONENTS, "verify")
    assert found["healthy"] is False and found["parts"]["db1"]["postgresql"] == "NOT HEALTHY: orphans"
    assert found["parts"]["app1"]["pm2"] == "2 probe(s) succeeded: api, port"


def test_a_backup_asks_the_applications_only() -> None:
    found = _verdict.health(hosts(HTTP, "healthy", data=None), ["db1", "app1"], COMPONENTS, "healthy")
    assert found["healthy"] is True
    assert _verdict.health(hosts(HTTP, data=None), ["db1", "app1"], COMPONENTS, "verify")["healthy"] is None


def test_nothing_to_look_at_is_not_healthy() -> None:
    assert _verdict.health({}, [], ["pm2"], "verify") == {
        "healthy": None,
        "asked": False,
        "text": "not checked: nothing was asked",
        "parts": {},
    }


def marks(verify: t.Any, corruption: bool = False, known: t.Any = None) -> dict[str, str]:
    hostvars = hosts(verify, observe={"live": {"release": "old"}}, flip={"live": {"release": "new"}})
    hostvars["app1"]["transaction_info"] = {"releases": known or {}}
    found = _verdict.flip_marks(hostvars, GATE, corruption, "slow")
    assert [mark["version"] for mark in found if mark["status"] == "good"] in ([], ["v1"])
    return {mark["release"]: mark["status"] for mark in found}


def test_only_a_verified_rollback_marks() -> None:
    assert marks(HTTP) == {"new": "good", "old": "bad"}
    assert marks(HTTP, corruption=True) == {"new": "good"}
    assert marks(PORT) == marks(None) == marks(SICK) == {}


def test_the_same_command_again_leaves_nothing_and_so_marks_nothing() -> None:
    again = hosts(HTTP, observe={"live": {"release": "old"}})
    assert _verdict.flip_marks(again, GATE) == []


def test_leaving_a_good_release_for_a_bad_one_is_no_verdict_on_it() -> None:
    bad, good = {"status": "bad"}, {"status": "good"}
    assert marks(HTTP, known={"old": good, "new": bad}) == {"new": "good"}  # which the registry refuses without a person's word
    assert marks(HTTP, known={"old": good, "new": good}) == {"new": "good", "old": "bad"}
    assert marks(HTTP, known={"old": bad, "new": bad}) == {"new": "good", "old": "bad"}


@pytest.mark.parametrize(("healthy", "marked"), [(HTTP, ["r1"]), (PORT, []), (SICK, []), (None, [])])
def test_a_backup_of_what_is_healthy_makes_it_good(healthy: t.Any, marked: list[str]) -> None:
    hostvars = hosts(healthy, "healthy", data=None, backup={"release": "r1"})
    assert [mark["release"] for mark in _verdict.backup_marks(hostvars, GATE) if mark["status"] == "good"] == marked


def test_a_table_never_cuts_what_is_wrong() -> None:
    sick = {**SICK, "msg": "api: " + "word " * 60 + "end"}
    report = _report.run_report(hosts(sick, "healthy", data=None), GATE, "done", "demo", "backup")
    text = _tables.run_table({**report, "from": "v0"})
    assert "  healthy:   NO: app1: api: word" in text and " end" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.index("version:") < text.index("healthy:") < text.index("took:")
    assert "latest passes it over" in " ".join(text.split())


def test_verify_says_what_was_checked() -> None:
    report = _report.run_report(hosts(HTTP), GATE, "verified", "demo", "verify")
    text = _tables.run_table(report)
    assert text.startswith("HEALTHY: verify of demo") and "healthy:   yes" in text
    assert "2 probe(s) succeeded: api, port" in text and "4 check(s), 0 failed." in text
    sick = {"transaction_unhealthy": "said above"}
    assert "said above" not in _tables.run_table(
        _report.run_report({**hosts(SICK), "db1": {**hosts(SICK)["db1"], **sick}}, GATE, "verified", "demo", "verify")
    )
    for result, title in ((SICK, "NOT HEALTHY: "), (PORT, "NOT CHECKED: ")):
        assert _tables.run_table(_report.run_report(hosts(result), GATE, "verified", "demo", "verify")).startswith(title)


@pytest.mark.parametrize(
    ("outcome", "begins"),
    [
        ("undone", "It failed, and every host is back at the version it had: flip: broken; pm2: died"),
        ("failed", "It failed before anything live was touched: flip: broken; pm2: died"),
    ],
)
def test_a_failed_run_ends_with_one_sentence(outcome: str, begins: str) -> None:
    hostvars = {"db1": {"transaction_failure": "flip: broken"}, "app1": {"transaction_failure": "pm2: died"}}
    assert _report.failed_sentence(hostvars, GATE, outcome) == begins
    same = {host: {"transaction_failure": "x"} for host in hostvars}
    assert _report.failed_sentence(same, GATE, outcome).endswith(": x")
    assert _report.failed_sentence({"db1": {}, "app1": {}}, GATE, outcome).endswith("the same on another host")


def test_a_host_that_is_lost_is_named() -> None:
    hostvars = {"db1": {"transaction_answers": True, "transaction_failure": "flip: broken"}, "app1": {}}
    said = _report.failed_sentence(hostvars, GATE, "lost")
    assert said == "It failed, and app1 could not go back (repair: undo.yml): flip: broken; it did not answer any more"
