# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.payops.rollback.plugins.module_utils import _probe
from ansible_collections.payops.rollback.plugins.module_utils._probe_attempts import Failed
from ansible_collections.payops.rollback.plugins.modules import health_probe

URL = "http://127.0.0.1:5000/health"
Run = t.Callable[..., "tuple[int, dict[str, t.Any]]"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call main() with arguments; what each probe answers is given by name: milliseconds or the text of a failure."""

    def call(answers: dict[str, t.Any], **args: t.Any) -> tuple[int, dict[str, t.Any]]:
        def attempt(probe: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
            answer = answers[probe["name"]]
            if isinstance(answer, str):
                raise Failed(answer)
            return {"ms": answer}

        monkeypatch.setattr(_probe, "attempt", attempt)
        with patch_module_args(args), pytest.raises(SystemExit) as caught:
            health_probe.main()
        return int(caught.value.code or 0), json.loads(capsys.readouterr().out)

    return call


def test_success(run: Run) -> None:
    code, result = run({"api": 2.0}, probes=[{"name": "api", "url": URL}], successes=2, interval=0)
    assert code == 0
    assert result["changed"] is False and result["ok"] is True
    assert result["msg"] == "1 probe succeeded 2 times in a row."
    assert result["probes"][0]["attempts"] == 2


def test_failure_carries_all_probes(run: Run) -> None:
    probes = [{"name": "api", "url": URL}, {"name": "db", "type": "tcp", "host": "h", "port": 5432}]
    code, result = run({"api": 2.0, "db": "connection refused"}, probes=probes, successes=1, deadline=0.2, interval=0.2)
    assert code == 1 and result["failed"]
    assert result["msg"].startswith("1 of 2 probes did not succeed 1 time within")
    assert "db after 1 attempt: connection refused." in result["msg"]
    assert [probe["ok"] for probe in result["probes"]] == [True, False]
    assert result["changed"] is False


def test_check_mode_asks_but_does_not_post(run: Run) -> None:
    probes = [{"name": "api", "url": URL}, {"name": "pay", "url": URL, "method": "POST", "body": {"amount": 1}}]
    args = {"probes": probes, "successes": 1}
    code, result = run({"api": 1.0, "pay": "was sent"}, _ansible_check_mode=True, **args)
    assert code == 0
    assert [probe["name"] for probe in result["probes"]] == ["api"]
    assert result["skipped_probes"] == ["pay"]
    code, result = run({"api": 1.0, "pay": 1.0}, **args)
    assert result["skipped_probes"] == [] and len(result["probes"]) == 2


def test_secrets_are_masked_wherever_they_appear(run: Run) -> None:
    probes = [{"name": "api", "url": URL, "url_username": "ops", "url_password": "pa55word", "secret_headers": {"X-Key": "k3y-value"}}]
    unused, result = run({"api": "it said pa55word and k3y-value"}, probes=probes, successes=1, deadline=0.1, interval=0.1)
    assert "pa55word" not in json.dumps(result) and "k3y-value" not in json.dumps(result)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"probes": []}, "There is no probe"),
        ({"probes": [{"type": "tcp", "host": "h"}]}, "type is tcp but all of the following are missing: port"),
        ({"probes": [{"url": "nowhere"}]}, "url must look like"),
        ({"probes": [{"url": URL, "expect_json": [{"path": "a", "equal": 1}]}]}, "Unsupported parameters"),
        ({"probes": [{"url": URL}], "successes": 100}, "cannot fit before the deadline"),
        ({}, "missing required arguments: probes"),
    ],
)
def test_wrong_input(run: Run, args: dict[str, t.Any], message: str) -> None:
    code, result = run({}, **args)
    assert code == 1
    assert message in result["msg"]
