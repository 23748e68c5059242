# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that knows which of its writes were acknowledged, and when none was."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
import time
import typing as t
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import connection

from support.load import PATIENCE, Connect


@dataclass(frozen=True)
class Try:
    """One attempt to write one row, connecting included; times are time.monotonic()."""

    number: int
    started: float
    ended: float
    error: str | None

    @property
    def acked(self) -> bool:
        """Whether the server said that the row is committed."""
        return self.error is None


@dataclass(frozen=True)
class Outage:
    """From the first write that failed to the end of the first that succeeded after it (None: not yet)."""

    first_refused: float
    first_success: float | None
    refused: int
    errors: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return (time.monotonic() if self.first_success is None else self.first_success) - self.first_refused


class AckedWriter:
    """A client that writes numbered rows one by one, reconnects for ever, and knows which ones were acknowledged.

    A write that failed may still have been committed (the answer was lost); its number is not used again.
    """

    TABLE = "public.acknowledged"

    def __init__(self, connect: Connect, *, pause: float = 0.001, retry: float = 0.01) -> None:
        self._connect = connect
        self._pause = pause
        self._retry = retry
        self._tries: list[Try] = []
        self._stopping = threading.Event()
        self._conn: connection | None = None
        self._thread = threading.Thread(target=self._loop, daemon=True)

    @classmethod
    def prepare(cls, connect: Connect) -> None:
        """Make the table."""
        with contextlib.closing(connect()) as conn, conn as _transaction, conn.cursor() as cur:
            cur.execute(
                f"CREATE TABLE {cls.TABLE} (n bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self, *, timeout: float = PATIENCE) -> None:
        """Stop writing; a write that hangs longer than the timeout is cancelled."""
        self._stopping.set()
        self._thread.join(timeout)
        conn = self._conn
        if self._thread.is_alive() and conn is not None:
            with contextlib.suppress(psycopg2.Error):
                conn.cancel()
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError("the writer does not end")

    @property
    def tries(self) -> list[Try]:
        """Every attempt so far, in order."""
        return list(self._tries)

    def acked(self) -> list[int]:
        """Return the numbers of the acknowledged rows."""
        return [attempt.number for attempt in self.tries if attempt.acked]

    def outages(self) -> list[Outage]:
        """Return the times in which writes failed."""
        found = []
        for acked, group in itertools.groupby(self.tries, key=lambda attempt: attempt.acked):
            attempts = list(group)
            if acked:
                continue
            position = attempts[-1].number + 1
            after = next((attempt for attempt in self.tries[position:] if attempt.acked), None)
            errors = tuple(dict.fromkeys(attempt.error or "" for attempt in attempts))
            found.append(Outage(attempts[0].started, after.ended if after else None, len(attempts), errors))
        return found

    def longest_gap(self) -> float:
        """Return the longest time between two acknowledgements that followed each other; waiting shows here too."""
        ends = [attempt.ended for attempt in self.tries if attempt.acked]
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def acked_between(self, start: float, end: float) -> list[int]:
        """Return the rows acknowledged in an interval of time.monotonic()."""
        tries = [attempt for attempt in self.tries if attempt.acked]
        ends = [attempt.ended for attempt in tries]
        return [attempt.number for attempt in tries[bisect.bisect_left(ends, start) : bisect.bisect_right(ends, end)]]

    def wait_for(self, acked: int, *, timeout: float = PATIENCE) -> None:
        """Wait until so many more rows are acknowledged."""
        goal = len(self.acked()) + acked
        deadline = time.monotonic() + timeout
        while len(self.acked()) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not {acked} more rows in {timeout} s; last: {self.tries[-1:]}")
            time.sleep(0.01)

    def missing(self, *connections: connection) -> list[int]:
        """Return the acknowledged rows that are in none of the databases: after a swap, the old and the new one."""
        there: set[int] = set()
        for conn in connections:
            with conn.cursor() as cur:
                cur.execute(f"SELECT n FROM {self.TABLE}")
                there |= {n for (n,) in cur.fetchall()}
        return sorted(set(self.acked()) - there)

    def _loop(self) -> None:
        for number in itertools.count():
            if self._stopping.is_set():
                break
            started = time.monotonic()
            error = None
            try:
                self._write(number)
            except psycopg2.Error as exc:
                error = f"{type(exc).__name__}: {exc}".strip()
                if self._conn is not None and not self._conn.closed:
                    self._conn.close()
            self._tries.append(Try(number, started, time.monotonic(), error))
            self._stopping.wait(self._retry if error else self._pause)
        if self._conn is not None:
            self._conn.close()

    def _write(self, number: int) -> None:
        if self._conn is None or self._conn.closed:
            self._conn = self._connect()
            self._conn.autocommit = True
        with self._conn.cursor() as cur:
            cur.execute(f"INSERT INTO {self.TABLE} (n) VALUES (%s)", (number,))
