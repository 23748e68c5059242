# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Putting another database in the live one's place: both renames in one transaction, a journal around it.

Names say nothing after a crash; which of the two object ids bears the live name does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._engine import is_away
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._process import ProcessRunner
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    MissingDatabase,
    Server,
    Session,
    SqlError,
    ident,
    literal,
)

JOURNAL = "swap.json"
FINISHED = ("done", "nothing happened")
_LONGEST_NAME = 63


@dataclass
class Journal:
    """What a swap is about and how far it went; written before each step.

    Attributes:
        live_oid: object id of the database that bears the live name now; 0 where there is none.
        incoming: name of the database that takes its place.
        kept: name that the live one gets.
        comment: the live database's comment, as the incoming one is to have it (None: leave it).
        stop, start: argument lists that stop and start the application; empty: nothing to stop.
    """

    database: str
    live_oid: int
    incoming: str
    incoming_oid: int
    kept: str
    comment: str | None
    stop: list[str]
    start: list[str]
    state: str = "planned"
    set_comment: bool = False
    times: dict[str, str] = field(default_factory=dict)
    path: str = ""

    def enter(self, state: str) -> None:
        self.state = state
        self.times[state] = _clock.rfc3339(_clock.now())
        write_json(self.path, asdict(self))


def load_journal(folder: str) -> Journal | None:
    path = os.path.join(folder, JOURNAL)
    return Journal(**{**read_json(path), "path": path}) if os.path.isfile(path) else None


def unfinished_swap(folder: str) -> str:
    """The database whose swap was broken off in this staging folder, or an empty string."""
    journal = load_journal(folder)
    return journal.database if journal is not None and journal.state not in FINISHED else ""


def maintenance(server: Server) -> Server:
    """The server by a database that is neither side of a swap."""
    for name in ("postgres", "template1"):
        if name == server.database:
            continue
        with contextlib.suppress(MissingDatabase):
            server.on(name).connect().close()
            return server.on(name)
    raise BackupError("host: the server has neither a database postgres nor template1 to work from")


def oid_of(session: Session, name: str) -> int:
    rows = session.query(f"SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = {literal(name)}")
    return int(rows[0][0]) if rows else 0


def derived_name(database: str, word: str, stamp: str) -> str:
    """`<database>_<word>_<stamp>`, the database's part cut so that the server doesn't have to."""
    tail = f"_{word}_{stamp}"
    head = database.encode()[: _LONGEST_NAME - len(tail)].decode("utf-8", "ignore")
    return head + tail


def derived_prefix(database: str, word: str) -> str:
    """What all these names begin with, whatever their stamps are."""
    stamp = "00000000_000000"
    return derived_name(database, word, stamp)[: -len(stamp)]


def obstacles(session: Session, database: str) -> dict[str, str]:
    """What would break or be torn apart by renaming this database."""
    name = literal(database)
    found = {}
    for key, sql, words in (
        (
            "prepared_transactions",
            f"SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = {name}",
            "prepared transactions hold it",
        ),
        (
            "logical_slots",
            f"SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND database = {name}",
            "logical replication slots would stay with the old database and hold WAL back",
        ),
        (
            "subscriptions",
            "SELECT count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid"
            f" WHERE d.datname = {name}",
            "subscriptions would exist twice, both owning the same remote slot",
        ),
    ):
        count = session.query(sql)[0][0]
        if count:
            found[key] = f"{count} {words}"
    return found


def check_obstacles(session: Session, database: str, accepted: t.Container[str]) -> None:
    for key, words in obstacles(session, database).items():
        if key == "prepared_transactions" or key not in accepted:
            raise BackupError(
                f"database: {database}: {words}",
                hint="Commit or roll them back first."
                if key == "prepared_transactions"
                else f"Remove them, or accept it: accept={key}",
            )


class Application:
    """The application that uses the database, by the commands that stop and start it."""

    def __init__(
        self, processes: ProcessRunner, stop: t.Sequence[str], start: t.Sequence[str], *, timeout: float
    ) -> None:
        self._processes, self._stop, self._start, self._timeout = processes, list(stop), list(start), timeout

    def stop(self) -> None:
        if self._stop:
            self._processes.run(self._stop, timeout=self._timeout).check("application: stop")

    def start(self) -> None:
        """Start it; an engine that is being restarted is waited for, so that the application doesn't stay down."""
        if not self._start:
            return
        end = time.monotonic() + self._timeout
        while True:
            result = self._processes.run(self._start, timeout=self._timeout)
            if not is_away(result) or time.monotonic() > end:
                break
            time.sleep(1)
        result.check("application: start", hint=f"Start it by hand: {' '.join(self._start)}")


def perform(
    server: Server, journal: Journal, application: Application, step: t.Callable[[str], None]
) -> dict[str, t.Any]:
    """Stop the application, swap, start it whatever happened."""
    # Whatever takes time to begin begins before the application is stopped.
    with _sessions(server) as (session, helper):
        started = begin = time.monotonic()
        journal.enter("stopping")
        step("swap: stop the application")
        try:
            application.stop()
            journal.enter("swapping")
            step("swap: rename")
            begin = time.monotonic()
            _rename(session, helper, journal, step)
            swap_seconds = time.monotonic() - begin
            journal.enter("swapped")
            step("swap: renamed")
        except BaseException as exc:
            # A connection that was lost at the commit leaves open what the server did.
            if finish(server, journal, application) != "done" or not isinstance(exc, BackupError):
                raise
            swap_seconds = time.monotonic() - begin
        else:
            step("swap: start the application")
            application.start()
        stopped_seconds = time.monotonic() - started
    journal.enter("started")
    step("swap: started")
    journal.enter("done")
    return {
        "swap_seconds": round(swap_seconds, 3),
        "stopped_seconds": round(stopped_seconds, 3),
        "times": journal.times,
    }


@contextlib.contextmanager
def _sessions(server: Server) -> t.Iterator[tuple[Session, Session]]:
    """(session that renames, session that ends others)."""
    admin = maintenance(server)
    with admin.session("mazevault.backup swap") as session, admin.session("mazevault.backup swap helper") as helper:
        yield session, helper


def _rename(session: Session, helper: Session, journal: Journal, step: t.Callable[[str], None]) -> None:
    """Both renames in one transaction, while a second session ends whoever is connected.

    The first rename takes the database's lock: new connections wait for the commit instead of being refused.
    """
    with _ending_sessions(helper, (journal.database, journal.incoming)):
        session.execute("BEGIN", "SET LOCAL lock_timeout = '10s'", "SET LOCAL statement_timeout = 0")
        try:
            if (
                oid_of(session, journal.incoming) != journal.incoming_oid
                or oid_of(session, journal.database) != journal.live_oid
            ):
                raise BackupError(
                    f"database: {journal.database}: other databases bear these names by now",
                    hint="Somebody renamed, dropped or created a database meanwhile. Run the playbook again.",
                )
            if journal.live_oid:
                session.execute(f"ALTER DATABASE {ident(journal.database)} RENAME TO {ident(journal.kept)}")
                step("swap: between the renames")
            session.execute(f"ALTER DATABASE {ident(journal.incoming)} RENAME TO {ident(journal.database)}")
            if journal.set_comment:
                session.execute(f"COMMENT ON DATABASE {ident(journal.database)} IS {literal(journal.comment)}")
            step("swap: before the commit")
            session.execute("COMMIT")
        except BaseException as exc:
            with contextlib.suppress(BackupError):
                session.execute("ROLLBACK")
            if not isinstance(exc, SqlError):
                raise
            raise BackupError(
                f"database: {journal.database}: the swap was refused, nothing was changed: {exc.msg}",
                hint="The live database is as it was.",
            ) from exc


@contextlib.contextmanager
def _ending_sessions(session: Session, names: t.Sequence[str]) -> t.Iterator[None]:
    stop = threading.Event()
    listed = ", ".join(literal(name) for name in names)

    def end() -> None:
        while not stop.is_set():
            with contextlib.suppress(BackupError):
                session.execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                    f" WHERE datname IN ({listed}) AND pid <> pg_catalog.pg_backend_pid()"
                )
            stop.wait(0.02)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finish(server: Server, journal: Journal, application: Application) -> str:
    """Bring a broken-off swap to an end.

    Returns:
        `done` when the swap had been committed, else `nothing happened`; the application is started in both cases.
    """
    try:
        with maintenance(server).session("mazevault.backup swap") as session:
            swapped = oid_of(session, journal.database) == journal.incoming_oid
    finally:
        application.start()
    journal.enter("done" if swapped else "nothing happened")
    return journal.state


def kept_databases(session: Session, database: str, word: str = "before") -> list[str]:
    """Names of the databases that former swaps kept, oldest first."""
    prefix = derived_prefix(database, word)
    rows = session.query("SELECT datname::text FROM pg_catalog.pg_database ORDER BY 1")
    return [name for (name,) in rows if name.startswith(prefix) and is_stamp(name[len(prefix) :])]


def is_stamp(text: str) -> bool:
    return len(text) == 15 and text[8] == "_" and text.replace("_", "").isdigit()
