# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""An application's own words without its secrets. Names do not tell which value is one, so all are masked but the plainly harmless."""

from __future__ import annotations

import glob
import json
import os
import re
import typing as t
from urllib.parse import unquote

MASK = "********"
SECRET = re.compile(r"pass|secret|key|token|url|uri|dsn|cred|auth|cookie|salt|pin|cert", re.I)
# Nobody can use these, and without them a message cannot be read.
HARMLESS_NAMES = re.compile(r"(PATH|HOME|SHELL|USER|LOGNAME|MAIL|LANG|LANGUAGE|LC_\w+|HOSTNAME|TZ|NODE_ENV)\Z")
HARMLESS = re.compile(
    r"[-+]?\d{1,9}(\.\d+)?"  # a number, no account or phone number
    r"|v?\d{1,5}(\.\d{1,5}){1,3}([-+][\w.]{1,16})?"  # a version or an address
    r"|(?i:true|false|null|undefined|production|development|staging|testing|verbose|warning|localhost)"
    r"|(/[a-z0-9._-]{1,32})+/?"  # a path
)
EXAMPLES = (".example", ".sample", ".template", ".dist")
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*", re.I)
IN_URL = re.compile(r"://([^/:\s]*)(?::(\S*))?@")  # up to the last @: a password may have one, too
ITEMS = re.compile(r"[,;]")
LINES = re.compile(r"\r?\n|\\n")  # a key in one line of a file has its line ends as text


def mask(text: str, env: t.Mapping[str, str], name: str = "", files: t.Iterable[tuple[str, str]] = ()) -> str:
    """``text`` without what the environment and the ``files`` (see ``dotenv``) of the application called ``name`` hold."""
    secrets: set[str] = set()
    for key, value in [*env.items(), *files]:
        for part in _parts(value):
            part = part.strip()
            if part != name and _secret(key, part):
                secrets.update((part, json.dumps(part, ensure_ascii=False)[1:-1]))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return re.sub(r"(://[^/@:\s]*:)\S+@", rf"\1{MASK}@", text)


def _parts(value: str) -> set[str]:
    """What of a value an application may print alone: a line, an item of a list, a text in JSON, what logs in at a URL, decoded or not."""
    found = {value, *LINES.split(value), *ITEMS.split(value), *_texts(value)}
    for user, password in [match.groups() for text in [*found] for match in IN_URL.finditer(text)]:
        found.update((password, unquote(password)) if password else (user, unquote(user)))
    return found


def _texts(value: str) -> list[str]:
    if value.lstrip()[:1] not in ("{", "["):
        return []
    try:
        waiting = [json.loads(value)]
    except (ValueError, RecursionError):
        return []
    found = []
    while waiting:
        item = waiting.pop()
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        found += [item] if isinstance(item, str) else []
    return found


def _secret(key: str, value: str) -> bool:
    if SECRET.search(key):
        return len(value) >= 4 and value.lower() not in ("true", "false", "null")
    if len(value) < 6 or HARMLESS_NAMES.match(key):
        return False
    if HARMLESS.fullmatch(value):
        return False
    return not (key.endswith("HOST") and HOST.fullmatch(value)) and not (os.path.isabs(value) and os.path.exists(value))


def dotenv(folder: str) -> list[tuple[str, str]]:
    """(name, value) of the files ``.env*`` in ``folder``. The application reads them itself, so PM2 does not know them.

    Every line counts, the further ones of a value that has several under no name.
    """
    found: list[tuple[str, str]] = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), ".env*"))):
        if path.endswith(EXAMPLES) or not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                lines = handle.read(1 << 20).splitlines()
        except OSError:
            continue
        for line in lines:
            told = re.match(r"\s*(?:export\s+)?([A-Za-z_][\w.]*)\s*[=:]\s*([^=\s].*)", line)
            name, value = (told[1], told[2]) if told else ("", line)
            if name or not line.lstrip().startswith("#"):
                quote = value[:1] if value[:1] in ("'", '"', "`") else ""
                end = value.rfind(quote) if quote else -1
                value = value[1 : end if end > 0 else None] if quote else re.sub(r"\s#.*", "", value)
                found.append((name, value.strip().rstrip("'\"`")))
    return found
