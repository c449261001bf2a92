# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Does the release run? Never by an exit code of compose: by image IDs, restarts that stay put, and the containers' own health."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._containers import Container, Containers
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._mask import mask

POLL = 0.1
RESTARTS = 2


class Demand(t.NamedTuple):
    """What must become true of the containers of a project."""

    project: str
    images: dict[str, str]  # service -> image ID
    stable: float
    wait: float
    healthy: bool = True  # whether their own health checks must have passed


def shortcomings(demand: Demand, containers: t.Sequence[Container]) -> list[str]:
    """What is not (yet) as demanded, one phrase each."""
    found = []
    for service, image in sorted(demand.images.items()):
        own = [each for each in containers if each.service == service]
        if not own:
            found.append(f"{service} has no container")
        for each in own:
            if each.status != "running":
                found.append(
                    f"{each.name} is {each.status}{f' (exit code {each.exit_code})' if each.status in ('exited', 'restarting') else ''}"
                )
            elif each.image != image:
                found.append(f"{each.name} runs image {each.image[7:19]}, expected {image[7:19]}")
            elif demand.healthy and each.health not in ("", "healthy"):
                found.append(f"the health check of {each.name} says {each.health}")
    return found


def hopeless(demand: Demand, containers: t.Sequence[Container], before: t.Mapping[str, int]) -> str | None:
    """A reason not to wait any longer."""
    for each in containers:
        if each.service in demand.images:
            if each.status in ("exited", "dead") and each.policy.get("Name") in ("", "no", None):
                once = " (if it is meant to run once, as a migration does, leave it out of services)" if each.exit_code == 0 else ""
                return f"{each.name} has ended with exit code {each.exit_code}{once}"
            if each.restarts - before.get(each.id, 0) >= RESTARTS:
                return f"{each.name} was restarted {each.restarts - before.get(each.id, 0)} times"
    return None


def await_containers(containers: Containers, demand: Demand, before: dict[str, int] | None = None) -> list[Container]:
    """Wait until everything demanded holds and nothing restarts for ``stable`` seconds; fail with what is missing.

    ``before`` has the restarts of each container when it was first looked at; one dict for several calls counts over all of them.
    """
    deadline = time.monotonic() + demand.wait
    calm_since, calm = 0.0, None
    before = {} if before is None else before
    while True:
        found = [each for each in containers.of_project(demand.project) if each.service in demand.images]
        for each in found:
            before.setdefault(each.id, each.restarts)
        missing = shortcomings(demand, found)
        if not missing:
            picture = [(each.id, each.started, each.restarts) for each in found]
            if picture != calm:
                calm, calm_since = picture, time.monotonic()
            if time.monotonic() - calm_since >= demand.stable:
                return found
        else:
            calm = None
        reason = hopeless(demand, found, before)
        if reason or time.monotonic() >= deadline:
            what = reason or f"after {demand.wait:.0f} s " + ("; ".join(missing) or "it does not stay stable")
            raise RollbackError(f"{demand.project} does not run as it should: {what}.{_tail(containers, found, demand)}", verdict=missing)
        time.sleep(POLL)


def _tail(containers: Containers, found: t.Sequence[Container], demand: Demand) -> str:
    """The end of the log of the container that is wrong, without the secrets of its environment."""
    for each in sorted(found, key=lambda one: (one.status == "running", -one.restarts)):
        told = containers.log_tail(each)
        if told:
            return f" The log of {each.name} ends with: {mask(told, each.env)[-700:]}"
    return ""
