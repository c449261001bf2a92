# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Whether somebody can serve while the services change: a second project beside the first one, behind the proxy.

Decided from the files that the services will have, since it is their release that serves there. What stands against it is told as
phrases, which the plan shows: then the services are recreated as they stand, at the cost of an outage.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._compose import Compose, Spec
from ansible_collections.payops.rollback.plugins.module_utils._docker._files import FileSet
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic

SUFFIX = "-next"
# Images of programs that keep data: never two of them on the same data, and whoever asks one must find it where it is.
KEEPS_DATA = frozenset(
    "cassandra clickhouse-server couchdb elasticsearch etcd influxdb kafka mariadb memcached minio mongo mongodb mysql nats opensearch percona "
    "pgbouncer postgis postgres postgresql rabbitmq redis timescaledb valkey zookeeper".split()
)
FIXED_ADDRESSES = ("ipv4_address", "ipv6_address", "mac_address", "link_local_ips")


class Way(t.NamedTuple):
    """``services`` get a twin, unless something is ``against`` it. Both are empty where no proxy was named."""

    services: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    spec: Spec = {}
    environments: t.Mapping[str, t.Any] = {}

    @property
    def open(self) -> bool:
        return bool(self.services) and not self.against


def way_of(stack: Stack, scene: Scene, to: Record, held: bool = False) -> Way:
    ports = stack.settings.proxied_ports
    if not ports:
        return Way()
    if held or not scene.alive:
        return Way(against=("nobody is served now, so nobody has to be sent elsewhere",))
    against = list(stack.settings.proxied_against)
    spec, described = scene.spec, scene.spec
    if not stack.has_config(to, scene) and stack.files.has(str(to["set"])):  # before it is staged, what is there has to do for the plan
        try:
            files = stack.files.kept(str(to["set"]))
            spec = stack.compose.config(scene.project, *stack.read(files, stack.files.place_of(str(to["set"]))))
            described = _with_its_files(stack, scene, files)
        except RollbackError as exc:
            return Way(against=(str(exc).rstrip("."),))
    if not stack.state().get("beside") and stack.containers.of_project(scene.project + SUFFIX):
        against.append(f"there is a project {scene.project}{SUFFIX} already, which is not ours")
    listed = {name: found for name, found in (spec.get("services") or {}).items() if name in to["images"]}
    for name, found in sorted(listed.items()):
        against += [f"service {name} {text}" for text in _data(found)]
    front: list[str] = []
    notes: list[str] = []
    for port in sorted(ports):
        owners = [name for name, found in (spec.get("services") or {}).items() if port in published(found)]
        if not owners:
            against.append(f"no service publishes port {port}, at which the proxy reaches this host")
        elif owners[0] not in listed:
            against.append(f"port {port}, at which the proxy reaches this host, belongs to service {owners[0]}, which is not rolled back")
        else:
            front.append(owners[0])
    for name in sorted(set(front)):
        against += [f"service {name} {text}" for text in _single(listed[name])]
        other = [str(port) for port in published(listed[name]) if port not in ports]
        if other:
            notes.append(
                f"Port {', '.join(other)} of service {name} is not reached by the proxy: nobody is served there while it is recreated."
            )
    environments = {name: ((described.get("services") or {}).get(name) or {}).get("environment") or {} for name in front}
    return Way(tuple(sorted(set(front))), tuple(dict.fromkeys(against)), tuple(notes), spec, environments)


def _with_its_files(stack: Stack, scene: Scene, files: FileSet) -> Spec:
    """The services with the contents of the environment files as they were then; those that lie in the project's folder are of now.

    Compose takes environment files from the project's folder only. So it reads the set once more in a folder of its own; only the
    environments of what it says there are used, for other paths in it would be wrong.
    """
    folder = tempfile.mkdtemp(prefix="docker.next.", dir=stack.paths.run if os.path.isdir(stack.paths.run) else None)  # 0700
    try:
        for name, data in files.items():
            path = os.path.normpath(os.path.join(folder, name))
            if path.startswith(f"{folder}/"):
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                write_atomic(path, data, 0o600)
            elif stack.files.read().get(name) != data:
                raise RollbackError(f"{stack.files.path(name)}, outside of the project's folder, was another file then")
        own = Compose(stack.compose.cli, stack.compose.given, stack.compose.connection, folder, stack.compose.scratch, stack.compose.group)
        inside = [
            [os.path.join(folder, name) for name in names] for names in (stack.files.compose_files(files), stack.files.interpolated(files))
        ]
        return own.config(scene.project, *inside)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def published(service: t.Mapping[str, t.Any]) -> list[int]:
    """The fixed ports of the host at which a service is reached over TCP."""
    return [
        int(each["published"])
        for each in service.get("ports") or []
        if str(each.get("published") or "").isdigit() and each.get("protocol", "tcp") == "tcp"
    ]


def _data(service: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    repository = str(service.get("image") or "").partition("@")[0]
    program = repository.rpartition("/")[2].partition(":")[0]
    if program in KEEPS_DATA:
        yield f"is a database or keeps data otherwise ({program})"
    for each in service.get("volumes") or []:
        if each.get("type") == "volume":
            yield f"has the volume {each.get('source') or each.get('target')}"
        elif each.get("type") == "bind" and not each.get("read_only"):
            yield f"may write into the folder {each.get('source')}"
    if service.get("volumes_from"):
        yield "has the volumes of another container"


def _single(service: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Why there can be one of it only."""
    if service.get("container_name"):
        yield f"has the fixed container_name {service['container_name']}"
    if service.get("network_mode"):
        yield f"has network_mode {service['network_mode']}, so its port cannot be another one"
    for network, how in (service.get("networks") or {}).items():
        if any((how or {}).get(key) for key in FIXED_ADDRESSES):
            yield f"has a fixed address in the network {network}"


# -- the second project that is there -----------------------------------------------------------------------------------------


def serving(stack: Stack) -> str | None:
    """The name of the second project, if all of it runs."""
    twin = stack.state().get("beside")
    if not twin:
        return None
    found = stack.containers.of_project(twin["project"])
    runs = all(
        any(each.service == service for each in found)
        and all(each.status == "running" and each.image == image for each in found if each.service == service)
        for service, image in twin["images"].items()
    )
    return str(twin["project"]) if runs else None


def shown(twin: Record | None) -> Record | None:
    """For results: the ports as haproxy_servers takes them, and which proxies may send customers there."""
    if not twin:
        return None
    return {
        "project": twin["project"],
        "proxies": list(twin.get("proxies") or []),
        "version": twin.get("version"),
        "services": sorted(twin["images"]),
        "ports": dict(twin["ports"]),
    }
