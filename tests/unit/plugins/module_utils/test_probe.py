# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _probe, _probe_attempts, _probe_input
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, percentile, run_probes
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes, probe_argument_spec, retarget

URL = "http://127.0.0.1:5000/health"


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"type": "http"}, "url is missing"),
        ({"type": "icmp"}, "has the type 'icmp', expected one of http, tcp, tls, sql"),
        ("ping", "must be a mapping"),
        ({"url": "localhost:5000/health"}, "url must look like"),
        ({"url": "ftp://localhost/"}, "url must look like"),
        ({"url": "http://"}, "url must look like"),
        ({"url": "http://localhost:99999/"}, "url must look like"),
        ({"url": "http://localhost/a b"}, "url must look like"),
        ({"url": "http://localhost/\r\nX: y"}, "url must look like"),
        ({"url": "http://me:s3cr3t@localhost/"}, "put it into url_username"),
        ({"url": URL, "method": "DELETE"}, "method must be one of"),
        ({"url": URL, "body": "x"}, "a body is sent with POST only"),
        ({"url": URL, "status": []}, "status must be a list"),
        ({"url": URL, "status": [99]}, "status must be a list"),
        ({"url": URL, "status": 200}, "status must be a list"),
        ({"url": URL, "url_password": "x"}, "url_password needs url_username"),
        ({"url": URL, "headers": {"A\nB": "x"}}, "cannot be sent"),
        ({"url": URL, "secret_headers": {"Authorization": "x\r\nY: z"}}, "cannot be sent: 'Authorization'"),
        ({"url": URL, "expect_body": "("}, "not a regular expression"),
        ({"url": URL, "expect_json": [{"equals": 1}]}, "expect_json[1] lacks path"),
        ({"url": URL, "expect_json": [{"path": "a"}]}, "expect_json[1] (a) expects nothing"),
        ({"url": URL, "expect_json": [{"path": "a[", "exists": True}]}, "not understood"),
        ({"url": URL, "expect_json": [{"path": "a", "equal": 1}]}, "unknown key equal; known are path, equals"),
        ({"url": URL, "expect_json": {"path": "a"}}, "must be a list of mappings"),
        ({"url": URL, "expect_headers": [{"equals": "x"}]}, "expect_headers[1] lacks name"),
        ({"url": URL, "max_ms": 0}, "max_ms must be a number above 0"),
        ({"url": URL, "timeout": float("nan")}, "timeout must be a number above 0"),
        ({"url": URL, "port": 5}, "port does not belong to a probe of type http"),
        ({"url": URL, "ca_cert": "/nonexistent.pem"}, "is not a file on this host"),
        ({"type": "tcp", "host": "localhost"}, "port is missing"),
        ({"type": "tcp", "host": "localhost", "port": 0}, "port must be between 1 and 65535"),
        ({"type": "tcp", "host": "localhost", "port": 1, "max_ms": 5}, "max_ms does not belong to a probe of type tcp"),
        ({"type": "tls"}, "host is missing"),
        ({"type": "tls", "host": "localhost", "max_ms": 5}, "max_ms does not belong to a probe of type tls"),
        ({"type": "sql"}, "database is missing"),
        ({"type": "sql", "database": "d", "expect": {"minimum": 1}}, "unknown key minimum"),
        ({"type": "sql", "database": "d", "expect": 1}, "must be a mapping"),
        ({"type": "sql", "database": "d", "login_host": "h", "login_unix_socket": "/s"}, "exclude each other"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(probe: t.Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[t.Any] = []
    monkeypatch.setattr(_probe, "attempt", lambda *given: sent.append(given))
    with pytest.raises(RollbackError) as caught:
        run_probes([{"url": URL, "name": "fine"}, probe])
    assert message in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.details["probe_errors"]
    assert sent == []


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RollbackError) as caught:
        check_probes([{"type": "tcp"}, {"name": "a", "url": URL}, {"name": "a", "url": URL}])
    assert len(caught.value.details["probe_errors"]) == 3
    assert "two probes are called 'a'" in str(caught.value)


def test_no_probe_is_never_healthy() -> None:
    with pytest.raises(RollbackError, match="There is no probe"):
        run_probes([])


@pytest.mark.parametrize(("successes", "deadline", "interval"), [(0, 30, 1), (1, 0, 1), (1, 30, -1), (1, float("inf"), 1), (4, 3, 1)])
def test_numbers_that_cannot_work_are_refused(successes: int, deadline: float, interval: float) -> None:
    with pytest.raises(RollbackError, match="Nothing was sent"):
        run_probes([{"url": URL}], successes, deadline, interval)


def test_psycopg2_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe_input, "HAS_PSYCOPG2", False)
    with pytest.raises(RollbackError, match="python3-psycopg2"):
        check_probes([{"type": "sql", "database": "d"}])


def test_defaults_and_names() -> None:
    probes = check_probes(
        [{"url": URL + "?token=x", "status": None}, {"type": "tcp", "host": "h", "port": 1}, {"type": "tls", "host": "h"}]
    )
    assert [probe["name"] for probe in probes] == ["GET http://127.0.0.1:5000/health", "tcp h:1", "tls h:443"]
    assert probes[0]["status"] == [200] and probes[0]["validate_certs"] is True and probes[2]["min_days"] == 14


def script(monkeypatch: pytest.MonkeyPatch, **answers: list[t.Any]) -> list[str]:
    """Answer the probes by name from lists: milliseconds, or the text of a failure. The last answer repeats."""
    asked: list[str] = []

    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        asked.append(probe["name"])
        queue = answers[probe["name"]]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            raise _probe_attempts.Failed(answer, {"status": 503})
        return {"status": 200, "ms": answer}

    monkeypatch.setattr(_probe, "attempt", attempt)
    return asked


def named(*names: str) -> list[dict[str, t.Any]]:
    return [{"name": name, "url": URL} for name in names]


def test_one_failure_starts_the_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, api=[1.0, 2.0, "first", "second", 3.0, 4.0, 5.0])
    result = run_probes(named("api"), successes=3, deadline=5, interval=0)
    (probe,) = result["probes"]
    assert result["ok"] and probe["ok"]
    assert (probe["attempts"], probe["consecutive"]) == (7, 3)
    assert (probe["first_error"], probe["last_error"]) == ("first", "second")
    assert (probe["p50_ms"], probe["p95_ms"]) == (3.0, 5.0)
    assert probe["observed"] == {"status": 200, "ms": 5.0}


def test_stops_asking_once_it_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(monkeypatch, api=[1.0])
    assert run_probes(named("api"), successes=3, deadline=5, interval=0)["ok"]
    assert asked == ["api"] * 3


def test_the_deadline_ends_it_and_one_failure_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, api=[1.0], payments=["refused", "refused", "status 503"])
    result = run_probes(named("api", "payments"), successes=2, deadline=0.5, interval=0.05)
    assert not result["ok"]
    assert [probe["ok"] for probe in result["probes"]] == [True, False]
    assert 0.4 < result["seconds"] < 1.4
    message = failure_message(result)
    assert message.startswith("1 of 2 probes did not succeed 2 times in a row within 0.")
    attempts = result["probes"][1]["attempts"]
    assert f"payments after {attempts} attempts: status 503 (first: refused)." in message
    assert "api" not in message


def test_ends_as_soon_as_the_missing_successes_no_longer_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(monkeypatch, api=["down"])
    result = run_probes(named("api"), successes=3, deadline=2.5, interval=1)
    assert not result["ok"]
    assert asked == ["api"]
    assert result["seconds"] < 1


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float, *answers: t.Any) -> list[str]:
    """As script, but each answer takes a while."""
    asked = script(monkeypatch, api=list(answers))
    quick = _probe.attempt

    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        time.sleep(seconds)
        return quick(probe, timeout)

    monkeypatch.setattr(_probe, "attempt", attempt)
    return asked


def test_what_answers_take_does_not_stretch_the_time_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven attempts 0.1 s apart are over after a second, although each takes 0.08 s."""
    slow(monkeypatch, 0.08, 1.0)
    result = run_probes(named("api"), successes=11, deadline=1.6, interval=0.1)
    assert result["ok"], result


def test_well_for_a_while_however_often_that_could_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slow(monkeypatch, 0.1, 1.0)
    result = run_probes(named("api"), successes=2, deadline=2, interval=0.01, stable=0.5)
    assert result["ok"] and 0.5 <= result["seconds"] < 1.5, result
    assert len(asked) < 10
    assert "2 times in a row, for 0.5 s" in _probe.success_message(result)


def test_a_failure_begins_the_while_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, api=[1.0, 1.0, 1.0, "down", 1.0])
    result = run_probes(named("api"), successes=1, deadline=3, interval=0.1, stable=0.4)
    assert result["ok"] and result["seconds"] >= 0.7, result


def test_ends_as_soon_as_the_while_no_longer_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(monkeypatch, api=["down"])
    result = run_probes(named("api"), successes=1, deadline=2, interval=0.1, stable=1.9)
    assert not result["ok"] and result["seconds"] < 1 and len(asked) <= 2


def test_alternating_answers_never_count_as_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, api=[1.0, "down"] * 1000)
    assert not run_probes(named("api"), successes=2, deadline=0.4, interval=0.01)["ok"]


def test_an_attempt_that_hangs_does_not_hold_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        release.wait(20)
        return {"ms": 1.0}

    monkeypatch.setattr(_probe, "attempt", attempt)
    started = time.monotonic()
    result = run_probes(named("api"), successes=1, deadline=0.2)
    release.set()
    assert time.monotonic() - started < 3
    assert not result["ok"]
    assert result["probes"][0]["attempts"] == 1
    assert "api after 1 attempt: no answer at all by the deadline" in failure_message(result)


def test_an_attempt_that_hangs_does_not_hold_the_module_process() -> None:
    program = (
        "import time\n"
        "from ansible_collections.payops.rollback.plugins.module_utils import _probe\n"
        "_probe.attempt = lambda probe, timeout: time.sleep(60)\n"
        f"print(_probe.run_probes([{{'url': '{URL}'}}], successes=1, deadline=0.1)['ok'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr


def test_an_answer_after_the_deadline_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        time.sleep(0.4)
        return {"ms": 400.0}

    monkeypatch.setattr(_probe, "attempt", attempt)
    result = run_probes(named("api"), successes=1, deadline=0.2)
    assert not result["ok"]
    assert result["probes"][0]["last_error"] == "the answer came after the deadline"


def test_a_bug_in_an_attempt_is_a_failure_and_not_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, api=[ValueError("odd")])
    result = run_probes(named("api"), successes=1, deadline=0.1, interval=0.05)
    assert result["probes"][0]["last_error"] == "ValueError: odd"


def test_probes_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=5)

    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        together.wait()
        return {"ms": 1.0}

    monkeypatch.setattr(_probe, "attempt", attempt)
    assert run_probes(named("a", "b", "c"), successes=1, deadline=5)["ok"]


def test_an_attempt_gets_no_more_time_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        given.append(timeout)
        return {"ms": 1.0}

    monkeypatch.setattr(_probe, "attempt", attempt)
    run_probes([{"name": "a", "url": URL, "timeout": 60}], successes=1, deadline=2)
    assert given[0] <= 2


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([7.0], 95, 7.0), ([3.0, 1.0, 2.0], 50, 2.0), ([float(n) for n in range(1, 101)], 95, 95.0)],
)
def test_percentile(values: list[float], percent: int, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_retarget_moves_http_and_tcp_and_leaves_the_rest() -> None:
    probes = [
        {"url": "http://localhost:5000/health?full=1", "max_ms": 5},
        {"url": "http://[::1]/x", "type": "http"},
        {"type": "tcp", "host": "h", "port": 5000},
        {"type": "sql", "database": "d"},
    ]
    before = [dict(probe) for probe in probes]
    assert [probe.get("url", probe.get("port")) for probe in retarget(probes, 5999)] == [
        "http://localhost:5999/health?full=1",
        "http://[::1]:5999/x",
        5999,
        None,
    ]
    assert probes == before


def test_the_argument_spec_knows_every_option() -> None:
    options = set(probe_argument_spec()["options"])
    known = {key for required, optional in _probe_input._OPTIONS.values() for key in (*required, *optional)}
    assert options == known | set(_probe_input._COMMON)


def test_secrets_are_marked() -> None:
    options = probe_argument_spec()["options"]
    assert {key for key, option in options.items() if option.get("no_log")} == {"secret_headers", "url_password", "login_password"}


def certificate_with_end(tag: int, text: bytes, version: bool = True) -> bytes:
    """The first fields of an X.509 certificate, as far as the reader looks."""

    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes([number]) + length + content

    validity = field(0x30, field(0x17, b"200101000000Z") + field(tag, text))
    body = field(0xA0, field(2, b"\x02")) if version else b""
    body += field(2, b"\x01") + field(0x30, b"x" * 200) + field(0x30, b"issuer") + validity
    return field(0x30, field(0x30, body))


@pytest.mark.parametrize(
    ("tag", "text", "version", "expected"),
    [
        (0x17, b"261231235959Z", True, "2026-12-31T23:59:59+00:00"),
        (0x17, b"491231235959Z", False, "2049-12-31T23:59:59+00:00"),
        (0x17, b"500101000000Z", True, "1950-01-01T00:00:00+00:00"),
        (0x18, b"20510101000000Z", True, "2051-01-01T00:00:00+00:00"),
    ],
)
def test_the_end_of_a_certificate_is_read(tag: int, text: bytes, version: bool, expected: str) -> None:
    assert _probe_attempts.not_after(certificate_with_end(tag, text, version)).isoformat() == expected


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x03abc", certificate_with_end(0x17, b"tomorrow")])
def test_a_certificate_that_cannot_be_read_is_a_failure(der: bytes) -> None:
    with pytest.raises(_probe_attempts.Failed, match="cannot be read"):
        _probe_attempts.not_after(der)
