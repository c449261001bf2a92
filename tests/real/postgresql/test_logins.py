# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that would not get in after a flip, and rules of pg_hba.conf by the name of a database, are found before it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
import typing as t

import psycopg2
import pytest

from tests.lab import pgbouncer
from tests.lab.fixtures import unavailable
from tests.lab.pgbouncer import PgBouncer
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    operator = roles.operator if request.param == "owner" else None
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.snapshot()
    return shop


def declared(*roles: Role, **more: t.Any) -> list[dict[str, t.Any]]:
    return [{"user": role.name, "password": role.password, **more} for role in roles]


@contextlib.contextmanager
def host_rules(shop: Shop, *lines: str) -> t.Iterator[None]:
    """pg_hba.conf with these rules for TCP, and the superuser everywhere; what it was before after."""
    path = shop.cluster.data / "pg_hba.conf"
    before = path.read_bytes()
    superuser = f'host all "{shop.cluster.superuser}" 127.0.0.1/32 scram-sha-256'

    def put(text: bytes) -> None:
        path.write_bytes(text)
        loaded = shop.cluster.sql("SELECT pg_conf_load_time()")[0][0]
        shop.cluster.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while shop.cluster.sql("SELECT pg_conf_load_time()")[0][0] == loaded:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)

    put("\n".join([*lines, superuser, ""]).encode())
    try:
        yield
    finally:
        put(before)


def connects(shop: Shop, role: Role, name: str) -> bool:
    try:
        shop.cluster.connect(name, **role.login()).close()
    except psycopg2.OperationalError:
        return False
    return True


def refused(shop: Shop, code: str, state: str = "staged", **options: t.Any) -> str:
    """The message of the one obstacle, before any flip."""
    old = shop.oid()
    result = shop.refused("pg_restore", state=state, version=options.pop("version", shop.version), **options)
    assert [each["code"] for each in result["blockers"]] == [code], result
    assert shop.oid() == old and "kept" not in {each["marker"].get("kind") for each in shop.family().values()}
    for each in options.get("application_logins", []):
        assert each["password"] not in json.dumps(result, ensure_ascii=False)
    return str(result["msg"])


def test_every_login_gets_in(shop: Shop) -> None:
    logins = declared(shop.roles.app, shop.roles.readonly, shop.roles.migrator)
    plan = shop.run("pg_restore", check=True, state="live", version=shop.version, application_logins=logins)
    assert not plan["blockers"] and not [note for note in plan["notes"] if "ogin" in note], plan["notes"]
    result = shop.restore("live", application_logins=logins)
    tried = next(step for step in result["steps"] if step["step"] == "logins")["tried"]
    assert [each.split()[0] for each in tried] == [login["user"] for login in logins]
    for role in (shop.roles.app, shop.roles.readonly):
        assert connects(shop, role, shop.name)


def test_the_logins_in_use_that_were_not_declared_are_named(shop: Shop) -> None:
    session = shop.cluster.connect(shop.name, **shop.roles.readonly.login())
    notes = shop.run("pg_restore", check=True, state="live", version=shop.version, application_logins=declared(shop.roles.app))["notes"]
    session.close()
    assert [note for note in notes if note.startswith(f"Whether {shop.roles.readonly.name} will get into {shop.name}")], notes


def test_no_connect_in_the_point(shop: Shop) -> None:
    """A login that got its right after the point was taken: found in check mode already, and nothing is created."""
    app, name = ident(shop.roles.app.name), ident(shop.name)
    shop.cluster.sql(f"REVOKE CONNECT ON DATABASE {name} FROM {app}")
    shop.snapshot("without")
    shop.cluster.sql(f"GRANT CONNECT ON DATABASE {name} TO {app}")
    logins = declared(shop.roles.app)
    assert "had no CONNECT" in refused(shop, "connect", version="without", application_logins=logins)
    assert list(shop.family()) == [shop.name]
    plan = shop.run("pg_restore", check=True, state="live", version="without", application_logins=logins)
    assert [each["code"] for each in plan["blockers"]] == ["connect"]
    assert shop.restore("live", version="without")["changed"] and not connects(shop, shop.roles.app, shop.name)


def test_what_only_the_login_itself_shows(shop: Shop) -> None:
    """Not in any catalogue that could be compared: a password that is not the server's, an expired one, a role without LOGIN."""
    wrong = [{"user": shop.roles.app.name, "password": "wr\u00f6ng"}]
    message = refused(shop, "login", application_logins=wrong)
    assert f"gets neither into {shop.name} now nor" in message and "authentication failed" in message
    nobody = declared(Role("shop_nobody", "nobody's word"))
    assert "gets neither into" in refused(shop, "login", state="live", application_logins=nobody)
    app = ident(shop.roles.app.name)
    shop.cluster.sql(f"ALTER ROLE {app} NOLOGIN")
    try:
        assert "gets neither into" in refused(shop, "login", state="live", application_logins=declared(shop.roles.app))
    finally:
        shop.cluster.sql(f"ALTER ROLE {app} LOGIN")
    assert shop.restore("live", application_logins=declared(shop.roles.app))["changed"]


def test_a_connection_limit_of_none_in_the_point(shop: Shop) -> None:
    name = ident(shop.name)
    shop.cluster.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    shop.snapshot("closed") if shop.operator is None else None
    shop.cluster.sql(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    if shop.operator is not None:
        return  # an operator who is no superuser cannot take such a point
    assert "has connection limit 0" in refused(shop, "login", version="closed", application_logins=declared(shop.roles.app))


def test_what_the_bad_release_broke_stops_nothing(shop: Shop) -> None:
    """It took CONNECT from the application; the point gives it back."""
    shop.cluster.sql(f"REVOKE CONNECT ON DATABASE {ident(shop.name)} FROM {ident(shop.roles.app.name)}")
    result = shop.restore("live", application_logins=declared(shop.roles.app))
    assert any("even now" in note and shop.roles.app.name in note for note in result["notes"])
    assert connects(shop, shop.roles.app, shop.name)


def test_rules_that_name_the_production_database(shop: Shop) -> None:
    """Applications are admitted to the production name only. That name stays, so it stops nothing, and is told."""
    app = shop.roles.app
    others = [f'host all "{role.name}" 127.0.0.1/32 scram-sha-256' for role in (shop.roles.operator, shop.roles.owner)]
    with host_rules(shop, f'host "{shop.name}" "{app.name}" 127.0.0.1/32 scram-sha-256', f'host all "{app.name}" all reject', *others):
        result = shop.restore("live", application_logins=declared(app))
        assert any(f"{app.name} is not let in under the name {shop.name}__r_" in note for note in result["notes"]), result["notes"]
        assert connects(shop, app, shop.name)
        shop.restore("previous", application_logins=declared(app))
        assert connects(shop, app, shop.name)


def test_rules_that_shut_an_application_out(shop: Shop) -> None:
    app = shop.roles.app
    others = [f'host all "{role.name}" 127.0.0.1/32 scram-sha-256' for role in (shop.roles.operator, shop.roles.owner)]
    with host_rules(shop, f'host all "{app.name}" all reject', *others):
        assert "pg_hba.conf rejects connection" in refused(shop, "login", application_logins=declared(app))


def test_rules_that_shut_us_out(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> None:
    """We must get into databases of other names: staged and kept. A superuser reads that in the rules, others find out by a login."""
    shop = Shop(cluster, roles, database, tmp_path, roles.operator).fill()
    shop.snapshot()
    operator = roles.operator.name
    rules = [f'host "{shop.name}","postgres" "{operator}" all scram-sha-256', f'host all "{operator}" all reject']
    with host_rules(shop, *rules):
        result = shop.refused("pg_restore", state="staged", version=shop.version)
        assert "Cannot log in to database" in result["msg"] and "pg_hba.conf" in result["msg"]
        assert list(shop.family()) == [shop.name], "what could not be entered was left"
        cluster.sql(f"ALTER ROLE {ident(operator)} SUPERUSER")
        try:
            result = shop.refused("pg_restore", state="staged", version=shop.version)
        finally:
            cluster.sql(f"ALTER ROLE {ident(operator)} NOSUPERUSER")
        assert {each["code"] for each in result["blockers"]} == {"pg_hba"} and "__kept_" in result["msg"], result
        assert list(shop.family()) == [shop.name]


def test_through_a_pooler_that_knows_only_the_production_name(shop: Shop) -> None:
    if not pgbouncer.installed():
        unavailable("no pgbouncer; install the operating system's package pgbouncer")
    app = shop.roles.app
    with PgBouncer(shop.cluster, {shop.name: None}, {app.name: app.password}) as pooler:
        logins = declared(app, host=pooler.host, port=pooler.port)
        result = shop.restore("live", application_logins=logins, poolers=[pooler.option()])
        assert not [note for note in result["notes"] if app.name in note], result["notes"]
        pooler.connect(shop.name, app.name, app.password).close()
        shop.restore("previous")
        with PgBouncer(shop.cluster, {"another": shop.name}, {app.name: app.password}) as wrong:
            logins = declared(app, host=wrong.host, port=wrong.port)
            assert "no such database" in refused(shop, "login", again=True, application_logins=logins)
