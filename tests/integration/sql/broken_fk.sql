-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Data that breaks its own foreign key, as left behind by session_replication_role = replica: it can be dumped, and a
-- restore of the dump fails.
CREATE SCHEMA broken;
CREATE TABLE broken.parent (id integer PRIMARY KEY);
CREATE TABLE broken.child (id integer PRIMARY KEY, parent_id integer NOT NULL REFERENCES broken.parent);
INSERT INTO broken.parent SELECT generate_series(1, 10);
INSERT INTO broken.child SELECT n, n FROM generate_series(1, 10) AS n;
SET session_replication_role = replica;
DELETE FROM broken.parent WHERE id = 7;
RESET session_replication_role;
