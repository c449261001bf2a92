# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Tags on a Docker engine, through the Docker SDK for Python. An image is known by its ID there."""

from __future__ import annotations

import os
import traceback
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._docker._http import check_files
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import Tag, Wish, short
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

DOCKER_ERROR: str | None = None
try:
    import docker
    import docker.errors
    import docker.tls
    import requests.exceptions
    import requests.utils
except ImportError:
    docker = None
    DOCKER_ERROR = traceback.format_exc()

DEFAULT_HOST = "unix:///var/run/docker.sock"


class Connection(t.NamedTuple):
    """How the engine is reached; the options of ``docker_*`` modules."""

    docker_host: str
    api_version: str = "auto"
    timeout: int = 60
    tls: bool = False
    validate_certs: bool = False
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @property
    def trusted(self) -> str:
        """The file with the authorities that the SDK goes by."""
        return self.ca_path or str(requests.utils.DEFAULT_CA_BUNDLE_PATH)


class Engine:
    """One engine. Everything that it answers is asked anew: somebody else may move tags, too."""

    what = "image"

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = f"the Docker engine at {connection.docker_host}"
        self.key = connection.docker_host
        self._client: t.Any = None

    # -- the session ---------------------------------------------------------------------------------------------------

    @contextmanager
    def readable_errors(self, doing: str) -> t.Iterator[None]:
        try:
            yield
        except docker.errors.APIError as exc:
            raise RollbackError(f"{_capital(self.name)} refused while {doing}: {exc.explanation or exc}.") from exc
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
            raise RollbackError(
                f"{_capital(self.name)} does not answer while {doing}: {_reason(exc)}. Check docker_host, whether the engine runs there, "
                "and whether the user of this task may use it."
            ) from exc

    def client(self) -> t.Any:
        if self._client is None:
            given = self.connection
            check_files("", given.ca_path, given.client_cert, given.client_key)
            with self.readable_errors("connecting"):
                tls: t.Any = False
                if given.tls or given.validate_certs:
                    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
                        os.environ.pop(name, None)  # requests, below the SDK, would trust these instead of ca_path
                    pair = (given.client_cert, given.client_key or given.client_cert) if given.client_cert else None
                    tls = docker.tls.TLSConfig(client_cert=pair, verify=given.validate_certs, ca_cert=given.ca_path)
                version = None if given.api_version == "auto" else given.api_version
                self._client = docker.APIClient(base_url=given.docker_host, version=version or "auto", timeout=given.timeout, tls=tls)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def inspect(self, name: str) -> dict[str, t.Any] | None:
        """What the engine knows of an image, by ID or name; None where it has no such image."""
        client = self.client()
        with self.readable_errors(f"looking at {name}"):
            try:
                found: dict[str, t.Any] = client.inspect_image(name)
            except docker.errors.ImageNotFound:
                return None
            except docker.errors.NotFound:
                return None
        return found

    def names(self, tag: Tag) -> str | None:
        """The ID of the image that the tag names, or None."""
        found = self.inspect(str(tag))
        return str(found["Id"]) if found else None

    def images(self) -> list[dict[str, t.Any]]:
        """All images with a name or an ID that could be asked for, the newest first."""
        client = self.client()
        with self.readable_errors("listing its images"):
            listed = client.images()
        found = [
            {
                "image": str(each["Id"]),
                "tags": sorted(name for name in each.get("RepoTags") or [] if name != "<none>:<none>"),
                "digests": sorted(name for name in each.get("RepoDigests") or [] if name != "<none>@<none>"),
                "created": each.get("Created") or 0,
            }
            for each in listed
        ]
        return sorted(found, key=lambda each: (-int(each["created"]), str(each["image"])))

    def resolve(self, wish: Wish, tag: Tag) -> str | None:
        """The ID of the image that is wished for, or None."""
        if wish.tag is not None:
            return self.names(wish.tag)
        if wish.short:
            found = sorted({str(each["image"]) for each in self.images() if str(each["image"]).startswith(f"sha256:{wish.short}")})
            if len(found) > 1:
                raise RollbackError(f"{wish.text!r} is the beginning of {len(found)} image IDs: {', '.join(found)}. Write the whole ID.")
            return found[0] if found else None
        if wish.repository is None:
            direct = self.inspect(wish.identity)
            if direct is not None:
                return str(direct["Id"])
        # A digest names what was pulled or pushed under it; without a repository any repository's will do: same digest, same image.
        suffix = f"@{wish.identity}"
        name = f"{wish.repository.repository}{suffix}" if wish.repository is not None else None
        for each in self.images():
            if any((digest == name) if name else digest.endswith(suffix) for digest in each["digests"]):
                return str(each["image"])
        return None

    def blockers(self, identity: str, tag: Tag) -> list[str]:
        """What of the image is missing: an engine has an image whole or not at all."""
        return []

    def available(self, tag: Tag) -> list[dict[str, t.Any]]:
        """The images of the tag's repository, and those that have lost every name: a build that was replaced by the next one."""
        repository = tag.repository
        return [
            each
            for each in self.images()
            if any(name.rpartition(":")[0] == repository for name in each["tags"])
            or any(name.partition("@")[0] == repository for name in each["digests"])
            or not (each["tags"] or each["digests"])
        ]

    def how_to_get(self, wish: Wish) -> str:
        return "Pull it by its digest (community.docker.docker_image_pull) or load it from an archive (docker_image_load), then run the same command again."

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, tag: Tag, identity: str) -> None:
        """Make the tag name the image. The engine does that in one step; the image that it named is not touched."""
        client = self.client()
        with self.readable_errors(f"tagging {short(identity)} as {tag}"):
            client.tag(identity, tag.repository, tag.tag, force=True)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _reason(exc: BaseException) -> str:
    """The innermost words of a nest of exceptions, which say what is wrong."""
    seen: set[int] = set()
    while id(exc) not in seen:
        seen.add(id(exc))
        inner = exc.__cause__ or exc.__context__
        if isinstance(exc, OSError) and exc.strerror:
            return exc.strerror
        if inner is None:
            break
        exc = inner
    return str(exc).rstrip(".") or type(exc).__name__
