# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""One dump of one database: snapshot, pg_dump, counts and digests of the same moment, all that no dump carries."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import secrets
import threading
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._archive import plaintext_sha256
from ansible_collections.mazevault.backup.plugins.module_utils._catalogue import read_catalogue
from ansible_collections.mazevault.backup.plugins.module_utils._contents import (
    overall_digest,
    read_contents,
    read_sequences,
)
from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql, create_sql, read_properties
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Retry
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    CHUNK,
    default_reserve,
    free_bytes,
    human_size,
    sha256_file,
    tree_files,
    write_file,
)
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, Result, failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._roles import read_roles, roles_sql
from ansible_collections.mazevault.backup.plugins.module_utils._snapshot import (
    RETRY_CODES,
    BlockWatch,
    Snapshot,
    take_snapshot,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server, Session, SqlError
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress

ATTEMPTS = 10
# Attempts that others waited for up to block_limit; the rest of them cost nobody more than a moment.
_COSTLY_ATTEMPTS = 2
_LOCKED = "55P03"
# What pg_dump says when the schema changed under it; another attempt may meet a quiet moment.
_RETRY_WORDS = (
    "lock timeout",
    "could not obtain lock",
    "cache lookup failed",
    "canceling statement",
    "does not exist",
    "could not open relation",
    "invalid snapshot identifier",
    "deadlock detected",
    "terminating connection due to administrator command",
)


@dataclass(frozen=True)
class Plan:
    """How a dump will be made.

    Attributes:
        format: `custom` (one file, streamed) or `directory` (parallel, one file a table).
        compression: `zstd` (outside pg_dump, with frame checksums), `gzip` (pg_dump's own) or `none`.
        jobs: parallel pg_dump processes (directory) and compression threads.
    """

    format: str
    compression: str
    jobs: int

    @property
    def file_name(self) -> str:
        if self.format == "directory":
            return "database.d"
        return "database.dump.zst" if self.compression == "zstd" else "database.dump"


def make_plan(runtime: Runtime, *, dump_format: str, compression: str, jobs: int) -> Plan:
    """Choose the best compression that is there: zstd where the program is installed, else pg_dump's gzip."""
    if compression == "auto":
        compression = "zstd" if runtime.has("zstd") else "gzip"
    elif compression == "zstd":
        runtime.program("zstd")
    return Plan(dump_format, compression, jobs)


@dataclass(frozen=True)
class Source:
    """What is known of the source before anything is dumped."""

    server_version: str
    server_major: int
    database: str
    size_bytes: int
    table_bytes: int
    tables: int
    schema_version: int | None
    schema_dirty: bool | None
    superuser: bool
    data_checksums: bool
    warnings: tuple[str, ...]


def read_migration(session: Session) -> tuple[int | None, bool | None]:
    """Version and dirty flag in the table of golang-migrate, where there is one."""
    found = session.query(
        """SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = 'schema_migrations' AND c.relkind = 'r' AND n.nspname = 'public'
              AND 2 = (SELECT count(*) FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = c.oid AND a.attname IN ('version', 'dirty'))"""
    )
    if not found:
        return None, None
    rows = session.query("SELECT version::bigint, dirty FROM public.schema_migrations ORDER BY 1 DESC LIMIT 1")
    return (rows[0][0], rows[0][1]) if rows else (None, None)


def look_at_source(session: Session, database: str, *, lock_timeout: float = 2.0) -> Source:
    """Versions, sizes, migration state; nothing is changed or locked.

    Args:
        lock_timeout: seconds to wait for a table that somebody has locked.
    """
    session.execute(f"SET statement_timeout = 0; SET lock_timeout = {max(1, int(lock_timeout * 1000))}")
    version, number, size, superuser, checksums = session.query(
        """SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int,
                  pg_catalog.pg_database_size(pg_catalog.current_database()),
                  (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
                  pg_catalog.current_setting('data_checksums') = 'on'"""
    )[0]
    user_tables = """FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND n.nspname !~ '^pg_(toast|temp)'"""
    ((tables,),) = session.query(f"SELECT count(*) {user_tables}")
    try:
        ((table_bytes,),) = session.query(
            f"SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint {user_tables}"
        )
    except SqlError as exc:
        if exc.code != _LOCKED:
            raise
        table_bytes = size  # with indexes, so on the safe side
    try:
        migration = read_migration(session)
    except SqlError as exc:
        if exc.code != _LOCKED:
            raise
        migration = (None, None)  # under way just now; the dump reads it again in its snapshot
    warnings = []
    if not checksums:
        warnings.append("data_checksums: off: the server doesn't notice pages that its disk has damaged")
    return Source(
        version,
        number // 10000,
        database,
        size,
        table_bytes,
        tables,
        migration[0],
        migration[1],
        superuser,
        checksums,
        tuple(warnings),
    )


@dataclass
class DumpResult:
    """The outcome of a dump: `public` and `private` facts for the manifest, and the artefacts' facts."""

    artefacts: list[dict[str, t.Any]]
    public: dict[str, t.Any]
    private: dict[str, t.Any]
    longest_block_seconds: float
    attempts: int


def application_name(run_name: str) -> str:
    """What this run's sessions are called, and no others: by it they are watched and ended.

    The server cuts names at 63 bytes, our suffixes included, and replaces what isn't ASCII.
    """
    shown = re.sub(r"[^A-Za-z0-9_.-]", "_", os.path.basename(run_name))
    return f"mazevault.backup {shown[-30:]} {secrets.token_hex(4)}"


class Dumper:
    """Makes one dump into a folder that it fills.

    Args:
        block_limit: seconds that another session may wait for this run before it is given up.
        reserve: bytes that must stay free on the file system of `folder`; None for the default.
    """

    def __init__(
        self,
        runtime: Runtime,
        server: Server,
        plan: Plan,
        *,
        block_limit: float,
        reserve: int | None,
        progress: Progress,
        run_name: str,
    ) -> None:
        self._runtime, self._server, self._plan = runtime, server, plan
        self._block_limit, self._reserve, self._progress = block_limit, reserve, progress
        self._application = application_name(run_name)
        self.longest_block = 0.0
        self._lock_timeout = min(10.0, block_limit / 2)
        self._costly = 0

    def dump(self, folder: str, source: Source) -> DumpResult:
        """Fill `folder` with the dump and all that belongs to it.

        Raises:
            Retry: after several attempts there was still somebody in the way.
            BackupError: anything else; what was written lies only in `folder`.
        """
        attempt = 0
        while True:
            attempt += 1
            plan = self._plan if attempt < 3 else Plan(self._plan.format, self._plan.compression, 1)
            try:
                return self._attempt(folder, source, plan, attempt)
            except Retry as exc:
                self._progress.step("dump: attempt given up", attempt=attempt, why=exc.msg)
                if attempt >= ATTEMPTS or self._costly >= _COSTLY_ATTEMPTS:
                    raise Retry(
                        f"no backup taken: {attempt} attempts met other work on the schema, the last one: {exc.msg}",
                        hint="Run the backup when no migration is running, or raise block_limit.",
                    ) from exc
                for name in os.listdir(folder):
                    path = os.path.join(folder, name)
                    _remove(path)
                # At once first, when the statement that was in the way has just gone through; then less and less often.
                time.sleep(random.uniform(0, 0.3 * attempt))

    def _attempt(self, folder: str, source: Source, plan: Plan, attempt: int) -> DumpResult:
        started = time.monotonic()
        self._progress.step("dump: take the snapshot", attempt=attempt)
        watch = BlockWatch(self._server, self._application)
        try:
            snapshot = take_snapshot(self._server, self._application, lock_timeout=self._lock_timeout)
            try:
                facts = self._under_snapshot(folder, source, plan, snapshot, watch)
            except BaseException:
                # A session that waits for a lock doesn't notice that its program is gone.
                with contextlib.suppress(BackupError):
                    watch.end_own_sessions()
                raise
            finally:
                snapshot.release()
        finally:
            watch.close()
        dump_seconds = round(time.monotonic() - started, 3)
        if plan.format == "directory" and plan.compression == "zstd":
            self._progress.step("dump: compress")
            self._compress_folder(os.path.join(folder, plan.file_name), plan.jobs)
        self._progress.step("dump: read back what was written")
        artefacts = self._artefacts(folder, plan, facts.pop("written_sha256"), dump_seconds)
        return self._result(source, snapshot, facts, artefacts, attempt)

    def _under_snapshot(
        self, folder: str, source: Source, plan: Plan, snapshot: Snapshot, watch: BlockWatch
    ) -> dict[str, t.Any]:
        salt = secrets.token_hex(16)
        facts: dict[str, t.Any] = {
            "salt": salt,
            "sequences_before": _sequences(snapshot.session),
            "migration": read_migration(snapshot.session),
        }
        self._progress.step("dump: pg_dump starts")
        pipeline = self._start(folder, source.server_major, plan, snapshot.exported)
        reader = _Reader(snapshot.session, salt, self._server.database)
        try:
            self._progress.step("dump: pg_dump runs", programs=pipeline.pids())
            reader.start()
            while True:
                pipeline_done, reader_done = pipeline.poll(), reader.wait(0.1)
                self._watch(watch, folder)
                if pipeline_done and reader_done:
                    break
                if pipeline.failed():
                    break
                if reader.error is not None:
                    break
            self._judge(pipeline, reader, source)
            facts["written_sha256"] = pipeline.sha256()
        except BaseException:
            # At once: others wait for these sessions' locks, and a program may take its time to end.
            with contextlib.suppress(BackupError):
                watch.end_own_sessions()
            snapshot.session.cancel()
            raise
        finally:
            pipeline.stop()
            if reader.running():
                snapshot.session.cancel()
                reader.join()
        facts.update(reader.facts)
        self._progress.step("dump: pg_dump has ended")
        facts["sequences_after"] = self._sequences_now()
        self._write_companions(folder, facts, source)
        return facts

    def _sequences_now(self) -> list[dict[str, t.Any]]:
        with self._server.session(f"{self._application} after") as session:
            session.execute(f"SET statement_timeout = 0; SET lock_timeout = {max(1, int(self._lock_timeout * 1000))}")
            return _sequences(session)

    def _watch(self, watch: BlockWatch, folder: str) -> None:
        waits = watch.look()
        self.longest_block = max(self.longest_block, waits.others)
        if waits.others > self._block_limit:
            self._costly += 1
            raise Retry(
                f"block_limit: {self._block_limit:g} s: another session waited {waits.others:.1f} s"
                " for this backup's locks",
                hint="Run the backup when no migration is running, or raise block_limit.",
            )
        if waits.circle:
            raise Retry("locks: a session that changes the schema waits for this backup, and pg_dump waits for it")
        if waits.own > self._lock_timeout:
            raise Retry(f"locks: waited {waits.own:.1f} s for a lock that another session holds")
        free, total = free_bytes(folder)
        reserve = default_reserve(total) if self._reserve is None else self._reserve
        if free < reserve:
            raise BackupError(
                f"{folder}: the dump was broken off: only {human_size(free)} are free, {human_size(reserve)} must stay",
                hint="Free some space; a full disk would stop the live database.",
            )

    def _judge(self, pipeline: _Pipeline, reader: _Reader, source: Source) -> None:
        for result in pipeline.results():
            if result.rc != 0:
                error = failure("dump", result)
                if any(word in result.stderr for word in _RETRY_WORDS):
                    raise Retry(error.msg, hint=error.hint, details=error.details)
                raise error
        if pipeline.error is not None:
            raise pipeline.error
        if reader.error is not None:
            if isinstance(reader.error, SqlError) and reader.error.code in RETRY_CODES:
                raise Retry(f"contents: {reader.error.msg}") from reader.error
            raise reader.error

    def _start(self, folder: str, major: int, plan: Plan, exported: str) -> _Pipeline:
        program = self._runtime.program("pg_dump", major=major)
        level = "1" if plan.compression == "gzip" else "0"
        lock_timeout = max(1, int(self._lock_timeout * 1000))
        common = [
            program,
            "--no-password",
            f"--snapshot={exported}",
            f"--lock-wait-timeout={lock_timeout}",
            f"--compress={level}",
            "--no-sync",
        ]
        env = self._server.environment(self._application)
        target = os.path.join(folder, plan.file_name)
        processes = self._runtime.processes
        if plan.format == "directory":
            return _Pipeline(
                [processes.start([*common, "--format=directory", f"--jobs={plan.jobs}", f"--file={target}"], env=env)]
            )
        first = processes.start([*common, "--format=custom"], env=env, stdout=-1)
        if plan.compression != "zstd":
            return _Pipeline([first], first.stdout, target)
        # The frame checksum (XXH64) is on by default; --check says that it is wanted.
        second = processes.start(
            [self._runtime.program("zstd"), "-q", "--check", "-1", f"-T{plan.jobs}", "-c"],
            stdin=first.stdout,
            stdout=-1,
        )
        first.stdout.close()
        return _Pipeline([first, second], second.stdout, target)

    def _compress_folder(self, folder: str, jobs: int) -> None:
        names = sorted(name for name in os.listdir(folder) if name != "toc.dat")
        zstd = self._runtime.program("zstd")
        for start in range(0, len(names), 500):
            paths = [os.path.join(folder, name) for name in names[start : start + 500]]
            self._runtime.processes.run([zstd, "-q", "--check", "-1", f"-T{jobs}", "--rm", "--", *paths]).check(
                "compress"
            )

    def _write_companions(self, folder: str, facts: dict[str, t.Any], source: Source) -> None:
        roles, properties = facts["roles"], facts["database"]
        version = source.server_major * 10000
        write_file(
            os.path.join(folder, "roles.sql"), "".join(f"{line};\n" for line in roles_sql(roles, version=version))
        )
        name = self._server.database
        write_file(os.path.join(folder, "create.sql"), f"{create_sql(name, properties)};\n")
        write_file(
            os.path.join(folder, "properties.sql"), "".join(f"{line};\n" for line in apply_sql(name, properties))
        )
        for name, text in facts.pop("server_files").items():
            os.makedirs(os.path.join(folder, "server"), mode=0o700, exist_ok=True)
            write_file(os.path.join(folder, "server", name), text)

    def _artefacts(self, folder: str, plan: Plan, written_sha256: str, seconds: float) -> list[dict[str, t.Any]]:
        artefacts = []
        for relative in tree_files(folder):
            path = os.path.join(folder, relative)
            os.chmod(path, 0o600)
            is_dump = relative == plan.file_name or relative.startswith(f"{plan.file_name}/")
            # In one piece, the sum is of the bytes as they were written, so that reading them back proves the disk.
            sha = written_sha256 if is_dump and written_sha256 else sha256_file(path)
            wrapped = relative.endswith((".zst", ".gz"))
            artefacts.append(
                {
                    "component": "postgres",
                    "path": f"postgres/{relative}",
                    "bytes": os.path.getsize(path),
                    "sha256": sha,
                    "sha256_plaintext": plaintext_sha256(path, self._runtime) if wrapped else sha,
                    "format": f"pg_dump {plan.format}" if is_dump else "sql" if relative.endswith(".sql") else "text",
                    "compression": plan.compression if is_dump else "none",
                    "encryption": "none",
                    "class": "data",
                    "seconds": seconds if is_dump else 0.0,
                }
            )
        return artefacts

    def _result(
        self,
        source: Source,
        snapshot: Snapshot,
        facts: dict[str, t.Any],
        artefacts: list[dict[str, t.Any]],
        attempt: int,
    ) -> DumpResult:
        contents, properties = facts["contents"], facts["database"]
        schema_version, schema_dirty = facts["migration"]
        warnings = list(source.warnings)
        if schema_dirty:
            warnings.append(f"schema_migrations: version {schema_version} is dirty: a migration was broken off")
        sequences = [
            {**before, "after": _position(before, facts["sequences_after"])} for before in facts["sequences_before"]
        ]
        private = {
            "salt": facts["salt"],
            **contents,
            "sequences": sequences,
            "catalogue": facts["catalogue"],
            "database": properties,
            "roles": facts["roles"],
            "settings": facts["settings"],
            "database_name": self._server.database,
            "dump_path": f"postgres/{self._plan.file_name}",
        }
        fingerprint = overall_digest({**contents, "sequences": sequences})
        public = {
            "server_version": snapshot.server_version,
            "client_version": source.server_major,
            "recovery_point": snapshot.recovery_point,
            "encoding": properties["encoding"],
            "locale_provider": properties["locale_provider"],
            "collation": properties["collate"],
            "collation_version": properties["collation_version"],
            "extensions": [line.split(" schema ")[0] for line in facts["catalogue"]["extensions"]],
            "size_bytes": source.size_bytes,
            "tables": len(contents["tables"]),
            "rows": sum(entry["rows"] for entry in contents["tables"]),
            "schema_version": schema_version,
            "schema_dirty": schema_dirty,
            "contents_sha256": fingerprint,
            "format": self._plan.format,
            "compression": self._plan.compression,
            "not_covered": _not_covered(contents, facts),
            "warnings": warnings,
        }
        return DumpResult(artefacts, public, private, round(self.longest_block, 3), attempt)


def _sequences(session: Session) -> list[dict[str, t.Any]]:
    try:
        return read_sequences(session)
    except SqlError as exc:
        if exc.code in RETRY_CODES:
            raise Retry(f"sequences: {exc.msg}") from exc
        raise


def _not_covered(contents: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any]) -> list[str]:
    missing = ["role passwords"]
    if contents["foreign_tables"]:
        missing.append(f"data behind {len(contents['foreign_tables'])} foreign tables")
    if "unproven" in contents["large_objects"]:
        missing.append(f"large objects unproven: {contents['large_objects']['unproven']}")
    if facts["settings"] is None:
        missing.append("server configuration files (this role may not read them)")
    return missing


def _position(before: t.Mapping[str, t.Any], after: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any] | None:
    for entry in after:
        if (entry["schema"], entry["name"]) == (before["schema"], before["name"]):
            return {"last_value": entry["last_value"], "is_called": entry["is_called"]}
    return None


def _remove(path: str) -> None:
    import shutil

    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


class _Pipeline:
    """pg_dump, or pg_dump and zstd; what comes out last goes to a file and through SHA-256."""

    def __init__(self, children: list[Child], output: t.IO[bytes] | None = None, target: str = "") -> None:
        self._children = children
        self._digest = hashlib.sha256()
        self.error: BackupError | None = None
        self._target = target
        self._thread: threading.Thread | None = None
        if output is not None:
            self._thread = threading.Thread(target=self._save, args=(output,), daemon=True)
            self._thread.start()

    def _save(self, output: t.IO[bytes]) -> None:
        try:
            fd = os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as out:
                while chunk := os.read(output.fileno(), CHUNK):
                    self._digest.update(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[out.write(view) :]
                os.fsync(out.fileno())
        except OSError as exc:
            self.error = BackupError(f"{self._target}: {exc.strerror}", hint="Is the disk full or broken?")
        finally:
            with contextlib.suppress(OSError, ValueError):
                output.close()

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def poll(self) -> bool:
        return all(child.poll() is not None for child in self._children) and (
            self._thread is None or not self._thread.is_alive()
        )

    def failed(self) -> bool:
        return self.error is not None or any(child.poll() not in (None, 0) for child in self._children)

    def results(self) -> list[Result]:
        """The judged ends; a program that died because a later one did comes after it."""
        if self.failed():
            time.sleep(0.2)
            for child in self._children:
                if child.poll() is None:
                    child.stop()
        done = [child.wait() for child in self._children]
        # SIGPIPE or SIGTERM in the first is the consequence, not the cause.
        return sorted(done, key=lambda result: result.rc in (-13, -15))

    def sha256(self) -> str:
        if self._thread is None:
            return ""
        self._thread.join()
        return self._digest.hexdigest()

    def stop(self) -> None:
        for child in self._children:
            child.stop()
        if self._thread is not None:
            self._thread.join(10)


class _Reader:
    """Reads counts, digests and catalogues in the snapshot's own session while pg_dump works."""

    def __init__(self, session: Session, salt: str, database: str) -> None:
        self._session, self._salt, self._database = session, salt, database
        self.facts: dict[str, t.Any] = {}
        self.error: BackupError | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            self.facts["catalogue"] = read_catalogue(self._session)
            self.facts["contents"] = read_contents(self._session, salt=self._salt)
            self.facts["roles"] = read_roles(self._session)
            self.facts["database"] = read_properties(self._session, self._database)
            self.facts["settings"], self.facts["server_files"] = _read_configuration(self._session)
        except BackupError as exc:
            self.error = exc
        except Exception as exc:  # a bug must end the run, not hang it
            self.error = BackupError(f"contents: {type(exc).__name__}: {exc}")


def _read_configuration(session: Session) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Settings that differ from the built-in ones, and the server's configuration files."""
    files: dict[str, str] = {}
    session.execute("SAVEPOINT configuration")
    try:
        settings: dict[str, str] = dict(
            session.query(
                "SELECT name::text, setting::text FROM pg_catalog.pg_settings"
                " WHERE source IN ('configuration file', 'command line', 'global') ORDER BY 1"
            )
        )
        for name, sql in (
            ("postgresql.conf", "current_setting('config_file')"),
            ("postgresql.auto.conf", "current_setting('data_directory') || '/postgresql.auto.conf'"),
            ("pg_hba.conf", "current_setting('hba_file')"),
            ("pg_ident.conf", "current_setting('ident_file')"),
        ):
            text = session.query(f"SELECT pg_catalog.pg_read_file({sql}, 0, 1048576, true)")[0][0]
            if text is not None:
                files[name] = text
    except SqlError:
        session.execute("ROLLBACK TO SAVEPOINT configuration")
        return None, {}
    session.execute("RELEASE SAVEPOINT configuration")
    return settings, files


def describe(result: DumpResult) -> dict[str, t.Any]:
    """The component report that the set's manifest is made of."""
    return {
        "component": "postgres",
        "written": _clock.rfc3339(_clock.now()),
        "artefacts": result.artefacts,
        "public": result.public,
        "private": result.private,
        "recovery_point": result.public["recovery_point"],
    }
