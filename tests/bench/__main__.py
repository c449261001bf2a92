# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench``: see --help."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile
import typing as t

from tests.bench import report, verdict
from tests.bench.common import Options, cache, say
from tests.bench.stats import Records

PARTS = ("database", "application", "containers", "fleet")
DESCRIPTION = """
Measure this collection against the team's own procedure and other tools: same data, same machine, one run, methods
interleaved; medians with minimum and maximum, and ratios. What cannot run is printed as missing, never as a stored number.
Exit code 0 whatever the clock says; 1 when something that should run here did not.
Result on stdout, progress on stderr, all values in .cache/bench/*.json.
"""
ENVIRONMENT = """
The same by environment variables: SCALE, SMALL, RUNS, JOBS, RATE, ONLY. A default run takes about half an hour on two quiet
cores, 2 GB of disk and 8 GB of memory; SCALE=100 ONLY=database (1.6 GB of data) as long, and 12 GB of disk.
"""


def parser(environment: t.Mapping[str, str]) -> argparse.ArgumentParser:
    known = argparse.ArgumentParser(prog="python -m tests.bench", description=DESCRIPTION, epilog=ENVIRONMENT)
    plain = Options()
    given = environment.get
    known.add_argument("--scale", type=int, default=int(given("SCALE") or plain.scale), help="pgbench scale, 15 MB each (%(default)s)")
    known.add_argument("--small", type=int, default=int(given("SMALL") or plain.small), help="scale of the small database (%(default)s)")
    known.add_argument("--runs", type=int, default=int(given("RUNS") or plain.runs), help="interleaved runs (%(default)s)")
    known.add_argument("--jobs", type=int, default=int(given("JOBS") or plain.jobs), help="-j of dump and restore (%(default)s)")
    known.add_argument("--rate", type=float, default=float(given("RATE") or plain.rate), help="requests a second (%(default)s)")
    known.add_argument("--only", choices=["", *PARTS], default=given("ONLY") or "", help="one part of it (default: all)")
    return known


def options_of(argv: t.Sequence[str] | None, environment: t.Mapping[str, str]) -> Options:
    known = parser(environment)
    found = known.parse_args(argv)
    if found.only not in ("", *PARTS):
        known.error(f"ONLY={found.only}: expected {' or '.join(PARTS)}")
    if min(found.scale, found.small, found.runs, found.jobs) < 1 or found.rate <= 0:
        known.error("scale, small, runs, jobs and rate must be greater than zero")
    return Options(found.scale, found.small, found.runs, found.jobs, found.rate, found.only)


def machine() -> dict[str, t.Any]:
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpus": os.cpu_count(), "model": model, "kernel": platform.release(), "python": platform.python_version()}


def _part(
    name: str, measure: t.Callable[[Options, Records, pathlib.Path], dict[str, t.Any]], options: Options, records: Records, at: pathlib.Path
) -> dict[str, t.Any]:
    try:
        return measure(options, records, at / name)
    except Exception as exc:
        records.failures.append(f"{name}: {type(exc).__name__}: {exc}")
        say(f"{name} broke off: {exc}")
        return {}


def _interrupt(signum: int, frame: t.Any) -> t.NoReturn:
    raise KeyboardInterrupt


def main(argv: t.Sequence[str] | None = None) -> int:
    options = options_of(argv, os.environ)
    signal.signal(signal.SIGTERM, _interrupt)
    from tests.lab.modules import COLLECTIONS

    if COLLECTIONS not in sys.path:
        sys.path.insert(0, COLLECTIONS)  # part C looks into the collection
    from tests.bench import application, containers, database, fleet

    begun = datetime.datetime.now(datetime.timezone.utc)
    load = [os.getloadavg()[0]]
    parts: dict[str, tuple[Records, dict[str, t.Any]]] = {}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="payops-bench-"))
    folder.chmod(0o755)  # the database server runs as another user
    try:
        for name, measure in zip(PARTS, (database.measure, application.measure, containers.measure, fleet.measure)):
            if options.only in ("", name):
                records = Records()
                parts[name] = records, _part(name, measure, options, records, folder)
                load.append(os.getloadavg()[0])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    host = machine()
    lines = [
        f"payops.rollback benchmark, {begun:%Y-%m-%d %H:%M} UTC, {host['cpus']} CPUs ({host['model']}), load average "
        + " -> ".join(f"{value:.1f}" for value in load)
    ]
    found: list[verdict.Verdict] = []
    if "database" in parts:
        records, facts = parts["database"]
        lines += report.database(records, facts, options.runs)
        found += verdict.database(records, options.scale, options.small)
    if "application" in parts:
        records, facts = parts["application"]
        lines += report.application(records, facts, options.runs)
        found += verdict.application(records)
    if "containers" in parts:
        records, facts = parts["containers"]
        lines += report.containers(records, facts, options.runs)
        found += verdict.containers(records)
    if "fleet" in parts:
        records, facts = parts["fleet"]
        lines += report.fleet(records, facts, options.runs)
        found += verdict.fleet(records)
    lines += report.verdicts(found)
    failures = [failure for records, unused in parts.values() for failure in records.failures]
    lines += [line for records, unused in parts.values() for line in report.notes(records)]
    if load[0] > 1:
        lines.append("Note: the machine was busy with other work when this began; trust ratios more than seconds.")
    lines += [f"COULD NOT RUN: {failure}" for failure in failures]
    print("\n".join(lines))
    kept = cache("bench") / f"{begun:%Y%m%dT%H%M%SZ}.json"
    result = {
        "begun": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
        "machine": host,
        "load": load,
        "options": vars(options),
        "parts": {name: {"facts": facts, **records.to_json()} for name, (records, facts) in parts.items()},
        "verdicts": [each.to_json() for each in found],
    }
    kept.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    say(f"all values: {kept}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
