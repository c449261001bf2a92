# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""A plain SQL dump in the place of a point: it has no manifest, so one is made of what it makes."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, read_json, sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue, _manifest, _plain, _plain_run, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore


def take(work: Restore, version: str, legacy_path: str) -> None:
    """A plain SQL dump has no manifest. What it made when it was first loaded is compared with from then on."""
    if not work.options.allow_plain_sql:
        raise RollbackError(
            f"Point {version} is a plain SQL dump, a program that somebody wrote. Read it, then set allow_plain_sql=true to have it run."
        )
    if len(work.names) != 1:
        raise RollbackError(f"A plain SQL dump holds one database, but {len(work.names)} are given in databases.")
    name = work.names[0]
    work.plain = _plain.look(_plain.find(legacy_path, version), work.options.plain_sql_sha256)
    roles = dict(work.options.plain_sql_roles)
    work.digests[name] = sha256_bytes(canonical_json([work.plain.sha256, roles]))
    known = read_json(file(work))
    nothing = {"catalogue": {}, "tables": {}, "sequences": {}, "large_objects": {"count": 0}, "verify": "files", "oid": None}
    manifest = known or {**nothing, "properties": _catalogue.properties(work.conn, name)}
    work.manifests[name] = {**manifest, "known": known is not None}
    facts = {"server_major": work.server.major, "system_identifier": work.server.system_identifier, "databases": work.manifests}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.path.getmtime(work.plain.path)))
    work.point = {"system": os.path.basename(work.paths.system), "version": version, "created": created, "facts": facts, "files": {}}
    work.result["plain_sql"] = {"path": work.plain.path, "sha256": work.plain.sha256, "size": work.plain.size}


def file(work: Restore) -> str:
    return os.path.join(work.paths.run, f"plain-{work.digests[work.names[0]][:16]}.json")


def fill(work: Restore, looked: _plain.Looked, name: str, staged: str) -> None:
    owner, roles = work.manifests[name]["properties"]["owner"], work.options.plain_sql_roles
    login = _plain_run.Borrowed(work.conn, work.server, name, owner, looked, roles)
    with login as borrowed:
        session = borrowed.connect(staged)
        try:
            _plain_run.require_ordinary(session)
            _plain_run.load(session, looked, staged, roles)
        finally:
            session.close()
        inside = work.server.connect(staged)
        try:
            login.hand_over(inside)
        finally:
            inside.close()


def learn(work: Restore, name: str, staged: Database) -> None:
    """Write down what the dump made, so that the flip and later runs can tell whether it is still that."""
    with _state.Window(work.conn, work.server.connect, staged) as inside:
        made = _manifest.build(inside)
    if work.plain is not None and len(made["tables"]) < work.plain.tables:
        raise RollbackError(f"The plain SQL dump creates {work.plain.tables} tables, but {len(made['tables'])} are there.")
    made.update(properties=work.manifests[name]["properties"], oid=None, snapshot=None)
    _state.write_json(file(work), made, work.paths.file_mode)
    work.manifests[name] = {**made, "known": True}
