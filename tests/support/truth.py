# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a moving source held at the moment of a snapshot, by the tests' own reading."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from support import compare
from support.load import PATIENCE
from support.servers import PgServer


class SourceTruth:
    """What a moving source held at the moment of an exported snapshot, by the tests' own reading.

    The snapshot's holder must still be there, and must have locked the tables before it took the snapshot: otherwise a
    TRUNCATE in between makes this reading empty too. That is why DdlLoop's tables are never empty.
    """

    PARTS: tuple[compare.Part, ...] = ("tables", "large_objects")

    def __init__(self, server: PgServer, dbname: str | None = None) -> None:
        self._server = server
        self._dbname = dbname or server.database

    def content_at(
        self, snapshot_id: str, parts: Sequence[compare.Part] = PARTS, *, lock_timeout: str = "10s"
    ) -> compare.State:
        """Read tables and large objects inside the snapshot. Sequences are left out: they know no snapshots.

        DDL that queues behind the snapshot's holder stops this reader too, until the lock_timeout; see paused().
        """
        with contextlib.closing(self._server.connect(self._dbname, options=compare.CALM)) as conn:
            conn.autocommit = True
            with conn.cursor() as cur:
                cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cur.execute("SET TRANSACTION SNAPSHOT %s", (snapshot_id,))
                cur.execute("SELECT set_config('lock_timeout', %s, true)", (lock_timeout,))
                state = compare.snapshot_of(conn, parts)
                cur.execute("ROLLBACK")
        return state

    def exported(self) -> list[str]:
        """Return the snapshots that are exported at this moment, from the server's data directory."""
        folder = self._server.data / "pg_snapshots"
        return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".tmp"))

    def wait_exported(self, *, timeout: float = PATIENCE) -> str:
        """Wait until somebody exports a snapshot, and return its name."""
        deadline = time.monotonic() + timeout
        while not (found := self.exported()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no exported snapshot within {timeout} s")
            time.sleep(0.002)
        return found[0]

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """Hold a snapshot of our own, taken the right way round: locks first."""
        with (
            contextlib.closing(self._server.connect(self._dbname, options=compare.CALM, autocommit=True)) as conn,
            conn.cursor() as cur,
        ):
            cur.execute(
                "SELECT string_agg(format('%I.%I', nspname, relname), ', ') FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ('r', 'p')"
                " AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_t'"
            )
            (names,) = cur.fetchone() or (None,)
            cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if names:
                cur.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            cur.execute("SELECT pg_export_snapshot()")
            (snapshot_id,) = cur.fetchone() or ("",)
            yield snapshot_id
            cur.execute("ROLLBACK")


def content_at(server: PgServer, dbname: str, snapshot_id: str) -> compare.State:
    """Return the tables of a database as they are in an exported snapshot."""
    content: compare.State = SourceTruth(server, dbname).content_at(snapshot_id, ("tables",))["tables"]
    return content
