# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to PostgreSQL that survive ended sessions and a replaced database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from .crypto import Keyring
from .errors import DatabaseUnavailable, UsageError, WrongMasterKey

LOST = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.errors.UndefinedTable)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def connect(url: str, name: str) -> Connection:
    try:
        return psycopg2.connect(url, connect_timeout=3, application_name=name)
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"database not reachable: {first_line(error)}") from None
    except psycopg2.ProgrammingError:
        # Its text repeats parts of the URL, perhaps the password.
        raise UsageError("DATABASE_URL is not a connection string") from None


class Database:
    """A small pool; a connection is tried before it is used again."""

    def __init__(self, url: str, *, name: str, idle: int = 8) -> None:
        self._url = url
        self._name = name
        self._limit = idle
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def _checkout(self) -> Connection:
        while True:
            with self._lock:
                candidate = self._idle.pop() if self._idle else None
            if candidate is None:
                return connect(self._url, self._name)
            try:
                with candidate.cursor() as cursor:
                    cursor.execute("SELECT 1")
                candidate.rollback()
                return candidate
            except psycopg2.Error:
                with suppress(psycopg2.Error):
                    candidate.close()

    def _give_back(self, used: Connection) -> None:
        with self._lock:
            if not used.closed and len(self._idle) < self._limit:
                self._idle.append(used)
                return
        used.close()

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Commits at the end; nothing is tried twice, so no write can happen twice."""
        used = self._checkout()
        try:
            with used, used.cursor() as cursor:
                yield cursor
        except LOST as error:
            used.close()
            raise DatabaseUnavailable(f"database not usable: {first_line(error)}") from None
        finally:
            self._give_back(used)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait for the server at start, as a container that is restarted would."""
        deadline = time.monotonic() + seconds
        while not stop.is_set():
            try:
                with self.transaction() as cursor:
                    cursor.execute("SELECT 1")
                return
            except DatabaseUnavailable:
                if time.monotonic() >= deadline:
                    raise
                stop.wait(0.2)


def check_master_key(cursor: Cursor, keyring: Keyring) -> None:
    """Refuse a wrong key; remember the key's check value in a database without any ciphertext."""
    cursor.execute("SELECT sealed FROM key_checks")
    if row := cursor.fetchone():
        if not keyring.accepts(bytes(row[0])):
            raise WrongMasterKey("wrong master key: MAZEVAULT_MASTER_KEY does not open this database")
        return
    cursor.execute("SELECT EXISTS (SELECT FROM secret_versions)")
    if (found := cursor.fetchone()) and found[0]:
        raise WrongMasterKey("the database holds ciphertext but no key check: the master key cannot be confirmed")
    cursor.execute("INSERT INTO key_checks (sealed) VALUES (%s)", (keyring.seal_check(),))
