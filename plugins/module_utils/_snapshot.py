# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""One moment of a database, held open: locks first, then the snapshot; and a watch on whom that blocks.

TRUNCATE and rewriting ALTER TABLE are not seen by older snapshots as of their time, so a snapshot that is taken before
the locks can show empty tables. LOCK TABLE takes no snapshot; the first query after it does.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._contents import list_tables
from ansible_collections.mazevault.backup.plugins.module_utils._errors import Retry
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    Server,
    Session,
    SqlError,
    literal,
    prepare_reading,
    qualified,
)

# lock not available, query cancelled, undefined table or schema, deadlock, "cache lookup failed"
# Seconds without an answer after which a server counts as paused or lost.
_SILENCE = 60.0
RETRY_CODES = ("55P03", "57014", "42P01", "3F000", "40P01", "XX000", "42704", "42883")


class Snapshot:
    """An open transaction whose exported snapshot serves the dump, the counts and the digests."""

    def __init__(self, session: Session, exported: str, recovery_point: str, version: str) -> None:
        self.session = session
        self.exported = exported
        self.recovery_point = recovery_point
        self.server_version = version

    def release(self) -> None:
        self.session.close()


def take_snapshot(server: Server, application: str, *, lock_timeout: float) -> Snapshot:
    """Lock every table, export a snapshot, make sure that the locked tables are the tables of the snapshot.

    Args:
        lock_timeout: seconds to wait for the locks, and later for any one lock that reading needs. Without it a
            sequence that somebody is about to drop would stop this session, and all who wait for it, for ever.
    Raises:
        Retry: a table came, went or was locked by somebody else meanwhile.
    """
    session = server.connect(application)
    try:
        prepare_reading(session)
        before = list_tables(session)
        session.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        patience = max(1, int(lock_timeout * 1000))
        # Some tables are locked while the next one is waited for: it is the sum that counts.
        session.execute(f"SET LOCAL lock_timeout = {patience}", f"SET LOCAL statement_timeout = {patience}")
        names = [qualified(schema, name) for _oid, schema, name, _kind, _persistence, _condition in before]
        for start in range(0, len(names), 500):
            session.execute(f"LOCK TABLE ONLY {', ONLY '.join(names[start : start + 500])} IN ACCESS SHARE MODE")
        # statement_timestamp() is taken before the snapshot: whatever was committed before it is inside.
        moment, exported, version = session.query(
            "SELECT pg_catalog.to_char(pg_catalog.statement_timestamp() AT TIME ZONE 'UTC',"
            ' \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\') AS moment, pg_catalog.pg_export_snapshot() AS exported,'
            " pg_catalog.current_setting('server_version') AS version"
        )[0]
        session.execute("SET LOCAL statement_timeout = 0")
        after = list_tables(session)
    except SqlError as exc:
        session.close()
        if exc.code in RETRY_CODES:
            raise Retry(
                f"no snapshot: {exc.msg}", hint="The schema is being changed; try again when that is over."
            ) from exc
        raise
    except BaseException:
        session.close()
        raise
    if after != before:
        session.close()
        raise Retry(
            "no snapshot: tables were created, dropped or renamed while they were being locked",
            hint="The schema is being changed; try again when that is over.",
        )
    return Snapshot(session, exported, moment, version)


@dataclass(frozen=True)
class Waits:
    """How sessions wait for each other.

    Attributes:
        others: seconds that the session waiting longest for us has waited; 0.0 when nobody does.
        own: seconds that one of ours has waited for somebody else.
        circle: one of ours waits for a session that waits for another of ours. That won't end by itself.
    """

    others: float
    own: float
    circle: bool


class BlockWatch:
    """Sees how long other sessions wait for locks that the sessions of this run hold.

    A queued ALTER TABLE waits for us, a dump queues behind it, and we wait for the dump: the server can't see that
    cycle.
    """

    def __init__(self, server: Server, application: str) -> None:
        self._application = application
        self._session = server.connect(f"{application} watch")

    def look(self) -> Waits:
        """Who waits at this moment."""
        name = literal(self._application)
        return Waits(
            *self._session.query(
                f"""WITH ours AS (SELECT array_agg(pid) AS pids FROM pg_catalog.pg_stat_activity
                                   WHERE application_name = {name}),
                         waiting AS (
                        SELECT l.pid, l.pid = ANY (o.pids) AS own, b.pids, b.pids && o.pids AS for_us,
                               extract(epoch FROM pg_catalog.clock_timestamp() - l.waitstart)::float8 AS seconds
                          FROM pg_catalog.pg_locks l CROSS JOIN ours o
                         CROSS JOIN LATERAL (SELECT pg_catalog.pg_blocking_pids(l.pid) AS pids) b
                         WHERE NOT l.granted AND l.waitstart IS NOT NULL)
                    SELECT coalesce(max(seconds) FILTER (WHERE for_us AND NOT own), 0) AS others,
                           coalesce(max(seconds) FILTER (WHERE own), 0) AS own,
                           coalesce(bool_or(own AND EXISTS (SELECT FROM waiting w WHERE w.pid = ANY (waiting.pids)
                                                               AND w.for_us AND NOT w.own)), false) AS circle
                      FROM waiting""",
                timeout=_SILENCE,
            )[0]
        )

    def end_own_sessions(self) -> None:
        """End sessions of this run that their programs left behind."""
        self._session.execute(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
            f" WHERE application_name = {literal(self._application)} AND usename = current_user"
        )

    def close(self) -> None:
        self._session.close()
