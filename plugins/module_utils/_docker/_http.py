# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Requests to one registry: TLS, basic and bearer logins as the registry asks for them, errors as sentences.

A login is sent only when the registry asks, only to it, and to the token server that it names; never in clear over a network, unless
``validate_certs`` is switched off.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
import time
import traceback
import typing as t
import warnings
from urllib.parse import quote, urlsplit

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

REQUESTS_ERROR: str | None = None
try:
    import requests
except ImportError:
    requests = None  # type: ignore[assignment]
    REQUESTS_ERROR = traceback.format_exc()

CHALLENGE = re.compile(r'([A-Za-z]+)="((?:[^"\\]|\\.)*)"')
# A registry that is busy says so; all that is sent here may be sent twice.
BUSY = (429, 502, 503, 504)
TRIES = 3
LONGEST_PAUSE = 5.0


class Connection(t.NamedTuple):
    """How the registry is reached."""

    url: str
    username: str | None = None
    password: str | None = None
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout: int = 60


def check_url(url: str) -> str:
    """``https://host[:port]`` without a login and without a path."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or 0 < parts.port < 65536)
    except ValueError:
        good = False
    if not good:
        raise RollbackError(f"registry.url {url!r} is not the address of a registry. Write it as https://registry.example:5000.")
    if parts.username is not None or parts.password is not None:
        raise RollbackError(
            "registry.url has a login in it. Give it as registry.username and registry.password, which are kept out of logs."
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise RollbackError(
            f"registry.url {url!r} goes on behind the host. Write https://host[:port] only; the repository's path belongs into tags[].tag."
        )
    return f"{parts.scheme}://{parts.netloc}"


def check_files(prefix: str, ca_path: str | None, client_cert: str | None, client_key: str | None) -> None:
    """Whether the files of the TLS options can be used. Libraries say it late and in riddles, or ask for a password."""
    for option, path in (("ca_path", ca_path), ("client_cert", client_cert), ("client_key", client_key)):
        if path and not os.path.isfile(path):
            raise RollbackError(f"{prefix}{option} {path} is not a file on this host.")
    if client_key and not client_cert:
        raise RollbackError(
            f"{prefix}client_key is given without {prefix}client_cert. Give both, or a client_cert that holds the key, too."
        )
    context = ssl.create_default_context()
    try:
        if ca_path:
            context.load_verify_locations(ca_path)
    except (ssl.SSLError, OSError) as exc:
        raise RollbackError(f"{prefix}ca_path {ca_path} holds no certificates that can be read (PEM): {_words(exc)}.") from exc
    try:
        if client_cert:
            context.load_cert_chain(client_cert, client_key, lambda: "")
    except (ssl.SSLError, OSError) as exc:
        raise RollbackError(
            f"{prefix}client_cert {client_cert} and its key {client_key or 'in the same file'} cannot be used: {_words(exc)}. "
            "Expected PEM, a key without a password, and one that belongs to the certificate."
        ) from exc


def _words(exc: OSError) -> str:
    return str(getattr(exc, "reason", None) or exc.strerror or exc).lower().replace("_", " ")


def is_local(url: str) -> bool:
    """Whether what is sent there stays on this host."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Http:
    def __init__(self, connection: Connection) -> None:
        self.given = connection
        self.url = check_url(connection.url)
        self.host = urlsplit(self.url).netloc
        self._session: t.Any = None
        # the Authorization header by what is done ("read" or "write") to which repository
        self._good: dict[tuple[str, str], str] = {}
        check_files("registry.", connection.ca_path, connection.client_cert, connection.client_key)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    # -- one request ---------------------------------------------------------------------------------------------------

    def request(
        self, method: str, repository: str, path: str, headers: dict[str, str] | None = None, data: bytes | None = None, query: str = ""
    ) -> t.Any:
        """The answer to ``/v2/<repository>/<path>``, logged in if the registry asks for it. What it refuses is the caller's to judge,
        except for logins."""
        url = f"{self.url}/v2/{repository}/{path}{query}"
        use = "read" if method in ("GET", "HEAD") else "write"
        asked: list[str] = []
        for unused in range(3):
            login = self._good.get((use, repository))
            answer = self._send(method, url, {**(headers or {}), **({"Authorization": login} if login else {})}, data)
            if answer.status_code != 401:
                break
            challenge = str(answer.headers.get("WWW-Authenticate", ""))
            if challenge in asked:  # answered once, and it was not good enough
                self._refused(answer, use, repository)
            asked.append(challenge)
            self._good[use, repository] = self._login(challenge, answer, use, repository)
        if answer.status_code in (401, 403):
            self._refused(answer, use, repository)
        return answer

    def _send(self, method: str, url: str, headers: dict[str, str], data: bytes | None = None) -> t.Any:
        """One answer; a busy registry is asked again."""
        if self._session is None:
            self._session = requests.Session()
            self._session.auth = lambda request: request  # no login out of ~/.netrc
        given = self.given
        for attempt in range(1, TRIES + 1):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of urllib3, about validate_certs: false
                    answer = self._session.request(
                        method,
                        url,
                        headers=headers,
                        data=data,
                        timeout=given.timeout,
                        # per request: an environment variable with another bundle would win over the session's
                        verify=(given.ca_path or True) if given.validate_certs else False,
                        cert=(given.client_cert, given.client_key) if given.client_key else given.client_cert,
                        # layers lie behind redirects to a storage; a manifest is only believed where the registry itself hands it out
                        allow_redirects=False,
                    )
            except requests.exceptions.RequestException as exc:
                raise RollbackError(_no_answer(url, exc, given)) from exc
            if answer.status_code not in BUSY or attempt == TRIES:
                return answer
            time.sleep(_pause(answer.headers.get("Retry-After"), attempt))
        return answer

    # -- logins --------------------------------------------------------------------------------------------------------

    def _login(self, challenge: str, answer: t.Any, use: str, repository: str) -> str:
        """The Authorization header that the registry asks for."""
        kind = challenge.partition(" ")[0].lower()
        asked = {key.lower(): value.replace('\\"', '"') for key, value in CHALLENGE.findall(challenge)}
        if kind == "basic":
            return self._basic(self.url, answer, use, repository)
        if kind != "bearer" or not asked.get("realm"):
            raise RollbackError(
                f"The registry {self.url} asks for a login in a way that is not known: {challenge[:200] or 'it does not say how'}. "
                "Basic and bearer logins are; check registry.url."
            )
        return self._bearer(asked, answer, use, repository)

    def _basic(self, url: str, answer: t.Any, use: str, repository: str) -> str:
        given = self.given
        if given.username is None or given.password is None:
            self._refused(answer, use, repository)
        if url.startswith("http://") and not is_local(url) and given.validate_certs:
            raise RollbackError(
                f"The password would cross the network in clear to {url}. Use https, or say registry.validate_certs=false if that is meant."
            )
        return "Basic " + base64.b64encode(f"{given.username}:{given.password}".encode()).decode("ascii")

    def _bearer(self, asked: dict[str, str], answer: t.Any, use: str, repository: str) -> str:
        realm, service, scope = asked["realm"], asked.get("service", ""), asked.get("scope", "")
        if not scope:
            scope = f"repository:{repository}:{'pull' if use == 'read' else 'pull,push'}"
        if self.url.startswith("https://") and not realm.startswith("https://"):
            raise RollbackError(f"The registry {self.url} sends logins to {realm}, which is not https. Nothing was sent there.")
        headers = {"Authorization": self._basic(realm, answer, use, repository)} if self.given.username is not None else {}
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in (("service", service), ("scope", scope)) if value)
        token_answer = self._send("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers)
        token = None
        if token_answer.status_code == 200:
            try:
                found = token_answer.json()
                token = found.get("token") or found.get("access_token")
            except (ValueError, AttributeError):
                token = None
        if not isinstance(token, str) or not token:
            self._refused(token_answer, use, repository, f"the token server {realm}")
        return f"Bearer {token}"

    def _refused(self, answer: t.Any, use: str, repository: str, who: str = "") -> t.NoReturn:
        who = who or f"the registry {self.url}"
        doing = "read" if use == "read" else "write to"
        user = f"user {self.given.username!r}" if self.given.username is not None else "anybody without a login"
        what = (
            "Check registry.username and registry.password"
            if self.given.username is not None
            else "Give registry.username and registry.password"
        )
        raise RollbackError(
            f"{who[0].upper()}{who[1:]} does not let {user} {doing} {repository} (status {answer.status_code}{said(answer)}). "
            f"{what}, and what that user may do there."
        )


def said(answer: t.Any) -> str:
    """What an answer says about its error, for the end of a sentence."""
    try:
        errors = answer.json().get("errors")
        words = "; ".join(f"{each.get('code', '')} {each.get('message', '')}".strip() for each in errors)
    except (ValueError, AttributeError, TypeError):
        words = ""
    return f": {words[:300]}" if words else ""


def _pause(wanted: str | None, attempt: int) -> float:
    try:
        return min(float(wanted or ""), LONGEST_PAUSE)
    except ValueError:
        return 0.5 * attempt


def _no_answer(url: str, exc: BaseException, given: Connection) -> str:
    """One sentence for what requests nests deeply."""
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}"
    text = str(exc)
    if isinstance(exc, requests.exceptions.SSLError):
        # why ours was refused, or why we refused; the rest of the words is where in OpenSSL that happened
        tried = [re.search(pattern, text) for pattern in (r"verify failed: ([^('\"]+)", r"alert ([a-z ]+)", r"\] ([^('\"]+)")]
        reason = next((each.group(1).strip() for each in tried if each), "TLS failed")
        return (
            f"The certificates of {where} and of this host do not agree: {reason}. "
            "Check registry.ca_path, registry.client_cert and registry.client_key, and the host in registry.url."
        )
    if isinstance(exc, requests.exceptions.Timeout):
        return f"{where} did not answer within {given.timeout} s. Check registry.url, or raise timeout."
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text) or re.search(r"('?Connection aborted|Remote end closed[^'\")]*)", text)
    reason = found.group(1).strip("' ") if found else type(exc).__name__
    return f"{where} cannot be reached: {reason}. Check registry.url and whether the registry runs there."
