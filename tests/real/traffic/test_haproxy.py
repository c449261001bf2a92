# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""haproxy_servers on a real HAProxy: what clients get, what comes back, and what is refused."""

from __future__ import annotations

import http.client
import pathlib
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import Places, snippet
from tests.lab import modules, ports, traffic
from tests.real.traffic.rig import Rig

ROOT = pathlib.Path(__file__).resolve().parents[3]


def quartet(rig: Rig, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
    """Check changes nothing and says what the real call then does; again does nothing."""
    before, share = rig.proxy.states(), rig.share()
    check = rig.ok(state, *servers, check=True, **options)
    assert check["changed"] and (rig.proxy.states(), rig.share()) == (before, share)
    real = rig.ok(state, *servers, **options)
    assert real["changed"] and real["diff"]["before"] != real["diff"]["after"]
    assert not rig.ok(state, *servers, **options)["changed"]
    return real


def test_held_answers_503_with_retry_after_but_not_to_receivers(rig: Rig) -> None:
    held = quartet(rig, "held")
    for path in ("/", "/payments", "/webhooks/stripe", "/webhooks"):
        found = rig.proxy.get(path)
        assert (found.status, found.headers.get("retry-after")) == (503, "30"), path
    assert rig.proxy.get("/webhooks/mpesa/result").text == "kept for later"
    assert held["hold"]["deadline"] > time.time() and held["before"] == {"frontends": {"api": 100}, "servers": {}} or held["before"]
    quartet(rig, "previous")
    assert rig.proxy.get("/webhooks/stripe").text == "kept for later"
    rig.as_before()


def test_closed_answers_503_to_everybody_and_a_hold_does_not_open_it(rig: Rig) -> None:
    quartet(rig, "closed")
    assert rig.proxy.get("/webhooks/mpesa/result").status == 503
    rig.ok("held")
    assert rig.share() == "-1"
    rig.ok("limited", share=0)  # but recover does, by saying so
    assert rig.proxy.get("/webhooks/mpesa/result").status == 200 and rig.proxy.get().status == 503
    rig.ok("previous")
    rig.as_before()


def test_limited_lets_the_same_clients_in_each_time_and_more_with_each_step(rig: Rig) -> None:
    rig.ok("closed")
    seen: list[set[int]] = []
    for share in (10, 50):
        quartet(rig, "limited", share=share)
        for unused in range(2):
            seen.append({number for number in range(200) if rig.proxy.get(client=f"client {number}").status == 200})
    assert seen[0] == seen[1] < seen[2] == seen[3]
    assert 5 <= len(seen[0]) <= 40 and 70 <= len(seen[2]) <= 130
    rig.ok("limited", share=100)
    rig.as_before()


def test_limited_never_lets_in_more_than_before(rig: Rig) -> None:
    """A person had let only some in, for a reason of their own."""
    rig.proxy.ask(f"add map {rig.proxy.places.share_map} api 40")
    pathlib.Path(rig.proxy.places.share_map).write_text("api 40\n", encoding="utf-8")
    rig.ok("closed")
    rig.ok("limited", share=100)
    assert rig.share() == "40"


def test_a_reload_keeps_a_hold_and_what_servers_do(rig: Rig) -> None:
    rig.ok("held")
    rig.ok("maint", "app2")
    rig.proxy.reload()
    assert rig.share() == "0" and rig.proxy.get("/webhooks/mpesa/x").status == 200
    assert rig.proxy.states()["app2"][0] & 1
    rig.ok("previous")
    rig.as_before()
    rig.proxy.reload()
    rig.as_before()


def test_drained_waits_for_the_last_session(rig: Rig) -> None:
    answers: list[str] = []
    rig.ok("drained", "app2", "app3")  # so that the slow request is app1's
    thread = threading.Thread(target=lambda: answers.append(rig.proxy.get("/slow").text))
    thread.start()
    traffic.ports.wait_until(lambda: "payments,app1,0,0,1," in rig.proxy.ask("show stat -1 4 -1"), "the slow request")
    rig.ok("previous", "app2", "app3")
    refused = rig.refused("maint", "app1", drain_seconds=0.5)
    assert "payments/app1 still has 1 sessions after 0.5 s" in refused and "cut_sessions" in refused
    process = rig.start("maint", "app1")
    traffic.ports.wait_until(lambda: rig.proxy.states()["app1"][0] & 8, "the drain")
    assert {rig.proxy.get().text for unused in range(6)} == {"app2", "app3"}
    traffic.fetch(f"http://127.0.0.1:{rig.echoes['app1'].port}/release")
    assert modules.result_of(process)["changed"]
    thread.join(10)
    assert answers == ["app1"], "the request was cut off"
    assert rig.proxy.states()["app1"][0] & 1
    rig.ok("previous")
    rig.as_before()


def test_a_server_comes_back_step_by_step(rig: Rig) -> None:
    quartet(rig, "maint", "app1")
    weights: list[int] = []
    process = rig.start("previous", "app1", ramp=[10, 50], ramp_seconds=1)
    ended = False
    while not ended:
        ended = process.poll() is not None  # asked first: the last step is followed by nothing but the end
        state, weight, unused = rig.proxy.states()["app1"]
        weights += [weight] if not state and weight not in weights else []
        time.sleep(0.05)
    assert modules.result_of(process)["changed"] and weights == [10, 50, 100]
    rig.as_before()
    rig.ok("ready", "app1", percent=20)
    assert rig.proxy.states()["app1"][:2] == (0, 20)
    rig.ok("previous")
    rig.as_before()


def test_a_server_that_was_out_before_stays_out(rig: Rig) -> None:
    rig.proxy.ask("set server payments/app3 state maint")
    rig.ok("maint", "app1", "app3")
    rig.ok("previous")
    assert {name: state for name, (state, unused, where) in rig.proxy.states().items()} == {"app1": 0, "app2": 0, "app3": 1}
    assert rig.remembered() == {}


def test_somebody_must_be_left(rig: Rig) -> None:
    refused = rig.refused("maint", "app1", "app2", "app3")
    assert "Backend payments would have 0 servers" in refused and "rollback_batches" in refused
    assert rig.proxy.states() == rig.open


def test_a_server_that_is_ill_does_not_come_back(rig: Rig) -> None:
    rig.ok("maint", "app1", "app2")
    rig.echoes["app1"].stop()
    try:
        assert "payments/app1 fails HAProxy's health check" in rig.refused("previous", wait_seconds=1.5)
        assert {name: state == 0 for name, (state, unused, where) in rig.proxy.states().items()} == {
            "app1": False,
            "app2": True,
            "app3": True,
        }
        # On the way back to where it was ill already, it is what it was, and HAProxy sends nobody there.
        done = rig.ok("previous", wait_seconds=1.5, accept_down=True)
        assert "payments/app1 gets no traffic until it passes" in done["msg"]
        assert {rig.proxy.get().text for unused in range(9)} == {"app2", "app3"}
        assert rig.proxy.states() == rig.open
    finally:
        rig.echoes["app1"].start()
    ports.wait_until(lambda: "app1" in {rig.proxy.get().text for unused in range(9)}, "HAProxy to find app1 healthy again")
    rig.as_before()


def test_a_spare_with_weight_0_comes_back_as_a_spare(rig: Rig) -> None:
    rig.proxy.ask("set server payments/app3 weight 0")
    try:
        rig.ok("maint", "app1", "app3")
        rig.ok("previous", wait_seconds=3)
        assert rig.proxy.states()["app3"][:2] == (0, 0) and rig.proxy.states()["app1"][:2] == (0, 100)
    finally:
        rig.proxy.ask("set server payments/app3 weight 100")
    rig.as_before()


def test_an_emergency_closes_although_it_cannot_be_proved(rig: Rig) -> None:
    """A wrong address, a certificate that has expired: the doors are shut first, and what could not be seen is said."""
    there = rig.options()["frontends"]
    wrong = [{**each, "url": "http://127.0.0.1:1"} for each in there]
    assert "is not prepared for a hold" in rig.refused("held", frontends=wrong)
    result = rig.run("closed", frontends=wrong)
    assert result["failed"] and result["changed"] and "does not do what it was told" in result["msg"], result
    assert rig.proxy.get().status == 503 and rig.share() == "-1"
    rig.ok("previous")
    rig.as_before()


def test_routed_elsewhere_and_back(rig: Rig) -> None:
    green = traffic.Echo("green").start()
    try:
        quartet(rig, "routed", "app1", address=f"127.0.0.1:{green.port}")
        assert {rig.proxy.get().text for unused in range(9)} == {"green", "app2", "app3"}
        quartet(rig, "routed", "app1", address="")
        assert {rig.proxy.get().text for unused in range(9)} == {"app1", "app2", "app3"}
        rig.as_before()
    finally:
        green.stop()
    assert "Nothing answers at" in rig.refused("routed", "app1", address=f"127.0.0.1:{green.port}")
    assert rig.proxy.states() == rig.open


def test_where_servers_are_and_what_stands_against_sending_everybody_elsewhere(rig: Rig) -> None:
    def place() -> t.Any:
        return rig.ok("routed", "app1", check=True)["places"]["payments/app1"]

    here = rig.echoes["app1"].port
    assert place() == {"address": "127.0.0.1", "port": here, "state": "ready", "against": None}
    rig.proxy.ask(f"set server payments/app1 check-port {rig.echoes['app2'].port}")
    assert "checks the health of payments/app1 at another" in place()["against"]
    rig.proxy.ask(f"set server payments/app1 check-port {here}")
    rig.ok("maint", "app1")
    assert (place()["state"], place()["against"]) == ("maint", None)
    rig.ok("previous")
    rig.as_before()


def test_nobody_is_left_at_the_old_address(rig: Rig) -> None:
    """HAProxy would use its connections to the old address for as long as busy clients keep theirs."""
    ended = threading.Event()
    answers: list[str] = []

    def customer() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", rig.proxy.port)
        while not ended.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answers.append(answer.read().decode() if answer.status == 200 else str(answer.status))
            except (OSError, http.client.HTTPException) as exc:
                answers.append(f"{type(exc).__name__}: {exc}")
                connection.close()
            time.sleep(0.01)
        connection.close()

    green = traffic.Echo("green").start()
    customers = [threading.Thread(target=customer, daemon=True) for unused in range(8)]
    for each in customers:
        each.start()
    try:
        ports.wait_until(lambda: len(answers) > 200, "busy customers")
        here = rig.echoes["app1"].port
        rig.proxy.ask(f"set server payments/app1 check-port {here}")  # as "check port" in haproxy.cfg
        rig.ok("routed", "app1", ports={str(here): green.port})
        rig.echoes["app1"].stop()  # nobody notices
        seen = len(answers)
        ports.wait_until(lambda: len(answers) > seen + 200, "busy customers")
        assert set(answers[seen:]) == {"green", "app2", "app3"} and rig.proxy.usable() == ["app1", "app2", "app3"]
        rig.echoes["app1"].start()
        rig.ok("routed", "app1")
        green.stop()
        seen = len(answers)
        ports.wait_until(lambda: len(answers) > seen + 200, "busy customers")
        assert set(answers[seen:]) == {"app1", "app2", "app3"}
    finally:
        ended.set()
        for each in customers:
            each.join(10)
        green.stop()
    assert set(answers) <= {"green", "app1", "app2", "app3"} and not any(each.is_alive() for each in customers)
    rig.as_before()


@pytest.mark.parametrize(
    ("state", "servers", "options", "words"),
    [
        ("maint", ("app9",), {}, "HAProxy has no server payments/app9; it has payments/app1"),
        ("maint", ("a b",), {}, "does not name a server of HAProxy"),
        ("maint", (), {}, "state=maint needs servers"),
        ("observed", (), {"socket": "/nowhere/admin.sock"}, "runtime socket /nowhere/admin.sock did not answer"),
        ("observed", (), {"frontends": [{"name": "web", "url": "http://127.0.0.1:1"}]}, "web at http://127.0.0.1:1 does not answer"),
        ("held", (), {"receivers": ["/"]}, "would keep everything up"),
        ("held", (), {"receivers": ["/a;clear map"]}, "is not the beginning of a path"),
        ("limited", (), {"share": 101}, "share must be from -1 to 100"),
        ("previous", (), {"ramp": [50, 10]}, "that rise"),
        ("routed", ("app1",), {"address": "green:80"}, "is not an IP address and a port"),
        ("routed", ("app1",), {"ports": {"5000": "next"}}, "expected two ports"),
        ("routed", ("app1",), {"ports": {"1": 2}}, "only. Nothing was sent elsewhere"),
    ],
)
def test_bad_input(rig: Rig, state: str, servers: tuple[str, ...], options: dict[str, t.Any], words: str) -> None:
    assert words in rig.refused(state, *servers, **options)
    rig.as_before()


def test_a_frontend_that_is_not_prepared_is_refused_with_the_lines(rig: Rig, place: pathlib.Path) -> None:
    other = traffic.Proxy(place / "other", {"app1": rig.echoes["app1"].port}, prepared=False).start()
    try:
        given = {key.replace("rollback_haproxy_", ""): value for key, value in other.variables().items()}
        for state in ("observed", "held", "closed"):
            result = rig.run(state, **given)
            assert result["failed"] and "HAProxy is not prepared for a hold" in result["msg"] and not result["changed"]
            assert f"map_str_int({other.places.share_map},100)" in result["snippet"]
        # The lines that are shown are those that work.
        config = other.folder / "haproxy.cfg"
        text = config.read_text(encoding="utf-8")
        head, tail = text.split("frontend api\n")
        config.write_text(head + result["snippet"] + "\n" + tail, encoding="utf-8")
        other.reload()
        rig.ok("held", **given)
        assert other.get().status == 503
        rig.ok("previous", **given)
    finally:
        other.stop()


def test_the_role_shows_the_same_lines() -> None:
    shown = (ROOT / "roles/rollback_haproxy/README.md").read_text(encoding="utf-8")
    assert snippet(Places("/etc/haproxy/payops-share.map", "/etc/haproxy/payops-receivers.map", 30), "api") in shown
