# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches of a gradual rollback: every host in exactly one, canaries first, and a plan that says what each will do."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils import _batches, _gate, _report

GATE: dict[str, t.Any] = {"hosts": ["lb1", "db1", "app1", "app2", "app3", "app4"], "components": ["pm2", "haproxy"], "version": "v1"}


def fleet(**more: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """One proxy, a database, four application hosts that have the version still to come."""
    found: dict[str, dict[str, t.Any]] = {"lb1": {"rollback_components": ["haproxy"]}, "db1": {"rollback_components": ["postgresql"]}}
    for number in range(1, 5):
        found[f"app{number}"] = {
            "rollback_components": ["pm2"],
            "rollback_haproxy_servers": [{"backend": "api", "server": f"app{number}"}],
            "rollback_pm2_prepare": {"at_version": False},
        }
    for host, values in more.items():
        found[host].update(values)
    return found


@pytest.mark.parametrize(
    ("wanted", "hosts", "expected"),
    [
        ([1, "50%", "100%"], 4, [1, 2, 1]),
        ([1, "50%", "100%"], 10, [1, 5, 4]),
        ([1, "50%", "100%"], 1, [1]),
        (["10%"], 5, [1, 1, 1, 1, 1]),  # never none
        (2, 5, [2, 2, 1]),
        (["100%"], 3, [3]),
        ([9], 3, [3]),
    ],
)
def test_sizes(wanted: t.Any, hosts: int, expected: list[int]) -> None:
    assert _batches.sizes(wanted, hosts) == expected


@pytest.mark.parametrize("wanted", [[], [0], ["0%"], ["101%"], ["half"], [True], [-1], ["1.5"], [None]])
def test_sizes_that_mean_nothing_are_refused(wanted: t.Any) -> None:
    with pytest.raises(RollbackError, match="rollback_batches"):
        _batches.sizes(wanted, 4)


def test_every_application_host_is_in_one_batch_and_the_canary_goes_first() -> None:
    found = _batches.batches(fleet(app3={"rollback_canary": "yes"}), GATE, [1, "50%", "100%"])
    assert [each["hosts"] for each in found] == [["app3"], ["app1", "app2"], ["app4"]]
    assert [each["name"] for each in found] == ["batch 1 of 3 (canary): app3", "batch 2 of 3: app1, app2", "batch 3 of 3: app4"]
    assert [(each["before"], each["after"]) for each in found] == [
        ([], ["app1", "app2", "app4"]),
        (["app3"], ["app4"]),
        (["app3", "app1", "app2"], []),
    ]


def test_a_batch_that_is_at_the_version_is_left_alone_except_after_a_crash() -> None:
    done = fleet(app1={"rollback_pm2_prepare": {"at_version": True}})
    assert not _batches.needed(done, GATE, ["app1"])
    assert _batches.needed(done, GATE, ["app1", "app2"])
    assert _batches.needed(done, {**GATE, "resume": True}, ["app1"]), "what was flipped before a crash was perhaps never judged"


def test_the_plan_of_a_batch_is_the_runbook() -> None:
    first, second = _batches.plan(fleet(app1={"rollback_pm2_prepare": {"at_version": True}}), GATE, [1, "100%"])
    assert first["steps"] == ["is at v1 already; nothing is done there"]
    assert [step.split(",")[0].split(";")[0] for step in second["steps"]] == [
        "disable new traffic to api/app2",
        "shift traffic to api/app1",
        "update app2",
        "re-enable api/app2",
        "gate: no threshold is declared (rollback_gate_probes)",
    ]


def test_a_plan_without_anybody_to_take_the_traffic_says_so() -> None:
    (only,) = _batches.plan(fleet(), GATE, ["100%"])
    assert "nobody: this will be refused" in only["steps"][1]


def run(run_id: str, since: str, **more: t.Any) -> dict[str, t.Any]:
    return {"run": run_id, "since": since, "intent": "gradual", "version": "v1", "outcome": "partial", **more}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run("a", "1")], "v1"),
        ([run("a", "1", outcome="done")], None),
        ([run("a", "1"), run("b", "2", intent="undo", outcome="done")], None),
        ([run("a", "1"), run("b", "2", intent="complete", outcome="done")], None),
        ([run("a", "1"), run("b", "2", intent="full", outcome="done", version="v0")], None),
        ([run("a", "1"), run("b", "2", intent="backup", outcome="done")], "v1"),
        ([], None),
    ],
)
def test_a_gradual_rollback_that_stopped_goes_on_without_a_version(runs: list[dict[str, t.Any]], expected: str | None) -> None:
    assert _gate.halfway(runs) == expected


def test_where_it_stopped_is_said_for_every_host() -> None:
    hostvars = fleet(app1={"transaction_stopped": _batches.batches(fleet(), GATE, 1)[1]})
    said = _report.failed_sentence(hostvars, GATE, "partial")
    for words in ("batch 2 of 4", "app2 is back", "app1 stays at v1", "app3, app4 were not touched"):
        assert words in said, said
