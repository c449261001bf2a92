# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 in the middle of a step, with half of its work done: sessions of the server that live on, an open transaction, half a file.

What test_kill.py kills stands between two steps or at the end of one. Here the module dies while pg_restore loads, while rows are
being carried back, and at each system call that writes the manifest. Then the same command, and what must always hold.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
import typing as t

import pytest

from tests.lab.modules import Started, result_of, start_cold
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles

from .restore_helpers import Shop

FULL = os.environ.get("FULL", "") not in ("", "0")
LEDGERS: list[dict[str, t.Any]] = [{"table": "payments"}, {"table": "idempotency_keys"}]
# A check that takes its time where rows are loaded or carried, and none where the application writes.
SLOW = """
CREATE FUNCTION public.slow(note text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF note = 'slow' AND (current_setting('application_name') LIKE 'payops.rollback/%' OR current_database() ~ '__r_') THEN
    PERFORM pg_catalog.pg_sleep(0.1);
  END IF;
  RETURN true;
END $$;
ALTER TABLE payments ADD CHECK (public.slow(note));
"""


@pytest.fixture(params=["superuser", "owner"] if FULL else ["usual profile"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    owner = request.param == "owner" or (not FULL and cluster.major < 18)
    shop = Shop(cluster, roles, database, tmp_path, roles.operator if owner else None).fill()
    shop.sql(SLOW, roles.owner)
    return shop


def pay_slowly(shop: Shop, number: int) -> set[int]:
    query = "INSERT INTO payments (customer_id, amount, note) SELECT 1, 5, 'slow' FROM generate_series(1, %s) RETURNING id"
    return {row[0] for row in shop.sql(query, shop.roles.app, values=(number,))}


def backends(shop: Shop, query: str) -> list[int]:
    """Processes of the server that execute such a statement for us now."""
    found = shop.cluster.sql(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND datname LIKE %s AND pid <> pg_backend_pid()",
        (query, shop.name.replace("_", r"\_") + "%"),
    )
    return [row[0] for row in found]


def kill_while(shop: Shop, process: Started, query: str) -> list[int]:
    """kill -9 of the module while the server executes the statement; the processes of the server that live on."""
    deadline = time.monotonic() + 120
    while not backends(shop, query):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    return backends(shop, query)


def test_the_module_dies_while_pg_restore_loads(shop: Shop) -> None:
    """pg_restore is a program of its own: it and its sessions go on filling the staged database when the module is dead."""
    paid = shop.payments(shop.name) | pay_slowly(shop, 30)
    shop.snapshot()
    old = shop.oid()
    process = shop.start("pg_restore", state="live", version=shop.version)
    left = kill_while(shop, process, "COPY public.payments%FROM stdin%")
    assert left, "no session of the server outlived the module: this test shows nothing"
    staged = [each["marker"]["state"] for each in shop.family().values() if each["marker"].get("kind") == "staged"]
    assert staged == ["loading"]
    shop.invariant(paid)
    paid.add(shop.pay())

    result = shop.restore("live")
    assert any("half restored" in action for action in result["actions"]), result["actions"]
    assert not set(left) & set(backends(shop, "COPY%")), "what the dead module had begun still runs"
    assert shop.oid() != old
    shop.invariant(paid)
    shop.restore("previous")
    assert shop.oid() == old
    shop.invariant(paid)


def test_the_module_dies_while_rows_are_carried_back(shop: Shop) -> None:
    """Its transaction is open, the table locked and its triggers are off; the server finds out only when the statement is through."""
    shop.snapshot()
    paid = shop.payments(shop.name) | pay_slowly(shop, 30) | {shop.pay()}
    shop.restore("live", ledgers=LEDGERS)
    process = shop.start("pg_carry_back", ledgers=LEDGERS)
    left = kill_while(shop, process, "%INSERT INTO%OVERRIDING SYSTEM VALUE%")
    assert left, "no session of the server outlived the module: this test shows nothing"
    shop.invariant(paid)
    assert len(shop.payments(shop.name)) == 1000, "a part of the rows is in the live database"

    result = shop.ok("pg_carry_back", ledgers=LEDGERS)
    assert result["carried"][f"{shop.name}.public.payments"] == 31
    assert shop.payments(shop.name) == paid
    assert not shop.ok("pg_carry_back", ledgers=LEDGERS)["changed"]
    assert shop.sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'paid'") == [("O",)]
    shop.invariant(paid)


# Counts the calls that open, flush and rename files from the moment the component is sealed, and dies at one of them, half of a file written.
DYING = """
import contextlib, os, signal, sys
from ansible_collections.payops.rollback.plugins.module_utils import _pointwriter
armed, count, last = [], [0], int(sys.argv[1])
def dying(name):
    real = getattr(os, name)
    def call(*given, **more):
        if armed:
            count[0] += 1
            if count[0] == last:
                if name == "fsync":
                    with contextlib.suppress(OSError):
                        os.ftruncate(given[0], os.fstat(given[0]).st_size // 2)  # half of it had been written
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **more)
    setattr(os, name, call)
for each in ("fsync", "rename", "open"):
    dying(each)
seal = _pointwriter.PointWriter.seal
def sealing(*given, **more):
    armed.append(True)
    result = seal(*given, **more)
    armed.clear()
    with open(sys.argv[2], "w") as handle:
        handle.write(str(count[0]))
    return result
_pointwriter.PointWriter.seal = sealing
"""


def dies_at(shop: Shop, call: int, counted: pathlib.Path) -> dict[str, t.Any]:
    options = shop.arguments(version=shop.version)
    return result_of(start_cold("pg_snapshot", options, before=DYING, arguments=[str(call), str(counted)]))


def test_the_module_dies_while_the_manifest_is_written(shop: Shop, tmp_path: pathlib.Path) -> None:
    """At every system call of the seal (without FULL=1 at each of the first ten, some in between, and the last three)."""
    counted, point = tmp_path / "calls", shop.store / "shop" / shop.version / "postgresql"
    other = Shop(shop.cluster, shop.roles, shop.name, tmp_path / "other", shop.operator)
    assert dies_at(other, 0, counted)["changed"]
    calls = int(counted.read_text())
    assert calls > 15, "the seal writes, flushes and renames"
    chosen = range(1, calls + 1) if FULL else sorted({*range(1, 11), calls // 2, calls - 2, calls - 1, calls})
    there = 0
    for call in chosen:
        result = dies_at(shop, call, counted)
        if not result.get("killed"):
            assert not result.get("failed"), result  # the point was there already: it had its name before the last flush
            assert not result["changed"] and there, call
            continue
        if point.exists():
            there += 1
            continue
        assert not there, "a point was there and is no more"
        with contextlib.suppress(FileNotFoundError):
            assert not [each for each in point.parent.iterdir() if not each.name.startswith(".partial")]
    assert there, "at the end it has its name"
    result = shop.ok("pg_snapshot", version=shop.version)
    assert not result["changed"], "the name was given before everything else was on disk"
    assert [each.name for each in point.parent.iterdir() if each.name.startswith(".partial")] == []
    assert shop.restore("live")["changed"]


def test_a_manifest_of_which_half_is_written_is_no_point(shop: Shop, tmp_path: pathlib.Path) -> None:
    """Killed in the seal, the same command takes the snapshot anew and leaves nothing of the first."""
    assert dies_at(shop, 2, tmp_path / "calls")["killed"]
    refused = shop.refused("pg_restore", state="staged", version=shop.version)
    assert shop.version in refused["msg"]
    assert shop.ok("pg_snapshot", version=shop.version)["changed"]
    folder = shop.store / "shop" / shop.version
    assert [each.name for each in folder.iterdir() if each.name.startswith(".partial")] == []
    assert shop.restore("live")["changed"]
