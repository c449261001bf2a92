# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags in a real registry: moved by one PUT of the same bytes, the replaced image kept, judged by what the registry hands out."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker import _registry
from ansible_collections.payops.rollback.plugins.module_utils._docker._http import Connection
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import Tag
from tests.lab.gate import Gate
from tests.lab.registry import TYPES, Registry
from tests.real.docker.rig import Rig

NOWHERE = "sha256:" + "0" * 64


@pytest.mark.parametrize("family", list(TYPES))
@pytest.mark.parametrize("kind", ["image", "index"])
def test_there_and_back(registry: Registry, rig: Rig, repository: str, family: str, kind: str) -> None:
    """Every family of media types, one platform and several: each byte and the media type are the same afterwards."""
    push = registry.push_index if kind == "index" else registry.push
    old, new = push(repository, "old", "1", family), push(repository, "latest", "2", family)
    tag, kept = f"{repository}:latest", f"payops-kept-{new.digest[7:19]}"

    checked = rig.ok({tag: old.digest}, check=True)
    assert checked["changed"] and checked["actions"] and checked["diff"]["before"] != checked["diff"]["after"]
    assert registry.names(repository, "latest") == new.digest and kept not in registry.tags(repository)
    assert not (rig.store / "shop").exists()

    result = rig.ok({tag: old.digest})
    assert result["changed"] and result["diff"] == checked["diff"] and result["actions"] == checked["actions"]
    assert [step["step"] for step in result["steps"]] == ["remember", "keep", "tag", "verify"]
    assert result["tags"] == [
        {"tag": tag, "image": old.digest, "was": new.digest, "changed": True, "replaced": new.digest, "kept": f"{repository}:{kept}"}
    ]
    assert registry.get(repository, "latest") == (old.digest, old.media_type, old.data)
    assert registry.get(repository, kept) == (new.digest, new.media_type, new.data)

    again = rig.ok({tag: old.digest})
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"] and again["steps"] == []
    assert again["undo"] == result["undo"] == [{"tag": tag, "image": new.digest}]

    back = rig.ok(result["undo"])
    assert back["changed"]
    assert registry.get(repository, "latest") == (new.digest, new.media_type, new.data)
    assert sorted(registry.tags(repository)) == sorted(["latest", "old", kept, f"payops-kept-{old.digest[7:19]}"])
    assert not rig.ok(result["undo"])["changed"]


def test_no_layer_moves(registry: Registry, rig: Rig, repository: str) -> None:
    """Counted at a gate before the registry: two manifests are written, whatever the size of the layers."""
    old, new = registry.push(repository, "", "1", size=3_000_000), registry.push(repository, "latest", "2", size=3_000_000)
    with Gate(registry.url) as gate:
        rig.ok({f"{repository}:latest": old.digest}, registry={"url": gate.url})
        kept = f"payops-kept-{new.digest[7:19]}"
        assert gate.writes() == [f"PUT /v2/{repository}/manifests/{kept}", f"PUT /v2/{repository}/manifests/latest"]
        assert gate.sent == len(old.data) + len(new.data)
        assert not [each for each in gate.seen if "/blobs/" in each and not each.startswith("HEAD")]


def test_an_index_is_not_cut_down(registry: Registry, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client gets that does not say that it takes indexes: one platform. So the guard is the header."""
    index = registry.push_index(repository, "latest", "1", "docker")
    place = _registry.Registry(Connection(registry.url))
    assert place.names(Tag("", repository, "latest")) == index.digest
    monkeypatch.setattr(_registry, "ACCEPT", _registry.IMAGES[1])
    assert place.names(Tag("", repository, "latest")) != index.digest
    place.close()


def test_many_tags_in_one_call_and_a_swap(registry: Registry, rig: Rig, repository: str) -> None:
    """Images are looked up before the first tag is moved, so two tags can change places."""
    api, worker = f"{repository}/api", f"{repository}/worker"
    blue, green = registry.push(api, "blue", "blue"), registry.push(api, "green", "green")
    old, new = registry.push_index(worker, "old", "1"), registry.push_index(worker, "latest", "2")
    host = registry.netloc
    result = rig.ok(
        {f"{api}:blue": f"{api}:green", f"{host}/{api}:green": f"{api}:blue", f"{worker}:latest": f"{host}/{worker}@{old.digest}"}
    )
    assert registry.names(api, "blue") == green.digest and registry.names(api, "green") == blue.digest
    assert registry.names(worker, "latest") == old.digest
    assert "3 of 3 tags" in result["msg"]
    rig.ok(result["undo"])
    assert (registry.names(api, "blue"), registry.names(api, "green"), registry.names(worker, "latest")) == (
        blue.digest,
        green.digest,
        new.digest,
    )


def test_by_the_image_id_that_an_engine_gives(registry: Registry, rig: Rig, repository: str) -> None:
    old = registry.push(repository, "v1", "1")
    registry.push(repository, "latest", "2")
    assert rig.ok({f"{repository}:latest": old.image_id})["tags"][0]["image"] == old.digest
    assert registry.names(repository, "latest") == old.digest


def test_by_a_kept_tag(registry: Registry, rig: Rig, repository: str) -> None:
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    kept = rig.ok({f"{repository}:latest": old.digest})["tags"][0]["kept"]
    rig.ok({f"{repository}:latest": kept})
    assert registry.names(repository, "latest") == new.digest
    assert "is a kept tag" in rig.refused({kept: old.digest})


def test_an_image_that_is_not_there(registry: Registry, rig: Rig, repository: str) -> None:
    first, latest = registry.push(repository, "v1", "1"), registry.push_index(repository, "latest", "2")
    for wish in (NOWHERE, f"{repository}@{NOWHERE}", f"{repository}:v0"):
        result = rig.run({f"{repository}:latest": wish})
        assert result["failed"] and "no such image" in result["msg"] and "Nothing was changed." in result["msg"]
        assert first.digest in result["msg"] and f"{repository}:v1" in result["msg"] and latest.digest in result["msg"]
        assert {each["image"] for each in result["available"]} == {first.digest, latest.digest}
    assert registry.names(repository, "latest") == latest.digest
    # pruned: the manifest was there and is deleted
    registry.call("DELETE", f"{repository}/manifests/{first.digest}")
    assert "was pruned" in rig.refused({f"{repository}:latest": first.digest})


def test_every_reason_is_said_at_once_and_nothing_is_moved(registry: Registry, rig: Rig, repository: str) -> None:
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    result = rig.run({f"{repository}:latest": old.digest, f"{repository}:old": NOWHERE, f"{repository}:lastet": old.digest})
    assert result["failed"] and len(result["blockers"]) == 2 and "2 things are wrong with 3 tags" in result["msg"]
    assert registry.names(repository, "latest") == new.digest
    assert registry.tags(repository) == ["latest", "old"]


def test_a_misspelt_tag_is_not_made(registry: Registry, rig: Rig, repository: str) -> None:
    old = registry.push(repository, "old", "1")
    message = rig.refused({f"{repository}:lastet": old.digest})
    assert "There is no tag" in message and f"{repository}:old" in message and "allow_new=true" in message
    made = rig.ok({f"{repository}:lastet": old.digest}, allow_new=True)
    assert made["changed"] and made["undo"] == [] and made["tags"][0]["was"] is None
    assert registry.names(repository, "lastet") == old.digest


@pytest.mark.parametrize("part", ["layer", "image_id"])
def test_an_image_that_has_lost_a_layer_is_refused(registry: Registry, rig: Rig, repository: str, part: str) -> None:
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    registry.lose(repository, getattr(old, part))
    message = rig.refused({f"{repository}:latest": old.digest})
    assert "has lost a part" in message and getattr(old, part)[7:19] in message
    assert registry.names(repository, "latest") == new.digest


def test_a_platform_that_is_lost_is_named(registry: Registry, rig: Rig, repository: str) -> None:
    old = registry.push_index(repository, "old", "1")
    registry.push(repository, "latest", "2")
    child = json.loads(old.data)["manifests"][1]["digest"]
    registry.call("DELETE", f"{repository}/manifests/{child}")
    assert "linux/arm64" in rig.refused({f"{repository}:latest": old.digest})


def test_leaving_an_image_that_is_broken(registry: Registry, rig: Rig, repository: str) -> None:
    """The way back must not depend on the image that is left: what cannot be kept is said."""
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    registry.lose(repository, new.layer)
    result = rig.ok({f"{repository}:latest": old.digest})
    assert registry.names(repository, "latest") == old.digest
    assert "cannot be kept" in result["notes"][0] and result["tags"][0]["kept"] is None


def test_another_repository_and_another_registry(registry: Registry, rig: Rig, repository: str) -> None:
    registry.push(repository, "latest", "1")
    other = registry.push(f"{repository}/other", "v1", "2")
    assert "another repository" in rig.refused({f"{repository}:latest": f"{repository}/other@{other.digest}"})
    assert "in the registry registry.example" in rig.refused({f"registry.example/{repository}:latest": other.digest})


def test_a_kept_tag_that_names_something_else(registry: Registry, rig: Rig, repository: str) -> None:
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    registry.manifest(repository, f"payops-kept-{new.digest[7:19]}", old.media_type, old.data)
    assert "shall keep" in rig.refused({f"{repository}:latest": old.digest})
    assert registry.names(repository, "latest") == new.digest


def test_damaged_bytes_are_not_spread(registry: Registry, rig: Rig, repository: str) -> None:
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    folder = old.digest[7:]
    data = registry.root / "storage/docker/registry/v2/blobs/sha256" / folder[:2] / folder / "data"
    data.write_bytes(old.data.replace(b"\n\n", b"\n "))
    assert "other bytes" in rig.refused({f"{repository}:latest": old.digest})
    assert registry.names(repository, "latest") == new.digest


def test_a_login_in_netrc_is_not_used(registry: Registry, rig: Rig, repository: str, tmp_path: pathlib.Path) -> None:
    registry.push(repository, "latest", "1")
    (tmp_path / ".netrc").write_text(f"machine {registry.host} login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    seen: list[str] = []
    with Gate(registry.url) as gate:
        handler = gate.server.RequestHandlerClass
        original = handler.handle_any  # type: ignore[attr-defined]

        def noting(self: object) -> None:
            seen.append(str(self.headers.get("Authorization")))  # type: ignore[attr-defined]
            original(self)

        handler.do_GET = noting  # type: ignore[attr-defined]
        rig.ok({f"{repository}:latest": f"{repository}:latest"}, registry={"url": gate.url}, env={"HOME": str(tmp_path)})
    assert seen and set(seen) == {"None"}


def test_a_tag_that_is_being_moved(registry: Registry, rig: Rig, repository: str) -> None:
    """Debian's registry answers 500 for that moment. One that is ill answers so always, and is not taken for an empty one."""
    old, new = registry.push(repository, "old", "1"), registry.push(repository, "latest", "2")
    times = [1]

    def rule(method: str, path: str) -> int | None:
        if method == "GET" and path.endswith("manifests/latest") and times[0]:
            times[0] -= 1
            return 500
        return None

    with Gate(registry.url, rule) as gate:
        result = rig.ok({f"{repository}:latest": old.digest}, registry={"url": gate.url})
        gate.rule = lambda method, path: 500 if new.digest in path else None
        assert "did not hand out" in rig.refused({f"{repository}:latest": new.digest}, registry={"url": gate.url})
        gate.rule = lambda method, path: 500
        for wish in (new.digest, f"{repository}:old"):
            assert "did not hand out" in rig.refused({f"{repository}:latest": wish}, registry={"url": gate.url})
    assert registry.names(repository, "latest") == old.digest and result["changed"]
