# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The compose files and environment files of a project: read as one set, kept by content, put back as one set.

A set is known by the hash of its names and contents. It is kept in ``<store>/<system>/.run/docker.sets/<hash>/`` (0700, files 0600:
there are passwords in it) until nothing can go back to it any more.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    canonical_json,
    read_json,
    sha256_bytes,
    write_atomic,
    write_json,
)
from ansible_collections.payops.rollback.plugins.module_utils._points import read_regular

# As compose looks for them when it is told none: the first of each.
DEFAULTS = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml")
ENV = ".env"
MAX_FILE = 4 << 20
INDEX = "index.json"
FileSet = t.Dict[str, bytes]  # name, relative to the project's folder or absolute -> content


def set_hash(files: FileSet) -> str:
    return sha256_bytes(canonical_json([[name, sha256_bytes(data)] for name, data in sorted(files.items())]))


def named_env_files(text: str) -> list[str]:
    """The files that services take their environment from, as a compose file names them. Compose itself tells only what is in them.

    Read line by line, for hosts need no YAML library: a name, a list in brackets, or a list of names or of ``path:`` below.
    """
    found: list[str] = []
    deep = -1  # how far the env_file was indented whose list we are in
    for line in text.splitlines():
        bare = line.split(" #")[0].rstrip()
        head = re.match(r"( *)env_file:\s*(.*)\Z", bare)
        item = re.match(r"( *)(?:- +)?(?:path: *)?(.*)\Z", bare)
        if head:
            deep = len(head[1]) if not head[2] else -1
            found += [each for each in re.split(r"[\[\],\s]+", head[2]) if each]
        elif deep >= 0 and item and item[2] and re.match(r" *(- |path:)", bare) and len(item[1]) >= deep:
            found.append(item[2])
        elif deep >= 0 and bare and not re.match(r" *(required|format):", bare):
            deep = -1
    names = [os.path.normpath(each.strip("'\"")) for each in found]
    return list(dict.fromkeys(each for each in names if "$" not in each))


def named_compose_files(text: str) -> list[str]:
    """The other compose files that one is made from. Compose itself tells only what comes out."""
    found = re.findall(r"\bextends:\s*\{[^}]*?\bfile:\s*([^,}\s]+)", text)
    found += re.findall(r"\bextends:[ \t]*\n(?:[ \t]+service:.*\n)?[ \t]+file:[ \t]*(\S+)", text)
    for inline, block in re.findall(r"^include:[ \t]*(?:\[([^\]]*)\]|\n((?:(?:[ \t]+\S|[ \t]*-).*\n?)+))", text, re.MULTILINE):
        found += re.findall(r"[^\s,]+", inline)
        found += re.findall(r"^[ \t]*(?:-[ \t]+path:|-|path:)[ \t]+(?!path:|\w+:)(\S+)", block, re.MULTILINE)
    names = [os.path.normpath(each.strip("'\"")) for each in found]
    return list(dict.fromkeys(each for each in names if "$" not in each))


class Files:
    def __init__(self, folder: str, files: t.Sequence[str], env_files: t.Sequence[str], interpolate: t.Sequence[str], sets: str) -> None:
        self.folder = folder
        self.files = tuple(files)
        self.env_files = tuple(env_files)
        self.interpolate = tuple(interpolate)
        self.sets = sets

    # -- which ---------------------------------------------------------------------------------------------------------

    def allowed(self) -> list[str]:
        """Every name that a set may have: what a point says is written nowhere else."""
        found = [*(self.files or (*DEFAULTS, *OVERRIDES)), ENV, *self.env_files, *self.interpolate]
        return list(dict.fromkeys(found))

    def path(self, name: str, base: str | None = None) -> str:
        """Where a file of the set lies: in the project's folder, or in a kept set."""
        if base is not None:
            return os.path.join(base, stored_name(name))
        return name if os.path.isabs(name) else os.path.join(self.folder, name)

    def compose_files(self, names: t.Collection[str]) -> list[str]:
        """Those of a set that compose is given, in its order."""
        if self.files:
            return [name for name in self.files if name in names]
        first = next((name for name in DEFAULTS if name in names), None)
        over = next((name for name in OVERRIDES if name in names), None)
        return [name for name in (first, over) if name]

    def interpolated(self, names: t.Collection[str]) -> list[str]:
        """The files that fill ``${...}`` in."""
        return [name for name in (self.interpolate or (ENV,)) if name in names]

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self) -> FileSet:
        """The set as it lies in the project's folder, as far as it does."""
        if not os.path.isdir(self.folder):
            raise RollbackError(f"project_dir {self.folder} does not exist or is no folder. Set it to the folder with the compose file.")
        found: FileSet = {}
        for name in self.allowed():
            path = self.path(name)
            if os.path.exists(path):
                found[name] = _content(path)
        return found

    def require(self, found: FileSet) -> None:
        """Everything that was listed is in the set. A point holds nothing less; the way back is possible with less."""
        for name in (*self.files, *self.interpolate, *(each for each in self.env_files if each != ENV)):
            if name not in found:
                raise RollbackError(f"{self.path(name)} does not exist. Correct files, env_files or interpolate_from, or bring it back.")
        if not self.compose_files(found):
            raise RollbackError(
                f"{self.folder} has no compose file (looked for {', '.join(self.files or DEFAULTS)}). Set project_dir to the folder that has it, or files."
            )

    def unlisted(self, files: FileSet) -> list[str]:
        """Files that the compose files name and the set does not have: they would stay as they are now."""
        texts = [files[name].decode("utf-8", "replace") for name in self.compose_files(files)]
        named = [name for text in texts for name in (*named_env_files(text), *named_compose_files(text))]
        return [name for name in dict.fromkeys(named) if name not in self.allowed()]

    def mounted(self, spec: t.Mapping[str, t.Any]) -> list[str]:
        """Files of the project's folder that the services see as they are at the moment; a folder holds data."""
        found = [str(each["file"]) for each in (spec.get("configs") or {}).values() if each.get("file")]
        for service in (spec.get("services") or {}).values():
            found += [str(each.get("source")) for each in service.get("volumes") or [] if each.get("type") == "bind"]
        found = [path for path in dict.fromkeys(found) if path.startswith(f"{self.folder}/") and os.path.isfile(path)]
        return [os.path.relpath(path, self.folder) for path in found]

    # -- kept sets -----------------------------------------------------------------------------------------------------

    def place_of(self, identity: str) -> str:
        return os.path.join(self.sets, identity[:16])

    def keep(self, files: FileSet) -> str:
        """Keep the content; its hash."""
        identity = set_hash(files)
        place = self.place_of(identity)
        if not os.path.exists(os.path.join(place, INDEX)):
            os.makedirs(place, mode=0o700, exist_ok=True)
            for name, data in files.items():
                write_atomic(self.path(name, place), data, 0o600)
            write_json(os.path.join(place, INDEX), {"set": identity, "files": sorted(files)}, 0o600)
        return identity

    def has(self, identity: str) -> bool:
        return os.path.exists(os.path.join(self.place_of(identity), INDEX))

    def kept(self, identity: str) -> FileSet:
        place = self.place_of(identity)
        index = read_json(os.path.join(place, INDEX))
        names = index.get("files") if isinstance(index, dict) else None
        if not isinstance(names, list):
            raise RollbackError(f"The compose files that were kept in {place} are gone. Stage the point again with state=staged.")
        return self.checked({name: read_regular(self.path(name, place), MAX_FILE) for name in names}, identity, place)

    def checked(self, files: FileSet, identity: str, where: str) -> FileSet:
        foreign = sorted(set(files) - set(self.allowed()))
        if foreign:
            raise RollbackError(
                f"{where} holds {foreign[0]!a}, which is none of this project's files ({', '.join(self.allowed())}). "
                "Add it to files or env_files if it is meant; nothing was written."
            )
        if set_hash(files) != identity:
            raise RollbackError(f"The compose files in {where} differ from what was written down. They are damaged; nothing was touched.")
        return files

    def forget(self, needed: t.Collection[str]) -> list[str]:
        """Remove the sets that nothing goes back to; their paths."""
        wanted = {os.path.basename(self.place_of(identity)) for identity in needed}
        gone = []
        for name in sorted(os.listdir(self.sets)) if os.path.isdir(self.sets) else []:
            if name not in wanted:
                gone.append(os.path.join(self.sets, name))
                shutil.rmtree(gone[-1])
        return gone

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, files: FileSet) -> list[str]:
        """Make the project's folder hold this set: each file is exchanged whole, one that the set has not goes. The names that changed."""
        changed = []
        for name in self.allowed():
            path = self.path(name)
            there = _content(path) if os.path.exists(path) else None
            if name not in files:
                if there is not None:
                    os.unlink(path)
                    changed.append(name)
            elif there != files[name]:
                _replace(os.path.realpath(path), files[name], secret=name in (ENV, *self.env_files, *self.interpolate))
                changed.append(name)
        return changed


def stored_name(name: str) -> str:
    """The name in a flat folder; it says where the file came from."""
    return f"{sha256_bytes(name.encode('utf-8'))[:8]}-{os.path.basename(name).lstrip('.') or 'file'}"


def _content(path: str) -> bytes:
    return read_regular(os.path.realpath(path), MAX_FILE)


def _replace(path: str, data: bytes, secret: bool) -> None:
    """Owner and mode stay those of the file that was there."""
    try:
        found = os.stat(path)
        mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    except FileNotFoundError:
        there = os.stat(os.path.dirname(path))
        mode, owner = (0o600 if secret else 0o644), (there.st_uid, there.st_gid)
    write_atomic(path, data, mode)
    if os.geteuid() == 0:
        os.chown(path, *owner)
