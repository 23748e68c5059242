# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The four levels of proof for an archive of files: toc < checksum < read < restore."""

from __future__ import annotations

import os
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged, Unsafe
from ansible_collections.mazevault.backup.plugins.module_utils._files import require_space, sha256_files
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._process import KILLED
from ansible_collections.mazevault.backup.plugins.module_utils._put_back import discard
from ansible_collections.mazevault.backup.plugins.module_utils._refusals import ALLOWANCES, refuse
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import (
    Contents,
    Opener,
    Record,
    against_record,
    read_contents,
)
from ansible_collections.mazevault.backup.plugins.module_utils._tree import Entry
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import Unpacker, space_for
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN, Check

# Of an archive of which nothing is recorded.
DEFAULT_LIMITS = Limits(10 << 30, 100_000)


def prove_files(
    files: t.Sequence[str],
    source: t.Callable[[], Opener],
    record: Record | None,
    wanted: str,
    *,
    scratch: str,
    limits: Limits | None = None,
    reserve: int | None = None,
    step: t.Callable[[str], None] = lambda _name: None,
) -> list[Check]:
    """Climb the levels up to `wanted`; a failure ends the climb, what is unproven doesn't.

    Args:
        files: the archive's file, or its parts in order, for size and hash.
        source: called for the way to the archive's stream of tar; it may raise what is wrong with the file.
        record: what was recorded when it was made; without one nothing above `toc` passes.
        scratch: a private folder to unpack in.
    """
    allowed = limits or (record.limits if record else DEFAULT_LIMITS)
    checks: list[Check] = []
    contents: Contents | None = None
    for level in LEVELS[: LEVELS.index(wanted) + 1]:
        if any(check.verdict == FAIL for check in checks):
            break
        step(f"verify: {level}")
        try:
            if level == "toc":
                checks.append(_toc(source(), record, allowed))
            elif level == "checksum":
                checks.append(_checksum(files, record))
            elif level == "read":
                contents = read_contents(source(), allowed)
                checks += _read(contents, record)
            elif contents is not None:
                checks += _restore(source(), contents, record, allowed, scratch, reserve)
        except BackupError as exc:
            checks.append(Check("archive", level, _guilt(exc), exc.msg))
    return checks


def _own() -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def _guilt(exc: BackupError) -> str:
    """Only what is wrong with the archive speaks against it; no space, or a killed program, doesn't."""
    if not isinstance(exc, (Damaged, Unsafe)) or exc.details.get("rc") in KILLED:
        return UNPROVEN
    return FAIL


def _toc(source: Opener, record: Record | None, limits: Limits) -> Check:
    listed = read_contents(source, limits, contents=False)
    # Of links that lead out, and of set-uid bits, only a record can say whether they belong there.
    refuse(
        listed.entries,
        allowed=() if record else ALLOWANCES,
        recorded={entry.name: entry for entry in record.entries} if record else None,
    )
    observed = f"{len(listed.entries)} entries"
    if record is not None and _names(listed.entries) != _names(record.entries):
        return Check("contents", "toc", FAIL, "it lists other names than were recorded", "", observed)
    return Check("contents", "toc", PASS, observed=observed)


def _names(entries: t.Iterable[Entry]) -> list[tuple[bytes, str]]:
    return [(entry.name, entry.kind) for entry in entries]


def _checksum(files: t.Sequence[str], record: Record | None) -> Check:
    if record is None or record.artefact is None:
        return Check("checksums", "checksum", UNPROVEN, "no hash was recorded when this archive was made")
    missing = [os.path.basename(path) for path in files if not os.path.isfile(path)]
    if missing:
        return Check("checksums", "checksum", FAIL, f"{missing[0]}: missing")
    size = sum(os.path.getsize(path) for path in files)
    if size != record.artefact["bytes"]:
        return Check("checksums", "checksum", FAIL, f"{size} bytes instead of {record.artefact['bytes']}")
    if sha256_files(files) != record.artefact["sha256"]:
        return Check("checksums", "checksum", FAIL, "changed")
    return Check("checksums", "checksum", PASS)


def _read(contents: Contents, record: Record | None) -> list[Check]:
    observed = f"{len(contents.entries)} entries, {sum(entry.size for entry in contents.entries)} bytes"
    checks = [Check("full read", "read", PASS, observed=observed)]
    if record is None:
        return [*checks, Check("files", "read", UNPROVEN, "no record says what has to be in it")]
    if wrong := against_record(contents, record):
        return [*checks, Check("files", "read", FAIL, "; ".join(wrong[:3]), observed=f"{len(wrong)} differ")]
    return [*checks, Check("files", "read", PASS)]


def _restore(
    source: Opener, contents: Contents, record: Record | None, limits: Limits, scratch: str, reserve: int | None
) -> list[Check]:
    if record is None:
        return [Check("restore", "restore", UNPROVEN, "no record says what a restore has to give")]
    require_space(scratch, space_for(contents, ""), parameter="scratch_dir", what="a scratch restore", reserve=reserve)
    top = tempfile.mkdtemp(dir=scratch, prefix=".unpacked-")
    try:
        tree = os.path.join(top, "tree")
        os.mkdir(tree, 0o700)
        unpacker = Unpacker(tree)
        unpacker.unpack(source, contents, limits)
        wrong = unpacker.compare(record.entries)
    except OSError as exc:
        return [Check("restore", "restore", UNPROVEN, f"{exc.filename or scratch}: {exc.strerror}")]
    finally:
        discard(top)
    if wrong:
        reason = "; ".join(map(str, wrong[:3]))
        return [Check("restore", "restore", FAIL, reason, observed=f"{len(wrong)} differ")]
    checks = [Check("restore", "restore", PASS, observed=f"{len(contents.entries)} entries")]
    if os.geteuid() != 0 and any((entry.uid, entry.gid) != _own() for entry in record.entries):
        checks.append(Check("owners", "restore", UNPROVEN, "only root can set owners"))
    if unpacker.without:
        names = sorted(set().union(*unpacker.without.values()))
        checks.append(Check("attributes", "restore", UNPROVEN, f"can't be set here: {', '.join(names)}"))
    return checks
