# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory itself: what every other test stands on."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab import binaries, ports
from tests.lab.postgres import Cluster, Missing, find, ident, literal


def test_missing_major_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PAYOPS_PG15_BIN", str(tmp_path))
    with pytest.raises(Missing, match="postgresql-15.*PAYOPS_PG15_BIN"):
        find(15)


def test_binaries_below_a_closed_folder_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    install = tmp_path / "pkg" / "pginstall"
    (install / "bin").mkdir(parents=True)
    (install / "bin" / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n")
    (install / "bin" / "postgres").chmod(0o700)
    (tmp_path / "pkg.libs").mkdir()
    (tmp_path / "pkg.libs" / "libpq.so").write_text("")
    answers = iter([False, True])
    monkeypatch.setattr(binaries.processes, "user_can_run", lambda user, argv: next(answers))
    copied = binaries.runnable_by(install / "bin", "nobody", tmp_path / "cluster")
    assert copied != install / "bin"
    assert (copied / "postgres").stat().st_mode & 0o005 == 0o005
    assert (copied.parents[2] / "pkg.libs" / "libpq.so").exists()


def test_identifiers_and_literals_are_quoted() -> None:
    assert ident('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"
    assert literal("a\\'b") == "E'a\\\\''b'"


def test_free_ports_are_not_handed_out_twice() -> None:
    assert len({ports.free_port() for unused in range(20)}) == 20


def test_kill9_and_restart_keep_what_was_committed(cluster: Cluster, database: str) -> None:
    cluster.sql("CREATE TABLE kept (id int)", dbname=database)
    cluster.sql("INSERT INTO kept VALUES (1)", dbname=database)
    cluster.kill9()
    assert not cluster.running
    cluster.start()
    assert cluster.sql("SELECT id FROM kept", dbname=database) == [(1,)]


def test_operator_is_an_owner_with_rights_and_no_superuser(cluster: Cluster, roles: t.Any, database: str) -> None:
    login = roles.operator.login()
    assert cluster.sql("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user", **login) == [(False, True)]
    cluster.sql(f"ALTER DATABASE {ident(database)} RENAME TO {ident(database + '_kept')}", **login)
    cluster.sql(f"ALTER DATABASE {ident(database + '_kept')} RENAME TO {ident(database)}", **login)


def test_another_process_can_attach(cluster: Cluster) -> None:
    again = Cluster.attach(cluster.root)
    assert again.running
    assert again.pid == cluster.pid
    assert again.sql("SELECT 1") == [(1,)]
