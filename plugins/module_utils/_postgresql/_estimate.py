# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How much room and time a restore takes: from the size that the point recorded, never from what is live now (which may be empty),
and from what this host has measured."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import COMPONENT, Database

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

GUESSED_RATE = 40 << 20  # bytes of database restored and compared per second, until a run has measured it
GUESSED_RECHECK_RATE = 400 << 20  # bytes of database looked at once more per second, right before a flip
GUESSED_OUTAGE_MS = 120.0
UNPACKED = {"none": 1.0, "gzip": 3.0, "lz4": 2.5, "zstd": 4.0}  # bytes of table per byte of dump where no better number is known


class Size(t.NamedTuple):
    """Bytes of a database. Not ``exact``: at least that many (indexes come on top)."""

    bytes: int
    exact: bool


def size_of(manifest: t.Mapping[str, t.Any], codec: str, plain_bytes: int = 0) -> Size:
    """How large the database of a point is, restored. Points from before the size was recorded have only their dump."""
    recorded = int((manifest.get("properties") or {}).get("size") or 0)
    if recorded:
        return Size(recorded, True)
    dump = int(int(manifest.get("dump_bytes") or 0) * UNPACKED.get(codec, 1.0))
    return Size(max(dump, int(manifest.get("table_bytes") or 0), plain_bytes), False)


def sizes(work: Restore, wanted: t.Iterable[str]) -> dict[str, Size]:
    codec = str(work.point["facts"].get("codec") or "none")
    plain = work.plain.size if work.plain is not None else 0
    return {name: size_of(work.manifests[name], codec, plain) for name in wanted}


def learn(work: Restore, wanted: t.Iterable[str], begun: float) -> None:
    """Remember what a flip took, for the next plan."""
    flip = {
        "outage_ms": work.result.get("outage_ms"),
        "attempts": work.result.get("attempts"),
        "seconds": round(time.monotonic() - begun, 2),
        "bytes": sum(each.bytes for each in sizes(work, wanted).values()),
    }
    _state.update(work.paths, {"flip": flip})


def tell(work: Restore, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> list[str]:
    """Fill in ``estimate`` and say in sentences what it is made of."""
    known = read_json(work.paths.state(COMPONENT), {}) or {}
    new = sizes(work, [name for name in wanted if work.usable_staged(found, name) is None])
    seconds = sum(each.bytes for each in new.values()) / int(known.get("rate") or GUESSED_RATE)
    least = "" if all(each.exact for each in new.values()) else "at least "
    measured = "measured on this host" if known.get("rate") else "a guess until the first restore on this host"
    flip = known.get("flip") or {}
    outage = float(flip.get("outage_ms") or GUESSED_OUTAGE_MS)
    attempts = int(flip.get("attempts") or 1)
    oids = [found[name].oid for name in wanted if name in found]
    sessions = int(_state.one(work.conn, SESSIONS, (oids, work.server.application_name)) or 0)
    total = sum(each.bytes for each in sizes(work, wanted).values())
    if flip.get("seconds") and flip.get("bytes"):
        before = max(0.0, float(flip["seconds"]) - outage / 1000) * max(1.0, total / int(flip["bytes"]))
    else:
        before = total / GUESSED_RECHECK_RATE
    work.result["estimate"] = {
        "staging_seconds": round(seconds, 1),
        "staging_is_least": bool(least),
        "outage_ms": round(outage, 1),
        "outage_is_measured": bool(flip.get("outage_ms")),
        "sessions": sessions,
        "recheck_seconds": round(before, 1),
    }
    if flip.get("outage_ms"):
        source = f"as the last flip on this host, which took {attempts} attempt{'s' if attempts > 1 else ''}"
    else:
        source = "no flip was measured on this host yet"
    said = [
        f"Restoring and comparing takes {least or 'about '}{seconds:.0f} s beside the live databases ({total >> 20} MiB; {measured}).",
        f"The flip interrupts for about {outage / 1000:.1f} s ({source}) and ends {sessions} open session(s), which reconnect.",
    ]
    if not oids:
        said[1] = "Nothing has the production name now, so the flip interrupts nobody."
    return said


SESSIONS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
 WHERE datid = ANY (%s::oid[]) AND usesysid IS NOT NULL AND application_name IS DISTINCT FROM %s"""
