# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part C: a compose application behind a proxy goes from one release to another while customers ask, in each way, several times; and
a tag in a registry names another image, by one request and by pull, tag and push, for images of several sizes."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import tempfile
import threading
import time
import typing as t
import urllib.request

from tests.bench import call
from tests.bench.common import Missing, Options, attempt, say
from tests.bench.stats import Records, outage, rotated
from tests.lab import compose, images, traffic
from tests.lab import registry as lab_registry
from tests.lab.docker import Engine
from tests.lab.registry import Registry
from tests.real.docker.proxied_rig import ProxiedRig

SWITCHES = ("blue-green", "in-place", "by-hand")
SIZES = (1, 50, 200)  # MB
TAIL = 1.5
PATIENCE = 10.0


class Customers:
    """A request every 1/rate seconds, each on a new connection and in a thread of its own: nobody waits for anybody."""

    def __init__(self, port: int, rate: float) -> None:
        self.url = f"http://127.0.0.1:{port}/health"
        self.pause = 1 / rate
        self.good: list[float] = []
        self.failed: list[float] = []
        self._ended = threading.Event()
        self._under_way: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Customers:
        self._clock.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._clock.join()
        for each in self._under_way:
            each.join(PATIENCE + 1)

    def _tick(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._ended.is_set():
            one = threading.Thread(target=self._ask, daemon=True)
            one.start()
            self._under_way = [each for each in self._under_way if each.is_alive()] + [one]
            number += 1
            self._ended.wait(max(0.0, begun + number * self.pause - time.monotonic()))

    def _ask(self) -> None:
        try:
            with urllib.request.urlopen(self.url, timeout=PATIENCE) as answer:
                answer.read()
            self.good.append(time.monotonic())
        except OSError:
            self.failed.append(time.monotonic())


class Containers:
    def __init__(self, options: Options, records: Records, folder: pathlib.Path, engine: Engine) -> None:
        self.options = options
        self.records = records
        folder.mkdir(parents=True)
        self.rig = ProxiedRig(engine, folder, "bench")
        self.images: dict[str, str] = {}

    def run(self) -> None:
        say("containers: images, two releases, their points")
        try:
            self.rig.first_and_second()
            self.rig.module("archived", version="v2")
            self.images = {"1.0.0": self.rig.one, "2.0.0": self.rig.two}
            for number in range(self.options.runs):
                say(f"containers, run {number + 1} of {self.options.runs}")
                for method in rotated(SWITCHES, number):
                    attempt(self.records, method, functools.partial(self._switch, method))
        finally:
            self.rig.clear()

    def _switch(self, method: str) -> None:
        now = str(self.rig.ask()[1].get("version"))
        then, point = ("2.0.0", "v2") if now == "1.0.0" else ("1.0.0", "v1")
        with Customers(self.rig.proxy.port, self.options.rate) as customers:
            time.sleep(TAIL)
            begin = time.monotonic()
            try:
                if method == "blue-green":
                    self.rig.go("live", version=point)
                elif method == "in-place":
                    self.rig.module("live", version=point)
                else:
                    self._by_hand(then)
            except AssertionError as exc:
                raise call.Failed(str(exc)[:400]) from exc
            end = time.monotonic()
            time.sleep(TAIL)
        found = self.rig.ask()[1].get("version")
        if found != then:
            raise call.Failed(f"{found} runs, expected {then}")
        failed = len([mark for mark in customers.failed if mark >= begin])
        self.records.add(method, "failed", failed)
        self.records.add(method, "requests", failed + len([mark for mark in customers.good if mark >= begin]))
        self.records.add(method, "outage", outage(sorted(customers.good), begin, end + TAIL))
        self.records.add(method, "command", end - begin)

    def _by_hand(self, version: str) -> None:
        """As the team's runbook: down, the tag on the old image, up, and look until it answers."""
        self.rig.write_files("one" if version == "1.0.0" else "two")
        self.rig.compose("down")
        repository, unused, tag = self.rig.image.partition(":")
        self.rig.engine.client().tag(self.images[version], repository, tag)
        self.rig.compose("up", "--detach", "--no-build")
        self.rig.await_version(version)


class Retag:
    """``latest`` names another image of a registry, there and back."""

    def __init__(self, options: Options, records: Records, folder: pathlib.Path, engine: Engine, registry: Registry) -> None:
        self.options, self.records, self.folder, self.engine, self.registry = options, records, folder, engine, registry

    def run(self) -> None:
        for size in SIZES:
            say(f"containers: two images of {size} MB in a registry")
            name = f"{self.registry.netloc}/bench/api-{size}"
            digests = [self._push(name, tag, size) for tag in ("one", "two")]
            for number in range(self.options.runs):
                wanted = number % 2
                attempt(self.records, f"retag-{size}", functools.partial(self._retag, name, size, digests[wanted]))
                attempt(self.records, f"pull-{size}", functools.partial(self._pull, name, size, ("one", "two")[1 - wanted]))

    def _push(self, name: str, tag: str, size: int) -> str:
        """An image of random bytes, which no compression makes smaller; its digest."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            (pathlib.Path(work) / "content").write_bytes(os.urandom(size << 20))
            images.build(self.engine, f"{name}:{tag}", pathlib.Path(work), ["FROM scratch", "COPY content /content"])
        self._docker("push", "--quiet", f"{name}:{tag}")
        if tag == "one":
            self._docker("tag", f"{name}:{tag}", f"{name}:latest")
            self._docker("push", "--quiet", f"{name}:latest")
        found = self.registry.names(name.partition("/")[2], tag)
        if found is None:
            raise call.Failed(f"{name}:{tag} is not in the registry after a push")
        return found

    def _docker(self, *words: str) -> float:
        docker = shutil.which("docker")
        if docker is None:
            raise Missing("the program docker is not installed")
        return call.program([docker, *words], env={**os.environ, "DOCKER_HOST": self.engine.url})

    def _retag(self, name: str, size: int, digest: str) -> None:
        path = name.partition("/")[2]
        options = {"store": str(self.folder / "store"), "system": "bench", "registry": {"url": self.registry.url}}
        ran = call.module("image_retag", {**options, "tags": [{"tag": f"{path}:latest", "image": digest}]})
        self.records.add(f"retag-{size}", "seconds", ran.seconds)
        if self.registry.names(path, "latest") != digest:
            raise call.Failed(f"{path}:latest is not {digest}")

    def _pull(self, name: str, size: int, tag: str) -> None:
        """On a machine that does not have the image, as a deployment server that has cleared away."""
        client = self.engine.client()
        for each in client.images(name):
            client.remove_image(each["Id"], force=True)
        took = self._docker("pull", "--quiet", f"{name}:{tag}")
        took += self._docker("tag", f"{name}:{tag}", f"{name}:latest")
        took += self._docker("push", "--quiet", f"{name}:latest")
        self.records.add(f"pull-{size}", "seconds", took)


def measure(options: Options, records: Records, folder: pathlib.Path) -> dict[str, t.Any]:
    folder.mkdir(parents=True, exist_ok=True)
    reason = compose.unusable() or traffic.missing(traffic.HAPROXY)
    if reason:
        for method in (*SWITCHES, *(f"{way}-{size}" for way in ("retag", "pull") for size in SIZES)):
            records.miss(method, reason, failure=False)
        return {}
    with Engine(containers=True) as engine:
        Containers(options, records, folder / "project", engine).run()
        if lab_registry.installed():
            with Registry() as registry:
                Retag(options, records, folder, engine, registry).run()
        else:
            for size in SIZES:
                for way in ("retag", "pull"):
                    records.miss(f"{way}-{size}", lab_registry.HOW_TO_GET, failure=False)
        return {"docker": engine.client().version()["Version"], "rate": options.rate}
