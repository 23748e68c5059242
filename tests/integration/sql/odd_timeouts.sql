-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Time limits of the application that must not hit a backup.
ALTER DATABASE :"DBNAME" SET statement_timeout = '700ms';
ALTER DATABASE :"DBNAME" SET idle_in_transaction_session_timeout = '700ms';
ALTER DATABASE :"DBNAME" SET lock_timeout = '700ms';
SELECT format('ALTER ROLE %I IN DATABASE %I SET idle_session_timeout = %L', current_user, :'DBNAME', '700ms')
\gexec
SELECT current_setting('server_version_num')::integer >= 170000 AS has_transaction_timeout \gset
\if :has_transaction_timeout
ALTER DATABASE :"DBNAME" SET transaction_timeout = '700ms';
\endif
