# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A flip and its undo behind a real pgbouncer: no error for anybody, and never a pooler that stays paused."""

from __future__ import annotations

import json
import pathlib
import signal
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _restore
from tests.lab import pgbouncer, processes
from tests.lab.modules import result_of
from tests.lab.pgbouncer import PgBouncer
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles, create_database

from .pooler_helpers import Holding, Payer, Standing, pooler_of, resumed
from .restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    operator = roles.operator if request.param == "owner" else None
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.snapshot()
    return shop


@pytest.fixture
def pooler(shop: Shop) -> t.Iterator[PgBouncer]:
    """Clients know the database by two names."""
    with pooler_of(shop, {shop.name: None, "other_name": shop.name}) as started:
        yield started


def test_nobody_sees_an_error(shop: Shop, pooler: PgBouncer) -> None:
    shop.restore("staged")
    paid = shop.payments(shop.name)
    payers = [Payer(shop, pooler, entry) for entry in (shop.name, shop.name, shop.name, "other_name")]
    for payer in payers:
        payer.start()
    try:
        time.sleep(0.5)
        flip = shop.restore("live", poolers=[pooler.option()])
        assert pooler.paused() == []
        time.sleep(0.5)
        undo = shop.restore("previous", poolers=[pooler.option()])
        assert pooler.paused() == []
        time.sleep(0.3)
    finally:
        for payer in payers:
            payer.stop()
    longest = max(payer.longest for payer in payers) * 1000
    print({step["step"]: step["ms"] for step in flip["steps"]})
    print(f"\npg{shop.cluster.major}: paused {flip['paused_ms']} and {undo['paused_ms']} ms, longest gap a client saw {longest:.0f} ms")
    assert [payer.errors for payer in payers] == [[]] * 4
    made = set().union(*(payer.paid for payer in payers))
    assert all(len(payer.paid) > 50 for payer in payers)
    shop.invariant(paid | made)
    assert len(shop.reachable()) == len(paid | made)
    drained = next(step for step in flip["steps"] if step["step"] == "drain")
    assert drained["paused"] == [f"{name} at {pooler.host}:{pooler.port}" for name in sorted([shop.name, "other_name"])], drained
    assert flip["outage_ms"] >= flip["paused_ms"] > 0


def test_without_the_option_clients_of_a_pooler_see_errors(shop: Shop, pooler: PgBouncer) -> None:
    """What the option is for; and that the test above would notice."""
    shop.restore("staged")
    # so long that the flip meets them in the middle
    payers = [Payer(shop, pooler, shop.name, between=0.5) for unused in range(3)]
    for payer in payers:
        payer.start()
    try:
        time.sleep(0.7)
        shop.restore("live")
        time.sleep(0.7)
    finally:
        for payer in payers:
            payer.stop()
    assert any(payer.errors for payer in payers)


def test_an_open_transaction_stops_it_at_the_limit(shop: Shop, pooler: PgBouncer) -> None:
    option = pooler.option(pause_timeout=0.5)
    shop.restore("staged")
    old = shop.oid()
    with Holding(shop, pooler) as holding:
        result = shop.refused("pg_restore", state="live", version=shop.version, poolers=[option])
        assert "could not pause" in result["msg"] and "within 0.5 s" in result["msg"] and "nothing was changed" in result["msg"]
        assert f"{shop.roles.app.name} from the client 127.0.0.1:" in result["msg"], result["msg"]
        if shop.operator is None:  # without pg_read_all_stats what others do is hidden
            assert "idle in transaction for" in result["msg"], result["msg"]
        assert "swap" not in [step["step"] for step in result["steps"]]
        assert pooler.paused() == [] and shop.oid() == old
        holding.session.commit()  # it did not lose its transaction
        assert holding.id in shop.payments(shop.name)
    shop.restore("live", poolers=[option])
    new = shop.oid()
    with Holding(shop, pooler):
        result = shop.refused("pg_restore", state="previous", poolers=[option])
        assert "could not pause" in result["msg"] and pooler.paused() == [] and shop.oid() == new
    shop.restore("previous", poolers=[option])
    assert shop.oid() == old


def test_a_transaction_that_ends_in_time_is_waited_for(shop: Shop, pooler: PgBouncer) -> None:
    shop.restore("staged")
    with Holding(shop, pooler) as holding:
        timer = threading.Timer(2.0, holding.session.commit)
        timer.start()
        kept = shop.restore("live", poolers=[pooler.option(pause_timeout=20)])["kept"][shop.name]
        timer.join()
        assert holding.id in shop.payments(kept)


@pytest.mark.parametrize("where", ["swap/before", "swap/during", "postcheck/during", "resume/before", "resume/during"])
def test_whatever_fails_while_paused_it_is_resumed(shop: Shop, pooler: PgBouncer, where: str) -> None:
    shop.restore("staged")
    old = shop.oid()
    result = shop.run("pg_restore", fault=f"postgresql/{where}=fail", state="live", version=shop.version, poolers=[pooler.option()])
    assert result["failed"] and "Broken on purpose" in result["msg"]
    assert pooler.paused() == []
    state = json.loads((shop.store / "shop" / ".run" / "postgresql.state.json").read_text(encoding="utf-8"))
    assert not state.get("paused"), "the watch had to do it"
    assert (shop.oid() == old) == where.startswith(("swap/before", "postcheck")), "a flip that was not checked stayed"
    shop.restore("live", poolers=[pooler.option()])


@pytest.mark.parametrize("state", ["live", "previous"])
def test_killed_while_paused(shop: Shop, pooler: PgBouncer, tmp_path: pathlib.Path, state: str) -> None:
    """The watch resumes at once. With the watch killed, too, as by a power cut, the next run does, and its journal says so."""
    options: dict[str, t.Any] = {"poolers": [pooler.option()]}
    shop.restore("staged")
    if state == "previous":
        shop.restore("live")
    given = {**options, "state": state, **({"version": shop.version} if state == "live" else {})}
    old, paid = shop.oid(), shop.payments(shop.name)
    standing = Standing(shop, tmp_path / "first", "drain/during", **given)
    assert sorted(pooler.paused()) == sorted([shop.name, "other_name"]) and len(standing.watch) == 1
    begun = time.monotonic()
    standing.kill(watch_too=False)
    assert resumed(pooler), "the watch did nothing"
    print(f"\nresumed {time.monotonic() - begun:.2f} s after the kill")

    standing = Standing(shop, tmp_path / "second", "drain/during", **given)
    standing.kill(watch_too=True)
    assert not resumed(pooler, 1.0)
    seen = shop.run("pg_restore", check=True, **given)
    assert any(each.startswith("resumed other_name at the pooler") for each in seen["actions"])
    assert sorted(pooler.paused()) == sorted([shop.name, "other_name"]), "check mode resumed"
    result = shop.run("pg_restore", fault="postgresql/recover/after=fail", **given)
    assert "Broken on purpose" in result["msg"]
    assert pooler.paused() == []
    recovered = next(step for step in result["steps"] if step["step"] == "recover")["recovered"]
    assert len([each for each in recovered if "which an interrupted run left paused" in each]) == 2
    assert shop.oid() == old
    shop.invariant(paid)
    assert shop.restore(state, **options)["changed"]
    assert shop.oid() != old and pooler.paused() == []
    shop.invariant(paid)


@pytest.fixture(scope="module")
def dying(cluster: Cluster, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[tuple[Shop, PgBouncer]]:
    """One shop behind a pooler for all kills. As superuser on the newest server, as operator on the others."""
    operator = roles.operator if cluster.major < 18 else None
    shop = Shop(cluster, roles, create_database(cluster, "pooled_kill", roles), tmp_path_factory.mktemp("store"), operator).fill()
    shop.snapshot()
    with pooler_of(shop) as pooler:
        yield shop, pooler
    cluster.drop_databases("pooled_kill")


def around(state: str) -> list[str]:
    """The steps from the first that pauses to the first after the last that does; the list is the code's."""
    steps = _restore.STEPS[state]
    return list(steps[steps.index("drain") : steps.index("resume") + 2])


@pytest.mark.parametrize("state,step", [(state, step) for state in ("live", "previous") for step in around(state)])
def test_every_kill(dying: tuple[Shop, PgBouncer], state: str, step: str) -> None:
    """kill -9 of module and watch before and inside each step: the same command again leaves nothing paused."""
    shop, pooler = dying
    options: dict[str, t.Any] = {"poolers": [pooler.option()]}
    for phase in ("before", "during"):
        paid = shop.payments(shop.name)
        if state == "previous":
            shop.restore("live", again=True)
        given = {**options, "state": state, **({"version": shop.version} if state == "live" else {})}
        mark = pathlib.Path(shop.store / "standing")
        standing = Standing(shop, mark, f"{step}/{phase}", **given)
        mark.unlink()
        standing.kill(watch_too=True)
        assert shop.restore(state, **options) and pooler.paused() == []
        session = pooler.connect(shop.name, shop.roles.app.name, shop.roles.app.password)
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO payments (customer_id, amount) VALUES (1, 3) RETURNING id")
            paid.add(int(cursor.fetchone()[0]))
        session.close()
        shop.invariant(paid)
        if state == "live":
            shop.restore("previous", **options)
        shop.restore("complete", **options)


# -- before anything is touched ---------------------------------------------------------------------------------------


def blocked(shop: Shop, *poolers: dict[str, t.Any]) -> str:
    """The message of a refusal; the same in check mode; nothing was created."""
    before = shop.family()
    given: dict[str, t.Any] = {"state": "staged", "version": shop.version, "poolers": list(poolers)}
    result = shop.refused("pg_restore", **given)
    assert [each["code"] for each in result["blockers"]] == ["pooler"] * len(result["blockers"]), result
    assert shop.run("pg_restore", check=True, **given)["blockers"] == result["blockers"]
    assert shop.family() == before
    assert pgbouncer.ADMIN_PASSWORD not in json.dumps(result, ensure_ascii=False)
    return str(result["msg"])


def test_poolers_that_cannot_help(shop: Shop, pooler: PgBouncer) -> None:
    assert "Cannot log in to the console" in blocked(shop, pooler.option(password="wrong"))
    viewer = {"user": pgbouncer.VIEWER, "password": pgbouncer.VIEWER_PASSWORD}
    assert "may look at the pooler" in blocked(shop, pooler.option(**viewer))
    assert "Is it pgbouncer?" in blocked(
        shop,
        {"host": shop.cluster.host, "port": shop.cluster.port, "user": "postgres", "password": shop.cluster.password, "dbname": "postgres"},
    )


def test_poolers_that_do_not_serve_the_database(shop: Shop, pooler: PgBouncer) -> None:
    """Behind ``*`` that is only known for sure when it is paused; until then a note says it."""
    old = shop.oid()
    with pooler_of(shop, {"something_else": "postgres"}) as other:
        for option in (other.option(), pooler.option(databases=[shop.name, "nowhere"])):
            notes = shop.restore("staged", poolers=[option])["notes"]
            assert any("shows no entry" in note for note in notes), notes
            result = shop.refused("pg_restore", state="live", version=shop.version, poolers=[pooler.option(), option])
            assert "no such database" in result["msg"] and "nothing was changed" in result["msg"]
            assert pooler.paused() == [] and shop.oid() == old
        assert other.paused() == []


def test_an_entry_for_all_databases(shop: Shop) -> None:
    """``*`` is not listed before its first use and is paused all the same."""
    with pooler_of(shop, {"*": None}) as pooler:
        shop.restore("staged", poolers=[pooler.option()])
        payer = Payer(shop, pooler, shop.name)
        timer = threading.Timer(0.2, payer.start)
        timer.start()
        shop.restore("live", poolers=[pooler.option()])
        time.sleep(0.3)
        payer.stop()
        assert payer.paid and not payer.errors and pooler.paused() == []


def test_what_somebody_else_paused_stays_paused(shop: Shop, pooler: PgBouncer) -> None:
    pooler.admin("PAUSE other_name")
    result = shop.restore("live", poolers=[pooler.option()])
    assert any("other_name" in note and "paused by somebody else" in note for note in result["notes"])
    assert pooler.paused() == ["other_name"]


def test_a_pooler_of_sessions(shop: Shop) -> None:
    with pooler_of(shop, pool_mode="session") as pooler:
        client = pooler.connect(shop.name, shop.roles.app.name, shop.roles.app.password)
        with client.cursor() as cursor:
            cursor.execute("SELECT 1")
        option = pooler.option(pause_timeout=0.3)
        plan = shop.run("pg_restore", check=True, state="live", version=shop.version, poolers=[option])
        assert any("pools sessions" in note for note in plan["notes"])
        assert any("wait at the flip and see no error" in line for line in plan["plan"])
        result = shop.refused("pg_restore", state="live", version=shop.version, poolers=[option])
        assert "waits until every client has left" in result["msg"] and pooler.paused() == []
        client.close()
        assert shop.restore("live", poolers=[option])["changed"]


def test_clients_past_the_pooler_are_told(shop: Shop, pooler: PgBouncer) -> None:
    direct = shop.cluster.connect(shop.name, **shop.roles.app.login())
    with Holding(shop, pooler) as through:
        notes = shop.run("pg_restore", check=True, state="live", version=shop.version, poolers=[pooler.option()])["notes"]
        through.session.rollback()
    direct.close()
    assert [note for note in notes if note.startswith(f"1 session(s) of {shop.roles.app.name} in {shop.name} do not come")], notes


def test_a_pooler_that_is_no_longer_declared(shop: Shop, pooler: PgBouncer, tmp_path: pathlib.Path) -> None:
    standing = Standing(shop, tmp_path / "mark", "drain/during", state="live", version=shop.version, poolers=[pooler.option()])
    standing.kill(watch_too=True)
    result = shop.refused("pg_restore", state="live", version=shop.version)
    assert "which poolers does not name any more" in result["msg"] and pooler.paused()
    assert shop.restore("live", poolers=[pooler.option()])["changed"] and not pooler.paused()


def test_a_pooler_that_dies_while_paused(shop: Shop, tmp_path: pathlib.Path) -> None:
    with pooler_of(shop) as pooler:
        standing = Standing(shop, tmp_path / "mark", "drain/during", state="live", version=shop.version, poolers=[pooler.option()])
    (tmp_path / "mark").unlink()
    begun = time.monotonic()
    result = result_of(standing.process)
    assert result["failed"] and "Do it by hand: psql" in result["msg"], result
    assert time.monotonic() - begun < 40
    for pid in standing.watch:  # it would go on for a while
        processes.signal_pid(pid, signal.SIGKILL)
