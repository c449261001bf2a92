# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Tags straight in a registry, through its HTTP API. An image is known by the digest of its manifest there.

A tag is moved by one PUT of the very bytes that the registry handed out for the digest, with their own media type: no layer moves,
and a manifest for several platforms stays whole. Digests are taken of the bytes; what a header says about them is not believed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import typing as t
from urllib.parse import quote, urlsplit

from ansible_collections.payops.rollback.plugins.module_utils._docker._http import Connection, Http, said
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import HUB, Tag, Wish, short
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker.distribution"
INDEXES = (f"{OCI}.index.v1+json", f"{DOCKER}.manifest.list.v2+json")
IMAGES = (f"{OCI}.manifest.v1+json", f"{DOCKER}.manifest.v2+json")
# Without an index among them some registries hand out one platform's manifest instead of the whole.
ACCEPT = ", ".join((*INDEXES, *IMAGES))
# Layers that a registry need not have: it is told where else they are.
ELSEWHERE = re.compile(r"nondistributable|foreign")
LARGEST = 4 * 1024 * 1024
# How many tags are looked through when an image is searched by its ID or the existing ones are listed.
MANY = 100


class Manifest(t.NamedTuple):
    digest: str
    media_type: str
    data: bytes
    content: dict[str, t.Any]

    @property
    def image_id(self) -> str:
        """The ID that engines give to the image; none for several platforms."""
        return str((self.content.get("config") or {}).get("digest") or "")


class Registry:
    what = "manifest"

    def __init__(self, connection: Connection) -> None:
        self.http = Http(connection)
        self.name = f"the registry {self.http.url}"
        self.key = self.http.url
        self._known: dict[tuple[str, str], Manifest] = {}

    def close(self) -> None:
        self.http.close()

    def _path(self, tag: Tag) -> str:
        """The repository's path in this registry. A name of another registry is refused: its login and its images are not here."""
        if tag.host and tag.host != self.http.host:
            raise RollbackError(
                f"{tag} is in the registry {tag.host}, but registry.url is {self.http.url}. Call once for each registry, "
                "or leave the host out of the name."
            )
        hub = urlsplit(self.http.url).hostname in HUB
        if not tag.host and "/" not in tag.path and hub:
            return f"library/{tag.path}"
        return tag.path

    # -- reading -------------------------------------------------------------------------------------------------------

    def _get(self, path: str, reference: str) -> Manifest | None:
        """The manifest of a tag or digest, or None if the registry has none."""
        for pause in (0.1, 0.3, 0):
            answer = self.http.request("GET", path, f"manifests/{quote(reference, safe=':')}", {"Accept": ACCEPT})
            if answer.status_code != 500 or ":" in reference or not pause:
                break
            time.sleep(pause)  # Debian's registry says 500 about a tag that somebody is moving at this moment
        where = f"{path}{'@' if ':' in reference else ':'}{reference}"
        if answer.status_code == 404 or (answer.status_code == 500 and ":" in reference and self._blob(path, reference) < 400):
            return None  # the second: Debian's registry says so about the digest of a configuration or a layer
        if answer.status_code != 200:
            raise RollbackError(
                f"{_capital(self.name)} did not hand out {where} (status {answer.status_code}{said(answer)}). Look at its log, then run the same command again."
            )
        data = bytes(answer.content)
        if len(data) > LARGEST:
            raise RollbackError(f"The manifest of {where} has {len(data)} bytes; expected at most {LARGEST}. That is none of an image.")
        try:
            content = json.loads(data.decode("utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise RollbackError(f"{_capital(self.name)} answered for {where} with something that is no manifest. Check registry.url.")
        media_type = str(answer.headers.get("Content-Type", "")).partition(";")[0].strip()
        if media_type not in (*INDEXES, *IMAGES):
            media_type = str(content.get("mediaType", media_type))
        if media_type not in (*INDEXES, *IMAGES):
            raise RollbackError(
                f"{where} has a manifest of type {media_type or 'unknown'!r}, which cannot be given to another tag unchanged. "
                "Expected an OCI or a Docker version 2 manifest; push the image again with a newer Docker."
            )
        found = Manifest(f"sha256:{hashlib.sha256(data).hexdigest()}", media_type, data, content)
        if reference.startswith("sha256:") and found.digest != reference:
            raise RollbackError(
                f"{_capital(self.name)} handed out other bytes for {where} than its digest says ({found.digest}). Its storage is damaged; use another image."
            )
        self._known[path, found.digest] = found
        return found

    def _blob(self, path: str, digest: str) -> int:
        """The status of a layer or configuration: 200, a redirect to a storage, or 404 if it is lost."""
        return int(self.http.request("HEAD", path, f"blobs/{quote(digest, safe=':')}").status_code)

    def names(self, tag: Tag) -> str | None:
        """The digest of the manifest that the tag names, or None."""
        found = self._get(self._path(tag), tag.tag)
        return found.digest if found else None

    def resolve(self, wish: Wish, tag: Tag) -> str | None:
        """The digest of the manifest that is wished for, or None."""
        path = self._path(tag)
        named = wish.tag or wish.repository
        if named is not None and self._path(named) != path:
            raise RollbackError(
                f"{wish.text!r} is in another repository than {tag}. In a registry a tag can only name an image of its own repository, "
                "for no layer is copied; push the image there first."
            )
        if wish.tag is not None:
            return self.names(wish.tag)
        if wish.short:
            raise RollbackError(
                f"{wish.text!r} is the beginning of an image ID, which a registry cannot look up. "
                "Write the whole digest (sha256:...) of the manifest or of the image."
            )
        found = self._get(path, wish.identity)
        if found is not None:
            return found.digest
        if wish.repository is None:
            for manifest, unused in self._tagged(path):
                if manifest.image_id == wish.identity:
                    return manifest.digest
        return None

    def _tagged(self, path: str) -> list[tuple[Manifest, list[str]]]:
        """Manifests of the repository with the tags that name them, at most MANY tags. Those without a tag cannot be listed."""
        answer = self.http.request("GET", path, "tags/list", query=f"?n={MANY}")
        if answer.status_code != 200:
            return []
        try:
            tags = sorted(str(name) for name in answer.json().get("tags") or [])[:MANY]
        except (ValueError, AttributeError):
            return []
        found: dict[str, tuple[Manifest, list[str]]] = {}
        for name in tags:
            try:
                manifest = self._get(path, name)
            except RollbackError:
                continue  # one that is damaged is not among those to choose from
            if manifest is not None:
                found.setdefault(manifest.digest, (manifest, []))[1].append(name)
        return list(found.values())

    def available(self, tag: Tag) -> list[dict[str, t.Any]]:
        """The images of the tag's repository that have a tag."""
        path = self._path(tag)
        return [
            {
                "image": manifest.digest,
                "tags": [str(tag._replace(tag=name)) for name in names],
                "digests": [],
                "image_id": manifest.image_id,
            }
            for manifest, names in self._tagged(path)
        ]

    def blockers(self, identity: str, tag: Tag) -> list[str]:
        """What the registry has lost of an image: a manifest alone cannot be run."""
        path = self._path(tag)
        whole = self._known.get((path, identity)) or self._get(path, identity)
        if whole is None:
            return [f"manifest {short(identity)}"]
        images, lost = [whole], []
        if whole.media_type in INDEXES:
            images = []
            for each in whole.content.get("manifests") or []:
                found = self._get(path, str(each.get("digest")))
                if found is None:
                    platform = each.get("platform") or {}
                    lost.append(f"manifest {short(str(each.get('digest')))} of {platform.get('os')}/{platform.get('architecture')}")
                else:
                    images.append(found)
        blobs = {}
        for image in images:
            for each in [image.content.get("config") or {}, *(image.content.get("layers") or [])]:
                if each.get("digest") and not ELSEWHERE.search(str(each.get("mediaType", ""))):
                    blobs[str(each.get("digest"))] = "layer" if each is not image.content.get("config") else "configuration"
        for digest, kind in blobs.items():
            if self._blob(path, digest) == 404:
                lost.append(f"{kind} {short(digest)}")
        return lost

    def how_to_get(self, wish: Wish) -> str:
        return "Push it from where it still is (docker push), then run the same command again."

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, tag: Tag, identity: str) -> None:
        """Make the tag name the manifest: one PUT of the same bytes."""
        path = self._path(tag)
        manifest = self._known.get((path, identity)) or self._get(path, identity)
        if manifest is None:
            raise RollbackError(
                f"{_capital(self.name)} has no manifest {identity} any more: somebody deleted it meanwhile. Nothing was written to {tag}."
            )
        answer = self.http.request("PUT", path, f"manifests/{quote(tag.tag)}", {"Content-Type": manifest.media_type}, data=manifest.data)
        if answer.status_code not in (200, 201, 202):
            raise RollbackError(
                f"{_capital(self.name)} refused to make {tag} name {short(identity)} (status {answer.status_code}{said(answer)}). "
                "Look at its log, and whether it is read-only or the tag immutable."
            )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
