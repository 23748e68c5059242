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
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._archive import plaintext_sha256
from ansible_collections.mazevault.backup.plugins.module_utils._contents import (
    overall_digest,
    read_sequences,
)
from ansible_collections.mazevault.backup.plugins.module_utils._database import apply_sql, create_sql
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Retry
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    default_reserve,
    free_bytes,
    human_size,
    sha256_file,
    tree_files,
)
from ansible_collections.mazevault.backup.plugins.module_utils._pipeline import Pipeline
from ansible_collections.mazevault.backup.plugins.module_utils._process import PIPE, failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._reader import Reader
from ansible_collections.mazevault.backup.plugins.module_utils._roles import roles_sql
from ansible_collections.mazevault.backup.plugins.module_utils._snapshot import (
    RETRY_CODES,
    BlockWatch,
    Snapshot,
    take_snapshot,
)
from ansible_collections.mazevault.backup.plugins.module_utils._source import Source, read_migration
from ansible_collections.mazevault.backup.plugins.module_utils._sql import (
    Server,
    Session,
    SqlError,
    connection_error,
    is_crowded,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Sink, described, store

ATTEMPTS = 10
# Attempts that others waited for up to block_limit; the rest of them cost nobody more than a moment.
_COSTLY_ATTEMPTS = 2
_LOCKED = "55P03"
# Seconds from one look at whom we block to the next.
_LOOK = 0.1
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


def make_plan(runtime: Runtime, *, dump_format: str, compression: str, jobs: int, encrypted: bool = False) -> Plan:
    """Choose the best compression that is there: zstd where the program is installed, else pg_dump's gzip.

    Raises:
        BackupError: a directory, whose files pg_dump writes itself, can't be encrypted on its way to the disk.
    """
    if encrypted and dump_format == "directory":
        raise BackupError(
            "format: directory: not in a set that is encrypted: its files would lie on the disk in plain first",
            hint="Leave format at custom.",
        )
    if compression == "auto":
        compression = "zstd" if runtime.has("zstd") else "gzip"
    elif compression == "zstd":
        runtime.program("zstd")
    return Plan(dump_format, compression, jobs)


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
        key: SetKey | None = None,
    ) -> None:
        self._key = key
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
        artefacts = [*self._dumped(folder, plan, facts.pop("dumped"), dump_seconds), *facts.pop("companions")]
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
        pipeline, sink = self._start(folder, source.server_major, plan, snapshot.exported)
        reader = Reader(snapshot.session, salt, self._server.database)
        try:
            self._progress.step("dump: pg_dump runs", programs=pipeline.pids())
            reader.start()
            while True:
                reader_done = reader.wait(_LOOK)
                # Whichever of them is left is waited for: looking costs the server something too.
                pipeline_done = pipeline.wait(_LOOK) if reader_done else pipeline.poll()
                self._watch(watch, folder)
                if pipeline_done and reader_done:
                    break
                if pipeline.failed():
                    break
                if reader.error is not None:
                    break
            self._judge(pipeline, reader, source)
            facts["dumped"] = (sink, pipeline.plaintext_sha256())
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
        facts["companions"] = self._companions(folder, facts, source)
        return facts

    def _sequences_now(self) -> list[dict[str, t.Any]]:
        with self._server.session(f"{self._application} after") as session:
            session.execute("SET statement_timeout = 0", f"SET lock_timeout = {max(1, int(self._lock_timeout * 1000))}")
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

    def _judge(self, pipeline: Pipeline, reader: Reader, source: Source) -> None:
        for result in pipeline.results():
            if result.rc != 0:
                if is_crowded(result.stderr):
                    raise connection_error(self._server, result.stderr)
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

    def _start(self, folder: str, major: int, plan: Plan, exported: str) -> tuple[Pipeline, Sink | None]:
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
        env = self._server.environment(self._application, major=major)
        target = os.path.join(folder, plan.file_name)
        processes = self._runtime.processes
        if plan.format == "directory":
            words = [*common, "--format=directory", f"--jobs={plan.jobs}", f"--file={target}"]
            return Pipeline([processes.start(words, env=env)]), None
        sink = Sink(target, self._key)
        first = processes.start([*common, "--format=custom"], env=env, stdout=PIPE)
        if plan.compression != "zstd":
            return Pipeline([first], sink), sink
        # The frame checksum (XXH64) is on by default; --check says that it is wanted.
        argv = [self._runtime.program("zstd"), "-q", "--check", "-1", f"-T{plan.jobs}", "-c"]
        try:
            second = processes.start(argv, stdin=PIPE, stdout=PIPE)
        except BaseException:
            first.stop()
            raise
        return Pipeline([first, second], sink), sink

    def _compress_folder(self, folder: str, jobs: int) -> None:
        names = sorted(name for name in os.listdir(folder) if name != "toc.dat")
        zstd = self._runtime.program("zstd")
        for start in range(0, len(names), 500):
            paths = [os.path.join(folder, name) for name in names[start : start + 500]]
            self._runtime.processes.run([zstd, "-q", "--check", "-1", f"-T{jobs}", "--rm", "--", *paths]).check(
                "compress"
            )

    def _companions(self, folder: str, facts: dict[str, t.Any], source: Source) -> list[dict[str, t.Any]]:
        """Write what no dump carries, beside it."""
        roles, properties = facts["roles"], facts["database"]
        version, name = source.server_major * 10000, self._server.database
        texts = {
            "roles.sql": "".join(f"{line};\n" for line in roles_sql(roles, version=version)),
            "create.sql": f"{create_sql(name, properties)};\n",
            "properties.sql": "".join(f"{line};\n" for line in apply_sql(name, properties)),
            **{f"server/{file}": text for file, text in facts.pop("server_files").items()},
        }
        artefacts = []
        for relative, text in texts.items():
            path, content = os.path.join(folder, relative), text.encode()
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            artefacts.append(
                self._described(
                    store(path, content, self._key),
                    folder,
                    hashlib.sha256(content).hexdigest(),
                    format="sql" if relative.endswith(".sql") else "text",
                    compression="none",
                    seconds=0.0,
                )
            )
        return artefacts

    def _described(self, sink: Sink, folder: str, plaintext_sha256: str, **facts: t.Any) -> dict[str, t.Any]:
        entry = described(
            sink, folder, component="postgres", plaintext_sha256=plaintext_sha256, **facts, **{"class": "data"}
        )
        # The folder of this attempt becomes the set's.
        files = [f"postgres/{name}" for name in entry["files"]]
        return {**entry, "path": f"postgres/{entry['path']}", "files": files}

    def _dumped(
        self, folder: str, plan: Plan, dumped: tuple[Sink | None, str], seconds: float
    ) -> list[dict[str, t.Any]]:
        facts = {"format": f"pg_dump {plan.format}", "compression": plan.compression, "seconds": seconds}
        sink, plaintext = dumped
        if sink is not None:
            # Sums of the bytes as they went by, so that reading them back proves disk, zstd and encryption.
            return [self._described(sink, folder, plaintext, **facts)]
        top = os.path.join(folder, plan.file_name)
        artefacts = []
        for relative in tree_files(top):
            path = os.path.join(top, relative)
            os.chmod(path, 0o600)
            sha = sha256_file(path)
            plain = plaintext_sha256(path, self._runtime) if relative.endswith((".zst", ".gz")) else sha
            name = f"postgres/{plan.file_name}/{relative}"
            artefacts.append(
                {
                    "component": "postgres",
                    "path": name,
                    "files": [name],
                    "bytes": os.path.getsize(path),
                    "sha256": sha,
                    "sha256_plaintext": plain,
                    "encryption": "none",
                    "class": "data",
                    **facts,
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
