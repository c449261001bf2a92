# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The queries behind ``_catalogue.read``: one per section, for PostgreSQL 13 and newer.

Each gives ``name`` (text, or an array of parts to be qualified), optionally ``signature``, ``grants`` (an ACL as
text[]) and attributes. They run with an empty search_path, so every name inside a definition is schema-qualified.
Members of extensions are left out: CREATE EXTENSION makes them. Names that PostgreSQL invents (foreign keys of
partitions, inherited NOT NULL) are left out, too: a restore invents others.
"""

from __future__ import annotations

USER = r"n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"


def _own(catalogue: str, alias: str, kinds: str = "'e'") -> str:
    """Not a member of an extension."""
    return f"NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalogue}'::regclass AND e.objid = {alias}.oid AND e.deptype IN ({kinds}))"


RELATION = f"""
SELECT ARRAY[n.nspname, c.relname]::text[] AS name,
  CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
    WHEN 'f' THEN 'foreign table' ELSE 'sequence' END AS kind,
  pg_get_userbyid(c.relowner)::text AS owner,
  coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))::text[] AS grants,
  CASE c.relpersistence WHEN 'u' THEN 'unlogged' END AS persistence,
  nullif(c.relrowsecurity, false) AS row_security, nullif(c.relforcerowsecurity, false) AS force_row_security,
  CASE WHEN c.relkind IN ('r', 'p', 'm') THEN c.relreplident::text END AS replica_identity,
  (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) o) AS options,
  (SELECT array_agg(o ORDER BY o) FROM unnest(toast.reloptions) o) AS toast_options,
  am.amname::text AS access_method, ts.spcname::text AS tablespace,
  pg_get_partkeydef(c.oid) AS partition_key, pg_get_expr(c.relpartbound, c.oid) AS partition_bound,
  (SELECT array_agg(i.inhparent::regclass::text ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
  CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype::text END AS of_type,
  CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS definition,
  CASE WHEN c.relkind = 'm' THEN c.relispopulated END AS populated,
  CASE WHEN c.relkind <> 'S' AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) THEN
    (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
  END AS column_order,
  fs.srvname::text AS foreign_server, ft.ftoptions AS foreign_options,
  format_type(s.seqtypid, NULL) AS data_type, s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum,
  s.seqcache AS cache, s.seqcycle AS cycle,
  (SELECT d.refobjid::regclass::text || '.' || quote_ident(a.attname) FROM pg_depend d
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
      AND d.deptype IN ('a', 'i')) AS owned_by,
  obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
LEFT JOIN pg_am am ON am.oid = c.relam AND c.relkind IN ('r', 'm')
LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
LEFT JOIN pg_foreign_table ft ON ft.ftrelid = c.oid LEFT JOIN pg_foreign_server fs ON fs.oid = ft.ftserver
LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {USER} AND {_own("pg_class", "c")}"""

COLUMN = f"""
SELECT ARRAY[n.nspname, c.relname, a.attname]::text[] AS name,
  format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
  CASE WHEN a.attgenerated = '' THEN pg_get_expr(ad.adbin, ad.adrelid) END AS "default",
  CASE WHEN a.attgenerated <> '' THEN pg_get_expr(ad.adbin, ad.adrelid) END AS generated_as,
  nullif(a.attgenerated::text, '') AS generated, nullif(a.attidentity::text, '') AS identity,
  CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END AS collation,
  CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END AS storage, {{compression}}
  nullif(a.attstattarget, -1) AS statistics,
  (SELECT array_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o !~ '^pg_') AS options, a.attfdwoptions AS foreign_options,
  a.attacl::text[] AS grants, col_description(c.oid, a.attnum) AS comment
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'
  AND {USER} AND {_own("pg_class", "c")}"""

CONSTRAINT = """
SELECT CASE WHEN c.oid IS NULL THEN ARRAY[tn.nspname, ty.typname, k.conname] ELSE ARRAY[n.nspname, c.relname, k.conname] END::text[] AS name,
  pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated, nullif(k.condeferrable, false) AS deferrable,
  nullif(k.condeferred, false) AS deferred, {enforced} obj_description(k.oid, 'pg_constraint') AS comment
FROM pg_constraint k
LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_type ty ON ty.oid = k.contypid LEFT JOIN pg_namespace tn ON tn.oid = ty.typnamespace
WHERE NOT (k.contype = 'f' AND k.conparentid <> 0) AND k.contype <> 't'
  AND NOT (k.contype = 'n' AND (c.oid IS NULL OR NOT k.conislocal))
  AND coalesce(n.nspname, tn.nspname) !~ '^pg_' AND coalesce(n.nspname, tn.nspname) <> 'information_schema'
  AND coalesce(c.relpersistence, 'p') <> 't'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e' AND ((e.classid = 'pg_class'::regclass AND e.objid = c.oid)
    OR (e.classid = 'pg_type'::regclass AND e.objid = ty.oid)))"""

INDEX = f"""
SELECT ARRAY[n.nspname, ic.relname]::text[] AS name, i.indrelid::regclass::text AS "table", pg_get_indexdef(i.indexrelid) AS definition,
  (i.indisvalid AND i.indisready) AS valid, nullif(ic.relkind = 'I', false) AS partitioned, nullif(i.indisclustered, false) AS clustered,
  nullif(i.indisreplident, false) AS replica_identity, ts.spcname::text AS tablespace,
  (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = ic.oid) AS parent,
  obj_description(ic.oid, 'pg_class') AS comment
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = ic.relnamespace LEFT JOIN pg_tablespace ts ON ts.oid = ic.reltablespace
WHERE {USER} AND c.relpersistence <> 't' AND {_own("pg_class", "c")}"""

FUNCTION = f"""
SELECT ARRAY[n.nspname, p.proname]::text[] AS name, '(' || pg_get_function_identity_arguments(p.oid) || ')' AS signature,
  pg_get_userbyid(p.proowner)::text AS owner, coalesce(p.proacl, acldefault('f', p.proowner))::text[] AS grants,
  CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END AS definition,
  CASE WHEN p.prokind = 'a' THEN (SELECT concat_ws(' ', a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
      a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn, a.aggfinalextra, a.aggfinalmodify, a.aggsortop::regoper,
      a.aggtranstype::regtype, a.agginitval, p.proparallel) FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END AS aggregate,
  obj_description(p.oid, 'pg_proc') AS comment
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {USER} AND {_own("pg_proc", "p", "'e', 'i'")}"""

TYPE = f"""
SELECT ARRAY[n.nspname, t.typname]::text[] AS name, pg_get_userbyid(t.typowner)::text AS owner,
  coalesce(t.typacl, acldefault('T', t.typowner))::text[] AS grants,
  CASE t.typtype WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum' WHEN 'c' THEN 'composite' WHEN 'r' THEN 'range' ELSE t.typtype::text END AS kind,
  CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END AS base, nullif(t.typnotnull, false) AS not_null,
  CASE WHEN t.typtype = 'd' THEN t.typdefault END AS "default",
  CASE WHEN t.typtype = 'd' AND t.typcollation <> 0 THEN t.typcollation::regcollation::text END AS collation,
  (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels,
  CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END AS column_order,
  (SELECT concat_ws(' ', r.rngsubtype::regtype, r.rngcollation::regcollation, r.rngcanonical, r.rngsubdiff,
    (SELECT o.opcname FROM pg_opclass o WHERE o.oid = r.rngsubopc)) FROM pg_range r WHERE r.rngtypid = t.oid) AS range_of,
  CASE WHEN t.typtype = 'b' THEN concat_ws(' ', t.typinput, t.typoutput, t.typlen, t.typalign, t.typstorage) END AS functions,
  obj_description(t.oid, 'pg_type') AS comment
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE {USER} AND t.typtype <> 'p' AND t.typtype <> 'm' AND (t.typrelid = 0 OR c.relkind = 'c')
  AND NOT EXISTS (SELECT FROM pg_type el WHERE el.typarray = t.oid) AND {_own("pg_type", "t")}"""

TRIGGER = f"""
SELECT ARRAY[n.nspname, c.relname, t.tgname]::text[] AS name, pg_get_triggerdef(t.oid) AS definition, t.tgenabled::text AS enabled,
  obj_description(t.oid, 'pg_trigger') AS comment
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND c.relpersistence <> 't' AND {USER} AND {_own("pg_trigger", "t")}"""

RULE = f"""
SELECT ARRAY[n.nspname, c.relname, r.rulename]::text[] AS name, pg_get_ruledef(r.oid) AS definition, r.ev_enabled::text AS enabled
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {USER} AND {_own("pg_class", "c")}"""

POLICY = f"""
SELECT ARRAY[n.nspname, c.relname, p.polname]::text[] AS name, p.polcmd::text AS command, p.polpermissive AS permissive,
  (SELECT array_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r)::text END) FROM unnest(p.polroles) r) AS roles,
  pg_get_expr(p.polqual, p.polrelid) AS using_expression, pg_get_expr(p.polwithcheck, p.polrelid) AS check_expression,
  obj_description(p.oid, 'pg_policy') AS comment
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {USER} AND {_own("pg_class", "c")}"""

SCHEMA = f"""
SELECT ARRAY[n.nspname]::text[] AS name, pg_get_userbyid(n.nspowner)::text AS owner,
  coalesce(n.nspacl, acldefault('n', n.nspowner))::text[] AS grants, obj_description(n.oid, 'pg_namespace') AS comment
FROM pg_namespace n WHERE {USER} AND {_own("pg_namespace", "n")}"""

EXTENSION = """
SELECT ARRAY[e.extname]::text[] AS name, e.extversion AS version, n.nspname::text AS schema, obj_description(e.oid, 'pg_extension') AS comment
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"""

DEFAULT_PRIVILEGES = """
SELECT pg_get_userbyid(d.defaclrole)::text || CASE WHEN d.defaclnamespace = 0 THEN '' ELSE ' in schema ' || n.nspname END || ' on ' ||
  CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
    WHEN 'n' THEN 'schemas' WHEN 'L' THEN 'large objects' ELSE d.defaclobjtype::text END AS name,
  d.defaclacl::text[] AS grants, true AS "set"
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
WHERE NOT (d.defaclnamespace = 0
  AND d.defaclacl::text = acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole)::text)"""

EVENT_TRIGGER = f"""
SELECT ARRAY[t.evtname]::text[] AS name, t.evtevent::text AS event, pg_get_userbyid(t.evtowner)::text AS owner,
  t.evtfoid::regproc::text AS function, t.evtenabled::text AS enabled, t.evttags AS tags, obj_description(t.oid, 'pg_event_trigger') AS comment
FROM pg_event_trigger t WHERE {_own("pg_event_trigger", "t")}"""

PUBLICATION = """
SELECT ARRAY[p.pubname]::text[] AS name, pg_get_userbyid(p.pubowner)::text AS owner,
  (to_jsonb(p) - 'oid' - 'pubname' - 'pubowner')::text AS options, {tables}
  obj_description(p.oid, 'pg_publication') AS comment
FROM pg_publication p"""
PUBLICATION_TABLES = {
    13: "(SELECT array_agg(r.prrelid::regclass::text) FROM pg_publication_rel r WHERE r.prpubid = p.oid) AS tables,",
    15: "(SELECT array_agg(concat_ws(' ', r.prrelid::regclass, (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute a "
    "WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)), pg_get_expr(r.prqual, r.prrelid))) "
    "FROM pg_publication_rel r WHERE r.prpubid = p.oid) AS tables, "
    "(SELECT array_agg(r.pnnspid::regnamespace::text) FROM pg_publication_namespace r WHERE r.pnpubid = p.oid) AS schemas,",
}

STATISTICS = f"""
SELECT ARRAY[n.nspname, s.stxname]::text[] AS name, pg_get_statisticsobjdef(s.oid) AS definition,
  pg_get_userbyid(s.stxowner)::text AS owner, nullif(s.stxstattarget, -1) AS target, obj_description(s.oid, 'pg_statistic_ext') AS comment
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {USER} AND {_own("pg_statistic_ext", "s")}"""

LANGUAGE = f"""
SELECT ARRAY[l.lanname]::text[] AS name, pg_get_userbyid(l.lanowner)::text AS owner, l.lanpltrusted AS trusted,
  coalesce(l.lanacl, acldefault('l', l.lanowner))::text[] AS grants
FROM pg_language l WHERE l.oid >= 16384 AND {_own("pg_language", "l")}"""

FOREIGN_DATA_WRAPPER = f"""
SELECT ARRAY[f.fdwname]::text[] AS name, pg_get_userbyid(f.fdwowner)::text AS owner,
  coalesce(f.fdwacl, acldefault('F', f.fdwowner))::text[] AS grants, f.fdwoptions AS options
FROM pg_foreign_data_wrapper f WHERE {_own("pg_foreign_data_wrapper", "f")}"""

FOREIGN_SERVER = f"""
SELECT ARRAY[s.srvname]::text[] AS name, pg_get_userbyid(s.srvowner)::text AS owner, f.fdwname::text AS wrapper, s.srvtype AS type,
  s.srvversion AS version, coalesce(s.srvacl, acldefault('S', s.srvowner))::text[] AS grants, s.srvoptions AS options
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = s.srvfdw WHERE {_own("pg_foreign_server", "s")}"""

# Their options hold passwords and are left out.
USER_MAPPING = "SELECT ARRAY[srvname, usename]::text[] AS name, true AS present FROM pg_user_mappings"

OPERATOR = f"""
SELECT ARRAY[n.nspname, o.oprname]::text[] AS name, '(' || format_type(o.oprleft, NULL) || ', ' || format_type(o.oprright, NULL) || ')' AS signature,
  pg_get_userbyid(o.oprowner)::text AS owner, o.oprcode::regprocedure::text AS function, o.oprresult::regtype::text AS result
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE {USER} AND {_own("pg_operator", "o")}"""

OPERATOR_CLASS = f"""
SELECT ARRAY[n.nspname, o.opcname]::text[] AS name, ' using ' || a.amname AS signature, pg_get_userbyid(o.opcowner)::text AS owner,
  o.opcintype::regtype::text AS type, o.opcdefault AS is_default
FROM pg_opclass o JOIN pg_am a ON a.oid = o.opcmethod JOIN pg_namespace n ON n.oid = o.opcnamespace WHERE {USER} AND {_own("pg_opclass", "o")}"""

CAST = f"""
SELECT format_type(c.castsource, NULL) || ' as ' || format_type(c.casttarget, NULL) AS name, c.castcontext::text AS context, c.castmethod::text AS method,
  CASE WHEN c.castfunc <> 0 THEN c.castfunc::regprocedure::text END AS function
FROM pg_cast c WHERE c.oid >= 16384 AND {_own("pg_cast", "c")}"""

COLLATION = f"""
SELECT ARRAY[n.nspname, c.collname]::text[] AS name, pg_get_userbyid(c.collowner)::text AS owner,
  (to_jsonb(c) - 'oid' - 'collname' - 'collnamespace' - 'collowner' - 'collversion')::text AS options
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE {USER} AND {_own("pg_collation", "c")}"""

TEXT_SEARCH = " UNION ALL ".join(
    f"SELECT ARRAY[n.nspname, x.{letter}name]::text[] AS name, ' ({what})' AS signature, {owner} AS owner, {options} AS options "
    f"FROM {table} x JOIN pg_namespace n ON n.oid = x.{letter}namespace WHERE {USER} AND {_own(table, 'x')}"
    for table, letter, what, owner, options in (
        ("pg_ts_config", "cfg", "configuration", "pg_get_userbyid(x.cfgowner)::text", "NULL"),
        ("pg_ts_dict", "dict", "dictionary", "pg_get_userbyid(x.dictowner)::text", "x.dictinitoption"),
        ("pg_ts_parser", "prs", "parser", "NULL", "NULL"),
        ("pg_ts_template", "tmpl", "template", "NULL", "NULL"),
    )
)

SECURITY_LABEL = """
SELECT objtype || ' ' || objname || ' by ' || provider AS name, label
FROM pg_seclabels WHERE objtype NOT IN ('role', 'database', 'tablespace', 'subscription')"""

# What was changed on objects of the system and of extensions: section, name, ACL now, ACL as made.
SYSTEM_ACL = " UNION ALL ".join(
    f"SELECT '{what}', {name}, coalesce({acl}, {default})::text[], coalesce(ip.initprivs, {default})::text[] FROM {source} "
    f"LEFT JOIN pg_init_privs ip ON ip.classoid = '{table}'::regclass AND ip.objoid = {oid} AND ip.objsubid = {sub} "
    f"WHERE {acl} IS DISTINCT FROM ip.initprivs AND {more} "
    f"AND ({oid} < 16384 OR EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{table}'::regclass AND e.objid = {oid} AND e.deptype = 'e'))"
    for what, table, source, oid, sub, name, acl, default, more in (
        (
            "relation",
            "pg_class",
            "pg_class c",
            "c.oid",
            "0",
            "c.oid::regclass::text",
            "c.relacl",
            "acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)",
            "c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relnamespace <> 'pg_toast'::regnamespace",
        ),
        (
            "column",
            "pg_class",
            "pg_attribute a JOIN pg_class c ON c.oid = a.attrelid",
            "c.oid",
            "a.attnum",
            "c.oid::regclass::text || '.' || quote_ident(a.attname)",
            "a.attacl",
            "acldefault('c', c.relowner)",
            "NOT a.attisdropped",
        ),
        ("function", "pg_proc", "pg_proc p", "p.oid", "0", "p.oid::regprocedure::text", "p.proacl", "acldefault('f', p.proowner)", "true"),
        ("type", "pg_type", "pg_type t", "t.oid", "0", "t.oid::regtype::text", "t.typacl", "acldefault('T', t.typowner)", "true"),
        ("language", "pg_language", "pg_language l", "l.oid", "0", "l.lanname::text", "l.lanacl", "acldefault('l', l.lanowner)", "true"),
        (
            "schema",
            "pg_namespace",
            "pg_namespace n",
            "n.oid",
            "0",
            "n.nspname::text",
            "n.nspacl",
            "acldefault('n', n.nspowner)",
            "n.nspname NOT IN ('public', 'pg_toast')",
        ),
    )
)

# Millions of large objects have few distinct owners and ACLs: count them by those, with a sum over their numbers.
LARGE_OBJECTS = """
SELECT pg_get_userbyid(lomowner)::text, coalesce(lomacl, acldefault('L', lomowner))::text[], count(*), sum(hashint8extended(oid::bigint, 0)::numeric)
FROM pg_largeobject_metadata GROUP BY lomowner, lomacl"""


def queries(version: int) -> list[tuple[str, str]]:
    """``(section, query)`` for a server of ``version`` (server_version_num)."""
    column = COLUMN.replace("{compression}", "nullif(a.attcompression::text, '') AS compression," if version >= 140000 else "")
    constraint = CONSTRAINT.replace("{enforced}", "k.conenforced AS enforced," if version >= 180000 else "")
    publication = PUBLICATION.replace("{tables}", PUBLICATION_TABLES[15 if version >= 150000 else 13])
    return [
        ("schema", SCHEMA),
        ("extension", EXTENSION),
        ("relation", RELATION),
        ("column", column),
        ("constraint", constraint),
        ("index", INDEX),
        ("function", FUNCTION),
        ("type", TYPE),
        ("trigger", TRIGGER),
        ("rule", RULE),
        ("policy", POLICY),
        ("event trigger", EVENT_TRIGGER),
        ("publication", publication),
        ("default privileges of", DEFAULT_PRIVILEGES),
        ("extended statistics", STATISTICS),
        ("language", LANGUAGE),
        ("foreign data wrapper", FOREIGN_DATA_WRAPPER),
        ("foreign server", FOREIGN_SERVER),
        ("user mapping", USER_MAPPING),
        ("operator", OPERATOR),
        ("operator class", OPERATOR_CLASS),
        ("cast", CAST),
        ("collation", COLLATION),
        ("text search", TEXT_SEARCH),
        ("security label", SECURITY_LABEL),
    ]


def properties(version: int) -> str:
    """One row of what belongs to a database itself; takes its name."""
    if version >= 170000:
        locale = (
            "d.datlocprovider::text AS provider, d.datlocale AS locale, d.daticurules AS icu_rules, d.datcollversion AS collation_version"
        )
    elif version >= 160000:
        locale = "d.datlocprovider::text AS provider, d.daticulocale AS locale, d.daticurules AS icu_rules, d.datcollversion AS collation_version"
    elif version >= 150000:
        locale = "d.datlocprovider::text AS provider, d.daticulocale AS locale, NULL AS icu_rules, d.datcollversion AS collation_version"
    else:
        locale = "'c' AS provider, NULL AS locale, NULL AS icu_rules, NULL AS collation_version"
    return f"""
SELECT d.oid::bigint AS oid, pg_get_userbyid(d.datdba)::text AS owner, pg_encoding_to_char(d.encoding)::text AS encoding,
  d.datcollate::text AS "collate", d.datctype::text AS ctype, {locale}, d.datconnlimit AS connection_limit, ts.spcname::text AS tablespace,
  d.datallowconn AS allow_connections, d.datistemplate AS is_template,
  coalesce(d.datacl, acldefault('d', d.datdba))::text[] AS grants, shobj_description(d.oid, 'pg_database') AS comment
FROM pg_database d JOIN pg_tablespace ts ON ts.oid = d.dattablespace WHERE d.datname = %s"""
