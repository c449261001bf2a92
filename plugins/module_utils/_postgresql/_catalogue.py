# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The catalogue of one database as plain data that is equal before a dump and after its restore.

``read(conn)`` gives ``{section: {name: {attribute: value}}}`` with schema-qualified names and no OIDs, for
example ``cat["index"]["public.payments_pkey"]["valid"]``. Grants are ``{role: [privileges]}`` where the role
``""`` is PUBLIC and ``*`` marks a grant option; a missing ACL is spelled out as its default, so the two compare equal.
``differences(expected, found)`` says in sentences what differs.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue_sql as queries
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import dicts, rows, value
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._names import own_comment

Catalogue = dict[str, dict[str, dict[str, t.Any]]]

PRIVILEGES = {
    "r": "SELECT",
    "w": "UPDATE",
    "a": "INSERT",
    "d": "DELETE",
    "D": "TRUNCATE",
    "x": "REFERENCES",
    "t": "TRIGGER",
    "X": "EXECUTE",
    "U": "USAGE",
    "C": "CREATE",
    "T": "TEMPORARY",
    "c": "CONNECT",
    "s": "SET",
    "A": "ALTER SYSTEM",
    "m": "MAINTAIN",
}
UNORDERED = ("roles", "tables", "schemas")
SIMPLE = re.compile(r"[a-z_][a-z0-9_$]*\Z")

# Session settings under which text from the server is always the same text.
FIXED = {
    "search_path": "",
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "lc_messages": "C",
    "quote_all_identifiers": "off",
    "row_security": "off",
}


def qualified(*parts: str) -> str:
    """``public.payments``; a part that is not plain lower case is double-quoted. The key of tables, indexes, ... everywhere."""
    return ".".join(part if SIMPLE.match(part) else '"' + part.replace('"', '""') + '"' for part in parts)


class fixed_settings:
    """Inside the block the session has the settings of :data:`FIXED`; afterwards those it had before."""

    def __init__(self, conn: t.Any) -> None:
        self.conn = conn
        self.before: dict[str, str] = {}

    def __enter__(self) -> None:
        names = [name for name in FIXED if name != "lc_messages"]
        marks = ", ".join(["current_setting(%s)"] * len(names))
        self.before = dict(zip(names, rows(self.conn, f"SELECT {marks}", names)[0]))
        self._set({name: FIXED[name] for name in names})

    def __exit__(self, *exc_info: t.Any) -> None:
        # In a failed transaction nothing can be set, and its rollback restores the settings.
        if self.conn.closed == 0 and self.conn.info.transaction_status in (0, 2):
            self._set(self.before)

    def _set(self, settings: dict[str, str]) -> None:
        marks = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        rows(self.conn, f"SELECT {marks}", [part for pair in settings.items() for part in pair])


def acl(items: t.Sequence[str] | None) -> dict[str, list[str]]:
    """``["app=arw*/owner", "=r/owner"]`` as ``{"app": ["INSERT", "SELECT", "UPDATE*"], "": ["SELECT"]}``; who granted is left out."""
    found: dict[str, set[str]] = {}
    for item in items or []:
        grantee, rest = _role(item)
        letters = rest[1:]
        granted = found.setdefault(grantee, set())
        for position, letter in enumerate(letters):
            if letter == "/":
                break
            if letter == "*":
                continue
            starred = letters[position + 1 : position + 2] == "*"
            granted.add(PRIVILEGES.get(letter, letter) + ("*" if starred else ""))
    return {grantee: sorted(granted) for grantee, granted in sorted(found.items()) if granted}


def _role(item: str) -> tuple[str, str]:
    """The grantee of an aclitem's text and the rest from ``=`` on."""
    if not item.startswith('"'):
        name, unused, rest = item.partition("=")
        return name, "=" + rest
    name, position = "", 1
    while position < len(item):
        if item[position] == '"':
            if item[position + 1 : position + 2] == '"':
                position += 1
            else:
                return name, item[position + 1 :]
        name += item[position]
        position += 1
    return name, "="


def expression(text: t.Any) -> t.Any:
    """The text of an expression as it looks after one dump and restore.

    PostgreSQL prints ``status IN ('a', 'b')`` of a varchar as ``(ARRAY['a'::character varying, ...])::text[]`` and, when
    that text is read again, as ``ARRAY[('a'::character varying)::text, ...]``. The second form stays.
    """
    if not isinstance(text, str) or "(ARRAY[" not in text:
        return text
    start = text.find("(ARRAY[")
    while start >= 0:
        end = _closing(text, start + len("(ARRAY"))
        cast = re.match(r"\)::((?:\"(?:[^\"]|\"\")+\"|[a-z0-9_ .()])+?)\[\]", text[end + 1 :]) if end > 0 else None
        if cast is None:
            start = text.find("(ARRAY[", start + 1)
            continue
        parts = [f"({part})::{cast.group(1)}" for part in _split(text[start + len("(ARRAY[") : end])]
        replaced = "ARRAY[" + ", ".join(parts) + "]"
        text = text[:start] + replaced + text[end + 1 + cast.end() :]
        start = text.find("(ARRAY[", start + 1)
    return text


def _closing(text: str, opening: int) -> int:
    """Where the bracket at ``opening`` closes, minding quotes; -1 if it does not."""
    depth, position = 0, opening
    while position < len(text):
        letter = text[position]
        if letter in "'\"":
            position = text.find(letter, position + 1)
            if position < 0:
                return -1
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


def _split(text: str) -> list[str]:
    parts, start, position = [], 0, 0
    while position < len(text):
        letter = text[position]
        if letter in "'\"":
            closing = text.find(letter, position + 1)
            position = closing if closing > 0 else len(text)
        elif letter in "([":
            closing = _closing(text, position)
            position = closing if closing > 0 else len(text)
        elif letter == ",":
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    parts.append(text[start:].strip())
    return parts


def read(conn: t.Any) -> Catalogue:
    """The catalogue of the session's database. Inside the caller's transaction if there is one."""
    found: Catalogue = {}
    with fixed_settings(conn):
        for section, sql in queries.queries(conn.server_version):
            entries = found.setdefault(section, {})
            for row in dicts(conn, sql):
                name = row.pop("name")
                name = (qualified(*name) if isinstance(name, list) else name) + str(row.pop("signature", ""))
                entries[name] = _entry(row)
        for section, name, granted, initial in rows(conn, queries.SYSTEM_ACL):
            now, before = acl(granted), acl(initial)
            if now != before and not name.startswith("information_schema"):  # pg_dump takes no grants of that schema along
                found.setdefault("system grant", {})[f"{section} {name}"] = {"grants": now}
        objects = found.setdefault("large object", {})
        for owner, granted, count, digest in rows(conn, queries.LARGE_OBJECTS):
            group = f"{owner} {canonical_json(acl(granted)).decode('utf-8')}"
            known = objects.setdefault(group, {"count": 0, "oids": 0})
            known["count"] += int(count)
            known["oids"] += int(digest)
        for entry in objects.values():
            entry["oids"] = str(entry["oids"])
    return {section: entries for section, entries in found.items() if entries}


def _entry(row: dict[str, t.Any]) -> dict[str, t.Any]:
    entry: dict[str, t.Any] = {}
    for attribute, found in row.items():
        if attribute == "grants":
            entry[attribute] = acl(found)
        elif found is not None and found != []:
            entry[attribute] = sorted(found) if attribute in UNORDERED else expression(found)
    return entry


def dumped(cat: Catalogue) -> Catalogue:
    """What pg_dump takes along: it leaves invalid indexes out (they are half-built and useless)."""
    indexes = {name: entry for name, entry in cat.get("index", {}).items() if entry.get("valid", True) or entry.get("partitioned")}
    return {**{section: entries for section, entries in cat.items() if section != "index"}, **({"index": indexes} if indexes else {})}


def fingerprint(cat: Catalogue) -> str:
    """One SHA-256 over the catalogue as a restore would make it."""
    return sha256_bytes(canonical_json(dumped(cat)))


def differences(expected: Catalogue, found: Catalogue, ignore: t.Iterable[str] = ()) -> list[str]:
    """Sentences on what differs, empty if nothing does. ``ignore`` are patterns over ``"section name"`` or ``"section name attribute"``."""
    patterns = list(ignore)
    expected = dumped(expected)
    said: list[str] = []

    def ignored(text: str) -> bool:
        return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)

    for section in sorted(set(expected) | set(found)):
        before, after = expected.get(section, {}), found.get(section, {})
        for name in sorted(set(before) | set(after)):
            what = f"{section} {name}"
            if ignored(what):
                continue
            if name not in after:
                said.append(f"{what} is missing.")
            elif name not in before:
                said.append(f"{what} is here but was not expected.")
            else:
                for attribute in sorted(set(before[name]) | set(after[name])):
                    one, other = before[name].get(attribute), after[name].get(attribute)
                    if one != other and not ignored(f"{what} {attribute}"):
                        said.append(_sentence(what, attribute, one, other))
    return said


def _sentence(what: str, attribute: str, expected: t.Any, found: t.Any) -> str:
    if attribute == "grants":
        parts = []
        for role in sorted(set(expected or {}) | set(found or {})):
            before, after = set((expected or {}).get(role, [])), set((found or {}).get(role, []))
            who = role or "PUBLIC"
            if before - after:
                parts.append(f"{who} lacks {', '.join(sorted(before - after))}")
            if after - before:
                parts.append(f"{who} has {', '.join(sorted(after - before))} too many")
        return f"{what}: {'; '.join(parts)}."
    return f"{what}: {attribute} is {_short(found)}, expected {_short(expected)}."


def _short(given: t.Any) -> str:
    text = "none" if given is None else str(given)
    return text if len(text) <= 200 else text[:197] + "..."


def properties(conn: t.Any, database: str) -> dict[str, t.Any]:
    """What belongs to the database itself and not to its content, from any session of the same server.

    ``settings`` is ``{role: ["name=value", ...]}`` of ALTER DATABASE ... SET (role ``""``) and ALTER ROLE ... IN DATABASE; they may
    hold secrets of the application, so keep them out of results and logs.
    """
    from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

    found = dicts(conn, queries.properties(conn.server_version), [database])
    if not found:
        names = [row[0] for row in rows(conn, "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")]
        raise RollbackError(f"The server has no database {database!r}. It has: {', '.join(map(repr, names))}.")
    entry = found[0]
    entry["grants"] = acl(entry["grants"])
    entry["comment"] = own_comment(entry["comment"])
    settings = rows(
        conn,
        "SELECT coalesce(r.rolname::text, ''), s.setconfig FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole "
        "WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = %s) ORDER BY 1",
        [database],
    )
    entry["settings"] = {role: sorted(config) for role, config in settings}
    return entry


# Recorded, but not part of what a restored database must equal.
NOT_COMPARED = ("oid", "collation_version", "allow_connections", "is_template", "size")


def property_differences(expected: dict[str, t.Any], found: dict[str, t.Any], ignore: t.Iterable[str] = ()) -> list[str]:
    """Sentences on database properties that differ. Values of settings are not spelled out."""
    said = []
    for name in sorted(set(expected) - set(NOT_COMPARED) - set(ignore)):
        one, other = expected[name], found.get(name)
        if one == other:
            continue
        if name == "settings":
            for role in sorted(set(one) | set(other or {})):
                if one.get(role) != (other or {}).get(role):
                    who = f"of role {role} in the database" if role else "of the database"
                    keys = sorted({item.partition("=")[0] for item in set(one.get(role, [])) ^ set((other or {}).get(role, []))})
                    said.append(f"the settings {who} differ: {', '.join(keys)}.")
        else:
            said.append(_sentence("the database", name, one, other))
    return said


def exists(conn: t.Any, database: str) -> bool:
    return bool(value(conn, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", [database]))
