# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""staged, live, previous and complete on real servers, as superuser and as owner with rights."""

from __future__ import annotations

import contextlib
import datetime
import json
import pathlib
import threading
import time
import typing as t

import psycopg2
import pytest

from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles

from .restore_helpers import Shop, forge


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path, roles.operator if request.param == "owner" else None).fill()


@pytest.fixture
def snapped(shop: Shop) -> Shop:
    """A shop with a point and two payments after it."""
    shop.snapshot()
    shop.pay()
    shop.pay()
    return shop


def settings(shop: Shop) -> list[tuple[t.Any, ...]]:
    return shop.cluster.sql(
        "SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text, shobj_description(d.oid, 'pg_database'),"
        " (SELECT array_agg(coalesce(setrole::regrole::text, '') || s.setconfig::text ORDER BY 1) FROM pg_db_role_setting s"
        " WHERE s.setdatabase = d.oid) FROM pg_database d WHERE datname = %s",
        (shop.name,),
    )


def test_the_whole_way_there_and_back(snapped: Shop) -> None:
    shop = snapped
    before, oid, properties = shop.payments(shop.name), shop.oid(), settings(shop)
    assert len(before) == 1002

    result = shop.restore("staged")
    assert result["changed"]
    assert shop.oid() == oid
    staged = result["databases"][shop.name]["staged"]
    assert not shop.family()[staged]["open"]
    assert result["databases"][shop.name]["rows_since"] == {"public.payments": 2, "public.audit": 2}
    again = shop.restore("staged")
    assert again["databases"][shop.name]["staged"] == staged, "what was compared already is used again"
    assert not again["changed"]

    result = shop.restore("live")
    assert result["changed"] and result["outage_ms"] < 2000, result
    assert shop.oid() != oid
    assert len(shop.payments(shop.name)) == 1000
    assert settings(shop)[0][:2] == properties[0][:2]
    assert settings(shop)[0][3:] == properties[0][3:]
    kept = result["kept"][shop.name]
    assert shop.payments(kept) == before
    new = shop.pay()
    assert new > max(before) + 9_000, "a payment number was given out twice"
    shop.invariant(before | {new})

    again = shop.restore("live")
    assert not again["changed"]
    assert again["databases"][shop.name]["rows_since"] == {"public.payments": 1, "public.audit": 1}

    result = shop.restore("previous")
    assert result["changed"]
    assert shop.oid() == oid
    assert settings(shop) == properties
    assert shop.payments(shop.name) == before
    assert shop.pay() > new, "numbers given out between flip and undo are used again"
    shop.invariant(before | {new})
    assert not shop.restore("previous")["changed"]

    result = shop.restore("complete")
    assert result["changed"] and list(shop.family()) == [shop.name]
    assert not shop.restore("complete")["changed"]


TAMPERED = {
    "changed row": ("UPDATE payments SET note = 'forged' WHERE id = 500", "public.payments: 1 row(s) written"),
    "added row": ("INSERT INTO customers (email) VALUES ('x')", "public.customers: 1 row(s) written"),
    "deleted row": ("DELETE FROM idempotency_keys WHERE key = 'k3'", "public.idempotency_keys: 0 row(s) written and 1 gone"),
    "dropped index": ("DROP INDEX payments_customer", "index public.payments_customer is missing"),
    "dropped grant": ("REVOKE SELECT ON payments FROM shop_readonly", "shop_readonly lacks SELECT"),
    "wider grant": ("GRANT SELECT ON payments TO PUBLIC", "PUBLIC has SELECT too many"),
    "sequence set back": ("SELECT setval('payments_id_seq', 3)", "payments_id_seq stands at 3, behind"),
    "disabled trigger": ("ALTER TABLE payments DISABLE TRIGGER paid", "trigger"),
    "database grant": (
        "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$",
        "PUBLIC has CONNECT",
    ),
    "database setting": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 1', current_database()); END $$",
        "settings of the database differ: statement_timeout",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_one_change_in_the_staged_database_stops_the_flip(snapped: Shop, what: str) -> None:
    shop, (statement, expected) = snapped, TAMPERED[what]
    old = shop.oid()
    staged = shop.restore("staged")["databases"][shop.name]["staged"]
    with shop.opened(staged):
        shop.sql(statement, name=staged)
    result = shop.refused("pg_restore", state="live", version=shop.version)
    assert expected in " ".join(result["differences"]), result["differences"]
    assert shop.oid() == old
    shop.invariant(shop.payments(shop.name))
    assert shop.restore("live")["changed"], "the same command again restores anew"
    assert staged not in shop.family() or shop.family()[staged]["marker"].get("state") == "verified"


def test_nobody_gets_into_the_staged_database(snapped: Shop) -> None:
    staged = snapped.restore("staged")["databases"][snapped.name]["staged"]
    with pytest.raises(Exception, match="not currently accepting connections"):
        snapped.cluster.connect(staged)


def test_a_password_in_the_environment_of_the_host_is_not_used(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client programs would take it before the one that was given."""
    monkeypatch.setenv("PGPASSWORD", "of somebody else")
    shop.snapshot()
    assert shop.restore("staged")["changed"]


def test_check_mode_shows_the_plan_and_changes_nothing(snapped: Shop) -> None:
    shop = snapped
    shop.sql("CREATE TABLE later (n int)", shop.roles.owner)
    before, files = shop.family(), sorted(shop.store.rglob("*"))
    result = shop.run("pg_restore", check=True, state="live", version=shop.version)
    assert result["changed"] and shop.family() == before
    text = " ".join(result["plan"])
    assert "public.payments has 2 row(s) newer than the point" in text
    assert "relation public.later is here but was not expected" in text
    assert "Restoring and comparing takes about" in text
    assert result["estimate"]["outage_ms"] > 0
    assert not result["estimate"]["staging_is_least"]
    assert sorted(shop.store.rglob("*")) == files, "check mode wrote into the store"


def test_the_estimate_is_of_the_point_and_not_of_what_is_live(snapped: Shop) -> None:
    """The disaster itself: what is live was emptied or is gone, and everything has to be restored all the same."""
    shop = snapped
    full = shop.run("pg_restore", check=True, state="live", version=shop.version)
    shop.sql("TRUNCATE payments, idempotency_keys, audit, customers", shop.roles.owner)
    empty = shop.run("pg_restore", check=True, state="live", version=shop.version)
    assert empty["estimate"]["staging_seconds"] == full["estimate"]["staging_seconds"] > 0
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} RENAME TO {ident(shop.name + '_lost')}")
    gone = shop.run("pg_restore", check=True, state="live", version=shop.version)
    assert gone["estimate"]["staging_seconds"] == full["estimate"]["staging_seconds"]
    assert "Nothing has the production name now" in " ".join(gone["plan"])

    forge(shop, lambda facts: facts["databases"][shop.name]["properties"].pop("size"))  # a point from before the size was recorded
    old = shop.run("pg_restore", check=True, state="live", version=shop.version)
    assert old["estimate"]["staging_is_least"] and "takes at least" in " ".join(old["plan"])
    shop.restore("live")


def test_the_estimate_of_the_outage_is_the_last_flips(snapped: Shop) -> None:
    shop = snapped
    with contextlib.closing(shop.cluster.connect(shop.name, **shop.roles.app.login())):
        guess = shop.run("pg_restore", check=True, state="live", version=shop.version)
    assert guess["estimate"]["sessions"] == 1 and not guess["estimate"]["outage_is_measured"]
    assert "no flip was measured on this host yet" in " ".join(guess["plan"])
    took = shop.restore("live")["outage_ms"]
    plan = shop.run("pg_restore", check=True, state="live", version=shop.version, again=True)
    assert plan["estimate"]["outage_ms"] == took and plan["estimate"]["outage_is_measured"]
    assert "as the last flip on this host, which took 1 attempt)" in " ".join(plan["plan"])


def test_a_migration_after_the_flip_means_restore_again(snapped: Shop) -> None:
    shop = snapped
    shop.restore("live")
    assert not shop.restore("live")["changed"]
    shop.sql("ALTER TABLE payments ADD COLUMN extra int", shop.roles.owner)
    result = shop.restore("live")
    assert result["changed"] and len(shop.family()) == 3
    assert not shop.restore("live")["changed"]


def test_again_restores_once_more(snapped: Shop) -> None:
    shop = snapped
    shop.restore("live")
    new = shop.pay()
    assert "set again=true" in shop.restore("live")["msg"]
    result = shop.restore("live", again=True)
    assert result["changed"] and new not in shop.payments(shop.name)
    assert new in shop.payments(result["kept"][shop.name])
    shop.invariant({new})


def used_for_an_hour(shop: Shop, numbers: int) -> int:
    """What the files say after an hour in which the application drew so many numbers since the last flip; the last of them."""
    path = shop.store / "shop" / ".run" / "postgresql.state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    state["sequences"][str(shop.oid())]["at"] = then.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    path.write_text(json.dumps(state), encoding="utf-8")
    return int(shop.sql("SELECT max(nextval('payments_id_seq')) FROM generate_series(1, %s)", values=(numbers,))[0][0])


def test_an_undo_leaves_a_days_use_of_every_sequence_and_what_flips_moved_is_no_use(snapped: Shop) -> None:
    shop = snapped
    shop.restore("live")
    last = used_for_an_hour(shop, 2000)
    moved = shop.restore("previous")["sequences"][shop.name]
    day = moved['"public"."payments_id_seq"']["to"] - last
    assert 47_000 <= day <= 48_000, "2000 numbers an hour are 48,000 a day"
    assert shop.pay() > last + 47_000

    shop.restore("live", again=True)  # seconds later: no hour to measure, but a day's use is known; the jump itself is none
    after = shop.pay()
    moved = shop.restore("previous")["sequences"][shop.name]
    assert 47_000 <= moved['"public"."payments_id_seq"']["to"] - after <= 48_000
    for unused in range(3):
        shop.restore("live", again=True)
        used_for_an_hour(shop, 1)
        assert shop.restore("previous")["sequences"][shop.name]['"public"."payments_id_seq"']["to"] < 2_000_000


def test_a_sequence_that_was_renamed_since_gives_no_number_out_twice(snapped: Shop) -> None:
    shop = snapped
    shop.sql("ALTER SEQUENCE customers_id_seq RENAME TO customer_ids", shop.roles.owner)
    shop.sql("CREATE SEQUENCE tickets", shop.roles.owner)
    shop.sql("SELECT nextval('tickets')", shop.roles.owner)
    (last,) = shop.sql("INSERT INTO customers (email) VALUES ('new@example.com') RETURNING id")[0]
    flipped = shop.restore("live")
    assert flipped["sequences"][shop.name]['"public"."customers_id_seq"'] == {"live": last, "from": 50, "to": last + 10_000}
    assert any('no sequence goes on from "public"."tickets"' in note for note in flipped["notes"]), flipped["notes"]
    assert shop.sql("INSERT INTO customers (email) VALUES ('after@example.com') RETURNING id")[0][0] > last + 9_999
    back = shop.restore("previous")
    assert back["sequences"][shop.name]['"public"."customer_ids"']["live"] == last + 10_001
    assert not [note for note in back["notes"] if "goes on from" in note]


def test_two_points_and_undo_goes_back_one_flip_only(snapped: Shop) -> None:
    shop = snapped
    first = shop.oid()
    shop.snapshot("second")
    shop.restore("live")
    middle = shop.oid()
    assert shop.count() == 1000
    shop.restore("live", version="second")
    assert shop.count() == 1002
    shop.restore("previous")
    assert shop.oid() == middle
    assert not shop.restore("previous")["changed"], "a second undo in a row must not go back further"
    assert shop.oid() == middle != first
    assert shop.restore("live")["databases"][shop.name]["at_version"]
    assert not shop.restore("live")["changed"]
    assert len(shop.restore("complete")["dropped"]) == 2


class Traffic(threading.Thread):
    """Payments all the time, every second one inside a savepoint. ``paid`` holds those whose commit was acknowledged."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(daemon=True)
        self.shop = shop
        self.paid: list[int] = []
        self.lost_connections = 0
        self._over = threading.Event()

    def run(self) -> None:
        login = self.shop.roles.app.login()
        while not self._over.is_set():
            try:
                with contextlib.closing(self.shop.cluster.connect(self.shop.name, **login, autocommit=False)) as connection:
                    while not self._over.wait(0.02):
                        with connection.cursor() as cursor:
                            if len(self.paid) % 2:
                                cursor.execute("SAVEPOINT inner_one")
                            cursor.execute("INSERT INTO payments (customer_id, amount) VALUES (1, 3) RETURNING id")
                            ((number,),) = cursor.fetchall()
                            if len(self.paid) % 2:
                                cursor.execute("RELEASE SAVEPOINT inner_one")
                        connection.commit()
                        self.paid.append(number)
            except psycopg2.Error:
                self.lost_connections += 1

    def go_on_for(self, seconds: float) -> int:
        """Payments of the next seconds; how many there are now."""
        before, deadline = len(self.paid), time.monotonic() + seconds
        while time.monotonic() < deadline or len(self.paid) < before + 10:
            assert time.monotonic() < deadline + 60, "nobody can pay"
            time.sleep(0.05)
        return len(self.paid)

    def stop(self) -> None:
        self._over.set()
        self.join(30)


def test_rows_written_all_the_time_and_in_subtransactions_survive_two_undos(snapped: Shop) -> None:
    """Two seconds of payments between the steps, and payments while each of them runs."""
    shop = snapped
    traffic = Traffic(shop)
    traffic.start()
    try:
        for again in (False, True):
            traffic.go_on_for(2)
            shop.restore("live", again=again)
            traffic.go_on_for(2)
            shop.restore("previous")
        undone = len(traffic.paid)
        traffic.go_on_for(2)
    finally:
        traffic.stop()
    assert traffic.lost_connections >= 4, "it was not connected while the databases changed"
    assert set(traffic.paid[undone:]) <= shop.payments(shop.name)
    shop.invariant(set(traffic.paid))


def test_the_files_are_looked_at_before_anything_is_created(snapped: Shop) -> None:
    shop = snapped
    folder = shop.store / "shop" / shop.version / "postgresql"
    victim = max(folder.rglob("[0-9]*.dat*"), key=lambda each: each.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    before = shop.family()
    assert "has another SHA-256 than the manifest" in shop.refused("pg_restore", state="staged", version=shop.version)["msg"]
    assert shop.family() == before


def test_a_pg_restore_that_fails_leaves_nothing(snapped: Shop, tmp_path: pathlib.Path) -> None:
    shop = snapped
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in ("pg_dump", "psql"):
        (bin_dir / name).symlink_to(shop.cluster.bin_dir / name)
    for ending in ("echo went wrong >&2; exit 1", "kill -SEGV $$", "exit 0"):
        fake = bin_dir / "pg_restore"
        fake.write_text(
            f'#!/bin/sh\ncase "$*" in *--version*|-l*) exec {shop.cluster.bin_dir}/pg_restore "$@";; esac\n{ending}\n', encoding="utf-8"
        )
        fake.chmod(0o755)
        result = shop.refused("pg_restore", state="staged", version=shop.version, bin_dir=str(bin_dir))
        assert "was not touched" in result["msg"], result["msg"]
        assert list(shop.family()) == [shop.name]


def test_no_password_in_sight(snapped: Shop) -> None:
    shop = snapped
    password = shop.arguments()["login_password"]
    result = shop.restore("live")
    assert password not in str({key: value for key, value in result.items() if key != "invocation"})
    for path in (shop.store / "shop" / ".run").rglob("*"):
        if path.is_file():
            assert password not in path.read_text(encoding="utf-8")
            assert path.stat().st_mode & 0o077 == 0
