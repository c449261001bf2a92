# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How databases of ours are recognised: by the names that are made for them, and by their markers.

A marker is a JSON object in ``COMMENT ON DATABASE``. It is written in the same transaction as the rename that it
describes, so it cannot disagree with the catalogue, and it needs no file: another user on another host reads the same.

============ =========================================================================================================
``staged``   being restored (``state: loading``) or compared and closed (``state: verified``) under ``P__r_<run8>``
``kept``     was ``P`` until a flip; ``live_oid`` is what the flip put there, ``snapshot`` the moment, ``before`` what was known
``undone``   was ``P`` between a flip and its undo; ``live_oid`` is what the undo put back
``ajar``     is ``P``, was closed on purpose and is open for a login of ours: whoever finds it so after us closes it again
============ =========================================================================================================

Any other marker than the last counts only on a database that still has the name which was made for it. Somebody may rename a kept database back
by hand, and its comment with it: what is called ``P`` is never one of ours, whatever its comment says.
"""

from __future__ import annotations

import datetime
import json
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_bytes

SIGN = "payops_rollback"
MAX_NAME = 63
# free_name() may cut the eight letters of a run short to make room for a number
MADE = re.compile(r"(?P<head>.+)__(?:r_[0-9a-f]{4,8}|kept_[0-9]{8}T[0-9]{6}_[0-9a-f]{4,8})(?:_[0-9]+)?\Z", re.DOTALL)


def read_marker(comment: str | None) -> dict[str, t.Any]:
    """The marker in a comment, or an empty dict for anybody else's comment."""
    if not comment or not comment.startswith("{"):
        return {}
    try:
        value = json.loads(comment)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get(SIGN) == 1 else {}


def write_marker(marker: dict[str, t.Any]) -> str:
    return json.dumps({SIGN: 1, **marker}, sort_keys=True, ensure_ascii=False)


def own_comment(comment: str | None) -> str | None:
    """The comment that people wrote on a database: the marker that may stand in its place remembers it."""
    marker = read_marker(comment)
    kept = marker.get("comment") if marker else comment
    return kept if isinstance(kept, str) and not read_marker(kept) else None


def run8(run_id: str) -> str:
    """Eight letters and digits that stand for a run in the name of a database."""
    return sha256_bytes(run_id.encode("utf-8"))[:8]


def fit_name(name: str, suffix: str) -> str:
    """``name + suffix`` in at most 63 bytes. The server would cut the end, which is what tells two names apart."""
    whole = name + suffix
    if len(whole.encode("utf-8")) <= MAX_NAME:
        return whole
    mark = f"~{sha256_bytes(name.encode('utf-8'))[:6]}"
    room = MAX_NAME - len((mark + suffix).encode("utf-8"))
    return name.encode("utf-8")[:room].decode("utf-8", "ignore") + mark + suffix


def staged_name(name: str, run_id: str) -> str:
    return fit_name(name, f"__r_{run8(run_id)}")


def kept_name(name: str, run_id: str, moment: datetime.datetime | None = None) -> str:
    moment = moment or datetime.datetime.now(datetime.timezone.utc)
    return fit_name(name, f"__kept_{moment.strftime('%Y%m%dT%H%M%S')}_{run8(run_id)}")


def made_for(name: str, database: str) -> bool:
    """Whether ``name`` is one that the functions above make for a staged or kept database of ``database``."""
    match = MADE.match(name)
    short = f"~{sha256_bytes(database.encode('utf-8'))[:6]}"
    return match is not None and (match["head"] == database or match["head"].endswith(short))


def free_name(wanted: str, taken: t.Container[str]) -> str:
    """``wanted``, or with a number when an earlier flip of the same run and second has it."""
    name, number = wanted, 2
    while name in taken:
        name = fit_name(wanted, f"_{number}") if len(wanted) < MAX_NAME - 4 else f"{wanted[: -len(str(number)) - 1]}_{number}"
        number += 1
    return name
