# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three health answers of the API; they need no token but the last."""

from __future__ import annotations

import socket
import time
import urllib.request
from urllib.parse import urlsplit

from psycopg2.extensions import cursor as Cursor

from . import config
from .database import Database
from .errors import DatabaseUnavailable
from .heartbeat import Heartbeat

NOT_CONFIGURED = "not_configured"


def _word(healthy: bool) -> str:
    return "healthy" if healthy else "unhealthy"


def redis(url: str) -> str:
    if not url:
        return NOT_CONFIGURED
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "localhost", parts.port or 6379), timeout=1) as link:
            link.sendall(b"PING\r\n")
            # A server that wants a password first is alive, too.
            return _word(link.recv(64)[:1] in (b"+", b"-"))
    except OSError:
        return _word(False)


def ocsp(url: str) -> str:
    if not url:
        return NOT_CONFIGURED
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/ready", timeout=1) as reply:
            return _word(reply.status == 200)
    except OSError:
        return _word(False)


def database(source: Database) -> tuple[bool, dict[str, object]]:
    started = time.monotonic()
    try:
        with source.transaction() as cursor:
            cursor.execute(
                "SELECT count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state LIKE 'idle%'),"
                " current_setting('max_connections')::int FROM pg_stat_activity WHERE datname = current_database()"
            )
            row = cursor.fetchone() or (0, 0, 0)
    except DatabaseUnavailable as error:
        return False, {"status": "unhealthy", "error": str(error)}
    latency = round((time.monotonic() - started) * 1000, 2)
    connections = {"active": row[0], "idle": row[1], "max": row[2]}
    return True, {"status": "healthy", "latency_ms": latency, "connections": connections}


def overall(source: Database) -> tuple[bool, dict[str, object]]:
    """The OCSP responder is reported but does not decide: it may start later than the API."""
    alive, _details = database(source)
    components = {
        "database": _word(alive),
        "redis": redis(config.text("REDIS_URL")),
        "ocsp": ocsp(config.text("OCSP_URL")),
    }
    healthy = alive and components["redis"] != "unhealthy"
    version = config.text("APP_VERSION", "1.0.17-standin")
    return healthy, {"status": _word(healthy), "version": version, "components": components}


def statistics(cursor: Cursor) -> dict[str, int]:
    cursor.execute(
        "SELECT (SELECT count(*) FROM secrets), (SELECT count(*) FROM certificates),"
        " (SELECT count(*) FROM users WHERE status = 'active')"
    )
    row = cursor.fetchone() or (0, 0, 0)
    # The stand-in has no agents.
    return {"total_secrets": row[0], "total_certificates": row[1], "active_agents": 0, "active_users": row[2]}


def licence(heartbeat: Heartbeat) -> dict[str, object]:
    last = heartbeat.last
    return {
        "status": "valid",
        "expires_at": "2036-01-01T00:00:00Z",
        "tier": "stand-in",
        "heartbeat": {"at": last.at, "outcome": last.outcome} if last else None,
    }
