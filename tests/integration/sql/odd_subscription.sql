-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- A subscription that is off, has no slot and never connected. It belongs to the database's oid, and a database that
-- has one can't be dropped.
CREATE SUBSCRIPTION "odd sub" CONNECTION 'host=127.0.0.1 port=1 dbname=nowhere password=hidden'
  PUBLICATION far_away, "Far ""away""" WITH (connect = false, enabled = false, slot_name = NONE, binary = true);
COMMENT ON SUBSCRIPTION "odd sub" IS 'never connected';
ALTER SUBSCRIPTION "odd sub" OWNER TO CURRENT_USER;
