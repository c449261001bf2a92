# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, verdicts and options of the benchmark."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from tests.bench import call, common, report, table, verdict
from tests.bench.__main__ import options_of
from tests.bench.stats import Records, Sample
from tests.bench.writer import connection_params


def filled(**medians: float) -> Records:
    """Records from ``method__measure=value``."""
    records = Records()
    for name, value in medians.items():
        method, unused, measure = name.partition("__")
        records.add(method.replace("_", "-"), measure.replace("_", " "), value)
    return records


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert table.number(value) == text


def test_a_row_shows_median_extremes_and_ratio() -> None:
    (shown,) = table.line("psql", Sample((4.0, 6.0, 5.0)), against=2.0)
    assert shown.split() == ["psql", "5.00", "4.00", "6.00", "2.50", "x"]


def test_a_missing_row_says_why_and_fits() -> None:
    shown = table.line("dslr restore", None, missing="cannot be installed: " + "no network " * 20)
    assert shown[0].startswith("dslr restore")
    assert "missing: cannot be installed" in shown[0]
    assert max(len(line) for line in shown) <= table.WIDTH


def test_only_the_verdict_of_scale_100_is_about_200_times() -> None:
    records = filled(ours__outage=0.1, small__outage=0.1, team__outage=25.0, ours__staging=10.0, parallel__restore=8.0, parallel__check=2.0)
    at_20 = verdict.database(records, 20, 1)
    assert [each.met for each in at_20] == [None, True, True]
    assert "SCALE=100" in at_20[0].why
    assert verdict.database(records, 100, 1)[0].met is True
    records = filled(ours__outage=0.1, team__outage=19.0)
    assert verdict.database(records, 100, 1)[0].met is False


def test_staging_is_measured_against_restore_and_check_together() -> None:
    records = filled(ours__staging=13.1, parallel__restore=8.0, parallel__check=2.0)
    staging = verdict.database(records, 20, 1)[2]
    assert staging.met is False
    assert staging.measured == "1.31 x"
    records.miss("parallel", "broken", failure=True)
    assert verdict.database(records, 20, 1)[2].met is None


def test_an_outage_that_grows_with_size_is_no_flat_one() -> None:
    assert verdict.database(filled(ours__outage=0.2, small__outage=0.1), 20, 1)[1].met is False
    assert verdict.database(filled(ours__outage=0.1, small__outage=0.1), 1, 1)[1].met is None  # nothing was compared


def test_one_failed_request_in_one_run_is_one_too_many() -> None:
    records = filled(ours__failed=0, ours__requests=500, ours_bad__failed=0, ours_bad__requests=400, ours_bad__untouched=1)
    assert [each.met for each in verdict.application(records)] == [True, True, True]
    for failed in (0, 1):  # the median stays zero
        records.add("ours", "failed", failed)
    records.add("ours-bad", "untouched", 0)
    assert [each.met for each in verdict.application(records)] == [False, True, False]


def test_what_was_not_measured_is_not_judged() -> None:
    for found in (verdict.database(Records(), 100, 1), verdict.application(Records())):
        assert {each.met for each in found} == {None}
        assert {each.word() for each in found} == {"not judged"}


def test_the_whole_report_fits_into_100_columns() -> None:
    records = filled(start_up__seconds=0.3)
    for unused, rows in report.ROWS:
        for name, method, measure, base in rows:
            records.add(method, measure, 12345.678)
    for step in ("preflight", "create", "load", "analyze", "compare", "seal"):
        records.add("ours", f"staging: {step}", 1.0)
    switches = filled(ours__staging=3.0)
    for method, name in report.SWITCHES:
        for measure in ("failed", "requests", "outage", "command", "exit code"):
            switches.add(method, measure, 1234.5)
        switches.add(method, "serving", 0)
    records.note("word " * 60)
    facts: dict[str, t.Any] = {"bytes": {"shop": 1.58e9, "small": 3e7}, "node": "20.20.2", "pm2": "7.0.4", "rate": 50}
    lines = report.database(records, facts, 5) + report.application(switches, facts, 5) + report.notes(records)
    lines += report.verdicts([*verdict.database(records, 100, 1), *verdict.application(switches)])
    assert max(len(line) for line in lines) <= table.WIDTH
    text = "\n".join(lines)
    assert "load 1.00, analyze 1.00" in text
    assert "missing" not in text
    assert text.count("DOWN") == len(report.SWITCHES)
    assert "..." not in text


def test_a_report_without_any_number_names_what_is_missing() -> None:
    records = Records()
    records.miss("dslr", "cannot be installed", failure=False)
    text = "\n".join(report.database(records, {}, 5) + report.application(records, {}, 5))
    assert "missing: cannot be installed" in text
    assert text.count("missing: not measured in this run") >= len(report.SWITCHES)


def test_options_from_the_environment_and_the_command_line() -> None:
    assert options_of([], {}) == common.Options()
    found = options_of(["--runs", "2"], {"SCALE": "100", "RUNS": "7", "ONLY": "database"})
    assert (found.scale, found.runs, found.only) == (100, 2, "database")


@pytest.mark.parametrize("environment", [{"ONLY": "databse"}, {"RUNS": "0"}, {"RATE": "-1"}, {"SCALE": "big"}])
def test_nonsense_is_refused(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ValueError)):
        options_of([], environment)


def test_steps_that_come_twice_are_summed() -> None:
    steps = [{"step": "leave", "ms": 100.0}, {"step": "start", "ms": 50}, {"step": "leave", "ms": 200.0}]
    assert call.Ran(1.0, 3.5, {"steps": steps}).steps() == {"leave": pytest.approx(0.3), "start": 0.05}
    assert call.Ran(1.0, 3.5, {}).seconds == 2.5


def test_a_program_that_fails_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(call.Failed, match="sh -c 'echo no >&2; exit 3' ended with 3: no"):
        call.program(["sh", "-c", "echo no >&2; exit 3"])
    assert call.program(["sh", "-c", "exit 3"], fails=True) > 0
    call.program(["echo", "out"], out=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "out\n"


def test_a_rival_that_is_not_to_be_had_is_no_error_of_the_benchmark() -> None:
    def not_here() -> None:
        raise common.Missing("no such program")

    def broken() -> None:
        raise call.Failed("ended with 1")

    records = Records()
    called: list[str] = []
    assert common.attempt(records, "dslr", not_here) is False
    assert common.attempt(records, "ours", broken) is False
    assert common.attempt(records, "ours", lambda: called.append("again")) is False
    assert called == []  # once failed, never run again
    assert common.attempt(records, "cp", lambda: None) is True
    assert records.failures == ["ours: ended with 1"]


def test_writer_takes_its_connection_from_the_environment() -> None:
    assert connection_params({"PGHOST": "h", "PGPORT": "5", "HOME": "/"}) == {"host": "h", "port": "5"}


def test_writer_without_a_server_keeps_trying_and_counts_errors(tmp_path: pathlib.Path) -> None:
    env = {"PGHOST": str(tmp_path), "PGDATABASE": "none", "PATH": ""}
    root = pathlib.Path(__file__).resolve().parents[3]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.writer", "--folder", str(tmp_path)], env=env, cwd=root)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert '"commits": []' in (tmp_path / "commits.json").read_text()
    assert '"errors": {"' in (tmp_path / "commits.json").read_text()


def test_containers_are_told_and_judged() -> None:
    records = filled(blue_green__failed=0, blue_green__requests=500, blue_green__outage=0.05, blue_green__command=9)
    for size, ours, rival in ((1, 0.5, 2.0), (200, 0.6, 20.0)):
        records.add(f"retag-{size}", "seconds", ours)
        records.add(f"pull-{size}", "seconds", rival)
    records.miss("in-place", "no engine", failure=False)
    text = "\n".join(report.containers(records, {"docker": "20.10", "rate": 50}, 1))
    assert "missing: no engine" in text and "missing: not measured in this run" in text
    assert "0 (0-0)" in text and text.index("image_retag, 1 MB") < text.index("docker pull, tag, push, 200 MB") and "33.3 x" in text
    assert [each.met for each in verdict.containers(records)] == [True, True]
    records.add("blue-green", "failed", 1)
    records.add("retag-200", "seconds", 9)
    assert [each.met for each in verdict.containers(records)] == [False, False]
    assert [each.met for each in verdict.containers(Records())] == [None, None]


def test_fleets_are_told_and_judged() -> None:
    records = filled(gradual__failed=0, gradual__requests=900, gradual__outage=0.1, gradual__command=40)
    records.miss("server-by-server", "no engine", failure=False)
    records.add("emergency", "last payment", 3.2)
    records.add("emergency", "command", 7)
    for size, controller in ((1, 4.0), (50, 13.8)):
        for measure, value in (("wall", 8 * size), ("tasks", 40), ("modules", 10), ("controller", controller), ("floor", 0.3)):
            records.add(f"hosts-{size}", measure, value)
    text = "\n".join(report.fleet(records, {"rate": 30}, 1))
    assert "missing: no engine" in text and "0 (0-0)" in text and text.index("1 host ") < text.index("50 hosts")
    assert [each.met for each in verdict.fleet(records)] == [True, True, True]
    assert verdict.fleet(records)[2].measured == "2.00 s"
    records.add("gradual", "failed", 1)
    records.add("emergency", "last payment", 5.1)
    records.add("hosts-50", "controller", 13.9)
    assert [each.met for each in verdict.fleet(records)] == [False, False, False]
    assert [each.met for each in verdict.fleet(Records())] == [None, None, None]
