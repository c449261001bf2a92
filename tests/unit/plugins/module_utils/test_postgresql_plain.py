# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _plain, _plain_run

HEAD = """--
-- PostgreSQL database dump
--

\\restrict abcXYZ09

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE TABLE public.payments (id integer, note text DEFAULT 'a ; \\ b');
ALTER TABLE public.payments OWNER TO kejayangu;
ALTER TABLE public."Odd ""name" OWNER TO "Old Owner";

CREATE FUNCTION public.f() RETURNS text LANGUAGE plpgsql AS $_$
BEGIN
  -- \\! not a command in here
  RETURN E'\\\\' || '\\';
END $_$;

COPY public.payments (id, note) FROM stdin;
1\tplain
2\t\\! rm -rf /
3\t\\N
\\.

GRANT SELECT ON TABLE public.payments TO readonly;
/* \\! in /* nested */ comments */
"""
TAIL = """
--
-- PostgreSQL database dump complete
--

\\unrestrict abcXYZ09
"""


def write(tmp_path: pathlib.Path, text: str) -> str:
    path = tmp_path / "database_backup.sql"
    path.write_bytes(text.encode())
    return str(path)


def test_a_dump_as_pg_dump_writes_it(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, HEAD + TAIL)
    looked = _plain.look(str(tmp_path))
    assert looked.path == path
    assert looked.tables == 1
    assert looked.owners == ("kejayangu", "Old Owner")
    assert looked.grantees == ("readonly",)
    assert _plain.look(path, looked.sha256.upper()) == looked


@pytest.mark.parametrize(
    "bad",
    [
        "\\! id\n",
        "SELECT 1 \\! id\n",
        "SELECT 1; \\! id\n",
        "\\connect postgres\n",
        "\\copy t from program 'id'\n",
        "\\restrict abc `id`\n",
        "\\unrestrict `id`\n",
        "\\o |id\n",
        "\\i /etc/passwd\n",
        "SELECT 'a\\' \\! id\n",
        "SELECT $a$ $b$ $a$ \\! id\n",
        "SELECT E'\\'' \\! id\n",
        "SELECT ae'\\' \\! id'\n",
        "/* /* */ */ \\! id\n",
        'SELECT "a""" \\! id\n',
        "SELECT 1 -- x\n\\! id\n",
        "SELECT a$x$ \\! id $x$;\n",
        "SELECT 1 AS \u2013E'\\' \\! id\n';\n--'\n",  # to the server a letter, so no escaping string begins
        "SELECT 1 AS \u2013$a$ \\! id\n$a$;\n",
    ],
)
def test_backslash_commands_are_refused(tmp_path: pathlib.Path, bad: str) -> None:
    with pytest.raises(RollbackError, match="backslash command"):
        _plain.look(write(tmp_path, HEAD + bad + TAIL))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("SET standard_conforming_strings = off;\n", "changes standard_conforming_strings"),
        ("SELECT set_config('standard_conforming_strings', 'off', false);\n", "changes standard_conforming_strings"),
        ("SET client_encoding = 'SJIS';\n", "client encoding"),
        ("SET NAMES 'GBK';\n", "client encoding"),
        ("COPY a FROM stdin; SELECT 1;\n", "behind COPY"),
        ("COPY a FROM stdin; SELECT\n", "behind COPY"),
        ("DROP DATABASE shop;\n", "creates, alters or drops a database"),
        ("CREATE DATABASE shop;\n", "creates, alters or drops a database"),
        ("COPY a FROM stdin;\n1\n", "cut off"),
        ("SELECT 'never closed\n", "cut off"),
        ("-- far from the beginning\n" * 200 + "SELECT 1;\0\n", "NUL"),
    ],
)
def test_other_things_that_are_refused(tmp_path: pathlib.Path, bad: str, why: str) -> None:
    with pytest.raises(RollbackError, match=why):
        _plain.look(write(tmp_path, HEAD + bad + TAIL))


def test_the_ends(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RollbackError, match="cut off or is no whole database"):
        _plain.look(write(tmp_path, HEAD))
    with pytest.raises(RollbackError, match="byte order mark"):
        _plain.look(write(tmp_path, "\ufeff" + HEAD + TAIL))
    with pytest.raises(RollbackError, match="no plain SQL"):
        _plain.look(write(tmp_path, "PGDMP" + HEAD + TAIL))
    with pytest.raises(RollbackError, match="no regular file"):
        _plain.look(str(tmp_path / "absent"))
    path = write(tmp_path, HEAD + TAIL)
    with pytest.raises(RollbackError, match="another file than the one that was approved"):
        _plain.look(path, hashlib.sha256(b"other").hexdigest())


def test_windows_line_ends_do_not_hide_the_end_of_copy_data(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RollbackError, match="backslash command"):
        _plain.look(write(tmp_path, (HEAD + "COPY a FROM stdin;\n1\n\\.\n\\! id\n" + TAIL).replace("\n", "\r\n")))


def test_roles_are_replaced_only_where_pg_dump_names_them(tmp_path: pathlib.Path) -> None:
    extra = "COPY t FROM stdin;\nALTER TABLE x OWNER TO kejayangu;\n\\.\n"
    path = write(tmp_path, HEAD + extra + TAIL)
    _plain.look(path)
    with open(path, "rb") as handle:
        script = _plain_run.Script(handle, {"kejayangu": 'new "owner"', "Old Owner": "b", "readonly": "reader"})
        pieces, copied = [], []
        for piece in script.pieces():
            pieces.append(piece.decode())
            if script.lexer.copying:
                copied.append(b"".join(iter(lambda: script.read(1), b"")).decode())
    text = "".join(pieces)
    assert 'ALTER TABLE public.payments OWNER TO "new ""owner""";' in text
    assert 'ALTER TABLE public."Odd ""name" OWNER TO "b";' in text
    assert 'GRANT SELECT ON TABLE public.payments TO "reader";' in text
    assert copied == ["1\tplain\n2\t\\! rm -rf /\n3\t\\N\n", "ALTER TABLE x OWNER TO kejayangu;\n"]
    assert "restrict" not in text
    assert all(piece.rstrip().endswith(";") for piece in pieces)
    assert script.sha256.hexdigest() == hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
