# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real registry (Debian's docker-registry) on a port of this machine, and images in it that were uploaded by plain HTTP."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shutil
import tempfile
import time
import typing as t

import requests

from tests.lab import ports, processes

PROGRAM = shutil.which("docker-registry") or "/usr/bin/docker-registry"
HOW_TO_GET = f"no registry found at {PROGRAM}; install the operating system's package docker-registry"
# The one user of registries with a basic login. bcrypt of the password with the least cost: htpasswd -nbB -C 4.
USER, PASSWORD = "deploy", 'k3pt "secret" p\u00e4ss:word'

OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker.distribution"
# media types of the two families: index, manifest, configuration, layer
TYPES = {
    "oci": (f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip"),
    "docker": (
        f"{DOCKER}.manifest.list.v2+json",
        f"{DOCKER}.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
}
ANY = ", ".join(types[kind] for types in TYPES.values() for kind in (0, 1))


def installed() -> bool:
    return pathlib.Path(PROGRAM).exists()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Stored(t.NamedTuple):
    """A manifest as it was uploaded."""

    digest: str
    media_type: str
    data: bytes
    image_id: str = ""
    layer: str = ""


class Registry:
    """``auth`` and ``tls`` are sections of its configuration file; ``ca`` is what the tests' own requests trust."""

    def __init__(self, auth: t.Any = None, tls: t.Any = None, ca: str | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = ports.free_port()
        self.netloc = f"{self.host}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="payops-registry-"))
        self.log = self.root / "log"
        http: dict[str, t.Any] = {"addr": self.netloc, "secret": "of a test"}
        if tls:
            http["tls"] = tls
        # no cache: a blob that a test removes from the disk is gone at once
        storage = {"filesystem": {"rootdirectory": str(self.root / "storage")}, "delete": {"enabled": True}}
        config = {"version": 0.1, "log": {"accesslog": {"disabled": False}, "level": "info"}, "storage": storage, "http": http}
        if auth:
            config["auth"] = auth
        self.config = self.root / "config.yml"
        self.config.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = ca or True
        self._process: t.Any = None

    def __enter__(self) -> Registry:
        self.start()
        return self

    def start(self) -> None:
        env = {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none", "HOME": str(self.root)}
        self._process = processes.start([PROGRAM, "serve", str(self.config)], log=self.log, env=env, cwd=self.root)
        ports.wait_for(self.port)

    def stop(self) -> None:
        processes.stop(self._process)

    def __exit__(self, *exc: object) -> None:
        self.session.close()
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    # -- by hand, without the collection -------------------------------------------------------------------------------

    def call(self, method: str, path: str, **more: t.Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.url}/v2/{path}"
        return self.session.request(method, url, timeout=20, **more)

    def blob(self, repository: str, data: bytes) -> str:
        """Upload a layer or a configuration; its digest."""
        begun = self.call("POST", f"{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        where = begun.headers["Location"]
        digest = digest_of(data)
        done = self.call("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}", data=data)
        assert done.status_code == 201, done.text
        return digest

    def manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> None:
        done = self.call("PUT", f"{repository}/manifests/{reference}", data=data, headers={"Content-Type": media_type})
        assert done.status_code == 201, done.text

    def push(self, repository: str, tag: str, content: str, family: str = "oci", size: int = 0) -> Stored:
        """An image for one platform: a configuration and one layer of ``size`` bytes or a few."""
        unused, manifest_type, config_type, layer_type = TYPES[family]
        content = f"{repository} {content}"  # what one test breaks is no other's: a registry keeps equal bytes once
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"content": content}}}).encode()
        layer = f"layer of {content}".encode() + b"\0" * size
        config_digest, layer_digest = self.blob(repository, config), self.blob(repository, layer)
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": config_digest, "size": len(config)},
            "layers": [{"mediaType": layer_type, "digest": layer_digest, "size": len(layer)}],
        }
        # spaces and order as no serializer would write them: they must survive
        data = json.dumps(manifest, indent=3, sort_keys=True).encode() + b"\n\n"
        self.manifest(repository, tag or digest_of(data), manifest_type, data)
        return Stored(digest_of(data), manifest_type, data, config_digest, layer_digest)

    def push_index(self, repository: str, tag: str, content: str, family: str = "oci") -> Stored:
        """An image for two platforms."""
        entries = []
        for architecture in ("amd64", "arm64"):
            child = self.push(repository, "", f"{content} {architecture}", family)
            platform = {"architecture": architecture, "os": "linux"}
            entries.append({"mediaType": child.media_type, "digest": child.digest, "size": len(child.data), "platform": platform})
        data = json.dumps({"schemaVersion": 2, "mediaType": TYPES[family][0], "manifests": entries}, indent=1).encode() + b" \n"
        self.manifest(repository, tag or digest_of(data), TYPES[family][0], data)
        return Stored(digest_of(data), TYPES[family][0], data)

    def get(self, repository: str, reference: str) -> tuple[str, str, bytes] | None:
        """Digest of the bytes, media type and bytes, as the registry hands them out to somebody who takes everything."""
        answer = self.call("GET", f"{repository}/manifests/{reference}", headers={"Accept": ANY})
        deadline = time.monotonic() + 2
        while answer.status_code == 500 and time.monotonic() < deadline:  # while the file of a tag is being written
            answer = self.call("GET", f"{repository}/manifests/{reference}", headers={"Accept": ANY})
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        return digest_of(answer.content), answer.headers["Content-Type"], answer.content

    def names(self, repository: str, tag: str) -> str | None:
        found = self.get(repository, tag)
        return found[0] if found else None

    def tags(self, repository: str) -> list[str]:
        return sorted(self.call("GET", f"{repository}/tags/list").json().get("tags") or [])

    def lose(self, repository: str, digest: str) -> None:
        """What garbage collection does to a layer, or a damaged disk."""
        folder = digest.partition(":")[2]
        shutil.rmtree(self.root / "storage/docker/registry/v2/repositories" / repository / "_layers/sha256" / folder)
        shutil.rmtree(self.root / "storage/docker/registry/v2/blobs/sha256" / folder[:2] / folder)

    def requests_seen(self) -> list[str]:
        """Method and path of every request, out of its own log."""
        return re.findall(r'"((?:GET|HEAD|PUT|POST|PATCH|DELETE) \S+) HTTP', self.log.read_text(encoding="utf-8", errors="replace"))


def htpasswd(folder: pathlib.Path) -> dict[str, t.Any]:
    """The section ``auth`` for the one user."""
    path = folder / "htpasswd"
    path.write_text(f"{USER}:$2b$04$abcdefghijklmnopqrstuuz./AUnaO5fXQHpCUdyC7vtW2pousDAK\n", encoding="utf-8")
    return {"htpasswd": {"realm": "payments", "path": str(path)}}
