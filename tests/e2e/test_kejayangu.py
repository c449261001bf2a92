# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""inventories/kejayangu as it is shipped: one host with the API and its database; only addresses, ports and paths are the test's."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, play_in
from tests.lab.node import ROOT
from tests.lab.system import DATABASE

HOST = "kejayangu1"
LEGACY = "backup_20231201_120000"


class KejaYangu(World):
    """The team's system: code in api/, the old script's backups in api/rollback-versions/."""

    def write_inventory(self, **more: t.Any) -> pathlib.Path:
        shutil.copytree(ROOT / "inventories" / "kejayangu", self.inventory)
        cluster, roles = self.ready()
        (host,) = self.hosts
        self._write_vars(
            f"host_vars/{HOST}.yml",
            {
                "ansible_connection": "local",
                "ansible_become": False,  # the user of the test is the one that PM2 runs under
                "ansible_python_interpreter": sys.executable,
                "rollback_store": str(self.store / HOST),
                "rollback_legacy_path": str(host.api / "rollback-versions"),
                "rollback_pm2_app_dir": str(host.api),
                "rollback_pm2_home": str(host.pm2.home),
                "rollback_pm2_bin": host.pm2.bin,
                "rollback_pm2_node_bin": host.pm2.node_bin,
                "deployment_method": "pm2",
                "kejayangu_port": host.port,
                "rollback_postgresql_login_host": "127.0.0.1",
                "rollback_postgresql_login_port": cluster.port,
                "rollback_postgresql_login_user": roles.operator.name,
                "rollback_postgresql_bin_dir": str(cluster.bin_dir),
            },
        )
        # Where the example says: vault.yml beside vault.yml.example. That it is encrypted is Ansible's business.
        self._write_vars("group_vars/all/vault.yml", {"vault_rollback_postgresql_password": roles.operator.password})
        self.set_variables(**more)
        return self.inventory

    def points(self) -> list[str]:
        return sorted(found.parent.name for found in (self.store / HOST / "kejayangu").glob("*/point.json"))

    def old_backup(self) -> pathlib.Path:
        """What `rollback.sh backup` leaves: src, package*.json and a plain pg_dump, below api/ on the one host."""
        cluster, roles = self.ready()
        api = self.hosts[0].api
        folder = api / "rollback-versions" / LEGACY
        folder.mkdir(parents=True)
        shutil.copytree(api / "src", folder / "src")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(api / name, folder / name)
        with (folder / "database_backup.sql").open("wb") as out:
            subprocess.run([cluster.program("pg_dump")], env=cluster.env(DATABASE, **roles.migrator.login()), stdout=out, check=True)
        return folder


@pytest.fixture(scope="module")
def the_keja() -> t.Iterator[KejaYangu]:
    yield from play_in(KejaYangu)


@pytest.fixture
def keja(the_keja: KejaYangu) -> KejaYangu:
    the_keja.reset()
    return the_keja


def test_the_shipped_inventory_works_on_one_host(keja: KejaYangu) -> None:
    keja.play("backup", label="before-1.1.0").ok()
    (point,) = keja.points()
    keja.deploy(1, NEXT, NOTE)
    keja.play("verify").ok()
    keja.play("rollback_full", "--check", version=point).ok()
    keja.all_at(NEXT)
    with keja.paying():
        keja.await_payments(5)
        assert keja.play("rollback_full", version=point).ok().outcome == "DONE"
    keja.all_at(GOOD)
    keja.play("undo").ok()
    keja.all_at(NEXT)
    assert (keja.store / HOST).stat().st_mode & 0o7777 == 0o700


@pytest.mark.full
def test_a_backup_of_the_old_script_comes_back_whole(keja: KejaYangu) -> None:
    folder = keja.old_backup()
    keja.deploy(1, NEXT, NOTE)
    shutil.copyfile(keja.hosts[0].api / "package-lock.json", folder / "package-lock.json")  # the same packages
    (row,) = keja.play("rollback_points", output="json").ok().json()
    assert (row["version"], row["legacy"], row["complete"]) == (LEGACY, True, True)
    done = keja.play("rollback_full", version=LEGACY, allow_plain_sql=True).ok()
    assert done.outcome == "DONE"
    keja.all_at(GOOD)
    assert folder.is_dir(), "the old backups stay where the team looks for them"
    keja.play("undo").ok()
    keja.all_at(NEXT)


@pytest.mark.full
def test_the_example_of_two_hosts_in_its_comment_is_right(keja: KejaYangu) -> None:
    """hosts.yml says how to name a database host of its own. Then a dump that lies with the API only is refused with the way out."""
    folder = keja.old_backup()
    common = (keja.inventory / f"host_vars/{HOST}.yml").read_text()
    hosts = (keja.inventory / "hosts.yml").read_text()
    try:
        for name in ("api1", "db1"):
            (keja.inventory / f"host_vars/{name}.yml").write_text(common.replace(str(keja.store / HOST), str(keja.store / name)))
        with (keja.inventory / "host_vars/db1.yml").open("a") as handle:
            handle.write(f"rollback_legacy_path: {keja.folder}/nothing-here\n")
        both = "all: {hosts: {api1: {rollback_components: [pm2]}, db1: {rollback_components: [postgresql]}}}\n"
        (keja.inventory / "hosts.yml").write_text(both)
        refused = keja.play("rollback_full", version=LEGACY, allow_plain_sql=True)
        refused.refused("its SQL dump is on api1, but postgresql is on db1", f"scp -3 -rp api1:{folder} db1:{folder.parent}/")
        table = keja.play("rollback_points").ok()
        assert "its SQL dump is on api1" in table.flat
        keja.all_at(GOOD)
        # as the sentence says; both names are this machine, so it is the other folder
        shutil.copytree(folder, keja.folder / "nothing-here" / LEGACY)
        keja.deploy(1, NEXT, NOTE)
        shutil.copyfile(keja.hosts[0].api / "package-lock.json", folder / "package-lock.json")
        keja.play("rollback_full", version=LEGACY, allow_plain_sql=True).ok()
        keja.all_at(GOOD)
    finally:
        (keja.inventory / "hosts.yml").write_text(hosts)
        shutil.rmtree(keja.folder / "nothing-here", ignore_errors=True)
