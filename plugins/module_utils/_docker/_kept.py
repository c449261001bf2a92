# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The tags that keep images: given to whatever a switch leaves or a point names, taken away when nobody needs the image any more."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._references import is_kept, kept_tag, parse_tag, short
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Stack
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths


def secure(stack: Stack, images: t.Mapping[str, str], refs: t.Mapping[str, t.Any]) -> list[str]:
    """Give each image a tag of its own, so that no clearing away of nameless images takes it; the tags that were new."""
    made = []
    for service, image in sorted(images.items()):
        if refs.get(service):
            tag = kept_tag(parse_tag(service, refs[service]), stack.settings.kept_prefix, image)
            found = (stack.containers.image(str(tag)) or {}).get("image")
            if found not in (None, image):
                raise RollbackError(
                    f"{tag} shall keep {short(image)}, but it names {short(found)}. Remove that tag, or choose another kept_prefix."
                )
            if found is None and stack.containers.image(image) is not None:
                stack.run.fence()
                stack.containers.engine.write(tag, image)
                made.append(str(tag))
    return made


def droppable(stack: Stack) -> list[str]:
    """Kept tags of images that nothing needs any more; where that cannot be known, none."""
    record = stack.live_record(stack.look())
    try:
        needed = {*record["images"].values(), *stack.containers.images_in_use(), *_needed_by_systems(stack.paths)}
    except (RollbackError, OSError) as exc:
        stack.notes.append(f"No kept tag was removed, since not every point tells which images it needs: {exc}")
        return []
    found = set()
    for reference in {name for name in record["refs"].values() if name}:
        tag = parse_tag("image", reference)
        for each in stack.containers.engine.available(tag):
            for name in each["tags"]:
                other = parse_tag("tag", name)
                if is_kept(other, stack.settings.kept_prefix) and each["image"] not in needed and other.repository == tag.repository:
                    if kept_tag(other, stack.settings.kept_prefix, each["image"]) == other:
                        found.add(name)
    return sorted(found)


def _needed_by_systems(paths: Paths) -> t.Iterator[str]:
    """The images of all points in the store, and those that its other systems remember: several may share one repository of images."""
    for system in sorted(os.listdir(paths.store)):
        if not os.path.isdir(os.path.join(paths.store, system, ".run")):
            continue
        here = Paths(paths.store, system)
        for version in sorted(os.listdir(here.system)):
            if not version.startswith(".") and os.path.isdir(os.path.join(here.system, version, COMPONENT)):
                yield from _images_of(load_component(here, version, COMPONENT)["facts"], f"point {version} of {system}")
        state = read_json(here.state(COMPONENT), {}) if here.system != paths.system else {}
        switch = state.get("switch") or {}
        for record in (state.get("live"), state.get("kept"), state.get("staged"), switch.get("to"), switch.get("from")):
            yield from ((record or {}).get("images") or {}).values()


def _images_of(facts: t.Mapping[str, t.Any], what: str) -> list[str]:
    try:
        return [str(told["image"]) for told in facts["services"].values()]
    except (KeyError, TypeError, AttributeError):
        raise RollbackError(f"{what} does not say which images its services had. It is damaged.") from None
