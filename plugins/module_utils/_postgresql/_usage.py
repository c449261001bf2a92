# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How many numbers of each sequence a day uses, so that a flip and its undo leave at least that much room.

Measured from a reading to now. A flip moves sequences itself, and that is no use: so each flip and each undo writes down,
by the OID of the database that it brings, where it left them and when, and what a day had used until then.
"""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _sequences, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import COMPONENT, Database

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

KEY = "sequences"


def age(stamp: t.Any) -> float:
    """Seconds since a time as we write it down; 0 where it cannot be read."""
    try:
        then = datetime.datetime.strptime(str(stamp)[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return 0.0
    return (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()


def a_day(work: Restore, found: t.Mapping[str, Database], name: str, live: t.Mapping[str, _sequences.Sequence]) -> dict[str, int]:
    """Numbers that a day uses of each sequence of the database that has ``name``."""
    reading = _readings(work).get(str(found[name].oid))
    if isinstance(reading, dict):
        then, since, known = reading.get("values") or {}, age(reading.get("at")), reading.get("days") or {}
    else:
        then, since, known = _recorded(work, found, name), age(work.point.get("created")), {}
    return {label: max(_sequences.a_day(each, then.get(label), since), int(known.get(label) or 0)) for label, each in live.items()}


def remember(work: Restore, found: t.Mapping[str, Database], incoming: Database, values: t.Mapping[str, t.Any], days: t.Any) -> None:
    """Where the sequences of a database stand that is about to get the name. Databases that are gone are forgotten."""
    there = {str(each.oid) for each in found.values()}
    readings = {oid: reading for oid, reading in _readings(work).items() if oid in there}
    readings[str(incoming.oid)] = {"at": now(), "values": dict(values), "days": {label: day for label, day in days.items() if day}}
    _state.update(work.paths, {KEY: readings})


def _readings(work: Restore) -> dict[str, t.Any]:
    value = read_json(work.paths.state(COMPONENT), {})
    found = value.get(KEY) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _recorded(work: Restore, found: t.Mapping[str, Database], name: str) -> dict[str, int | None]:
    """Where the sequences stood in the point, if the live database is the one that the point was taken of."""
    manifest = work.manifests.get(name)
    if manifest is None or not work.of_this_point(found[name], manifest):
        return {}
    return {
        _sequences.label(each["schema"], each["sequence"]): each["last_value"] if each["is_called"] else None
        for each in manifest["sequences"].values()
    }
