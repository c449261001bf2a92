# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx_servers reads from and writes into files that people wrote."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._nginx import master
from ansible_collections.payops.rollback.plugins.module_utils._nginx.doors import Doors, Places, Said, first_text, text_of
from ansible_collections.payops.rollback.plugins.module_utils._nginx.upstreams import Change, changed, parse, read_all
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import Frontend
from ansible_collections.payops.rollback.plugins.module_utils._traffic.sockets import _place

TEXT = (
    "# ours\r\n"
    "server 10.0.0.11:5000 weight=100 max_fails=3;  # app1 in the cellar\r\n"
    "\tserver app2.internal:81 max_fails=1 down; # app2\n"
    "server [2001:db8::1]:5000 weight=5 backup;\n"
    "server unix:/run/app.sock; # app4\n"
    "keepalive 16;\n"
)


def test_servers_are_read() -> None:
    found = {each.name: each for each in parse(TEXT, "payments", "f")}
    assert {name: (each.state, each.weight, each.place, each.usable) for name, each in found.items()} == {
        "app1": ("ready", 100, "10.0.0.11:5000", True),
        "app2": ("maint", 1, "app2.internal:81", False),
        "[2001:db8::1]:5000": ("ready", 5, "[2001:db8::1]:5000", False),
        "app4": ("ready", 1, "unix:/run/app.sock", True),
    }


@pytest.mark.parametrize(
    ("name", "change", "back", "line"),
    [
        (
            "app1",
            Change(state="maint"),
            Change(state="ready"),
            "server 10.0.0.11:5000 weight=100 max_fails=3 down;  # app1 in the cellar\r\n",
        ),
        ("app1", Change(weight=10), Change(weight=100), "server 10.0.0.11:5000 weight=10 max_fails=3;  # app1 in the cellar\r\n"),
        (
            "app1",
            Change(place="10.0.0.9:1"),
            Change(place="10.0.0.11:5000"),
            "server 10.0.0.9:1 weight=100 max_fails=3;  # app1 in the cellar\r\n",
        ),
        ("app2", Change(state="ready"), Change(state="maint"), "\tserver app2.internal:81 max_fails=1; # app2\n"),
        ("[2001:db8::1]:5000", Change(weight=5, state="maint"), Change(state="ready"), "server [2001:db8::1]:5000 weight=5 backup down;\n"),
    ],
)
def test_one_line_changes_and_changes_back_to_the_byte(name: str, change: Change, back: Change, line: str) -> None:
    new = changed(TEXT, "payments", {name: change})
    old = set(TEXT.splitlines(keepends=True))
    assert set(new.splitlines(keepends=True)) - old == {line}
    assert changed(new, "payments", {name: back}) == TEXT


@pytest.mark.parametrize("line", ["server a:1; server b:1;", "server a:1", "server a:1 weight=2 # ;"])
def test_a_line_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(RollbackError, match="expected one server a line"):
        parse(f"{line}\n", "payments", "f")


def test_a_name_stands_for_one_server(tmp_path: pathlib.Path) -> None:
    (tmp_path / "upstream-payments.conf").write_text("server a:1; # app1\nserver b:1; # app1\n", encoding="utf-8")
    with pytest.raises(RollbackError, match="two servers with the name app1"):
        read_all(str(tmp_path))


def doors(path: pathlib.Path, *names: str) -> Doors:
    return Doors([Frontend(name, "http://127.0.0.1") for name in names], Places(str(path)))


def test_doors_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "doors.conf"
    said = Said({"api": 10, "web": -1, "old": 100}, ["/webhooks/mpesa"])
    path.write_text(text_of(said, Places(str(path))), encoding="utf-8")
    found = doors(path, "api", "web")
    assert found.shares() == {"api": 10, "web": -1} and found.receivers() == ["/webhooks/mpesa"]
    path.write_text(found.text({"api": 0}, None), encoding="utf-8")  # the others stay
    assert found.read() == Said({"api": 0, "web": -1, "old": 100}, ["/webhooks/mpesa"])


@pytest.mark.parametrize("damage", ["", "# payops {", '# payops {"shares": {"api": 500}, "receivers": []}', '# payops ["api"]'])
def test_doors_that_somebody_wrote_by_hand_are_refused(tmp_path: pathlib.Path, damage: str) -> None:
    path = tmp_path / "doors.conf"
    path.write_text(f"{damage}\n", encoding="utf-8")
    with pytest.raises(RollbackError, match="by hand"):
        doors(path, "api").shares()


def test_a_receiver_is_no_pattern() -> None:
    text = text_of(Said({}, ["/a.b$(c)'\""]), Places("f"))
    assert r'"~^/a\x2eb\x24\x28c\x29\x27\x22" receives;' in text
    assert "100" in first_text(Places("f"), ["api"])


def place(text: str, byteorder: str, monkeypatch: pytest.MonkeyPatch) -> t.Any:
    monkeypatch.setattr("sys.byteorder", byteorder)
    return _place(text)


def test_addresses_as_the_kernel_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place("0100007F:1388", "little", monkeypatch) == ("127.0.0.1", 5000)
    assert place("7F000001:1388", "big", monkeypatch) == ("127.0.0.1", 5000)
    assert place("0000000000000000FFFF00000100007F:0050", "little", monkeypatch) == ("127.0.0.1", 80)
    assert place("B80D0120000000000000000001000000:0050", "little", monkeypatch) == ("2001:db8::1", 80)


def test_whoever_may_not_look_does_not_see_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a drain would be over for want of a right."""

    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(master.os, "listdir", refuse)
    with pytest.raises(PermissionError):
        master.peers(1)


def test_a_process_that_has_ended_has_no_peers() -> None:
    assert master.peers(2**22 + 1) == []
