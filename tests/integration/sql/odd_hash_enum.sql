-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Hash partitions by an enum: the hash is of the value's oid, which is another one after a restore, so rows move
-- between the partitions. Only the whole table can be compared.
CREATE TYPE public.odd_hashed AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
CREATE TABLE public.odd_by_enum (k public.odd_hashed NOT NULL, n integer) PARTITION BY HASH (k);
CREATE TABLE public.odd_by_enum_0 PARTITION OF public.odd_by_enum FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE public.odd_by_enum_1 PARTITION OF public.odd_by_enum FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE public.odd_by_enum_2 PARTITION OF public.odd_by_enum FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO public.odd_by_enum
SELECT k, n FROM unnest(enum_range(NULL::public.odd_hashed)) AS k, generate_series(1, 50) AS n;
