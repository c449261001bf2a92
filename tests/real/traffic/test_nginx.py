# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx_servers on a real nginx: what clients get, what comes back, and what is refused."""

from __future__ import annotations

import pathlib
import threading
import time
import typing as t

import pytest
import yaml

from ansible_collections.payops.rollback.plugins.module_utils._nginx.doors import Places, snippet
from tests.lab import modules, nginx, traffic
from tests.real.traffic.nginx_rig import NginxRig

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_a_hold_a_closed_door_and_a_part_of_the_clients(nginx_rig: NginxRig) -> None:
    rig = nginx_rig
    held = rig.quartet("held")
    for path in ("/", "/payments", "/webhooks/stripe", "/webhooks", "/.payops-rollback-closed"):
        found = rig.proxy.get(path)
        assert (found.status, found.headers.get("Retry-After"), found.text) == (503, "30", '{"error":"maintenance"}'), path
    assert rig.proxy.get("/webhooks/mpesa/result").text == "kept for later"
    assert held["hold"]["deadline"] > time.time() and held["before"] == {"frontends": {"api": 100}}
    rig.quartet("closed")
    assert rig.proxy.get("/webhooks/mpesa/result").status == 503 and rig.share() == "-1"
    rig.ok("held")  # does not open what an emergency closed
    assert rig.share() == "-1"
    seen: list[set[int]] = []
    for share in (10, 50):
        rig.quartet("limited", share=share)
        seen += [{number for number in range(200) if rig.proxy.get(client=f"client {number}").status == 200} for unused in range(2)]
    assert seen[0] == seen[1] < seen[2] == seen[3]
    assert 5 <= len(seen[0]) <= 40 and 70 <= len(seen[2]) <= 130
    rig.quartet("previous")
    assert rig.proxy.get("/webhooks/stripe").text == "kept for later"
    rig.as_before()


def test_no_request_fails_while_a_server_leaves_and_comes_back(nginx_rig: NginxRig) -> None:
    rig = nginx_rig
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def customer() -> None:
        while not over.is_set():
            try:
                found = rig.proxy.get()
                answers.append((found.status, found.text))
            except OSError as exc:
                answers.append((0, str(exc)))

    customers = [threading.Thread(target=customer) for unused in range(4)]
    for each in customers:
        each.start()
    try:
        rig.ok("maint", "app1")
        mark = len(answers)
        time.sleep(0.3)
        assert {text for unused, text in answers[mark + 8 :]} == {"app2", "app3"}
        rig.echoes["app1"].stop()  # the update; nobody may notice
        time.sleep(0.3)
        rig.echoes["app1"].start()
        rig.ok("previous", "app1", ramp=[10, 50], ramp_seconds=0.3)
    finally:
        over.set()
        for each in customers:
            each.join(10)
    assert {status for status, unused in answers} == {200} and len(answers) > 200, [each for each in answers if each[0] != 200][:5]
    rig.as_before()


def test_routed_waits_until_nobody_is_left_at_the_old_address(nginx_rig: NginxRig) -> None:
    """Whoever stops what is there must not cut a payment off; also a call that follows one that was killed."""
    rig = nginx_rig
    rig.ok("drained", "app2", "app3")
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(rig.proxy.get("/slow").text))
    thread.start()
    time.sleep(1.5)  # a busy machine takes a while to send it
    green = traffic.Echo("green").start()
    try:
        assert rig.run("routed", "app1", fault="nginx/reload/after=kill", address=f"127.0.0.1:{green.port}") == {"killed": True}
        left = rig.run("routed", "app1", address=f"127.0.0.1:{green.port}", drain_seconds=0.3)
        assert left["failed"] and left["sessions"] == {"payments/app1": 1}, left
        process = rig.start("routed", "app1", address=f"127.0.0.1:{green.port}")
        time.sleep(0.5)
        assert process.poll() is None, "it did not wait"
        traffic.fetch(f"http://127.0.0.1:{rig.echoes['app1'].port}/release")
        assert modules.result_of(process)["steps"][-1]["left"] == []
        thread.join(10)
        assert answers == ["app1"]
        rig.ok("routed", "app1")
    finally:
        green.stop()
    rig.ok("previous")
    rig.as_before()


def test_drained_waits_for_the_last_session_and_names_it(nginx_rig: NginxRig) -> None:
    rig = nginx_rig
    rig.ok("drained", "app2", "app3")  # so that the slow request is app1's
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(rig.proxy.get("/slow").text))
    thread.start()
    time.sleep(1.5)  # a busy machine takes a while to send it
    rig.ok("previous", "app2", "app3")
    result = rig.run("maint", "app1", drain_seconds=0.5)
    assert result["failed"] and "payments/app1 still has 1 sessions in old workers (" in result["msg"], result
    assert result["sessions"] == {"payments/app1": 1} and "cut_sessions" in result["msg"]
    assert rig.proxy.answering() == {"app2", "app3"}
    assert rig.ok("maint", "app1", drain_seconds=0.5, cut_sessions=True)["steps"][-1]["left"]
    # Another server's drain does not fail on it.
    assert "workers" not in rig.ok("ready", "app1")["msg"]
    rig.ok("maint", "app2", drain_seconds=0.5)
    process = rig.start("maint", "app1")
    time.sleep(0.5)
    traffic.fetch(f"http://127.0.0.1:{rig.echoes['app1'].port}/release")
    assert modules.result_of(process)["changed"]
    thread.join(10)
    assert answers == ["app1"], "the request was cut off"
    rig.ok("previous")
    rig.as_before()


def test_servers_out_in_part_and_elsewhere(nginx_rig: NginxRig) -> None:
    rig = nginx_rig
    assert "Backend payments would have 0 servers" in rig.refused("maint", "app1", "app2", "app3")
    rig.quartet("maint", "app1", "app2")
    assert rig.proxy.answering() == {"app3"}
    rig.echoes["app1"].stop()
    try:
        assert "(payments/app1) after 0.5 s, so it was not brought back" in rig.refused("previous", wait_seconds=0.5)
        assert rig.proxy.answering() == {"app2", "app3"}, "one that is ill keeps no other out"
    finally:
        rig.echoes["app1"].start()
    rig.quartet("previous", "app1")
    assert rig.proxy.answering() == {"app1", "app2", "app3"}
    assert rig.ok("ready", "app1", percent=20)["servers"]["payments/app1"]["weight"] == 20
    rig.ok("previous")
    rig.as_before()
    green = traffic.Echo("green").start()
    try:
        rig.quartet("routed", "app1", address=f"127.0.0.1:{green.port}")
        assert rig.proxy.answering() == {"green", "app2", "app3"}
        rig.quartet("routed", "app1", address="")
        rig.as_before()
        home = rig.echoes["app1"].port
        rig.quartet("routed", "app1", ports={str(home): green.port})
        assert rig.ok("routed", "app1", ports={str(home): green.port})["places"]["payments/app1"]["port"] == home
        assert rig.proxy.answering() == {"green", "app2", "app3"}
        assert "expected two ports" in rig.refused("routed", "app1", ports={str(home): "next"})
        assert "name each port at which nginx reaches" in rig.refused("routed", "app1", ports={"1": 2})
        rig.quartet("routed", "app1", ports={})
        rig.as_before()
    finally:
        green.stop()
    assert "Nothing answers at" in rig.refused("routed", "app1", address=f"127.0.0.1:{green.port}")
    # A server that was out before stays out.
    rig.proxy.upstream.write_text(rig.first["upstream-payments.conf"].replace("max_fails=0;  # app3", "max_fails=0 down;  # app3"))
    rig.proxy.reload()
    rig.ok("maint", "app1", "app3")
    rig.ok("previous")
    assert rig.proxy.answering() == {"app1", "app2"} and rig.remembered() == {}


def test_a_broken_configuration_is_refused_and_nginx_keeps_serving(nginx_rig: NginxRig) -> None:
    rig = nginx_rig
    workers = rig.proxy.workers()
    text = rig.proxy.config.read_text(encoding="utf-8")
    rig.proxy.config.write_text(text.replace("# http\n", "include /nowhere/broken.conf;\n"), encoding="utf-8")
    for state in ("observed", "held", "maint"):
        refused = rig.refused(state, *(["app1"] if state == "maint" else []))
        assert "nginx would not accept its configuration as it is now" in refused and "/nowhere/broken.conf" in refused
        assert "Nothing was touched" in refused
    rig.proxy.config.write_text(text, encoding="utf-8")
    assert rig.files() == rig.first and rig.proxy.workers() == workers and rig.remembered() == {}
    assert rig.proxy.answering() == set(rig.echoes)


def test_what_nginx_refuses_is_put_back(nginx_rig: NginxRig) -> None:
    """``-T`` is content before and not after: an nginx that does not know the word ``down``, say."""
    rig = nginx_rig
    workers = rig.proxy.workers()
    picky = rig.proxy.folder / "picky"
    picky.write_text(
        f'#!/bin/sh\ngrep -q " down;" {rig.proxy.upstream} && {{ echo "nginx: [emerg] no such word" >&2; exit 1; }}\nexec {nginx.NGINX} "$@"\n'
    )
    picky.chmod(0o755)
    refused = rig.refused("maint", "app1", program=str(picky))
    assert "no such word" in refused and "The files are as before. The nginx that runs goes on as before" in refused
    assert rig.files() == rig.first and rig.proxy.workers() == workers
    # And when a call is killed right between, the next one puts it back.
    assert rig.run("maint", "app1", fault="nginx/write/during=kill") == {"killed": True}
    result = rig.ok("previous", program=str(picky))
    assert result["changed"] and "since nginx refused what an interrupted call wrote" in result["msg"]
    rig.as_before()


def test_a_reload_that_nginx_refuses_is_put_back(nginx_rig: NginxRig) -> None:
    """The test is content, the master is not: it may not bind a port that somebody has."""
    rig = nginx_rig
    blocker = traffic.Echo("blocker").start()
    try:
        text = rig.proxy.config.read_text(encoding="utf-8")
        rig.proxy.config.write_text(text.replace("# api", f"listen 127.0.0.1:{blocker.port};"), encoding="utf-8")
        refused = rig.refused("maint", "app1", wait_seconds=1)
        assert "nginx has no new worker 1 s after" in refused
        assert "The files are as before. The nginx that runs goes on as before" in refused
        assert rig.files() == rig.first
    finally:
        blocker.stop()
    assert rig.proxy.answering() == set(rig.echoes)


@pytest.mark.parametrize("what", ["a line that is not understood", "an upstream that is not included"])
def test_an_emergency_closes_whatever_the_servers_files_say(nginx_rig: NginxRig, what: str) -> None:
    """nginx is content with them, and closing is not about servers."""
    rig = nginx_rig
    if what.startswith("a line"):
        one, two = rig.first["upstream-payments.conf"].splitlines()[1:3]
        rig.proxy.upstream.write_text(f"{one.partition(';')[0]}; {two.partition(';')[0]};\n", encoding="utf-8")
    else:
        (rig.proxy.files / "upstream-old.conf").write_text("server 127.0.0.1:1;\n", encoding="utf-8")
    assert "Nothing was touched" in rig.refused("held")
    done = rig.ok("closed")
    assert done["changed"] and rig.proxy.get().status == 503
    assert not rig.ok("closed")["changed"]
    rig.proxy.upstream.write_text(rig.first["upstream-payments.conf"], encoding="utf-8")
    (rig.proxy.files / "upstream-old.conf").unlink(missing_ok=True)
    rig.ok("previous")
    rig.as_before()


def test_an_emergency_closes_what_it_can(nginx_rig: NginxRig) -> None:
    """A server block that is listed and not prepared keeps no other one open."""
    rig = nginx_rig
    both = [*rig.options()["frontends"], {"name": "web", "url": "http://127.0.0.1:1"}]
    assert "does not know web" in rig.refused("held", frontends=both)
    result = rig.run("closed", frontends=both)
    assert result["failed"] and result["changed"] and "web at http://127.0.0.1:1" in result["msg"], result
    assert rig.proxy.get().status == 503
    rig.ok("previous")
    rig.as_before()


BAD: list[tuple[str, tuple[str, ...], dict[str, t.Any], str]] = [
    ("maint", ("app9",), {}, "nginx has no server payments/app9; it has payments/app1"),
    ("maint", (), {}, "state=maint needs servers"),
    ("observed", (), {"folder": "/nowhere"}, "/nowhere is missing. It is where the files lie"),
    ("observed", (), {"pid_file": "/nowhere/nginx.pid"}, "/nowhere/nginx.pid does not say which process nginx is"),
    ("observed", (), {"config": "/etc/nginx/nginx.conf"}, "not with /etc/nginx/nginx.conf"),
    ("observed", (), {"program": "/nowhere/nginx"}, "/nowhere/nginx cannot be run"),
    ("observed", (), {"frontends": [{"name": "web", "url": "http://127.0.0.1:1"}]}, "doors.conf does not know web"),
    ("observed", (), {"frontends": [{"name": "a-b", "url": "http://127.0.0.1:1"}]}, "cannot be part of an nginx variable"),
    ("held", (), {"client": "$x; }"}, "is not made of nginx variables"),
    ("held", (), {"receivers": ["/"]}, "would keep everything up"),
]


def test_bad_input(nginx_rig: NginxRig) -> None:
    for state, servers, options, words in BAD:
        assert words in nginx_rig.refused(state, *servers, **options)
    assert nginx_rig.files() == nginx_rig.first


def test_an_nginx_that_is_not_prepared_is_refused_with_the_lines(nginx_rig: NginxRig, place: pathlib.Path) -> None:
    other = nginx.Nginx(place / "other-nginx", {"app1": nginx_rig.echoes["app1"].port}, prepared=False).start()
    try:
        for state in ("observed", "held", "closed"):
            result = nginx_rig.run(state, **other.options())
            assert result["failed"] and "nginx is not prepared for a hold" in result["msg"] and not result["changed"]
        # The lines that are shown are those that work.
        first, unused, lines = result["snippet"].partition("http {\n")
        other.doors.write_text(first, encoding="utf-8")
        http, server = lines.split("    server {\n")
        text = other.config.read_text(encoding="utf-8").replace("# http", http).replace("# api", server.rpartition("    }\n}")[0])
        other.config.write_text(text, encoding="utf-8")
        other.reload()
        nginx_rig.ok("held", **other.options())
        assert other.get().status == 503
        nginx_rig.ok("previous", **other.options())
        other.config.write_text(text.replace(f"include {other.upstream};", "server 127.0.0.1:1;"), encoding="utf-8")
        assert f"does not include {other.upstream}" in nginx_rig.refused("observed", **other.options())
    finally:
        other.stop()


def test_the_role_and_the_module_show_the_same_lines() -> None:
    lines = [line.strip() for line in snippet(Places("/etc/nginx/payops/doors.conf"), ["api"]).splitlines() if "http {" not in line]
    documentation = (ROOT / "plugins/modules/nginx_servers.py").read_text(encoding="utf-8")
    notes = "\n".join(yaml.safe_load(documentation.split('"""')[1])["notes"])
    for shown in (notes, (ROOT / "roles/rollback_haproxy/README.md").read_text(encoding="utf-8")):
        assert [line for line in lines if line not in shown] == []
