# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""One attempt of each probe type: returns what was observed or raises Failed. No state is shared, so that probes run in threads.

The HTTP attempt speaks ``http.client`` itself: ``open_url`` installs a process-wide opener and is not safe in threads, and a probe must
see the server's own first answer: no proxy, no redirect followed, no connection reused.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import http.client
import json
import math
import re
import socket
import ssl
import time
import typing as t
import urllib.parse

from ansible_collections.payops.rollback.plugins.module_utils._probe_match import unmet, values_at

try:
    import psycopg2
except ImportError:
    HAS_PSYCOPG2 = False
else:
    HAS_PSYCOPG2 = True

BODY_LIMIT = 4 << 20

Probe = dict[str, t.Any]
Observed = dict[str, t.Any]


class Failed(Exception):
    """One attempt failed. ``observed`` is what was seen all the same."""

    def __init__(self, message: str, observed: Observed | None = None) -> None:
        super().__init__(message)
        self.observed = observed or {}


def attempt(probe: Probe, timeout: float) -> Observed:
    """Run one attempt of ``probe``, which must be checked already."""
    try:
        return _ATTEMPTS[probe["type"]](probe, timeout)
    except (OSError, http.client.HTTPException) as exc:
        raise Failed(_reason(exc, timeout)) from exc


def _reason(exc: Exception, timeout: float) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS connection: {exc.reason or exc}"
    if isinstance(exc, socket.timeout):
        return f"no answer within {timeout:.1f} s"
    if isinstance(exc, socket.gaierror):
        return f"the host name does not resolve: {exc.strerror}"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(exc, ConnectionError):
        return "the connection was closed without an answer"
    if isinstance(exc, http.client.HTTPException):
        return f"the answer is not HTTP: {type(exc).__name__} {exc}".rstrip()
    return str(exc)


def _tls_context(probe: Probe) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=probe.get("ca_cert"))
    if not probe["validate_certs"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _NamedHTTPSConnection(http.client.HTTPSConnection):
    """HTTPS to one host under the name of another, so that one server behind a load balancer can be asked."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._context_of_probe = context
        self._server_name = server_name

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        try:
            self.sock = self._context_of_probe.wrap_socket(plain, server_hostname=self._server_name)
        except BaseException:
            plain.close()
            raise


def request_headers(probe: Probe) -> dict[str, str]:
    """What is sent, the secret ones among them."""
    headers = {"Accept": "application/json, */*", "Accept-Encoding": "identity", "Cache-Control": "no-cache", "Connection": "close"}
    headers["User-Agent"] = "payops.rollback health_probe"
    if isinstance(probe.get("body"), (dict, list)):
        headers["Content-Type"] = "application/json"
    if probe.get("url_username") is not None:
        pair = f"{probe['url_username']}:{probe.get('url_password') or ''}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")
    for group in ("headers", "secret_headers"):
        headers.update({name: str(value) for name, value in (probe.get(group) or {}).items()})
    return headers


def _http(probe: Probe, timeout: float) -> Observed:
    response, content, observed = _exchange(probe, timeout)
    wrong = _judge_http(probe, response, content, observed)
    if wrong:
        raise Failed("; ".join(wrong), observed)
    return observed


def _exchange(probe: Probe, timeout: float) -> tuple[http.client.HTTPResponse, bytes, Observed]:
    """One request on a connection of its own: the answer, its body, and the status and time for the result."""
    url = urllib.parse.urlsplit(probe["url"])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        name = probe.get("server_name") or url.hostname or ""
        connection = _NamedHTTPSConnection(url.hostname or "", url.port or 443, timeout, _tls_context(probe), name)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout)
    body = probe.get("body")
    data = body if body is None or isinstance(body, str) else json.dumps(body)
    started = time.monotonic()
    try:
        target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        connection.request(probe["method"], target, None if data is None else data.encode("utf-8"), request_headers(probe))
        response = connection.getresponse()
        content = _read(response, started + timeout)
    finally:
        connection.close()
    return response, content, {"status": response.status, "ms": round((time.monotonic() - started) * 1000, 1)}


def _read(response: http.client.HTTPResponse, until: float) -> bytes:
    """The body, up to the limit; a server that drips bytes does not hold the probe for longer than its timeout."""
    blocks: list[bytes] = []
    size = 0
    while size < BODY_LIMIT:
        block = response.read1(65536)
        if not block:
            break
        blocks.append(block)
        size += len(block)
        if time.monotonic() > until:
            raise socket.timeout()
    return b"".join(blocks)


def _judge_http(probe: Probe, response: http.client.HTTPResponse, content: bytes, observed: Observed) -> list[str]:
    text = content.decode("utf-8", errors="replace")
    wrong = []
    if response.status not in probe["status"]:
        said = re.sub(r"[^\x20-\x7e]+", " ", text[:200]).strip()
        expected = " or ".join(str(code) for code in probe["status"])
        wrong.append(f"status {response.status}, expected {expected}" + (f" (it said: {said})" if said else ""))
    if probe.get("max_ms") is not None and observed["ms"] > probe["max_ms"]:
        wrong.append(f"took {observed['ms']:.0f} ms, expected at most {probe['max_ms']} ms")
    for wanted in probe.get("expect_headers") or []:
        value = response.getheader(wanted["name"])
        reason = unmet(wanted, [] if value is None else [value])
        if reason is not None:
            wrong.append(f"header {wanted['name']} {reason}")
    if probe.get("expect_body") is not None and re.search(probe["expect_body"], text) is None:
        wrong.append(f"the body does not match {probe['expect_body']!r}")
    if probe.get("expect_json"):
        wrong.extend(_judge_json(probe["expect_json"], text, observed))
    return wrong


def _judge_json(expected: list[dict[str, t.Any]], text: str, observed: Observed) -> list[str]:
    try:
        document = json.loads(text)
    except ValueError as exc:
        return [f"the body is not JSON: {exc}"]
    seen = observed.setdefault("json", {})
    wrong = []
    for wanted in expected:
        values = values_at(document, wanted["path"])
        seen[wanted["path"]] = values[0] if len(values) == 1 else values
        reason = unmet(wanted, values)
        if reason is not None:
            wrong.append(f"{wanted['path']} {reason}")
    return wrong


def _tcp(probe: Probe, timeout: float) -> Observed:
    started = time.monotonic()
    socket.create_connection((probe["host"], probe["port"]), timeout).close()
    return {"ms": round((time.monotonic() - started) * 1000, 1)}


def _tls(probe: Probe, timeout: float) -> Observed:
    started = time.monotonic()
    with socket.create_connection((probe["host"], probe["port"]), timeout) as plain:
        with _tls_context(probe).wrap_socket(plain, server_hostname=probe.get("server_name") or probe["host"]) as secure:
            certificate = secure.getpeercert(binary_form=True) or b""
            protocol = secure.version()
    expires = not_after(certificate)
    days = (expires - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 86400
    observed: Observed = {
        "ms": round((time.monotonic() - started) * 1000, 1),
        "protocol": protocol,
        "not_after": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days_left": round(days, 2),
    }
    if days < probe["min_days"]:
        ended = f"ends in {days:.1f} days" if days > 0 else f"ended {-days:.1f} days ago"
        raise Failed(f"the certificate {ended} ({observed['not_after']}), expected at least {probe['min_days']} days", observed)
    return observed


def not_after(der: bytes) -> datetime.datetime:
    """When an X.509 certificate ends. Python tells this only of certificates that it verified, hence the small DER reader."""

    def element(position: int) -> tuple[int, int, int]:
        tag, length = der[position], der[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(der[position : position + octets], "big")
            position += octets
        return tag, position, position + length

    try:
        position = element(element(0)[1])[1]
        tag, unused, end = element(position)
        if tag == 0xA0:  # the version, absent in version 1 certificates
            position = end
        for unused in range(3):  # serial number, signature algorithm, issuer
            position = element(position)[2]
        validity = element(position)[1]
        tag, start, end = element(element(validity)[2])
        text = der[start:end].decode("ascii")
        if tag == 0x17:  # UTCTime has two digits for the year
            text = ("20" if int(text[:2]) < 50 else "19") + text
        return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    except (IndexError, ValueError) as exc:
        raise Failed(f"the server's certificate cannot be read: {exc}") from exc


def _sql(probe: Probe, timeout: float) -> Observed:
    started = time.monotonic()
    try:
        connection = psycopg2.connect(
            dbname=probe["database"],
            user=probe.get("login_user"),
            password=probe.get("login_password"),
            host=probe.get("login_unix_socket") or probe.get("login_host") or None,
            port=probe["login_port"],
            sslmode=probe["ssl_mode"],
            sslrootcert=probe.get("ca_cert"),
            connect_timeout=max(2, round(timeout)),
            application_name="payops.rollback health_probe",
        )
        try:
            connection.set_session(readonly=True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", (str(max(1, round(timeout * 1000))),))
                cursor.execute(probe["query"])
                row = cursor.fetchone() if cursor.description else None
            connection.rollback()
        finally:
            connection.close()
    except psycopg2.Error as exc:
        raise Failed(" ".join(str(exc).split()) or type(exc).__name__) from exc
    values = [] if row is None else [_plain(row[0])]
    observed: Observed = {"ms": round((time.monotonic() - started) * 1000, 1), "value": values[0] if values else None}
    reason = unmet(probe["expect"], values)
    if reason is not None:
        what = "the first column of the first row" if values else "the answer (no row came back)"
        raise Failed(f"{what} {reason}", observed)
    if probe.get("max_ms") is not None and observed["ms"] > probe["max_ms"]:
        raise Failed(f"took {observed['ms']:.0f} ms, expected at most {probe['max_ms']} ms", observed)
    return observed


def _prometheus(probe: Probe, timeout: float) -> Observed:
    """Every series that the query gives must meet the conditions. No series, or no number in one, is no answer."""
    question = urllib.parse.urlencode({"query": probe["query"]})
    asked = {**probe, "method": "GET", "url": f"{probe['url'].rstrip('/')}/api/v1/query?{question}"}
    unused, content, observed = _exchange(asked, timeout)
    try:
        answer = json.loads(content.decode("utf-8", errors="replace"))
        if answer["status"] != "success":
            raise Failed(f"Prometheus refused the query: {answer.get('error')}", observed)
        kind, found = answer["data"]["resultType"], answer["data"]["result"]
    except (ValueError, TypeError, KeyError) as exc:
        raise Failed(f"status {observed['status']}, and the answer is not Prometheus': {content[:100]!r}", observed) from exc
    if kind not in ("vector", "scalar"):
        raise Failed(f"the query gives a {kind}, expected one number now: take a rate, an average or a quantile of it", observed)
    series = [{"metric": {}, "value": found}] if kind == "scalar" else found
    if not series:
        raise Failed("no data: the query gives no series. Does Prometheus scrape this host, and are the labels right?", observed)
    observed["value"] = float(series[0]["value"][1]) if len(series) == 1 else [float(each["value"][1]) for each in series]
    for each in series:
        name = ", ".join(f"{key}={value}" for key, value in sorted(each["metric"].items()) if key != "__name__")
        for label, wanted in (probe.get("labels") or {}).items():
            if each["metric"].get(label) != str(wanted):
                raise Failed(f"the query is not about {label}={wanted}: it gives {{{name}}}", observed)
        value = float(each["value"][1])
        if math.isnan(value):
            raise Failed(f"no data: the query gives NaN{f' for {{{name}}}' if name else ''}, as with a rate of nothing", observed)
        reason = unmet(probe["expect"], [value])
        if reason is not None:
            raise Failed(f"{{{name}}} {reason}" if name else reason, observed)
    observed["value"] = observed["value"] if math.isfinite(float(series[0]["value"][1])) else str(observed["value"])
    return observed


def _plain(value: t.Any) -> t.Any:
    """A database value as plain JSON."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


_ATTEMPTS: dict[str, t.Callable[[Probe, float], Observed]] = {
    "http": _http,
    "tcp": _tcp,
    "tls": _tls,
    "sql": _sql,
    "prometheus": _prometheus,
}
