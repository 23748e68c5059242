-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Odd things about the database itself, which a restore into a fresh database does not bring back.

SET client_encoding = 'UTF8';
SET search_path = '';

ALTER DATABASE :"DBNAME" OWNER TO "Odd ""Owner""";
ALTER DATABASE :"DBNAME" CONNECTION LIMIT 57;
COMMENT ON DATABASE :"DBNAME" IS E'the "odd" one; it''s 100 % \\ odd\n-- second line, příliš žluťoučký';

REVOKE CONNECT, TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO odd_group WITH GRANT OPTION;
GRANT CREATE ON DATABASE :"DBNAME" TO "odd-app";
GRANT TEMPORARY ON DATABASE :"DBNAME" TO "-r o'dd $x \ % žluťoučký" WITH GRANT OPTION;
-- granted by somebody who is not the owner
SET ROLE odd_group;
GRANT CONNECT ON DATABASE :"DBNAME" TO odd_reader;
RESET ROLE;

-- settings that change how values are printed, and lists of names
ALTER DATABASE :"DBNAME" SET search_path = "odd names", "Odd ""q"", comma", public;
ALTER DATABASE :"DBNAME" SET DateStyle = 'German, DMY';
ALTER DATABASE :"DBNAME" SET IntervalStyle = 'sql_standard';
ALTER DATABASE :"DBNAME" SET TimeZone = 'Asia/Kathmandu';
ALTER DATABASE :"DBNAME" SET bytea_output = 'escape';
ALTER DATABASE :"DBNAME" SET extra_float_digits = -3;
ALTER DATABASE :"DBNAME" SET temp_tablespaces = '';
ALTER DATABASE :"DBNAME" SET odd.setting = E'it''s "odd" \\ 100 %, two';
ALTER ROLE "odd-app" IN DATABASE :"DBNAME" SET search_path = "odd names", "$user";
ALTER ROLE "odd-app" IN DATABASE :"DBNAME" SET lock_timeout = '4s';
ALTER ROLE "-r o'dd $x \ % žluťoučký" IN DATABASE :"DBNAME" SET search_path = '';
SELECT format('ALTER ROLE %I IN DATABASE %I SET xmlbinary = %L', current_user, :'DBNAME', 'hex')
\gexec
