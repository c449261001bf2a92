# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A schema with everything that a dump and a restore have ever lost, widened or rewritten.

``PLAIN`` can be created and restored by a database owner, ``SUPERUSER`` needs a superuser.
``{owner}``, ``{app}``, ``{migrator}`` and ``{readonly}`` stand for quoted roles.
"""

from __future__ import annotations

import typing as t

PLAIN = r"""
CREATE TYPE status AS ENUM ('new', 'paid', 'it''s off');
CREATE DOMAIN email AS varchar(120) DEFAULT 'x@y' NOT NULL CHECK (VALUE ~ '@' AND VALUE IN ('a@b', 'x@y', 'c@d'));
CREATE TYPE pair AS (a int, b text);
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION plainc (provider = libc, locale = 'C');

CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 7) PRIMARY KEY,
  gone text, mail email, name varchar(40) COLLATE plainc,
  kind varchar(10) CHECK (kind IN ('private', 'company')),
  level char(3) CHECK (level = ANY (ARRAY['a', 'b'])), p pair, r floatrange, tags text[] DEFAULT ARRAY['x','y']::varchar[]::text[],
  created timestamptz DEFAULT '2023-01-01 00:00:00+00', "Mixed Case" int DEFAULT -1, amount money DEFAULT 3.5,
  lower_name text GENERATED ALWAYS AS (lower(name)) STORED
);
ALTER TABLE customers DROP COLUMN gone;
ALTER TABLE customers ADD COLUMN late int NOT NULL DEFAULT 5;
COMMENT ON COLUMN customers.late IS 'came late';
CREATE TABLE "Sonder ""zeichen"" %s; --" ("a b" serial PRIMARY KEY, "ü" text, "100%" int);
INSERT INTO "Sonder ""zeichen"" %s; --" ("ü") VALUES ('ß€'), (NULL);
CREATE TABLE payments (
  id serial PRIMARY KEY, customer bigint REFERENCES customers DEFERRABLE INITIALLY DEFERRED,
  status status DEFAULT 'new', amount numeric(12,2) CHECK (amount > 0), at timestamptz, during tstzrange, memo bytea, f8 float8,
  idem uuid, CONSTRAINT positive CHECK (amount < 1e6) NO INHERIT, doc jsonb, spent interval
);
ALTER TABLE payments ADD CONSTRAINT not_checked CHECK (f8 IS NOT NULL) NOT VALID;
CREATE UNIQUE INDEX payments_idem ON payments (idem) WHERE idem IS NOT NULL;
CREATE INDEX payments_expr ON payments USING btree (abs(amount), at DESC NULLS LAST) INCLUDE (amount) WITH (fillfactor = 70);
CREATE INDEX payments_range ON payments USING gist (during);
ALTER INDEX payments_expr ALTER COLUMN 1 SET STATISTICS 500;
CLUSTER payments USING payments_pkey;
ALTER TABLE payments ADD CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) WHERE (f8 > 100);
CREATE STATISTICS pay_stats (ndistinct, dependencies) ON status, amount FROM payments;
ALTER TABLE payments ALTER COLUMN memo SET STORAGE EXTERNAL, ALTER COLUMN amount SET STATISTICS 300;
ALTER TABLE payments SET (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE a_loop (id int PRIMARY KEY, b int);
CREATE TABLE b_loop (id int PRIMARY KEY, a int REFERENCES a_loop);
ALTER TABLE a_loop ADD FOREIGN KEY (b) REFERENCES b_loop;
INSERT INTO a_loop VALUES (1, NULL); INSERT INTO b_loop VALUES (2, 1); UPDATE a_loop SET b = 2;

CREATE TABLE ledger (id bigserial, at date NOT NULL, cents bigint, note varchar, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE ledger_2022 PARTITION OF ledger FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
CREATE TABLE ledger_2023 (cents bigint, note varchar, at date NOT NULL, id bigint NOT NULL DEFAULT 0);
ALTER TABLE ledger ATTACH PARTITION ledger_2023 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE ledger_rest PARTITION OF ledger DEFAULT PARTITION BY HASH (id);
CREATE TABLE ledger_rest_0 PARTITION OF ledger_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE ledger_rest_1 PARTITION OF ledger_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON ledger (note);
CREATE TABLE ledger_line (n int PRIMARY KEY, id bigint, at date, FOREIGN KEY (id, at) REFERENCES ledger);
INSERT INTO ledger (at, cents, note) SELECT date '2022-06-01' + n * 40, n, 'n' || n FROM generate_series(1, 30) n;

CREATE TABLE parent (a int, b text);
CREATE TABLE child (c int) INHERITS (parent);
ALTER TABLE parent ADD COLUMN d int DEFAULT 4;
INSERT INTO child VALUES (1, 'b', 3); INSERT INTO parent VALUES (7, 'p');
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE UNLOGGED TABLE scratch (x int); INSERT INTO scratch VALUES (1);

INSERT INTO customers (mail, name, kind, level, p, r) SELECT 'a@b', 'N' || n, 'private', 'a', ROW(n, 'b,"' || n)::pair, floatrange(n, n + 1)
  FROM generate_series(1, 20) n;
INSERT INTO payments (customer, status, amount, at, during, memo, f8, idem, doc, spent)
  SELECT 100, 'paid', n, '2023-05-05 10:00+02'::timestamptz + n * interval '1 day',
    tstzrange('2023-01-01'::timestamptz + n * interval '1 day', '2023-01-02'::timestamptz + n * interval '1 day'),
    decode('00ff' || lpad(n::text, 2, '0'), 'hex'), 1 / n::float8, md5(n::text)::uuid, jsonb_build_object('n', n, 'x', E'line\nbreak'),
    n * interval '1 month 3 days 04:05:06' FROM generate_series(1, 20) n;

SET CONSTRAINTS ALL IMMEDIATE;

CREATE SEQUENCE seq_unused START 50 INCREMENT -5 MINVALUE -1000 MAXVALUE 50 CACHE 1;
CREATE SEQUENCE seq_cycle MAXVALUE 3 CYCLE; SELECT nextval('seq_cycle'), nextval('seq_cycle');
CREATE SEQUENCE seq_owned OWNED BY payments.amount; SELECT setval('seq_owned', 9, false);

CREATE VIEW paid AS SELECT p.*, c.name, (p.status::text IN ('paid', 'new')) AS ok, c.kind IN ('private', 'company') AS known
  FROM payments p LEFT JOIN customers c ON c.id = p.customer WHERE c.kind IN ('private', 'company') OR p.amount BETWEEN 1 AND 5;
CREATE VIEW safe WITH (security_barrier = true, check_option = local) AS SELECT * FROM parent WHERE a > 0;
ALTER VIEW safe ALTER COLUMN a SET DEFAULT 3;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE VIEW using_join AS SELECT * FROM a_loop x JOIN b_loop y USING (id) JOIN LATERAL (SELECT count(*) OVER w AS k FROM a_loop
  WINDOW w AS (PARTITION BY b ORDER BY id)) z ON true;
CREATE MATERIALIZED VIEW daily AS SELECT at::date AS day, sum(amount) AS total FROM payments GROUP BY 1;
CREATE MATERIALIZED VIEW weekly AS SELECT date_trunc('week', day) AS week, sum(total) AS total FROM daily GROUP BY 1;
CREATE UNIQUE INDEX ON weekly (week);
CREATE MATERIALIZED VIEW empty_view AS SELECT 1 AS one WITH NO DATA;

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $f$ BEGIN NEW.spent := NEW.spent; RETURN NEW; END $f$;
CREATE FUNCTION total(VARIADIC int[] DEFAULT '{1}', OUT s bigint, OUT "T" text) LANGUAGE sql STABLE SECURITY DEFINER
  AS $$ SELECT count(*), 'x' FROM public.payments $$;
CREATE PROCEDURE run_it(INOUT x int) LANGUAGE plpgsql AS $$ BEGIN x := x + 1; END $$;
CREATE FUNCTION small(x int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT x < 10 $$;
CREATE AGGREGATE mysum (numeric) (sfunc = numeric_add, stype = numeric, initcond = '0');
CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS $$ SELECT ROW($1, '')::public.pair $$;
CREATE CAST (int AS pair) WITH FUNCTION to_pair(int) AS ASSIGNMENT;
CREATE TRIGGER t_off BEFORE UPDATE OF amount, status ON payments FOR EACH ROW WHEN (OLD.amount IS DISTINCT FROM NEW.amount) EXECUTE FUNCTION touch();
CREATE TRIGGER t_always BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE payments DISABLE TRIGGER t_off; ALTER TABLE payments ENABLE ALWAYS TRIGGER t_always;
CREATE FUNCTION nop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON payments DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nop();
CREATE TRIGGER on_parts AFTER INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION nop();
ALTER TABLE ledger_2022 DISABLE TRIGGER on_parts;
CREATE RULE forget AS ON DELETE TO customers DO INSTEAD NOTHING;
ALTER TABLE payments ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON payments FOR SELECT TO {app}, PUBLIC USING (status IN ('paid', 'new') AND amount > 0);
CREATE POLICY write ON payments AS RESTRICTIVE FOR INSERT TO {app} WITH CHECK (amount < 500);

CREATE SCHEMA "Other Schema";
CREATE TABLE "Other Schema"."T" (x int PRIMARY KEY);
CREATE PUBLICATION out_pub FOR TABLE payments, customers WITH (publish = 'insert,update');
COMMENT ON TABLE payments IS 'money''s here';
COMMENT ON SCHEMA "Other Schema" IS 'other';
COMMENT ON CONSTRAINT positive ON payments IS 'c';
COMMENT ON TRIGGER t_off ON payments IS 't'; COMMENT ON POLICY mine ON payments IS 'p';
COMMENT ON FUNCTION small(int) IS 'f'; COMMENT ON TYPE pair IS 'y'; COMMENT ON INDEX payments_idem IS 'i';
ALTER TABLE customers REPLICA IDENTITY FULL; ALTER TABLE "Other Schema"."T" REPLICA IDENTITY USING INDEX "T_pkey";
SELECT lo_from_bytea(70001, '\xdeadbeef'), lo_from_bytea(70002, '\x00');

GRANT SELECT, INSERT ON payments TO {app}; GRANT UPDATE (amount, status) ON payments TO {app} WITH GRANT OPTION;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {readonly}; REVOKE SELECT ON customers FROM {readonly}; GRANT SELECT (id) ON customers TO {readonly};
REVOKE ALL ON parent FROM {owner};
GRANT USAGE ON SCHEMA "Other Schema" TO {app}; GRANT CREATE ON SCHEMA "Other Schema" TO {migrator};
REVOKE EXECUTE ON FUNCTION total FROM PUBLIC; GRANT EXECUTE ON FUNCTION total TO {app}; GRANT EXECUTE ON PROCEDURE run_it TO PUBLIC;
GRANT USAGE ON SEQUENCE payments_id_seq TO {app}; REVOKE USAGE ON TYPE status FROM PUBLIC; GRANT USAGE ON TYPE status TO {app};
GRANT SELECT ON LARGE OBJECT 70001 TO {app};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA "Other Schema" GRANT SELECT ON TABLES TO {readonly} WITH GRANT OPTION;
"""

SUPERUSER = r"""
CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION no_ddl();
ALTER EVENT TRIGGER guard DISABLE;
GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {app};
REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC;
CREATE FOREIGN DATA WRAPPER fw OPTIONS (debug 'true'); CREATE SERVER fs FOREIGN DATA WRAPPER fw OPTIONS (host 'h');
CREATE USER MAPPING FOR {app} SERVER fs OPTIONS (password 'secret in a mapping');
GRANT USAGE ON FOREIGN SERVER fs TO {app};
CREATE FOREIGN TABLE far (x int OPTIONS (n 'v')) SERVER fs OPTIONS (t 'u');
ALTER TABLE "Other Schema"."T" OWNER TO {migrator};
CREATE PUBLICATION all_pub FOR ALL TABLES WITH (publish = 'insert');
"""

SINCE_14 = """
CREATE FUNCTION parsed(x int) RETURNS bool LANGUAGE sql IMMUTABLE RETURN x < 10;
"""
SINCE_15 = """
CREATE TABLE nulls (a int, UNIQUE NULLS NOT DISTINCT (a));
ALTER PUBLICATION out_pub ADD TABLE ledger_line (n, id) WHERE (n > 3);
CREATE VIEW invoker WITH (security_invoker = true) AS SELECT 1 AS x;
"""
SINCE_18 = """
CREATE TABLE modern (a int NOT NULL, v int GENERATED ALWAYS AS (a * 2) VIRTUAL, CONSTRAINT own_name NOT NULL v0, v0 int,
  b int, CONSTRAINT soft CHECK (b > 0) NOT ENFORCED);
INSERT INTO modern (a, v0) VALUES (1, 2);
ALTER TABLE modern ADD CONSTRAINT b_there NOT NULL b NOT VALID;
"""


def create(cluster: t.Any, name: str, roles: t.Any, superuser: bool = True) -> None:
    """Fill the database ``name`` of the lab's ``cluster``; everything is owned by ``roles.owner``."""
    quoted = {kind: '"' + getattr(roles, kind).name.replace('"', '""') + '"' for kind in ("owner", "app", "migrator", "readonly")}

    def run(text: str, **login: str) -> None:
        for kind, role in quoted.items():
            text = text.replace("{" + kind + "}", role)
        cluster.sql(text, dbname=name, **login)

    run(PLAIN, **roles.owner.login())
    if cluster.major >= 14:
        run(SINCE_14, **roles.owner.login())
    if cluster.major >= 15:
        run(SINCE_15, **roles.owner.login())
    if cluster.major >= 18:
        run(SINCE_18, **roles.owner.login())
    if superuser:
        run(SUPERUSER)
    # Half-built, as a failed CREATE INDEX CONCURRENTLY leaves it.
    cluster.sql("CREATE INDEX half_built ON b_loop (a)", dbname=name, **roles.owner.login())
    cluster.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half_built'::regclass", dbname=name)
