# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A session with a PostgreSQL server, and how names and values are quoted in SQL."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import discreet

try:
    import psycopg2
    import psycopg2.extensions

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

OLDEST_SERVER = 140000
# Keeps libpq from a password file that happens to lie in the home folder.
NO_PASSFILE = "/dev/null/none"
Row = tuple[t.Any, ...]
# Limits that somebody set for the application, on the server or on its role, don't hold for ours.
_OPTIONS = " ".join(
    f"-c {name}=0"
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
)
_TRANSACTION_TIMEOUT_SINCE = 170000

# Content must read the same on every server and in every session, whatever roles and databases have set.
READING = (
    "statement_timeout=0",
    "lock_timeout=0",
    "idle_in_transaction_session_timeout=0",
    "idle_session_timeout=0",
    # A long query of a killed run ends soon, and with it the locks and the snapshot.
    "client_connection_check_interval='2s'",
    "search_path=''",
    "row_security=off",
    "datestyle='ISO, YMD'",
    "intervalstyle='iso_8601'",
    "timezone='UTC'",
    "extra_float_digits=3",
    "bytea_output='hex'",
    "lc_monetary='C'",
    "lc_numeric='C'",
    "lc_time='C'",
    "xmlbinary='base64'",
    "xmloption='content'",
    "standard_conforming_strings=on",
    "quote_all_identifiers=off",
    "default_transaction_read_only=off",
    "default_transaction_deferrable=off",
    "client_min_messages='warning'",
    "jit=off",
    # An index that is damaged must not decide which rows are counted.
    "enable_indexscan=off",
    "enable_indexonlyscan=off",
    "enable_bitmapscan=off",
)


def ident(name: str) -> str:
    """A quoted SQL name."""
    if "\0" in name:
        raise ValueError("a name can't hold a NUL character")
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    return f"{ident(schema)}.{ident(name)}"


def literal(value: str | None) -> str:
    """A quoted SQL string that means the same whatever standard_conforming_strings is; None is NULL."""
    if value is None:
        return "NULL"
    if "\0" in value:
        raise ValueError("a string can't hold a NUL character")
    quoted = "'" + value.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{quoted}" if "\\" in value else quoted


class SqlError(BackupError):
    """The server refused a statement; `code` is its SQLSTATE, or empty."""

    def __init__(self, msg: str, code: str = "") -> None:
        super().__init__(msg)
        self.code = code


class Session(t.Protocol):
    """What the rest of the collection asks of a database session in autocommit mode.

    Attributes:
        pid: the server's process.
        version: server_version_num.
    """

    pid: int
    version: int

    def query(self, sql: str, *, timeout: float | None = None) -> list[Row]:
        """The rows of one SELECT.

        Numbers (not numeric), booleans, texts, arrays of them, JSON and NULL have the Python types that one expects;
        a statement must cast everything else to text.

        Args:
            timeout: seconds after which a server that doesn't answer is given up, and the session with it. A session
                by psycopg2 can't do that and waits.
        """

    def value(self, sql: str) -> t.Any:
        """The first column of the first row, or None."""

    def execute(self, *statements: str) -> None:
        """Statements without an answer, sent as one; several are one transaction outside of one."""

    def cancel(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Server:
    """How a PostgreSQL server is reached; the password stays in `passfile`.

    Attributes:
        host: name, address, or the folder of the socket.
        passfile: a libpq password file (`host:port:database:user:password`, mode 0600), or empty.
        connector: opens the sessions, given this server and an application name.
    """

    host: str
    port: int
    user: str
    database: str
    passfile: str = ""
    sslmode: str = ""
    sslrootcert: str = ""
    connector: t.Callable[[Server, str], Session] | None = field(default=None, compare=False, repr=False)

    def on(self, database: str) -> Server:
        return replace(self, database=database)

    def environment(self, application: str, *, major: int = 0) -> dict[str, str]:
        """The libpq variables for a client program; `major` is the server's version where it is known."""
        env = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": self.database,
            "PGAPPNAME": application,
            "PGCONNECT_TIMEOUT": "15",
            "PGPASSFILE": self.passfile or NO_PASSFILE,
            "PGOPTIONS": _OPTIONS,
        }
        if major * 10000 >= _TRANSACTION_TIMEOUT_SINCE:
            env["PGOPTIONS"] += " -c transaction_timeout=0"
        if self.sslmode:
            env["PGSSLMODE"] = self.sslmode
        if self.sslrootcert:
            env["PGSSLROOTCERT"] = self.sslrootcert
        return env

    def check_passfile(self) -> None:
        """libpq ignores a readable password file with a mere warning; we refuse it."""
        if not self.passfile:
            return
        try:
            info = os.stat(self.passfile)
        except OSError as exc:
            raise BackupError(
                f"passfile: {self.passfile}: {exc.strerror}", hint="Name a libpq password file that this user can read."
            ) from exc
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise BackupError(
                f"passfile: {self.passfile}: others may read it (mode {stat.S_IMODE(info.st_mode):04o})",
                hint=f"chmod 600 {self.passfile}",
            )

    def connect(self, application: str = "mazevault.backup") -> Session:
        return (self.connector or PsycopgSession)(self, application)

    @contextlib.contextmanager
    def session(self, application: str = "mazevault.backup") -> t.Iterator[Session]:
        opened = self.connect(application)
        try:
            yield opened
        finally:
            opened.close()


class PsycopgSession:
    """A session by psycopg2, for servers that are reached over a socket from here."""

    def __init__(self, server: Server, application: str) -> None:
        if not HAS_PSYCOPG2:
            raise BackupError(
                "psycopg2: missing in the Python that runs on this host",
                hint="Install python3-psycopg2, or psycopg2-binary for ansible_python_interpreter.",
            )
        server.check_passfile()
        self.server = server
        tls = (("sslmode", server.sslmode), ("sslrootcert", server.sslrootcert))
        extra: dict[str, t.Any] = {key: value for key, value in tls if value}
        try:
            self._connection = psycopg2.connect(
                host=server.host,
                port=server.port,
                user=server.user,
                dbname=server.database,
                passfile=server.passfile or NO_PASSFILE,
                application_name=application,
                connect_timeout=15,
                keepalives_idle=60,
                options=_OPTIONS,
                **extra,
            )
        except psycopg2.OperationalError as exc:
            raise connection_error(server, str(exc)) from None
        self._connection.autocommit = True
        # Whatever role and database prefer: values that are sent in binary form have the session's encoding.
        if self._connection.get_parameter_status("server_encoding") == "UTF8":
            self._connection.set_client_encoding("UTF8")
        self.pid: int = self._connection.get_backend_pid()
        self.version: int = self._connection.server_version
        greet(self)

    def query(self, sql: str, *, timeout: float | None = None) -> list[Row]:
        with self._running(sql) as cursor:
            return t.cast("list[Row]", cursor.fetchall())

    def value(self, sql: str) -> t.Any:
        rows = self.query(sql)
        return rows[0][0] if rows else None

    def execute(self, *statements: str) -> None:
        with self._running("; ".join(statements)):
            pass

    @contextlib.contextmanager
    def _running(self, sql: str) -> t.Iterator[t.Any]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                yield cursor
        except psycopg2.Error as exc:
            raise SqlError(f"server: {discreet(str(exc)).strip() or type(exc).__name__}", exc.pgcode or "") from None

    def cancel(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self._connection.cancel()

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()


def greet(session: Session) -> None:
    """Refuse a server that is too old, and lift the limit that only newer ones know."""
    if session.version < OLDEST_SERVER:
        session.close()
        raise BackupError(
            f"server version: {session.version // 10000}: too old",
            hint="PostgreSQL 14 or newer is needed (MazeVault runs on 15 and newer).",
        )
    if session.version >= _TRANSACTION_TIMEOUT_SINCE:
        session.execute("SET transaction_timeout = 0")


def prepare_reading(session: Session) -> None:
    """Pin everything that changes how values are written; refuse settings that hide damage."""
    session.execute(*(f"SET {setting}" for setting in READING))
    available: dict[str, str] = dict(
        session.query(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('zero_damaged_pages',"
            " 'ignore_checksum_failure', 'ignore_system_indexes', 'transaction_timeout',"
            " 'restrict_nonsystem_relation_kind')"
        )
    )
    for name in ("zero_damaged_pages", "ignore_checksum_failure", "ignore_system_indexes"):
        if available.get(name) == "on":
            raise BackupError(
                f"{name}: on: the server hides damaged pages, a backup would lose rows without a word",
                hint=f"Switch {name} off for this role and database, then repair what it hid.",
            )
    if "transaction_timeout" in available:
        session.execute("SET transaction_timeout=0")
    if "restrict_nonsystem_relation_kind" in available:
        session.execute("SET restrict_nonsystem_relation_kind='view, foreign-table'")


def is_crowded(text: str) -> bool:
    """Whether a server refused a connection because it has too many."""
    return any(words in text for words in ("too many clients", "too many connections", "connection slots are reserved"))


def connection_error(server: Server, text: str) -> BackupError:
    """What libpq's words mean for whoever set the options."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    where = f"{server.host}:{server.port}"
    if "password authentication failed" in text or "no password supplied" in text:
        return BackupError(
            f"user: {server.user}: {where} refused the password",
            hint="Check the line for this host, database and user in the password file (passfile).",
        )
    if "does not exist" in text and "database" in text:
        return MissingDatabase(
            f"database: {server.database}: does not exist on {where}", hint="Check the name of the database."
        )
    if "does not exist" in text and "role" in text:
        return BackupError(f"user: {server.user}: no such role on {where}", hint="Check the name of the user.")
    if first.startswith("error: container: "):
        return BackupError(first.removeprefix("error: "), hint="The database has to run; then run this again.")
    if is_crowded(text):
        return BackupError(
            f"host: {where}: the server takes no more connections (max_connections): {first}",
            hint="End sessions that nobody needs, or raise max_connections: a backup takes 4, and one more a job.",
        )
    return BackupError(
        f"host: {where}: server not reachable: {first}",
        hint="Is the server up, and do host and port lead to it from this host?",
    )


class MissingDatabase(BackupError):
    """The server answers, the database isn't there."""
