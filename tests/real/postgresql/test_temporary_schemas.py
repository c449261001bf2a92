# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of a session's temporary tables stays when the session has gone, and always belongs to the first superuser."""

from __future__ import annotations

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._rights import FOREIGN_OWNERS
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles


def test_what_temporary_tables_left_asks_no_rights_of_the_operator(cluster: Cluster, roles: Roles, database: str) -> None:
    cluster.sql("CREATE TEMPORARY TABLE t (id int PRIMARY KEY, body text)", dbname=database, **roles.app.login())
    left = cluster.sql("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^pg_temp_' AND oid >= 16384", dbname=database)
    assert left[0][0] >= 1
    assert cluster.sql(FOREIGN_OWNERS, dbname=database, **roles.operator.login()) == []
