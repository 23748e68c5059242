# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""One archive of file trees: tar and a compressor write it, what they wrote is read back, nothing changed meanwhile."""

from __future__ import annotations

import os
import re
import tempfile
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Retry
from ansible_collections.mazevault.backup.plugins.module_utils._files import default_reserve, free_bytes, human_size
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._names import Patterns, as_text, shown, told
from ansible_collections.mazevault.backup.plugins.module_utils._pipeline import Pipeline
from ansible_collections.mazevault.backup.plugins.module_utils._process import PIPE, STDERR_TAIL, Child, Result, failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._selection import (
    Item,
    Selection,
    Source,
    changed,
    select,
    stand_in,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import Contents, Opener, opener, read_contents
from ansible_collections.mazevault.backup.plugins.module_utils._tree import FILE, FOLDER, HARDLINK, SYMLINK, sha256_of

SUFFIXES = {"zstd": ".tar.zst", "gzip": ".tar.gz", "none": ".tar"}
_COMPRESSORS = {"zstd": ("-q", "--check", "-3", "-c"), "gzip": ("-n", "-c")}
# The same files give the same bytes: fixed names for extra headers (tar's own have its process number in them, those of
# sparse files 1.0 too), no times that reading changes, holes by content.
_TAR = (
    "--create",
    "--file=-",
    "--format=posix",
    "--pax-option=exthdr.name=././@PaxHeader,delete=atime,delete=ctime",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--selinux",
    "--sparse",
    "--sparse-version=0.0",
    "--hole-detection=raw",
    "--absolute-names",
    "--no-recursion",
    "--no-unquote",
    "--quoting-style=escape",
)
# What tar says of files that change or go while it reads; whether they did is looked at.
_MOVING = re.compile(
    r"(?:file changed as we read it|File shrank by .*|File removed before we read it"
    r"|Cannot (?:stat|open|readlink): No such file or directory"
    r"|Exiting with failure status due to previous errors|Error exit delayed from previous errors)\Z"
)
_SPECIAL_BRE = b"\\.*[^$"


@dataclass
class Packed:
    """An archive and what is known of it.

    Attributes:
        changed: names of what changed while it was read, still in the last attempt.
        vanished: names of what was there and is not in the archive.
        started: when reading began.
    """

    contents: Contents
    sha256: str
    selection: Selection
    changed: list[bytes] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)
    attempts: int = 1
    started: str = ""
    seconds: float = 0.0


class Packer:
    """Makes an archive of some places.

    Args:
        pipe: what moves the bytes from the programs to a file; another stage can be put in here.
        reopen: how the stream of tar is got back from that file.
        never: folders of this run's own.
    """

    def __init__(
        self,
        runtime: Runtime,
        sources: t.Sequence[Source],
        patterns: Patterns,
        *,
        compression: str,
        never: t.Collection[bytes] = (),
        attempts: int = 3,
        reserve: int | None = None,
        progress: Progress,
        pipe: t.Callable[[list[Child], str], Pipeline] = Pipeline,
        reopen: t.Callable[[str, Runtime], Opener] = opener,
    ) -> None:
        self._runtime, self.sources, self._patterns = runtime, list(sources), patterns
        self._compression, self._never, self._attempts = compression, never, attempts
        self._reserve, self.progress, self._pipe, self._reopen = reserve, progress, pipe, reopen

    def select(self) -> Selection:
        return select(self.sources, self._patterns, self._never)

    def pack(self, target: str, work: str) -> Packed:
        """Write the archive to the new file `target`.

        Args:
            work: a private folder for copies of prepared files.
        Raises:
            BackupError: nothing is at `target` then.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                packed = self._attempt(target, work, attempt)
            except Retry as exc:
                os.unlink(target)
                if attempt >= self._attempts:
                    raise
                self.progress.step("files: attempt given up", attempt=attempt, why=exc.msg)
                continue
            except BaseException:
                if os.path.lexists(target):
                    os.unlink(target)
                raise
            if not (packed.changed or packed.vanished) or attempt >= self._attempts:
                return packed
            moving = [told(name) for name in (*packed.changed, *packed.vanished)]
            self.progress.step("files: attempt given up", attempt=attempt, why=f"changed while read: {moving[0]}")
            os.unlink(target)
            time.sleep(0.2 * attempt)

    def _attempt(self, target: str, work: str, attempt: int) -> Packed:
        started, since = _clock.rfc3339(_clock.now()), time.monotonic()
        self.progress.step("files: look", attempt=attempt)
        selection = self.select()
        with tempfile.TemporaryDirectory(dir=work, prefix=".prepared-") as folder:
            items = [
                stand_in(item, folder, number) if item.source.like else item
                for number, item in enumerate(selection.items)
            ]
            self.progress.step("files: tar starts")
            with tempfile.TemporaryFile() as names:
                names.write(b"".join(item.path + b"\0" for item in items))
                names.seek(0)
                pipeline = self._start(items, names, target)
                tar, sums = self._run(pipeline, target)
        self.progress.step("files: read back what was written")
        files = sum(item.info.st_size for item in items if item.kind == FILE)
        # A file may have grown since; one that did is found below.
        contents = read_contents(self._reopen(target, self._runtime), Limits(2 * files + (1 << 30), len(items)))
        if contents.sha256 != sums[1]:
            raise BackupError(
                f"{target}: what is read back isn't what tar wrote", hint="Is the disk broken, or the compressor?"
            )
        different, gone = changed(selection)
        packed = Packed(contents, sums[0], selection, different, gone, attempt, started)
        self._judge(tar, packed, items)
        packed.seconds = round(time.monotonic() - since, 3)
        return packed

    def _start(self, items: t.Sequence[Item], names: t.IO[bytes], target: str) -> Pipeline:
        processes = self._runtime.processes
        sources = {(item.source.path, item.source.name): None for item in items}
        argv = [self._runtime.program("tar"), *_TAR, *map(as_text, transforms(sources)), "--null", "--files-from=-"]
        # In any other locale a byte that is no character would match nothing.
        children = [processes.start(argv, env={"LC_ALL": "C"}, stdin=names, stdout=PIPE)]
        if self._compression != "none":
            program = self._runtime.program(self._compression)
            try:
                children.append(processes.start([program, *_COMPRESSORS[self._compression]], stdin=PIPE, stdout=PIPE))
            except BaseException:
                children[0].stop()
                raise
        return self._pipe(children, target)

    def _run(self, pipeline: Pipeline, target: str) -> tuple[Result, tuple[str, str]]:
        """Until all have ended: tar's own end, and the sums of the file and of the stream."""
        self.progress.step("files: tar runs", programs=pipeline.pids())
        try:
            while not pipeline.poll() and pipeline.error is None:
                time.sleep(0.02)
                free, total = free_bytes(os.path.dirname(target))
                reserve = default_reserve(total) if self._reserve is None else self._reserve
                if free < reserve:
                    raise BackupError(
                        f"{target}: broken off: only {human_size(free)} are free, {human_size(reserve)} must stay",
                        hint="Free some space; a full disk would stop the live database.",
                    )
            if pipeline.error is not None:
                raise pipeline.error
            sums = pipeline.sums()
            results = pipeline.results()
        finally:
            pipeline.stop()
        for result in results:
            if result.program != "tar":
                result.check("archive")
        tar = next(result for result in results if result.program == "tar")
        if tar.rc not in (0, 1, 2) or (tar.rc and any(not _MOVING.search(line) for line in _lines(tar))):
            raise failure("archive", tar)
        return tar, sums

    def _judge(self, tar: Result, packed: Packed, items: t.Sequence[Item]) -> None:
        """Whether the archive holds what was selected, but for what changed or vanished."""
        lines = _lines(tar)
        unsteady = set(packed.changed) | set(packed.vanished)
        if tar.rc and (not unsteady or len(tar.stderr) >= STDERR_TAIL):
            # Too much was said to see all of it, or something that can't be found out any more.
            raise Retry(
                f"archive: tar couldn't read everything as it was: {lines[-1] if lines else f'exit status {tar.rc}'}",
                hint="Files change all the time: stop what writes them, or exclude them.",
            )
        holey = {item.name for item in packed.selection.items if item.holes and not item.source.like}
        found = {entry.name: entry for entry in packed.contents.entries}
        for item in items:
            entry = found.pop(item.name, None)
            if entry is None:
                if item.name not in packed.vanished:
                    raise Retry(f"archive: {shown(item.name)}: tar left it out: {lines[:1]}", hint="Run again.")
                continue
            kind = FILE if entry.kind == HARDLINK else entry.kind
            if (kind != item.kind or (entry.kind == FILE and entry.size != item.info.st_size)) and (
                item.name not in unsteady
            ):
                raise Retry(f"archive: {entry.shown}: not as it was selected", hint="Run again.")
            # tar takes a file without blocks for a hole, and there are file systems that tell of blocks late.
            if entry.kind == FILE and item.name in holey - unsteady:
                self._check_holes(item, entry.sha256)
        if found:
            raise BackupError(f"archive: {shown(min(found))}: tar put in what wasn't asked for")
        # What tar still got of a file that went afterwards is whole, or it would have complained.
        held = {entry.name for entry in packed.contents.entries}
        packed.changed = sorted({*packed.changed, *(name for name in packed.vanished if name in held)})
        packed.vanished = sorted(name for name in packed.vanished if name not in held)

    @staticmethod
    def _check_holes(item: Item, sha256: str) -> None:
        try:
            if sha256_of(item.path) != sha256:
                raise Retry(f"archive: {shown(item.name)}: its contents aren't those of the file", hint="Run again.")
        except FileNotFoundError as exc:
            raise Retry(f"archive: {shown(item.name)}: it is gone", hint="Run again.") from exc


def _lines(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.strip()]


def transforms(sources: t.Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """tar's options that give every path its name in the archive: paths begin with a slash, names don't.

    The longest path comes first, as a place can lie in another one.
    """
    options = []
    for path, name in sorted(sources, key=lambda source: len(source[0]), reverse=True):
        mark = next(bytes([code]) for code in range(1, 256) if bytes([code]) not in path + name + b"\\sflags=rhS;^$&/")
        pattern = b"".join(b"\\" + bytes([code]) if code in _SPECIAL_BRE else bytes([code]) for code in path)
        called = name.replace(b"\\", b"\\\\").replace(b"&", b"\\&")
        prefix = called + b"/" if called else b""
        for begin, new in ((b"^" + pattern + b"$", called or b"."), (b"^" + pattern + b"/", prefix)):
            options.append(b"--transform=flags=rhS;s" + mark + begin + mark + new + mark)
    return options


def describe(packed: Packed, *, component: str, path: str, size: int, facts: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """One archive for a report: `artefact`, `public` and `private`.

    Args:
        facts: `compression`, `class` and `sources`.
    """
    entries = packed.contents.entries
    kinds = {kind: sum(entry.kind == kind for entry in entries) for kind in (FILE, FOLDER, SYMLINK, HARDLINK)}
    artefact = {
        "component": component,
        "path": path,
        "bytes": size,
        "sha256": packed.sha256,
        "sha256_plaintext": packed.contents.sha256,
        "format": "tar",
        "compression": facts["compression"],
        "encryption": "none",
        "class": facts["class"],
        "seconds": packed.seconds,
    }
    public = {
        "path": path,
        "recovery_point": packed.started,
        "files": kinds[FILE],
        "folders": kinds[FOLDER],
        "symlinks": kinds[SYMLINK],
        "hardlinks": kinds[HARDLINK],
        "size_bytes": sum(entry.size for entry in entries),
        "left_out": len(packed.selection.left_out),
        "changed_while_read": len(packed.changed),
        "vanished": len(packed.vanished),
    }
    private = {
        "sources": list(facts["sources"]),
        "sha256_plaintext": packed.contents.sha256,
        "bytes_plaintext": packed.contents.size,
        "entries": [entry.as_dict() for entry in entries],
        "left_out": packed.selection.left_out,
        "changed_while_read": [told(name) for name in packed.changed],
        "vanished": [told(name) for name in packed.vanished],
    }
    return {"artefact": artefact, "public": public, "private": private}


def report_of(
    component: str, former: t.Mapping[str, t.Any] | None, described: t.Mapping[str, t.Any]
) -> dict[str, t.Any]:
    """The component's report with one more archive, or with this one in place of the one that had its path."""
    path = described["artefact"]["path"]
    artefacts = [entry for entry in (former or {}).get("artefacts", ()) if entry["path"] != path]
    archives = [entry for entry in (former or {}).get("public", {}).get("archives", ()) if entry["path"] != path]
    private = {**((former or {}).get("private", {}).get("archives", {})), path: described["private"]}
    archives = sorted([*archives, described["public"]], key=lambda entry: str(entry["path"]))
    special = sum(
        entry["why"] in ("socket", "fifo", "device") for facts in private.values() for entry in facts["left_out"]
    )
    unsteady = sum(entry["changed_while_read"] + entry["vanished"] for entry in archives)
    return {
        "component": component,
        "written": _clock.rfc3339(_clock.now()),
        "artefacts": sorted([*artefacts, described["artefact"]], key=lambda entry: str(entry["path"])),
        "public": {
            "archives": archives,
            "size_bytes": sum(entry["size_bytes"] for entry in archives),
            "not_covered": [f"{component}: {special} sockets, fifos or device nodes"] if special else [],
            "warnings": [f"{component}: {unsteady} files changed or vanished while they were read"] if unsteady else [],
        },
        "private": {"archives": dict(sorted(private.items()))},
        "recovery_point": min(entry["recovery_point"] for entry in archives),
    }
