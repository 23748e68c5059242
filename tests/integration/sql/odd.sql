-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- A database of odd things, for PostgreSQL 15 to 18. Run by psql as superuser in an empty database, after
-- odd_roles.sql. All of it survives pg_dump and pg_restore --exit-on-error. With `-v portable=on` it leaves out what
-- only some builds of PostgreSQL can hold: XML and ICU.

\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET search_path = '';

SELECT current_setting('server_version_num')::integer >= 160000 AS pg16,
       current_setting('server_version_num')::integer >= 170000 AS pg17,
       current_setting('server_version_num')::integer >= 180000 AS pg18 \gset

DO $$
BEGIN
  PERFORM '<a/>'::pg_catalog.xml;
  PERFORM pg_catalog.set_config('odd.xml', 'true', false);
EXCEPTION WHEN feature_not_supported THEN
  PERFORM pg_catalog.set_config('odd.xml', 'false', false);
END
$$;
SELECT current_setting('odd.xml') AS has_xml \gset
\if :{?portable}
\set has_xml false
\endif

---------------------------------------------------------------------------------------------------------------------
-- schemas

CREATE SCHEMA types;
CREATE SCHEMA "odd names" AUTHORIZATION "odd-app";
CREATE SCHEMA "Odd ""q"", comma" AUTHORIZATION "Odd ""Owner""";
CREATE SCHEMA "-- not a comment";
CREATE SCHEMA code;
CREATE SCHEMA parts;
CREATE SCHEMA heirs;
CREATE SCHEMA views;
CREATE SCHEMA rights;
CREATE SCHEMA tools;
CREATE SCHEMA empty_one;
CREATE SCHEMA no_owner_rights AUTHORIZATION "Odd ""Owner""";
COMMENT ON SCHEMA "odd names" IS E'line one\nCOPY x FROM stdin;\n\\.\n-- line four ''quoted'' "twice"';
COMMENT ON SCHEMA public IS 'the public schema, with a comment of our own';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO odd_group;

---------------------------------------------------------------------------------------------------------------------
-- extensions, where contrib has them

SELECT format('CREATE EXTENSION %I SCHEMA tools', name)
  FROM pg_catalog.pg_available_extensions
 WHERE name IN ('hstore', 'ltree', 'citext', 'pg_trgm', 'postgres_fdw', 'btree_gist')
 ORDER BY name
\gexec

SELECT count(*) FILTER (WHERE extname = 'hstore') > 0 AS has_hstore,
       count(*) FILTER (WHERE extname = 'ltree') > 0 AS has_ltree,
       count(*) FILTER (WHERE extname = 'citext') > 0 AS has_citext,
       count(*) FILTER (WHERE extname = 'pg_trgm') > 0 AS has_trgm,
       count(*) FILTER (WHERE extname = 'btree_gist') > 0 AS has_btree_gist,
       count(*) FILTER (WHERE extname = 'postgres_fdw') > 0 AS has_fdw
  FROM pg_catalog.pg_extension \gset

\if :has_hstore
COMMENT ON EXTENSION hstore IS 'a comment of our own';
\endif

---------------------------------------------------------------------------------------------------------------------
-- types

CREATE TYPE types.mood AS ENUM ('sad', 'happy');
ALTER TYPE types.mood ADD VALUE 'so-so' BEFORE 'happy';
ALTER TYPE types.mood ADD VALUE 'it''s "odd" \' AFTER 'sad';
ALTER TYPE types.mood OWNER TO "odd-app";
COMMENT ON TYPE types.mood IS 'an enum with values added in the middle';
REVOKE USAGE ON TYPE types.mood FROM PUBLIC;
GRANT USAGE ON TYPE types.mood TO odd_group WITH GRANT OPTION;

CREATE TYPE types.pair AS (n integer, "Odd name" text COLLATE "C", m types.mood);
COMMENT ON COLUMN types.pair."Odd name" IS 'a comment on an attribute';
CREATE DOMAIN types.port AS integer DEFAULT 5432 CONSTRAINT "in range" CHECK (VALUE BETWEEN 1 AND 65535);
CREATE DOMAIN types.ports AS types.port[] CHECK (cardinality(VALUE) < 10);
CREATE DOMAIN types.spelled AS text COLLATE "POSIX" NOT NULL DEFAULT 'o''dd\';
COMMENT ON DOMAIN types.port IS 'TCP';
COMMENT ON CONSTRAINT "in range" ON DOMAIN types.port IS 'a comment on a domain''s constraint';
CREATE TYPE types.span AS RANGE (subtype = double precision, subtype_diff = float8mi,
                                 multirange_type_name = types."spans of \ %");
CREATE TYPE types.shell;
CREATE TYPE types.nothing AS ();

-- a base type made of integer's own functions, with an operator class
CREATE TYPE types.base;
CREATE FUNCTION types.base_in(cstring) RETURNS types.base LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4in';
CREATE FUNCTION types.base_out(types.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4out';
CREATE TYPE types.base (INPUT = types.base_in, OUTPUT = types.base_out, LIKE = integer, CATEGORY = 'N', DELIMITER = ';');
CREATE FUNCTION types.base_lt(types.base, types.base) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4lt';
CREATE FUNCTION types.base_le(types.base, types.base) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4le';
CREATE FUNCTION types.base_eq(types.base, types.base) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION types.base_ge(types.base, types.base) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4ge';
CREATE FUNCTION types.base_gt(types.base, types.base) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4gt';
CREATE FUNCTION types.base_cmp(types.base, types.base) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE OPERATOR types.< (LEFTARG = types.base, RIGHTARG = types.base, FUNCTION = types.base_lt,
  COMMUTATOR = OPERATOR(types.>), NEGATOR = OPERATOR(types.>=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR types.<= (LEFTARG = types.base, RIGHTARG = types.base, FUNCTION = types.base_le,
  COMMUTATOR = OPERATOR(types.>=), NEGATOR = OPERATOR(types.>));
CREATE OPERATOR types.= (LEFTARG = types.base, RIGHTARG = types.base, FUNCTION = types.base_eq,
  COMMUTATOR = OPERATOR(types.=), MERGES);
CREATE OPERATOR types.>= (LEFTARG = types.base, RIGHTARG = types.base, FUNCTION = types.base_ge,
  COMMUTATOR = OPERATOR(types.<=), NEGATOR = OPERATOR(types.<));
CREATE OPERATOR types.> (LEFTARG = types.base, RIGHTARG = types.base, FUNCTION = types.base_gt,
  COMMUTATOR = OPERATOR(types.<), NEGATOR = OPERATOR(types.<=));
COMMENT ON OPERATOR types.= (types.base, types.base) IS 'as integers';
CREATE OPERATOR FAMILY types.base_family USING btree;
CREATE OPERATOR CLASS types.base_class DEFAULT FOR TYPE types.base USING btree FAMILY types.base_family AS
  OPERATOR 1 types.<, OPERATOR 2 types.<=, OPERATOR 3 types.=, OPERATOR 4 types.>=, OPERATOR 5 types.>,
  FUNCTION 1 types.base_cmp(types.base, types.base);
CREATE OPERATOR CLASS types."Text \ class" FOR TYPE text USING btree AS
  OPERATOR 1 pg_catalog.~<~, OPERATOR 2 pg_catalog.~<=~, OPERATOR 3 pg_catalog.=,
  OPERATOR 4 pg_catalog.~>=~, OPERATOR 5 pg_catalog.~>~, FUNCTION 1 pg_catalog.bttext_pattern_cmp(text, text);
COMMENT ON OPERATOR CLASS types.base_class USING btree IS 'as integers';

CREATE FUNCTION types.mood_number(types.mood) RETURNS integer LANGUAGE sql IMMUTABLE
  AS $$ SELECT array_position(enum_range(NULL::types.mood), $1) $$;
CREATE CAST (types.mood AS integer) WITH FUNCTION types.mood_number(types.mood) AS ASSIGNMENT;
CREATE CAST (types.pair AS text) WITH INOUT;
CREATE CAST (integer AS types.base) WITHOUT FUNCTION;
COMMENT ON CAST (types.mood AS integer) IS 'its position';
CREATE CONVERSION types."odd conversion" FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE COLLATION types."German \ %" FROM "C";
COMMENT ON COLLATION types."German \ %" IS 'not German at all';

CREATE TABLE types.numbers (
  id integer PRIMARY KEY, r real, d double precision, n numeric, n2 numeric(1000, 500), m money, b types.base,
  p types.port, ps types.ports, o oid, x xid, x8 xid8, l pg_lsn, s smallint, i8 bigint
);
INSERT INTO types.numbers (id, r, d, n) VALUES
  (1, 'NaN', 'NaN', 'NaN'), (2, '-0', '-0', '-0.000'), (3, 'Infinity', 'Infinity', 'Infinity'),
  (4, '-Infinity', '-Infinity', '-Infinity'), (5, '1e-45', '5e-324', 1e-400), (6, '1.17549435e-38', '2.2250738585072014e-308', 0),
  (7, '3.4028235e38', '1.7976931348623157e308', 1e400), (8, '0.1', '0.1', 0.10000000000000000000000000000001),
  (9, '-1.4e-45', '2.225073858507201e-308', 1.50), (10, 16777217, 9007199254740993, 1.5), (11, NULL, NULL, NULL);
INSERT INTO types.numbers (id, n2, m, b, p, ps, o, x, x8, l, s, i8) VALUES
  (12, ('1' || repeat('0', 400) || '.' || repeat('7', 500))::numeric, '-92233720368547758.08', '-17', 65535, '{1,NULL,3}',
   4294967295, '4294967295', '18446744073709551615', 'FFFFFFFF/FFFFFFFF', -32768, -9223372036854775808),
  (13, 0, '0.01', '2147483647', 1, '{}', 0, '0', '0', '0/0', 32767, 9223372036854775807);

CREATE TABLE types.texts (
  id integer PRIMARY KEY, t text, v varchar(40), c char(7), n name, one "char", b bytea, bi bit(9), vb varbit(77), s types.spelled,
  rc refcursor
);
INSERT INTO types.texts VALUES
  (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, DEFAULT, NULL),
  (2, '', '', '', '', '', '', B'000000000', B'', '', ''),
  (3, ' ', '  ', '  a ', ' ', ' ', '\x00', B'101010101', B'1', ' ', 'c'),
  (4, '\N', '\N', '\N', '\N', '\', '\x5c4e', B'111111111', B'0', '\N', '\N'),
  (5, '\.', '\.', '\.', '\.', '.', '\x5c2e0a', NULL, NULL, '\.', '\.'),
  (6, E'a\tb\nc\rd\\e\\\\f\bg\fh\vi', E'\r\n', E'\t', E'\n', E'\n', '\x000102ff0a0d09', NULL, NULL, E'\\N\n\\.\n', NULL),
  (7, E'\\.\n', E'\n\\.\n', E'\\', E'\\n', E'\\', '\x', NULL, NULL, E'\\\\', NULL),
  (8, 'NULL', 'null', 'NULL', 'NULL', 'N', 'NULL', NULL, NULL, 'NULL', NULL),
  (9, $q$it's "odd" $$ $1 % \ -- /* ; `x` ${y}$q$, $q$'); DROP TABLE x; --$q$, '"', '''', '''', '\x22', NULL, NULL, '"', '"'),
  (10, U&'\+01F600 \0301 e\0301 \00e9 \200f \feff \+10FFFF', U&'\+01F600', U&'\20ac', U&'\017e', E'\x7f', '\xc3', NULL, NULL, U&'\202e', NULL),
  (11, repeat(E'x\\\t\n', 20000), NULL, NULL, repeat('n', 63), E'\x01', decode(repeat('00ff5c0a', 5000), 'hex'), NULL, NULL, 'z', NULL),
  (12, E'COPY public.x FROM stdin;\n1\t2\n\\.\n\n-- Name: y; Type: TABLE\n', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'z', NULL),
  (13, '{"a,b",(c)}', '{}', '()', '(,)', '(', NULL, NULL, NULL, '{NULL}', NULL),
  (14, E'\u0001\u001f\u007f\u0080\u009f\u00a0\u2028', E'\u0085', NULL, NULL, NULL, NULL, NULL, NULL, 'z', NULL);

CREATE TABLE types.times (
  id integer PRIMARY KEY, d date, ts timestamp, tz timestamptz, t time, t3 time(3), ttz timetz, i interval, iy interval year to month
);
INSERT INTO types.times VALUES
  (1, '4713-01-01 BC', '4713-01-01 00:00:00 BC', '4713-01-02 00:00:00+00 BC', '00:00', '23:59:59.999', '00:00+15:59', '-178000000 years', '-1-11'),
  (2, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '24:00', '24:00', '24:00-15:59', '178000000 years', '178000000-11'),
  (3, 'infinity', 'infinity', 'infinity', NULL, NULL, NULL, '1 mon -1 day 00:00:00.000001', NULL),
  (4, '-infinity', '-infinity', '-infinity', '12:34:56.789012', '12:34:56.789', '12:34:56.789012+05:45', '-1 year +3 days -04:05:06.7', '0-0'),
  (5, '0001-01-01', '0001-12-31 23:59:59.999999 BC', '1883-11-18 12:03:57+00', NULL, NULL, '00:00:00+00:00:01', '0', NULL),
  (6, '2024-02-29', '2016-12-31 23:59:60', '2024-03-31 01:30:00+00', NULL, NULL, NULL, 'P1Y2M3DT4H5M6.7S', NULL);
\if :pg17
INSERT INTO types.times (id, i) VALUES (7, 'infinity'), (8, '-infinity');
\endif

CREATE TABLE types.documents (id integer PRIMARY KEY, j json, jb jsonb, jp jsonpath, x xml, v tsvector, q tsquery, u uuid);
INSERT INTO types.documents (id, j, jb, jp, v, q, u) VALUES
  (1, '{"a":1,"a":2,  "b" : [1.0, 1.00, 1e2], "":null}', '{"a":1,"a":2, "b":[1.0,1.00,1e2],"":null}', '$.a[*] ? (@ > 1)',
   '''it''''s'':1A,2B ''\\'':3 odd:4C', '''it''''s'' & !odd:*A <3> ''\\''', '00000000-0000-0000-0000-000000000000'),
  (2, '"\u0000 is fine in json"', '"\u00e9\ud83d\ude00\\"', 'strict $', '', '', 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
  (3, 'null', 'null', 'lax $."odd \" key"', 'a b c', 'a & b | !c', NULL),
  (4, E'[1,\n\t2]\n', '1e1000', '$', NULL, NULL, NULL), (5, NULL, NULL, NULL, NULL, NULL, NULL);
\if :has_xml
SET xmloption = content;
UPDATE types.documents SET x = E'<a b=''"''>\n<!-- COPY x FROM stdin; -->&lt;\\.</a> tail' WHERE id = 1;
UPDATE types.documents SET x = '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE a><a>ž</a>' WHERE id = 2;
UPDATE types.documents SET x = '' WHERE id = 3;
\endif

CREATE TABLE types.shapes (id integer PRIMARY KEY, pt point, ln line, ls lseg, bx box, pa path, po polygon, ci circle,
                           ip inet, net cidr, mac macaddr, mac8 macaddr8);
INSERT INTO types.shapes VALUES
  (1, '(NaN,-0)', '{1,-1,0}', '[(0,0),(1e-300,1e300)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,0),(1,1))', '<(0,0),1>',
   '::ffff:1.2.3.4/96', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05'),
  (2, '(Infinity,-Infinity)', NULL, NULL, NULL, '((0,0),(1,1))', NULL, '<(1e10,-0),0>', '192.168.1.5/24', '::/0', NULL, NULL);

CREATE TABLE types.catalogue (id integer PRIMARY KEY, c regclass, p regproc, ps regprocedure, o regoper, os regoperator, t regtype,
  r regrole, n regnamespace, cf regconfig, di regdictionary, co regcollation, a aclitem, aa aclitem[], sn pg_snapshot, tsn txid_snapshot,
  ti tid, ci cid, ov oidvector, iv int2vector);
INSERT INTO types.catalogue VALUES
  (1, 'types.numbers', 'pg_catalog.now', 'types.mood_number(types.mood)', NULL, 'types.=(types.base,types.base)', 'types.pair',
   '"Odd ""Owner"""', '"Odd ""q"", comma"', 'english', 'simple', '"C"',
   format('%I=rw*/%I', 'Odd "Owner"', 'odd-app')::aclitem, NULL, '10:20:10,14,15', '10:20:10,14,15', '(1,2)', '3', '1 2 3', '-1 0 1'),
  (2, '-', '-', '-', '0', '0', '-', '-', '-', '-', '-', '-', '=r/odd_group', '{=r/odd_group,odd_reader=w*/odd_group}', '1:1:', '1:1:', '(0,1)', '0', '', '');

CREATE TABLE types.ranges (id integer PRIMARY KEY, i int4range, n numrange, d daterange, ts tsrange, sp types.span,
  im int4multirange, nm nummultirange, dm datemultirange, sm types."spans of \ %");
INSERT INTO types.ranges VALUES
  (1, 'empty', 'empty', 'empty', 'empty', 'empty', '{}', '{}', '{}', '{}'),
  (2, '(,)', '(,1.50]', '[2024-01-01,infinity]', '(-infinity,infinity)', '[-Infinity,NaN)', '{(,)}', '{[1,2),[3,4]}', '{[-infinity,infinity]}', '{[1,2],(3,4)}'),
  (3, '(1,5]', '(1,5]', '(2024-01-01,2024-01-05]', '["2024-01-01 00:00",)', '[-0,0]', '{[1,2),[2,3),[7,9)}', NULL, NULL, '{[-Infinity,Infinity]}');

CREATE TABLE types.arrays (id integer PRIMARY KEY, a integer[], t text[], m types.mood[], p types.pair[], d types.port[], b bytea[],
                           n numeric[][], pr types.pair, r int4range[], ba types.base[]);
INSERT INTO types.arrays VALUES
  (1, '[0:2]={1,NULL,3}', '{NULL,"NULL","",a\\b,"c,d","{e}","f\"g"}', '{sad,"it''s \"odd\" \\",happy}',
   ARRAY[(1, 'a"b\', 'sad')::types.pair, NULL, (NULL, '', NULL)::types.pair], '{1,NULL}', ARRAY['\x00'::bytea, '\x5c', ''],
   '{{1,2.0},{NaN,NULL}}', (NULL, NULL, NULL), '{empty,"[1,2)","(,)"}', '{1;-2;3}'),
  (2, '[-2:-1][3:4]={{1,2},{3,4}}', '{}', '{}', '{}', '{}', '{}', '{}', (7, E'a\tb\nc\\', 'so-so'), '{}', '{}'),
  (3, '{{{1},{2}},{{3},{4}}}', ARRAY[E'a\tb', E'\\N', E'\n'], '[5:5]={sad}', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ROW(1, 'x', 'sad'), NULL, NULL);

\if :has_hstore
CREATE TABLE types.hstores (id integer PRIMARY KEY, h tools.hstore);
INSERT INTO types.hstores VALUES (1, '"a b"=>NULL, "NULL"=>"NULL", ""=>"", "q\"\\"=>"\\N"'), (2, ''), (3, NULL);
CREATE INDEX ON types.hstores USING gin (h);
\endif
\if :has_ltree
CREATE TABLE types.ltrees (id integer PRIMARY KEY, l tools.ltree, q tools.lquery, tq tools.ltxtquery);
INSERT INTO types.ltrees VALUES (1, 'Top.Odd_1.a', '*.odd*@.!a|b{1,}', 'odd & !a*'), (2, '', '*', 'a');
\endif
\if :has_citext
CREATE TABLE types.citexts (c tools.citext PRIMARY KEY, d tools.citext[] DEFAULT '{Ab}');
INSERT INTO types.citexts VALUES ('Ab'), ('aC'), ('');
\endif
DO $$
BEGIN
  CREATE COLLATION types.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  PERFORM set_config('odd.icu', 'true', false);
EXCEPTION WHEN feature_not_supported THEN
  PERFORM set_config('odd.icu', 'false', false);
END
$$;
SELECT current_setting('odd.icu') AS has_icu \gset
\if :{?portable}
DROP COLLATION IF EXISTS types.blind;
\set has_icu false
\endif
\if :has_icu
CREATE TABLE types.collated (t text COLLATE types.blind PRIMARY KEY, note text);
INSERT INTO types.collated VALUES ('Ab', 'one'), ('aC', 'two'), ('', 'three');
CREATE INDEX ON types.collated (note COLLATE types.blind DESC NULLS LAST);
\endif

---------------------------------------------------------------------------------------------------------------------
-- names

CREATE TABLE "odd names"."select" ("user" integer PRIMARY KEY, "order" text, "table" text DEFAULT 'group', "select" boolean);
INSERT INTO "odd names"."select" VALUES (1, 'by', DEFAULT, true);
-- the name t means the column where a table t has one: casting the row to text would print one column only
CREATE TABLE "odd names".t (t text, other integer);
INSERT INTO "odd names".t VALUES ('same', 1), ('same', 2), ('same', 2), (NULL, NULL);
CREATE TABLE "odd names"."has space, ""quote"" and 'apostrophe'" ("a ""b"" c" text, "it's" integer, "a,b" integer);
INSERT INTO "odd names"."has space, ""quote"" and 'apostrophe'" VALUES ('x', 1, 2), (NULL, NULL, NULL);
CREATE TABLE "odd names"."-rf /" ("--" integer PRIMARY KEY, "-c" text, "/* */" text, ";" text);
INSERT INTO "odd names"."-rf /" VALUES (1, 'a', 'b', 'c');
CREATE TABLE "odd names"."line one
COPY line_two FROM stdin;
\.
-- line four" (E integer, "new
line" text);
INSERT INTO "odd names"."line one
COPY line_two FROM stdin;
\.
-- line four" VALUES (1, E'\\.\n'), (2, E'\n');
COMMENT ON TABLE "odd names"."line one
COPY line_two FROM stdin;
\.
-- line four" IS E'a comment\n\\! touch /tmp/x\n\\.\n';
CREATE TABLE "odd names"."tab	and U&\0041 \ back" ("100 %" integer, "$1" integer, "%s" text, "$$" text, "a\nb" text, "{x}" text, "${HOME}" text, "`id`" text);
INSERT INTO "odd names"."tab	and U&\0041 \ back" VALUES (1, 2, '%s', '$$', '\n', '{x}', '${HOME}', '`id`');
CREATE TABLE "odd names"."UPPER" ("Mixed" integer, mixed integer, "MIXED" integer);
CREATE TABLE "odd names"."upper" ("Mixed" integer, mixed integer, "MIXED" integer);
INSERT INTO "odd names"."UPPER" VALUES (1, 2, 3);
INSERT INTO "odd names"."upper" VALUES (4, 5, 6);
CREATE TABLE "odd names"."a.b" (c integer);
CREATE TABLE "odd names"."a"".""b" (c integer);
CREATE TABLE "odd names"." leading and trailing " (" " integer);
INSERT INTO "odd names"." leading and trailing " VALUES (1);
CREATE TABLE "odd names"."žluťoučký 😀 ‮kůň" (U&"\00e9" integer, U&"e\0301" integer);
INSERT INTO "odd names"."žluťoučký 😀 ‮kůň" VALUES (1, 2);
CREATE TABLE "odd names"."t123456789_123456789_123456789_123456789_123456789_123456789_12"
  ("c123456789_123456789_123456789_123456789_123456789_123456789_12" integer PRIMARY KEY,
   "d123456789_123456789_123456789_123456789_123456789_123456789_12" serial UNIQUE);
INSERT INTO "odd names"."t123456789_123456789_123456789_123456789_123456789_123456789_12" VALUES (1), (2);
CREATE TABLE "odd names"."ááááááááááááááááááááááááááááááá" (x integer);
CREATE TABLE "odd names"."*" ("*" integer, "?" integer, "[a-z]" integer);
INSERT INTO "odd names"."*" VALUES (1, 2, 3);
CREATE TABLE "odd names"."1" ("1" integer);
CREATE TABLE "odd names"."NULL" ("null" integer, "true" boolean);
CREATE TABLE "Odd ""q"", comma"."x""y" ("p""q" integer PRIMARY KEY, "r'\s" text);
INSERT INTO "Odd ""q"", comma"."x""y" VALUES (1, 'x');
CREATE TABLE "-- not a comment"."-- not one either" (a integer);
INSERT INTO "-- not a comment"."-- not one either" SELECT generate_series(1, 3);
CREATE TABLE public.pg_looks_like_catalogue (oid integer, ctid_ text, "tableoid " integer);
INSERT INTO public.pg_looks_like_catalogue VALUES (1, 'x', 2);
ALTER TABLE "odd names"."has space, ""quote"" and 'apostrophe'" OWNER TO "Odd ""Owner""";
ALTER TABLE "odd names"."-rf /" OWNER TO "-r o'dd $x \ % žluťoučký";
GRANT SELECT ON "odd names"."-rf /" TO "-r o'dd $x \ % žluťoučký" WITH GRANT OPTION;

---------------------------------------------------------------------------------------------------------------------
-- tables

CREATE TABLE public.no_columns ();
INSERT INTO public.no_columns DEFAULT VALUES;
INSERT INTO public.no_columns DEFAULT VALUES;
INSERT INTO public.no_columns DEFAULT VALUES;
CREATE TABLE public.all_dropped (a integer, b text);
INSERT INTO public.all_dropped VALUES (1, 'x'), (2, 'y');
ALTER TABLE public.all_dropped DROP COLUMN a, DROP COLUMN b;
CREATE TABLE public.some_dropped (gone integer, kept integer, gone_too text, kept_too text);
INSERT INTO public.some_dropped VALUES (1, 2, 'three', 'four'), (5, NULL, NULL, '');
ALTER TABLE public.some_dropped DROP COLUMN gone, DROP COLUMN gone_too;
ALTER TABLE public.some_dropped ADD COLUMN gone text DEFAULT 'added later', ADD COLUMN "a first" integer;
INSERT INTO public.some_dropped (kept, gone) VALUES (9, 'set');
CREATE TABLE public.no_rows (id integer PRIMARY KEY);

CREATE TABLE public.generated (
  id integer GENERATED ALWAYS AS IDENTITY (START WITH -5 INCREMENT BY -5 MINVALUE -1000 MAXVALUE 7 CACHE 3 CYCLE) PRIMARY KEY,
  other integer GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME public."Odd ""identity""" START 100),
  w numeric, h numeric, area numeric GENERATED ALWAYS AS (w * h) STORED,
  label text GENERATED ALWAYS AS (lower(coalesce(w::text, 'none') || ' \ %')) STORED
);
INSERT INTO public.generated (w, h) VALUES (1.5, 2), ('NaN', 1), (NULL, 3);
INSERT INTO public.generated (id, other, w, h) OVERRIDING SYSTEM VALUE VALUES (77, 7, 0, -1);
ALTER SEQUENCE public."Odd ""identity""" RESTART WITH 500;

CREATE UNLOGGED TABLE public.unlogged (id integer PRIMARY KEY, t text);
INSERT INTO public.unlogged SELECT n, 'row ' || n FROM generate_series(1, 100) AS n;
CREATE UNLOGGED SEQUENCE public.unlogged_sequence START 11;

CREATE TABLE public.stored (
  id integer PRIMARY KEY,
  plain text,
  compressed text COMPRESSION pglz,
  main text,
  fixed integer NOT NULL DEFAULT 3
) WITH (fillfactor = 37, autovacuum_enabled = false, toast.autovacuum_enabled = false, parallel_workers = 1);
ALTER TABLE public.stored ALTER COLUMN plain SET STORAGE EXTERNAL, ALTER COLUMN main SET STORAGE MAIN;
ALTER TABLE public.stored ALTER COLUMN plain SET STATISTICS 777;
ALTER TABLE public.stored ALTER COLUMN id SET (n_distinct = -0.5);
INSERT INTO public.stored SELECT n, repeat('p', 9000), repeat('c', 9000), repeat('m', 500), n FROM generate_series(1, 20) AS n;
CREATE INDEX stored_fixed ON public.stored (fixed);
ALTER TABLE public.stored CLUSTER ON stored_fixed;
ALTER TABLE public.stored REPLICA IDENTITY FULL;
COMMENT ON INDEX public.stored_fixed IS 'a comment on an index';
COMMENT ON COLUMN public.stored.main IS 'a comment on a column';

-- 20 MB that can't be compressed and 2 MB that can, in one row
CREATE TABLE public.huge (id integer PRIMARY KEY, b bytea, t text);
ALTER TABLE public.huge ALTER COLUMN b SET STORAGE EXTERNAL;
INSERT INTO public.huge
SELECT 1, string_agg(sha256(int4send(n)), NULL ORDER BY n), repeat(E'\\x\t', 700000)
  FROM generate_series(1, 655360) AS n;

CREATE ACCESS METHOD odd_heap TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD odd_heap IS 'heap by another name';
CREATE TABLE public.other_method (a integer) USING odd_heap;
INSERT INTO public.other_method VALUES (1), (2);
CREATE TABLE public.typed OF types.pair (n WITH OPTIONS PRIMARY KEY);
INSERT INTO public.typed VALUES (1, 'a', 'sad'), (2, '', NULL);

---------------------------------------------------------------------------------------------------------------------
-- constraints and indexes

CREATE TABLE public.checked (
  id integer PRIMARY KEY,
  vc varchar(10) CHECK (vc IN ('a', 'b')),
  status varchar NOT NULL DEFAULT 'open' CONSTRAINT "status % ""in""" CHECK (status::text = ANY (ARRAY['open', 'it''s \'])),
  during int4range,
  room integer,
  parent integer REFERENCES public.checked DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT "no overlap" EXCLUDE USING gist (during WITH &&) WHERE (room IS NULL),
  CONSTRAINT unique_later UNIQUE (room) DEFERRABLE INITIALLY IMMEDIATE
);
INSERT INTO public.checked (id, vc, during, parent, room) VALUES (1, 'a', '[1,5)', 2, NULL), (2, 'b', '[5,9)', 1, NULL), (3, NULL, '[1,9)', 3, 4);
COMMENT ON CONSTRAINT "no overlap" ON public.checked IS 'a comment on a constraint';
-- rows that the constraint would refuse
ALTER TABLE public.checked ADD CONSTRAINT not_valid CHECK (id > 2) NOT VALID;
ALTER TABLE public.checked ADD COLUMN lost integer;
UPDATE public.checked SET lost = 99, vc = vc WHERE id = 3;
ALTER TABLE public.checked ADD CONSTRAINT lost_reference FOREIGN KEY (lost) REFERENCES public.no_rows ON DELETE SET NULL NOT VALID;
ALTER DOMAIN types.port ADD CONSTRAINT port_not_valid CHECK (VALUE <> 1) NOT VALID;

CREATE TABLE public.ring_a (id integer PRIMARY KEY, b integer NOT NULL);
CREATE TABLE public.ring_b (id integer PRIMARY KEY, a integer NOT NULL REFERENCES public.ring_a DEFERRABLE);
INSERT INTO public.ring_a VALUES (1, 1), (2, 2);
INSERT INTO public.ring_b VALUES (1, 1), (2, 2);
ALTER TABLE public.ring_a ADD FOREIGN KEY (b) REFERENCES public.ring_b MATCH FULL ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED;

CREATE INDEX "odd index \ %" ON public.checked (lower(vc) text_pattern_ops DESC NULLS LAST, (id + 1)) INCLUDE (room) WHERE status <> 'closed';
CREATE UNIQUE INDEX ON public.checked (id, lost) NULLS NOT DISTINCT;
CREATE INDEX ON public.checked USING hash (status);
CREATE INDEX ON public.checked USING brin (id) WITH (pages_per_range = 4);
CREATE INDEX ON types.texts USING spgist (t) WHERE length(t) < 100;
CREATE INDEX ON types.documents USING gin (jb jsonb_path_ops);
CREATE INDEX ON types.documents USING gin (to_tsvector('pg_catalog.english', coalesce(jb ->> 'b', '')));
CREATE INDEX ON types.numbers (b);
CREATE INDEX ON types.texts (s types."Text \ class") WHERE id < 10;
ALTER INDEX public."odd index \ %" ALTER COLUMN 2 SET STATISTICS 99;
\if :has_trgm
CREATE INDEX ON public.checked USING gin (status tools.gin_trgm_ops);
\endif
\if :has_btree_gist
ALTER TABLE public.checked ADD CONSTRAINT room_once EXCLUDE USING gist (room WITH =, during WITH &&);
\endif
CREATE STATISTICS public."odd stats" (ndistinct, dependencies, mcv) ON id, vc, status FROM public.checked;
CREATE STATISTICS public.expression_stats ON (id % 10), lower(vc) FROM public.checked;
ALTER STATISTICS public."odd stats" SET STATISTICS 55;
ALTER STATISTICS public."odd stats" OWNER TO "odd-app";
COMMENT ON STATISTICS public."odd stats" IS 'a comment on statistics';

\if :pg18
CREATE TABLE public.since_18 (
  id integer CONSTRAINT named_not_null NOT NULL, a integer, virtual integer GENERATED ALWAYS AS (a * 2) VIRTUAL, valid daterange,
  CONSTRAINT never_enforced CHECK (a < 0) NOT ENFORCED
);
INSERT INTO public.since_18 VALUES (1, 5, DEFAULT, '[2024-01-01,2024-02-01)'), (1, NULL, DEFAULT, '[2024-02-01,2024-03-01)');
ALTER TABLE public.since_18 ADD CONSTRAINT null_not_valid NOT NULL a NOT VALID;
COMMENT ON CONSTRAINT named_not_null ON public.since_18 IS 'a comment on a not-null constraint';
\if :has_btree_gist
ALTER TABLE public.since_18 ADD CONSTRAINT at_one_time PRIMARY KEY (id, valid WITHOUT OVERLAPS);
\endif
\endif

---------------------------------------------------------------------------------------------------------------------
-- partitions and heirs, with columns in another order

CREATE TABLE parts.events (id bigint NOT NULL, at date NOT NULL, kind text DEFAULT 'none', body jsonb) PARTITION BY RANGE (at);
CREATE TABLE parts.events_2024 (body jsonb, dropped integer, kind text DEFAULT 'leaf', at date NOT NULL, id bigint NOT NULL);
ALTER TABLE parts.events_2024 DROP COLUMN dropped;
ALTER TABLE parts.events ATTACH PARTITION parts.events_2024 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE parts."events -2025" PARTITION OF parts.events FOR VALUES FROM ('2025-01-01') TO (MAXVALUE) PARTITION BY RANGE (id);
CREATE TABLE parts.events_2025_a PARTITION OF parts."events -2025" FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE parts.events_2025_rest PARTITION OF parts."events -2025" DEFAULT;
CREATE TABLE parts.events_default PARTITION OF parts.events (kind DEFAULT 'default') DEFAULT;
ALTER TABLE parts.events ADD PRIMARY KEY (id, at);
INSERT INTO parts.events
SELECT n, '2023-12-01'::date + n * 7, (ARRAY['a', 'b', NULL, 'it''s \'])[1 + n % 4], jsonb_build_object('n', n)
  FROM generate_series(1, 150) AS n;
CREATE INDEX ON parts.events (kind);
CREATE INDEX only_parent ON ONLY parts.events (body);
CREATE TABLE parts.hashed (k text COLLATE "C" PRIMARY KEY, v integer) PARTITION BY HASH (k);
CREATE TABLE parts.hashed_0 PARTITION OF parts.hashed FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE parts.hashed_1 (v integer, k text COLLATE "C" NOT NULL);
ALTER TABLE parts.hashed ATTACH PARTITION parts.hashed_1 FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE parts.hashed_2 PARTITION OF parts.hashed FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE UNLOGGED TABLE parts.hashed_3 PARTITION OF parts.hashed FOR VALUES WITH (MODULUS 4, REMAINDER 3);
INSERT INTO parts.hashed SELECT 'key ' || n, n FROM generate_series(1, 200) AS n;
CREATE TABLE parts.by_list (m types.mood, n integer) PARTITION BY LIST (m);
CREATE TABLE parts.by_list_sad PARTITION OF parts.by_list FOR VALUES IN ('sad', NULL);
CREATE TABLE parts.by_list_rest PARTITION OF parts.by_list DEFAULT;
INSERT INTO parts.by_list VALUES ('sad', 1), (NULL, 2), ('happy', 3), ('it''s "odd" \', 4);
CREATE TABLE parts.childless (n integer) PARTITION BY RANGE (n);
CREATE TABLE parts.refers (event_id bigint, event_at date, FOREIGN KEY (event_id, event_at) REFERENCES parts.events);
INSERT INTO parts.refers SELECT id, at FROM parts.events WHERE id % 7 = 0;

CREATE TABLE heirs.parent (id integer, name text DEFAULT 'parent', CONSTRAINT positive CHECK (id > 0));
CREATE TABLE heirs.child (extra text, name text DEFAULT 'child', id integer, own integer);
ALTER TABLE heirs.child ADD CONSTRAINT positive CHECK (id > 0);
ALTER TABLE heirs.child INHERIT heirs.parent;
CREATE TABLE heirs.second (more integer);
CREATE TABLE heirs.grandchild (name text, last boolean) INHERITS (heirs.child, heirs.second);
ALTER TABLE heirs.parent ADD COLUMN added_late numeric DEFAULT 1.50;
ALTER TABLE heirs.parent ADD CONSTRAINT not_inherited CHECK (name <> 'x') NO INHERIT;
INSERT INTO heirs.parent (id) VALUES (1), (2);
INSERT INTO heirs.child (id, extra, own) VALUES (1, 'e', 3), (4, NULL, NULL);
INSERT INTO heirs.grandchild (id, last, more, name) VALUES (9, true, 8, 'x');

---------------------------------------------------------------------------------------------------------------------
-- sequences

CREATE SEQUENCE public.backwards INCREMENT BY -3 MINVALUE -100 MAXVALUE 50 START 20 CACHE 2;
SELECT nextval('public.backwards'), nextval('public.backwards') \gset ignore_
CREATE SEQUENCE public.cycling AS smallint MINVALUE 1 MAXVALUE 3 CYCLE;
SELECT nextval('public.cycling') FROM generate_series(1, 5) \g /dev/null
CREATE SEQUENCE public.untouched START 42;
CREATE SEQUENCE public."Moved ""by"" hand" OWNED BY public.stored.id;
SELECT setval('public."Moved ""by"" hand"', 9223372036854775806) \g /dev/null
CREATE SEQUENCE public.not_called;
SELECT setval('public.not_called', 7, false) \g /dev/null
CREATE SEQUENCE public.extreme INCREMENT BY -9223372036854775808 MINVALUE -9223372036854775808;
ALTER SEQUENCE public.cycling OWNER TO "odd-app";
GRANT USAGE ON SEQUENCE public.untouched TO odd_reader;
COMMENT ON SEQUENCE public.backwards IS 'counts down';
CREATE TABLE public.numbered (a serial, b bigserial PRIMARY KEY, c smallserial, d integer DEFAULT nextval('public.backwards'));
INSERT INTO public.numbered DEFAULT VALUES;
INSERT INTO public.numbered DEFAULT VALUES;
ALTER SEQUENCE public.numbered_a_seq OWNED BY NONE;
ALTER SEQUENCE public.numbered_c_seq RENAME TO "renamed C";
ALTER TABLE public.numbered SET SCHEMA "odd names";

---------------------------------------------------------------------------------------------------------------------
-- code

CREATE FUNCTION code."odd $ name"("a ""b""" integer, OUT "c \d" text, VARIADIC rest text[] DEFAULT '{}') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER STRICT COST 7 SET search_path = pg_catalog, "odd names", pg_temp SET DateStyle = 'German' AS $body$
-- Name: not_a_header; Type: TABLE; Schema: public; Owner: postgres
DECLARE
  x text := $q$
COPY x FROM stdin;
1	2
\.
\! touch /tmp/odd
\restrict abc
\unrestrict x
\connect template1
--
-- PostgreSQL database dump complete
--
$q$;
BEGIN
  /* $$ */
  "c \d" := x;
END
$body$;
COMMENT ON FUNCTION code."odd $ name" IS E'\\.\n--\n-- PostgreSQL database dump complete\n--\n';
CREATE FUNCTION code.plain_sql(integer) RETURNS SETOF "odd names".t LANGUAGE sql STABLE ROWS 3 PARALLEL SAFE LEAKPROOF AS $f$
-- COPY x FROM stdin;
SELECT t.* FROM "odd names".t AS t WHERE t.t <> '
COPY x FROM stdin;
\.
--
' LIMIT $1
$f$;
CREATE FUNCTION code.overloaded(integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN $1 + 1;
CREATE FUNCTION code.overloaded(text, text DEFAULT $$it's \ "x"$$) RETURNS text LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT AS $$ SELECT $1 || $2 $$;
CREATE FUNCTION code.overloaded(anyelement, anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE AS $$ SELECT $2 || $1 $$;
CREATE FUNCTION code.atomic(a integer) RETURNS TABLE (id integer, vc varchar) LANGUAGE sql BEGIN ATOMIC
  SELECT c.id, c.vc FROM public.checked AS c WHERE c.id > a;
  SELECT c.id, c.vc FROM public.checked AS c ORDER BY 1;
END;
CREATE FUNCTION code.fails_when_called() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT x FROM no_such_table); END $$;
CREATE PROCEDURE code.proc(INOUT a integer, b types.mood DEFAULT 'sad') LANGUAGE plpgsql AS $$
BEGIN
  a := a + 1;
  COMMIT;
END
$$;
COMMENT ON PROCEDURE code.proc IS 'commits';
CREATE FUNCTION code.add_up(state numeric, value numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT coalesce($1, 0) + coalesce($2, 0) $$;
CREATE AGGREGATE code.total(numeric) (SFUNC = code.add_up, STYPE = numeric, INITCOND = '0', COMBINEFUNC = code.add_up, PARALLEL = SAFE,
  MSFUNC = code.add_up, MINVFUNC = code.add_up, MSTYPE = numeric);
CREATE AGGREGATE code.nth(ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = mode_final, FINALFUNC_EXTRA);
CREATE AGGREGATE code.none(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
COMMENT ON AGGREGATE code.total(numeric) IS 'counts NULL as 0';
CREATE FUNCTION code.minus_abs(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN -abs($1);
CREATE OPERATOR code.-|@# (RIGHTARG = numeric, FUNCTION = code.minus_abs);
COMMENT ON OPERATOR code.-|@# (NONE, numeric) IS 'a prefix operator';
REVOKE EXECUTE ON FUNCTION code.overloaded(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION code.overloaded(integer) TO odd_reader WITH GRANT OPTION;
GRANT EXECUTE ON PROCEDURE code.proc TO "-r o'dd $x \ % žluťoučký";
ALTER FUNCTION code.overloaded(text, text) OWNER TO "Odd ""Owner""";
ALTER FUNCTION code.plain_sql(integer) DEPENDS ON EXTENSION plpgsql;
-- a language of our own: plpgsql by another name, with handlers of its own (without them a dump would lose them)
CREATE FUNCTION code.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION code.inline_handler(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION code.validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE odd_language HANDLER code.handler INLINE code.inline_handler VALIDATOR code.validator;
GRANT USAGE ON LANGUAGE odd_language TO odd_reader;
COMMENT ON LANGUAGE odd_language IS 'plpgsql by another name';
CREATE FUNCTION code.in_odd_language() RETURNS integer LANGUAGE odd_language AS $$ BEGIN RETURN 1; END $$;

CREATE TABLE code.log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION code.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO code.log (what) VALUES (TG_NAME || ' ' || TG_OP);
  RETURN coalesce(NEW, OLD);
END
$$;
CREATE FUNCTION code.note_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO code.log (what) SELECT TG_NAME || ' ' || count(*) FROM fresh;
  RETURN NULL;
END
$$;
CREATE TABLE code.watched (id integer PRIMARY KEY, a integer, b text);
CREATE TRIGGER "a first \ %" BEFORE INSERT OR UPDATE OF a ON code.watched FOR EACH ROW WHEN (NEW.a IS NOT NULL) EXECUTE FUNCTION code.note('it''s', E'\\', '%');
CREATE TRIGGER disabled AFTER INSERT ON code.watched FOR EACH ROW EXECUTE FUNCTION code.note();
CREATE TRIGGER replica_only AFTER INSERT ON code.watched FOR EACH ROW EXECUTE FUNCTION code.note();
CREATE TRIGGER in_any_case AFTER INSERT ON code.watched FOR EACH ROW EXECUTE FUNCTION code.note();
CREATE TRIGGER per_statement AFTER INSERT ON code.watched REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION code.note_all();
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON code.watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION code.note();
ALTER TABLE code.watched DISABLE TRIGGER disabled, ENABLE REPLICA TRIGGER replica_only, ENABLE ALWAYS TRIGGER in_any_case;
COMMENT ON TRIGGER disabled ON code.watched IS 'off';
INSERT INTO code.watched VALUES (1, 1, 'x'), (2, NULL, 'y');
CREATE TRIGGER on_partitioned AFTER INSERT ON parts.events FOR EACH ROW EXECUTE FUNCTION code.note();
ALTER TABLE parts.events_2024 DISABLE TRIGGER on_partitioned;

CREATE TABLE code.ruled (a integer);
CREATE TABLE code.ruled_log (a integer, b text);
CREATE RULE also AS ON INSERT TO code.ruled DO ALSO INSERT INTO code.ruled_log VALUES (NEW.a, E'it''s \\');
CREATE RULE "never \ %" AS ON DELETE TO code.ruled WHERE OLD.a > 100 DO INSTEAD NOTHING;
CREATE RULE off AS ON UPDATE TO code.ruled DO INSTEAD NOTHING;
ALTER TABLE code.ruled DISABLE RULE off;
COMMENT ON RULE also ON code.ruled IS 'a comment on a rule';
INSERT INTO code.ruled VALUES (1), (101);

CREATE TEXT SEARCH DICTIONARY code."odd dict" (TEMPLATE = simple, accept = false, stopwords = english);
CREATE TEXT SEARCH PARSER code.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE code.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH CONFIGURATION code."odd config" (PARSER = code.parser);
ALTER TEXT SEARCH CONFIGURATION code."odd config" ADD MAPPING FOR asciiword, word WITH code."odd dict", english_stem;
COMMENT ON TEXT SEARCH CONFIGURATION code."odd config" IS 'a comment on a configuration';
COMMENT ON TEXT SEARCH DICTIONARY code."odd dict" IS 'a comment on a dictionary';
ALTER TEXT SEARCH CONFIGURATION code."odd config" OWNER TO "odd-app";

---------------------------------------------------------------------------------------------------------------------
-- views

CREATE VIEW views.barrier WITH (security_barrier = true) AS SELECT * FROM public.checked WHERE id > 0;
CREATE VIEW views.invoker WITH (security_invoker = true, check_option = local) AS SELECT id, vc FROM public.checked WHERE id < 100;
CREATE VIEW views."odd ""view"" \ %" ("renamed % 1", b) AS SELECT id, E'it''s \\ "x" $$' FROM views.barrier;
CREATE VIEW views.needs_key AS SELECT c.*, count(*) AS n FROM public.checked AS c JOIN public.stored AS s ON true GROUP BY c.id;
CREATE VIEW views.counting AS WITH RECURSIVE c (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT n FROM c;
CREATE VIEW views.first AS SELECT 1 AS a;
CREATE VIEW views.second AS SELECT a FROM views.first;
CREATE OR REPLACE VIEW views.first AS SELECT a FROM (SELECT 1 AS a) AS s;
CREATE VIEW views.no_columns AS SELECT;
ALTER VIEW views.invoker ALTER COLUMN vc SET DEFAULT 'a';
CREATE TRIGGER instead_of INSTEAD OF INSERT ON views."odd ""view"" \ %" FOR EACH ROW EXECUTE FUNCTION code.note();
COMMENT ON VIEW views.barrier IS 'a comment on a view';
COMMENT ON COLUMN views.barrier.id IS 'a comment on a view''s column';
ALTER VIEW views.second OWNER TO "odd-app";
GRANT SELECT (id) ON views.barrier TO odd_reader;

CREATE MATERIALIZED VIEW views.populated AS SELECT id, vc FROM public.checked;
CREATE UNIQUE INDEX ON views.populated (id);
CREATE MATERIALIZED VIEW views.unpopulated AS SELECT id FROM views.populated WITH NO DATA;
CREATE MATERIALIZED VIEW views.stale WITH (fillfactor = 50) AS SELECT count(*) AS n FROM code.watched;
INSERT INTO code.watched VALUES (3, 3, 'after the refresh');
CREATE MATERIALIZED VIEW views."on another" AS SELECT p.id, s.n FROM views.populated AS p, views.stale AS s;
CREATE MATERIALIZED VIEW views.a_name_before_its_source AS SELECT * FROM views."on another";
COMMENT ON MATERIALIZED VIEW views.stale IS 'older than its table';
ALTER MATERIALIZED VIEW views.populated OWNER TO "odd-app";
GRANT SELECT ON public.checked TO "odd-app";

---------------------------------------------------------------------------------------------------------------------
-- rights

CREATE TABLE rights.secured (id integer PRIMARY KEY, owner name DEFAULT current_user, secret text);
INSERT INTO rights.secured VALUES (1, 'odd-app', 'a'), (2, 'nobody', 'b'), (3, 'odd_reader', 'c');
ALTER TABLE rights.secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "own rows \ %" ON rights.secured USING (owner = current_user) WITH CHECK (secret <> E'it''s \\');
CREATE POLICY limiting ON rights.secured AS RESTRICTIVE FOR SELECT TO odd_reader, "odd-app" USING (id < 100);
COMMENT ON POLICY limiting ON rights.secured IS 'a comment on a policy';
ALTER TABLE rights.secured OWNER TO "odd-app";
GRANT SELECT, INSERT (id, secret), UPDATE (secret), REFERENCES (id) ON rights.secured TO odd_reader;
GRANT SELECT (id) ON rights.secured TO PUBLIC;
CREATE TABLE rights.enabled_only (id integer);
ALTER TABLE rights.enabled_only ENABLE ROW LEVEL SECURITY;
INSERT INTO rights.enabled_only VALUES (1), (2);

CREATE TABLE rights.granted (a integer, b text);
GRANT ALL ON rights.granted TO odd_group WITH GRANT OPTION;
GRANT USAGE ON SCHEMA rights TO odd_group, odd_reader;
SET ROLE odd_group;
GRANT SELECT ON rights.granted TO odd_reader;
RESET ROLE;
CREATE TABLE rights.without_owner (a integer);
ALTER TABLE rights.without_owner OWNER TO "Odd ""Owner""";
REVOKE ALL ON rights.without_owner FROM "Odd ""Owner""";
INSERT INTO rights.without_owner VALUES (1);
CREATE TABLE no_owner_rights.inside (a integer);
INSERT INTO no_owner_rights.inside VALUES (1), (2);
REVOKE ALL ON SCHEMA no_owner_rights FROM "Odd ""Owner""";
GRANT USAGE ON SCHEMA "odd names" TO odd_reader, "-r o'dd $x \ % žluťoučký";

ALTER DEFAULT PRIVILEGES FOR ROLE "odd-app" GRANT SELECT ON TABLES TO odd_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE "Odd ""Owner""" IN SCHEMA "odd names" GRANT ALL ON SEQUENCES TO odd_group WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE "odd-app" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "odd-app" REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA rights GRANT SELECT ON TABLES TO odd_auditors;
ALTER DEFAULT PRIVILEGES FOR ROLE odd_deep GRANT USAGE ON SCHEMAS TO odd_reader;

---------------------------------------------------------------------------------------------------------------------
-- foreign data: no server answers there

CREATE FOREIGN DATA WRAPPER "odd wrapper" OPTIONS (debug 'it''s \ %');
CREATE SERVER "odd server" TYPE 'none' VERSION '0.0' FOREIGN DATA WRAPPER "odd wrapper" OPTIONS ("Option" 'x');
CREATE FOREIGN TABLE rights.unreadable (a integer OPTIONS (x 'y'), b text NOT NULL CHECK (b <> '')) SERVER "odd server" OPTIONS (path '/nowhere');
CREATE USER MAPPING FOR PUBLIC SERVER "odd server" OPTIONS (secret 'it''s \');
COMMENT ON FOREIGN DATA WRAPPER "odd wrapper" IS 'no handler';
COMMENT ON SERVER "odd server" IS 'no server';
COMMENT ON FOREIGN TABLE rights.unreadable IS 'can''t be read';
GRANT USAGE ON FOREIGN DATA WRAPPER "odd wrapper" TO odd_group;
GRANT USAGE ON FOREIGN SERVER "odd server" TO odd_reader;
ALTER SERVER "odd server" OWNER TO "odd-app";
\if :has_fdw
CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'nowhere', connect_timeout '2');
CREATE USER MAPPING FOR "odd-app" SERVER nowhere OPTIONS (user 'x', password 'it''s \ hidden');
CREATE FOREIGN TABLE parts.far (n integer, t text) SERVER nowhere OPTIONS (schema_name 'x', table_name 'y');
-- one partition is far away: the whole can't be read, its local partition can
CREATE TABLE parts.half_far (n integer, t text) PARTITION BY LIST (n);
CREATE TABLE parts.half_far_1 PARTITION OF parts.half_far FOR VALUES IN (1);
CREATE FOREIGN TABLE parts.half_far_2 PARTITION OF parts.half_far FOR VALUES IN (2) SERVER nowhere;
INSERT INTO parts.half_far VALUES (1, 'near');
\endif

---------------------------------------------------------------------------------------------------------------------
-- large objects

SELECT lo_from_bytea(4242001, '\x00010203'), lo_from_bytea(4242002, decode(repeat('5c2e0a', 100000), 'hex')),
       lo_create(4242003), lo_create(4242004), lo_create(4242005), lo_from_bytea(4294967295, 'the last oid') \g /dev/null
-- sparse: nothing but a hole before the end, and holes between
SELECT lo_put(4242004, 3000000, '\xff') \g /dev/null
SELECT lo_put(4242005, 2047, '\x0102'), lo_put(4242005, 100000, 'x'), lo_put(4242005, 50, repeat('y', 5000)::bytea) \g /dev/null
ALTER LARGE OBJECT 4242001 OWNER TO "odd-app";
ALTER LARGE OBJECT 4242003 OWNER TO "-r o'dd $x \ % žluťoučký";
GRANT SELECT ON LARGE OBJECT 4242001 TO odd_reader WITH GRANT OPTION;
GRANT SELECT, UPDATE ON LARGE OBJECT 4242002 TO odd_group, PUBLIC;
REVOKE ALL ON LARGE OBJECT 4242003 FROM "-r o'dd $x \ % žluťoučký";
COMMENT ON LARGE OBJECT 4242001 IS E'a comment on a large object\n\\.';
CREATE TABLE public.refers_to_large_objects (id integer PRIMARY KEY, lo oid);
INSERT INTO public.refers_to_large_objects VALUES (1, 4242001), (2, 1);

---------------------------------------------------------------------------------------------------------------------
-- publications and event triggers, last so that they don't watch this file

CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE PUBLICATION "odd pub \ %" FOR TABLE public.checked (id, vc) WHERE (id > 5 AND vc <> E'it''s \\'), TABLE ONLY heirs.parent
  WITH (publish = 'insert, truncate', publish_via_partition_root = true);
CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA parts, types WITH (publish = 'insert');
CREATE PUBLICATION nothing;
COMMENT ON PUBLICATION nothing IS 'a comment on a publication';
ALTER PUBLICATION nothing OWNER TO "odd-app";

CREATE FUNCTION code.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO code.log (what) VALUES (TG_EVENT || ' ' || TG_TAG);
END
$$;
CREATE FUNCTION code.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE EVENT TRIGGER "odd event \ %" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS') EXECUTE FUNCTION code.on_ddl();
CREATE EVENT TRIGGER switched_off ON ddl_command_start EXECUTE FUNCTION code.refuse();
ALTER EVENT TRIGGER switched_off DISABLE;
CREATE EVENT TRIGGER in_any_case ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION code.on_ddl();
ALTER EVENT TRIGGER in_any_case ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER switched_off IS 'would refuse everything';
CREATE TABLE code.made_under_event_trigger (a integer);
