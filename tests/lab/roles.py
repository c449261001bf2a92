# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles of a payment system: who owns, who writes, who migrates, who reads, and who operates without superuser rights."""

from __future__ import annotations

import dataclasses
import typing as t

from tests.lab.postgres import PASSWORD, Cluster, ident, literal


@dataclasses.dataclass(frozen=True)
class Role:
    """A login and its password."""

    name: str
    password: str

    def login(self) -> dict[str, str]:
        """Keyword arguments for the methods of :class:`Cluster`."""
        return {"user": self.name, "password": self.password}


@dataclasses.dataclass(frozen=True)
class Roles:
    """``owner`` owns database and tables, ``app`` writes rows, ``migrator`` is a member of owner, ``readonly`` reads.

    ``operator`` is no superuser: CREATEDB, pg_signal_backend and membership in every owning role ("owner with rights").
    """

    owner: Role
    app: Role
    migrator: Role
    readonly: Role
    operator: Role

    def names(self) -> list[str]:
        return [role.name for role in (self.owner, self.app, self.migrator, self.readonly, self.operator)]


def create_roles(cluster: Cluster, prefix: str = "shop", password: str = PASSWORD) -> Roles:
    """Create the roles (once per cluster and prefix) and return them with their passwords, which begin with ``password``."""

    def role(kind: str) -> Role:
        return Role(f"{prefix}_{kind}", f"{password}{kind}")

    roles = Roles(role("owner"), role("app"), role("migrator"), role("readonly"), role("operator"))
    existing = {name for (name,) in cluster.sql("SELECT rolname FROM pg_roles")}
    for each in (roles.owner, roles.app, roles.migrator, roles.readonly, roles.operator):
        if each.name not in existing:
            rights = "CREATEDB" if each is roles.operator else "NOCREATEDB"
            cluster.sql(f"CREATE ROLE {ident(each.name)} LOGIN {rights} PASSWORD {literal(each.password)}")
    owner, migrator, operator = (ident(each.name) for each in (roles.owner, roles.migrator, roles.operator))
    cluster.sql(f"GRANT {owner} TO {migrator}")
    cluster.sql(f"GRANT pg_signal_backend, {owner}, {migrator} TO {operator}")
    return roles


def create_database(cluster: Cluster, name: str, roles: Roles, role_settings: bool = True) -> str:
    """A database as a careful team has it: owned by ``owner``, closed to PUBLIC, settings of its own, default privileges.

    ``role_settings`` adds a setting of one role in this database, which only a superuser can put back.
    """
    cluster.create_database(name, roles.owner.name)
    database = ident(name)
    owner, app, migrator, readonly = (ident(each.name) for each in (roles.owner, roles.app, roles.migrator, roles.readonly))
    for statement in (
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app}, {migrator}",
        f"GRANT CONNECT ON DATABASE {database} TO {readonly}",
        f"ALTER DATABASE {database} SET statement_timeout = '30s'",
        *([f"ALTER ROLE {readonly} IN DATABASE {database} SET default_transaction_read_only = on"] if role_settings else []),
        f"COMMENT ON DATABASE {database} IS 'payments of the shop'",
    ):
        cluster.sql(statement)
    inside: t.Iterable[str] = (
        f"ALTER SCHEMA public OWNER TO {owner}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {app}, {readonly}",
        *(
            statement
            for maker in (owner, migrator)
            for statement in (
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {maker} IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {maker} IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {app}",
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {maker} IN SCHEMA public GRANT SELECT ON TABLES TO {readonly}",
            )
        ),
    )
    for statement in inside:
        cluster.sql(statement, dbname=name)
    return name
