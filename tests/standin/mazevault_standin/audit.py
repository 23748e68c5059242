# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log, chained: each hash covers the former hash and the event."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

GENESIS = "0" * 64
LOCK_ID = 7_205_760


@dataclass(frozen=True)
class Verdict:
    events: int
    head: str
    broken_id: int | None


def timestamp(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def chain_hash(
    previous: str,
    created_at: str,
    user_id: int | None,
    action: str,
    entity_type: str,
    entity_id: str,
    severity: str,
    details: str,
) -> str:
    serialised = json.dumps([created_at, user_id, action, entity_type, entity_id, severity, details])
    return hashlib.sha256(f"{previous}{serialised}".encode()).hexdigest()


def append(
    cursor: Cursor,
    user_id: int,
    action: str,
    entity_id: int,
    details: dict[str, object],
    severity: str = "info",
) -> None:
    """Within the caller's transaction; the lock keeps the chain a line until commit."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_ID,))
    cursor.execute("SELECT chain_hash FROM audit_logs ORDER BY id DESC LIMIT 1")
    row = cursor.fetchone()
    created_at = timestamp(datetime.now(UTC))
    event = (created_at, user_id, action, action.split(".")[0], str(entity_id), severity, json.dumps(details))
    cursor.execute(
        "INSERT INTO audit_logs"
        " (created_at, user_id, action, entity_type, entity_id, severity, details, chain_hash)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (*event, chain_hash(row[0] if row else GENESIS, *event)),
    )


def verify(connection: Connection) -> Verdict:
    """Walk the whole chain; a cut at its end cannot be seen from inside."""
    head, count = GENESIS, 0
    with connection, connection.cursor(name="audit_chain") as cursor:
        cursor.itersize = 20_000
        cursor.execute(
            "SELECT id, chain_hash, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),"
            " user_id, action, entity_type, entity_id, severity, details::text FROM audit_logs ORDER BY id"
        )
        for event_id, stored, *event in cursor:
            if chain_hash(head, *event) != stored:
                return Verdict(count, head, int(event_id))
            head, count = stored, count + 1
    return Verdict(count, head, None)
