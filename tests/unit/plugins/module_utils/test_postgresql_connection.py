# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session and a program are told, without a server."""

from __future__ import annotations

import os
import pathlib
import stat
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _connection
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server

PASSWORD = "p:w\\@ d'\"é$"


def server(**params: t.Any) -> Server:
    made = Server({"login_host": "db1", "login_port": 5433, "login_user": "rollback", "login_password": PASSWORD, **params}, "run-1")
    made._facts = {"server_version_num": 150004}
    return made


def test_the_password_is_only_in_a_private_file_that_dies_with_us() -> None:
    with server() as made:
        env = made.program_env()
        assert PASSWORD not in str(env)
        assert PASSWORD not in str(made.program_args("shop"))
        path = env["PGPASSFILE"]
        assert pathlib.Path(path).read_text(encoding="utf-8") == "*:*:*:*:p\\:w\\\\@ d'\"é$\n"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.path.exists(path)


def test_without_memfd_it_is_a_file_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delattr(os, "memfd_create")
    made = Server({"login_password": PASSWORD}, "r", tmpdir=str(tmp_path))
    made._facts = {"server_version_num": 150004}
    with made:
        path = made.program_env()["PGPASSFILE"]
        assert path.startswith(str(tmp_path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_where_to_log_in_is_in_the_service_file() -> None:
    with server(ssl_mode="verify-full", ca_cert="/ca.pem", connect_params={"target_session_attrs": "any"}) as made:
        lines = pathlib.Path(made.program_env()["PGSERVICEFILE"]).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "[payops_rollback]"
    assert {"host=db1", "port=5433", "user=rollback", "sslmode=verify-full", "sslrootcert=/ca.pem", "target_session_attrs=any"} <= set(
        lines
    )
    assert not any(line.startswith("password") for line in lines)


@pytest.mark.parametrize("major, missing", [(13, "idle_session_timeout"), (15, "transaction_timeout"), (18, None)])
def test_limits_that_the_server_knows_are_lifted_for_programs(major: int, missing: str | None) -> None:
    with server(connect_params={"options": "-c geqo=off"}) as made:
        made._facts = {"server_version_num": major * 10000}
        options = made.program_env()["PGOPTIONS"]
    assert options.startswith("-c geqo=off -c statement_timeout=0 -c lock_timeout=0")
    assert missing is None or missing not in options
    assert ("transaction_timeout" in options.replace("idle_in_transaction_session_timeout", "")) == (major >= 17)


@pytest.mark.parametrize("name, expected", [("shop", "dbname=shop"), ("a=b", "dbname=a=b"), ("-x 'y\\", "dbname='-x \\'y\\\\'")])
def test_a_database_name_is_never_a_connection_string(name: str, expected: str) -> None:
    assert server().program_args(name) == ["--no-password", "-d", expected]


def test_the_socket_comes_before_the_host() -> None:
    assert server(login_unix_socket="/run/pg").parameters()["host"] == "/run/pg"


@pytest.mark.parametrize(
    "params, expected",
    [
        ({"login_password": "a\nb"}, "line break"),
        ({"connect_params": {"password": "x"}}, "Use login_password"),
        ({"connect_params": {"sslpassword": "x\ny"}}, "line break"),
    ],
)
def test_what_cannot_be_handed_on_is_refused(params: dict[str, t.Any], expected: str) -> None:
    with pytest.raises(RollbackError, match=expected):
        server(**params).parameters()


def test_a_login_that_fails_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: t.Any) -> None:
        raise _connection.psycopg2.OperationalError(f"refused {given['password']}")

    monkeypatch.setattr(_connection.psycopg2, "connect", refuse)
    with pytest.raises(RollbackError, match="Cannot log in to database 'postgres' at db1:5433 as rollback") as caught:
        server().connect()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("taken, expected", [(["shop"], "postgres"), (["postgres"], "template1"), (["postgres", "template1"], None)])
def test_the_maintenance_database_is_none_of_ours(taken: list[str], expected: str | None) -> None:
    if expected is None:
        with pytest.raises(RollbackError, match="Set login_db"):
            server().maintenance_besides(taken)
    else:
        assert server().maintenance_besides(taken) == expected


class Pooled:
    """A session whose answers come from server processes given in a list."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "one, other, pooler",
    [
        ([1, 1, 1, 1], [2, 2, 2, 2], False),
        ([1, 1, 1, 1], [1, 1, 1, 1], True),
        ([1, 2, 1, 2], [2, 1, 2, 1], True),
        ([1, 1, 3, 1], [2] * 4, True),
    ],
)
def test_a_transaction_pooler_is_refused(monkeypatch: pytest.MonkeyPatch, one: list[int], other: list[int], pooler: bool) -> None:
    made = server()
    sessions = [Pooled(one), Pooled(other)]
    monkeypatch.setattr(made, "connect", lambda database=None: sessions.pop(0))
    monkeypatch.setattr(_connection, "value", lambda conn, sql: conn.pids.pop(0))
    if pooler:
        with pytest.raises(RollbackError, match="is a transaction pooler.*5432, not 6543"):
            made.refuse_transaction_pooler()
    else:
        made.refuse_transaction_pooler()


class Session:
    """A session of a server of some version that ends a statement where a limit was not lifted at the login."""

    def __init__(self, version: int, options: str, limited: str | None) -> None:
        self.server_version = version
        self.ends = limited is not None and f"-c {limited}=0" not in options
        self.autocommit = False

    def cursor(self) -> t.Any:
        return self

    def __enter__(self) -> t.Any:
        return self

    def __exit__(self, *exc_info: t.Any) -> None:
        pass

    def execute(self, sql: str, args: t.Any) -> None:
        if self.ends:
            raise _connection.psycopg2.OperationalError("terminating connection due to transaction timeout")

    def fetchall(self) -> list[t.Any]:
        return []

    def close(self) -> None:
        pass


def logins(monkeypatch: pytest.MonkeyPatch, version: int, limited: str | None = None, pooler: bool = False) -> list[str]:
    """The options of each login, in the order in which they come."""
    seen: list[str] = []

    def login(**given: t.Any) -> Session:
        seen.append(given["options"])
        if pooler and "-c statement_timeout" in given["options"]:
            raise _connection.psycopg2.OperationalError("FATAL:  unsupported startup parameter in options: statement_timeout")
        return Session(version, given["options"], limited)

    monkeypatch.setattr(_connection.psycopg2, "connect", login)
    return seen


def test_limits_are_lifted_by_the_login_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALTER ROLE ... SET statement_timeout = 1 ends the first statement of a session, even the one that lifts the limit."""
    seen = logins(monkeypatch, 150004, "statement_timeout")
    made = server(connect_params={"options": "-c geqo=off"})
    made.connect()
    made.connect("shop")
    assert all(each.startswith("-c geqo=off -c statement_timeout=0 -c lock_timeout=0") for each in seen)
    assert "idle_session_timeout" not in seen[0] and "-c idle_session_timeout=0" in seen[1], "13 would refuse it, 15 knows it"
    assert not any("transaction_timeout" in each.replace("idle_in_transaction_session_timeout", "") for each in seen)


def test_a_limit_of_a_newer_server_is_lifted_by_a_second_login(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = logins(monkeypatch, 180001, "transaction_timeout")
    server().connect()
    assert ["-c transaction_timeout=0" in each for each in seen] == [False, True]


def test_a_session_that_cannot_be_set_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    logins(monkeypatch, 180001, "nothing that is lifted")
    with pytest.raises(RollbackError, match="PostgreSQL refused while setting up a session on 'postgres': terminating connection"):
        server().connect()


def test_a_pooler_that_refuses_options_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = logins(monkeypatch, 180001, pooler=True)
    with server() as made:
        made.connect()
        made.connect()
        assert seen[1:] == ["", ""]
        made._facts = {"server_version_num": 180001}
        assert made.program_env()["PGOPTIONS"] == "", "a program would be refused, too"


@pytest.mark.parametrize(("number", "text", "old"), [(120022, "12.22", True), (96024, "9.6.24", True), (130001, "13.1", False)])
def test_a_server_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, number: int, text: str, old: bool) -> None:
    facts = {"server_version_num": number, "server_version": text, "is_superuser": True, "user": "operator", "in_recovery": False}
    logins(monkeypatch, number)
    monkeypatch.setattr(_connection, "dicts", lambda *given: [dict(facts)])
    monkeypatch.setattr(_connection, "value", lambda *given: "7")
    made = server()
    made._facts = None
    if old:
        with pytest.raises(RollbackError, match=f"PostgreSQL {text} at .* is too old: expected 13 or newer."):
            assert made.server_version_num
    else:
        assert made.server_version_num == number
