-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Roles of the odd database. They belong to the cluster, so a second run finds them there.

SET client_encoding = 'UTF8';

SELECT format('CREATE ROLE %I %s', wanted.name, wanted.options)
  FROM (VALUES
    ('odd_group', 'NOLOGIN'),
    ('odd_auditors', 'NOLOGIN NOINHERIT'),
    ('odd_reader', 'LOGIN'),
    ('odd-app', 'LOGIN CONNECTION LIMIT 7 VALID UNTIL ''2199-12-31 23:59:59+00'''),
    ('Odd "Owner"', 'LOGIN CREATEDB'),
    ('-r o''dd $x \ % žluťoučký', 'LOGIN CREATEROLE BYPASSRLS'),
    ('odd_deep', 'NOLOGIN')
  ) AS wanted(name, options)
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name)
\gexec

GRANT odd_group TO "odd-app";
GRANT odd_group TO "Odd ""Owner""" WITH ADMIN OPTION;
GRANT odd_auditors TO odd_group;
GRANT odd_deep TO odd_auditors;
GRANT pg_monitor TO odd_auditors;

SELECT current_setting('server_version_num')::integer >= 160000 AS has_membership_options \gset
\if :has_membership_options
GRANT odd_reader TO "odd-app" WITH INHERIT FALSE, SET FALSE;
\else
GRANT odd_reader TO "odd-app";
\endif

COMMENT ON ROLE "Odd ""Owner""" IS E'owns the odd database;\nsecond line, ''quoted'' "twice" \\ and $1';
ALTER ROLE "odd-app" SET work_mem = '5MB';
ALTER ROLE "odd-app" SET search_path = "odd names", "$user", public;
ALTER ROLE "odd-app" SET application_name = E'it''s "odd" \\ 100 %';
ALTER ROLE "Odd ""Owner""" SET statement_timeout = '3min';
ALTER ROLE odd_reader SET default_transaction_read_only = on;
GRANT SET ON PARAMETER log_statement TO odd_auditors WITH GRANT OPTION;
GRANT ALTER SYSTEM ON PARAMETER work_mem TO odd_group;
