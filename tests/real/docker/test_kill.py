# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 around every step that the code declares and in the middle of the one with several writes; other writers; half failures.

After each: no image is without a tag, the same call finishes the job, and its ``undo`` takes it back.
"""

from __future__ import annotations

import json
import pathlib
import signal
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import STEPS
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.lab.gate import Gate
from tests.lab.modules import result_of
from tests.lab.ports import wait_until
from tests.lab.registry import Registry
from tests.real.docker.rig import Rig

PHASES = ("before", "during", "after")
# Each step is killed when it has acted and its end is not written down yet; the other phases with FULL=1.
PLACES = [
    pytest.param(step, phase, id=f"{step}-{phase}", marks=[] if phase == "during" else [pytest.mark.full])
    for step in STEPS
    if step != "put_back"
    for phase in PHASES
]


class Shop:
    """Two services that go back together, in one registry, behind a gate."""

    def __init__(self, registry: Registry, repository: str, store: pathlib.Path, gate: Gate) -> None:
        self.registry = registry
        self.gate = gate
        self.rig = Rig(store, registry={"url": gate.url})
        self.services = [f"{repository}/{name}" for name in ("api", "web", "worker")]
        self.old = {name: registry.push_index(name, "", f"{name} 1") for name in self.services}
        self.new = {name: registry.push(name, "latest", f"{name} 2") for name in self.services}
        self.tags = {f"{name}:latest": each.digest for name, each in self.old.items()}
        self.back = {f"{name}:latest": each.digest for name, each in self.new.items()}

    def named(self) -> list[str]:
        """ "old" or "new" for each service, from outside."""
        kinds = []
        for name in self.services:
            digest = self.registry.names(name, "latest")
            kinds.append("old" if digest == self.old[name].digest else "new" if digest == self.new[name].digest else "lost")
        return kinds

    def nothing_is_lost(self) -> None:
        """The images that were in use have a tag, at every time: what has none goes with the next garbage collection."""
        for name, image in self.new.items():
            assert image.digest in {self.registry.names(name, tag) for tag in self.registry.tags(name)}, name
        assert "lost" not in self.named()

    def finish_and_take_back(self) -> None:
        self.nothing_is_lost()
        result = self.rig.ok(self.tags)
        assert self.named() == ["old"] * 3
        self.nothing_is_lost()
        assert {each["tag"]: each["image"] for each in result["undo"]} == self.back
        assert all(each["kept"] for each in result["tags"])
        self.rig.ok(result["undo"])
        assert self.named() == ["new"] * 3


@pytest.fixture
def gate(registry: Registry) -> t.Iterator[Gate]:
    with Gate(registry.url) as started:
        yield started


@pytest.fixture
def shop(registry: Registry, repository: str, tmp_path: pathlib.Path, gate: Gate) -> Shop:
    return Shop(registry, repository, tmp_path / "store", gate)


@pytest.mark.parametrize(("step", "phase"), PLACES)
def test_the_same_call_finishes_the_job(shop: Shop, step: str, phase: str) -> None:
    assert shop.rig.run(shop.tags, fault=f"docker/{step}/{phase}=kill") == {"killed": True}
    if (step, phase) in (("keep", "during"), ("tag", "before")):
        assert shop.named() == ["new"] * 3
    shop.finish_and_take_back()


@pytest.mark.parametrize(("step", "phase"), PLACES)
def test_the_way_back_after_a_kill(shop: Shop, step: str, phase: str) -> None:
    """Undo without finishing first, by the images that were in use: as the rescue of a play does it."""
    assert shop.rig.run(shop.tags, fault=f"docker/{step}/{phase}=kill") == {"killed": True}
    shop.nothing_is_lost()
    shop.rig.ok(shop.back)
    assert shop.named() == ["new"] * 3
    assert not shop.rig.ok(shop.back)["changed"]


@pytest.mark.parametrize(("step", "phase"), PLACES)
def test_the_way_back_is_killed(shop: Shop, step: str, phase: str) -> None:
    undo = shop.rig.ok(shop.tags)["undo"]
    assert shop.rig.run(undo, fault=f"docker/{step}/{phase}=kill") == {"killed": True}
    shop.nothing_is_lost()
    shop.rig.ok(undo)
    assert shop.named() == ["new"] * 3


@pytest.mark.parametrize("number", [pytest.param(number, marks=[] if number in (1, 3, 4) else [pytest.mark.full]) for number in range(6)])
def test_killed_between_two_writes(shop: Shop, number: int) -> None:
    """Three kept tags and three tags are written; the module dies while the registry is at one of them."""
    held, go_on = threading.Event(), threading.Event()
    left = [number]

    def rule(method: str, path: str) -> int | None:
        if method == "PUT":
            left[0] -= 1
            if left[0] == -1:
                held.set()
                go_on.wait(30)
        return None

    shop.gate.rule = rule
    process = shop.rig.start(shop.tags)
    assert held.wait(30)
    process.send_signal(signal.SIGKILL)
    assert result_of(process) == {"killed": True}
    assert shop.named() == ["old"] * max(0, number - 3) + ["new"] * min(3, 6 - number)
    go_on.set()  # the registry does it all the same
    wait_until(lambda: shop.named() == ["old"] * max(0, number - 2) + ["new"] * min(3, 5 - number), "the registry")
    shop.gate.rule = lambda method, path: None
    shop.finish_and_take_back()


def refuses(words: str) -> t.Callable[[str, str], int | None]:
    return lambda method, path: 500 if method == "PUT" and words in path else None


def test_all_tags_or_none(shop: Shop) -> None:
    """The third tag is refused: the first two name again what they named."""
    shop.gate.rule = refuses("worker/manifests/latest")
    result = shop.rig.run(shop.tags)
    assert result["failed"] and "status 500: DENIED by the gate" in result["msg"] and result["msg"].count("Put back:") == 1
    assert "Not put back" not in result["msg"] and result["changed"], "kept tags were made"
    assert [step["step"] for step in result["steps"]] == ["remember", "keep", "tag", "put_back"]
    assert shop.named() == ["new"] * 3
    shop.gate.rule = lambda method, path: None
    shop.finish_and_take_back()


def test_a_write_that_happened_and_was_not_answered(shop: Shop) -> None:
    """The registry moved the tag and the answer was lost: it counts as moved, and is put back, too."""
    done = threading.Event()

    def rule(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("worker/manifests/latest") and not done.is_set():
            done.set()
            name = shop.services[2]
            shop.registry.manifest(name, "latest", shop.old[name].media_type, shop.old[name].data)
            return 500
        return None

    shop.gate.rule = rule
    result = shop.rig.run(shop.tags)
    assert result["failed"] and "Put back" in result["msg"]
    assert shop.named() == ["new"] * 3


def test_what_cannot_be_put_back_is_named(shop: Shop) -> None:
    writes: list[str] = []

    def rule(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("/latest"):
            writes.append(path)
            return None if len(writes) == 1 else 500
        return None

    shop.gate.rule = rule
    result = shop.rig.run(shop.tags)
    assert result["failed"] and f"Not put back: {shop.services[0]}:latest names" in result["msg"] and result["changed"]
    assert shop.named() == ["old", "new", "new"]
    shop.gate.rule = lambda method, path: None
    shop.rig.ok(shop.back)
    assert shop.named() == ["new"] * 3


@pytest.mark.parametrize("phase", ["before", pytest.param("during", marks=[pytest.mark.full]), "after"])
def test_killed_while_putting_back(shop: Shop, phase: str) -> None:
    shop.gate.rule = refuses("worker/manifests/latest")
    assert shop.rig.run(shop.tags, fault=f"docker/put_back/{phase}=kill") == {"killed": True}
    assert shop.named() == (["old", "old", "new"] if phase == "before" else ["new"] * 3)
    shop.gate.rule = lambda method, path: None
    shop.finish_and_take_back()


def test_a_tag_that_does_not_stay(shop: Shop) -> None:
    """Somebody deploys at the same time: found by reading, and their image is left alone."""
    name = shop.services[0]
    third = shop.registry.push(name, "third", "3")

    def rule(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("web/manifests/latest"):
            shop.registry.manifest(name, "latest", third.media_type, third.data)
        return None

    shop.gate.rule = rule
    result = shop.rig.run(shop.tags)
    assert result["failed"] and f"{name}:latest names {third.digest[7:19]} right after" in result["msg"]
    assert shop.named() == ["lost", "new", "new"] and shop.registry.names(name, "latest") == third.digest


def test_a_tag_that_moved_since_it_was_read(shop: Shop, tmp_path: pathlib.Path) -> None:
    """Its image would have to be kept first, so it is left as it is."""
    mark, name = tmp_path / "mark", shop.services[1]
    process = shop.rig.start(shop.tags, fault=f"docker/tag/before=wait:{mark}")
    wait_until(mark.exists, "the step")
    third = shop.registry.push(name, "latest", "3")
    mark.unlink()
    result = result_of(process)
    assert result["failed"] and f"{name}:latest named {shop.new[name].digest[7:19]} a moment ago" in result["msg"]
    assert shop.registry.names(name, "latest") == third.digest
    assert [shop.named()[0], shop.named()[2]] == ["new", "new"]


def test_another_run_takes_over(shop: Shop, tmp_path: pathlib.Path) -> None:
    """An emergency holds the lock in the middle of this call: no tag is written any more, and none is put back either."""
    lock = pathlib.Path(Paths(str(shop.rig.store), "shop").lock)

    def rule(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("web/manifests/latest"):
            lock.write_text(json.dumps({"run": "emergency", "intent": "emergency", "host": "h", "user": "u", "pid": 1, "since": "now"}))
        return None

    shop.gate.rule = rule
    result = shop.rig.run(shop.tags)
    assert result["failed"] and "held by run emergency" in result["msg"] and result["changed"], result
    assert f"Not put back: {shop.services[0]}:latest names" in result["msg"] and shop.services[2] not in result["msg"]
    assert shop.named() == ["old", "old", "new"]
    assert "emergency" in shop.rig.run(shop.back)["msg"]
    assert shop.named() == ["old", "old", "new"]
    lock.unlink()
    shop.gate.rule = lambda method, path: None
    shop.finish_and_take_back()


def test_another_run_takes_over_after_a_failure(shop: Shop) -> None:
    """Both are said: why it failed, and why nothing was put back."""
    lock = pathlib.Path(Paths(str(shop.rig.store), "shop").lock)

    def rule(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("web/manifests/latest"):
            lock.write_text(json.dumps({"run": "emergency", "intent": "emergency", "host": "h", "user": "u", "pid": 1, "since": "now"}))
            return 500
        return None

    shop.gate.rule = rule
    message = shop.rig.run(shop.tags)["msg"]
    assert "DENIED by the gate" in message and "held by run emergency" in message
    assert f"Not put back: {shop.services[0]}:latest names" in message and "Put back" not in message
    assert shop.named() == ["old", "new", "new"]


def test_the_journal_tells_what_was_replaced(shop: Shop) -> None:
    paths = Paths(str(shop.rig.store), "shop")
    paths.make()
    now = time.time()
    holder = {"run": "r1", "intent": "rollback", "version": "v1", "pid": 1, "lease_until": now + 600}
    pathlib.Path(paths.lock).write_text(json.dumps(holder))
    assert shop.rig.run(shop.tags, fault="docker/tag/during=kill", run_id="r1") == {"killed": True}
    lines = [json.loads(line) for line in pathlib.Path(paths.journal("r1", "docker")).read_text().splitlines()]
    assert [(line.get("step"), line["phase"]) for line in lines] == [
        ("remember", "start"), ("remember", "end"), ("keep", "start"), ("keep", "end"), ("tag", "start"),
    ]  # fmt: skip
    assert {each["tag"]: each["was"] for each in lines[0]["tags"]} == shop.back
    assert json.loads(pathlib.Path(paths.lock).read_text())["lease_until"] > now + 600
    assert shop.rig.ok(shop.tags, run_id="r1")["tags"][0]["replaced"] == shop.new[shop.services[0]].digest
