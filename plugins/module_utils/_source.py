# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is known of a database before it is dumped: versions, sizes, the state of its migrations."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._sql import Session, SqlError

_LOCKED = "55P03"


@dataclass(frozen=True)
class Source:
    """What is known of the source before anything is dumped."""

    server_version: str
    server_major: int
    database: str
    size_bytes: int
    table_bytes: int
    tables: int
    schema_version: int | None
    schema_dirty: bool | None
    superuser: bool
    data_checksums: bool
    warnings: tuple[str, ...]


def read_migration(session: Session) -> tuple[int | None, bool | None]:
    """Version and dirty flag in the table of golang-migrate, where there is one."""
    found = session.query(
        """SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = 'schema_migrations' AND c.relkind = 'r' AND n.nspname = 'public'
              AND 2 = (SELECT count(*) FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = c.oid AND a.attname IN ('version', 'dirty'))"""
    )
    if not found:
        return None, None
    rows = session.query("SELECT version::bigint, dirty FROM public.schema_migrations ORDER BY 1 DESC LIMIT 1")
    return (rows[0][0], rows[0][1]) if rows else (None, None)


def look_at_source(session: Session, database: str, *, lock_timeout: float = 2.0) -> Source:
    """Versions, sizes, migration state; nothing is changed or locked.

    Args:
        lock_timeout: seconds to wait for a table that somebody has locked.
    """
    session.execute("SET statement_timeout = 0", f"SET lock_timeout = {max(1, int(lock_timeout * 1000))}")
    version, number, size, superuser, checksums = session.query(
        """SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int,
                  pg_catalog.pg_database_size(pg_catalog.current_database()),
                  (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
                  pg_catalog.current_setting('data_checksums') = 'on'"""
    )[0]
    user_tables = """FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND n.nspname !~ '^pg_(toast|temp)'"""
    ((tables,),) = session.query(f"SELECT count(*) {user_tables}")
    try:
        ((table_bytes,),) = session.query(
            f"SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint {user_tables}"
        )
    except SqlError as exc:
        if exc.code != _LOCKED:
            raise
        table_bytes = size  # with indexes, so on the safe side
    try:
        migration = read_migration(session)
    except SqlError as exc:
        if exc.code != _LOCKED:
            raise
        migration = (None, None)  # under way just now; the dump reads it again in its snapshot
    warnings = []
    if not checksums:
        warnings.append("data_checksums: off: the server doesn't notice pages that its disk has damaged")
    return Source(
        version,
        number // 10000,
        database,
        size,
        table_bytes,
        tables,
        migration[0],
        migration[1],
        superuser,
        checksums,
        tuple(warnings),
    )
