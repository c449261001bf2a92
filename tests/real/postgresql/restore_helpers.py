# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shop with payments on a real server, modules run as processes of their own, and what must always hold, looked at from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import typing as t

from tests.lab import modules
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles

SCHEMA = """
CREATE TABLE customers (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE payments (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, invoice text UNIQUE,
  amount numeric(12,2) NOT NULL CHECK (amount > 0), note text, cents bigint GENERATED ALWAYS AS ((amount * 100)::bigint) STORED);
CREATE TABLE idempotency_keys (key text PRIMARY KEY, payment_id bigint REFERENCES payments, answer jsonb);
CREATE TABLE audit (at timestamptz DEFAULT now(), what text);
CREATE INDEX payments_customer ON payments (customer_id);
CREATE FUNCTION note_payment() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.audit (what) VALUES ('paid ' || NEW.id); RETURN NEW; END $$;
CREATE TRIGGER paid AFTER INSERT ON payments FOR EACH ROW EXECUTE FUNCTION note_payment();
INSERT INTO customers (email) SELECT 'c' || n || '@example.com' FROM generate_series(1, 50) n;
INSERT INTO payments (customer_id, invoice, amount) SELECT 1 + n % 50, 'I' || n, 1 + n FROM generate_series(1, 1000) n;
INSERT INTO idempotency_keys SELECT 'k' || id, id, '{"ok": true}' FROM payments;
"""


class Shop:
    """One database of a payment system, who operates it, and a store for its points."""

    def __init__(self, cluster: Cluster, roles: Roles, name: str, store: pathlib.Path, operator: Role | None) -> None:
        self.cluster = cluster
        self.roles = roles
        self.name = name
        self.store = store
        self.operator = operator
        self.version = "20231201_120000"

    def fill(self) -> Shop:
        # role settings of other roles need membership: part of "owner with rights"
        self.cluster.sql(f"GRANT {ident(self.roles.readonly.name)} TO {ident(self.roles.operator.name)}")
        self.sql(SCHEMA, self.roles.owner)
        return self

    def sql(self, query: str, role: Role | None = None, name: str | None = None, values: t.Any = None) -> list[tuple[t.Any, ...]]:
        login = role.login() if role else {}
        return self.cluster.sql(query, values, dbname=name or self.name, **login)

    def pay(self, amount: int = 7, invoice: str | None = None) -> int:
        """One payment by the application; its id."""
        query = "INSERT INTO payments (customer_id, invoice, amount) VALUES (1, %s, %s) RETURNING id"
        return int(self.sql(query, self.roles.app, values=(invoice, amount))[0][0])

    def count(self, table: str = "payments", name: str | None = None) -> int:
        return int(self.sql(f"SELECT count(*) FROM {table}", name=name)[0][0])

    def oid(self, name: str | None = None) -> int:
        return int(self.cluster.sql("SELECT oid::bigint FROM pg_database WHERE datname = %s", (name or self.name,))[0][0])

    def arguments(self, **options: t.Any) -> dict[str, t.Any]:
        role = self.operator
        given = {
            "store": str(self.store),
            "system": "shop",
            "databases": [self.name],
            "login_host": self.cluster.host,
            "login_port": self.cluster.port,
            "login_user": role.name if role else self.cluster.superuser,
            "login_password": role.password if role else self.cluster.password,
            "bin_dir": str(self.cluster.bin_dir),
        }
        return {**given, **options}

    def start(self, module: str, fault: str = "", check: bool = False, **options: t.Any) -> modules.Started:
        given = self.arguments(**options)
        if check:
            given["_ansible_check_mode"] = True
        given.setdefault("_ansible_diff", True)
        return modules.start(module, given, fault)

    def run(self, module: str, fault: str = "", check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """The module's result; ``{"killed": True}`` if it was."""
        return modules.result_of(self.start(module, fault, check, **options))

    def ok(self, module: str, **options: t.Any) -> dict[str, t.Any]:
        result = self.run(module, **options)
        assert not result.get("failed"), result
        assert not result.get("killed"), result
        return result

    def refused(self, module: str, **options: t.Any) -> dict[str, t.Any]:
        result = self.run(module, **options)
        assert result.get("failed"), result
        return result

    def restore(self, state: str, **options: t.Any) -> dict[str, t.Any]:
        if state in ("staged", "live"):
            options.setdefault("version", self.version)
        return self.ok("pg_restore", state=state, **options)

    def snapshot(self, version: str | None = None) -> None:
        self.ok("pg_snapshot", version=version or self.version)

    # -- from outside -------------------------------------------------------------------------------------------------

    def family(self) -> dict[str, dict[str, t.Any]]:
        """The database and everything that was made from it: {name: {oid, open, marker}}."""
        found = self.cluster.sql(
            "SELECT datname, oid::bigint, datallowconn, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE %s",
            (self.name.replace("_", r"\_") + "%",),
        )
        return {
            name: {"oid": oid, "open": is_open, "marker": json.loads(text) if (text or "").startswith("{") else {}}
            for name, oid, is_open, text in found
        }

    @contextlib.contextmanager
    def opened(self, name: str) -> t.Iterator[str]:
        """A kept or staged database made accessible for a look."""
        self.cluster.sql(f"ALTER DATABASE {ident(name)} ALLOW_CONNECTIONS true")
        try:
            yield name
        finally:
            self.cluster.sql(f"ALTER DATABASE {ident(name)} ALLOW_CONNECTIONS false")

    def payments(self, name: str) -> set[int]:
        """Payment ids in one database, open or not."""
        if self.family()[name]["open"]:
            return {row[0] for row in self.sql("SELECT id FROM payments", name=name)}
        with self.opened(name):
            return {row[0] for row in self.sql("SELECT id FROM payments", name=name)}

    def reachable(self) -> set[int]:
        """Ids of all payments in the live or in a kept database."""
        found: set[int] = set()
        for name, each in self.family().items():
            if each["marker"].get("kind") != "staged":
                found |= self.payments(name)
        return found

    def invariant(self, acknowledged: set[int]) -> None:
        """Exactly one database of the name, open, writable by the application, and every acknowledged payment somewhere."""
        family = self.family()
        assert self.name in family, family
        assert family[self.name]["open"], family
        assert acknowledged <= self.reachable()
        for name, each in family.items():
            if name != self.name and each["marker"].get("kind") in ("kept", "undone"):
                assert not each["open"], (name, each)


def forge(shop: Shop, change: t.Callable[[dict[str, t.Any]], None]) -> None:
    """Another manifest under the point, with right checksums: what a point of another server or of another day holds."""
    folder = shop.store / "shop" / shop.version / "postgresql"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(manifest["facts"])
    data = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    sums = (folder / "MANIFEST.sha256").read_text(encoding="utf-8")
    old = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(data)
    (folder / "MANIFEST.sha256").write_text(sums.replace(old, hashlib.sha256(data).hexdigest()), encoding="utf-8")
