# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pytest fixtures on real servers.

``cluster`` runs each test on every supported major version. Without REQUIRE_ALL=1 a missing version skips, with it
the test fails. ``PG_MAJORS=18`` confines a quick run to one version.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import typing as t

import pytest

from tests.lab import compose
from tests.lab import roles as lab_roles
from tests.lab.binaries import HOW_TO_GET
from tests.lab.docker import Engine
from tests.lab.postgres import Cluster, Missing, find

MAJORS = [int(major) for major in os.environ.get("PG_MAJORS", "").replace(",", " ").split()] or sorted(HOW_TO_GET)

MEMORY = "/dev/shm"
_numbers = itertools.count(1)


def unavailable(reason: str) -> t.NoReturn:
    """Skip, or fail when REQUIRE_ALL=1 says that nothing may be skipped."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1: {reason}", pytrace=False)
    pytest.skip(reason)


def in_memory() -> str | None:
    """A folder in memory with room for a server's files, or none (nor where TMPDIR says where a run may write).
    Tests make and drop some thousand databases of 300 files each, and a third of their time went into the disk. What a killed server
    leaves is there as it is on a disk.
    """
    if os.environ.get("TMPDIR"):
        return None
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    roomy = found.f_bavail * found.f_frsize > 4 * 1024**3 and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
    return MEMORY if roomy and os.access(MEMORY, os.W_OK | os.X_OK) else None


@contextlib.contextmanager
def engine_with_compose() -> t.Iterator[Engine]:
    """A Docker engine of its own that runs containers, and ``docker compose``; a skip where they cannot be had."""
    reason = compose.unusable()
    if reason:
        unavailable(reason)
    with Engine(containers=True) as started:
        yield started


@pytest.fixture(scope="session", params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def cluster(request: pytest.FixtureRequest) -> t.Iterator[Cluster]:
    """A running server, shared by all tests of the session on this major version."""
    try:
        find(request.param)
    except Missing as exc:
        unavailable(str(exc))
    memory = in_memory()
    started = Cluster(request.param, memory and tempfile.mkdtemp(prefix=f"payops-pg{request.param}-", dir=memory))
    with started:
        yield started


@pytest.fixture(scope="session")
def roles(cluster: Cluster) -> lab_roles.Roles:
    """Owner, application, migrator, read-only and operator."""
    return cluster.create_roles()


@pytest.fixture(params=["owner", pytest.param("superuser", marks=pytest.mark.full)])
def operator(request: pytest.FixtureRequest, roles: lab_roles.Roles) -> lab_roles.Role | None:
    """Who acts: the role with rights or, as None, the server's superuser, for tests in which both must see the same."""
    return roles.operator if request.param == "owner" else None


@pytest.fixture
def dbname() -> str:
    """A database name that no other test has used; the database is not created."""
    return f"t{next(_numbers):03d}_{os.getpid()}"


@pytest.fixture
def database(cluster: Cluster, roles: lab_roles.Roles, dbname: str) -> t.Iterator[str]:
    """A fresh empty database owned by ``roles.owner``; it and all that was made from it (kept, staged) are dropped after."""
    yield lab_roles.create_database(cluster, dbname, roles)
    cluster.drop_databases(dbname)
