# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The four levels of proof for the postgres component: toc < checksum < read < restore."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._archive import Archive, identify, read_fully, read_toc
from ansible_collections.mazevault.backup.plugins.module_utils._compare import (
    compare_all,
    compare_row_counts,
    left_out_check,
)
from ansible_collections.mazevault.backup.plugins.module_utils._database import read_properties
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import require_space, sha256_files, tree_files
from ansible_collections.mazevault.backup.plugins.module_utils._process import KILLED
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._restore import (
    apply_properties,
    check_indexes,
    create_database,
    create_roles,
    load,
    observe,
)
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import Scratch
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored, files_of
from ansible_collections.mazevault.backup.plugins.module_utils._toc import dumped_by
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN, Check

_SCRATCH_DATABASE = "mazevault_scratch"


@dataclass(frozen=True)
class Subject:
    """What is to be proven: a dump, and what is recorded about it.

    Attributes:
        path: the dump's file or folder.
        folder: where `artefacts` lie (their paths are relative to it); empty where nothing is recorded.
        artefacts: recorded files with `path`, `bytes` and `sha256`; None: nothing is recorded.
        sums: problems that the set's own SHA256SUMS showed; None where there is no such file yet.
        private: the dump's private facts, or None.
        public: the dump's public facts, or None.
        key: what opens it; None: it is in plain.
        locked: why nothing of it but its sums can be looked at here; empty where it can.
        proven_before: the level that was proven before it was locked.
    """

    path: str
    folder: str = ""
    artefacts: tuple[t.Mapping[str, t.Any], ...] | None = None
    sums: tuple[str, ...] | None = None
    private: t.Mapping[str, t.Any] | None = None
    public: t.Mapping[str, t.Any] | None = None
    key: SetKey | None = None
    locked: str = ""
    proven_before: str = ""

    def recorded(self) -> t.Mapping[str, t.Any] | None:
        """What is recorded about the dump's own file; a folder has no entry of its own."""
        wanted = os.path.relpath(self.path, self.folder) if self.folder else ""
        return next((entry for entry in self.artefacts or () if entry["path"] == wanted), None)

    def stored(self) -> Stored | None:
        """The dump's files with the key, for who reads it; None: the file `path` as it is."""
        entry = self.recorded()
        if entry is None:
            return None
        return Stored(tuple(os.path.join(self.folder, name) for name in files_of(entry)), self.key)


@dataclass
class Places:
    """Where proofs may work.

    Attributes:
        work: folder for unpacked copies.
        scratch: folder for scratch servers.
        account: operating-system account of scratch servers when run as root.
        register: told each scratch server's folder.
    """

    work: str
    scratch: str
    account: str = ""
    reserve: int | None = None
    register: t.Callable[[str], None] = field(default=lambda _folder: None)


def prove(
    subject: Subject, wanted: str, runtime: Runtime, places: Places, *, jobs: int, step: t.Callable[[str], None]
) -> list[Check]:
    """Climb the levels up to `wanted`; a failure ends the climb, what is unproven doesn't.

    An archive without a recorded hash can still fail; above `toc` it can't pass.
    """
    if subject.locked:
        return _prove_locked(subject, wanted, step)
    checks: list[Check] = []
    step("verify: toc")
    archive, found = _toc(subject, runtime)
    checks += found
    for level in LEVELS[1 : LEVELS.index(wanted) + 1]:
        if archive is None or any(check.verdict == FAIL for check in checks):
            break
        step(f"verify: {level}")
        if level == "checksum":
            checks += _checksum(subject)
        elif level == "read":
            checks += _read(subject, archive, runtime, places)
        else:
            checks += _restore(subject, archive, runtime, places, jobs, step)
    return checks


def _prove_locked(subject: Subject, wanted: str, step: t.Callable[[str], None]) -> list[Check]:
    """What can be said of a set without its key: whether its bytes are those that were proven."""
    before = f"read before it was encrypted to its recipients, proven to level {subject.proven_before}"
    verdict = PASS if subject.proven_before else UNPROVEN
    checks = [Check("contents", "toc", verdict, "" if subject.proven_before else subject.locked, observed=before)]
    for level in LEVELS[1 : LEVELS.index(wanted) + 1]:
        step(f"verify: {level}")
        checks += _checksum(subject) if level == "checksum" else [Check(level, level, UNPROVEN, subject.locked)]
    return checks


def _major(subject: Subject, runtime: Runtime) -> int:
    """The version of pg_restore to read with: the dump's own, else a newer one; the newest where nothing is known."""
    if subject.public is None:
        return runtime.version(runtime.program("pg_restore"))
    major = int(subject.public["client_version"])
    if not runtime.has("pg_restore", major=major) and runtime.has("pg_restore"):
        newest = runtime.version(runtime.program("pg_restore"))
        if newest > major:
            return newest
    return major


def _toc(subject: Subject, runtime: Runtime) -> tuple[Archive | None, list[Check]]:
    try:
        archive = identify(subject.path, runtime, subject.stored())
        if archive.format == "plain":
            return archive, [
                Check("contents", "toc", PASS, "plain SQL has no table of contents", observed=archive.name)
            ]
        entries, text = read_toc(archive, runtime, _major(subject, runtime))
    except Damaged as exc:
        return None, [Check("contents", "toc", _guilt(exc), exc.msg)]
    if (
        subject.private is not None
        and not any(entry.tag == "TABLE DATA" for entry in entries)
        and subject.private["tables"]
    ):
        return archive, [Check("contents", "toc", FAIL, "no table data is listed, the manifest names tables")]
    source = dumped_by(text)[0]
    return archive, [
        Check("contents", "toc", PASS, observed=f"{archive.name}, {len(entries)} entries, PostgreSQL {source}")
    ]


def _checksum(subject: Subject) -> list[Check]:
    if subject.artefacts is None:
        return [Check("checksums", "checksum", UNPROVEN, "no hash was recorded when this dump was made")]
    if not subject.artefacts:
        return [Check("checksums", "checksum", UNPROVEN, "the manifest names no artefact")]
    problems = list(subject.sums or ())
    for artefact in subject.artefacts:
        paths = [os.path.join(subject.folder, name) for name in files_of(artefact)]
        missing = [os.path.relpath(path, subject.folder) for path in paths if not os.path.isfile(path)]
        size = 0 if missing else sum(os.path.getsize(path) for path in paths)
        if missing:
            problems.append(f"{missing[0]}: missing")
        elif size != artefact["bytes"]:
            problems.append(f"{artefact['path']}: {size} bytes instead of {artefact['bytes']}")
        elif sha256_files(paths) != artefact["sha256"]:
            problems.append(f"{artefact['path']}: changed")
    recorded = {name for artefact in subject.artefacts for name in files_of(artefact)}
    inside = os.path.dirname(subject.artefacts[0]["path"])
    top = os.path.join(subject.folder, inside.split("/")[0])
    for name in tree_files(top) if os.path.isdir(top) else ():
        if os.path.relpath(os.path.join(top, name), subject.folder) not in recorded:
            problems.append(f"{name}: not in the manifest")
    if problems:
        return [
            Check(
                "checksums",
                "checksum",
                FAIL,
                "; ".join(sorted(set(problems))[:3]),
                f"{len(recorded)} files",
                f"{len(problems)} differ",
            )
        ]
    return [Check("checksums", "checksum", PASS, expected=f"{len(recorded)} files", observed=f"{len(recorded)} files")]


def _read(subject: Subject, archive: Archive, runtime: Runtime, places: Places) -> list[Check]:
    try:
        reading = read_fully(archive, runtime, _major(subject, runtime), work=places.work)
    except Damaged as exc:
        return [Check("full read", "read", _guilt(exc), exc.msg)]
    checks = [
        Check("full read", "read", PASS, observed=f"{sum(reading.rows.values())} rows in {len(reading.rows)} tables")
    ]
    if subject.private is None or subject.artefacts is None:
        return [*checks, Check("rows", "read", UNPROVEN, "no manifest says how many rows there were")]
    if reading.plaintext_sha256:
        entry = subject.recorded()
        if entry is None or entry["sha256_plaintext"] != reading.plaintext_sha256:
            return [*checks, Check("plaintext", "read", FAIL, "what was unpacked isn't what the manifest recorded")]
        checks.append(Check("plaintext", "read", PASS))
    return [*checks, compare_row_counts(subject.private["tables"], reading.rows)]


def _restore(
    subject: Subject, archive: Archive, runtime: Runtime, places: Places, jobs: int, step: t.Callable[[str], None]
) -> list[Check]:
    private, public = subject.private, subject.public
    if private is None or public is None:
        return [Check("restore", "restore", UNPROVEN, "no manifest says what a restore has to give")]
    major = int(public["client_version"])
    for program in ("initdb", "postgres"):
        if not runtime.has(program, major=major):
            return [
                Check(
                    "restore",
                    "restore",
                    UNPROVEN,
                    f"no PostgreSQL {major} server programs here to restore into ({program})",
                )
            ]
    require_space(
        places.scratch,
        int(public["size_bytes"] * 1.3) + (256 << 20),
        parameter="scratch_dir",
        what="a scratch restore",
        reserve=places.reserve,
    )
    roles = private["roles"]
    superuser = roles["bootstrap"] or "postgres"
    preload = (private.get("settings") or {}).get("shared_preload_libraries", "")
    step("verify: scratch server")
    with Scratch(
        runtime,
        work=places.scratch,
        major=major,
        superuser=superuser,
        account=places.account,
        preload=preload,
        register=places.register,
        sees=(archive.path, places.work),
    ) as scratch:
        try:
            target = scratch.server(_SCRATCH_DATABASE)
            with scratch.server("template1").session() as admin:
                create_roles(admin, roles, login=False, superuser=True, version=admin.version)
                create_database(admin, _SCRATCH_DATABASE, {**private["database"], "tablespace": None})
            step("verify: restore into scratch")
            loaded = load(
                scratch.runtime,
                target,
                archive,
                jobs=jobs,
                work=places.work,
                application="mazevault.backup scratch",
                tablespaces=False,
            )
            step("verify: compare")
            observed = observe(target, private, application="mazevault.backup scratch")
            with scratch.server("template1").session() as admin:
                apply_properties(admin, _SCRATCH_DATABASE, private["database"])
                properties = read_properties(admin, _SCRATCH_DATABASE) or {}
            # A scratch server has no tablespaces of its own.
            observed["database"] = {**properties, "tablespace": private["database"]["tablespace"]}
            checks = compare_all(private, observed)
            checks += [left_out_check(what) for what in loaded.left_out]
            step("verify: amcheck")
            checks.append(_amcheck(scratch))
        except BackupError as exc:
            return [Check("restore", "restore", _guilt(exc) if scratch.alive() else UNPROVEN, exc.msg)]
    return checks


def _guilt(exc: BackupError) -> str:
    """That somebody killed the program which read a dump says nothing about the dump."""
    return UNPROVEN if exc.details.get("rc") in KILLED else FAIL


def _amcheck(scratch: Scratch) -> Check:
    with scratch.server(_SCRATCH_DATABASE).session() as session:
        # The restored database's own settings and event triggers have no say here.
        session.execute("SET default_transaction_read_only = off", "SET session_replication_role = replica")
        try:
            wrong = check_indexes(session)
        except BackupError as exc:
            # It is an extra: a server without the extension proves no less of the dump.
            return Check("amcheck", "restore", PASS, f"not run: {exc.msg}")
    return Check("amcheck", "restore", FAIL, wrong) if wrong else Check("amcheck", "restore", PASS)
