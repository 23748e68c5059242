-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- The odd database, read-only by default: to be run last.
ALTER DATABASE :"DBNAME" SET default_transaction_read_only = on;
