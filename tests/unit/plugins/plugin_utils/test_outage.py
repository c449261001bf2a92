# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For how long nobody was served, as the journals say."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.plugin_utils import _outage
from tests.unit.plugins.plugin_utils.answered import GATE, report, system


def step(name: str, second: float, ms: float, **more: t.Any) -> list[dict[str, t.Any]]:
    """The two records of one step."""
    stamp, end = (f"2026-01-01T00:00:{moment:09.6f}Z" for moment in (second, second + ms / 1000))
    return [{"step": name, "phase": "start", "at": stamp}, {"step": name, "phase": "end", "started": stamp, "at": end, "ms": ms, **more}]


def test_the_outage_lasts_from_the_last_connection_accepted_to_the_first_answer() -> None:
    journal = [
        *step("preflight", 1, 5000),
        *step("hold", 10, 500),
        *step("leave", 10.5, 1000),
        *step("start", 12, 900),
        *step("serve", 13, 2000, first_answer="2026-01-01T00:00:13.250000Z"),
        *step("verdict", 15, 8000),
        *step("save", 23, 900),
    ]
    assert _outage.outage({}, [[], journal]) == 2750.0


def test_a_leave_of_the_killed_run_counts_too() -> None:
    journal = [*step("hold", 10, 500), step("leave", 11, 500)[0], *step("leave", 30, 1), *step("serve", 40, 1000)]
    assert _outage.outage({}, [journal]) == 30000.0


def test_on_several_hosts_it_lasts_until_the_last_one_serves() -> None:
    first = [*step("leave", 10, 100), *step("serve", 14, 1000)]
    second = [*step("leave", 11, 100), *step("serve", 16, 1000)]
    assert _outage.outage({}, [first, second]) == 7000.0


def test_workers_that_leave_beside_the_next_release_are_no_outage() -> None:
    journal = [*step("green", 9, 500), *step("leave", 10, 500), *step("start", 11, 100), *step("serve", 12, 1000)]
    assert _outage.outage({}, [journal]) is None
    restart = [*step("leave", 20, 500), *step("start", 21, 100), *step("serve", 22, 1000)]
    assert _outage.outage({}, [[*journal, *restart]]) == 3000.0


def test_what_an_emergency_or_a_dead_run_has_closed_is_closed_since_then() -> None:
    """Customers do not care which run took the application away."""
    serving = [*step("leave", 40, 1), *step("serve", 41, 1000)]
    emergency = {"run": "e1", "intent": "emergency", "outcome": "stopped"}
    hostvars = system()
    for host, second in (("db1", 12), ("app1", 11)):
        runs = [{**emergency, "since": f"2026-01-01T00:00:{second}.000000Z"}]
        hostvars[host].update(transaction_info={"runs": runs}, transaction_closed={"journal": serving if host == "app1" else []})
    assert report(hostvars, "done", "recover")["outage_ms"] == 31000.0
    hostvars["app1"]["transaction_info"]["runs"].append(
        {"run": "r1", "intent": "recover", "outcome": "done", "since": "2026-01-01T00:00:20.000000Z"}
    )
    assert report(hostvars, "done", "full")["outage_ms"] == 2000.0
    hold = {"component": "pm2", "since": "2026-01-01T00:00:30.000000Z", "run": "dead"}
    hostvars["app1"]["transaction_info"]["holds"] = [hold]
    assert report(hostvars, "done", "undo")["outage_ms"] == 12000.0
    hold["run"] = GATE["run_id"]  # its own, and its journal knows better
    assert report(hostvars, "done", "full")["outage_ms"] == 2000.0


def test_without_a_hold_the_flip_has_measured_it() -> None:
    found = {"db1": {"postgresql": {"flip": {"outage_ms": 97.5}}}}
    assert _outage.outage(found, [step("swap", 11, 100)]) == 97.5
    assert _outage.outage({}, []) is None


def test_no_outage_is_counted_while_a_second_project_serves() -> None:
    def journal(**beside: t.Any) -> list[dict[str, t.Any]]:
        recreate = {"step": "recreate", "at": "2026-01-01T00:00:01.000000Z", "phase": "start", **beside}
        return [recreate, {"step": "serve", "phase": "end", "started": "2026-01-01T00:00:02.000000Z", "ms": 500.0}]

    assert _outage.outage({}, [journal(beside="shop-next")]) is None
    assert _outage.outage({}, [journal(beside=None)]) == 1500.0
