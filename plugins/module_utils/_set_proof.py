# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The proof of a recovery set: of its database and of each of its archives, as one list of checks."""

from __future__ import annotations

import dataclasses
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree, sha256_files
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime, Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._prove_files import prove_files
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import memory_folder
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import opener, record_from
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    FAIL,
    LEVELS,
    PASS,
    REQUIRED_OF_ARCHIVE,
    REQUIRED_OF_POSTGRES,
    UNPROVEN,
    Check,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Places, Subject, prove


@dataclass(frozen=True)
class ArchiveSubject:
    """An archive of files in a set, and what is recorded about it.

    Attributes:
        stored: its files, with what opens them.
        artefact: what the manifest says of it.
        facts: what the manifest's private part says of it; None: nobody here can read that.
        locked: why it can't be opened here; empty where it can.
        proven_before: the level that was proven before it was published; empty where it isn't published, or none was.
    """

    stored: Stored
    artefact: t.Mapping[str, t.Any]
    facts: t.Mapping[str, t.Any] | None
    locked: str = ""
    proven_before: str = ""

    @property
    def name(self) -> str:
        return str(self.artefact["path"])

    @property
    def of_keys(self) -> bool:
        return bool(self.artefact["class"] == "keys")


@dataclass(frozen=True)
class SetSubject:
    """A set, or as much of it as is to be proven; a dump that is no set is a database alone.

    Attributes:
        components: those that are to be proven.
        problems: what is wrong with the set's own sums; None where there are none, or nobody looked.
    """

    components: tuple[str, ...]
    database: Subject | None
    archives: tuple[ArchiveSubject, ...] = ()
    problems: tuple[str, ...] | None = None

    def required(self) -> dict[str, list[str]]:
        """Names of the checks, by level, without which that level isn't reached."""
        wanted: dict[str, list[str]] = {level: [] for level in LEVELS}
        for level in LEVELS:
            if self.database is not None:
                wanted[level] += REQUIRED_OF_POSTGRES[level]
            for archive in self.archives:
                wanted[level] += [f"{archive.name}: {check}" for check in REQUIRED_OF_ARCHIVE[level]]
        return wanted


def prove_set(
    subject: SetSubject, wanted: str, runtime: Runtime, places: Places, *, jobs: int, step: t.Callable[[str], None]
) -> list[Check]:
    """Climb the levels up to `wanted` with each part of a set; what fails ends the climb of its own part."""
    checks: list[Check] = []
    if subject.problems is not None and subject.database is None:
        bad = "; ".join(subject.problems[:3])
        checks.append(Check("sums", "checksum", FAIL if bad else PASS, bad))
    if subject.database is not None:
        checks += prove(subject.database, wanted, runtime, places, jobs=jobs, step=step)
    for archive in subject.archives:
        step(f"verify: {archive.name}")
        found = _prove_archive(archive, wanted, places, step)
        checks += [dataclasses.replace(check, name=f"{archive.name}: {check.name}") for check in found]
    return checks


def _prove_archive(archive: ArchiveSubject, wanted: str, places: Places, step: t.Callable[[str], None]) -> list[Check]:
    if archive.locked or archive.facts is None:
        return _prove_closed(archive, wanted)
    try:
        record = record_from(archive.facts, archive.artefact)
        # Key material is unpacked where nothing is written to a disk.
        unpacking = wanted == "restore"
        scratch = memory_folder("scratch-proof") if archive.of_keys and unpacking else places.work
        if scratch != places.work:
            places.register(scratch)
    except BackupError as exc:
        return [Check("contents", "toc", UNPROVEN, exc.msg)]
    try:
        return prove_files(
            archive.stored.files,
            lambda: opener(archive.stored, HostRuntime()),
            record,
            wanted,
            scratch=scratch,
            reserve=0 if scratch != places.work else places.reserve,
            step=step,
        )
    finally:
        if scratch != places.work:
            remove_tree(scratch)


def _prove_closed(archive: ArchiveSubject, wanted: str) -> list[Check]:
    """That its bytes are those which were proven before they were published.

    Who may open the data of a set can't open its keys. For those, the bytes that were proven prove what was proven; for
    data, somebody who can open them has to look.
    """
    files = archive.stored.files
    before = archive.proven_before
    opened = f"proven to level {before} before it was published" if before else ""
    verdict = PASS if before else UNPROVEN
    checks = [Check("contents", "toc", verdict, "" if before else archive.locked, observed=opened)]
    if wanted == "toc":
        return checks
    missing = [os.path.basename(path) for path in files if not os.path.isfile(path)]
    if missing or sha256_files(files) != archive.artefact["sha256"]:
        return [*checks, Check("checksums", "checksum", FAIL, f"{missing[0]}: missing" if missing else "changed")]
    checks.append(Check("checksums", "checksum", PASS))
    for level in LEVELS[2 : LEVELS.index(wanted) + 1]:
        known = archive.of_keys and before in LEVELS and LEVELS.index(before) >= LEVELS.index(level)
        for name in REQUIRED_OF_ARCHIVE[level]:
            reason = "" if known else archive.locked
            checks.append(Check(name, level, PASS if known else UNPROVEN, reason, observed=opened if known else ""))
    return checks
