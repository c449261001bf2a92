# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""One compose project as a component: what is true of it, what is remembered of it, and which image each service has.

The state file remembers between runs, beside what image_retag writes there::

    project   its name, for the day on which the compose file cannot be read
    switch    {to, from, run, at, back}      only while a switch is under way
    live      {version, release, images, refs, set, run, at}
    kept      the same of what the last switch replaced
    staged    the same of what was made ready
    hold      {since, deadline, run, ports}
    ports     [[host, port]] when they were last seen: of a range a container that is stopped has none
    policies  container -> restart policy, while it is stopped on purpose
    beside    {project, images, ports, proxies, version, run, at}, while a second project may be there (_beside.py)
    outage_ms the last measured one of a plain recreate

A record {version, release, images: {service: ID}, refs: {service: image name}, set} says all that is needed to get there.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._compose import Compose, Spec
from ansible_collections.payops.rollback.plugins.module_utils._docker._containers import Address, Container, Containers
from ansible_collections.payops.rollback.plugins.module_utils._docker._files import Files, FileSet, set_hash
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import DIGEST, parse_tag
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, now, read_json, sha256_bytes, write_json
from ansible_collections.payops.rollback.plugins.module_utils._points import newest_with
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

Record = t.Dict[str, t.Any]
VERSION_LABEL = "org.opencontainers.image.version"


class Settings(t.NamedTuple):
    """The options of the module that say how, not what."""

    services: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    config_from: str = "point"
    archive_images: bool = False
    kept_prefix: str = "payops-kept-"
    probes: tuple[dict[str, t.Any], ...] = ()
    version_path: str | None = None
    successes: int = 3
    interval: float = 0.2
    hold_seconds: int = 900
    retry_after: int = 30
    stable_seconds: float = 3.0
    wait_seconds: float = 60.0
    drain_seconds: float = 10.0
    proxied_ports: tuple[int, ...] = ()
    proxied_against: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    next_ports: tuple[int, ...] = ()


class Scene(t.NamedTuple):
    """What is true at one moment."""

    project: str
    files: FileSet
    spec: Spec  # the services as the files say now; empty where compose cannot read them
    containers: list[Container]  # of the services that are rolled back

    def of(self, service: str) -> list[Container]:
        return [each for each in self.containers if each.service == service]

    @property
    def alive(self) -> list[Container]:
        return [each for each in self.containers if each.alive]


def release_of(images: t.Mapping[str, str]) -> str:
    """The release: which image each service has."""
    return sha256_bytes(canonical_json(dict(images)))


class Stack:
    def __init__(
        self, paths: Paths, run: Run, settings: Settings, compose: Compose, containers: Containers, files: Files, name: str | None
    ) -> None:
        self.paths = paths
        self.run = run
        self.settings = settings
        self.compose = compose
        self.containers = containers
        self.files = files
        self.given_name = name
        self.actions: list[str] = []
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """For sentences."""
        return self.given_name or str(self.state().get("project") or os.path.basename(self.files.folder))

    # -- what is remembered ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, t.Any]:
        state = read_json(self.paths.state(COMPONENT), {})
        return state if isinstance(state, dict) else {}

    def remember(self, **changes: t.Any) -> dict[str, t.Any]:
        """Write the state file anew; None forgets a key."""
        state = {key: value for key, value in {**self.state(), **changes}.items() if value is not None}
        write_json(self.paths.state(COMPONENT), state, self.paths.file_mode)
        return state

    # -- what is true ------------------------------------------------------------------------------------------------

    def read(self, files: FileSet, base: str | None = None) -> tuple[list[str], list[str]]:
        """Paths of the compose files of a set and of those that fill them in, in the project's folder or in a kept set."""
        return (
            [self.files.path(name, base) for name in self.files.compose_files(files)],
            [self.files.path(name, base) for name in self.files.interpolated(files)],
        )

    def look(self) -> Scene:
        files = self.files.read()
        try:
            self.files.require(files)
            spec = self.compose.config(self.given_name, *self.read(files))
            project = str(spec.get("name"))
        except RollbackError as exc:
            # What is left may have broken a file, or lost it.
            spec, project = {}, self._project_by_engine(exc)
        services = self._services(spec)
        return Scene(project, files, spec, [each for each in self.containers.of_project(project) if each.service in services])

    def look_to_stop(self) -> Scene:
        """To stop containers neither the files nor compose itself are needed: an emergency goes by the engine, if it must."""
        try:
            self.compose.require()
            scene = self.look()
            if scene.containers or self.given_name:
                return scene
            project = self._found_by_engine() or scene.project  # the file may name another project by now than the one that runs
        except RollbackError as exc:
            project = self._project_by_engine(exc)
        services = self.settings.services
        found = self.containers.of_project(project)
        return Scene(project, {}, {}, [each for each in found if not services or each.service in services])

    def _project_by_engine(self, exc: RollbackError) -> str:
        known = self.given_name or self._found_by_engine()
        if known is None:
            raise exc
        self.notes.append(str(exc))
        return known

    def _found_by_engine(self) -> str | None:
        """The name that is remembered if it has containers, else that of the containers which were made in this folder."""
        state = self.state()
        remembered = str(state.get("project") or "")
        if remembered and self.containers.of_project(remembered):
            return remembered
        twin = (state.get("beside") or {}).get("project")
        found = [name for name in self.containers.projects_in(self.files.folder) if name != twin]
        if len(found) == 1:
            return found[0]
        return None if found else remembered or None

    def _services(self, spec: Spec) -> tuple[str, ...]:
        there = spec.get("services") or {}
        if not self.settings.services:
            return tuple(sorted(there))
        missing = [name for name in self.settings.services if there and name not in there]
        if missing:
            raise RollbackError(
                f"The compose file of {self.files.folder} has no service {missing[0]}; it has {', '.join(sorted(there)) or 'none'}. Correct services."
            )
        return self.settings.services

    def services(self, scene: Scene) -> tuple[str, ...]:
        return self._services(scene.spec) or tuple(sorted({each.service for each in scene.containers}))

    def reference(self, spec: Spec, project: str, service: str) -> str | None:
        """The name by which the compose file asks for the image; None for a digest, which names the same image for ever."""
        told = ((spec.get("services") or {}).get(service) or {}).get("image") or f"{project}-{service}"
        return None if "@" in told else str(parse_tag(f"image of service {service}", told))

    def images(self, scene: Scene, strict: bool = True) -> dict[str, str]:
        """Service -> ID of the image that its containers run, or ran last.

        A deployment that died half way leaves several. Unless ``strict``, the service has the one that its name names, which is where
        it was going, or else that of its newest container.
        """
        found: dict[str, str] = {}
        for service in self.services(scene):
            own = scene.of(service)
            told = {each.image for each in own if each.alive} or {each.image for each in own}
            if len(told) > 1 and not strict:
                reference = self.reference(scene.spec, scene.project, service)
                named = (self.containers.image(reference) or {}).get("image") if reference else None
                newest = max((each for each in own if each.image in told), key=lambda each: each.started)
                told = {str(named) if named in told else newest.image}
                self.notes.append(
                    f"The containers of service {service} run several images; {next(iter(told))[7:19]} counts as what it is at."
                )
            if len(told) > 1:
                raise RollbackError(
                    f"The containers of service {service} run {len(told)} different images ({', '.join(sorted(image[7:19] for image in told))}). "
                    f"Bring them to one first: docker compose up --detach {service}"
                )
            reference = self.reference(scene.spec, scene.project, service) if not told else None
            image = next(iter(told), None) or ((self.containers.image(reference) or {}).get("image") if reference else None)
            if image is None:
                raise RollbackError(
                    f"Service {service} of project {scene.project} has no container, and no image {reference or ''} is there. "
                    f"Start it once: docker compose up --detach {service}"
                )
            found[service] = image
        if not found:
            raise RollbackError(f"Project {scene.project} has no service to roll back. Name some in services.")
        return found

    def live_record(self, scene: Scene, strict: bool = False) -> Record:
        images = self.images(scene, strict)
        release = release_of(images)
        refs = {service: self._called(scene, service) for service in images}
        version = newest_with(self.paths, COMPONENT, release)
        known = self.state().get("live") or {}
        if known.get("release") == release and known.get("set") == set_hash(scene.files) and known.get("version"):
            version = known["version"]
        return {
            "version": version,
            "release": release,
            "images": images,
            "refs": refs,
            "set": set_hash(scene.files),
            **self.app_version(images),
        }

    def _called(self, scene: Scene, service: str) -> str | None:
        """The name of its image, also where the file that says it cannot be read."""
        made_from = next((each.made_from for each in scene.of(service)), "")
        if service in (scene.spec.get("services") or {}) or not made_from:
            return self.reference(scene.spec, scene.project, service)
        return None if "@" in made_from or DIGEST.match(made_from) else str(parse_tag(f"image of service {service}", made_from))

    def app_version(self, images: t.Mapping[str, str]) -> dict[str, t.Any]:
        """What the image of the first service says of itself."""
        first = next((images[name] for name in (*self.settings.services, *sorted(images)) if name in images), None)
        labels = (self.containers.image(first) or {}).get("labels", {}) if first else {}
        return {"app_version": labels.get(VERSION_LABEL)}

    def has_config(self, record: Record, scene: Scene) -> bool:
        return self.settings.config_from == "live" or record["set"] == set_hash(scene.files)

    def tags_named(self, record: Record) -> bool:
        return all(
            reference is None or (self.containers.image(reference) or {}).get("image") == record["images"][service]
            for service, reference in record["refs"].items()
        )

    def is_at(self, record: Record, scene: Scene) -> bool:
        """Whether containers, tags and files are those of the record; whether they run is another question."""
        try:
            images = self.images(scene)
        except RollbackError:
            return False
        return (
            images == record["images"]
            and all(scene.of(service) for service in images)
            and self.has_config(record, scene)
            and self.tags_named(record)
        )

    def differing(self, record: Record, scene: Scene) -> dict[str, int]:
        """Service -> number of its containers, where they do not run the record's image; all while a switch is under way.

        Whether a container fits the files is known to compose alone, which leaves those that do as they are.
        """
        everything = bool(self.state().get("switch"))
        return {
            service: len(scene.of(service))
            for service, image in record["images"].items()
            if everything or not scene.of(service) or any(each.status != "running" or each.image != image for each in scene.of(service))
        }

    def must_be_alone(self, scene: Scene, before: str | None) -> bool:
        """Whether compose would also change something that the services depend on, a database for example."""
        services = scene.spec.get("services") or {}
        others = set(services) - set(self.services(scene))
        if not others:
            return False
        if before is not None and before != set_hash(scene.files):
            try:
                files = self.files.kept(before)
                old = self.compose.config(scene.project, *self.read(files, self.files.place_of(before))).get("services") or {}
            except RollbackError:
                self.notes.append(
                    "What the services depend on was left unlooked at, because the files before cannot be read. "
                    "Some versions of compose recreate the services once more at the next docker compose up."
                )
                return True
            if any(services[name] != old.get(name) for name in others):
                return True
        for each in self.containers.of_project(scene.project):
            if each.service in others:
                reference = self.reference(scene.spec, scene.project, each.service)
                if reference and (self.containers.image(reference) or {}).get("image") not in (None, each.image):
                    return True
        return False

    def runs(self, record: Record, scene: Scene) -> bool:
        return self.is_at(record, scene) and all(each.status == "running" and each.health in ("", "healthy") for each in scene.containers)

    # -- acting --------------------------------------------------------------------------------------------------------

    def up(self, scene: Scene, services: t.Mapping[str, int], start: bool = True, alone: bool = False) -> None:
        """``docker compose up`` of the project, also after one that was killed half way."""
        self.run.fence()
        self.containers.remove(self.containers.halves_of(scene.project))
        self.compose.up(scene.project, *self.read(scene.files), services=services, start=start, alone=alone)

    # -- addresses -----------------------------------------------------------------------------------------------------

    def addresses(self, scene: Scene) -> list[Address]:
        """Fixed addresses of the host at which customers reach the services; known from before while no container is there."""
        found = sorted({port for each in scene.containers for port in each.ports} | {("", port) for port in self.settings.ports})
        state = self.state()
        known = (state.get("hold") or {}).get("ports") or state.get("ports") or []
        return found or [(str(host), int(port)) for host, port in known]

    def remember_seen(self, scene: Scene) -> None:
        """What only a project that runs, and can be read, tells."""
        self.remember(project=scene.project, ports=[list(each) for each in self.addresses(scene)])

    # -- a switch ------------------------------------------------------------------------------------------------------

    def begin(self, to: Record, leaving: Record, undone: bool) -> Record:
        """Write down what is about to happen; a switch that is under way already stays as it is, in its new direction."""
        old = self.state().get("switch")
        if old:
            sides = {side_of(old[name]): old[name] for name in ("to", "from")}
            if side_of(to) not in sides:
                raise RollbackError(
                    f"An unfinished switch from {named(old['from'])} to {named(old['to'])} (run {old.get('run')}) was found. "
                    f"Finish it with state=live and version={old['to'].get('version')}, or go back with state=previous.",
                    unfinished=shown(old),
                )
            leaving = next((record for side, record in sides.items() if side != side_of(to)), old["from"])
        switch = {"to": plain(to), "from": plain(leaving), "run": self.run.run_id, "at": now(), "back": undone}
        self.remember(switch=switch)
        return switch

    def finish(self, undone: bool) -> None:
        switch = self.state().get("switch")
        if not switch:
            return
        mark = {"run": self.run.run_id, "at": now()}
        self.remember(live={**switch["to"], **mark}, kept={**switch["from"], **mark}, switch=None, staged=None, undone=undone or None)

    def back(self) -> Record:
        """What an unfinished switch leaves, or what the last finished one replaced."""
        state = self.state()
        switch = state.get("switch") or {}
        record: Record | None = switch.get("to" if switch.get("back") else "from") or state.get("kept")
        if not record:
            raise RollbackError(
                f"There is no previous release of {self.name}: no switch was made, or it was completed. Choose a point with state=live and version=..."
            )
        return record


def side_of(record: Record) -> tuple[t.Any, t.Any]:
    return record.get("release"), record.get("set")


def named(record: Record) -> str:
    return str(record.get("version") or f"release {str(record.get('release'))[:12]}")


def plain(record: Record) -> Record:
    return {key: record.get(key) for key in ("version", "release", "images", "refs", "set", "app_version")}


def shown(switch: Record | None) -> Record | None:
    """For results: which way it goes."""
    if not switch:
        return None
    return {"to": named(switch["to"]), "from": named(switch["from"]), "run": switch.get("run"), "at": switch.get("at")}
