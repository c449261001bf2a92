# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads at the end. Pure: from records to lines of text."""

from __future__ import annotations

import typing as t

from tests.bench import table
from tests.bench.stats import Records
from tests.bench.verdict import Verdict

AGAINST = "/ ours"
AIMS = (44, 22, 22, 12)
ROWS: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = (
    # heading, rows: name, method, measure, our measure to compare with
    (
        "Snapshot",
        (
            ("pg_snapshot: dump, count, hash, re-read", "ours", "snapshot", "ours:snapshot"),
            ("pg_dump > f.sql (the team)", "team", "snapshot", "ours:snapshot"),
            ("pg_dump -Fd -j, same codec, nothing checked", "parallel", "snapshot", "ours:snapshot"),
            ("dslr snapshot (clients cut off all the time)", "dslr", "snapshot", "ours:snapshot"),
        ),
    ),
    (
        "Staging, production untouched meanwhile",
        (
            ("pg_restore state=staged: restored, compared", "ours", "staging", "ours:staging"),
            ("pg_restore -j alone", "parallel", "restore", "ours:staging"),
            ("  check of its content (rows and hashes)", "parallel", "check", "ours:staging"),
            ("  analyze", "parallel", "analyze", "ours:staging"),
            ("psql < f.sql (in place: production is away)", "team", "staging", "ours:staging"),
            ("cp -a of the bytes + fsync (physical limit)", "cp", "seconds", "ours:staging"),
        ),
    ),
    (
        "Outage as a client sees it that commits every ms and reconnects at once",
        (
            ("pg_restore state=live", "ours", "outage", "ours:outage"),
            ("  and back again, state=previous", "ours", "undo outage", "ours:outage"),
            ("  the small database", "small", "outage", "ours:outage"),
            ("team: stop, drop, create, psql < f.sql, start", "team", "outage", "ours:outage"),
            ("dslr restore", "dslr", "outage", "ours:outage"),
            ("  dslr snapshot", "dslr", "snapshot outage", "ours:outage"),
        ),
    ),
    (
        "Whole command and everything together",
        (
            ("pg_restore state=live, staged before", "ours", "flip", "ours:flip"),
            ("pg_restore state=previous", "ours", "undo", "ours:flip"),
            ("  start of one module, in each of ours", "start-up", "seconds", "ours:flip"),
            ("ours: snapshot + staging + flip", "ours", "total", "ours:total"),
            ("team: dump + drop, create, psql", "team", "total", "ours:total"),
            ("by hand: dump -j, restore -j, check; no switch", "parallel", "total", "ours:total"),
            ("dslr: snapshot + restore", "dslr", "total", "ours:total"),
        ),
    ),
)
SWITCHES = (
    # method, name
    ("ours", "pm2_rollback state=live"),
    ("reload", "pm2 reload"),
    ("recreate", "pm2 delete + start"),
    ("manual", "stop, cp -r, npm ci, pm2 restart"),
    ("ours-bad", "pm2_rollback to a broken release"),
    ("reload-bad", "pm2 reload to a broken release"),
)


def _row(records: Records, name: str, method: str, measure: str, against: str) -> list[str]:
    base_method, unused, base = against.partition(":")
    return table.line(name, records.get(method, measure), records.median(base_method, base), records.reason(method))


def _steps(records: Records, name: str) -> list[str]:
    """Where the time of one of our modules goes."""
    parts = []
    for measure in records.measures("ours"):
        found = records.median("ours", measure)
        if measure.startswith(f"{name}: ") and found is not None:
            parts.append(f"{measure.partition(': ')[2]} {table.number(found)}")
    return table.paragraph(", ".join(parts), "    ") if parts else []


def database(records: Records, facts: t.Mapping[str, t.Any], runs: int) -> list[str]:
    sizes = {name: f"{size / 1e6:,.0f} MB" for name, size in facts.get("bytes", {}).items()}
    title = (
        f"A. Database: PostgreSQL {facts.get('postgresql')}, pgbench scale {facts.get('scale')} ({sizes.get('shop', '?')}; "
        f"the small one {sizes.get('small', '?')}), superuser, dumps {facts.get('codec')}, {runs} interleaved runs, seconds"
    )
    lines = [*table.heading(title), table.columns("", AGAINST)]
    for heading, rows in ROWS:
        lines += ["", heading]
        for row in rows:
            lines += _row(records, *row)
            if row[1] == "ours" and row[2] in ("snapshot", "staging", "flip"):
                lines += _steps(records, row[2])
    return lines


def application(records: Records, facts: t.Mapping[str, t.Any], runs: int) -> list[str]:
    title = (
        f"B. Application switch: sample payment API on Node {facts.get('node')}, PM2 {facts.get('pm2')}, cluster mode x 2, "
        f"{facts.get('rate', 0):g} payments a second in open loop, half on new and half on kept connections, {runs} interleaved runs"
    )
    header = ("", "failed", "of", "outage s", "command s", "exit", "")
    rows: list[t.Sequence[str]] = []
    for method, name in SWITCHES:
        failed, asked = records.get(method, "failed"), records.get(method, "requests")
        silence, command, ended = (records.get(method, measure) for measure in ("outage", "command", "exit code"))
        if not (failed and asked and silence and command and ended):
            rows.append((name, f"missing: {records.reason(method) or 'not measured in this run'}"))
            continue
        up = records.get(method, "serving")
        well = bool(up and up.low == 1)
        rows.append(
            (
                name,
                f"{failed.median:.0f} ({failed.low:.0f}-{failed.high:.0f})",
                f"{asked.median:.0f}",
                f"{'' if well else '>= '}{table.number(silence.median)} ({table.number(silence.high)})",
                f"{table.number(command.median)} ({table.number(command.high)})",
                "/".join(sorted({f"{value:.0f}" for value in ended.values})),
                "serves" if well else "DOWN",
            )
        )
    lines = [*table.heading(title)]
    widths = (33, 17, 7, 17, 14, 5, 7)
    whole = [row for row in rows if len(row) > 2]
    lines += table.grid(header, widths, whole)
    for row in rows:
        if len(row) == 2:
            lines += table.line(row[0], None, missing=row[1].removeprefix("missing: "))
    lines += ["", "failed: median (min-max). outage: longest time without a success, command: both median (max)."]
    lines += table.paragraph("A broken release throws when it boots. The trial on a spare port, which refuses it before, is off.", "")
    staging = records.get("ours", "staging")
    if staging:
        steps = " ".join(_steps(records, "switch")).strip()
        lines += table.paragraph(
            f"Before the switch of ours, unnoticed: state=staged with a trial on a spare port, {table.number(staging.median)} s. "
            f"The steps of its command: {steps or 'not told'}.",
            "",
        )
    return lines


CHANGES = (
    # method, name
    ("blue-green", "ours, a second project serves meanwhile"),
    ("in-place", "ours, recreated in place"),
    ("by-hand", "compose down, docker tag, compose up"),
)


def _noticed(records: Records, methods: t.Iterable[tuple[str, str]]) -> list[str]:
    """What customers noticed of each of them."""
    rows: list[t.Sequence[str]] = []
    missing: list[str] = []
    for method, name in methods:
        failed, asked, silence, command = (records.get(method, measure) for measure in ("failed", "requests", "outage", "command"))
        if not (failed and asked and silence and command):
            missing += table.line(name, None, missing=records.reason(method))
            continue
        many = f"{failed.median:.0f} ({failed.low:.0f}-{failed.high:.0f})"
        times = [f"{table.number(each.median)} ({table.number(each.high)})" for each in (silence, command)]
        rows.append((name, many, f"{asked.median:.0f}", *times))
    lines = [*table.grid(("", "failed", "of", "outage s", "command s"), (46, 16, 8, 15, 15), rows), *missing]
    return [*lines, "", "failed: median (min-max). outage: longest time without a success, command: both median (max)."]


def containers(records: Records, facts: t.Mapping[str, t.Any], runs: int) -> list[str]:
    title = (
        f"C. Containers: a compose application behind HAProxy, Docker {facts.get('docker', '?')}, {facts.get('rate', 0):g} requests a second "
        f"in open loop, each on a new connection, {runs} interleaved runs"
    )
    lines = table.heading(title)
    lines += _noticed(records, CHANGES)
    lines += ["", "A tag of a registry names another image", table.columns("", AGAINST)]
    for size in records.sizes("retag-"):
        ours = records.median(f"retag-{size}", "seconds")
        for name, method in (("image_retag", f"retag-{size}"), ("docker pull, tag, push", f"pull-{size}")):
            lines += table.line(f"{name}, {size} MB", records.get(method, "seconds"), ours, records.reason(method))
    return lines


SERVERS = (
    # method, name
    ("gradual", "rollback_gradual.yml"),
    ("server-by-server", "pm2 stop, cp -a, pm2 restart; the next server"),
)


def fleet(records: Records, facts: t.Mapping[str, t.Any], runs: int) -> list[str]:
    title = (
        f"D. Fleet: hosts in containers by ssh; HAProxy, three application hosts, PostgreSQL, {facts.get('rate', 0):g} payments a second "
        f"in open loop, nothing sent again, {runs} interleaved runs"
    )
    lines = [*table.heading(title), *_noticed(records, SERVERS)]
    last, whole = records.get("emergency", "last payment"), records.get("emergency", "command")
    lines += ["", table.columns("rollback_emergency.yml, five hosts", "").rstrip()]
    lines += table.line("Enter to the last payment that was taken", last, missing=records.reason("emergency"))
    lines += table.line("  to the table of what was stopped", whole, missing=records.reason("emergency"))
    header = ("", "runs", "wall s", "per host", "results/host", "calls/host", "controller CPU s", "floor s")
    rows: list[t.Sequence[str]] = []
    missing: list[str] = []
    for size in records.sizes("hosts-"):
        wall = records.get(f"hosts-{size}", "wall")
        parts = [records.median(f"hosts-{size}", measure) for measure in ("wall", "tasks", "modules", "controller", "floor")]
        name = f"{size} host{'s' if size > 1 else ''}"
        if wall is None or None in parts:
            missing += table.line(name, None, missing=records.reason(f"hosts-{size}"))
            continue
        figures = [table.number(part) for part in parts]
        rows.append((name, str(len(wall.values)), figures[0], table.number(wall.median / size), *figures[1:]))
    lines += ["", "rollback_application.yml, medians", *table.grid(header, (24, 5, 9, 9, 13, 11, 18, 9), rows), *missing]
    text = (
        "All hosts and the controller share these processors, so seconds are more than with hosts of their own. results: of tasks, skipped "
        "ones among them; calls: of modules; floor: as many times a Python that starts by ssh on all hosts at once and does nothing."
    )
    return [*lines, "", *table.paragraph(text, "")]


def verdicts(found: t.Sequence[Verdict]) -> list[str]:
    lines = [*table.heading("Aims"), *table.grid(("", "measured", "aim", ""), AIMS, [])]
    for each in found:
        lines += table.grid((each.what, each.measured, each.aim, each.word()), AIMS, [])
        if each.why:
            lines += table.paragraph(each.why, "    ")
    return lines


def notes(records: Records) -> list[str]:
    return [line for note in records.notes for line in table.paragraph(f"Note: {note}", "")]
