# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each kind of bad input has its own sentence, and nothing is touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, Played, World, differences
from tests.lab.node import ROOT

WORDS: list[tuple[str, dict[str, t.Any], tuple[str, ...]]] = [
    ("unknown", {"version": "20230101_000000"}, ("There is no rollback point '20230101_000000'", "{point}")),
    ("nearly", {"version": "{point}x"}, ("There is no rollback point", "{point}")),
    ("number", {"version": 2.10}, ("The version must be text, found the float 2.1",)),
    ("whole", {"version": 20231201}, ("The version must be text, found the int 20231201",)),
    ("empty", {"version": ""}, ("The version is empty", "rollback_points.yml")),
    ("blank", {"version": "  "}, ("The version is empty",)),
    ("null", {"version": None}, ("The version is empty",)),
    ("list", {"version": ["a"]}, ("The version must be text, found the list",)),
    ("path", {"version": "../../etc"}, ("'../../etc' is not a safe name",)),
    ("hidden", {"version": ".run"}, ("'.run' is not a safe name",)),
    ("template", {"version": "a;rm -rf b"}, ("is not a safe name",)),
    ("misspelt", {"verison": "{point}"}, ("Unknown extra variable 'verison' (did you mean 'version'?)", "nothing was touched")),
    ("misspelt-option", {"version": "{point}", "rollback_pm2_prot": 1}, ("'rollback_pm2_prot' (did you mean 'rollback_pm2_port'?)",)),
    ("flag", {"version": "{point}", "corruption": "ture"}, ("corruption=ture is not understood: expected true or false.",)),
    ("backup-that-is-not", {"version": "backup_20231201_120000"}, ("There is no rollback point 'backup_20231201_120000'",)),
]
OFTEN = {"number", "misspelt"}


@pytest.mark.parametrize(
    ("words", "said"),
    [pytest.param(words, said, id=name, marks=[] if name in OFTEN else pytest.mark.full) for name, words, said in WORDS],
)
def test_words(deployed: World, words: dict[str, t.Any], said: tuple[str, ...]) -> None:
    (point,) = deployed.points()
    given = {key: value.replace("{point}", point) if isinstance(value, str) else value for key, value in words.items()}
    with untouched(deployed):
        deployed.play("rollback_full", **given).refused(*[text.replace("{point}", point) for text in said])


@contextlib.contextmanager
def untouched(world: World) -> t.Iterator[None]:
    before = world.picture()
    yield
    found = differences(before, world.picture())
    assert not found, found[:10]
    world.all_at(NEXT)


@pytest.mark.full
def test_an_extra_variables_file_of_awx(deployed: World) -> None:
    """AWX tags every string with !unsafe, and Ansible reads what is tagged like that as YAML would: 2.10 has lost a digit by then."""
    (point,) = deployed.points()
    path = deployed.folder / "awx-extra-vars"
    path.write_text("!unsafe 'version': !unsafe '2.10'\n", encoding="utf-8")
    with untouched(deployed):
        deployed.play("rollback_full", "-e", f"@{path}").refused("The version must be text, found the float 2.1")
        path.write_text("!unsafe 'version': !unsafe '20230101_000000'\n", encoding="utf-8")
        deployed.play("rollback_full", "-e", f"@{path}").refused("There is no rollback point '20230101_000000'")
        path.write_text("!unsafe 'version': !unsafe ''\n", encoding="utf-8")
        deployed.play("rollback_full", "-e", f"@{path}").refused("The version is empty")
        path.write_text(f"!unsafe 'version': !unsafe '{point}'\n", encoding="utf-8")
        assert "PLAN: full of demo" in deployed.play("rollback_full", "-e", f"@{path}", "--check").ok().text


def test_a_reason_with_spaces_needs_quotes_of_its_own(deployed: World) -> None:
    with untouched(deployed):
        deployed.play("rollback_full", "-e", "reason=it was slow").refused("A value after -e has spaces", "-e \"reason='it was slow'\"")
        deployed.play("rollback_points", "-e", "reason='it was slow'").ok()


PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
OFTEN_PLAYED = {"recover"}


@pytest.mark.parametrize("playbook", [pytest.param(name, marks=[] if name in OFTEN_PLAYED else pytest.mark.full) for name in PLAYBOOKS])
def test_every_playbook_refuses_what_it_does_not_know(deployed: World, playbook: str) -> None:
    with untouched(deployed):
        deployed.play(playbook, verison="x").refused("Unknown extra variable 'verison'")


def test_a_part_of_the_hosts(deployed: World) -> None:
    (point,) = deployed.points()
    with untouched(deployed):
        deployed.play("rollback_full", "--limit", "app1", version=point).refused("--limit leaves out db1", "allow_partial=true")


# --- points that are not what they say --------------------------------------------------------------------------------


def flip_byte(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x41
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def cut(path: pathlib.Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def some(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The largest of these files."""
    return max((path for path in folder.glob(pattern) if path.is_file() and not path.is_symlink()), key=lambda path: path.stat().st_size)


# What is done to a sound point, and the sentence that says just that.
DAMAGE: dict[str, tuple[t.Callable[[pathlib.Path, pathlib.Path], object], str]] = {
    "data changed": (
        lambda db, app: flip_byte(some(db, "postgresql/**/[0-9]*.dat*")),
        "has another SHA-256 than the manifest",
    ),
    "data truncated": (
        lambda db, app: cut(some(db, "postgresql/**/[0-9]*.dat*")),
        "bytes; expected",
    ),
    "table of contents truncated": (
        lambda db, app: cut(some(db, "postgresql/**/toc.dat")),
        "bytes; expected",
    ),
    "data missing": (
        lambda db, app: some(db, "postgresql/**/[0-9]*.dat*").unlink(),
        "file(s) are missing, first",
    ),
    "data added": (
        lambda db, app: (db / "postgresql" / "more.sql").write_text("DROP TABLE payments;\n"),
        "is not in the manifest. Somebody added it",
    ),
    "manifest of data changed": (
        lambda db, app: flip_byte(db / "postgresql" / "manifest.json"),
        "manifest.json differs from its checksum in MANIFEST.sha256",
    ),
    "checksum of data missing": (
        lambda db, app: (db / "postgresql" / "MANIFEST.sha256").unlink(),
        "MANIFEST.sha256 is missing. The point is incomplete or damaged",
    ),
    "code changed": (
        lambda db, app: (app / "pm2" / "tree" / "src" / "server.js").open("a").write("// more\n"),
        "differ from its listing",
    ),
    "code missing": (
        lambda db, app: (app / "pm2" / "tree" / "src" / "server.js").unlink(),
        "differ from its listing",
    ),
    "code added": (
        lambda db, app: (app / "pm2" / "tree" / "src" / "more.js").write_text("process.exit(1)\n"),
        "differ from its listing",
    ),
    "code linked": (
        lambda db, app: (app / "pm2" / "tree" / "src" / "shadow").symlink_to("/etc/shadow"),
        "differ from its listing",
    ),
    "listing changed": (
        lambda db, app: flip_byte(app / "pm2" / "tree.json"),
        "has another SHA-256 than the manifest",
    ),
    "manifest of code changed": (
        lambda db, app: flip_byte(app / "pm2" / "manifest.json"),
        "manifest.json differs from its checksum in MANIFEST.sha256",
    ),
    "record missing": (
        lambda db, app: (db / "point.json").unlink(),
        "its record is missing or damaged on db1",
    ),
    "record truncated": (
        lambda db, app: cut(app / "point.json"),
        "its record is missing or damaged on app1",
    ),
    "component missing": (
        lambda db, app: shutil.rmtree(app / "pm2"),
        "pm2 is missing on app1",
    ),
    "components of different points": (
        lambda db, app: (db / "postgresql").rename(db / "pm2"),
        "postgresql is missing on db1",
    ),
    "another system": (
        lambda db, app: change(db / "point.json", system="polaris"),
        "its record is missing or damaged on db1",
    ),
}
OFTEN_DAMAGED = {"data truncated"}


def change(path: pathlib.Path, **values: t.Any) -> None:
    path.chmod(0o600)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def live_differences(world: World, before: dict[str, t.Any]) -> list[str]:
    """What a refused point has changed: of the sound component a staged copy may stay, the live system was not touched at all."""
    return [line for line in differences(before, world.picture(runs=False)) if "api.rollback" not in line and "api.shared" not in line]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind in OFTEN_DAMAGED else pytest.mark.full) for kind in DAMAGE])
def test_a_damaged_point_is_refused_before_anything_is_created(deployed: World, kind: str) -> None:
    (point,) = deployed.points()
    safe = deployed.folder / "safe-store"
    shutil.rmtree(safe, ignore_errors=True)
    shutil.copytree(deployed.store, safe, symlinks=True)
    try:
        damage, sentence = DAMAGE[kind]
        damage(deployed.store / "db1" / "demo" / point, deployed.store / "app1" / "demo" / point)
        before = deployed.picture(runs=False)
        played = deployed.play("rollback_full", version=point)
        played.refused(sentence)
        assert "Traceback" not in played.text
        found = live_differences(deployed, before)
        assert not found, found[:5]
    finally:
        shutil.rmtree(deployed.store)
        safe.rename(deployed.store)
    deployed.all_at(NEXT)


def from_another_server(folder: pathlib.Path) -> None:
    """What pg_snapshot writes elsewhere: the manifest names that server, and its checksum is right."""
    manifest = folder / "manifest.json"
    sums = folder / "MANIFEST.sha256"
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    content = manifest.read_text(encoding="utf-8")
    here = json.loads(content)["facts"]["system_identifier"]
    for path in (manifest, sums):
        path.chmod(0o600)
    manifest.write_text(content.replace(here, "7" * len(here)), encoding="utf-8")  # as long as before, as summary.json knows it
    text = sums.read_text(encoding="utf-8")
    assert old in text
    sums.write_text(text.replace(old, hashlib.sha256(manifest.read_bytes()).hexdigest()), encoding="utf-8")


@pytest.mark.full
def test_a_truncated_record_is_listed_with_its_reason(deployed: World) -> None:
    """The list shows a damaged point and why, and does not fail."""
    (point,) = deployed.points()
    record = deployed.store / "app1" / "demo" / point / "point.json"
    saved = record.read_bytes()
    try:
        cut(record)
        (row,) = deployed.play("rollback_points", output="json").ok().json()
        assert row["complete"] is False and row["problems"] == ["its record is missing or damaged on app1"]
        deployed.play("rollback_full").refused("No rollback point fits 'latest'")
    finally:
        record.write_bytes(saved)


@pytest.mark.full
def test_a_point_of_another_server(deployed: World) -> None:
    """Copied whole from another database server, so that every checksum is right: only a person may say that it belongs here."""
    (point,) = deployed.points()
    folder = deployed.store / "db1" / "demo" / point / "postgresql"
    safe = deployed.folder / "safe-point"
    shutil.copytree(folder, safe)
    try:
        from_another_server(folder)
        before = deployed.picture(runs=False)
        played = deployed.play("rollback_full", version=point)
        played.refused(f"Point {point} was taken on another server (system identifier 7777", "allow_foreign=true")
        assert not live_differences(deployed, before)
        deployed.all_at(NEXT)
        assert (
            "PLAN: full of demo"
            in deployed.play("rollback_full", "--check", version=point, rollback_postgresql_allow_foreign=True).ok().text
        )
    finally:
        shutil.rmtree(folder)
        safe.rename(folder)


# --- PM2 --------------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_pm2_under_another_home(deployed: World) -> None:
    (point,) = deployed.points()
    with untouched(deployed):
        played = deployed.play("rollback_full", version=point, rollback_pm2_home="/nonexistent/pm2")
        played.refused("PM2_HOME /nonexistent/pm2 does not exist")


@pytest.mark.full
def test_pm2_that_does_not_run(deployed: World) -> None:
    (point,) = deployed.points()
    host = deployed.hosts[0]
    host.pm2.stop_daemon()
    try:
        played = deployed.play("rollback_full", version=point)
        played.refused("PM2 is not running", "resurrect")
        assert host.pm2.daemon_pid is None, "looking started a daemon"
    finally:
        host.pm2.start_daemon()
        host.pm2.run("resurrect")
        deployed.await_healthy()
    deployed.all_at(NEXT)


@pytest.mark.full
def test_a_port_that_somebody_else_took(deployed: World) -> None:
    """Between two calls of PM2 another program can get the port. It is named, and the databases go back."""
    (point,) = deployed.points()
    host = deployed.hosts[0]
    host.pm2.run("stop", "kejayangu-api")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", host.port))
        other.listen()
        played = deployed.play("rollback_full", version=point, rollback_pm2_wait_seconds=6)
        played.refused(f"Port {host.port} belongs to ", f"(pid {os.getpid()})")
        assert deployed.data_version() == NEXT
    deployed.play("undo")
    host.pm2.run("restart", "kejayangu-api", check=False)


def test_health_that_never_comes(deployed: World) -> None:
    """The target boots, and is not what the probes want once it serves: everything goes back, the old one serves."""
    (point,) = deployed.points()
    insert = "INSERT INTO payments (customer_id, amount, provider) SELECT id, 1, 'stripe' FROM customers LIMIT 1 RETURNING id"
    ((payment,),) = deployed.sql(insert)
    probe = {"name": "a payment of today", "type": "http", "url": f"http://127.0.0.1:{deployed.hosts[0].port}/payments/{payment}"}
    deployed.set_variables(
        **{**deployed.quick, "rollback_pm2_wait_seconds": 6}, rollback_pm2_probes=[probe], rollback_postgresql_ledgers=[]
    )
    try:
        deployed.play("verify").ok()
        with deployed.watching():
            played = deployed.play("rollback_full", version=point)
        played.refused("It failed, and every host is back at the version it had", "a payment of today")
        assert played.outcome == "UNDONE"
        deployed.all_at(NEXT)
        deployed.play("verify").ok()
    finally:
        deployed.set_variables(**deployed.quick)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_a_second_run_while_one_is_under_way(deployed: World) -> None:
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/load/during", "rollback_full", version=point, who="amina") as stopped:
        for playbook in ("rollback_full", "backup"):
            second = deployed.play(playbook)
            second.refused("he lock is held by run", "by amina", "still alive", "takeover=")
        run = re.search(r"takeover=([0-9a-f]{8})", second.flat)
        assert run is not None
        wrong = deployed.play("undo", takeover="00000000")
        wrong.refused("takeover=00000000, but the lock is held by another: run")
        first: Played = stopped.finish()
    first.ok()
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)
