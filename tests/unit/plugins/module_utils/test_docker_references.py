# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write for images and registries, right and wrong; each mistake is one sentence."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._http import check_url, is_local
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import (
    Tag,
    Wish,
    check_prefix,
    is_kept,
    kept_tag,
    parse_image,
    parse_tag,
    short,
)
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import wishes_of
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

HEX = "5a8c1b7e3d2f4a6b8c0d9e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d"
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "host", "path", "tag"),
    [
        ("kejayangu/api:latest", "", "kejayangu/api", "latest"),
        ("kejayangu/api", "", "kejayangu/api", "latest"),
        ("api:20231201_120000", "", "api", "20231201_120000"),
        ("api:v1.10-rc.1", "", "api", "v1.10-rc.1"),
        ("registry.example/team/api:1", "registry.example", "team/api", "1"),
        ("registry.example:5000/api", "registry.example:5000", "api", "latest"),
        ("localhost/api:1", "localhost", "api", "1"),
        ("localhost:5000/api:1", "localhost:5000", "api", "1"),
        ("[::1]:5000/api:1", "[::1]:5000", "api", "1"),
        ("docker.io/library/redis:7", "", "redis", "7"),
        ("index.docker.io/kejayangu/api:1", "", "kejayangu/api", "1"),
        ("a__b/c.d/e--f_g:_1", "", "a__b/c.d/e--f_g", "_1"),
    ],
)
def test_tags(text: str, host: str, path: str, tag: str) -> None:
    found = parse_tag("tag", text)
    assert found == Tag(host, path, tag)
    assert parse_tag("tag", str(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"kejayangu/api@{DIGEST}", "is a digest"),
        (f"kejayangu/api:latest@{DIGEST}", "is a digest"),
        (DIGEST, "is a digest"),
        ("sha256:latest", "is a digest"),
        ("", "the repository ''"),
        (":latest", "the repository ''"),
        ("KejaYangu/api:latest", "small letters"),
        ("kejayangu//api", "small letters"),
        ("kejayangu/api:", "the tag ''"),
        ("kejayangu/api:-1", "the tag '-1'"),
        ("kejayangu/api:a b", "the tag 'a b'"),
        ("kejayangu/api:latest\n", "the tag"),
        ("kejayangu/api:" + "1" * 129, "1 to 128"),
        ("../../etc:1", "is not a host"),
        ("api/../x:1", "small letters"),
        ("http://registry.example/api:1", "'http:' is not a host"),
        ("bad_host.example/api:1", "is not a host"),
        (HEX, "64 hexadecimal digits"),
        ("a" * 256, "longer than 255"),
    ],
)
def test_what_is_no_tag_to_move(text: str, words: str) -> None:
    with pytest.raises(RollbackError) as caught:
        parse_tag("tags[0].tag", text)
    assert (
        words in str(caught.value)
        and str(caught.value).startswith(f"tags[0].tag {text!r}")
        and "for example kejayangu/api:latest" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        (DIGEST, {"identity": DIGEST}),
        (HEX, {"identity": DIGEST}),
        (HEX[:12], {"short": HEX[:12]}),
        (f"kejayangu/api@{DIGEST}", {"identity": DIGEST, "repository": Tag("", "kejayangu/api", "")}),
        (f"r.example:5000/api:1@{DIGEST}", {"identity": DIGEST, "repository": Tag("r.example:5000", "api", "1")}),
        ("kejayangu/api:previous", {"tag": Tag("", "kejayangu/api", "previous")}),
    ],
)
def test_images(text: str, wish: dict[str, t.Any]) -> None:
    assert parse_image("image", text) == Wish(text, **wish)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kejayangu/api", "does not say which image"),
        ("5a8c1b7", "does not say which image"),
        ("", "the repository ''"),
        ("sha256:5a8c1b7e3d2f", "no complete digest"),
        (DIGEST.upper(), "is not a name of an image"),
        (f"sha512:{HEX}{HEX}", "no complete digest"),
        ("kejayangu/api@latest", "no complete digest"),
        (f"{DIGEST}0", "no complete digest"),
        (f"{DIGEST}\n", "no complete digest"),
    ],
)
def test_what_names_no_image(text: str, words: str) -> None:
    with pytest.raises(RollbackError) as caught:
        parse_image("tags[0].image", text)
    assert words in str(caught.value) and str(caught.value).startswith("tags[0].image ")


def test_kept_tags() -> None:
    tag = parse_tag("tag", "registry.example/kejayangu/api:latest")
    assert str(kept_tag(tag, "payops-kept-", DIGEST)) == f"registry.example/kejayangu/api:payops-kept-{HEX[:12]}"
    assert parse_tag("tag", str(kept_tag(tag, check_prefix("x" * 116), DIGEST))).path == "kejayangu/api"
    assert is_kept(kept_tag(tag, "v", DIGEST), "v") and not is_kept(tag._replace(tag="v1"), "v")
    assert short(DIGEST) == HEX[:12] and short(None) == "nothing"


@pytest.mark.parametrize("prefix", ["-kept", ".kept", "a b", "a/b", "x" * 117, "kept:", ""])
def test_prefixes_that_begin_no_tag(prefix: str) -> None:
    with pytest.raises(RollbackError, match="kept_prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ([], "tags is empty"),
        ([("api:1", DIGEST), ("docker.io/library/api:1", DIGEST)], "The tag api:1 is in tags twice"),
        ([("api:payops-kept-5a8c1b7e3d2f", DIGEST)], "is a kept tag"),
        ([("api:1", DIGEST), ("api@" + DIGEST, DIGEST)], "tags[1].tag"),
        ([("api:1", DIGEST), ("api:2", "api")], "tags[1].image"),
    ],
)
def test_lists_of_tags(tags: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(RollbackError) as caught:
        wishes_of([{"tag": tag, "image": image} for tag, image in tags], "payops-kept-")
    assert words in str(caught.value)


@pytest.mark.parametrize("url", ["https://registry.example:5000", "http://127.0.0.1:5000/", "https://[::1]:5000"])
def test_registries(url: str) -> None:
    assert check_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("registry.example:5000", "is not the address of a registry"),
        ("ftp://registry.example", "is not the address of a registry"),
        ("https://", "is not the address of a registry"),
        ("https://registry.example:99999", "is not the address of a registry"),
        ("https://[::1", "is not the address of a registry"),
        ("https://registry.example/v2/", "goes on behind the host"),
        ("https://registry.example/?a", "goes on behind the host"),
        ("https://deploy:s3cret@registry.example", "has a login in it"),
    ],
)
def test_what_is_no_registry(url: str, words: str) -> None:
    with pytest.raises(RollbackError) as caught:
        check_url(url)
    assert words in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "local"), [("http://127.0.0.2:1", True), ("http://[::1]", True), ("http://localhost:5", True), ("http://10.0.0.1", False)]
)
def test_what_stays_on_this_host(url: str, local: bool) -> None:
    assert is_local(url) is local
