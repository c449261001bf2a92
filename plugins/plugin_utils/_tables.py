# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""Plain text for tired people: aligned tables of at most 100 columns. What a cell says goes on below it; names are cut with an ellipsis."""

from __future__ import annotations

import datetime
import typing as t
import unicodedata

WIDTH = 100
TYPED = "ansible-playbook "


# -- text -------------------------------------------------------------------------------------------------------------


def clean(value: t.Any) -> str:
    """One line without control characters: labels come from people and must not move the cursor or fake a row."""
    text = "" if value is None else str(value)
    return " ".join("".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in text).split())


def columns(text: str) -> int:
    """How many terminal columns a text takes."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns, with an ellipsis where something was left out."""
    if columns(text) <= width:
        return text
    kept, used = "", 0
    for char in text:
        step = columns(char)
        if used + step > width - 1:
            break
        kept, used = kept + char, used + step
    return f"{kept}…" if width > 0 else ""


def pad(text: str, width: int, right: bool = False) -> str:
    blanks = " " * max(0, width - columns(text))
    return blanks + text if right else text + blanks


def size_text(size: t.Any) -> str:
    """Bytes for people: 0 B, 999 B, 1.5 KiB, 12 GiB."""
    if not isinstance(size, (int, float)):
        return "?"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return "?"


def span_text(seconds: float | None) -> str:
    """An age for people, one unit: 12 s, 5 min, 3 h, 2 d."""
    if seconds is None:
        return "?"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def duration_text(seconds: t.Any) -> str:
    """A measured time for people: 0.09 s, 4.2 s, 75 s."""
    if not isinstance(seconds, (int, float)):
        return ""
    if seconds < 1:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def age_text(created: t.Any, now: datetime.datetime) -> str:
    try:
        moment = datetime.datetime.strptime(str(created), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return "?"
    return span_text((now - moment).total_seconds())


# -- tables -----------------------------------------------------------------------------------------------------------


class Column(t.NamedTuple):
    title: str
    right: bool = False
    floor: int = 0  # a column with a floor may be cut down to it when the table is too wide
    wraps: bool = False  # what is too long goes on below instead of being cut


def table_rows(heads: t.Sequence[Column], rows: t.Sequence[t.Sequence[t.Any]], width: int = WIDTH) -> list[list[str]]:
    """Head and rows as aligned lines, two blanks between columns. Too wide: the widest column that may shrink does."""
    texts = [[clean(cell) for cell in row] for row in rows]
    widths = [max([columns(head.title), *(columns(row[index]) for row in texts)]) for index, head in enumerate(heads)]
    used = [index for index, head in enumerate(heads) if any(row[index] for row in texts) or not texts]
    while sum(widths[index] + 2 for index in used) - 2 > width:
        shrinkable = [index for index in used if heads[index].floor and widths[index] > heads[index].floor]
        if not shrinkable:
            break
        widths[max(shrinkable, key=lambda index: widths[index])] -= 1
    found = []
    for row in [[head.title for head in heads], *texts]:
        cells = {index: wrap(row[index], widths[index], "") if heads[index].wraps else [cut(row[index], widths[index])] for index in used}
        lines = []
        for number in range(max(map(len, cells.values()), default=0)):
            parts = [pad(dict(enumerate(cells[index])).get(number, ""), widths[index], heads[index].right) for index in used]
            lines.append("  ".join(parts).rstrip())
        found.append(lines)
    return found


def table(heads: t.Sequence[Column], rows: t.Sequence[t.Sequence[t.Any]], width: int = WIDTH) -> list[str]:
    return [line for lines in table_rows(heads, rows, width) for line in lines]


def wrap(text: str, width: int, indent: str) -> list[str]:
    """A sentence over as many lines as it needs, broken between words; only a word that is too long for a line is broken itself."""
    lines, line = [], ""
    for word in _parts(clean(text), width - len(indent)):
        if line and columns(line) + 1 + columns(word) > width - len(indent):
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, indent + line] if line else lines


def _parts(text: str, width: int) -> t.Iterator[str]:
    """Its words, the too long ones in pieces of at most ``width`` columns."""
    for word in text.split(" "):
        while columns(word) > width > 1:
            piece = cut(word, width + 1)[:-1]
            yield piece
            word = word[len(piece) :]
        yield word


def advice(text: str, width: int, indent: str) -> list[str]:
    """A sentence that may end in a command. What does not fit on one line has its command on a line of its own, never broken: it is copied."""
    head, found, command = clean(text).partition(TYPED)
    if not found or columns(indent + clean(text)) <= width:
        return wrap(text, width, indent)
    return [*wrap(head, width, indent), f"{indent}  {found}{command}"]


def fits(heads: t.Sequence[Column], rows: t.Sequence[t.Sequence[t.Any]], width: int) -> bool:
    """Whether a table needs nothing cut."""
    widths = [max(columns(head.title), *(columns(clean(row[index])) for row in rows)) for index, head in enumerate(heads) if rows]
    return sum(widths) + 2 * (len(widths) - 1) <= width


# -- points -----------------------------------------------------------------------------------------------------------


def parts_text(point: dict[str, t.Any], short: bool = False) -> str:
    """``pm2@app1,app2 postgresql@db1``, or in short ``pm2@2 postgresql@1``."""
    hosts: dict[str, list[str]] = {}
    for host, parts in point["hosts"].items():
        for name in parts:
            hosts.setdefault(name, []).append(host)
    texts = [f"{name}@{len(found) if short else ','.join(sorted(found))}" for name, found in sorted(hosts.items())]
    return " ".join(texts) or "nothing"


def points_rows(points: list[dict[str, t.Any]], live: t.Container[str], now: datetime.datetime) -> list[dict[str, t.Any]]:
    """What the table shows, as plain values (for ``output=json``)."""
    rows = []
    for point in points:
        release = point["release"]
        rows.append(
            {
                "version": point["version"],
                "created": point["created"],
                "age": age_text(point["created"], now),
                "parts": parts_text(point),
                "parts_short": parts_text(point, short=True),
                "size": point["size"],
                "complete": point["complete"],
                "healthy": point["healthy"],
                "release": release["status"],
                "release_by": release["who"],
                "release_why": release["why"],
                "live": point["version"] in live or any(item in live for item in point["releases"]),
                "pinned": point["pinned"],
                "legacy": point["legacy"],
                "label": point["label"],
                "ticket": point["ticket"],
                "problems": list(point["problems"]),
                "notes": list(point["notes"]),
            }
        )
    return rows


def _below(row: dict[str, t.Any]) -> list[str]:
    """What stands below a point's line: who says what about it, and what is wrong."""
    texts = []
    if row["release"] == "bad":
        texts.append(f"bad by {row['release_by'] or '?'}: {row['release_why'] or 'no reason given'}")
    if row["pinned"]:
        texts.append(f"pinned by {row['pinned'].get('who') or '?'}: {row['pinned'].get('why') or 'no reason given'}")
    texts += [f"! {text}" for text in row["problems"][:3]]
    if len(row["problems"]) > 3:
        texts.append(f"! and {len(row['problems']) - 3} more")
    return texts


def _point_lines(rows: list[dict[str, t.Any]], width: int, short: bool, parts_floor: int = 0) -> list[str]:
    heads = [Column(""), Column("VERSION"), Column("AGE", right=True), Column("SIZE", right=True), Column("PARTS", floor=parts_floor)]
    heads += [Column("HEALTH"), Column("RELEASE"), Column("NOTE", floor=6)]
    health = {True: "healthy", False: "unhealthy", None: "unknown"}
    cells = []
    for row in rows:
        state = health[row["healthy"]] if row["complete"] else "INCOMPLETE"
        flags = [word for word, on in (("pinned", row["pinned"]), ("legacy", row["legacy"])) if on]
        note = " ".join([*flags, *(str(row[key]) for key in ("ticket", "label") if row[key])])
        parts = row["parts_short" if short else "parts"]
        release = "BAD" if row["release"] == "bad" else row["release"]
        cells.append(["*" if row["live"] else "", row["version"], row["age"], size_text(row["size"]), parts, state, release, note])
    return table(heads, cells, width)


def points_table(
    points: list[dict[str, t.Any]],
    live: t.Container[str] = (),
    now: datetime.datetime | None = None,
    width: int = WIDTH,
    notices: t.Sequence[str] = (),
) -> str:
    """The list of rollback points. ``notices`` (such as what is held closed) come first."""
    lines = [line for notice in notices for line in advice(f"! {notice}", width, "")]
    if not points:
        return "\n".join([*lines, "No rollback points yet. Take one with the playbook backup.yml."])
    rows = points_rows(points, live, now or datetime.datetime.now(datetime.timezone.utc))
    for short, parts_floor in ((False, 0), (True, 0), (True, 12)):
        body = _point_lines(rows, width, short, parts_floor)
        if max(columns(line) for line in body) <= width:
            break
    lines.append(body[0])
    for row, line in zip(rows, body[1:]):
        lines += [line, *(cut(f"     {clean(text)}", width) for text in _below(row))]
    if any(row["live"] for row in rows):
        lines += ["", "* live now"]
    return "\n".join(lines)


# -- runs and plans ---------------------------------------------------------------------------------------------------


def _heading(title: str, facts: t.Sequence[tuple[str, t.Any]], width: int) -> list[str]:
    lines = [cut(clean(title), width)]
    for name, value in facts:
        if value not in (None, ""):
            lines.append(cut(f"  {name + ':':<10} {clean(value)}", width))
    return lines


def _rows_table(rows: dict[str, t.Any], width: int, planned: bool = False) -> list[str]:
    heads = [
        Column("TABLE", floor=16),
        Column("SINCE", right=True),
        Column("WILL BE CARRIED BACK" if planned else "CARRIED BACK", right=True),
        Column("STAYS IN KEPT" if planned else "LEFT", right=True),
        Column("LEFT IN", floor=12),
    ]
    cells = []
    for name, entry in sorted(rows.items()):
        if isinstance(entry, int):
            entry = {"newer": entry}
        left = entry.get("left")
        cells.append([name, entry.get("newer"), entry.get("carried"), left, entry.get("left_in") if left else ""])
    below: list[str] = []
    if not fits(heads, cells, width - 2):  # a name that is cut is of no use to whoever must look there
        below = [cut(f"    left in {clean(place)}", width) for place in dict.fromkeys(row[-1] for row in cells) if place]
        heads, cells = heads[:-1], [row[:-1] for row in cells]
    return ["  " + line for line in table(heads, cells, width - 2)] + below


def run_table(result: dict[str, t.Any], width: int = WIDTH) -> str:
    """What a run did; see the filter's documentation for the input."""
    outcome = {
        "done": "DONE",
        "unchanged": "DONE",
        "undone": "UNDONE",
        "partial": "STOPPED HALFWAY",
        "failed": "FAILED",
        "stopped": "STOPPED",
        "planned": "PLAN",
        "not_stopped": "NOT ALL STOPPED",
        "healthy": "HEALTHY",
        "unchecked": "NOT CHECKED",
        "sick": "NOT HEALTHY",
        "lost": "HOSTS LEFT BEHIND",
    }.get(str(result.get("outcome")), str(result.get("outcome") or "?"))
    versions = " -> ".join(clean(result[key]) for key in ("from", "to") if result.get(key))
    title = f"{outcome}: {result.get('intent') or 'rollback'} of {result.get('system') or '?'}"
    planned = result.get("outcome") == "planned"
    outage = result.get("outage_ms")
    facts = [
        ("version", versions),
        ("outage", None if outage is None else f"{duration_text(outage / 1000)} (measured)"),
        ("took", duration_text(result.get("seconds"))),
        ("by", result.get("who")),
        ("why", result.get("reason")),
        ("run", result.get("run_id")),
        ("message", result.get("msg")),
    ]
    lines = _heading(title, facts, width)
    if result.get("health"):  # never cut: it says which probe failed and with what
        place = 2 if versions else 1
        told = wrap(str(result["health"]), width, " " * 13)
        lines[place:place] = [f"  {'healthy:':<11}{told[0].strip()}", *told[1:]]
    cells = []
    for host, parts in sorted((result.get("hosts") or {}).items()):
        for name, part in sorted(parts.items()):
            cells.append([host, name, part.get("did"), part.get("kept"), duration_text(part.get("seconds"))])
    if cells:
        heads = [
            Column("HOST", floor=12),
            Column("COMPONENT"),
            Column("WOULD BE DONE" if planned else "DONE", floor=20, wraps=True),
            Column("KEPT AS", floor=16),
            Column("TOOK", right=True),
        ]
        kept = [""] * len(cells)
        if not fits(heads, cells, width - 2):
            kept = [clean(row[3]) for row in cells]
            heads, cells = [*heads[:3], heads[4]], [[*row[:3], row[4]] for row in cells]
        head, *rest = table_rows(heads, cells, width - 2)
        lines += ["", *(f"  {line}" for line in head)]
        for told, name in zip(rest, kept, strict=True):
            lines += [*(f"  {line}" for line in told), *(wrap(f"kept as {name}", width, "    ") if name else [])]
    if result.get("rows"):
        lines += ["", "  Rows written or changed since the point:", *_rows_table(result["rows"], width)]
    if result.get("gone"):
        heads = [Column("TABLE", floor=16), Column("ROWS", right=True), Column("WERE ONLY IN", floor=12)]
        cells = [[entry["table"], entry["rows"], entry["was_in"]] for entry in result["gone"]]
        lines += ["", "  Rows that are gone with what was dropped:", *["  " + line for line in table(heads, cells, width - 2)]]
    for text in result.get("next") or []:
        lines += ["", *advice(text, width, "  ")]
    return "\n".join(lines)


def plan_table(plan: dict[str, t.Any], width: int = WIDTH) -> str:
    """What a run would do; see the filter's documentation for the input."""
    title = f"PLAN: {plan.get('intent') or 'rollback'} of {plan.get('system') or '?'}"
    outage = plan.get("outage_ms")
    facts = [
        ("version", f"{clean(plan.get('from') or '?')} -> {clean(plan.get('to') or '?')}"),
        (
            "staging",
            None
            if plan.get("staging_seconds") is None
            else f"{'at least' if plan.get('staging_is_least') else 'about'} {duration_text(plan['staging_seconds'])}, beside the live system",
        ),
        ("outage", None if outage is None else f"about {duration_text(outage / 1000)}"),
    ]
    lines = _heading(title, facts, width)
    parts = [f"{duration_text(seconds)} {what}" for seconds, what in plan.get("outage_parts") or []]
    if parts:
        lines += wrap(f"made of {', '.join(parts)}", width, " " * 13)
    blockers = [
        (host, name, text)
        for host, parts in sorted((plan.get("hosts") or {}).items())
        for name, part in sorted(parts.items())
        for text in part.get("blockers") or []
    ]
    if blockers:
        lines += ["", f"  BLOCKED by {len(blockers)}:"]
        for host, name, text in blockers:
            lines += wrap(f"{host} {name}: {text}", width, "    ")
    for batch in plan.get("batches") or []:
        lines += ["", cut(f"  {clean(batch['name']).capitalize()}", width)]
        for number, text in enumerate(batch["steps"], 1):
            lines += [line if index == 0 else "   " + line for index, line in enumerate(wrap(f"{number}. {text}", width - 3, "    "))]
    for host, parts in sorted((plan.get("hosts") or {}).items()):
        for name, part in sorted(parts.items()):
            lines += ["", f"  {clean(host)} {clean(name)}"]
            for text in part.get("plan") or ["nothing to do"]:
                lines += [line if index == 0 else "  " + line for index, line in enumerate(wrap(f"- {text}", width - 2, "    "))]
    if plan.get("rows"):
        lines += ["", "  Rows written or changed since the point:", *_rows_table(plan["rows"], width, planned=True)]
    if plan.get("skipped"):
        lines += ["", "  Points passed over:"]
        for item in plan["skipped"]:
            lines += wrap(f"{item['version']}: {item['why']}", width, "    ")
    for text in plan.get("warnings") or []:
        lines += ["", *wrap(f"! {text}", width, "  ")]
    return "\n".join(lines)
