# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that cannot be carried back, or must not: they are left and named, all others are carried, and no payment is ever there twice."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import qualified
from tests.lab.postgres import Cluster
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop

PAYMENTS: list[dict[str, t.Any]] = [{"table": "payments"}]
BOOK: list[dict[str, t.Any]] = [{"table": "book"}]


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None) -> Shop:
    return Shop(cluster, roles, database, tmp_path, operator).fill()


def make(shop: Shop, text: str) -> None:
    """Something of the owner's, and a point with it."""
    shop.sql(text, shop.roles.owner)
    shop.snapshot()


def plan(shop: Shop, ledgers: list[dict[str, t.Any]]) -> str:
    told = shop.run("pg_restore", state="staged", version=shop.version, check=True, ledgers=ledgers)
    assert told["blockers"] == [], told
    return "\n".join(told["plan"])


def carry(shop: Shop, ledgers: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """What happened to the only, or the first, of the ledgers."""
    result = shop.ok("pg_carry_back", ledgers=ledgers)
    label = f"{shop.name}.{qualified('public', ledgers[0]['table'])}"
    return {**result, "carried": result["carried"][label], "left": result["left"][label]}


# -- never twice ------------------------------------------------------------------------------------------------------

KEYS = {
    "of a partitioned table": (
        "CREATE TABLE book (id bigint, status text, amount numeric, PRIMARY KEY (id, status)) PARTITION BY LIST (status);"
        " CREATE TABLE book_1 PARTITION OF book FOR VALUES IN ('pending'); CREATE TABLE book_2 PARTITION OF book FOR VALUES IN ('settled');"
        " INSERT INTO book SELECT n, 'pending', 100 FROM generate_series(1, 3) n",
        "UPDATE book SET status = 'settled' WHERE id = 2; INSERT INTO book VALUES (4, 'pending', 100), (5, 'settled', 100)",
        "public.book 2, settled",
        2,
    ),
    "of several columns of which one tells": (
        "CREATE TABLE book (status text, id bigint, amount numeric, PRIMARY KEY (status, id));"
        " INSERT INTO book SELECT CASE n % 2 WHEN 0 THEN 'pending' ELSE 'settled' END, n, 100 FROM generate_series(1, 9) n",
        "UPDATE book SET status = 'settled' WHERE id = 2; INSERT INTO book VALUES ('pending', 14, 100), ('settled', 15, 100)",
        "public.book settled, 2",
        2,
    ),
    "of several columns of which none tells": (
        "CREATE TABLE book (customer int, line int, amount numeric, PRIMARY KEY (customer, line));"
        " INSERT INTO book SELECT c, n, 100 FROM generate_series(1, 3) c, generate_series(1, 3) n",
        "UPDATE book SET line = 4 WHERE customer = 2 AND line = 3; INSERT INTO book SELECT c, 5, 100 FROM generate_series(1, 3) c",
        "public.book 2, 4",
        2,  # the fifth of customer 2 may be the one as well
    ),
    "beside a number": (
        "CREATE TABLE book (reference text PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY, amount numeric);"
        " INSERT INTO book (reference, amount) SELECT 'R' || n, 100 FROM generate_series(1, 3) n",
        "UPDATE book SET reference = 'S2' WHERE id = 2; INSERT INTO book (reference, amount) VALUES ('R4', 100), ('R5', 100)",
        "public.book S2",
        2,
    ),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_row_whose_key_was_updated_is_not_there_twice(shop: Shop, key: str) -> None:
    made, written, named, carried = KEYS[key]
    make(shop, made)
    before = shop.count("book")
    shop.sql(written)
    foreseen = plan(shop, BOOK)
    assert "new ones (" in foreseen and "all of them are new" not in foreseen
    shop.restore("live")
    shop.sql("DELETE FROM book WHERE ctid = (SELECT min(ctid) FROM book)")  # by the application, since the flip: hides nothing
    told = carry(shop, BOOK)
    assert any(text.startswith(f"{named}: it may be a live row under another key") for text in told["examples"]), told
    assert told["carried"] == carried
    assert shop.count("book") == before - 1 + carried


def test_deleted_rows_do_not_keep_new_ones_from_being_carried(shop: Shop) -> None:
    make(shop, KEYS["of several columns of which one tells"][0])
    shop.sql("DELETE FROM book WHERE id IN (2, 3); INSERT INTO book SELECT 'pending', n, 100 FROM generate_series(21, 40) n")
    shop.restore("live")
    told = carry(shop, BOOK)
    assert (told["carried"], told["left"]["deleted"], told["left"]["conflicting"]) == (20, 2, 0)


# -- other columns ----------------------------------------------------------------------------------------------------

CHANGED = {
    "enum": (
        "CREATE TYPE state AS ENUM ('new', 'paid'); ALTER TABLE payments ADD x state NOT NULL DEFAULT 'paid'",
        "ALTER TYPE state ADD VALUE 'refunded'",
        "refunded",
    ),
    "length": (
        "ALTER TABLE payments ADD x varchar(5) DEFAULT 'short'",
        "ALTER TABLE payments ALTER x TYPE varchar(50)",
        "longer than five",
    ),
    "scale": ("ALTER TABLE payments ADD x numeric(9,2) DEFAULT 1.5", "ALTER TABLE payments ALTER x TYPE numeric(12,4)", "1.2345"),
    "range": ("ALTER TABLE payments ADD x int DEFAULT 1", "ALTER TABLE payments ALTER x TYPE bigint", "5000000000"),
    "domain": (
        "CREATE DOMAIN code AS varchar(5); ALTER TABLE payments ADD x code DEFAULT 'short'",
        "ALTER TABLE payments ALTER x TYPE text",
        "longer than five",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_row_that_the_live_columns_cannot_hold_is_left_and_the_others_are_carried(shop: Shop, what: str) -> None:
    made, migrated, value = CHANGED[what]
    make(shop, made)
    shop.sql(migrated, shop.roles.owner)
    ids = [shop.pay() for unused in range(5)]
    shop.sql("UPDATE payments SET x = %s WHERE id = ANY (%s)", values=(value, [ids[2], 1]))
    assert "the ledger public.payments differs from the point in the type of x (" in plan(shop, PAYMENTS)
    shop.restore("live")
    told = carry(shop, PAYMENTS)
    assert told["carried"] == 4 and told["left"]["conflicting"] == 2 and told["left"]["deleted"] == 0
    assert f"public.payments {ids[2]}: " in "".join(told["examples"])
    assert set(ids) - shop.payments(shop.name) == {ids[2]}


def test_values_of_columns_that_are_not_live_are_counted(shop: Shop) -> None:
    shop.snapshot()
    shop.sql("ALTER TABLE payments ADD fee numeric, ADD unused numeric", shop.roles.owner)
    ids = [shop.pay() for unused in range(3)]
    shop.sql("UPDATE payments SET fee = 3 WHERE id = ANY (%s)", values=([*ids[1:], 7],))
    assert "has no such column in the point, but newer rows have a value in fee (3 row(s));" in plan(shop, PAYMENTS)
    shop.restore("live")
    told = carry(shop, PAYMENTS)
    assert told["carried"] == 3 and told["columns_lost"] == {f"{shop.name}.public.payments": {"fee": 2}}
    assert f"The live database has no column for the values of {shop.name}.public.payments.fee; they are only there." in told["msg"]


def test_a_percent_sign_is_a_letter_like_any_other(shop: Shop) -> None:
    make(
        shop,
        'CREATE TABLE "5%s of %" ("no %(x)s" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "% fee" numeric CHECK ("% fee" < 9), "%%" text UNIQUE);'
        ' INSERT INTO "5%s of %" ("% fee") VALUES (1)',
    )
    shop.sql('INSERT INTO "5%s of %" ("% fee", "%%") VALUES (2, \'a\'), (3, \'b\')')
    shop.restore("live")
    shop.sql('INSERT INTO "5%s of %" ("% fee", "%%") VALUES (4, \'b\')')
    told = carry(shop, [{"table": "5%s of %"}])
    assert told["carried"] == 1 and told["left"]["conflicting"] == 1 and "duplicate key" in told["examples"][0]


# -- constraints and triggers -----------------------------------------------------------------------------------------


def test_refused_rows_cost_no_more_each_when_there_are_many(shop: Shop) -> None:
    make(
        shop,
        "CREATE TABLE few (id int PRIMARY KEY, customer bigint REFERENCES customers);"
        " CREATE TABLE many (id int PRIMARY KEY, customer bigint REFERENCES customers)",
    )
    shop.sql("INSERT INTO customers (email) VALUES ('new@example.com')")
    shop.sql("INSERT INTO few SELECT n, (SELECT max(id) FROM customers) FROM generate_series(1, 600) n")
    shop.sql("INSERT INTO many SELECT n, (SELECT max(id) FROM customers) FROM generate_series(1, 6000) n")
    shop.restore("live")
    told = carry(shop, [{"table": "many"}, {"table": "few"}])
    assert told["carried"] == 0 and told["left"]["conflicting"] == 6000 and len(told["examples"]) == 40
    took = {label.rpartition(".")[2]: each for label, each in told["milliseconds"].items()}
    assert took["many"] < 20 * took["few"], took


def test_triggers_of_partitions_do_not_fire_either(shop: Shop) -> None:
    make(
        shop,
        "CREATE TABLE book (id bigint, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);"
        " CREATE TABLE book_1 PARTITION OF book FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');"
        " CREATE TABLE book_2 PARTITION OF book FOR VALUES FROM ('2030-01-01') TO ('2040-01-01');"
        " CREATE TRIGGER all_of_them AFTER INSERT ON book FOR EACH ROW EXECUTE FUNCTION note_payment();"
        " CREATE TRIGGER own AFTER INSERT ON book_1 FOR EACH ROW EXECUTE FUNCTION note_payment();"
        " ALTER TABLE book_1 ENABLE ALWAYS TRIGGER own; ALTER TABLE book_2 DISABLE TRIGGER all_of_them",
    )
    shop.sql("INSERT INTO book VALUES (1, '2024-01-01'), (2, '2034-01-01')")
    shop.restore("live")
    audits = shop.count("audit")
    modes = (
        "SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'book%' ORDER BY 1, 2"
    )
    before = shop.sql(modes)
    assert {mode for _table, _name, mode in before} == {"O", "A", "D"}
    assert carry(shop, BOOK)["carried"] == 2
    assert shop.count("audit") == audits
    assert shop.sql(modes) == before


def test_rows_that_refer_to_rows_of_the_same_table_are_carried(shop: Shop) -> None:
    make(
        shop,
        "CREATE TABLE book (id int PRIMARY KEY, parent int REFERENCES book, invoice text UNIQUE); INSERT INTO book VALUES (1, NULL, 'i1')",
    )
    shop.sql(
        "INSERT INTO book VALUES (100, NULL, 'i100'); INSERT INTO book SELECT n, 100, 'i' || n FROM generate_series(101, 110) n;"
        " INSERT INTO book VALUES (111, 105, 'i111'); UPDATE book SET invoice = 'j100' WHERE id = 100"  # which puts it behind its children
    )
    shop.restore("live")
    shop.sql("INSERT INTO book VALUES (5, NULL, 'i105')")
    told = carry(shop, BOOK)
    assert told["carried"] == 10 and told["left"]["conflicting"] == 2
    assert "public.book 105: duplicate key" in told["examples"][0] and "public.book 111: insert or update" in told["examples"][1]


CIRCLE = (
    "CREATE TABLE book (id int PRIMARY KEY, page int); CREATE TABLE page (id int PRIMARY KEY, book int REFERENCES book {0});"
    " ALTER TABLE book ADD FOREIGN KEY (page) REFERENCES page {0};"
    " CREATE TRIGGER noted AFTER INSERT ON book FOR EACH ROW EXECUTE FUNCTION note_payment();"
    " CREATE TRIGGER noted AFTER INSERT ON page FOR EACH ROW EXECUTE FUNCTION note_payment()"
)


def test_a_circle_of_foreign_keys_that_may_wait_is_carried(shop: Shop) -> None:
    make(shop, CIRCLE.format("DEFERRABLE INITIALLY DEFERRED"))
    shop.sql("BEGIN; INSERT INTO book VALUES (1, 1), (2, 1); INSERT INTO page VALUES (1, 1), (2, 1); COMMIT")
    shop.restore("live")
    audits = shop.count("audit")
    assert carry(shop, [*BOOK, {"table": "page"}])["carried"] == 2
    assert (shop.count("page"), shop.count("audit")) == (2, audits)
    assert {row[0] for row in shop.sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'noted'")} == {"O"}


def test_one_row_that_fails_in_a_circle_does_not_keep_the_others(shop: Shop) -> None:
    make(
        shop,
        CIRCLE.format("DEFERRABLE INITIALLY DEFERRED")
        + "; ALTER TABLE page ADD customer int REFERENCES customers DEFERRABLE INITIALLY DEFERRED",
    )
    shop.sql("INSERT INTO customers (email) VALUES ('new@example.com')")
    shop.sql("INSERT INTO book VALUES (1, NULL), (2, NULL); INSERT INTO page VALUES (1, 1, 1), (2, 2, 1); INSERT INTO book VALUES (3, 2)")
    shop.sql("INSERT INTO page SELECT 3, 1, max(id) FROM customers; INSERT INTO book VALUES (4, 3)")
    shop.restore("live")
    told = carry(shop, [*BOOK, {"table": "page"}])
    assert told["carried"] == 3 and told["left"]["conflicting"] == 1
    assert shop.count("page") == 2 and len(told["examples"]) == 2


def test_a_sequence_of_texts_does_not_stop_all(shop: Shop) -> None:
    make(
        shop,
        "CREATE TABLE book (no text PRIMARY KEY, amount int); CREATE SEQUENCE book_no OWNED BY book.no;"
        "ALTER TABLE book ALTER no SET DEFAULT 'R-' || nextval('book_no')",
    )
    shop.sql("INSERT INTO book (amount) VALUES (7)", shop.roles.owner)
    shop.restore("live")
    assert carry(shop, BOOK)["carried"] == 1


def test_a_number_that_somebody_chose_does_not_bring_a_sequence_to_its_end(shop: Shop) -> None:
    make(shop, "CREATE TABLE book (id serial PRIMARY KEY, amount int); INSERT INTO book VALUES (2147483646, 0)")
    shop.sql("INSERT INTO book VALUES (2147483647, 0), (50000, 0)", shop.roles.owner)
    shop.restore("live")
    assert carry(shop, BOOK)["carried"] == 2
    assert shop.sql("INSERT INTO book (amount) VALUES (8) RETURNING id", shop.roles.owner) == [(50001,)]


INSTEAD = "CREATE RULE over AS ON INSERT TO book WHERE NEW.amount > 5 DO INSTEAD NOTHING"
RETURNS_NOTHING = """
CREATE FUNCTION over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.amount > 5 THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER over BEFORE INSERT ON book FOR EACH ROW EXECUTE FUNCTION over()"""


def test_rules_do_not_act_either(shop: Shop) -> None:
    make(
        shop,
        "CREATE TABLE book (id int PRIMARY KEY, amount int); CREATE TABLE balance (cents int); INSERT INTO balance VALUES (0);"
        "CREATE RULE add_up AS ON INSERT TO book DO ALSO UPDATE balance SET cents = cents + NEW.amount;"
        "CREATE RULE more AS ON INSERT TO book DO ALSO UPDATE balance SET cents = cents + 1000; ALTER TABLE book ENABLE ALWAYS RULE more;"
        + INSTEAD,
    )
    shop.sql("ALTER TABLE book DISABLE RULE over; INSERT INTO book VALUES (1, 7)", shop.roles.owner)
    shop.restore("live")
    modes = "SELECT rulename, ev_enabled::text FROM pg_rewrite WHERE ev_class = 'book'::regclass ORDER BY 1"
    before = shop.sql(modes)
    assert before == [("add_up", "O"), ("more", "A"), ("over", "O")]
    assert carry(shop, BOOK)["carried"] == 1
    assert shop.sql("SELECT cents FROM balance") == [(0,)] and shop.count("book") == 1
    assert shop.sql(modes) == before


@pytest.mark.parametrize("what", [INSTEAD, RETURNS_NOTHING], ids=["rule", "trigger"])
def test_what_a_trigger_or_a_rule_keeps_out_is_not_told_as_carried(shop: Shop, what: str) -> None:
    make(shop, "CREATE TABLE book (id int PRIMARY KEY, amount int);" + what)
    shop.sql(f"DROP {'RULE' if what == INSTEAD else 'TRIGGER'} over ON book; INSERT INTO book VALUES (1, 7), (2, 3)", shop.roles.owner)
    shop.restore("live")
    result = shop.ok("pg_carry_back", ledgers=BOOK, fire_triggers=True)
    label = f"{shop.name}.public.book"
    assert result["carried"][label] == shop.count("book") == 1
    assert result["left"][label]["conflicting"] == 1 and "kept it out" in result["examples"][0]


@pytest.fixture
def extended(shop: Shop) -> Shop:
    """A database with types that come from an extension, whose operators are in a schema of its own."""
    shop.sql(
        "CREATE SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; GRANT USAGE ON SCHEMA ext TO PUBLIC"
    )
    shop.operator = None  # the schema is the superuser's
    return shop


@pytest.mark.parametrize("key", ["id", "id, day", "id, name"])
def test_keys_of_an_extensions_type(extended: Shop, key: str) -> None:
    shop = extended
    make(
        shop,
        f"CREATE DOMAIN place AS ext.ltree; CREATE TABLE book (id place, name ext.citext, day date, amount int, PRIMARY KEY ({key}));"
        "INSERT INTO book SELECT ('a.' || n)::ext.ltree, 'n' || n, '2024-01-01', 1 FROM generate_series(1, 5) n",
    )
    shop.sql("INSERT INTO book VALUES ('b.1', 'm1', '2024-01-01', 7), ('b.2', 'M2', '2024-01-02', 8)", shop.roles.owner)
    shop.sql("UPDATE book SET id = 'c.1' WHERE id::text = 'a.1'; UPDATE book SET amount = 2 WHERE id::text = 'a.2'", shop.roles.owner)
    shop.restore("live")
    told = carry(shop, BOOK)
    assert told["left"]["changed"] == 1
    assert {("b.1", 7), ("b.2", 8)} <= set(shop.sql("SELECT id::text, amount FROM book"))
    assert told["carried"] == (2 if key == "id, name" else 3), told
    own = shop.run("pg_restore", check=True, state="complete")["dropped"][0]["only_there"]["public.book"]
    assert own == (2 if key == "id, name" else 1)
