# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Loading a dump into a new database, and reading back what came out of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._archive import (
    Archive,
    opened,
    read_fully,
    read_toc,
    unwrapped_directory,
)
from ansible_collections.mazevault.backup.plugins.module_utils._catalogue import read_catalogue
from ansible_collections.mazevault.backup.plugins.module_utils._contents import read_contents, read_sequences
from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql, create_sql, read_properties
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._instructions import conninfo
from ansible_collections.mazevault.backup.plugins.module_utils._process import failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._roles import roles_sql
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    Server,
    Session,
    SqlError,
    ident,
    literal,
    prepare_reading,
)
from ansible_collections.mazevault.backup.plugins.module_utils._toc import TocEntry, dumped_by

# What only a superuser can create; without one these are left out and named.
_SUPERUSER_TAGS = ("ACCESS METHOD", "EVENT TRIGGER", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA",
                   "SUBSCRIPTION", "SUBSCRIPTION TABLE", "FOREIGN DATA WRAPPER", "PROCEDURAL LANGUAGE")  # fmt: skip


def filter_toc(
    entries: t.Sequence[TocEntry], *, superuser: bool, extensions: t.Container[str]
) -> tuple[list[TocEntry], list[str]]:
    """What can be restored here, and what is left out with its reason.

    Args:
        extensions: names that the target server can create.
    """
    kept, left_out = [], []
    for entry in entries:
        name = entry.name.split(" ", 1)[-1].strip() if entry.name.startswith("- ") else entry.name
        word = name.split(" ")[0]
        if entry.tag == "EXTENSION" and word not in extensions:
            left_out.append(f"EXTENSION {word}: not available on this server")
        elif (
            entry.tag == "COMMENT"
            and name.startswith("EXTENSION ")
            and (not superuser or name.split(" ")[1].strip('"') not in extensions)
        ):
            left_out.append(f"COMMENT {name.strip()}: the extension isn't ours")
        elif entry.tag in _SUPERUSER_TAGS and not superuser:
            left_out.append(f"{entry.tag} {word}: needs a superuser")
        else:
            kept.append(entry)
    return kept, left_out


def create_roles(session: Session, facts: t.Mapping[str, t.Any], *, login: bool, superuser: bool, version: int) -> None:
    for statement in roles_sql(facts, login=login, superuser=superuser, version=version):
        session.execute(statement)


def create_database(session: Session, name: str, properties: t.Mapping[str, t.Any], *, closed: bool = False) -> int:
    """Create the database and return its oid; a template whose locale's version moved on is refreshed.

    template0 has no user indexes, so nothing in it can be in the wrong order.

    Args:
        closed: nobody can connect to it yet.
    """
    sql = create_sql(name, properties) + (" ALLOW_CONNECTIONS false" if closed else "")
    try:
        session.execute(sql)
    except SqlError as exc:
        if "collation version mismatch" not in exc.msg:
            raise
        session.execute("ALTER DATABASE template0 REFRESH COLLATION VERSION")
        session.execute(sql)
    return int(session.query(f"SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = {literal(name)}")[0][0])


def drop_database(session: Session, name: str) -> None:
    session.execute(f"DROP DATABASE IF EXISTS {ident(name)} WITH (FORCE)")


def apply_properties(session: Session, name: str, properties: t.Mapping[str, t.Any]) -> None:
    for statement in apply_sql(name, properties):
        session.execute(statement)


class Loaded(t.NamedTuple):
    """What loading a dump left out, and the versions that its archive names (0 = it doesn't say)."""

    left_out: list[str]
    dumped_from: int


def load(
    runtime: Runtime,
    server: Server,
    archive: Archive,
    *,
    jobs: int,
    work: str,
    application: str,
    tablespaces: bool = True,
) -> Loaded:
    """Load a dump into the (new, empty) database that `server` names.

    Any exit status but 0 is a failure: with parallel jobs the messages interleave and can't be told apart, so what
    could fail harmlessly is left out beforehand.

    Args:
        work: folder for unpacked copies; on a file system with room for the whole dump.
        tablespaces: put objects where the source had them (False: into the default one).
    Raises:
        BackupError: the dump was made by a newer server, is damaged, or didn't load.
    """
    with server.session(application) as session:
        major = session.version // 10000
        superuser = bool(session.value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"))
        extensions = {row[0] for row in session.query("SELECT name::text FROM pg_catalog.pg_available_extensions")}
    if archive.format == "plain":
        return _load_plain(runtime, server, archive, major, work, application)
    entries, text = read_toc(archive, runtime, major)
    source_major = dumped_by(text)[0]
    if source_major > major:
        raise BackupError(
            f"set: {archive.path}: the dump comes from PostgreSQL {source_major}, this server is {major}",
            hint=f"Restore to a server of version {source_major} or newer.",
        )
    kept, left_out = filter_toc(entries, superuser=superuser, extensions=extensions)
    program = runtime.program("pg_restore", major=major)
    with contextlib.ExitStack() as stack:
        readable = stack.enter_context(unwrapped_directory(archive, runtime, major, work=work))
        arguments = [program, "--no-password", "--exit-on-error", f"--dbname={conninfo(server.database)}"]
        if not tablespaces:
            arguments.append("--no-tablespaces")
        if left_out:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=work, prefix=".toc-"))
            list_file = os.path.join(folder, "toc.list")
            write_file(list_file, "".join(f"{entry.line}\n" for entry in kept))
            arguments.append(f"--use-list={list_file}")
        path = readable.path
        if not readable.readable_by_name:
            # pg_restore reads in parallel from a file only
            copy = stack.enter_context(tempfile.NamedTemporaryFile(dir=work, prefix=".unpacked-"))
            with opened(readable, runtime) as source:
                while chunk := source.read(CHUNK):
                    copy.write(chunk)
            copy.flush()
            path = copy.name
        if readable.format != "tar" and jobs > 1 and may_run_in_parallel(entries):
            arguments.append(f"--jobs={jobs}")
        result = runtime.processes.run([*arguments, path], env=server.environment(application, major=major))
        if result.rc != 0:
            raise failure(
                f"database: {server.database}: the dump didn't load",
                result,
                hint="Nothing but this new database was touched. The end of pg_restore's messages is in stderr_tail.",
            )
    return Loaded(left_out, source_major)


def may_run_in_parallel(entries: t.Sequence[TocEntry]) -> bool:
    """False where parallel jobs could load rows too late.

    pg_dump lets a domain's NOT VALID constraint depend on the domain only: pg_restore may create it before the rows
    that break it.
    """
    tags = {entry.tag for entry in entries}
    return not {"DOMAIN", "CHECK CONSTRAINT"} <= tags


def _load_plain(runtime: Runtime, server: Server, archive: Archive, major: int, work: str, application: str) -> Loaded:
    read_fully(archive, runtime, major, work=work)  # the trailer, before a statement runs
    program = runtime.program("psql", major=major)
    token = _psql_token(runtime, program)
    child = runtime.processes.start(
        [
            program,
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ],
        env=server.environment(application, major=major),
        stdin=-1,
    )
    try:
        with opened(archive, runtime) as source, contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"\\restrict {token}\n".encode())
            for chunk in without_restrict(source):
                child.stdin.write(chunk)
            child.stdin.write(f"\n\\unrestrict {token}\n".encode())
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        done = child.wait()
    except BaseException:
        child.stop()
        raise
    if done.rc != 0:
        raise failure(
            f"database: {server.database}: the plain dump didn't load",
            done,
            hint="Nothing but this new database was touched. The end of psql's messages is in stderr_tail.",
        )
    return Loaded([], 0)


# The minor releases in which psql learned to refuse its own commands (such as \\!) inside a dump.
_RESTRICT_SINCE = {14: 19, 15: 14, 16: 10, 17: 6}


def _psql_token(runtime: Runtime, program: str) -> str:
    answer = runtime.processes.run([program, "--version"], timeout=30).check(f"program: {program}").stdout
    match = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer)
    major, minor = (int(match.group(1)), int(match.group(2) or 0)) if match else (0, 0)
    if minor < _RESTRICT_SINCE.get(major, 0):
        raise BackupError(
            f"program: {program}: {major}.{minor} runs every command that a plain dump names, also shell commands",
            hint=f"Update the PostgreSQL client to {major}.{_RESTRICT_SINCE.get(major, 0)} or newer.",
        )
    return secrets.token_hex(16)


def without_restrict(source: t.IO[bytes]) -> t.Iterator[bytes]:
    r"""A plain dump without its own \restrict (near the beginning) and \unrestrict (in the last lines); we add ours."""
    pending = source.read(CHUNK)
    pending = re.sub(rb"(?m)\A((?:--[^\n]*\n|[ \t\r]*\n)*)\\restrict [A-Za-z0-9]+\r?\n", rb"\1", pending, count=1)
    while chunk := source.read(CHUNK):
        yield pending[:-4096]
        pending = pending[-4096:] + chunk
    yield re.sub(rb"\n\\unrestrict [A-Za-z0-9]+\s*\Z", b"\n", pending)


def analyze(runtime: Runtime, server: Server, *, jobs: int, application: str) -> list[str]:
    """Statistics before the application meets the database; no parallel vacuum (containers have a small /dev/shm).

    Returns:
        tables that got none, with reasons; a foreign table whose server is away is no fault of the restore.
    """
    with server.session(application) as session:
        major = session.version // 10000
        program = runtime.program("vacuumdb", major=major)
        arguments = ["--no-password", "--analyze", "--quiet", "--parallel=0", f"--jobs={jobs}"]
        done = runtime.processes.run(
            [program, *arguments, f"--dbname={conninfo(server.database)}"],
            env=server.environment(application, major=major),
        )
        if done.rc == 0:
            return []
        # It ends at the first table that can't be read, so the rest is done one by one.
        skipped = []
        session.execute("SET search_path=''")  # so that every name is written with its schema
        for (name,) in session.query(
            "SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'm') AND oid >= 16384"
        ):
            try:
                session.execute(f"ANALYZE {name}")
            except SqlError as exc:
                skipped.append(f"{name}: {exc.msg}")
        return skipped


def observe(server: Server, expected: t.Mapping[str, t.Any], *, application: str) -> dict[str, t.Any]:
    """Read a restored database the way its source was read; the result goes to `compare_all`."""
    methods = {
        (entry["schema"], entry["name"]): str(entry["method"]) for entry in expected["tables"] if "method" in entry
    }
    with server.session(application) as session:
        prepare_reading(session)
        session.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return {
            **read_contents(session, salt=expected["salt"], methods=methods),
            "sequences": read_sequences(session),
            "catalogue": read_catalogue(session),
            "database": read_properties(session, server.database),
        }


def check_indexes(session: Session) -> str:
    """Run amcheck over every B-tree index and heap where the extension exists: an empty text, or what is wrong.

    Raises:
        BackupError: amcheck isn't available here.
    """
    if not session.value("SELECT count(*) FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'"):
        raise BackupError("amcheck: not available on this server")
    session.execute(
        "CREATE SCHEMA mazevault_amcheck", "CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA mazevault_amcheck"
    )
    schema = session.value(
        "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e"
        " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'"
    )
    try:
        session.execute(
            f"""SELECT {schema}.bt_index_check(i.indexrelid, true) FROM pg_catalog.pg_index i
                  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
                 WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't'
                   AND i.indisready AND i.indisvalid"""
        )
        rows = session.query(
            f"""SELECT c.oid::regclass::text, v.msg FROM pg_catalog.pg_class c, LATERAL {schema}.verify_heapam(c.oid) v
                 WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
                   AND c.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'heap')
                 LIMIT 3"""
        )
    except SqlError as exc:
        return exc.msg
    return "; ".join(f"{table}: {message}" for table, message in rows)
