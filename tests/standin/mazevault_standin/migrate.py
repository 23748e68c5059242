# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered up-migrations with golang-migrate's table and its dirty flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2.extensions import cursor as Cursor

from .database import Database, first_line
from .errors import SchemaError

DIRECTORY = Path(__file__).parent / "migrations"
LOCK_ID = 7_205_759


@dataclass(frozen=True, order=True)
class Migration:
    version: int
    path: Path


def known(limit: int | None = None) -> list[Migration]:
    """This release's migrations; with a limit, those of an older release."""
    found = sorted(Migration(int(path.name.split("_")[0]), path) for path in DIRECTORY.glob("*.up.sql"))
    return [migration for migration in found if limit is None or migration.version <= limit]


def read_state(cursor: Cursor) -> tuple[int, bool]:
    cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = cursor.fetchone()
    if not (row and row[0]):
        return 0, False
    cursor.execute("SELECT version, dirty FROM schema_migrations")
    state = cursor.fetchone()
    return (int(state[0]), bool(state[1])) if state else (0, False)


def _write_state(cursor: Cursor, version: int, dirty: bool) -> None:
    cursor.execute("TRUNCATE schema_migrations")
    cursor.execute("INSERT INTO schema_migrations (version, dirty) VALUES (%s, %s)", (version, dirty))


def refuse_unusable(version: int, dirty: bool, migrations: Sequence[Migration]) -> None:
    if dirty:
        raise SchemaError(f"schema version {version} is dirty: a migration stopped half-way")
    if version > migrations[-1].version:
        raise SchemaError(f"no migration found for version {version}: the schema is newer than this release")


def check(cursor: Cursor, limit: int | None = None) -> int:
    migrations = known(limit)
    version, dirty = read_state(cursor)
    refuse_unusable(version, dirty, migrations)
    if version < migrations[-1].version:
        raise SchemaError(f"schema version is {version}, this release needs {migrations[-1].version}: RUN_MIGRATIONS")
    return version


def upgrade(database: Database, limit: int | None = None) -> list[int]:
    """Run what is missing; each migration is marked dirty first, so that a failure shows."""
    done = []
    migrations = known(limit)
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_ID,))
        version, dirty = read_state(cursor)
        refuse_unusable(version, dirty, migrations)
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
        )
    for migration in migrations:
        if migration.version <= version:
            continue
        with database.transaction() as cursor:
            _write_state(cursor, migration.version, True)
        try:
            with database.transaction() as cursor:
                cursor.execute(migration.path.read_text(encoding="utf-8"))
                _write_state(cursor, migration.version, False)
        except psycopg2.Error as error:
            raise SchemaError(f"migration {migration.version} failed: {first_line(error)}") from None
        done.append(migration.version)
    return done
