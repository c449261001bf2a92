# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The containers of one compose project, as the engine itself sees them; compose is asked nothing."""

from __future__ import annotations

import os
import re
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.payops.rollback.plugins.module_utils._docker import _engine
from ansible_collections.payops.rollback.plugins.module_utils._docker._engine import Engine
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

LABEL = "com.docker.compose."
# Until the container that it replaces is gone, compose calls the new one so, and starts it only under its own name.
HALF = re.compile(r"[0-9a-f]{12}_")
Address = t.Tuple[str, int]


class Container(t.NamedTuple):
    id: str
    name: str
    project: str
    service: str
    image: str  # the image's ID
    made_from: str  # what the image was called when the container was made
    status: str  # created, running, paused, restarting, removing, exited, dead
    restarts: int
    started: str
    exit_code: int
    health: str  # of its own health check; empty without one
    config_hash: str
    policy: dict[str, t.Any]
    ports: tuple[Address, ...]  # fixed addresses of the host
    volumes: tuple[str, ...]  # named volumes and writable folders of the host
    network: str
    env: dict[str, str]

    @property
    def alive(self) -> bool:
        return self.status in ("running", "restarting", "paused")

    @property
    def half(self) -> bool:
        """Made by a compose that was killed before it had replaced another one; it never ran."""
        return self.status == "created" and bool(HALF.match(self.name))


def _container(found: dict[str, t.Any]) -> Container:
    state, config, host = found.get("State") or {}, found.get("Config") or {}, found.get("HostConfig") or {}
    labels = config.get("Labels") or {}
    ports = set(_fixed_ports(host.get("PortBindings") or {}, (found.get("NetworkSettings") or {}).get("Ports") or {}))
    volumes = [str(each.get("Name") or each.get("Source")) for each in found.get("Mounts") or [] if each.get("RW")]
    pairs = (str(each).partition("=") for each in config.get("Env") or [])
    return Container(
        id=str(found["Id"]),
        name=str(found.get("Name") or "").lstrip("/"),
        project=str(labels.get(f"{LABEL}project") or ""),
        service=str(labels.get(f"{LABEL}service") or ""),
        image=str(found.get("Image") or ""),
        made_from=str(config.get("Image") or ""),
        status=str(state.get("Status") or ""),
        restarts=int(found.get("RestartCount") or 0),
        started=str(state.get("StartedAt") or ""),
        exit_code=int(state.get("ExitCode") or 0),
        health=str((state.get("Health") or {}).get("Status") or ""),
        config_hash=str(labels.get(f"{LABEL}config-hash") or ""),
        policy=dict(host.get("RestartPolicy") or {}),
        ports=tuple(sorted(ports)),
        volumes=tuple(sorted(volumes)),
        network=str(host.get("NetworkMode") or ""),
        env={key: value for key, unused, value in pairs},
    )


def _fixed_ports(wanted: t.Mapping[str, t.Any], taken: t.Mapping[str, t.Any]) -> t.Iterator[Address]:
    """What was asked for by number. Of a range each container takes one, which is known only while it runs."""
    for inside, bindings in wanted.items():
        for each in bindings or []:
            host, published = str(each.get("HostIp") or ""), str(each.get("HostPort") or "")
            if published.isdigit():
                yield host, int(published)
            elif "-" in published:
                yield from ((host, int(one["HostPort"])) for one in taken.get(inside) or [] if str(one.get("HostPort") or "").isdigit())


class Containers:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # -- reading -------------------------------------------------------------------------------------------------------

    def of_project(self, project: str) -> list[Container]:
        """All containers of a project, but those of ``compose run`` and the halves."""
        return [each for each in self._of_project(project) if not each.half]

    def halves_of(self, project: str) -> list[Container]:
        """What is in the way of every further ``up``: compose cannot make a container of that name again, and fails."""
        return [each for each in self._of_project(project) if each.half]

    def _of_project(self, project: str) -> list[Container]:
        return self._listed([f"{LABEL}project={project}", f"{LABEL}oneoff=False"])

    def projects_in(self, folder: str) -> list[str]:
        """Projects whose containers were made from compose files in ``folder``, whichever way people went there."""
        client = self.engine.client()
        with self.engine.readable_errors("listing containers"):
            told = [each.get("Labels") or {} for each in client.containers(all=True, filters={"label": f"{LABEL}project"})]
        places = [(str(each[f"{LABEL}project"]), str(each.get(f"{LABEL}project.working_dir") or "/")) for each in told]
        return sorted({project for project, place in places if os.path.realpath(place) == folder})

    def _listed(self, labels: list[str]) -> list[Container]:
        client = self.engine.client()
        with self.engine.readable_errors("listing containers"):
            ids = [str(each["Id"]) for each in client.containers(all=True, filters={"label": labels})]
        found = []
        for identity in ids:
            with self.engine.readable_errors("looking at a container"):
                try:
                    found.append(_container(client.inspect_container(identity)))
                except _engine.docker.errors.NotFound:
                    continue  # it went while we looked
        return sorted(found, key=lambda each: (each.service, each.name))

    def images_in_use(self) -> set[str]:
        """The images of all containers of the engine, whosever they are and whether they run."""
        client = self.engine.client()
        with self.engine.readable_errors("listing containers"):
            return {str(each["ImageID"]) for each in client.containers(all=True)}

    def log_tail(self, container: Container, lines: int = 6) -> str:
        client = self.engine.client()
        try:
            data: bytes = client.logs(container.id, tail=40, stdout=True, stderr=True)
        except Exception:  # a log driver that cannot be read is no reason to fail
            return ""
        told = [
            line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip() and not line.lstrip().startswith("at ")
        ]
        return " | ".join(told[-lines:])

    # -- acting --------------------------------------------------------------------------------------------------------

    def stop(self, containers: t.Sequence[Container], seconds: float) -> None:
        """Ask all of them at once to end (SIGTERM, after ``seconds`` SIGKILL), and wait."""
        if not containers:
            return
        with ThreadPoolExecutor(max_workers=min(8, len(containers))) as pool:
            for done in [pool.submit(self._stop, each, seconds) for each in containers]:
                done.result()

    def _stop(self, container: Container, seconds: float) -> None:
        # a connection of its own: several answers are waited for at the same time, each for long
        connection = self.engine.connection
        engine = Engine(connection._replace(timeout=int(connection.timeout + seconds)))
        try:
            client = engine.client()
            with engine.readable_errors(f"stopping {container.name}"):
                try:
                    client.stop(container.id, timeout=max(0, round(seconds)))
                except _engine.docker.errors.NotFound:
                    return
        finally:
            engine.close()

    def remove(self, containers: t.Iterable[Container]) -> None:
        client = self.engine.client()
        for each in containers:
            with self.engine.readable_errors(f"removing {each.name}"):
                try:
                    client.remove_container(each.id, force=True)
                except _engine.docker.errors.NotFound:
                    continue

    def set_policy(self, container: Container, policy: t.Mapping[str, t.Any]) -> None:
        """The restart policy: what was stopped on purpose must not come back with the engine's next start."""
        client = self.engine.client()
        with self.engine.readable_errors(f"setting the restart policy of {container.name}"):
            try:
                client.update_container(container.id, restart_policy=dict(policy))
            except _engine.docker.errors.NotFound:
                return

    # -- images --------------------------------------------------------------------------------------------------------

    def image(self, name: str) -> dict[str, t.Any] | None:
        """ID, tags, digests and labels of an image; None where the engine does not have it."""
        found = self.engine.inspect(name)
        if found is None:
            return None
        return {
            "image": str(found["Id"]),
            "tags": sorted(found.get("RepoTags") or []),
            "digests": sorted(found.get("RepoDigests") or []),
            "labels": dict((found.get("Config") or {}).get("Labels") or {}),
            "size": int(found.get("Size") or 0),
        }

    def pull(self, digest: str) -> None:
        """``digest`` is ``repository@sha256:...``: nothing else is ever pulled."""
        repository, at, identity = digest.partition("@")
        if not at:
            raise RollbackError(f"{digest!r} is no digest, so it is not pulled.")
        client = self.engine.client()
        with self.engine.readable_errors(f"pulling {digest}"):
            client.pull(repository, tag=identity)

    def save(self, identity: str, path: str) -> None:
        client = self.engine.client()
        with self.engine.readable_errors(f"saving {identity}"), open(path, "wb") as handle:
            for chunk in client.get_image(identity):
                handle.write(chunk)

    def load(self, path: str) -> None:
        client = self.engine.client()
        with self.engine.readable_errors(f"loading {path}"), open(path, "rb") as handle:
            for told in client.load_image(handle) or ():
                if isinstance(told, dict) and told.get("error"):
                    raise RollbackError(f"The engine could not load {path}: {told['error']}.")

    def untag(self, name: str) -> None:
        """Take a name away; an image that had no other goes with it."""
        client = self.engine.client()
        with self.engine.readable_errors(f"removing the tag {name}"):
            try:
                client.remove_image(name, force=False, noprune=False)
            except _engine.docker.errors.ImageNotFound:
                return
