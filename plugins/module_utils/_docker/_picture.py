# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What ``compose_rollback`` tells of a project: what is true now, without any secret."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._references import short
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack, shown
from ansible_collections.payops.rollback.plugins.module_utils._docker._way import shown as beside_shown
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

Result = t.Dict[str, t.Any]


def picture(stack: Stack, scene: Scene) -> Result:
    """What is true now, without any secret."""
    state = stack.state()
    try:
        record: Record = stack.live_record(scene)
    except RollbackError as exc:
        record = {"version": None, "release": None, "images": {}}
        stack.notes.append(str(exc))
    return {
        "app": scene.project,
        "live": {key: record[key] for key in ("version", "release", "images")},
        "kept": _kept_as(state.get("kept")),
        "staged": _kept_as(state.get("staged")),
        "hold": state.get("hold"),
        "unfinished": shown(state.get("switch")),
        "beside": beside_shown(state.get("beside")),
        "containers": [
            {"name": each.name, "service": each.service, "image": each.image, "status": each.status, "restarts": each.restarts}
            for each in scene.containers
        ],
    }


def _kept_as(record: Record | None) -> Record | None:
    if not record:
        return None
    images = {name: short(image) for name, image in (record.get("images") or {}).items()}
    path = ", ".join(f"{(record.get('refs') or {}).get(name) or name} as {image}" for name, image in sorted(images.items()))
    return {**{key: record.get(key) for key in ("version", "release", "images")}, "path": path}


def text(seen: Result) -> str:
    told = {key: seen.get(key) for key in ("live", "kept", "staged", "hold")}
    told["containers"] = sorted(f"{each['name']} {each['status']} {short(each['image'])}" for each in seen.get("containers") or [])
    return json.dumps(told, indent=2, sort_keys=True) + "\n"
