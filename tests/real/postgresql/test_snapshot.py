# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_snapshot on real servers: whole or absent, equal to its content under writers, and gone after every kill."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._points import verify_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _manifest, _snapshot
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.lab.modules import result_of
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles
from tests.real.postgresql.restore_helpers import Shop

OTHER = "Shop \"2\" 'x'/..;% a=b ü"


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


def facts_of(shop: Shop, version: str | None = None) -> dict[str, t.Any]:
    manifest = verify_component(Paths(str(shop.store), "shop"), version or shop.version, "postgresql")
    return t.cast("dict[str, t.Any]", manifest["facts"])


def left_over(shop: Shop) -> list[str]:
    """Everything below the store but the run's own folder."""
    return sorted(str(path.relative_to(shop.store)) for path in shop.store.rglob("*") if ".run" not in path.parts)


def restored(shop: Shop, folder: pathlib.Path, name: str, owner: str) -> None:
    shop.cluster.sql(f"CREATE DATABASE {ident(name)} TEMPLATE template0 OWNER {ident(owner)}")
    subprocess.run(
        [shop.cluster.program("pg_restore"), "--exit-on-error", "-j2", "-d", name, str(folder)], env=shop.cluster.env(name), check=True
    )


def test_check_real_again(shop: Shop) -> None:
    planned = shop.ok("pg_snapshot", check=True, version=shop.version)
    assert planned["changed"]
    assert planned["actions"]
    assert not shop.store.exists()
    made = shop.ok("pg_snapshot", version=shop.version)
    assert made["changed"]
    assert [step["step"] for step in made["steps"]] == list(_snapshot.STEPS)
    assert made["point"]["profile"] == ("owner" if shop.operator else "superuser")
    entry = facts_of(shop)["databases"][shop.name]
    assert entry["tables"]["public.payments"]["rows"] == 1000
    assert entry["tables"]["public.payments"]["hash"]
    assert entry["oid"] == shop.oid()
    before = left_over(shop)
    again = shop.ok("pg_snapshot", version=shop.version)
    assert not again["changed"]
    assert again["point"] == made["point"]
    assert left_over(shop) == before
    for path in shop.store.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_another_set_of_databases_is_refused(super_shop: Shop) -> None:
    super_shop.snapshot()
    said = super_shop.refused("pg_snapshot", version=super_shop.version, databases=[super_shop.name, "postgres"])
    assert "never overwritten" in said["msg"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "add", "manifest"])
def test_a_damaged_point_is_not_taken_for_present(super_shop: Shop, damage: str) -> None:
    super_shop.snapshot()
    folder = super_shop.store / "shop" / super_shop.version / "postgresql"
    victim = max((folder / "1").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif damage == "delete":
        victim.unlink()
    elif damage == "add":
        (folder / "1" / "extra").write_bytes(b"x")
    else:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        (folder / "manifest.json").write_text(text.replace('"rows": 1000', '"rows": 1001', 1), encoding="utf-8")
    assert super_shop.refused("pg_snapshot", version=super_shop.version)["msg"]


def test_several_databases_with_any_name(super_shop: Shop, cluster: Cluster, roles: Roles) -> None:
    cluster.create_database(OTHER, roles.owner.name)
    try:
        cluster.sql("CREATE TABLE t AS SELECT 1 AS a", dbname=OTHER)
        made = super_shop.ok("pg_snapshot", version=super_shop.version, databases=[super_shop.name, OTHER])
        assert {name: entry["folder"] for name, entry in made["point"]["databases"].items()} == {super_shop.name: "1", OTHER: "2"}
        assert facts_of(super_shop)["databases"][OTHER]["tables"]["public.t"]["rows"] == 1
        restored(super_shop, super_shop.store / "shop" / super_shop.version / "postgresql" / "2", f"{super_shop.name}_x", roles.owner.name)
        assert cluster.sql("SELECT a FROM t", dbname=f"{super_shop.name}_x") == [(1,)]
    finally:
        cluster.sql(f"DROP DATABASE {ident(OTHER)} WITH (FORCE)")


def test_snapshot_under_writers_equals_its_content(super_shop: Shop, roles: Roles) -> None:
    stop = threading.Event()
    written = []

    def write() -> None:
        with (
            contextlib.closing(super_shop.cluster.connect(super_shop.name, roles.app.name, roles.app.password)) as conn,
            conn.cursor() as cursor,
        ):
            while not stop.is_set():
                cursor.execute("INSERT INTO payments (customer_id, amount) VALUES (2, 5) RETURNING id")
                written.append(cursor.fetchone()[0])
                cursor.execute("UPDATE payments SET note = clock_timestamp()::text WHERE id = 1 + (random() * 900)::int")
                cursor.execute("DELETE FROM audit WHERE ctid = (SELECT ctid FROM audit LIMIT 1)")

    threads = [threading.Thread(target=write) for unused in range(3)]
    for thread in threads:
        thread.start()
    try:
        super_shop.snapshot()
        before = len(written)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert before > 20
    entry = facts_of(super_shop)["databases"][super_shop.name]
    copy = f"{super_shop.name}_copy"
    restored(super_shop, super_shop.store / "shop" / super_shop.version / "postgresql" / "1", copy, roles.owner.name)
    with contextlib.closing(super_shop.cluster.connect(copy)) as conn:
        assert _manifest.compare(entry, conn) == []
    with contextlib.closing(super_shop.cluster.connect(super_shop.name)) as conn:
        since = _manifest.rows_since(conn, entry["snapshot"], entry["tables"])
        inserted = len(written) - (entry["tables"]["public.payments"]["rows"] - 1000)
        assert since["public.payments"]["written"] >= inserted > 0


def test_a_waiting_alter_makes_the_snapshot_fail_and_queues_nobody(shop: Shop, roles: Roles) -> None:
    with contextlib.closing(shop.cluster.connect(shop.name, autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        said = shop.refused("pg_snapshot", version=shop.version, lock_wait=1)
        assert time.monotonic() - start < 15
        holder.rollback()
    assert "exclusive lock" in said["msg"]
    assert left_over(shop) == ["shop"]
    assert shop.count() == 1000


def test_the_snapshot_gives_way_to_an_alter(shop: Shop, tmp_path: pathlib.Path) -> None:
    """ALTER TABLE waits for the snapshot's lock, the application behind ALTER TABLE: after lock_wait the snapshot ends itself."""
    mark = tmp_path / "frozen"
    process = shop.start("pg_snapshot", f"postgresql/freeze/after=wait:{mark}", version=shop.version, lock_wait=1)
    while not mark.exists():
        assert process.poll() is None
        time.sleep(0.05)
    start = time.monotonic()
    shop.sql("ALTER TABLE payments ADD COLUMN later int", shop.roles.owner)
    waited = time.monotonic() - start
    mark.unlink()
    said = result_of(process)
    assert said.get("failed"), said
    assert "gave way" in said["msg"]
    assert f"in database {shop.name}" in said["msg"]
    assert waited < 5
    assert left_over(shop) == ["shop"]
    shop.snapshot()


PHASES = ("before", "during", "after")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("step", _snapshot.STEPS)
def test_killed_at_each_step(killed_shop: Shop, step: str, phase: str) -> None:
    killed_shop.snapshot("v0")
    killed = killed_shop.run("pg_snapshot", f"postgresql/{step}/{phase}=kill", version=killed_shop.version)
    assert killed == {"killed": True}
    final = killed_shop.store / "shop" / killed_shop.version / "postgresql"
    sealed = step == "seal" and phase != "before"
    assert final.exists() == sealed
    again = killed_shop.ok("pg_snapshot", version=killed_shop.version)
    assert again["changed"] == (not sealed)
    assert not [name for name in left_over(killed_shop) if "partial" in name]
    facts_of(killed_shop)
    facts_of(killed_shop, "v0")
    deadline = time.monotonic() + 5
    sessions: list[t.Any] = [None]
    while sessions and time.monotonic() < deadline:
        sessions = killed_shop.cluster.sql("SELECT pid, query FROM pg_stat_activity WHERE application_name LIKE 'payops.rollback/%'")
        time.sleep(0.05)
    assert sessions == []


def test_killed_while_pg_dump_runs(super_shop: Shop, roles: Roles) -> None:
    """SIGKILL of the module takes pg_dump along; nothing is under the final name."""
    super_shop.cluster.pgbench_init(super_shop.name, 10)
    process = super_shop.start("pg_snapshot", version=super_shop.version)
    seen = False
    while process.poll() is None:
        if super_shop.cluster.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY public.pgbench_accounts%'"):
            seen = True
            process.kill()
            break
        time.sleep(0.01)
    assert seen
    process.wait()
    assert not (super_shop.store / "shop" / super_shop.version / "postgresql").exists()
    assert super_shop.ok("pg_snapshot", version=super_shop.version)["changed"]
    assert not [name for name in left_over(super_shop) if "partial" in name]


@pytest.mark.parametrize("fault", ["postgresql/count/before=fail", "postgresql/seal/before=fail"])
def test_a_failure_leaves_nothing(super_shop: Shop, fault: str) -> None:
    super_shop.refused("pg_snapshot", fault=fault, version=super_shop.version)
    assert left_over(super_shop) == ["shop"]


def test_every_missing_right_is_named(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", None).fill()
    weak = Role("weak_operator", "weak password")
    cluster.sql(f"DROP ROLE IF EXISTS {weak.name}")
    cluster.sql(f"CREATE ROLE {weak.name} LOGIN PASSWORD 'weak password'")
    cluster.sql(f"GRANT CONNECT ON DATABASE {ident(database)} TO {weak.name}")
    shop.sql("ALTER TABLE customers ENABLE ROW LEVEL SECURITY")
    shop.sql(f"GRANT SELECT ON customers TO {weak.name}; GRANT USAGE ON SCHEMA public TO {weak.name}")
    shop.sql("SELECT lo_from_bytea(0, 'x')", roles.owner)
    shop.operator = weak
    try:
        said = shop.refused("pg_snapshot", version=shop.version)["blockers"]
        for part in (
            "public.payments in database",
            "public.payments_id_seq in database",
            "row-level security hides rows",
            "1 large object(s)",
            "may not create and rename databases. ALTER ROLE weak_operator CREATEDB",
            "GRANT pg_signal_backend TO weak_operator",
            "not a member of shop_owner",
            "not a member of shop_readonly, who has settings",
        ):
            assert any(part in sentence for sentence in said), (part, said)
        assert not (shop.store / "shop" / shop.version).exists()
        ignoring = shop.refused("pg_snapshot", version=shop.version, restore_rights="ignored")["blockers"]
        assert not any("CREATEDB" in sentence or "not a member" in sentence for sentence in ignoring)
    finally:
        shop.sql(f"DROP OWNED BY {weak.name}")
        cluster.sql(f"DROP OWNED BY {weak.name}")
        cluster.sql(f"DROP ROLE {weak.name}")


def test_a_schema_public_that_an_upgrade_left_to_a_superuser_is_named(
    cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path
) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", roles.operator).fill()
    shop.sql(f"ALTER SCHEMA public OWNER TO {ident(cluster.superuser)}; GRANT ALL ON SCHEMA public TO {ident(roles.owner.name)}")
    (said,) = shop.refused("pg_snapshot", version=shop.version)["blockers"]
    assert said.startswith(f"The schema public in database {database} belongs to {cluster.superuser}, "), said
    assert "ALTER SCHEMA public OWNER TO pg_database_owner" in said
    shop.sql("ALTER SCHEMA public OWNER TO pg_database_owner")
    shop.snapshot()
    assert shop.restore("live")["changed"]


def test_what_only_a_superuser_restores_is_named(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> None:
    shop = Shop(cluster, roles, database, tmp_path / "store", roles.operator).fill()
    shop.sql("CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    shop.sql("CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.e()")
    shop.sql(f"ALTER FUNCTION public.e() OWNER TO {ident(roles.owner.name)}")
    for check in (True, False, False):
        made = shop.run("pg_snapshot", version=shop.version, check=check)
        only = f"{database}: only a superuser can restore event trigger watch."
        assert [note.partition(" Log in")[0] for note in made["notes"]] == [only], made
    assert made["point"]["needs_superuser"] == {database: ["event trigger watch"]}


BAD: dict[str, tuple[dict[str, t.Any], str]] = {
    "no such database": ({"databases": ["absent'\"db"]}, "has no database"),
    "no database": ({"databases": []}, "databases is empty"),
    "twice the same": ({"databases": ["x", "x"]}, "names one twice"),
    "wrong password": ({"login_password": "wr0ng"}, "Cannot log in"),
    "nobody listens": ({"login_port": 1}, "Cannot log in"),
    "no programs": ({"bin_dir": "/nonexistent"}, "are needed: found neither in /nonexistent"),
    "password among parameters": ({"connect_params": {"password": "x"}}, "Use login_password"),
    "version leaves the store": ({"version": "../x"}, "not a safe name"),
    "version is a number": ({"version": ""}, "not a safe name"),
    "codec": ({"compress": "lz4"}, "cannot compress with lz4"),
    "jobs": ({"jobs": 0}, "jobs is 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(super_shop: Shop, what: str) -> None:
    options, expected = BAD[what]
    if what == "codec" and super_shop.ok("pg_snapshot", check=True, version="x")["actions"][0].find("gzip") < 0:
        super_shop.ok("pg_snapshot", check=True, version="x", compress="lz4")  # this pg_dump has the codec, so nothing is bad about it
        return
    said = super_shop.refused("pg_snapshot", **{"version": super_shop.version, **options})
    assert expected in said["msg"]
    assert not (super_shop.store / "shop" / super_shop.version).exists()


def test_programs_of_another_major(super_shop: Shop) -> None:
    other = 18 if super_shop.cluster.major != 18 else 15
    from tests.lab import binaries

    try:
        folder = str(binaries.find(other))
    except binaries.Missing as exc:
        pytest.skip(str(exc))
    said = super_shop.refused("pg_snapshot", version=super_shop.version, bin_dir=folder)
    assert f"of PostgreSQL {super_shop.cluster.major}, the server's major version, are needed" in said["msg"]
    assert f"is {other}." in said["msg"]


def test_timeouts_of_role_and_database_do_not_stop_it(super_shop: Shop, cluster: Cluster) -> None:
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
        cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} SET {setting} = '5ms'")
    if cluster.major >= 17:
        cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} SET transaction_timeout = '5ms'")
    cluster.sql(f"ALTER DATABASE {ident(super_shop.name)} SET default_transaction_read_only = on")
    made = super_shop.ok("pg_snapshot", version=super_shop.version)
    assert made["point"]["databases"][super_shop.name]["rows"] > 1000


def test_no_secret_in_argv_environment_or_result(super_shop: Shop, tmp_path: pathlib.Path) -> None:
    super_shop.cluster.pgbench_init(super_shop.name, 10)
    secret = super_shop.cluster.password
    process = super_shop.start("pg_snapshot", version=super_shop.version)
    seen = set()
    while process.poll() is None:
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                argv = (folder / "cmdline").read_bytes()
                if b"pg_dump" in argv and str(super_shop.store).encode() in argv:
                    seen.add(folder.name)
                    assert secret.encode() not in argv
                    assert secret.encode() not in (folder / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
    done = result_of(process)
    assert seen
    assert secret not in json.dumps(done)
    for path in super_shop.store.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_disk_too_small(super_shop: Shop, tmp_path: pathlib.Path) -> None:
    """A filesystem of 1 MiB is refused before a byte is written."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a small filesystem here")
    try:
        said = super_shop.refused("pg_snapshot", version=super_shop.version, store=str(small))
        assert "MiB free; the dump needs about" in said["msg"]
        assert [path.name for path in small.rglob("*") if path.is_file()] == ["act.lock"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
