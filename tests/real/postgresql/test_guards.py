# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards that nothing else comes to: each is made to say no once."""

from __future__ import annotations

import contextlib
import pathlib
import types
import typing as t

import psycopg2
import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip, _manifest, _plain_run, _state, _swap
from tests.lab import ports
from tests.lab.modules import result_of
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles, create_database

from .restore_helpers import Shop
from .test_blockers import codes, forge, sql_undone


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None) -> Shop:
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.snapshot()
    return shop


def test_a_pg_dump_that_writes_less_than_it_should_makes_no_point(shop: Shop, tmp_path: pathlib.Path) -> None:
    """And says that all went well. What is on the disk is read to its end before there is a point."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "pg_restore").symlink_to(shop.cluster.program("pg_restore"))
    fake = bin_dir / "pg_dump"
    fake.write_text(
        f'#!/bin/sh\n{shop.cluster.program("pg_dump")} "$@" || exit\nfor word; do case $word in --file=*) folder=${{word#--file=}};; esac; done\n'
        '[ -n "$folder" ] || exit 0\nbig=$(ls -S "$folder" | grep -v toc | head -n 1)\ntruncate -s -20 "$folder/$big"\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    result = shop.refused("pg_snapshot", version="cut", bin_dir=str(bin_dir))
    assert "is damaged" in result["msg"] and "Check the disk, then take the snapshot again" in result["msg"], result["msg"]
    assert not (shop.store / "shop" / "cut").exists()


# -- the staged database ----------------------------------------------------------------------------------------------


def test_whoever_is_in_the_staged_database_stops_it(shop: Shop, tmp_path: pathlib.Path) -> None:
    """PUBLIC may not enter while it is filled; a superuser may, and then what is there cannot be trusted."""
    mark = tmp_path / "waiting"
    process = shop.start("pg_restore", f"postgresql/compare/before=wait:{mark}", state="staged", version=shop.version)
    ports.wait_until(lambda: mark.exists() or process.poll() is not None, "the step to begin")
    staged = next(name for name in shop.family() if name != shop.name)
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database|User does not have CONNECT privilege"):
        shop.cluster.connect(staged, **shop.roles.app.login())
    with contextlib.closing(shop.cluster.connect(staged)):
        mark.unlink()
        result = result_of(process)
    assert result.get("failed") and "Somebody else is connected to the staged database" in result["msg"], result
    shop.restore("previous")  # whose session the operator could not end kept it from being dropped
    assert list(shop.family()) == [shop.name]


def test_a_database_that_somebody_replaced_is_neither_read_nor_dropped(cluster: Cluster, database: str) -> None:
    with contextlib.closing(cluster.connect()) as conn:
        found = _state.databases(conn)[database]
        other = found._replace(oid=found.oid + 1)
        with pytest.raises(RollbackError, match="Somebody replaced it; it was not dropped"):
            _state.drop(conn, other)

        def connect(name: str, **unused: t.Any) -> t.Any:
            return cluster.connect(name)

        with pytest.raises(RollbackError, match="Somebody replaced it; nothing was read"):
            with _state.Window(conn, connect, other):
                pass
        assert not _state.databases(conn)[database].open, "it was left open"


def test_a_changed_catalogue_or_large_object_makes_the_comparison_fail(cluster: Cluster, database: str) -> None:
    cluster.sql("CREATE TABLE t (n int); CREATE INDEX t_n ON t (n); SELECT lo_from_bytea(77, 'a')", dbname=database)
    with contextlib.closing(cluster.connect(database)) as conn:
        manifest = _manifest.build(conn)
        assert _manifest.compare(manifest, conn) == []
        cluster.sql("DROP INDEX t_n", dbname=database)
        assert _manifest.compare(manifest, conn) == ["index public.t_n is missing."]


def test_a_large_object_changed_in_the_staged_database_stops_the_flip(shop: Shop) -> None:
    shop.sql("SELECT lo_from_bytea(77, 'a')", shop.roles.owner)
    shop.snapshot("with_object")
    staged = shop.restore("staged", version="with_object")["databases"][shop.name]["staged"]
    with shop.opened(staged):
        shop.sql("SELECT lo_put(77, 0, 'b')", name=staged)
    result = shop.refused("pg_restore", state="live", version="with_object")
    assert result["differences"] == [f"{staged}: large objects: hash differs."]


# -- the flip and the way back ----------------------------------------------------------------------------------------


def test_a_flip_that_does_not_pass_its_check_is_taken_back(shop: Shop) -> None:
    old, paid = shop.oid(), {shop.pay()}
    result = shop.refused("pg_restore", fault="postgresql/postcheck/before=fail", state="live", version=shop.version)
    assert "The flip was taken back at once: the live databases are what they were" in result["msg"]
    assert shop.oid() == old
    # somebody may have been paid in what was live for that moment: it is kept
    (flipped,) = (name for name in shop.family() if "__kept_" in name)
    paid.add(shop.pay())
    shop.invariant(paid)
    assert shop.restore("live")["changed"]
    assert flipped in shop.family()
    shop.invariant(paid)


def test_what_has_the_name_after_the_flip_is_looked_at(cluster: Cluster, database: str) -> None:
    """By OID in the catalogue, by a connection, by its sequences."""
    other = cluster.create_database(f"{database}_k")
    for name, last in ((database, 5), (other, 9)):
        cluster.sql(f"CREATE SEQUENCE s; SELECT setval('s', {last})", dbname=name)
    with contextlib.closing(cluster.connect()) as conn:

        def connect(name: str, **settings: t.Any) -> t.Any:
            session = cluster.connect(reaches.get(name, name))
            for key, value in settings.items():
                _state.rows(session, f"SET {key} = '{value}'")
            return session

        reaches: dict[str, str] = {}
        cluster.sql(f"ALTER DATABASE {ident(other)} ALLOW_CONNECTIONS false")
        found = _state.databases(conn)
        work: t.Any = types.SimpleNamespace(conn=conn, server=types.SimpleNamespace(connect=connect), found=lambda: found)

        def move(in_oid: int, out_name: str = other) -> _swap.Move:
            return _swap.Move(database, found[other].oid, out_name, lambda snapshot: "", "in", in_oid, None)

        with pytest.raises(RollbackError, match="does not have the OID"):
            _flip._look(work, move(found[database].oid + 1))
        with pytest.raises(RollbackError, match="Sequences of .* are behind the replaced database"):
            _flip._look(work, move(found[database].oid))
        reaches[database] = "postgres"
        with pytest.raises(RollbackError, match="reaches another database .* Is a pooler in between"):
            _flip._look(work, move(found[database].oid))
        del reaches[database]
        cluster.sql("SELECT setval('s', 99)", dbname=database)
        found = _state.databases(conn)
        _flip._look(work, move(found[database].oid))


def test_undo_leaves_what_was_staged_for_something_else(shop: Shop) -> None:
    shop.snapshot("second")
    shop.restore("live")
    staged = shop.restore("staged", version="second")["databases"][shop.name]["staged"]
    shop.restore("previous")
    assert staged in shop.family()
    result = shop.restore("previous")
    assert result["changed"] and staged not in shop.family(), "with no flip to undo, what was staged is given up"


def test_complete_ends_only_what_it_was_asked_for(shop: Shop) -> None:
    other = create_database(shop.cluster, f"{shop.name}_b", shop.roles)
    shop.ok("pg_snapshot", version="both", databases=[shop.name, other])
    kept = shop.restore("live", version="both", databases=[shop.name, other])["kept"]
    shop.restore("complete", databases=[shop.name])
    assert kept[shop.name] not in shop.family() and kept[other] in shop.family()


def test_a_production_name_that_somebody_took_away_is_not_guessed(shop: Shop) -> None:
    shop.restore("live")
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} RENAME TO {ident(shop.name + '_x')}")
    for state in ("live", "previous", "complete"):
        result = shop.refused("pg_restore", state=state, **({"version": shop.version} if state == "live" else {}))
        assert "somebody dropped or renamed" in result["msg"], result["msg"]
    assert len(shop.family()) == 2


def test_one_at_a_time_on_one_name(shop: Shop, tmp_path: pathlib.Path) -> None:
    """From whichever host: the lock is in the server."""
    with contextlib.closing(shop.cluster.connect()) as holder:
        _state.hold_names(holder, [shop.name])
        modules = [
            shop.start("pg_snapshot", version="other", store=str(tmp_path / "a")),
            shop.start("pg_restore", state="live", version=shop.version),
            shop.start("pg_carry_back", ledgers=[{"table": "payments"}], store=str(tmp_path / "b")),
        ]
        for result in map(result_of, modules):
            assert f"works on database {shop.name} of this server (session {holder.info.backend_pid})" in result["msg"], result
    assert list(shop.family()) == [shop.name]


# -- obstacles --------------------------------------------------------------------------------------------------------


def test_a_template_is_not_rolled_back(shop: Shop) -> None:
    with sql_undone(shop, f"ALTER DATABASE {ident(shop.name)} IS_TEMPLATE true", f"ALTER DATABASE {ident(shop.name)} IS_TEMPLATE false"):
        assert codes(shop) == ["template"]


def test_programs_that_are_missing_or_cannot_read_the_point(shop: Shop) -> None:
    assert codes(shop, bin_dir="/nonexistent") == ["programs"]
    forge(shop, lambda facts: facts.update(codec="lz4"))
    made = shop.run("pg_snapshot", check=True, version="x", compress="lz4")
    if not made.get("failed"):
        pytest.skip("not in this version: this pg_restore can read lz4")
    assert codes(shop) == ["codec"]


# -- carrying back ----------------------------------------------------------------------------------------------------


def test_a_ledger_that_somebody_writes_to_is_not_carried_into(shop: Shop) -> None:
    shop.sql("INSERT INTO idempotency_keys VALUES ('new', 1, '{}')")
    shop.restore("live")
    with contextlib.closing(shop.cluster.connect(shop.name, autocommit=False)) as writer, writer.cursor() as cursor:
        cursor.execute("INSERT INTO idempotency_keys VALUES ('other', 1, '{}')")
        result = shop.refused("pg_carry_back", ledgers=[{"table": "idempotency_keys"}])
        assert "lock timeout. Nothing was carried" in result["msg"], result["msg"]
        writer.rollback()
    assert shop.ok("pg_carry_back", ledgers=[{"table": "idempotency_keys"}])["changed"]


def test_a_row_without_its_key_is_left(shop: Shop) -> None:
    shop.pay(5)
    shop.pay(6, "K1")
    shop.restore("live")
    result = shop.ok("pg_carry_back", ledgers=[{"table": "payments", "key": ["invoice"]}])
    label = f"{shop.name}.public.payments"
    assert result["carried"][label] == 1 and result["left"][label]["conflicting"] == 1


def test_numbers_after_a_carried_row_are_new(shop: Shop) -> None:
    """A row whose number was given by hand, far beyond the margin."""
    far = 50_000_000
    shop.sql("INSERT INTO payments (id, customer_id, amount) OVERRIDING SYSTEM VALUE VALUES (%s, 1, 7)", values=(far,))
    shop.restore("live")
    assert shop.ok("pg_carry_back", ledgers=[{"table": "payments"}])["changed"]
    assert shop.pay() > far


# -- plain SQL --------------------------------------------------------------------------------------------------------


def test_a_superusers_session_runs_no_plain_dump(cluster: Cluster) -> None:
    with contextlib.closing(cluster.connect()) as conn, pytest.raises(RollbackError, match="is a superuser's. It was not run"):
        _plain_run.require_ordinary(conn)
