# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The objects of a database as comparable lines: owners, privileges, constraints, indexes, functions, policies, ...

Texts that a dump and restore rewrites in harmless ways (CHECK expressions, partial index predicates, view bodies) are
left out; that the objects exist, whose they are and whether they are in force is in.
"""

from __future__ import annotations

import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session

_SCHEMA = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"


def _own(catalogue: str, oid: str) -> str:
    """Not a member of an extension (those come with CREATE EXTENSION)."""
    return (
        "NOT EXISTS (SELECT FROM pg_catalog.pg_depend x"
        f" WHERE x.classid = 'pg_catalog.{catalogue}'::pg_catalog.regclass AND x.objid = {oid} AND x.deptype = 'e')"
    )


def _acl(column: str, kind: str, owner: str) -> str:
    """Privileges in one order, the built-in default spelled out: NULL and the default mean the same."""
    return (
        "(SELECT string_agg(coalesce(g.rolname, 'PUBLIC') || '=' || a.privilege_type"
        " || CASE WHEN a.is_grantable THEN '*' ELSE '' END || '/' || b.rolname, ','"
        ' ORDER BY g.rolname COLLATE "C", a.privilege_type COLLATE "C", b.rolname COLLATE "C")'
        f" FROM pg_catalog.aclexplode(coalesce({column}, pg_catalog.acldefault({kind}, {owner}))) a"
        " LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee LEFT JOIN pg_catalog.pg_roles b ON b.oid = a.grantor)"
    )


def _role(oid: str) -> str:
    return f"pg_catalog.pg_get_userbyid({oid})"


_RELATION_KIND = "CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END"

_RELATIONS = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       concat_ws(' ', 'kind', c.relkind, 'owner', {_role("c.relowner")}, 'persistence', c.relpersistence,
                 'rls', c.relrowsecurity, c.relforcerowsecurity, 'options', c.reloptions::text,
                 'acl', {_acl("c.relacl", _RELATION_KIND, "c.relowner")},
                 'comment', obj_description(c.oid, 'pg_class'))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
   AND {_SCHEMA} AND {_own("pg_class", "c.oid")}
"""

_COLUMNS = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), 'notnull', a.attnotnull, 'default', a.atthasdef,
                 'identity', a.attidentity, 'generated', a.attgenerated,
                 'collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END,
                 'acl', CASE WHEN a.attacl IS NOT NULL THEN {_acl("a.attacl", "'c'", "c.relowner")} END,
                 'comment', col_description(c.oid, a.attnum))
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
   AND {_SCHEMA} AND {_own("pg_class", "c.oid")}
"""

_CONSTRAINTS = f"""
SELECT coalesce(quote_ident(n.nspname) || '.' || quote_ident(coalesce(c.relname, y.typname)), '-')
       || '.' || quote_ident(o.conname),
       concat_ws(' ', o.contype, 'validated', o.convalidated, 'deferrable', o.condeferrable, o.condeferred,
                 CASE WHEN o.contype IN ('p', 'u', 'f') THEN pg_get_constraintdef(o.oid) END)
  FROM pg_catalog.pg_constraint o
  LEFT JOIN pg_catalog.pg_class c ON c.oid = o.conrelid LEFT JOIN pg_catalog.pg_type y ON y.oid = o.contypid
  JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace
 WHERE {_SCHEMA} AND o.contype IN ('p', 'u', 'f', 'c', 'x', 't') AND coalesce(c.relpersistence, 'p') <> 't'
   AND {_own("pg_class", "o.conrelid")} AND {_own("pg_type", "o.contypid")}
"""

_INDEXES = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       concat_ws(' ', 'on', i.indrelid::regclass::text, 'unique', i.indisunique, 'primary', i.indisprimary,
                 'valid', i.indisvalid, i.indisready, 'columns', i.indnkeyatts, i.indnatts, 'method', m.amname,
                 'partial', i.indpred IS NOT NULL, 'identity', i.indisreplident, 'cluster', i.indisclustered)
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am m ON m.oid = c.relam
 WHERE {_SCHEMA} AND c.relpersistence <> 't' AND {_own("pg_class", "i.indrelid")}
"""

_FUNCTIONS = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname)
       || '(' || pg_get_function_identity_arguments(p.oid) || ')',
       concat_ws(' ', p.prokind, 'owner', {_role("p.proowner")}, 'language', l.lanname,
                 p.provolatile, p.proparallel, p.prosecdef, p.proleakproof, p.proisstrict,
                 'settings', p.proconfig::text, 'returns', p.prorettype::regtype::text,
                 'source', encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'),
                 'acl', {_acl("p.proacl", "'f'", "p.proowner")},
                 'comment', obj_description(p.oid, 'pg_proc'))
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE {_SCHEMA} AND {_own("pg_proc", "p.oid")}
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend i WHERE i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND i.objid = p.oid AND i.deptype = 'i')
"""

_TYPES = f"""
SELECT quote_ident(n.nspname) || '.' || quote_ident(y.typname),
       concat_ws(' ', y.typtype, 'owner', {_role("y.typowner")}, 'notnull', y.typnotnull,
                 'base', CASE WHEN y.typbasetype <> 0 THEN format_type(y.typbasetype, y.typtypmod) END,
                 'labels', (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)
                              FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid),
                 'acl', {_acl("y.typacl", "'T'", "y.typowner")}, 'comment', obj_description(y.oid, 'pg_type'))
  FROM pg_catalog.pg_type y JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
 WHERE {_SCHEMA} AND {_own("pg_type", "y.oid")} AND y.typelem = 0 AND y.typtype IN ('b', 'd', 'e', 'r', 'c')
   AND (y.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = y.typrelid AND c.relkind = 'c'))
"""

_TRIGGERS = f"""
SELECT g.tgrelid::regclass::text || '.' || quote_ident(g.tgname),
       concat_ws(' ', 'enabled', g.tgenabled, 'type', g.tgtype, 'calls', g.tgfoid::regprocedure::text)
  FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT g.tgisinternal AND {_SCHEMA} AND {_own("pg_class", "c.oid")}
"""

_POLICIES = """
SELECT p.polrelid::regclass::text || '.' || quote_ident(p.polname),
       concat_ws(' ', p.polcmd, 'permissive', p.polpermissive,
                 (SELECT string_agg(coalesce(r.rolname, 'PUBLIC'), ',' ORDER BY r.rolname)
                    FROM unnest(p.polroles) o LEFT JOIN pg_catalog.pg_roles r ON r.oid = o))
  FROM pg_catalog.pg_policy p
"""

_RULES = f"""
SELECT r.ev_class::regclass::text || '.' || quote_ident(r.rulename),
       concat_ws(' ', r.ev_type, r.ev_enabled, r.is_instead)
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE r.rulename <> '_RETURN' AND {_SCHEMA} AND {_own("pg_class", "c.oid")}
"""

_SCHEMAS = f"""
SELECT quote_ident(n.nspname),
       concat_ws(' ', 'owner', {_role("n.nspowner")}, 'acl', {_acl("n.nspacl", "'n'", "n.nspowner")},
                 'comment', obj_description(n.oid, 'pg_namespace'))
  FROM pg_catalog.pg_namespace n WHERE {_SCHEMA} AND {_own("pg_namespace", "n.oid")}
"""

_EXTENSIONS = """
SELECT quote_ident(e.extname), concat_ws(' ', 'version', e.extversion, 'schema', e.extnamespace::regnamespace::text)
  FROM pg_catalog.pg_extension e
"""

_OTHERS = f"""
SELECT 'event trigger ' || quote_ident(evtname),
       concat_ws(' ', evtevent, evtenabled, 'owner', {_role("evtowner")}, evtfoid::regprocedure::text)
  FROM pg_catalog.pg_event_trigger
UNION ALL
SELECT 'publication ' || quote_ident(pubname),
       concat_ws(' ', 'owner', {_role("pubowner")}, puballtables, pubinsert, pubupdate, pubdelete,
                 pubtruncate, pubviaroot)
  FROM pg_catalog.pg_publication
UNION ALL
SELECT 'default privileges ' || {_role("d.defaclrole")} || ' ' || coalesce(quote_ident(n.nspname), '*')
       || ' ' || d.defaclobjtype::text,
       {_acl("d.defaclacl", "d.defaclobjtype", "d.defaclrole")}
  FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
UNION ALL
SELECT 'statistics ' || quote_ident(n.nspname) || '.' || quote_ident(x.stxname),
       concat_ws(' ', 'owner', {_role("x.stxowner")}, x.stxrelid::regclass::text)
  FROM pg_catalog.pg_statistic_ext x JOIN pg_catalog.pg_namespace n ON n.oid = x.stxnamespace WHERE {_SCHEMA}
UNION ALL
SELECT 'foreign server ' || quote_ident(s.srvname),
       concat_ws(' ', 'owner', {_role("s.srvowner")}, 'acl', {_acl("s.srvacl", "'S'", "s.srvowner")})
  FROM pg_catalog.pg_foreign_server s
UNION ALL
SELECT 'inherits ' || i.inhrelid::regclass::text, i.inhparent::regclass::text
  FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
UNION ALL
SELECT 'cast ' || format_type(c.castsource, NULL) || ' to ' || format_type(c.casttarget, NULL),
       concat_ws(' ', c.castcontext, c.castmethod)
  FROM pg_catalog.pg_cast c WHERE c.oid >= 16384 AND {_own("pg_cast", "c.oid")}
UNION ALL
SELECT 'operator ' || o.oid::regoperator::text,
       concat_ws(' ', 'owner', {_role("o.oprowner")}, o.oprcode::regprocedure::text)
  FROM pg_catalog.pg_operator o WHERE o.oid >= 16384 AND {_own("pg_operator", "o.oid")}
UNION ALL
SELECT 'collation ' || quote_ident(n.nspname) || '.' || quote_ident(c.collname),
       concat_ws(' ', 'owner', {_role("c.collowner")}, c.collprovider, c.collisdeterministic)
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
 WHERE {_SCHEMA} AND {_own("pg_collation", "c.oid")}
"""

CATEGORIES: dict[str, str] = {
    "schemas": _SCHEMAS,
    "extensions": _EXTENSIONS,
    "relations": _RELATIONS,
    "columns": _COLUMNS,
    "constraints": _CONSTRAINTS,
    "indexes": _INDEXES,
    "functions": _FUNCTIONS,
    "types": _TYPES,
    "triggers": _TRIGGERS,
    "policies": _POLICIES,
    "rules": _RULES,
    "others": _OTHERS,
}


def read_catalogue(session: Session) -> dict[str, list[str]]:
    """Every category's objects, one line each, sorted."""
    return {
        name: sorted(f"{identity}: {facts}" for identity, facts in session.query(sql))
        for name, sql in CATEGORIES.items()
    }


def counts(catalogue: t.Mapping[str, t.Sequence[str]]) -> dict[str, int]:
    return {name: len(lines) for name, lines in catalogue.items()}
