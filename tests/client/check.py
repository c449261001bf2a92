# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a rollback: is each acknowledged payment in the live or in a kept database, with its amount, and none twice?

python -m tests.client.check --acks acks.jsonl --live kejayangu   # connection from PGHOST, PGPORT, ...
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import decimal
import json
import os
import pathlib
import sys
import typing as t

from tests.client.report import Ack, read


@dataclasses.dataclass(frozen=True)
class Rows:
    """The money in one database: amount by payment id, payment id by idempotency key."""

    payments: dict[str, str]
    keys: dict[str, str | None]


@dataclasses.dataclass
class Verdict:
    """Where the acknowledged payments are; everything but ``live`` and ``kept`` must stay empty."""

    acknowledged: int = 0
    live: list[str] = dataclasses.field(default_factory=list)
    kept: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    lost: list[str] = dataclasses.field(default_factory=list)
    wrong_amount: list[str] = dataclasses.field(default_factory=list)
    twice: list[str] = dataclasses.field(default_factory=list)
    reused_id: list[str] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.wrong_amount or self.twice or self.reused_id)

    def sentence(self) -> str:
        kept = sum(len(ids) for ids in self.kept.values())
        where = f"{len(self.live)} live, {kept} kept" + (f" ({', '.join(sorted(self.kept))})" if kept else "")
        if self.ok:
            return f"{self.acknowledged} acknowledged payments: {where}, 0 lost, 0 twice"
        return (
            f"{self.acknowledged} acknowledged payments: {where}, {len(self.lost)} LOST, {len(self.wrong_amount)} with ANOTHER AMOUNT, "
            f"{len(self.twice)} TWICE, {len(self.reused_id)} with a REUSED ID"
        )


def _same(one: str | None, two: str) -> bool:
    return one is not None and decimal.Decimal(one) == decimal.Decimal(two)


def _holds(rows: Rows, ack: Ack) -> bool:
    """This very payment: id, amount, and the key that was sent with it (where the database knows the key)."""
    return _same(rows.payments.get(ack.id), ack.amount) and rows.keys.get(ack.key, ack.id) == ack.id


def compare(acks: t.Iterable[Ack], live: Rows, kept: t.Mapping[str, Rows]) -> Verdict:
    """Compare what the clients were promised with what the databases hold."""
    verdict = Verdict()
    everywhere = [live, *kept.values()]
    owner: dict[str, str] = {}
    for ack in acks:
        verdict.acknowledged += 1
        if owner.setdefault(ack.id, ack.key) != ack.key:
            verdict.reused_id.append(ack.id)
        places = [name for name, rows in kept.items() if _holds(rows, ack)]
        if _holds(live, ack):
            verdict.live.append(ack.id)
        elif places:
            verdict.kept.setdefault(places[0], []).append(ack.id)
        elif any(rows.payments.get(ack.id) is not None and rows.keys.get(ack.key) == ack.id for rows in everywhere):
            verdict.wrong_amount.append(ack.id)
        else:
            verdict.lost.append(ack.id)
        charged = {rows.keys[ack.key] for rows in everywhere if rows.keys.get(ack.key) is not None}
        if len(charged) > 1:
            verdict.twice.append(ack.key)
    return verdict


# --- reading databases ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(params: dict[str, t.Any], dbname: str) -> t.Iterator[t.Any]:
    """A connection to a database, which is opened for the moment if it accepts none (a kept one), and closed again."""
    import psycopg2

    with contextlib.closing(psycopg2.connect(**{**params, "dbname": "postgres"})) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("SELECT datallowconn, quote_ident(datname) FROM pg_database WHERE datname = %s", (dbname,))
            row = cursor.fetchone()
            if row is None:
                raise LookupError(f"there is no database {dbname}")
            allowed, quoted = row
            if not allowed:
                cursor.execute(f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS true")
            try:
                with contextlib.closing(psycopg2.connect(**{**params, "dbname": dbname})) as connection:
                    yield connection
            finally:
                if not allowed:
                    cursor.execute(f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS false")


def rows_of(params: dict[str, t.Any], dbname: str) -> Rows | None:
    """The payments of one database; None if it has no such tables."""
    with opened(params, dbname) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.payments') IS NOT NULL AND to_regclass('public.idempotency_keys') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT id::text, amount::text FROM public.payments")
        payments = dict(cursor.fetchall())
        cursor.execute("SELECT key, payment_id::text FROM public.idempotency_keys")
        return Rows(payments, dict(cursor.fetchall()))


def other_databases(params: dict[str, t.Any], live: str) -> list[str]:
    """Every database but the live one and the server's own."""
    import psycopg2

    with contextlib.closing(psycopg2.connect(**{**params, "dbname": "postgres"})) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', %s) ORDER BY datname", (live,)
        )
        return [name for (name,) in cursor.fetchall()]


def check(acks: pathlib.Path, params: dict[str, t.Any], live: str, kept: t.Sequence[str] | None = None) -> Verdict:
    """Compare an acknowledgement file with a live database and kept ones (all others on the server by default)."""
    promised = read(acks, Ack)  # first: customers may go on paying while the databases are read
    rows = rows_of(params, live)
    if rows is None:
        raise LookupError(f"the database {live} has no payments")
    found = {name: rows_of(params, name) for name in (other_databases(params, live) if kept is None else kept)}
    return compare(promised, rows, {name: each for name, each in found.items() if each is not None})


def main(argv: t.Sequence[str] | None = None) -> int:
    known = argparse.ArgumentParser(prog="python -m tests.client.check", description=__doc__)
    known.add_argument("--acks", type=pathlib.Path, required=True)
    known.add_argument("--live", required=True, help="the database of the production name")
    known.add_argument("--kept", action="append", help="a kept database; may be repeated (default: all others)")
    options = known.parse_args(argv)
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    params = {key: os.environ[name] for key, name in variables.items() if name in os.environ}
    verdict = check(options.acks, params, options.live, options.kept)
    print(json.dumps({**dataclasses.asdict(verdict), "live": len(verdict.live)}, indent=2))
    print(verdict.sentence(), file=sys.stderr)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
