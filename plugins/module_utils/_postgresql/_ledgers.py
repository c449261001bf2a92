# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Ledgers before anybody waits for them: whether they can be carried back at all, and what will happen to newer rows.

Carrying back refuses a table that is missing or has no key, after the flip, while customers wait. So the same is asked
before: of the live database itself, and of the point's catalogue, which the restored database will equal.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _stage
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._carry_back import parse_ledgers
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import fixed_settings, qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import (
    Ledger,
    columns,
    described,
    heirs,
    primary_key,
    unique,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._since import Since, newer, usable
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, rows

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

Catalogue = t.Mapping[str, t.Mapping[str, t.Mapping[str, t.Any]]]
Problem = t.Tuple[str, str]  # what is found, what to do
CORRECT = "Correct rollback_postgresql_ledgers, or leave it out: then its newer rows stay in the kept database."
LATER = "Choose a later point, or leave it out of rollback_postgresql_ledgers: then its newer rows stay in the kept database."
HEIRS = (
    "Rows of those would be inserted into it itself. Leave it out, or declare the tables that have the rows, if nothing inherits from them."
)
UNIQUE = "Declare columns that have a unique index: by any others two rows could be taken for one."
KEYS = "Declare its key in rollback_postgresql_ledgers, so that a row can be recognised."


def ledger_option() -> dict[str, t.Any]:
    """The option of every module that knows ledgers."""
    return {
        "type": "list",
        "elements": "dict",
        "options": {
            "database": {"type": "str"},
            "schema": {"type": "str", "default": "public"},
            "table": {"type": "str", "required": True},
            "key": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
    }


def in_database(connection: t.Any, name: str, ledger: Ledger) -> tuple[list[str], list[Problem]]:
    """The columns of a ledger in a database that is there, and what is wrong with it."""
    here = columns(connection, ledger)
    if not here:
        return [], [(f"The ledger {ledger.label} is no table of the live database {name}.", CORRECT)]
    missing = [column for column in ledger.key if column not in here]
    if missing:
        return here, [(f"The ledger {ledger.label} of the live database {name} lacks the key column(s) {', '.join(missing)}.", CORRECT)]
    if not ledger.key and not primary_key(connection, ledger):
        return here, [(f"The ledger {ledger.label} of the live database {name} has no primary key.", KEYS)]
    if ledger.key and not unique(connection, ledger, ledger.key):
        return here, [(f"The key {', '.join(ledger.key)} of the ledger {ledger.label} of the live database {name} is not unique.", UNIQUE)]
    inherit = heirs(connection, ledger)
    if inherit:
        return here, [(f"From the ledger {ledger.label} of the live database {name} inherit {', '.join(inherit)}.", HEIRS)]
    return here, []


def in_point(catalogue: Catalogue, name: str, ledger: Ledger, live: t.Sequence[str] | None) -> list[Problem]:
    """What is wrong with a ledger in the database that the point will make. ``live`` are its columns now, None if there is no database."""
    point = f"in the point of {name}"
    kind = (catalogue.get("relation", {}).get(ledger.label) or {}).get("kind")
    if kind not in ("table", "partitioned table"):
        return [(f"The ledger {ledger.label} is no table {point}.", LATER if live else CORRECT)]
    key = list(ledger.key) or point_key(catalogue, ledger)
    if not key:
        return [(f"The ledger {ledger.label} has no primary key {point}.", KEYS)]
    known = catalogue.get("column", {})
    missing = [
        column for column in key if not (entry := known.get(qualified(ledger.schema, ledger.table, column))) or entry.get("generated")
    ]
    if missing:
        return [(f"The ledger {ledger.label} lacks the key column(s) {', '.join(missing)} {point}.", CORRECT)]
    gone = [column for column in key if live and column not in live]
    if gone:
        return [(f"The ledger {ledger.label} lacks the key column(s) {', '.join(gone)} of the point in the live database {name}.", KEYS)]
    if ledger.key and set(key) not in point_unique(catalogue, ledger):
        return [(f"The key {', '.join(key)} of the ledger {ledger.label} is not unique {point}.", UNIQUE)]
    inherit = [table for table, entry in catalogue.get("relation", {}).items() if ledger.label in (entry.get("parents") or [])]
    if inherit and kind == "table":
        return [(f"From the ledger {ledger.label} inherit {', '.join(sorted(inherit))} {point}.", HEIRS)]
    return []


def point_key(catalogue: Catalogue, ledger: Ledger) -> list[str]:
    """The primary key's columns as the recorded constraint spells them."""
    prefix = ledger.label + "."
    for name, entry in catalogue.get("constraint", {}).items():
        text = str(entry.get("definition") or "")
        if name.startswith(prefix) and text.startswith("PRIMARY KEY ("):
            found = re.match(r'PRIMARY KEY \(((?:"(?:[^"]|"")*"|[^")])*)\)', text)
            parts = re.findall(r'"((?:[^"]|"")*)"|([^",\s]+)', found.group(1)) if found else []
            return [quoted.replace('""', '"') or plain for quoted, plain in parts]
    return []


def point_unique(catalogue: Catalogue, ledger: Ledger) -> list[set[str]]:
    """Sets of columns of which the recorded indexes allow each value only once: no expressions, no conditions."""
    found = [set(point_key(catalogue, ledger))]
    for entry in catalogue.get("index", {}).values():
        text = str(entry.get("definition") or "")
        if entry.get("table") == ledger.label and entry.get("valid", True) and text.startswith("CREATE UNIQUE INDEX "):
            match = re.search(r" USING btree \(((?:\"(?:[^\"]|\"\")*\"|[^\"()])*)\)(?!.* WHERE )", text)
            names = re.findall(r"(?:^|, )(?:\"((?:[^\"]|\"\")*)\"|([^\",\s]+))", match.group(1)) if match else []
            found.append({quoted.replace('""', '"') or plain for quoted, plain in names})
    return found


def differences(connection: t.Any, catalogue: Catalogue, name: str, ledger: Ledger, since: Since | None) -> list[str]:
    """Sentences on columns of which newer rows may have values that the point's table cannot hold."""
    said, lost, other = [], [], []
    known, types = catalogue.get("column", {}), catalogue.get("type", {})
    with fixed_settings(connection):
        here = described(connection, ledger)
    for column, now in here.items():
        then = known.get(qualified(ledger.schema, ledger.table, column))
        if then is None or then.get("generated"):
            lost.append(column)
        elif then.get("type") != now.type or (now.labels and (types.get(now.type) or {}).get("labels") != now.labels):
            other.append(f"{column} ({now.type}{'' if then.get('type') == now.type else ', in the point ' + str(then.get('type'))})")
    if other:
        said.append(
            f"{name}: the ledger {ledger.label} differs from the point in the type of {', '.join(other)}; a row that the point's table "
            "cannot hold unchanged stays in the kept database."
        )
    since = usable(connection, since)
    counts = sql.SQL(", ").join(sql.SQL("count(r.{})").format(sql.Identifier(column)) for column in lost)
    if lost:
        query = sql.SQL("SELECT {} FROM {} AS r WHERE {}").format(
            counts, ledger.identifier, newer(since, "r") if since else sql.SQL("true")
        )
        values = [f"{column} ({number} row(s))" for column, number in zip(lost, rows(connection, query)[0]) if number]
        if values:
            which = "newer rows" if since else "rows"
            said.append(
                f"{name}: the ledger {ledger.label} has no such column in the point, but {which} have a value in {', '.join(values)}; "
                "carried rows lose it, it is only in the kept database."
            )
    return said


def check(work: Restore, found: t.Mapping[str, Database], names: t.Iterable[str]) -> None:
    """Each ledger that could not be carried back becomes a blocker."""
    for name in names:
        ledgers = work.ledgers.get(name, [])
        if not ledgers:
            continue
        live: dict[Ledger, tuple[list[str], list[Problem]]] = {}
        if name in found:
            with _stage.session_on(work.conn, work.server, name) as inside:
                live = {ledger: in_database(inside, name, ledger) for ledger in ledgers}
                moment, exact = work.since(found, name)
                since = Since(moment, exact) if moment else None
                if work.manifests[name].get("known", True):
                    work.result["databases"][name]["ledger_differences"] = [
                        text
                        for ledger in ledgers
                        if live[ledger][0]
                        for text in differences(inside, work.manifests[name]["catalogue"], name, ledger, since)
                    ]
        for ledger in ledgers:
            here, problems = live.get(ledger, (None, []))
            if work.manifests[name].get("known", True):  # what a plain SQL dump makes is seen when it was loaded
                problems = problems + in_point(work.manifests[name]["catalogue"], name, ledger, here)
            for what, do in problems:
                work.report.block("ledger", name, what, do)


def before_carrying(work: Restore, found: t.Mapping[str, Database], wanted: t.Container[str]) -> None:
    """The same for databases that are not restored again, but to which an interrupted run's rows are owed."""
    owed = [name for name in work.names if name not in wanted and work.result["databases"][name].get("to_carry")]
    check(work, found, owed)
    for name in owed:
        plan(work, name)
    if owed:
        work.stop_if_blocked()


def require(names: t.Sequence[str], given: t.Sequence[dict[str, t.Any]], connect: t.Callable[[str], t.Any]) -> None:
    """At a backup: refuse ledgers that could not be carried back to this point one day."""
    said = []
    for name, ledgers in parse_ledgers(names, given).items():
        connection = connect(name)
        try:
            for ledger in ledgers:
                said += [f"{what} {do}" for what, do in in_database(connection, name, ledger)[1]]
        finally:
            connection.close()
    if said:
        raise RollbackError(f"{len(said)} ledger(s) could not be carried back: " + " ".join(said), blockers=said)


# -- what will happen -------------------------------------------------------------------------------------------------


class Foreseen(t.NamedTuple):
    """What happens to newer rows of a table. Each is (at least, at most); None: it cannot be said."""

    carried: tuple[int, int | None]
    stays: tuple[int, int | None]


def foresee(newer: int, gone: int, ledger: bool, counted: bool = True) -> Foreseen:
    """Only pure inserts of ledgers go back.

    ``newer`` rows were inserted or updated since the point, ``gone`` rows of the point were deleted or updated since, so at least
    ``newer - gone`` are inserts. Not ``counted``: only the numbers of rows of two histories were compared.
    """
    if not ledger:
        return Foreseen((0, 0), (newer, newer if counted else None))
    if not counted:
        return Foreseen((newer, None), (0, None))
    least = max(0, newer - gone)
    return Foreseen((least, newer), (0, newer - least))


def span(numbers: tuple[int, int | None]) -> str:
    """For people: 3, 3-5, 3 or more."""
    least, most = numbers
    if most is None:
        return f"{least} or more" if least else "?"
    return str(least) if least == most else f"{least}-{most}"


def ledger_of(work: Restore, name: str, table: str) -> str | None:
    """The ledger that the rows of a table are in: itself if it is declared, or one that it is a partition of."""
    ledgers = {ledger.label for ledger in work.ledgers.get(name, [])}
    relations = work.manifests[name]["catalogue"].get("relation", {})
    waiting, seen = [table], set()
    while waiting:
        each = waiting.pop()
        if each in ledgers:
            return each
        if each not in seen:
            seen.add(each)
            waiting += (relations.get(each) or {}).get("parents") or []
    return None


def plan(work: Restore, name: str) -> list[str]:
    """Fill in ``rows_planned`` of one database and say in sentences what happens to rows that the point does not have."""
    told = work.result["databases"][name]
    counted, gone = not told.get("rows_since_is_estimate"), told["rows_gone"]
    planned: dict[str, dict[str, t.Any]] = {}
    said = []
    lost: dict[str | None, int] = {}  # of a whole ledger: an update may move a row to another partition
    for table, number in gone.items():
        owner = ledger_of(work, name, table)
        lost[owner] = lost.get(owner, 0) + number
    for table in sorted({*told["rows_since"], *told.get("rows_waiting", {})}):
        number, waiting = told["rows_since"].get(table, 0), told.get("rows_waiting", {}).get(table, 0)
        owner = ledger_of(work, name, table)
        ledger = owner is not None
        seen = foresee(number, lost.get(owner, 0), ledger, counted)
        if waiting > number:  # in another database than the live one, where nobody counted what the point lost
            seen = foresee(waiting, waiting, ledger, True)
        planned[table] = {"newer": max(number, waiting), "carried": span(seen.carried), "stays": span(seen.stays), "ledger": ledger}
        if number:
            said.append(f"{name}: {table} has {number} row(s) newer than the point; {_happens(seen, ledger)}.")
    told["rows_planned"] = planned
    said += told.get("ledger_differences", [])
    for child, parent in _refers(work, name):
        if told["rows_since"].get(child.label) and told["rows_since"].get(parent) and ledger_of(work, name, parent) is None:
            said.append(
                f"{name}: the ledger {child.label} refers to {parent}, which is no ledger and has newer rows: what refers to one of those stays "
                "in the kept database. Declare it as a ledger, too, if it only grows."
            )
    return said


def _happens(seen: Foreseen, ledger: bool) -> str:
    if not ledger:
        return "they stay in the kept database"
    if seen.carried[1] is None:
        return "it is a ledger: the new ones are carried back, changed ones stay in the kept database"
    if seen.stays == (0, 0):
        return "it is a ledger: all of them are new and are carried back (one that a constraint refuses stays in the kept database)"
    return f"it is a ledger: new ones ({span(seen.carried)}) are carried back, changed ones ({span(seen.stays)}) stay in the kept database"


def _refers(work: Restore, name: str) -> list[tuple[Ledger, str]]:
    """Ledgers and the tables that their foreign keys name in the point."""
    found = []
    constraints = work.manifests[name]["catalogue"].get("constraint", {})
    for ledger in work.ledgers.get(name, []):
        for label, entry in sorted(constraints.items()):
            if label.startswith(ledger.label + "."):
                match = re.match(r"FOREIGN KEY .*? REFERENCES ((?:\"(?:[^\"]|\"\")+\"|[^\s(.\"]+)(?:\.(?:\"(?:[^\"]|\"\")+\"|[^\s(.\"]+))?)\(",
                                 str(entry.get("definition") or ""))  # fmt: skip
                if match and match.group(1) != ledger.label:
                    found.append((ledger, match.group(1)))
    return found
