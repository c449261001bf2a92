# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What people write for images: tags that can be moved, and what names one image (ID, digest, a tag). Pure functions.

The grammar is that of Docker: ``[host[:port]/]path[/path...][:tag][@digest]``. The first part is a host if it has a dot or a
colon or is ``localhost``.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?\Z"
)
PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*\Z")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
ALGORITHM = re.compile(r"(?:sha256|sha384|sha512|blake3):")
HEX = re.compile(r"[0-9a-f]{12,64}\Z")
HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
# The kept tag has this many digits of the replaced image's identity behind the prefix.
KEPT_DIGITS = 12


class Tag(t.NamedTuple):
    """``host`` is empty for names without one, as in ``kejayangu/api:latest``."""

    host: str
    path: str
    tag: str

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}" if self.host else self.path

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


class Wish(t.NamedTuple):
    """The image that a tag shall name. One of ``identity``, ``short`` (the beginning of an ID) and ``tag`` is set.

    ``repository`` stands beside ``identity`` when it was written as ``repository@sha256:...``.
    """

    text: str
    identity: str = ""
    short: str = ""
    tag: Tag | None = None
    repository: Tag | None = None


def _split(what: str, text: str) -> tuple[str, str, str]:
    """Host, path and tag (empty if none is written)."""
    host, slash, rest = text.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "", text
    path, unused, tag = rest.partition(":")
    wrong = ""
    if host and not HOST.match(host):
        wrong = f"{host!r} is not a host"
    elif not path or not all(PART.match(part) for part in path.split("/")):
        wrong = f"the repository {path!r} may only have small letters, digits, '.', '_', '-' and '/' between them"
    elif HEX.match(path) and len(path) == 64:
        wrong = "64 hexadecimal digits are an image ID and no repository"
    elif len(host) + len(path) > 255:
        wrong = "the repository is longer than 255 characters"
    elif ":" in rest and not TAG.match(tag):
        wrong = f"the tag {tag!r} must have 1 to 128 letters, digits, '_', '.' and '-', and begin with none of the last two"
    if wrong:
        raise RollbackError(
            f"{what} {text!r} is not a name of an image: {wrong}. Write it as repository:tag, for example kejayangu/api:latest."
        )
    if host in HUB:
        host = ""
    if host == "" and path.startswith("library/") and path.count("/") == 1:
        path = path[len("library/") :]
    return host, path, tag


def parse_tag(what: str, text: str) -> Tag:
    """A tag that can be moved. Without a tag ``latest`` is meant, as everywhere in Docker; a digest is refused."""
    if "@" in text or ALGORITHM.match(text):
        raise RollbackError(
            f"{what} {text!r} is a digest, which names the same image for ever and cannot be moved. Name a tag, for example kejayangu/api:latest."
        )
    host, path, tag = _split(what, text)
    return Tag(host, path, tag or "latest")


def parse_image(what: str, text: str) -> Wish:
    """What names an image: ``sha256:...``, 12 to 64 digits of an ID, ``repository@sha256:...``, or ``repository:tag``."""
    name, at, digest = text.partition("@")
    identity = digest if at else text
    if at or ALGORITHM.match(text):
        if not DIGEST.match(identity):
            raise RollbackError(
                f"{what} {text!r} has no complete digest: expected sha256: and 64 small hexadecimal digits. "
                "See the ones that there are with: docker image ls --digests --no-trunc"
            )
        if not at:
            return Wish(text, identity=identity)
        host, path, tag = _split(what, name)
        return Wish(text, identity=identity, repository=Tag(host, path, tag))
    if HEX.match(text):
        return Wish(text, identity=f"sha256:{text}") if len(text) == 64 else Wish(text, short=text)
    host, path, tag = _split(what, text)
    if not tag:
        raise RollbackError(
            f"{what} {text!r} does not say which image: expected an image ID (sha256:...), repository@sha256:... or repository:tag. "
            "'latest' is not assumed for the image that a rollback goes to."
        )
    return Wish(text, tag=Tag(host, path, tag))


def check_prefix(prefix: str) -> str:
    """The beginning of kept tags."""
    if not prefix or not TAG.match(f"{prefix}{'0' * KEPT_DIGITS}"):
        raise RollbackError(
            f"kept_prefix {prefix!r} cannot begin a tag: expected 1 to {128 - KEPT_DIGITS} letters, digits, '_', '.' and '-', "
            "beginning with a letter, a digit or '_'."
        )
    return prefix


def kept_tag(tag: Tag, prefix: str, identity: str) -> Tag:
    """Where the replaced image stays reachable. Made from its identity: the same call again finds it, and no other image has it."""
    return tag._replace(tag=f"{prefix}{identity.partition(':')[2][:KEPT_DIGITS]}")


def is_kept(tag: Tag, prefix: str) -> bool:
    """Whether the tag looks as :func:`kept_tag` makes them."""
    rest = tag.tag[len(prefix) :]
    return tag.tag.startswith(prefix) and len(rest) == KEPT_DIGITS and bool(HEX.match(rest))


def short(identity: str | None) -> str:
    """An identity for sentences."""
    return identity.partition(":")[2][:KEPT_DIGITS] if identity else "nothing"
