# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The part of a rollback point that a compose project has: which images, by which files; and making them be here again."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._files import MAX_FILE, stored_name
from ansible_collections.payops.rollback.plugins.module_utils._docker._kept import secure
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import DIGEST, parse_tag, short
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack, release_of
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import make_dir, write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component, read_regular, verify_component
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component

FILES = "files"
IMAGES = "images"


class Target(t.NamedTuple):
    """What a version stands for."""

    record: Record
    facts: dict[str, t.Any]


def archive(stack: Stack, version: str, scene: Scene) -> dict[str, t.Any]:
    """Write the component. Its images get tags of their own, so that they outlive the next build of the same name."""
    record = stack.live_record(scene, strict=True)
    with stack.run.step("archive", version=version) as learnt, new_component(stack.paths, version, COMPONENT, stack.run.run_id) as writer:
        services = {}
        for service, image in record["images"].items():
            found = stack.containers.image(image)
            if found is None:
                raise RollbackError(
                    f"Service {service} runs image {short(image)}, which the engine has not any more; a rollback could not go back to it. "
                    f"Start it from an image that is here: docker compose up --detach {service}"
                )
            services[service] = {"image": image, "name": record["refs"][service], "digests": found["digests"], "tags": found["tags"]}
        learnt["kept"] = secure(stack, record["images"], record["refs"])
        names = {}
        make_dir(os.path.join(writer.path, FILES), stack.paths.group)
        for name, data in scene.files.items():
            names[name] = f"{FILES}/{stored_name(name)}"
            write_atomic(os.path.join(writer.path, names[name]), data, 0o600)
        saved = {}
        if stack.settings.archive_images:
            make_dir(os.path.join(writer.path, IMAGES), stack.paths.group)
            for image in sorted(set(record["images"].values())):
                saved[image] = f"{IMAGES}/{short(image)}.tar"
                stack.containers.save(image, os.path.join(writer.path, saved[image]))
                os.chmod(os.path.join(writer.path, saved[image]), 0o600)
        facts = {
            "project": scene.project,
            "path": stack.files.folder,
            "services": services,
            "files": names,
            "set": record["set"],
            "saved": saved,
            "release": record["release"],
            "app_version": record["app_version"],
        }
        manifest = writer.seal(facts)
        learnt.update(release=record["release"], size=manifest["size"])
    return {"changed": True, "release": record["release"], "size": manifest["size"]}


def target(stack: Stack, version: str, hashes: bool = True) -> Target:
    """What ``version`` stands for, its point checked: every file against the manifest, every name against its shape."""
    manifest = verify_component(stack.paths, version, COMPONENT) if hashes else load_component(stack.paths, version, COMPONENT)
    facts = manifest["facts"]
    where = f"Point {version}"
    services = facts.get("services")
    if (
        not isinstance(services, dict)
        or not services
        or not isinstance(facts.get("files"), dict)
        or not isinstance(facts.get("saved"), dict)
    ):
        raise RollbackError(f"{where} does not say which images its services had. It is damaged; choose another one.")
    images, refs = {}, {}
    for service, told in services.items():
        image = told.get("image") if isinstance(told, dict) else None
        if not isinstance(image, str) or not DIGEST.match(image):
            raise RollbackError(f"{where} names no image for service {service!a}. It is damaged; choose another one.")
        images[service] = image
        refs[service] = str(parse_tag(f"{where}, service {service}", told["name"])) if told.get("name") else None
    if release_of(images) != facts.get("release"):
        raise RollbackError(
            f"{where} names other images than those of its release {str(facts.get('release'))[:12]}. It is damaged; choose another one."
        )
    missing = sorted(set(stack.settings.services) - set(images))
    extra = sorted(set(images) - set(stack.settings.services)) if stack.settings.services else []
    if missing or extra:
        raise RollbackError(
            f"{where} has the services {', '.join(sorted(images))}, now they are {', '.join(stack.settings.services)}. "
            "Use the same list in services, or take a new point."
        )
    record = {
        "version": version,
        "release": facts["release"],
        "images": images,
        "refs": refs,
        "set": facts.get("set"),
        "app_version": facts.get("app_version"),
    }
    return Target(record, facts)


def keep_set(stack: Stack, version: str, facts: t.Mapping[str, t.Any]) -> None:
    """Keep the compose files of the point where a switch takes them from."""
    folder = stack.paths.component(version, COMPONENT)
    files = {}
    for name, stored in facts["files"].items():
        if stored != f"{FILES}/{stored_name(name)}":
            raise RollbackError(f"Point {version} keeps {name!a} under the name {stored!a}. It was tampered with; choose another one.")
        files[name] = read_regular(os.path.join(folder, stored), MAX_FILE)
    stack.files.keep(stack.files.checked(files, str(facts.get("set")), f"point {version}"))


def missing_images(stack: Stack, record: Record) -> list[str]:
    return sorted(image for image in set(record["images"].values()) if stack.containers.image(image) is None)


def how_to_get(stack: Stack, found: Target, image: str) -> tuple[str, str]:
    """("load", file), ("pull", digest) or ("", why neither)."""
    saved = found.facts["saved"].get(image)
    if saved:
        return "load", os.path.join(stack.paths.component(found.record["version"], COMPONENT), IMAGES, f"{short(image)}.tar")
    for told in found.facts["services"].values():
        if told["image"] == image:
            for digest in told.get("digests") or []:
                return "pull", str(digest)
    return "", "it was built here and never pushed, and the point holds no archive of it (archive_images)"


def fetch(stack: Stack, found: Target) -> list[str]:
    """Make every image be here; what was done, one sentence each."""
    done = []
    against = []
    for image in missing_images(stack, found.record):
        how, what = how_to_get(stack, found, image)
        names = ", ".join(name for name, each in found.record["images"].items() if each == image)
        if not how:
            against.append(f"Image {short(image)} of {names} is gone: {what}.")
            continue
        with stack.run.step(how, image=image):
            (stack.containers.load if how == "load" else stack.containers.pull)(what)
        if stack.containers.image(image) is None:
            against.append(f"{what} was {how}ed, but the engine has no image {short(image)} after it.")
        else:
            done.append(f"{how}ed image {short(image)} of {names} {'from the point' if how == 'load' else f'as {what}'}")
    if against:
        raise RollbackError(
            f"{' '.join(against)} Nothing live was touched; choose another point, or bring the image here.", blockers=against
        )
    return done
