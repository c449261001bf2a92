# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that commits one row every millisecond and reconnects at once on any error: what an outage is measured with.

    python -m tests.bench.writer --folder DIR     # connection from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE

It runs in a process of its own. The moment of each commit (the monotonic clock, which all processes share) goes to
commits.json at SIGTERM. While a file ``stopped`` is in the folder it stays disconnected, as an application that was stopped.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import pathlib
import signal
import sys
import time
import typing as t

TABLE = "bench_writer"
SETUP = f"CREATE TABLE IF NOT EXISTS {TABLE} (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
EVERY = 0.001


def connection_params(environment: t.Mapping[str, str]) -> dict[str, t.Any]:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {key: environment[name] for key, name in names.items() if name in environment}


class Writer:
    """Writes until told to end."""

    def __init__(self, folder: pathlib.Path, params: dict[str, t.Any]) -> None:
        self.folder = folder
        self.stop_file = str(folder / "stopped")
        self.params = params
        self.commits = array.array("d")
        self.errors: dict[str, int] = {}
        self.ended = False
        self._connection: t.Any = None

    def end(self, signum: int, frame: t.Any) -> None:
        self.ended = True

    def _write(self) -> None:
        import psycopg2

        if self._connection is None:
            self._connection = psycopg2.connect(connect_timeout=5, **self.params)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {TABLE} DEFAULT VALUES")
        self.commits.append(time.monotonic())

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def run(self) -> None:
        import psycopg2

        due = time.monotonic()
        while not self.ended:
            if os.path.exists(self.stop_file):
                self._disconnect()
            else:
                try:
                    self._write()
                except psycopg2.Error as exc:
                    text = (str(exc).strip().splitlines() or [type(exc).__name__])[0][-80:]
                    self.errors[text] = self.errors.get(text, 0) + 1
                    self._disconnect()
            due = max(due + EVERY, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()) or EVERY / 10)
        self._disconnect()
        draft = self.folder / "commits.json.new"
        draft.write_text(json.dumps({"commits": list(self.commits), "errors": self.errors}), encoding="utf-8")
        draft.rename(self.folder / "commits.json")


def main(argv: t.Sequence[str] | None = None) -> int:
    known = argparse.ArgumentParser(prog="python -m tests.bench.writer", description=__doc__)
    known.add_argument("--folder", type=pathlib.Path, required=True)
    options = known.parse_args(argv)
    writer = Writer(options.folder, connection_params(os.environ))
    signal.signal(signal.SIGTERM, writer.end)
    signal.signal(signal.SIGINT, writer.end)
    writer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
