# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load the database of odd things."""

from __future__ import annotations

import typing as t
from collections.abc import Collection
from pathlib import Path

from support.servers import PgServer

SQL = Path(__file__).resolve().parent.parent / "integration" / "sql"

Variant = t.Literal["subscription", "readonly", "timeouts", "hash_enum", "broken_fk", "portable"]


def run_sql(server: PgServer, dbname: str, name: str, *options: str) -> None:
    """Run one file of tests/integration/sql with psql of the server's version; the first error ends it."""
    quiet = ("-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1")
    server.run("psql", *quiet, *options, "-f", SQL / name, dbname=dbname)


_SUBSCRIPTION: tuple[Variant, ...] = ("subscription",)


def load_odd(server: PgServer, dbname: str, variants: Collection[Variant] = _SUBSCRIPTION) -> None:
    """Fill an empty database with odd things, and the cluster with odd roles (once).

    Variants, each an addition or a change:
    `subscription` (the default) adds one that is disabled and has no slot; `hash_enum` a table whose rows change
    partitions in a restore; `broken_fk` data that can be dumped but not restored. `timeouts` sets short time limits on
    the database; `readonly` makes it read-only by default. `portable` leaves out XML and ICU, which not every build of
    PostgreSQL has.
    """
    run_sql(server, dbname, "odd_roles.sql")
    run_sql(server, dbname, "odd.sql", *(["-v", "portable=on"] if "portable" in variants else []))
    for variant in ("subscription", "hash_enum", "broken_fk"):
        if variant in variants:
            run_sql(server, dbname, "broken_fk.sql" if variant == "broken_fk" else f"odd_{variant}.sql")
    run_sql(server, dbname, "odd_database.sql")
    for variant in ("timeouts", "readonly"):
        if variant in variants:
            run_sql(server, dbname, f"odd_{variant}.sql")
