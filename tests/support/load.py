# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load on a source while it is dumped."""

from __future__ import annotations

import abc
import collections
import contextlib
import io
import itertools
import random
import threading
import time
import typing as t
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import connection

Connect = Callable[[], connection]
Values = Sequence[t.Any] | None

PATIENCE = 30.0


@dataclass(frozen=True)
class Failure:
    """One statement that failed; `at` is time.monotonic()."""

    at: float
    operation: str
    message: str


@dataclass
class Measure:
    """What one client did and how long it waited."""

    operations: collections.Counter[str] = field(default_factory=collections.Counter)
    longest: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    running: tuple[str, float] | None = None

    def snapshot(self) -> Measure:
        """Return a copy in which the statement that still runs counts with its time so far."""
        copy = Measure(self.operations.copy(), dict(self.longest), list(self.failures))
        if (running := self.running) is not None:
            operation, since = running
            copy.longest[operation] = max(copy.longest.get(operation, 0.0), time.monotonic() - since)
        return copy

    def add(self, other: Measure) -> None:
        """Take in what another client did."""
        self.operations.update(other.operations)
        self.failures += other.failures
        for operation, seconds in other.longest.items():
            self.longest[operation] = max(self.longest.get(operation, 0.0), seconds)

    @property
    def longest_wait(self) -> float:
        """The longest time that any one statement took."""
        return max(self.longest.values(), default=0.0)

    @property
    def total(self) -> int:
        """How many operations were done."""
        return self.operations.total()


class Session:
    """One connection whose every statement is timed."""

    def __init__(self, connect: Connect, measure: Measure) -> None:
        self._connect = connect
        self._measure = measure
        self.conn: connection | None = None
        self.last = "none"
        self.busy = False

    def cancel(self) -> None:
        """Cancel the statement that runs, from another thread."""
        if self.conn is not None:
            with contextlib.suppress(psycopg2.Error):
                self.conn.cancel()

    def run(self, operation: str, statement: str, values: Values = None) -> list[tuple[t.Any, ...]]:
        """Run one statement."""
        with self._timed(operation) as cur:
            cur.execute(statement, values)
            return cur.fetchall() if cur.description else []

    def copy(self, operation: str, statement: str, lines: t.IO[bytes]) -> None:
        """Run one COPY FROM STDIN."""
        with self._timed(operation) as cur:
            cur.copy_expert(statement, lines)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end; roll back after an error."""
        self.run("begin", "BEGIN")
        try:
            yield
            self.run("commit", "COMMIT")
        except BaseException:
            if self.conn is not None and not self.conn.closed:
                with contextlib.suppress(psycopg2.Error), self.conn.cursor() as cur:
                    cur.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """End the session."""
        if self.conn is not None:
            self.conn.close()

    @contextlib.contextmanager
    def _timed(self, operation: str) -> Iterator[t.Any]:
        started = time.monotonic()
        self.last = operation
        self._measure.running = (operation, started)
        try:
            if self.conn is None or self.conn.closed:
                self.conn = self._connect()
                self.conn.autocommit = True
            with self.conn.cursor() as cur:
                yield cur
        finally:
            seconds = time.monotonic() - started
            self._measure.longest[operation] = max(self._measure.longest.get(operation, 0.0), seconds)
            self._measure.running = None


class _Load(abc.ABC):
    """Threads that work until they are told to stop."""

    def __init__(self, connect: Connect, *, threads: int, seed: int, pause: float) -> None:
        self._connect = connect
        self._seed = seed
        self._pause = pause
        self._stopping = threading.Event()
        self._resumed = threading.Event()
        self._resumed.set()
        self._measures = [Measure() for _number in range(threads)]
        self._sessions: list[Session] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the threads."""
        if self._threads:
            raise RuntimeError("the load has been started already")
        for number, measure in enumerate(self._measures):
            session = Session(self._connect, measure)
            self._sessions.append(session)
            arguments = (session, measure, random.Random(self._seed + number))
            self._threads.append(threading.Thread(target=self._loop, args=arguments, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout: float = PATIENCE) -> Measure:
        """Stop; a statement that waits longer than the timeout is cancelled. Returns what was done."""
        self._stopping.set()
        self._resumed.set()
        deadline = time.monotonic() + timeout
        for thread, session in zip(self._threads, self._sessions, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                session.cancel()
                thread.join(PATIENCE)
            if thread.is_alive():
                raise RuntimeError("a thread of the load does not end")
        return self.measure

    @contextlib.contextmanager
    def paused(self, *, timeout: float = 1.0) -> Iterator[None]:
        """Do nothing for a while. A statement that waits longer than the timeout is cancelled, and shows as a failure.

        For a reader that would otherwise queue behind it: DDL that waits for the holder of a snapshot stops all others.
        """
        self._resumed.clear()
        try:
            deadline = time.monotonic() + timeout
            while any(session.busy for session in self._sessions):
                if time.monotonic() > deadline:
                    for session in self._sessions:
                        session.cancel()
                if time.monotonic() > deadline + PATIENCE:
                    raise RuntimeError("the load does not pause")
                time.sleep(0.005)
            yield
        finally:
            self._resumed.set()

    @property
    def measure(self) -> Measure:
        """What all threads did so far."""
        total = Measure()
        for measure in self._measures:
            total.add(measure.snapshot())
        return total

    def wait_for(self, operations: int, *, timeout: float = PATIENCE) -> None:
        """Wait until so many more operations are done: the load is really running."""
        goal = self.measure.total + operations
        deadline = time.monotonic() + timeout
        while (now := self.measure).total < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {now.total} of {goal} operations in {timeout} s; last: {now.failures[-1:]}")
            time.sleep(0.01)

    def _loop(self, session: Session, measure: Measure, rng: random.Random) -> None:
        while not self._stopping.is_set():
            session.busy = True
            try:
                if self._resumed.is_set():
                    measure.operations[self._step(session, rng)] += 1
            except psycopg2.Error as exc:
                measure.failures.append(Failure(time.monotonic(), session.last, f"{type(exc).__name__}: {exc}".strip()))
                if session.conn is not None and not session.conn.closed:
                    session.conn.close()
                self._stopping.wait(0.02)
            finally:
                session.busy = False
            self._resumed.wait()
            if self._pause:
                self._stopping.wait(self._pause)
        session.close()

    @abc.abstractmethod
    def _step(self, session: Session, rng: random.Random) -> str:
        """Do one operation and return its name."""


_ACCOUNTS = 50
_BALANCE = 1000

_WRITERS_SCHEMA = f"""
CREATE SCHEMA load;
CREATE TABLE load.accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE load.customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, changed timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE load.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES load.customers, line_count integer NOT NULL, note text
);
CREATE INDEX ON load.orders (customer_id);
CREATE TABLE load.lines (
  order_id bigint NOT NULL REFERENCES load.orders ON DELETE CASCADE, n integer NOT NULL, price numeric NOT NULL,
  PRIMARY KEY (order_id, n)
);
CREATE TABLE load.audit (
  id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), body jsonb NOT NULL
);
CREATE TABLE load.blobs (id bigserial PRIMARY KEY, data bytea NOT NULL);
INSERT INTO load.accounts SELECT n, {_BALANCE} FROM generate_series(1, {_ACCOUNTS}) AS n;
INSERT INTO load.customers (name) SELECT 'customer ' || n FROM generate_series(1, 100) AS n;
INSERT INTO load.orders (customer_id, line_count, note)
SELECT 1 + n % 100, 2, repeat('note ', n % 50) FROM generate_series(1, 500) AS n;
INSERT INTO load.lines SELECT o.id, n, 1.50 * n FROM load.orders AS o, generate_series(1, 2) AS n;
INSERT INTO load.audit (body) SELECT jsonb_build_object('n', n) FROM generate_series(1, 500) AS n;
INSERT INTO load.blobs (data) VALUES (decode(repeat('00ff5c0a', 25000), 'hex'));
"""


class Writers(_Load):
    """Clients that insert, change, delete and COPY at full speed, and keep some sums true in each transaction."""

    def __init__(
        self, connect: Connect, *, threads: int = 4, seed: int = 1, pause: float = 0.0, big_row: int = 1_000_000
    ) -> None:
        super().__init__(connect, threads=threads, seed=seed, pause=pause)
        self._big_row = big_row
        self._steps = (self._transfer, self._order, self._change, self._delete, self._log, self._blob)
        self._weights = (30, 20, 20, 15, 14, 1)

    @staticmethod
    def prepare(connect: Connect) -> None:
        """Make the tables, in the schema `load`."""
        with contextlib.closing(connect()) as conn, conn as _transaction, conn.cursor() as cur:
            cur.execute(_WRITERS_SCHEMA)

    @staticmethod
    def faults(conn: connection) -> list[str]:
        """Say what can't be true of any one moment of the source; empty when all is well."""
        checks = {
            "the accounts' sum": f"SELECT sum(balance) IS DISTINCT FROM {_ACCOUNTS * _BALANCE} FROM load.accounts",
            "an order's number of lines": "SELECT EXISTS (SELECT FROM load.orders AS o WHERE line_count <> "
            "(SELECT count(*) FROM load.lines AS l WHERE l.order_id = o.id))",
            "a line without its order": "SELECT EXISTS (SELECT FROM load.lines AS l WHERE NOT EXISTS "
            "(SELECT FROM load.orders AS o WHERE o.id = l.order_id))",
            "an order without its customer": "SELECT EXISTS (SELECT FROM load.orders AS o WHERE NOT EXISTS "
            "(SELECT FROM load.customers AS c WHERE c.id = o.customer_id))",
        }
        for table in ("accounts", "customers", "orders", "lines", "audit", "blobs"):
            checks[f"{table} is empty"] = f"SELECT NOT EXISTS (SELECT FROM load.{table})"
        return _failed_checks(conn, checks)

    def _step(self, session: Session, rng: random.Random) -> str:
        step = rng.choices(self._steps, self._weights)[0]
        step(session, rng)
        return step.__name__.strip("_")

    def _transfer(self, session: Session, rng: random.Random) -> None:
        low, high = sorted(rng.sample(range(1, _ACCOUNTS + 1), 2))
        amount = rng.randint(-20, 20)
        with session.transaction():
            for account, change in ((low, -amount), (high, amount)):
                session.run(
                    "update", "UPDATE load.accounts SET balance = balance + %s WHERE id = %s", (change, account)
                )

    def _order(self, session: Session, rng: random.Random) -> None:
        count = rng.randint(1, 5)
        with session.transaction():
            order = session.run(
                "insert",
                "INSERT INTO load.orders (customer_id, line_count, note) VALUES (%s, %s, %s) RETURNING id",
                (rng.randint(1, 100), count, "n" * rng.randint(0, 300)),
            )[0][0]
            session.run(
                "insert",
                "INSERT INTO load.lines SELECT %s, n, n * 1.5 FROM generate_series(1, %s) AS n",
                (order, count),
            )

    def _change(self, session: Session, rng: random.Random) -> None:
        statement = "UPDATE load.customers SET name = %s, changed = clock_timestamp() WHERE id = %s"
        session.run("update", statement, (f"customer {rng.random()}", rng.randint(1, 100)))

    def _delete(self, session: Session, rng: random.Random) -> None:
        """Delete an old order while more than 500 are there."""
        session.run(
            "delete",
            "DELETE FROM load.orders WHERE id = (SELECT id FROM load.orders ORDER BY id OFFSET %s LIMIT 1)"
            " AND (SELECT count(*) FROM (SELECT FROM load.orders LIMIT 501) AS few) > 500",
            (rng.randint(0, 20),),
        )

    def _log(self, session: Session, rng: random.Random) -> None:
        session.run("insert", "INSERT INTO load.audit (body) VALUES (jsonb_build_object('x', %s))", (rng.random(),))

    def _blob(self, session: Session, rng: random.Random) -> None:
        """COPY one big row in, and keep the newest five."""
        line = rb"\\x" + rng.randbytes(self._big_row).hex().encode() + b"\n"
        with session.transaction():
            session.copy("copy", "COPY load.blobs (data) FROM STDIN", io.BytesIO(line))
            session.run("delete", "DELETE FROM load.blobs WHERE id < (SELECT max(id) - 4 FROM load.blobs)")


_DDL_ROWS = 1000

_DDL_SCHEMA = f"""
CREATE SCHEMA ddl;
CREATE TABLE ddl.truncated (id integer PRIMARY KEY, round bigint NOT NULL);
CREATE TABLE ddl.rewritten (id integer PRIMARY KEY, v integer NOT NULL, round bigint NOT NULL DEFAULT 0);
CREATE TABLE ddl.widened (id integer PRIMARY KEY, round bigint NOT NULL DEFAULT 0);
CREATE TABLE ddl.replaced (id integer PRIMARY KEY, round bigint NOT NULL);
INSERT INTO ddl.truncated SELECT n, 0 FROM generate_series(1, {_DDL_ROWS}) AS n;
INSERT INTO ddl.rewritten SELECT n, n FROM generate_series(1, {_DDL_ROWS}) AS n;
INSERT INTO ddl.widened SELECT n FROM generate_series(1, {_DDL_ROWS}) AS n;
INSERT INTO ddl.replaced SELECT n, 0 FROM generate_series(1, {_DDL_ROWS}) AS n;
"""

DdlStep = t.Literal["truncate", "rewrite", "widen", "replace", "make"]


class DdlLoop(_Load):
    """A client that truncates, rewrites, replaces and makes tables and other things, again and again.

    After each of its transactions every table of the schema `ddl` has exactly ROWS rows, so a restore in which one has
    another number was taken from no true moment of the source. Nobody sets a lock_timeout, as migrations don't.
    """

    ROWS = _DDL_ROWS

    def __init__(
        self,
        connect: Connect,
        *,
        seed: int = 1,
        pause: float = 0.0,
        steps: Sequence[DdlStep] = t.get_args(DdlStep),
        widest: int = 500,
    ) -> None:
        super().__init__(connect, threads=1, seed=seed, pause=pause)
        self._steps = list(steps)
        self._round = itertools.count(1)
        self._added = 0
        # A dropped column counts towards the limit of 1600, so the table is made anew after so many.
        self._widest = widest

    @staticmethod
    def prepare(connect: Connect) -> None:
        """Make the tables, in the schema `ddl`."""
        with contextlib.closing(connect()) as conn, conn as _transaction, conn.cursor() as cur:
            cur.execute(_DDL_SCHEMA)

    @staticmethod
    def faults(conn: connection) -> list[str]:
        """Say which table has another number of rows than it ever had; empty when all is well."""
        with conn.cursor() as cur:
            cur.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'ddl'::regnamespace")
            names = [name for (name,) in cur.fetchall()]
            found = [] if len(names) >= 4 else [f"only the tables {sorted(names)} are there"]
            for name in names:
                cur.execute(f"SELECT count(*), count(DISTINCT round) FROM ddl.{name}")
                rows, rounds = cur.fetchone() or (0, 0)
                if rows != _DDL_ROWS or rounds != 1:
                    found.append(f"ddl.{name} has {rows} rows of {rounds} rounds, not {_DDL_ROWS} of one")
        return found

    def _step(self, session: Session, rng: random.Random) -> str:
        step = rng.choice(self._steps)
        getattr(self, f"_{step}")(session, next(self._round))
        return step

    def _fill(self, session: Session, table: str, number: int) -> None:
        statement = f"INSERT INTO ddl.{table} (id, round) SELECT n, %s FROM generate_series(1, {_DDL_ROWS}) AS n"
        session.run("insert", statement, (number,))

    def _truncate(self, session: Session, number: int) -> None:
        with session.transaction():
            session.run("truncate", "TRUNCATE ddl.truncated")
            self._fill(session, "truncated", number)

    def _rewrite(self, session: Session, number: int) -> None:
        kind = ("bigint", "integer", "text")[number % 3]
        session.run("alter type", f"ALTER TABLE ddl.rewritten ALTER COLUMN v TYPE {kind} USING v::{kind}")

    def _widen(self, session: Session, number: int) -> None:
        """Add a column with a volatile default, which rewrites the table, and drop the one before."""
        with session.transaction():
            if self._added >= self._widest:
                session.run("drop", "DROP TABLE ddl.widened")
                session.run(
                    "create", "CREATE TABLE ddl.widened (id integer PRIMARY KEY, round bigint NOT NULL DEFAULT 0)"
                )
                self._fill(session, "widened", 0)
                self._added = 0
            columns = session.run(
                "select",
                "SELECT attname FROM pg_attribute WHERE attrelid = 'ddl.widened'::regclass AND attname ~ '^added_'",
            )
            for (column,) in columns:
                session.run("drop column", f"ALTER TABLE ddl.widened DROP COLUMN {column}")
            session.run(
                "add column", f"ALTER TABLE ddl.widened ADD COLUMN added_{number} uuid DEFAULT gen_random_uuid()"
            )
            self._added += 1

    def _replace(self, session: Session, number: int) -> None:
        with session.transaction():
            session.run("drop", "DROP TABLE ddl.replaced")
            session.run("create", "CREATE TABLE ddl.replaced (id integer PRIMARY KEY, round bigint NOT NULL)")
            self._fill(session, "replaced", number)

    def _make(self, session: Session, number: int) -> None:
        """Make a table with rows, a sequence, a function and a view, and drop them."""
        with session.transaction():
            session.run("create", f"CREATE TABLE ddl.made_{number} (id integer PRIMARY KEY, round bigint NOT NULL)")
            self._fill(session, f"made_{number}", number)
        session.run("create", f"CREATE SEQUENCE ddl.sequence_{number}")
        session.run("create", f"CREATE FUNCTION ddl.function_{number}() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        session.run("create", f"CREATE VIEW ddl.view_{number} AS SELECT * FROM ddl.made_{number}")
        session.run("drop", f"DROP VIEW ddl.view_{number}")
        session.run("drop", f"DROP FUNCTION ddl.function_{number}")
        session.run("drop", f"DROP SEQUENCE ddl.sequence_{number}")
        session.run("drop", f"DROP TABLE ddl.made_{number}")


def _failed_checks(conn: connection, checks: dict[str, str]) -> list[str]:
    with conn.cursor() as cur:
        failed = []
        for name, statement in checks.items():
            cur.execute(statement)
            if (cur.fetchone() or (True,))[0]:
                failed.append(name)
    return failed
