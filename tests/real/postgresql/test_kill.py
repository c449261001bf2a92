# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 around every step that the code declares, then the same command again, then the way back.

"Around" is before a step, when it has done its work and its end is not journalled yet ("during"), and after that. What
happens inside a step is broken further down only for the one that counts, the renaming of databases.

The steps come from the code, so a new one is killed without anybody thinking of it. As operator on 15 and as superuser
on 18, and after a step only where no other follows; everything with FULL=1.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import threading
import time
import typing as t

import psycopg2
import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _carry_back, _restore
from tests.lab.modules import result_of
from tests.lab.postgres import Cluster, Missing
from tests.lab.roles import Roles, create_database

from .restore_helpers import Shop

PHASES = ("before", "during", "after")
PROFILES = ("superuser", "owner")
ALL = os.environ.get("FULL", "") not in ("", "0")


_numbers = itertools.count(1)
_shops: dict[tuple[int, str], Shop] = {}


@pytest.fixture(params=PROFILES if ALL else ("usual profile",))
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One shop for all tests that leave it as they found it; a fresh one after a failure."""
    profile = request.param if ALL else "owner" if cluster.major < 18 else "superuser"
    known = _shops.get((cluster.major, profile))
    if known is None or list(known.family()) != [known.name]:
        name = create_database(cluster, f"kill_{profile}_{next(_numbers)}_{os.getpid()}", roles)
        operator = roles.operator if profile == "owner" else None
        known = Shop(cluster, roles, name, tmp_path_factory.mktemp("store"), operator).fill()
        known.snapshot()
        _shops[cluster.major, profile] = known
    return known


def phases(step: str, steps: t.Sequence[str]) -> t.Sequence[str]:
    """After a step and before the next one differ only in one line of the journal."""
    return PHASES if ALL or step == steps[-1] else PHASES[:2]


def killed(shop: Shop, module: str, step: str, phase: str, **options: t.Any) -> bool:
    """Whether the module was killed there; a step that this call did not come to ends it normally."""
    result = shop.run(module, fault=f"postgresql/{step}/{phase}=kill", **options)
    return bool(result.get("killed"))


@pytest.mark.parametrize("step", _restore.STEPS["live"])
def test_live(shop: Shop, step: str) -> None:
    paid = shop.payments(shop.name)
    for phase in phases(step, _restore.STEPS["live"]):
        old = shop.oid()
        paid.add(shop.pay())
        assert killed(shop, "pg_restore", step, phase, state="live", version=shop.version)
        shop.invariant(paid)
        paid.add(shop.pay())
        result = shop.restore("live")
        assert shop.oid() != old
        assert result["databases"][shop.name]["at_version"]
        shop.invariant(paid)
        paid.add(shop.pay())
        shop.restore("previous")
        assert shop.oid() == old
        shop.invariant(paid)
        family = shop.family().values()
        assert sorted(each["marker"].get("kind", "") for each in family) == ["", "undone"], f"{step}/{phase} left {family}"
        # what is going to be dropped is given up on purpose
        shop.restore("complete")
        paid &= shop.payments(shop.name)


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in ("seal", "swap") else [pytest.mark.full]) for step in _restore.STEPS["live"]]
)
def test_live_and_then_undo(shop: Shop, step: str) -> None:
    """Nobody goes on; whoever is woken by it takes back whatever there is."""
    for phase in phases(step, _restore.STEPS["live"]):
        old, paid = shop.oid(), shop.payments(shop.name) | {shop.pay()}
        assert killed(shop, "pg_restore", step, phase, state="live", version=shop.version)
        shop.invariant(paid)
        paid.add(shop.pay())
        shop.restore("previous")
        assert shop.oid() == old
        shop.invariant(paid)
        assert not shop.restore("previous")["changed"]
        shop.restore("complete")
        assert list(shop.family()) == [shop.name], f"{step}/{phase}"


@pytest.mark.parametrize("step", _restore.STEPS["staged"])
def test_staged_and_then_given_up(shop: Shop, step: str) -> None:
    old = shop.oid()
    for phase in phases(step, _restore.STEPS["staged"]):
        assert killed(shop, "pg_restore", step, phase, state="staged", version=shop.version)
        paid = {shop.pay()}
        shop.invariant(paid)
        shop.restore("previous")
        assert shop.oid() == old
        assert list(shop.family()) == [shop.name], f"{step}/{phase}"


@pytest.mark.parametrize("step", _restore.STEPS["previous"])
def test_previous(shop: Shop, step: str) -> None:
    old = shop.oid()
    for phase in phases(step, _restore.STEPS["previous"]):
        paid = shop.payments(shop.name) | {shop.pay()}
        shop.restore("live")
        paid.add(shop.pay())
        assert killed(shop, "pg_restore", step, phase, state="previous")
        shop.invariant(paid)
        paid.add(shop.pay())
        shop.restore("previous")
        assert shop.oid() == old
        shop.invariant(paid)
        shop.restore("complete")


@pytest.mark.parametrize("step", _restore.STEPS["complete"])
def test_complete(shop: Shop, step: str) -> None:
    for phase in phases(step, _restore.STEPS["complete"]):
        shop.restore("live", again=True)
        paid = shop.payments(shop.name)
        assert killed(shop, "pg_restore", step, phase, state="complete")
        shop.invariant(paid)
        shop.restore("complete")
        assert list(shop.family()) == [shop.name]
        shop.invariant(paid)
    _shops.clear()  # its database is now at the version


@pytest.mark.parametrize("step", _carry_back.STEPS)
def test_carry_back(shop: Shop, step: str) -> None:
    options: dict[str, t.Any] = {"ledgers": [{"table": "payments"}, {"table": "idempotency_keys"}]}
    for phase in phases(step, _carry_back.STEPS):
        paid = shop.payments(shop.name) | {shop.pay(), shop.pay()}
        shop.restore("live", again=True)
        assert killed(shop, "pg_carry_back", step, phase, **options)
        shop.invariant(paid)
        shop.ok("pg_carry_back", **options)
        assert shop.payments(shop.name) == paid
        assert not shop.ok("pg_carry_back", **options)["changed"]
        assert shop.sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'paid'") == [("O",)]
        shop.restore("complete")
    _shops.clear()


def test_the_state_file_is_repaired_from_the_server(shop: Shop) -> None:
    """Killed between the flip and the state file: the server's markers say what happened, and the file follows."""
    assert killed(shop, "pg_restore", "remember", "before", state="live", version=shop.version)
    state = shop.store / "shop" / ".run" / "postgresql.state.json"
    assert shop.name not in state.read_text(encoding="utf-8")
    assert not shop.restore("live")["changed"]
    assert f'"oid": {shop.oid()}' in state.read_text(encoding="utf-8")
    shop.restore("complete")  # the markers go, the file stays
    assert not shop.restore("live")["changed"]
    assert shop.restore("live", again=True)["changed"]
    shop.restore("complete")
    _shops.clear()


# -- inside the transaction -------------------------------------------------------------------------------------------


@pytest.fixture(params=[15, 18], ids=["pg15", "pg18"])
def own_shop(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> t.Iterator[Shop]:
    """A server that a test may kill."""
    try:
        cluster = Cluster(request.param)
    except Missing as exc:
        pytest.skip(str(exc))
    with cluster:
        roles = cluster.create_roles()
        shop = Shop(cluster, roles, create_database(cluster, "shop", roles), tmp_path, roles.operator).fill()
        shop.snapshot()
        yield shop


class Stubborn:
    """A superuser's session in the database, which the operator may not end: the rename waits for it."""

    def __init__(self, shop: Shop, tmp_path: pathlib.Path) -> None:
        self.shop = shop
        self.mark = tmp_path / "waiting"

    def inside_the_rename(self) -> t.Any:
        """Start the flip, get into the database just before it, and return the module while it waits in ALTER DATABASE."""
        shop = self.shop
        process = shop.start("pg_restore", f"postgresql/swap/before=wait:{self.mark}", state="live", version=shop.version)
        deadline = time.monotonic() + 60
        while not self.mark.exists():
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.02)
        self.session = shop.cluster.connect(shop.name)
        self.mark.unlink()
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'ALTER DATABASE%RENAME%'"
        while not shop.cluster.sql(query)[0][0]:
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process


def test_the_module_dies_inside_the_rename(own_shop: Shop, tmp_path: pathlib.Path) -> None:
    shop, paid = own_shop, own_shop.payments(own_shop.name)
    stubborn = Stubborn(shop, tmp_path)
    process = stubborn.inside_the_rename()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    begun = time.monotonic()
    paid.add(shop.pay())  # waits for the lock that the orphan still holds
    assert time.monotonic() - begun < 1.5, "the lock outlived its client"
    shop.invariant(paid)
    stubborn.session.close()
    assert shop.restore("live")["changed"]
    shop.invariant(paid)


def test_the_server_dies_inside_the_rename(own_shop: Shop, tmp_path: pathlib.Path) -> None:
    shop, paid = own_shop, own_shop.payments(own_shop.name)
    old = shop.oid()
    stubborn = Stubborn(shop, tmp_path)
    process = stubborn.inside_the_rename()
    shop.cluster.kill9()
    timer = threading.Timer(1.0, shop.cluster.start)
    timer.start()
    result = result_of(process)
    timer.join()
    assert "Nothing was renamed" in result.get("msg", ""), result
    assert shop.oid() == old
    paid.add(shop.pay())
    shop.invariant(paid)
    assert shop.restore("live")["changed"]
    shop.invariant(paid)
    shop.restore("previous")
    assert shop.oid() == old


def test_the_server_dies_right_after_the_commit(own_shop: Shop, tmp_path: pathlib.Path) -> None:
    shop, paid, mark = own_shop, own_shop.payments(own_shop.name), tmp_path / "committed"
    old = shop.oid()
    process = shop.start("pg_restore", f"postgresql/swap/during=wait:{mark}", state="live", version=shop.version)
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    shop.cluster.kill9()
    shop.cluster.start()
    mark.unlink()
    assert result_of(process)["failed"]
    assert shop.oid() != old
    shop.invariant(paid)
    assert not shop.restore("live").get("outage_ms"), "it flipped a second time"
    shop.restore("previous")
    assert shop.oid() == old
    shop.invariant(paid)


def test_a_session_that_does_not_end_is_named(own_shop: Shop, tmp_path: pathlib.Path) -> None:
    shop, old = own_shop, own_shop.oid()
    stubborn = Stubborn(shop, tmp_path)
    process = stubborn.inside_the_rename()
    result = result_of(process)
    assert result["failed"] and "somebody stayed connected" in result["msg"], result
    assert any("session" in each and "postgres" in each for each in result["sessions"])
    assert shop.oid() == old
    stubborn.session.close()
    assert shop.restore("live")["changed"]


def test_two_restores_at_once(own_shop: Shop) -> None:
    """The second waits for the host's lock and then finds the work done, or says who is at it."""
    shop, paid = own_shop, own_shop.payments(own_shop.name)
    both = [shop.start("pg_restore", state="live", version=shop.version) for unused in range(2)]
    results = [result_of(each) for each in both]
    assert sorted(bool(each.get("changed")) for each in results) == [False, True], results
    shop.invariant(paid)
    assert psycopg2.connect(**shop.cluster.params(shop.name)).closed == 0
