# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The trees of one application: archived into a point, staged beside the live one, made live, kept, forgotten.

The state file remembers between runs which tree (by inode) is which release::

    staged  {version, release, tree, stamp, run, at, from: {...}}
    switch  {to: {...}, from: {...}, run, at}      only while a switch is under way
    live    {version, release, tree, stamp, run, at}
    kept    {version, release, tree, stamp, left, path, run, at}   left: its stamp when the last process had left it
    own     {tree: name}                            trees that this collection created, and what it called them

A record {version, release, tree} names a tree; what is true is read from the disk every time.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_atomic, write_json
from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
from ansible_collections.payops.rollback.plugins.module_utils._points import newest_with, verify_component
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import adopt, link_persistent, share, to_adopt, unshared
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import Copier, copy_tree, remove_tree
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import Layout, identity, processes_inside
from ansible_collections.payops.rollback.plugins.module_utils._release.legacy import app_version, build, dependencies, legacy_folder
from ansible_collections.payops.rollback.plugins.module_utils._release.previous import require_unchanged
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import (
    Listing,
    compare,
    list_tree,
    release_of,
    size_of,
    stamp,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

Record = t.Dict[str, t.Any]
TREE = "tree"
LISTING = "tree.json"


class Legacy(t.NamedTuple):
    """How to build a release from a backup of the old script."""

    path: str
    allow_npm_ci: bool
    cli: Cli
    npm: tuple[str, ...]
    env: dict[str, str]


class Target(t.NamedTuple):
    """The release that a version stands for."""

    version: str
    release: str | None  # None: a legacy backup that was not built yet
    listing: Listing | None
    source: str | None
    facts: dict[str, t.Any]


class Releases:
    def __init__(self, layout: Layout, paths: Paths, component: str, persistent: t.Sequence[str], legacy: Legacy | None = None) -> None:
        self.layout = layout
        self.paths = paths
        self.component = component
        self.persistent = tuple(persistent)
        self.legacy = legacy

    # -- what is remembered ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, t.Any]:
        state = read_json(self.paths.state(self.component), {})
        return state if isinstance(state, dict) else {}

    def remember(self, **changes: t.Any) -> dict[str, t.Any]:
        """Write the state file anew; None forgets a key."""
        state = {**self.state(), **changes}
        state = {key: value for key, value in state.items() if value is not None}
        write_json(self.paths.state(self.component), state, self.paths.file_mode)
        return state

    # -- what is true ------------------------------------------------------------------------------------------------

    def live_tree(self) -> int:
        return identity(self.layout.home)

    def own(self) -> dict[int, str]:
        """The trees that this collection created and that are still there, with what it called them.

        The kernel gives the number of a removed tree to the next one. So beside other people's releases the name must be the same, too;
        in a workshop of our own a tree is renamed when it is kept.
        """
        known, trees = self.state().get("own"), self.layout.trees()
        apart = self.layout.kind == "exchange"
        if not isinstance(known, dict):  # nothing, or the list without names of a time before 1.0.0
            return {}
        return {
            int(tree): name for tree, name in known.items() if int(tree) in trees and (apart or os.path.basename(trees[int(tree)]) == name)
        }

    def version_of(self, release: str) -> str | None:
        """The newest point that holds ``release``."""
        return newest_with(self.paths, self.component, release)

    def live_record(self, listing: Listing | None = None) -> Record:
        """{version, release, tree} of what is live. Hashes the tree unless it is the remembered one, untouched."""
        tree, state = self.live_tree(), self.state()
        for known in (state.get("live"), state.get("staged", {}).get("from")):
            if known and known["tree"] == tree and known.get("stamp") == stamp(self.layout.live(), self.persistent):
                return {**_plain(known), "app_version": app_version(self.layout.live())}
        mark = stamp(self.layout.live(), self.persistent)
        release = release_of(listing if listing is not None else list_tree(self.layout.live(), self.persistent))
        told = app_version(self.layout.live())
        return {"version": self.version_of(release), "release": release, "tree": tree, "stamp": mark, "app_version": told}

    def at_version(self, target: Target) -> tuple[bool, list[str]]:
        """Whether the live tree is the release; files that were only added since are told, and do not count."""
        state, tree = self.state(), self.live_tree()
        known = state.get("live") or {}
        live = self.layout.live()
        if known.get("tree") == tree and known.get("release") == target.release and known.get("stamp") == stamp(live, self.persistent):
            return True, []
        if target.listing is None:
            return False, []
        difference = compare(target.listing, list_tree(live, self.persistent))
        same = not difference.missing and not difference.changed
        return same, difference.added[:20] if same else []

    # -- points ------------------------------------------------------------------------------------------------------

    def archive(self, run: Run, version: str, facts: dict[str, t.Any], files: dict[str, bytes]) -> dict[str, t.Any]:
        """Copy the live tree into the point; listing and hash are taken of the copy."""
        final = self.paths.component(version, self.component)
        if os.path.isdir(final):
            found = self.target(version, hashes=False)
            if not self.at_version(found)[0]:
                raise RollbackError(
                    f"Point {version} already holds release {str(found.release)[:12]}, but another release is live. "
                    "A point is never overwritten; take the backup under another version."
                )
            return {"changed": False, "release": found.release, "size": None}
        live = self.layout.live()
        with run.step("archive", version=version) as learnt, new_component(self.paths, version, self.component, run.run_id) as writer:
            place = os.path.join(writer.path, TREE)
            for attempt in range(3):
                before = stamp(live, self.persistent)
                try:
                    Copier().tree(live, place, self.persistent)
                except (FileNotFoundError, NotADirectoryError):
                    pass  # it went while it was copied
                else:
                    if before == stamp(live, self.persistent):
                        break
                remove_tree(place)
            else:
                raise RollbackError(
                    f"{live} changes while it is copied (3 attempts). Name the paths that the application writes to as persistent "
                    f"(now: {', '.join(self.persistent)}), or take the backup when no deployment is running."
                )
            listing = list_tree(place)
            release = release_of(listing)
            everything = {LISTING: json.dumps(listing, sort_keys=True).encode("utf-8"), **files}
            for name, data in everything.items():
                write_atomic(os.path.join(writer.path, name), data, self.paths.file_mode if name == LISTING else 0o600)
            manifest = writer.seal(
                {
                    **facts,
                    "release": release,
                    "layout": self.layout.kind,
                    "path": live,
                    "persistent": list(self.persistent),
                    "app_version": app_version(place),
                },
                trees=(TREE,),
            )
            learnt.update(release=release, size=manifest["size"], entries=len(listing))
        return {"changed": True, "release": release, "size": manifest["size"]}

    def target(self, version: str, hashes: bool = True) -> Target:
        """The release of ``version``, its point checked: manifest, listing and (``hashes``) every file of its tree."""
        if self.legacy is not None and not os.path.isdir(self.paths.component(version, self.component)):
            known = read_json(self._legacy_file(version))
            folder = legacy_folder(self.legacy.path, version)
            if known and known.get("stamp") == stamp(folder):
                return Target(version, known["release"], known["listing"], folder, {"legacy": True, "app_version": known["app_version"]})
            return Target(version, None, None, folder, {"legacy": True, "app_version": app_version(folder)})
        manifest = verify_component(self.paths, version, self.component)
        folder = self.paths.component(version, self.component)
        facts = manifest["facts"]
        listing: Listing = read_json(os.path.join(folder, LISTING), {})
        if release_of(listing) != facts.get("release"):
            raise RollbackError(f"The listing of point {version} is not that of release {facts.get('release')}. The point is damaged.")
        if set(facts.get("persistent", self.persistent)) != set(self.persistent):
            raise RollbackError(
                f"Point {version} was taken with the persistent paths {facts['persistent']}, now they are {list(self.persistent)}. "
                "Use the same list, or take a new point."
            )
        tree = os.path.join(folder, TREE)
        if hashes:
            difference = compare(listing, list_tree(tree))
            if difference:
                raise RollbackError(
                    f"The files of point {version} differ from its listing: {difference.sentence()}. "
                    "The point is damaged, and nothing was touched; choose another one."
                )
        return Target(version, facts["release"], listing, tree, facts)

    def _legacy_file(self, version: str) -> str:
        return os.path.join(self.paths.run, f"{self.component}.legacy-{version}.json")

    # -- staging -----------------------------------------------------------------------------------------------------

    def staged(self, target: Target) -> Record | None:
        """The tree that was staged (or kept) for ``target`` and was not touched since."""
        state = self.state()
        switch = state.get("switch") or {}
        for known in (state.get("staged"), state.get("kept"), switch.get("to"), switch.get("from")):
            if not known or target.release is None or known.get("release") != target.release:
                continue
            path = self.layout.find(known["tree"])
            if path and known["tree"] != self.live_tree() and known.get("stamp") == stamp(path, self.persistent):
                return {**known, "version": target.version, "path": path}
        return None

    def stage(self, run: Run, target: Target) -> Record:
        """Build the tree beside the live one and check it. Reuses an identical one that lies there."""
        ready = self.staged(target)
        if ready:
            self.remember(staged={**self._staged_record(run, target, ready["path"]), "from": self.live_record()})
            return {**ready, "changed": False}
        with run.step("prepare_layout"):
            self.layout.prepare()
        for name in to_adopt(self.layout, self.persistent):
            with run.step("adopt", path=name):
                adopt(self.layout, name)
        with run.step("stage", version=target.version) as learnt:
            path, target = self._build(target)
            record = self._staged_record(run, target, path)
            learnt.update(path=path, release=record["release"], size=size_of(target.listing or {}))
            own = {**self.own(), record["tree"]: os.path.basename(path)}
            self.remember(staged={**record, "from": self.live_record()}, own={str(tree): name for tree, name in own.items()})
        return {**record, "path": path, "changed": True}

    def _staged_record(self, run: Run, target: Target, path: str) -> Record:
        return {
            "version": target.version,
            "release": target.release,
            "tree": identity(path),
            "stamp": stamp(path, self.persistent),
            "app_version": target.facts.get("app_version"),
            "run": run.run_id,
            "at": now(),
        }

    def _free_name(self, name: str) -> str:
        """A name in the workshop that no live, kept or foreign tree has; an unused tree of ours there is removed."""
        state = self.state()
        busy = {self.live_tree(), *((state.get(key) or {}).get("tree") for key in ("kept",))}
        for record in (state.get("switch") or {}).values():
            if isinstance(record, dict):
                busy.add(record.get("tree"))
        own = set(self.own())
        for number in range(1, 100):
            path = os.path.join(self.layout.workshop, name if number == 1 else f"{name}.{number}")
            if not os.path.lexists(path):
                return path
            if identity(path) in own - busy and not processes_inside(identity(path)) and not unshared(path, self.persistent):
                remove_tree(path)
                return path
        raise RollbackError(f"{self.layout.workshop} holds 99 trees called {name}. Look at them, and remove those that nobody needs.")

    def _build(self, target: Target) -> tuple[str, Target]:
        path = self._free_name(target.version)
        if target.facts.get("legacy"):
            legacy = t.cast(Legacy, self.legacy)
            folder = t.cast(str, target.source)
            how = dependencies(folder, self.layout.live(), legacy.allow_npm_ci)
            mark = stamp(folder)
            build(folder, self.layout.live(), path, self.persistent, how, legacy.cli, legacy.npm, legacy.env)
            for name in self.persistent:
                copied = os.path.join(path, name)
                if os.path.islink(os.path.join(self.layout.live(), name)) and os.path.realpath(copied) == copied:
                    remove_tree(copied)  # what the backup had; the application's own is shared
            listing = list_tree(path, self.persistent)
            target = target._replace(release=release_of(listing), listing=listing)
            known = {"stamp": mark, "release": target.release, "listing": listing, "app_version": target.facts.get("app_version")}
            write_json(self._legacy_file(target.version), known, self.paths.file_mode)
        else:
            copy_tree(t.cast(str, target.source), path)
        link_persistent(self.layout, path, self.persistent)
        difference = compare(target.listing or {}, list_tree(path, self.persistent))
        if difference:
            remove_tree(path)
            raise RollbackError(
                f"The staged copy of {target.version} differs from the point: {difference.sentence()}. It was removed; is the disk healthy?"
            )
        return path, target

    # -- switching ---------------------------------------------------------------------------------------------------

    def begin(self, run: Run, to: Record, undone: bool = False) -> Record:
        """Write down what is about to happen; a switch that is under way already stays as it is, in its new direction."""
        state = self.state()
        old = state.get("switch")
        leaving = self.live_record()
        if old:
            sides = {old["to"]["tree"]: old["to"], old["from"]["tree"]: old["from"]}
            if to["tree"] not in sides:
                raise RollbackError(
                    f"An unfinished switch from {old['from']['version']} to {old['to']['version']} (run {old.get('run')}) was found. "
                    f"Finish it with state=live and version={old['to']['version']}, or go back with state=previous.",
                    unfinished=old,
                )
            leaving = next(record for tree, record in sides.items() if tree != to["tree"])
        switch = {"to": _plain(to), "from": _plain(leaving), "run": run.run_id, "at": now(), "back": undone}
        self.remember(switch=switch)
        return switch

    def flip(self, to: Record) -> str | None:
        """Make the tree live if it is not; the path of the replaced one."""
        if self.live_tree() == to["tree"]:
            return None
        path = self.layout.find(to["tree"])
        if path is None:
            raise RollbackError(
                f"The tree of {to.get('version') or str(to.get('release'))[:12]} is not in {self.layout.workshop} any more. "
                "Stage it again with state=staged."
            )
        share(self.layout, path, self.persistent)
        return self.layout.flip(path)

    def share(self, to: Record) -> None:
        """Before a process starts in the tree, it has what is persistent."""
        path = self.layout.find(to["tree"])
        if path is not None and to["tree"] != self.live_tree():
            share(self.layout, path, self.persistent)

    def finish(self, run: Run, undone: bool = False) -> None:
        """Remember what is live and what is kept, and give the kept tree a telling name."""
        switch = self.state().get("switch")
        if not switch:
            return
        live, kept = switch["to"], switch["from"]
        path = self.layout.find(kept["tree"])
        if path and self.layout.kind == "exchange" and os.path.dirname(path) == self.layout.workshop:
            name = f"kept-{kept['version'] or str(kept['release'])[:12]}"
            if os.path.basename(path) != name and kept["tree"] != live["tree"]:
                better = os.path.join(self.layout.workshop, name)
                if not os.path.lexists(better):
                    os.rename(path, better)
                    path = better
        mark = {"run": run.run_id, "at": now()}
        staged = self.state().get("staged") or {}
        self.remember(
            live={**live, **mark, "stamp": stamp(self.layout.live(), self.persistent)},
            kept={**kept, **mark, "path": path, "left": stamp(path, self.persistent)} if path else None,
            switch=None,
            undone=undone or None,
            staged=None if staged.get("tree") in (live["tree"], kept["tree"]) else (staged or None),
        )

    def back(self, run_id: str | None = None) -> Record:
        """The release that ``previous`` means: what an unfinished switch leaves, or what the last finished one replaced."""
        state = self.state()
        switch = state.get("switch") or {}
        # Going back may itself have been killed: then it is finished, not turned round.
        record = switch.get("to" if switch.get("back") else "from") or state.get("kept")
        if not record:
            raise RollbackError(
                f"There is no previous release of {self.layout.home}: no switch was made, or it was completed. "
                "Choose a point with state=live and version=..."
            )
        if not switch:
            require_unchanged(self, state, run_id)
        path = self.layout.find(record["tree"])
        if path is None:
            raise RollbackError(f"The previous release is not in {self.layout.workshop} any more; it was moved or removed by hand.")
        return {**record, "path": path}


def _plain(record: Record) -> Record:
    return {key: record.get(key) for key in ("version", "release", "tree", "stamp", "app_version")}
