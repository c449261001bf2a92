# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_access on real servers: closed means closed, and opening gives back exactly what was."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import threading
import typing as t

import psycopg2
import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _access, _stage
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles, create_database
from tests.real.postgresql.restore_helpers import Shop

QUOTED = "we\"ird %s 'name'"


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    operator: Role | None = roles.operator if request.param == "owner" else None
    return Shop(cluster, roles, database, tmp_path / "store", operator).fill()


@pytest.fixture
def super_shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path / "store", None).fill()


@pytest.fixture(params=["superuser", pytest.param("owner", marks=pytest.mark.full)])
def killed_shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path / "store", roles.operator if request.param == "owner" else None).fill()


def as_it_is(shop: Shop, name: str | None = None) -> list[tuple[t.Any, ...]]:
    return shop.cluster.sql(
        "SELECT d.oid, datallowconn, datconnlimit, datacl::text, (SELECT array_agg(s.setrole || s.setconfig::text ORDER BY s.setrole) "
        "FROM pg_db_role_setting s WHERE s.setdatabase = d.oid) FROM pg_database d WHERE datname = %s",
        (name or shop.name,),
    )


def remembered(shop: Shop) -> dict[str, t.Any]:
    path = shop.store / "shop" / ".run" / "postgresql_access.state.json"
    return t.cast("dict[str, t.Any]", json.loads(path.read_text(encoding="utf-8"))["before"]) if path.exists() else {}


@pytest.mark.parametrize("setting", [None, "off"])
@pytest.mark.parametrize("access", ["nobody", "read_only"])
def test_check_real_again_and_back(shop: Shop, access: str, setting: str | None) -> None:
    if setting:
        shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} SET default_transaction_read_only = {setting}")
    before = as_it_is(shop)
    with contextlib.closing(shop.cluster.connect(shop.name, shop.roles.app.name, shop.roles.app.password)) as old:
        planned = shop.ok("pg_access", check=True, access=access)
        assert planned["changed"]
        assert planned["diff"] == {"before": {shop.name: "read_write"}, "after": {shop.name: access}}
        assert as_it_is(shop) == before
        assert old.cursor().execute("SELECT 1") is None
        assert shop.ok("pg_access", access=access)["changed"]
        with pytest.raises(psycopg2.Error):
            old.cursor().execute("SELECT 1")
    if access == "nobody":
        for role in (shop.roles.app, None):
            with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
                shop.sql("SELECT 1", role)
    else:
        assert shop.sql("SELECT count(*) FROM payments", shop.roles.app) == [(1000,)]
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            shop.pay()
    assert not shop.ok("pg_access", access=access)["changed"]
    assert shop.ok("pg_access", access="read_write")["changed"]
    assert as_it_is(shop) == before
    assert remembered(shop) == {}
    assert not shop.ok("pg_access", access="read_write")["changed"]
    assert shop.pay()


def test_from_one_to_the_other_and_back_gives_what_was_first(super_shop: Shop) -> None:
    before = as_it_is(super_shop)
    for access in ("read_only", "nobody", "read_only", "nobody", "read_write"):
        super_shop.ok("pg_access", access=access)
    assert as_it_is(super_shop) == before


@pytest.mark.parametrize("theirs", ["SET default_transaction_read_only = 'on'", "ALLOW_CONNECTIONS false"])
@pytest.mark.parametrize("access", ["nobody", "read_only"])
def test_what_somebody_else_closed_or_locked_stays_so(super_shop: Shop, theirs: str, access: str) -> None:
    super_shop.cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} {theirs}")
    before = as_it_is(super_shop)
    was = "nobody" if "ALLOW" in theirs else "read_only"
    super_shop.ok("pg_access", access="nobody")
    super_shop.ok("pg_access", access=access)
    for unused in range(2):
        back = super_shop.ok("pg_access", access="read_write")
        assert as_it_is(super_shop) == before
        assert back["databases"][super_shop.name]["access"] == was
        assert f"{super_shop.name} stays open to {'nobody' if was == 'nobody' else 'readers'}" in back["msg"]
    assert not back["changed"]
    assert not (super_shop.store / "shop" / ".run" / "postgresql_access.state.json").exists()


@pytest.mark.parametrize("then", [None, "nobody", "read_only"])
def test_a_flip_hands_on_that_an_emergency_closed_the_database(super_shop: Shop, then: str | None) -> None:
    super_shop.snapshot()
    super_shop.ok("pg_access", access="nobody")
    super_shop.restore("live")
    assert not super_shop.family()[super_shop.name]["open"]
    if then:
        super_shop.ok("pg_access", access=then)
    assert super_shop.ok("pg_access", access="read_write")["changed"]
    assert super_shop.pay()


def test_readers_that_came_after_closing_are_left_alone(super_shop: Shop) -> None:
    super_shop.ok("pg_access", access="read_only")
    with contextlib.closing(super_shop.cluster.connect(super_shop.name)) as reader, reader.cursor() as cursor:
        assert not super_shop.ok("pg_access", access="read_only")["changed"]
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("access", ["nobody", "read_only"])
@pytest.mark.parametrize("phase", ["before", "during", "after"])
@pytest.mark.parametrize("step", _access.STEPS)
def test_killed_at_each_step(killed_shop: Shop, step: str, phase: str, access: str) -> None:
    before = as_it_is(killed_shop)
    wanted = access
    if step == "forget":
        killed_shop.ok("pg_access", access=access)
        wanted = "read_write"
    app = killed_shop.roles.app.login()
    with contextlib.closing(killed_shop.cluster.connect(killed_shop.name, **app)) if step != "forget" else contextlib.nullcontext():
        killed = killed_shop.run("pg_access", f"postgresql_access/{step}/{phase}=kill", access=wanted)
        assert killed == {"killed": True}
        killed_shop.ok("pg_access", access=wanted)
        assert not killed_shop.ok("pg_access", access=wanted)["changed"]
        left = killed_shop.cluster.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'", (killed_shop.name,)
        )
        assert left == []
    killed_shop.ok("pg_access", access="read_write")
    assert as_it_is(killed_shop) == before
    assert remembered(killed_shop) == {}


def test_what_is_remembered_is_of_one_database_and_not_of_its_name(super_shop: Shop) -> None:
    """A flip puts another database under the name: it gets nothing of the old one's past."""
    super_shop.cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} SET default_transaction_read_only = off")
    super_shop.ok("pg_access", access="read_only")
    super_shop.cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} RENAME TO {ident(super_shop.name + '_kept')}")
    super_shop.cluster.create_database(super_shop.name)
    before = as_it_is(super_shop)
    assert not super_shop.ok("pg_access", access="read_write")["changed"]
    assert as_it_is(super_shop) == before


def test_several_databases_close_together_or_not_at_all(super_shop: Shop) -> None:
    super_shop.cluster.create_database(QUOTED)
    try:
        done = super_shop.ok("pg_access", access="nobody", databases=[super_shop.name, QUOTED])
        assert {name: entry["access"] for name, entry in done["databases"].items()} == {super_shop.name: "nobody", QUOTED: "nobody"}
        assert super_shop.cluster.sql("SELECT datallowconn FROM pg_database WHERE datname = %s", (QUOTED,)) == [(False,)]
        super_shop.ok("pg_access", access="read_write", databases=[super_shop.name, QUOTED])
        said = super_shop.refused("pg_access", access="nobody", databases=[super_shop.name, "absent"])
        assert "has no database 'absent'" in said["msg"]
        assert super_shop.pay()
    finally:
        super_shop.cluster.sql(f"ALTER DATABASE {ident(QUOTED)} ALLOW_CONNECTIONS true")
        super_shop.cluster.sql(f"DROP DATABASE {ident(QUOTED)} WITH (FORCE)")


def test_the_maintenance_database_is_another_one(super_shop: Shop) -> None:
    super_shop.ok("pg_access", access="nobody", login_db=super_shop.name)
    assert super_shop.ok("pg_access", access="read_write", login_db=super_shop.name, check=True)["changed"]
    super_shop.ok("pg_access", access="read_write")


def test_without_ownership_it_is_refused(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", roles.app).fill()
    before = as_it_is(shop)
    assert "does not own the database" in shop.refused("pg_access", access="nobody")["msg"]
    assert as_it_is(shop) == before


def test_a_superusers_session_that_the_owner_cannot_end_is_named(
    cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path
) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", roles.operator).fill()
    with contextlib.closing(cluster.connect(database)) as session:
        said = shop.refused("pg_access", access="nobody", terminate_wait=1)
        assert said["sessions"][0]["pid"] == session.info.backend_pid
        assert "superuser" in said["msg"]
    assert shop.ok("pg_access", access="nobody")["databases"][database]["access"] == "nobody"
    shop.ok("pg_access", access="read_write")


@pytest.mark.parametrize("access", ["nobody", "read_only"])
def test_a_session_that_stays_in_one_database_does_not_spare_those_of_the_next(
    cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, access: str
) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", roles.operator).fill()
    other = create_database(cluster, f"{database}_b", roles)
    try:
        app = cluster.connect(other, **roles.app.login())
        with contextlib.closing(cluster.connect(database)) as boss:
            said = shop.refused("pg_access", access=access, databases=[database, other], terminate_wait=1)
            assert [(each["database"], each["pid"]) for each in said["sessions"]] == [(database, boss.info.backend_pid)]
            assert f"1 of database {database}" in said["msg"] and f"{database}, {other}: open to" in said["msg"]
            with pytest.raises(psycopg2.Error):
                app.cursor().execute("SELECT 1")
        shop.ok("pg_access", access=access, databases=[database, other])
    finally:
        cluster.sql(f"ALTER DATABASE {ident(other)} ALLOW_CONNECTIONS true")
        cluster.sql(f"DROP DATABASE {ident(other)} WITH (FORCE)")


@pytest.mark.parametrize("fails", ["nowhere", "inside", "login"])
def test_who_slips_into_a_closed_database_with_us_is_ended_at_once(cluster: Cluster, roles: Roles, database: str, fails: str) -> None:
    """For the moment of our login a closed database is open, and applications that connect again and again know its name."""
    slipped = []

    class Server:
        def connect(self, name: str, **unused: t.Any) -> t.Any:
            slipped.append(cluster.connect(name, **roles.app.login()))
            with slipped[0].cursor() as cursor, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cursor.execute("CREATE TABLE t (n int)")
            if fails == "login":
                raise RollbackError("not let in")
            ours = cluster.connect(name)
            slipped.append(cluster.connect(name, **roles.app.login()))
            return ours

    def writes(session: t.Any) -> bool:
        try:
            session.cursor().execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    if fails == "inside":
        cluster.sql(f"ALTER DATABASE {ident(database)} SET default_transaction_read_only = off")
    cluster.sql(f"ALTER DATABASE {ident(database)} ALLOW_CONNECTIONS false")
    settings = "SELECT datallowconn, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s AND setrole = 0"
    before = sorted(cluster.sql(settings, (database,)))
    expected = contextlib.nullcontext() if fails == "nowhere" else pytest.raises(RollbackError)
    with contextlib.closing(cluster.connect()) as conn:
        with expected, _stage.session_on(conn, t.cast("t.Any", Server()), database) as inside:
            assert not any(map(writes, slipped))
            assert writes(inside)
            assert sorted(cluster.sql(settings, (database,))) == before
            if fails == "inside":
                raise RollbackError("in between")
    assert slipped and not any(map(writes, slipped))
    assert sorted(cluster.sql(settings, (database,))) == before
    for session in slipped:
        session.close()


@pytest.mark.parametrize("marker", [False, True])
def test_a_percent_sign_in_the_name_of_a_closed_database(
    cluster: Cluster, roles: Roles, dbname: str, tmp_path: pathlib.Path, marker: bool
) -> None:
    name = create_database(cluster, f"{dbname} 100 %s", roles)
    shop = Shop(cluster, roles, name, tmp_path / "store", roles.operator).fill()
    try:
        shop.snapshot()
        cluster.sql(f"ALTER DATABASE {ident(name)} SET default_transaction_read_only = off")
        if marker:  # as a kept database has it that was renamed back by hand
            shop.restore("live")
            kept = shop.restore("previous")["kept"][name]
            for old, new in ((name, "aside"), (kept, name)):
                cluster.sql(f"ALTER DATABASE {ident(old)} RENAME TO {ident(new)}")
        cluster.sql(f"ALTER DATABASE {ident(name)} ALLOW_CONNECTIONS false")
        shop.restore("live", again=True)
        assert shop.ok("pg_carry_back", ledgers=[{"table": "payments"}])
        assert not shop.family()[name]["open"]
    finally:
        for each in [*shop.family(), "aside"]:
            cluster.sql(f"DROP DATABASE IF EXISTS {ident(each)} WITH (FORCE)")


def killed_inside(shop: Shop) -> None:
    """A module of its own process that looks into the closed database, and dies of SIGKILL while that is open for its login."""
    pid = os.fork()
    if pid == 0:
        try:
            login = shop.operator.login() if shop.operator else {}

            class Server:
                def connect(self, name: str, **unused: t.Any) -> t.Any:
                    os.kill(os.getpid(), signal.SIGKILL)

            with _stage.session_on(shop.cluster.connect(**login), t.cast("t.Any", Server()), shop.name):
                pass
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("setting", [None, "off"])
@pytest.mark.parametrize(
    "module,options",
    [
        ("pg_restore", {"state": "staged"}),
        ("pg_restore", {"state": "live"}),
        ("pg_restore", {"state": "previous"}),
        ("pg_carry_back", {"ledgers": [{"table": "payments"}]}),
        ("pg_access", {"access": "read_write"}),
    ],
)
def test_a_kill_while_a_closed_database_is_open_for_us(shop: Shop, module: str, options: dict[str, t.Any], setting: str | None) -> None:
    """Somebody else closed it, so nobody but the database itself knows that it has to be closed again."""
    shop.snapshot()
    if setting:
        shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} SET default_transaction_read_only = {setting}")
    shop.cluster.sql(
        f"COMMENT ON DATABASE {ident(shop.name)} IS 'the shop''s 100 %'; ALTER DATABASE {ident(shop.name)} ALLOW_CONNECTIONS false"
    )
    comment = f"SELECT shobj_description({shop.oid()}, 'pg_database')"
    before = as_it_is(shop)
    killed_inside(shop)
    assert shop.family()[shop.name]["open"]
    with contextlib.closing(shop.cluster.connect(shop.name, **shop.roles.app.login())) as slipped:
        if "state" in options and options["state"] != "previous":
            options = {**options, "version": shop.version}
        planned = shop.ok(module, check=True, **options)
        assert "had been closed and which an interrupted run left open" in " ".join(planned["actions"])
        assert shop.family()[shop.name]["open"]
        result = shop.ok(module, **options)
        with pytest.raises(psycopg2.Error):
            slipped.cursor().execute("SELECT 1")
    assert result["changed"] and not shop.family()[shop.name]["open"]
    if options.get("state") == "live":
        kept = result["kept"][shop.name]
        assert shop.family()[kept]["marker"]["comment"] == "the shop's 100 %"
    else:
        assert as_it_is(shop) == before
        assert shop.cluster.sql(comment) == [("the shop's 100 %",)]


def test_owed_rows_are_carried_into_a_closed_database(shop: Shop) -> None:
    shop.snapshot()
    paid = shop.pay()
    shop.restore("live")
    shop.ok("pg_access", access="nobody")
    before = as_it_is(shop)
    shop.ok("pg_carry_back", ledgers=[{"table": "payments"}])
    assert as_it_is(shop) == before
    assert paid in shop.payments(shop.name)


def test_no_session_stays_after_a_refused_check_of_a_closed_database(super_shop: Shop) -> None:
    super_shop.snapshot()
    super_shop.restore("live")
    super_shop.ok("pg_access", access="nobody")
    slipped: list[t.Any] = []
    over = threading.Event()

    def comes_back() -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg2.Error):
                slipped.append(super_shop.cluster.connect(super_shop.name, **super_shop.roles.app.login()))

    clients = [threading.Thread(target=comes_back) for unused in range(3)]
    for client in clients:
        client.start()
    try:
        for unused in range(4):
            assert super_shop.run("pg_carry_back", ledgers=[{"table": "nothing"}], check=True)["failed"]
    finally:
        over.set()
        for client in clients:
            client.join()
    for session in slipped:
        with pytest.raises(psycopg2.Error):
            session.cursor().execute("INSERT INTO payments (customer_id, amount) VALUES (1, 1)")
        session.close()
