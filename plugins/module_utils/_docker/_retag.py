# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Tags name the images that they shall name; what they named before is kept under a tag of its own.

Everything is read and judged before anything is written. Then, in this order, so that a killed call has lost no image:

    remember    what each tag named goes into the state file, for the undo of whoever comes later
    keep        the images that are about to be replaced get their kept tags
    tag         the tags are moved, one by one
    verify      all of them are read back
    put_back    only if one of the last two failed: tags that were moved name again what they named

State file, below "retag", by place and tag: {image, was, kept, run, at}.
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._references import (
    Tag,
    Wish,
    check_prefix,
    is_kept,
    kept_tag,
    parse_image,
    parse_tag,
    short,
)
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._run import Run

COMPONENT = "docker"
STEPS = ("remember", "keep", "tag", "verify", "put_back")
STATE = "retag"
LISTED = 10


class Place(t.Protocol):
    """Where tags are: an engine or a registry. An identity is ``sha256:`` and 64 digits."""

    name: str
    key: str

    def names(self, tag: Tag) -> str | None: ...

    def resolve(self, wish: Wish, tag: Tag) -> str | None: ...

    def available(self, tag: Tag) -> list[dict[str, t.Any]]: ...

    def blockers(self, identity: str, tag: Tag) -> list[str]: ...

    def how_to_get(self, wish: Wish) -> str: ...

    def write(self, tag: Tag, identity: str) -> None: ...


class Move(t.NamedTuple):
    """One tag of the call. ``kept`` is set if the tag is going to leave an image."""

    tag: Tag
    image: str
    was: str | None
    kept: Tag | None
    kept_exists: bool = False

    @property
    def needed(self) -> bool:
        return self.was != self.image


def wishes_of(tags: t.Sequence[t.Mapping[str, t.Any]], prefix: str) -> list[tuple[Tag, Wish]]:
    """The option ``tags``, checked as far as it can be without asking anybody."""
    if not tags:
        raise RollbackError("tags is empty. Name at least one tag and the image that it shall name.")
    check_prefix(prefix)
    found: dict[Tag, Wish] = {}
    for number, each in enumerate(tags):
        tag = parse_tag(f"tags[{number}].tag", each["tag"])
        if tag in found:
            raise RollbackError(f"The tag {tag} is in tags twice. Name it once.")
        if is_kept(tag, prefix):
            raise RollbackError(
                f"{tag} is a kept tag: it keeps an image that was replaced, and is never moved. Name it as tags[].image to go back to that image."
            )
        found[tag] = parse_image(f"tags[{number}].image", each["image"])
    return list(found.items())


class Retag:
    def __init__(self, place: Place, run: Run, prefix: str, allow_new: bool) -> None:
        self.place = place
        self.run = run
        self.prefix = prefix
        self.allow_new = allow_new
        self.notes: list[str] = []
        self.moved: list[Move] = []
        self.kept_now: list[Tag] = []

    # -- reading -------------------------------------------------------------------------------------------------------

    def plan(self, wishes: t.Sequence[tuple[Tag, Wish]]) -> list[Move]:
        """What each tag names and shall name. All that stands in the way is said at once."""
        moves: list[Move] = []
        against: list[str] = []
        available: list[dict[str, t.Any]] = []
        for tag, wish in wishes:
            image = self.place.resolve(wish, tag)
            was = self.place.names(tag)
            if image is None:
                there = self.place.available(tag)
                available += [each for each in there if each not in available]
                against.append(
                    f"{tag} cannot name {wish.text}: {self.place.name} has no such image; it was never there, or was pruned. "
                    f"{_existing(tag, there)} {self.place.how_to_get(wish)}"
                )
                continue
            lost = self.place.blockers(image, tag) if image != was else []
            if lost:
                against.append(
                    f"{tag} cannot name {wish.text}: {self.place.name} has lost a part of that image ({', '.join(lost[:5])}). {self.place.how_to_get(wish)}"
                )
            if was is None and not self.allow_new:
                there = self.place.available(tag)
                available += [each for each in there if each not in available]
                against.append(
                    f"There is no tag {tag} in {self.place.name}, so nothing there can be rolled back. {_existing(tag, there)} "
                    "Check its spelling, or say allow_new=true if it shall be made."
                )
            if not against:
                moves.append(self._move(tag, image, was, against))
        if against:
            first = against[0] if len(against) == 1 else f"{len(against)} things are wrong with {len(wishes)} tags. " + " ".join(against)
            raise RollbackError(f"{first} Nothing was changed.", blockers=against, available=available)
        return moves

    def _move(self, tag: Tag, image: str, was: str | None, against: list[str]) -> Move:
        if was is None or was == image:
            return Move(tag, image, was, None)
        lost = self.place.blockers(was, tag)
        if lost:
            self.notes.append(f"{was}, which {tag} names, cannot be kept: {self.place.name} has lost a part of it ({', '.join(lost[:5])}).")
            return Move(tag, image, was, None)
        kept = kept_tag(tag, self.prefix, was)
        named = self.place.names(kept)
        if named not in (None, was):
            against.append(
                f"{kept} shall keep {short(was)}, but it names {short(named)}. Remove that tag, or choose another kept_prefix (now {self.prefix!r})."
            )
        return Move(tag, image, was, kept, named == was)

    # -- writing -------------------------------------------------------------------------------------------------------

    def reach(self, moves: t.Sequence[Move], check_mode: bool) -> None:
        needed = [move for move in moves if move.needed]
        if not needed or check_mode:
            return
        facts = [{"tag": str(each.tag), "image": each.image, "was": each.was, "kept": str(each.kept or "")} for each in needed]
        with self.run.step("remember", place=self.place.key, tags=facts):
            self._remember(needed)
        keep = {move.kept: move.was for move in needed if move.kept is not None and move.was is not None and not move.kept_exists}
        try:
            with self.run.step("keep", kept=[str(tag) for tag in keep]):
                for tag, identity in keep.items():
                    self._write(tag, identity)
                    self.kept_now.append(tag)
                for tag, identity in keep.items():
                    self._expect(tag, identity)
            with self.run.step("tag", tags=[str(move.tag) for move in needed]):
                for move in needed:
                    self._still(move)
                    self.moved.append(move)  # before, for a write that fails may have happened
                    self._write(move.tag, move.image)
            with self.run.step("verify"):
                for move in needed:
                    self._expect(move.tag, move.image)
        except (RollbackError, OSError) as exc:
            raise self._after_failure(exc) from exc

    def _write(self, tag: Tag, identity: str) -> None:
        self.run.fence()
        self.place.write(tag, identity)

    def _expect(self, tag: Tag, identity: str) -> None:
        """What a server answers to a write is not the verdict: the tag is read."""
        found = self.place.names(tag)
        if found != identity:
            raise RollbackError(
                f"{tag} names {short(found)} right after it was made to name {short(identity)} in {self.place.name}: "
                "somebody else moves it, a deployment for example. Stop that, then run the same command again."
            )

    def _still(self, move: Move) -> None:
        """The tag may have been moved since it was read, and then it is another image that would have to be kept."""
        found = self.place.names(move.tag)
        if found != move.was:
            raise RollbackError(
                f"{move.tag} named {short(move.was)} a moment ago and names {short(found)} now: somebody else moves it, a deployment "
                "for example. It was left as it is; stop that, then run the same command again."
            )

    def _after_failure(self, exc: Exception) -> RollbackError:
        """All tags or none: those that were moved name again what they named. A tag that was made stays, for nothing was there before."""
        back: list[Move] = []
        left: list[Move] = []
        said = str(exc)
        if self.moved:
            try:
                with self.run.step("put_back", tags=[str(move.tag) for move in self.moved]):
                    for move in reversed(self.moved):
                        try:
                            if self.place.names(move.tag) != move.image:
                                continue  # it was not moved, or somebody else has it
                            if move.was is None:
                                left.append(move)
                                continue
                            self._write(move.tag, move.was)
                            self._expect(move.tag, move.was)
                            back.append(move)
                        except Fenced:
                            raise
                        except (RollbackError, OSError):
                            left.append(move)
            except Fenced as fenced:  # another run acts now: nothing more may be touched
                said += "" if isinstance(exc, Fenced) else f" {fenced}"
                left = [move for move in self.moved if move not in back and self.place.names(move.tag) == move.image]
        if back:
            said += f" Put back: {', '.join(f'{move.tag} names {short(move.was)}' for move in back)}."
        if left:
            said += f" Not put back: {', '.join(f'{move.tag} names {short(move.image)}' for move in left)}."
        if not back and not left:
            said += " No tag was moved."
            if self.kept_now:
                said += f" {', '.join(map(str, self.kept_now))} was made and stays; complete removes it."
        changed = bool(left or self.kept_now)
        return RollbackError(said, **{"changed": changed, "steps": self.run.steps, **getattr(exc, "details", {})})

    # -- what is remembered ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, t.Any]:
        state = read_json(self.run.paths.state(COMPONENT), {})
        return state if isinstance(state, dict) else {}

    def _key(self, tag: Tag) -> str:
        return f"{self.place.key} {tag}"

    def _remember(self, needed: t.Sequence[Move]) -> None:
        state = self._state()
        known = state.setdefault(STATE, {})
        for move in needed:
            entry = {
                "image": move.image,
                "was": move.was,
                "kept": str(move.kept) if move.kept else None,
                "run": self.run.run_id,
                "at": now(),
            }
            known[self._key(move.tag)] = entry
        write_json(self.run.paths.state(COMPONENT), state, self.run.paths.file_mode)

    def replaced(self, move: Move) -> tuple[str | None, str | None]:
        """The image that the tag left for the one that it names, and its kept tag; from before, if nothing is to be done now.

        A call that was killed and is made again finds its work done, and tells all the same how to take it back.
        """
        if move.needed:
            return move.was, str(move.kept) if move.kept else None
        entry = self._state().get(STATE, {}).get(self._key(move.tag)) or {}
        if entry.get("image") != move.image or not entry.get("was"):
            return None, None
        return entry["was"], entry.get("kept")

    def result(self, moves: t.Sequence[Move], check_mode: bool) -> dict[str, t.Any]:
        needed = [move for move in moves if move.needed]
        rows, undo, actions = [], [], []
        for move in moves:
            replaced, kept = self.replaced(move)
            rows.append(
                {"tag": str(move.tag), "image": move.image, "was": move.was, "changed": move.needed, "replaced": replaced, "kept": kept}
            )
            if replaced:
                undo.append({"tag": str(move.tag), "image": replaced})
            if move.needed:
                actions.append(f"make {move.tag} name {move.image}" + (f", which named {move.was}" if move.was else ", which is new"))
                if move.kept and not move.kept_exists:
                    actions.append(f"keep {move.was} as {move.kept}")
        would = "would name" if check_mode else "name" if len(needed) > 1 else "names"
        if not needed:
            msg = f"{_some([str(move.tag) for move in moves])}: nothing to do in {self.place.name}."
        elif len(needed) == 1:
            move = needed[0]
            msg = f"{move.tag} {would} {short(move.image)} in {self.place.name}, {f'not {short(move.was)}' if move.was else 'a new tag'}."
        else:
            msg = f"{len(needed)} of {len(moves)} tags {would} other images in {self.place.name}: {_some([str(move.tag) for move in needed])}."
        return {
            "changed": bool(needed),
            "msg": msg,
            "actions": actions,
            "steps": self.run.steps,
            "tags": rows,
            "undo": undo,
            "notes": self.notes,
        }


def difference(moves: t.Sequence[Move]) -> dict[str, str]:
    """Before and after, for the diff; kept tags that are there already are no difference."""
    before, after = [], []
    for move in moves:
        before.append(f"{move.tag}: {move.was or 'absent'}\n")
        after.append(f"{move.tag}: {move.image}\n")
        if move.kept and not move.kept_exists:
            before.append(f"{move.kept}: absent\n")
            after.append(f"{move.kept}: {move.was}\n")
    return {"before": "".join(before), "after": "".join(after)}


def _existing(tag: Tag, there: t.Sequence[dict[str, t.Any]]) -> str:
    """The images that do exist, for a message."""
    if not there:
        return f"There is no image of {tag.repository} at all."
    shown = []
    for each in there[:LISTED]:
        names = [*each["tags"], *each["digests"]]
        shown.append(f"{each['image']} ({', '.join(names[:4])})" if names else f"{each['image']} (no name)")
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    return f"Those of {tag.repository} that exist: {', '.join(shown)}{more}."


def _some(names: t.Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
