# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What may be asked of a system: the option ``probes``, and everything that is wrong with what was given for it.

``probe_argument_spec()`` is the option for modules; the documentation fragment is ``payops.rollback.probes``. Nothing is sent here.
"""

from __future__ import annotations

import math
import os
import re
import typing as t
import urllib.parse

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._probe_attempts import HAS_PSYCOPG2, Probe
from ansible_collections.payops.rollback.plugins.module_utils._probe_match import CONDITIONS, check_conditions, check_regex, parse_path

_COMMON = ("name", "type", "timeout")
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # type: (required, optional)
    "http": (
        ("url",),
        (
            "max_ms",
            "method",
            "status",
            "headers",
            "secret_headers",
            "url_username",
            "url_password",
            "body",
            "expect_headers",
            "expect_json",
            "expect_body",
            "validate_certs",
            "ca_cert",
            "server_name",
        ),
    ),
    "tcp": (("host", "port"), ()),
    "tls": (("host",), ("port", "min_days", "server_name", "validate_certs", "ca_cert")),
    "sql": (
        ("database",),
        (
            "max_ms",
            "query",
            "expect",
            "login_host",
            "login_port",
            "login_unix_socket",
            "login_user",
            "login_password",
            "ssl_mode",
            "ca_cert",
        ),
    ),
    "prometheus": (
        ("url", "query", "expect"),
        ("labels", "headers", "secret_headers", "url_username", "url_password", "validate_certs", "ca_cert", "server_name"),
    ),
}
_DEFAULTS: dict[str, dict[str, t.Any]] = {
    "http": {"method": "GET", "status": [200], "validate_certs": True},
    "tcp": {},
    "tls": {"port": 443, "min_days": 14, "validate_certs": True},
    "prometheus": {"validate_certs": True},
    "sql": {"query": "SELECT 1", "expect": {"exists": True}, "login_port": 5432, "ssl_mode": "prefer"},
}
METHODS = ("GET", "HEAD", "OPTIONS", "POST")


def _conditions_spec(**key: t.Any) -> dict[str, t.Any]:
    return {
        **key,
        "equals": {"type": "raw"},
        "in": {"type": "list", "elements": "raw"},
        "min": {"type": "float"},
        "max": {"type": "float"},
        "matches": {"type": "str"},
        "exists": {"type": "bool"},
    }


def probe_argument_spec() -> dict[str, t.Any]:
    """The option ``probes``. No defaults in here: they depend on the type and are filled in by ``check_probes``."""
    listed = {"type": "list", "elements": "dict"}
    options: dict[str, t.Any] = {
        "name": {"type": "str"},
        "type": {"type": "str", "choices": list(_OPTIONS), "default": "http"},
        "timeout": {"type": "float", "default": 5.0},
        "max_ms": {"type": "int"},
        "url": {"type": "str"},
        "method": {"type": "str", "choices": list(METHODS)},
        "status": {"type": "list", "elements": "int"},
        "headers": {"type": "dict"},
        "secret_headers": {"type": "dict", "no_log": True},
        "url_username": {"type": "str"},
        "url_password": {"type": "str", "no_log": True},
        "body": {"type": "raw"},
        "expect_headers": {**listed, "options": _conditions_spec(name={"type": "str", "required": True})},
        "expect_json": {**listed, "options": _conditions_spec(path={"type": "str", "required": True})},
        "expect_body": {"type": "str"},
        "validate_certs": {"type": "bool"},
        "ca_cert": {"type": "path"},
        "server_name": {"type": "str"},
        "host": {"type": "str"},
        "port": {"type": "int"},
        "min_days": {"type": "int"},
        "database": {"type": "str"},
        "query": {"type": "str"},
        "expect": {"type": "dict", "options": _conditions_spec()},
        "labels": {"type": "dict"},
        "login_host": {"type": "str"},
        "login_port": {"type": "int"},
        "login_unix_socket": {"type": "path"},
        "login_user": {"type": "str"},
        "login_password": {"type": "str", "no_log": True},
        "ssl_mode": {"type": "str", "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"]},
    }
    return {
        "type": "list",
        "elements": "dict",
        "options": options,
        "required_if": [("type", kind, required) for kind, (required, unused) in _OPTIONS.items()],
    }


def retarget(probes: t.Sequence[Probe], port: int) -> list[Probe]:
    """The same probes aimed at another port of the same host: how a release is asked on its spare port. SQL and TLS stay."""
    moved = []
    for probe in probes:
        kind = probe.get("type") or "http"
        if kind == "http" and probe.get("url"):
            url = urllib.parse.urlsplit(probe["url"])
            host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
            probe = {**probe, "url": urllib.parse.urlunsplit(url._replace(netloc=f"{host}:{port}"))}
        elif kind == "tcp":
            probe = {**probe, "port": port}
        moved.append(probe)
    return moved


def check_probes(probes: t.Sequence[t.Any]) -> list[Probe]:
    """The probes with their defaults, or one error that names everything that is wrong. Options that are None count as not given."""
    if not probes:
        raise RollbackError("There is no probe. Expected at least one; without any, nothing can be called healthy.")
    wrong: list[str] = []
    checked: list[Probe] = []
    for number, given in enumerate(probes, 1):
        if not isinstance(given, dict):
            wrong.append(f"probe {number} must be a mapping, found {given!r}")
            continue
        probe: Probe = {key: value for key, value in given.items() if value is not None}
        kind = probe.setdefault("type", "http")
        if kind not in _OPTIONS:
            wrong.append(f"probe {number} has the type {kind!r}, expected one of {', '.join(_OPTIONS)}")
            continue
        probe = {"timeout": 5.0, **_DEFAULTS[kind], **probe}
        probe.setdefault("name", _name_of(probe))
        wrong.extend(f"{probe['name']}: {reason}" for reason in _wrong_with(probe))
        checked.append(probe)
    names = [probe["name"] for probe in checked]
    wrong.extend(f"two probes are called {name!r}; give each its own name" for name in sorted({n for n in names if names.count(n) > 1}))
    if wrong:
        raise RollbackError("The probes are not usable, and nothing was sent: " + "; ".join(wrong) + ".", probe_errors=wrong)
    return checked


def _name_of(probe: Probe) -> str:
    if probe["type"] == "http":
        url = str(probe.get("url", "without url"))
        return f"{probe['method']} {url.rpartition('@')[2].partition('?')[0]}"
    if probe["type"] == "prometheus":
        return f"prometheus {probe.get('query', 'without query')}"
    if probe["type"] == "sql":
        return f"sql {probe.get('database', 'without database')}"
    return f"{probe['type']} {probe.get('host', 'without host')}:{probe.get('port', '?')}"


def _wrong_with(probe: Probe) -> t.Iterator[str]:
    kind = probe["type"]
    required, optional = _OPTIONS[kind]
    for key in required:
        if probe.get(key) in (None, ""):
            yield f"{key} is missing"
    for key in sorted(set(probe) - {*_COMMON, *required, *optional}):
        yield f"{key} does not belong to a probe of type {kind}"
    for key in ("timeout", "max_ms", "min_days"):
        if key in probe and not (is_number(probe[key]) and (probe[key] > 0 or key == "min_days")):
            yield f"{key} must be a number above 0, found {probe[key]!r}"
    for key in ("port", "login_port"):
        if key in probe and not (isinstance(probe[key], int) and 1 <= probe[key] <= 65535):
            yield f"{key} must be between 1 and 65535, found {probe[key]!r}"
    if "ca_cert" in probe and not os.path.isfile(probe["ca_cert"]):
        yield f"ca_cert {probe['ca_cert']} is not a file on this host"
    if kind == "http":
        yield from _wrong_with_http(probe)
    if kind == "sql":
        yield from _wrong_with_sql(probe)
    if kind == "prometheus":
        yield from _wrong_with_url(probe)
        yield from _wrong_with_login(probe)
        yield from _wrong_with_expect(probe.get("expect", {}))


def _wrong_with_http(probe: Probe) -> t.Iterator[str]:
    yield from _wrong_with_url(probe)
    if probe["method"] not in METHODS:
        yield f"method must be one of {', '.join(METHODS)}, found {probe['method']!r}"
    if "body" in probe and probe["method"] != "POST":
        yield f"a body is sent with POST only, found method {probe['method']}"
    status = probe["status"]
    if not isinstance(status, list) or not status or not all(isinstance(code, int) and 100 <= code <= 599 for code in status):
        yield f"status must be a list of numbers between 100 and 599, found {status!r}"
    yield from _wrong_with_login(probe)
    if "expect_body" in probe:
        yield from check_regex("expect_body", probe["expect_body"])
    for option, key in (("expect_headers", "name"), ("expect_json", "path")):
        yield from _wrong_with_list(probe.get(option, []), option, key)


def _wrong_with_url(probe: Probe) -> t.Iterator[str]:
    try:
        url = urllib.parse.urlsplit(str(probe.get("url", "")))
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if "url" in probe and (not usable or re.search(r"[\x00-\x20\x7f]", probe["url"])):
        yield "url must look like https://host:port/path"
    elif "url" in probe and "@" in url.netloc:
        yield "the url holds a login; put it into url_username and url_password, which are kept out of logs"


def _wrong_with_login(probe: Probe) -> t.Iterator[str]:
    if "url_password" in probe and "url_username" not in probe:
        yield "url_password needs url_username"
    for group in ("headers", "secret_headers"):
        for name, value in (probe.get(group) or {}).items():
            if not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", str(name)) or re.search(r"[\r\n\x00]|[^\x00-\xff]", str(value)):
                yield f"{group} holds a header that cannot be sent: {name!r}"


def _wrong_with_list(entries: t.Any, option: str, key: str) -> t.Iterator[str]:
    if not isinstance(entries, list):
        yield f"{option} must be a list of mappings, each with {key} and what is expected of it"
        return
    for number, wanted in enumerate(entries, 1):
        where = f"{option}[{number}]"
        if not isinstance(wanted, dict) or not wanted.get(key):
            yield f"{where} lacks {key}"
            continue
        yield from _unknown(where, wanted, key)
        yield from check_conditions(f"{where} ({wanted[key]})", wanted)
        if key == "path":
            try:
                parse_path(wanted["path"])
            except ValueError as exc:
                yield f"{where} path {wanted['path']!r} is {exc}"


def _wrong_with_sql(probe: Probe) -> t.Iterator[str]:
    yield from _wrong_with_expect(probe["expect"])
    if "login_host" in probe and "login_unix_socket" in probe:
        yield "login_host and login_unix_socket exclude each other"
    if not HAS_PSYCOPG2:
        yield "the Python library psycopg2 is missing on this host; install python3-psycopg2 there"


def _wrong_with_expect(expect: t.Any) -> t.Iterator[str]:
    if isinstance(expect, dict):
        yield from _unknown("expect", expect)
        yield from check_conditions("expect", expect)
    else:
        yield "expect must be a mapping such as {min: 1}"


def _unknown(where: str, wanted: dict[str, t.Any], *keys: str) -> t.Iterator[str]:
    for name in sorted(set(wanted) - {*CONDITIONS, *keys}):
        yield f"{where} has the unknown key {name}; known are {', '.join((*keys, *CONDITIONS))}"


def is_number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
