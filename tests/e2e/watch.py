# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking from outside while something is played."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import shlex
import threading
import urllib.parse

from tests.lab.postgres import Cluster
from tests.lab.system import DATABASE


def forms(password: str) -> list[str]:
    """Every way in which the password may show: as it is, quoted for JSON, shells, Python and URLs, in base64 wherever it begins."""
    raw = password.encode()
    # Base64 of three bytes is four characters: those that other bytes have a part in are left out.
    shifted = [base64.b64encode(b"\0" * shift + raw).decode()[4 if shift else 0 : -4] for shift in range(3)]
    return list(
        dict.fromkeys(
            [
                password,
                password.split(" ")[0],  # no quoting changes that part
                json.dumps(password)[1:-1],
                repr(password)[1:-1],
                shlex.quote(password),
                urllib.parse.quote(password, safe=""),
                urllib.parse.quote_plus(password),
                *shifted,
                raw.hex(),
            ]
        )
    )


class Watcher:
    """Looks all the time: does the server have exactly one open database of the name, and is the secret in any argv?"""

    def __init__(self, cluster: Cluster, password: str, closed_is_fine: bool = False) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self._forms = [form.encode() for form in forms(password)]
        self._cluster = cluster
        self._closed_is_fine = closed_is_fine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.wrong, self.wrong[:5]
        assert self.looks > 0

    def _look(self) -> None:
        query = "SELECT count(*), count(*) FILTER (WHERE datallowconn) FROM pg_database WHERE datname = %s"
        with contextlib.closing(self._cluster.connect()) as connection, connection.cursor() as cursor:
            while not self._stop.wait(0.03):
                cursor.execute(query, (DATABASE,))
                there, opened = cursor.fetchone()
                if there != 1 or (opened != 1 and not self._closed_is_fine):
                    self.wrong.append(f"{there} database(s) named {DATABASE}, {opened} open")
                self.looks += 1
                if self.looks % 5 == 0:
                    self._arguments()

    def _arguments(self) -> None:
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes()
                    if any(form in words for form in self._forms):
                        self.wrong.append(f"the password is an argument of {entry.name}: {words[:80]!r}")
