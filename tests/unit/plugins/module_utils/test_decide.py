# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May this run start? The truth table, and who counts as alive."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._decide import (
    HARMLESS,
    PLAYBOOKS,
    RESCUERS,
    decide,
    identity,
    is_alive,
    require,
    started_of,
)
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

HERE = {"machine_id": "m1", "boot_id": "b1", "pid": 1, "started": "s1", "host": "ctl1"}
OTHER = {**HERE, "pid": 99, "started": "s9"}


def run(
    run_id: str = "old", intent: str = "full", version: str | None = "v1", since: str = "2023-12-01T12:00:00.123456Z"
) -> dict[str, t.Any]:
    return {"run": run_id, "intent": intent, "version": version, "who": "juma", "since": since, "controller": dict(OTHER), "state": "open"}


def wish(intent: str = "full", version: str | None = "v1", **more: t.Any) -> dict[str, t.Any]:
    return {"run": "new", "intent": intent, "version": version, "controller": dict(HERE), **more}


# holder, unfinished, wanted, alive -> do, run, from
TABLE: dict[str, tuple[t.Any, list[t.Any], t.Any, bool, tuple[str, str | None, str | None]]] = {
    "nobody": (None, [], wish(), False, ("start", "new", None)),
    "alive, same wish": (run(), [], wish(), True, ("refuse", None, None)),
    "alive, other version": (run(), [], wish(version="v2"), True, ("refuse", None, None)),
    "alive, undo": (run(), [], wish("undo", None), True, ("refuse", None, None)),
    "alive, backup": (run(), [], wish("backup"), True, ("refuse", None, None)),
    "alive backup, rollback": (run(intent="backup"), [], wish(), True, ("refuse", None, None)),
    "alive, taken over by name": (run(), [], wish(version="v2", takeover="old"), True, ("start", "new", "old")),
    "alive, takeover of another": (run(), [], wish(takeover="older"), True, ("refuse", None, None)),
    "alive, emergency": (run(), [], wish("emergency", None), True, ("start", "new", "old")),
    "alive emergency, emergency": (run(intent="emergency", version=None), [], wish("emergency", None), True, ("refuse", None, None)),
    "alive emergency, by name": (run(intent="emergency"), [], wish("emergency", None, takeover="old"), True, ("start", "new", "old")),
    "dead, same wish": (run(), [], wish(), False, ("resume", "old", "old")),
    "dead, same wish, resume=false": (run(), [], wish(resume=False), False, ("refuse", None, None)),
    "dead, other version": (run(), [], wish(version="v2"), False, ("refuse", None, None)),
    "dead, other intent": (run(), [], wish("database"), False, ("refuse", None, None)),
    "dead, undo": (run(), [], wish("undo", None), False, ("start", "new", "old")),
    "dead, emergency": (run(), [], wish("emergency", None), False, ("start", "new", "old")),
    "dead, complete": (run(), [], wish("complete", None), False, ("refuse", None, None)),
    "dead, taken over by name": (run(), [], wish(version="v2", takeover="old"), False, ("start", "new", "old")),
    "dead, takeover of another": (run(), [], wish(version="v2", takeover="older"), False, ("refuse", None, None)),
    "dead undo, undo": (run(intent="undo", version="v1"), [], wish("undo", None), False, ("resume", "old", "old")),
    "dead undo, rollback": (run(intent="undo", version=None), [], wish(), False, ("refuse", None, None)),
    "dead backup, rollback": (run(intent="backup"), [], wish(version="v2"), False, ("start", "new", "old")),
    "dead backup, same backup": (run(intent="backup"), [], wish("backup"), False, ("resume", "old", "old")),
    "dead emergency, rollback": (run(intent="emergency", version=None), [], wish(), False, ("start", "new", "old")),
    "ours already": (run("new"), [], wish(), True, ("refuse", None, None)),
    "ours already, same controller": ({**run("new"), "controller": dict(HERE)}, [], wish(), True, ("resume", "new", "new")),
    "ours, by a dead controller": (run("new"), [], wish(), False, ("resume", "new", "new")),
    "ours, alive elsewhere, by its name": (run("new"), [], wish(takeover="new"), True, ("refuse", None, None)),
    "unfinished, same wish": (None, [run()], wish(), False, ("resume", "old", "old")),
    "unfinished, other version": (None, [run()], wish(version="v2"), False, ("refuse", None, None)),
    "unfinished, undo": (None, [run()], wish("undo", None), False, ("start", "new", "old")),
    "unfinished, taken over by name": (None, [run()], wish(version="v2", takeover="old"), False, ("start", "new", "old")),
    "unfinished and ours": (None, [run("new")], wish(), False, ("resume", "new", "new")),
    "unfinished backup": (None, [run(intent="backup")], wish(version="v2"), False, ("start", "new", None)),
}


@pytest.mark.parametrize("name", TABLE)
def test_decisions(name: str) -> None:
    holder, unfinished, wanted, alive, expected = TABLE[name]
    before = copy.deepcopy((holder, unfinished, wanted))
    decision = decide(holder, unfinished, wanted, alive)
    assert (decision["do"], decision["run"], decision["from"]) == expected
    assert (holder, unfinished, wanted) == before
    if decision["do"] == "refuse":
        assert len(decision["commands"]) == 2
        assert all(line.startswith("ansible-playbook ") and line in decision["message"] for line in decision["commands"])
        with pytest.raises(RollbackError) as caught:
            require(decision)
        assert caught.value.details["commands"] == decision["commands"]
    else:
        assert require(decision) is decision


def test_every_intent_in_every_situation_is_decided() -> None:
    for alive in (True, False):
        for intent in PLAYBOOKS:
            for old in PLAYBOOKS:
                decision = decide(run(intent=old), [], wish(intent, "v2"), alive)
                if alive and not (intent == "emergency" and old != "emergency"):
                    assert decision["do"] == "refuse"
                if not alive and (intent in RESCUERS or old in HARMLESS):
                    assert decision["do"] != "refuse"


def test_harmless_leftovers_are_closed_but_do_not_hide_a_real_one() -> None:
    backup, real = run("b", "backup", since="2023-12-02"), run("a", "full", since="2023-12-01")
    decision = decide(None, [backup, real], wish(version="v2"), False)
    assert decision["do"] == "refuse"
    assert decision["holder"]["run"] == "a"
    decision = decide(None, [backup, real], wish(), False)
    assert (decision["do"], decision["run"], decision["superseded"]) == ("resume", "a", ["b"])
    assert decide(None, [backup], wish("database", "v9"), False)["superseded"] == ["b"]


def test_refusals_say_who_and_what_to_type() -> None:
    # Helm: a pending rollback stays stuck. Kamal, Deployer: a stale lock must be released by hand, with no word on whose it is.
    message = decide(run(), [], wish(version="v2", inventory="inventories/kejayangu"), False)["message"]
    assert message == (
        "Run old (full to v1, started 2023-12-01 12:00:00 UTC by juma from ctl1) died without finishing and still holds the lock, "
        "so full to v2 cannot start. Finish it with 'ansible-playbook rollback_full.yml -i inventories/kejayangu -e version=v1', "
        "or take it back with 'ansible-playbook undo.yml -i inventories/kejayangu'."
    )
    message = decide(run(), [], wish(version="v2"), True)["message"]
    assert message.startswith("The lock is held by run old (full to v1, started")
    assert message.endswith(
        "which is still alive. Wait until it is over and type 'ansible-playbook rollback_full.yml -e version=v2', "
        "or only if it must not go on, take it over with 'ansible-playbook rollback_full.yml -e version=v2 -e takeover=old'."
    )
    message = decide(run(), [], wish(takeover="older"), True)["message"]
    assert message.startswith("The command says takeover=older, but the lock is held by another: run old (full to v1, started")


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[4][0] == "refuse"])
def test_every_refusal_is_made_of_whole_sentences(name: str) -> None:
    holder, unfinished, wanted, alive, unused = TABLE[name]
    message = decide(holder, unfinished, wanted, alive, [{"component": "pm2", "deadline": 1.0}])["message"]
    sentences = re.split(r"(?<=[a-z')])\. ", message)
    assert len(sentences) == 3 and message.endswith("'.")
    assert not [each for each in sentences if re.match(r"(Or|And)\b|\w+=", each) or not each[0].isalpha()], sentences


def test_what_is_held_closed_comes_first() -> None:
    holds = [{"component": "pm2", "host": "app1", "deadline": "12:30:00", "command": "ansible-playbook undo.yml"}]
    message = decide(run(), [], wish(version="v2"), False, holds)["message"]
    assert message.startswith("pm2 is held closed on app1 until 12:30:00; end that with 'ansible-playbook undo.yml'. Run old")


def test_a_hold_says_when_and_how_it_ends_although_components_write_seconds_only() -> None:
    holds = [{"component": "pm2", "host": "app1", "deadline": 1701433800.5}]
    message = decide(run(), [], wish(version="v2", inventory="inv"), False, holds)["message"]
    assert message.startswith(
        "pm2 is held closed on app1 until 2023-12-01 12:30:00 UTC; end that with 'ansible-playbook undo.yml -i inv'. Run"
    )


# -- alive ------------------------------------------------------------------------------------------------------------

ALIVE: dict[str, tuple[dict[str, t.Any], float | None, str | None, bool]] = {
    # controller of the holder, its lease (now is 100), start time of its pid as seen here, alive
    "same process": (OTHER, None, "s9", True),
    "no such process": (OTHER, 999, None, False),
    "pid used again": (OTHER, 999, "s10", False),
    "other boot": ({**OTHER, "boot_id": "b2"}, 999, "s9", False),
    "other machine, lease runs": ({**OTHER, "machine_id": "m2"}, 101, None, True),
    "other machine, lease over": ({**OTHER, "machine_id": "m2"}, 99, "s9", False),
    "other machine, no lease": ({**OTHER, "machine_id": "m2"}, None, "s9", False),
    "another container with the image's machine id": ({**OTHER, "host": "pod-2"}, 101, None, True),
    "machine without an id": ({**OTHER, "machine_id": ""}, 101, None, True),
    "start time unknown": ({**OTHER, "started": None}, 101, None, False),
    "pid is no number": ({**OTHER, "pid": "99"}, 101, "s9", False),
    "pid of a group": ({**OTHER, "pid": -1}, 101, "s9", False),
    "nothing known, lease runs": ({}, 101, None, True),
    "nothing known, no lease": ({}, None, None, False),
}


@pytest.mark.parametrize("name", ALIVE)
def test_who_is_alive(name: str) -> None:
    controller, lease, started, expected = ALIVE[name]
    holder = {"run": "old", "controller": controller, "lease_until": lease}
    assert is_alive(holder, HERE, 100.0, lambda pid: started) is expected


def test_identity_of_real_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = {"controller": identity(child.pid)}
        assert is_alive(holder, identity(), 0) is True
        child.kill()
        for unused in range(100):
            if started_of(child.pid) is None:
                break
            os.sched_yield()
        # Nobody has waited for it: a zombie does not finish a rollback.
        assert is_alive(holder, identity(), 0) is False
    finally:
        child.kill()
        child.wait()
    assert identity()["pid"] == os.getpid()
    assert started_of(2**22 + 1) is None
