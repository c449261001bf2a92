# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Blue/green: a second project serves while the services of the first one are recreated.

    beside      the second project <name>-next runs the wished-for images on other ports, probed. The first one is not touched
    (routed)    the proxy sends new connections there, and has none to the first one any more; see haproxy_servers
    ...         the first project is switched as always; nobody is there to notice
    (routed)    the proxy sends new connections to the first project again
    alone       the second project is removed

So the live project keeps its name, its ports and its containers' names: the team's next ``docker compose up`` finds nothing to do, and
the next rollback starts from the same place. Traffic moves twice, which the proxy does without losing a request. The alternative, a
second project that stays, would need two ports in the proxy's configuration for ever, and a team that knows which one is live today.

The second project is one generated file with everything filled in, made from what compose itself reads in the files of the release:
one service for each that the proxy reaches, in the networks of the first project, under another name there, so that nobody in the
project finds it by chance. State file, below "beside": {project, images, ports, proxies, version, run, at}, from before it is made
until it is gone.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._compose import Spec
from ansible_collections.payops.rollback.plugins.module_utils._docker._judge import Demand, await_containers
from ansible_collections.payops.rollback.plugins.module_utils._docker._kept import secure
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import kept_tag, parse_tag
from ansible_collections.payops.rollback.plugins.module_utils._docker._stack import Record, Scene, Stack, named
from ansible_collections.payops.rollback.plugins.module_utils._docker._switch import first_answer
from ansible_collections.payops.rollback.plugins.module_utils._docker._way import SUFFIX, Way, published
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, now, write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._probed import aimed, await_probes, expecting, spare_port

FILE = "docker.next.json"
# What a twin must not have: it is one container, from an image that is there, that waits for nobody.
LEFT_OUT = ("build", "container_name", "depends_on", "deploy", "env_file", "external_links", "links", "profiles", "scale")


def bring_up(stack: Stack, scene: Scene, to: Record, way: Way) -> None:
    """The second project runs and is healthy; if it cannot be, it is stopped again, and the first one was not touched."""
    project = scene.project + SUFFIX
    ports = _ports(stack)
    images = {f"{name}{SUFFIX}": to["images"][name] for name in way.services}
    with stack.run.step("beside", project=project, ports=ports) as learnt:
        secure(stack, to["images"], to["refs"])
        spec = _generated(stack, scene, to, way, ports)
        remembered = {"project": project, "images": images, "ports": {str(old): new for old, new in ports.items()}}
        remembered["proxies"] = sorted({*stack.settings.proxies, *((stack.state().get("beside") or {}).get("proxies") or [])})
        stack.remember(beside={**remembered, "version": to.get("version"), "run": stack.run.run_id, "at": now()}, project=scene.project)
        stack.containers.remove(stack.containers.of_project(project))
        path = os.path.join(stack.paths.run, FILE)
        write_atomic(path, canonical_json(spec), 0o600)  # there are passwords in it
        try:
            stack.run.fence()
            stack.compose.up(project, [path], [], dict.fromkeys(images, 1), alone=True)
            learnt["seconds"] = _judge(stack, to, spec, project, images, ports)
        except Fenced:
            raise
        except RollbackError as exc:
            stack.containers.remove(stack.containers.of_project(project))
            raise RollbackError(f"{exc} That was beside the live services, which were not touched.", **exc.details) from exc
    where = ", ".join(f"{new} instead of {old}" for old, new in ports.items())
    stack.actions.append(f"{project} runs {named(to)} beside {scene.project}, on port {where}, healthy")


def require_proxies(stack: Stack) -> None:
    """Whoever may send customers to the second project takes part in this run, so that it sends them back before that project goes."""
    twin = stack.state().get("beside") or {}
    absent = [name for name in twin.get("proxies") or [] if name not in stack.settings.proxies]
    if absent:
        raise RollbackError(
            f"An interrupted run left {twin['project']} serving, and {', '.join(absent)} may send customers there, but no such proxy takes part "
            f"in this run. Nothing was removed: run the same command without --limit, with {', '.join(absent)} reachable and "
            "rollback_haproxy_servers as it was."
        )


def take_away(stack: Stack) -> None:
    """The second project ends: it may answer the requests that it has, and is gone after that."""
    twin = stack.state()["beside"]
    with stack.run.step("alone", project=twin["project"]):
        found = stack.containers.of_project(twin["project"])
        stack.containers.stop([each for each in found if each.alive], stack.settings.drain_seconds)
        stack.containers.remove(found)
        path = os.path.join(stack.paths.run, FILE)
        if os.path.exists(path):
            os.unlink(path)
        stack.remember(beside=None)
    stack.actions.append(f"removed {twin['project']}")


def _ports(stack: Stack) -> dict[int, int]:
    """Each port at which the proxy reaches this host -> the twin's. Those of a twin that is remade stay: a proxy may be there."""
    wanted = sorted(stack.settings.proxied_ports)
    known = {int(old): int(new) for old, new in ((stack.state().get("beside") or {}).get("ports") or {}).items()}
    if sorted(known) == wanted:
        return known
    given = stack.settings.next_ports
    if given and len(given) < len(wanted):
        raise RollbackError(
            f"next_ports names {len(given)} ports, but the proxy reaches this host at {len(wanted)} ({', '.join(map(str, wanted))}). "
            "Name one for each, in this order, or none."
        )
    return {old: given[number] if given else spare_port() for number, old in enumerate(wanted)}


def _judge(stack: Stack, to: Record, spec: Spec, project: str, images: dict[str, str], ports: t.Mapping[int, int]) -> float:
    """As a switch is judged, with the probes asked at its own ports; the seconds until it answered them."""
    settings = stack.settings
    began = time.monotonic()
    demand = Demand(project, images, settings.stable_seconds, settings.wait_seconds)
    restarts: dict[str, int] = {}
    await_containers(stack.containers, demand._replace(stable=0.0, healthy=False), restarts)
    probes, what = at_ports(stack, to, spec, ports), f"{project} at {named(to)}"
    first_answer(stack, probes, demand, restarts, what, True)
    took = time.monotonic() - began
    await_containers(stack.containers, demand, restarts)
    await_probes(probes, settings.successes, settings.wait_seconds, settings.interval, what)
    return round(took, 3)


def at_ports(stack: Stack, to: Record, spec: Spec, ports: t.Mapping[int, int]) -> list[dict[str, t.Any]]:
    """The probes that ask the services themselves, each at another port; at the least whether the port answers.

    Probes of the proxy or of anything else say nothing about them.
    """
    probes = expecting(stack.settings.probes, stack.settings.version_path, to.get("app_version"))
    found = []
    for old, new in ports.items():
        told = [
            each for service in spec["services"].values() for each in service.get("ports") or [] if str(each.get("published")) == str(new)
        ]
        host = next((each["host_ip"] for each in told if each.get("host_ip") not in (None, "", "0.0.0.0", "::")), "127.0.0.1")
        found += aimed(probes, old, new, host)
    return found


# -- the generated file ---------------------------------------------------------------------------------------------------


def _generated(stack: Stack, scene: Scene, to: Record, way: Way, ports: t.Mapping[int, int]) -> Spec:
    spec = way.spec
    services: dict[str, t.Any] = {}
    networks: dict[str, t.Any] = {}
    for name in way.services:
        found = spec["services"][name]
        own = dict.fromkeys(found.get("networks") or {"default": None})
        for key in own:
            there = (spec.get("networks") or {}).get(key) or {}
            networks[key] = {"name": there.get("name") or f"{scene.project}_{key}", "external": True}
        services[f"{name}{SUFFIX}"] = {
            **{key: value for key, value in found.items() if key not in LEFT_OUT},
            "container_name": f"{scene.project}{SUFFIX}-{name}",
            "image": _image(stack, to, name, found),
            "pull_policy": "never",
            "networks": own,
            "ports": [
                {**each, "published": str(ports[int(each["published"])])}
                for each in found.get("ports") or []
                if str(each.get("published")).isdigit() and int(each["published"]) in ports and int(each["published"]) in published(found)
            ],
            "environment": way.environments[name],
        }
    rest = {key: spec[key] for key in ("configs", "secrets") if spec.get(key)}
    return {"name": scene.project + SUFFIX, "services": services, "networks": networks, **rest}


def _image(stack: Stack, to: Record, service: str, found: t.Mapping[str, t.Any]) -> str:
    """A name that is the record's image whatever the service's own name says at the moment."""
    reference = to["refs"].get(service)
    if not reference:
        return str(found["image"])  # a digest
    return str(kept_tag(parse_tag(service, reference), stack.settings.kept_prefix, to["images"][service]))
