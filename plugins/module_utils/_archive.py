# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Reading dumps: what a file is by its first bytes, its table of contents, and every byte of its data."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import select
import tempfile
import threading
import typing as t
import zlib
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK
from ansible_collections.mazevault.backup.plugins.module_utils._pipes import chunks, own, widen, write_all
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, failure
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._stream import CommandGuard, RowCounter
from ansible_collections.mazevault.backup.plugins.module_utils._toc import TocEntry, parse_toc

FORMATS = ("custom", "directory", "tar", "plain")
# Seconds without output after which it is asked whether a program still reads; twice without is stuck.
STALLED_AFTER = 60.0
_TRAILERS = (b"-- PostgreSQL database dump complete", b"-- PostgreSQL database cluster dump complete")
_HEADERS = (b"-- PostgreSQL database dump", b"-- PostgreSQL database cluster dump")
_GZIP, _ZSTD, _CUSTOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PGDMP"


@dataclass(frozen=True)
class Archive:
    """A dump on disk.

    Attributes:
        format: `custom`, `directory`, `tar` or `plain`.
        wrapper: `zstd` or `gzip` around the whole file (around each data file of a directory), or empty.
        stored: its files, and the key that opens them; None: the file `path` as it is.
      stored: its files, and the key that opens them; None: the file `path` as it is.
    """

    path: str
    format: str
    wrapper: str = ""
    stored: Stored | None = None

    @property
    def name(self) -> str:
        return f"{self.format} ({self.wrapper})" if self.wrapper else self.format

    @property
    def readable_by_name(self) -> bool:
        """Whether programs can be given its name; others are unwrapped or decrypted for them."""
        return self.format == "directory" or not (self.wrapper or (self.stored and self.stored.key))

    def raw(self) -> t.ContextManager[t.IO[bytes]]:
        """Its bytes, decrypted, still in their wrapper."""
        return (self.stored or Stored((self.path,))).opened()


def identify(path: str, runtime: Runtime, stored: Stored | None = None) -> Archive:
    """Say what a dump is by its content; its name decides nothing.

    Args:
        stored: the files and the key, of a dump in a set; one of nobody's is the file `path`.
    Raises:
        BackupError: not there, not readable, or no dump at all.
    """
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "toc.dat")):
            zipped = any(name.endswith(".dat.zst") for name in os.listdir(path))
            return Archive(path, "directory", "zstd" if zipped else "")
        raise BackupError(f"set: {path}: a folder without toc.dat, so not a dump", hint="Name a dump's folder or file.")
    try:
        with Archive(path, "plain", stored=stored).raw() as stream:
            head = stream.read(512)
    except OSError as exc:
        raise BackupError(f"set: {path}: {exc.strerror}", hint="Name a dump that this user can read.") from exc
    wrapper = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else ""
    if wrapper:
        plain = Archive(path, "plain", wrapper, stored)
        try:
            with opened(plain, runtime) as stream:
                head = stream.read(512)
        except Damaged:
            head = b""
    if head.startswith(_CUSTOM):
        return Archive(path, "custom", wrapper, stored)
    if head[257:262] == b"ustar" and head.startswith(b"toc.dat\0"):
        return Archive(path, "tar", wrapper, stored)
    if any(header in head for header in _HEADERS) or head.lstrip().startswith(
        (b"--", b"SET ", b"CREATE ", b"BEGIN", b"DROP ", b"\\restrict")
    ):
        return Archive(path, "plain", wrapper, stored)
    raise Damaged(
        f"set: {path}: not a PostgreSQL dump"
        + ("" if head else " (nothing in it can be unpacked)" if wrapper else " (empty file)"),
        hint="Known are pg_dump's custom, directory, tar and plain formats, also inside gzip or zstd.",
    )


def opened(archive: Archive, runtime: Runtime) -> t.ContextManager[t.IO[bytes]]:
    """The dump as a stream without its wrapper; damage of the wrapper is raised when the block ends normally."""
    if not archive.wrapper:
        return archive.raw()
    return _gunzipped(archive) if archive.wrapper == "gzip" else _unzstd(archive, runtime)


@contextlib.contextmanager
def _gunzipped(archive: Archive) -> t.Iterator[t.IO[bytes]]:
    with archive.raw() as raw, gzip.open(raw, "rb") as stream:
        try:
            yield t.cast("t.IO[bytes]", stream)
        except (EOFError, OSError, zlib.error) as exc:
            raise Damaged(f"{archive.path}: gzip: {exc}") from exc


@contextlib.contextmanager
def _unzstd(archive: Archive, runtime: Runtime) -> t.Iterator[t.IO[bytes]]:
    with archive.raw() as raw:
        child = runtime.processes.start([runtime.program("zstd"), "-q", "-d", "-c"], stdin=raw, stdout=-1)
        try:
            yield child.stdout
            if child.stdout.read(1):
                return  # the reader had enough; zstd's word about the rest isn't wanted
            done = child.wait()
            if done.rc != 0:
                raise Damaged(f"{archive.path}: {failure('zstd', done).msg}", details={"rc": done.rc})
        finally:
            child.stop()


def data_file(path: str, runtime: Runtime) -> t.ContextManager[t.IO[bytes]]:
    """One data file of a directory dump, unwrapped."""
    wrapper = "zstd" if path.endswith(".zst") else "gzip" if path.endswith(".gz") else ""
    return opened(Archive(path, "plain", wrapper), runtime)


def plaintext_sha256(path: str, runtime: Runtime) -> str:
    """SHA-256 of a file without its zstd or gzip wrapper: reads every byte, and so proves the wrapper's checksums."""
    with open(path, "rb") as stream:
        head = stream.read(4)
    wrapper = "zstd" if head == _ZSTD else "gzip" if head.startswith(_GZIP) else ""
    digest = hashlib.sha256()
    with opened(Archive(path, "plain", wrapper), runtime) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def for_pg_restore(archive: Archive, runtime: Runtime) -> t.Iterator[tuple[list[str], t.IO[bytes] | None]]:
    """What pg_restore is to be given: arguments, and a plain file for its stdin (None where it reads by name).

    A directory with files wrapped by the zstd program needs pg_restore 16 or newer; see `unwrap`.
    """
    if archive.readable_by_name:
        yield [archive.path], None
    else:
        with opened(archive, runtime) as stream:
            yield [], stream


class _Feeder:
    """Copies an unwrapped stream into a program's stdin, hashing what goes by."""

    def __init__(self, child: Child, pieces: t.Iterator[memoryview]) -> None:
        self.error: Exception | None = None
        self.sha256 = hashlib.sha256()
        self._child, self._pieces, self._sink = child, pieces, own(child.stdin)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        try:
            widen(self._sink)
            for chunk in self._pieces:
                self.sha256.update(chunk)
                write_all(self._sink, chunk)
        except BrokenPipeError:
            pass  # the program has ended; its exit status says why
        except (OSError, EOFError, zlib.error) as exc:
            self.error = exc
        finally:
            os.close(self._sink)
            with contextlib.suppress(OSError):
                self._child.stdin.close()

    def join(self) -> None:
        self._thread.join()


def _pieces(archive: Archive, source: t.IO[bytes]) -> t.Iterator[memoryview]:
    """Of an unwrapped stream from its beginning; all but gzip's have a descriptor that gives just this."""
    if archive.wrapper == "gzip":
        while chunk := source.read(CHUNK):
            yield memoryview(chunk)
    else:
        yield from chunks(source.fileno())


def _output(child: Child, archive: Archive) -> t.Iterator[memoryview]:
    """What a program writes. Over a damaged end of a compressed stream pg_restore loops for ever; that is seen here.

    Raises:
        Damaged: the program neither read nor wrote anything for long.
    """
    last = -1
    pieces = chunks(child.stdout.fileno())
    while True:
        ready, _writable, _broken = select.select([child.stdout], [], [], STALLED_AFTER)
        if ready:
            chunk = next(pieces, None)
            if chunk is None:
                return
            yield chunk
            continue
        read = child.bytes_read()
        if read == last:
            raise Damaged(f"set: {archive.path}: pg_restore is stuck in it: the data don't end where they should")
        last = read


def pg_restore_stream(
    archive: Archive, runtime: Runtime, major: int, arguments: t.Sequence[str], consume: t.Callable[[memoryview], None]
) -> str:
    """Run pg_restore over the archive and hand its output to `consume` in pieces.

    Returns:
        the sha256 of what was unwrapped for it, or "" where it read the files by name.
    Raises:
        Damaged: pg_restore or the wrapper found damage.
    """
    program = runtime.program("pg_restore", major=major)
    with for_pg_restore(archive, runtime) as (names, stream):
        child = runtime.processes.start([program, *arguments, *names], stdin=None if stream is None else -1, stdout=-1)
        feeder = None
        try:
            feeder = _Feeder(child, _pieces(archive, stream)) if stream is not None else None
            for chunk in _output(child, archive):
                consume(chunk)
            done = child.wait()
        finally:
            child.stop()
            if feeder is not None:
                feeder.join()
        if done.rc != 0:
            raise Damaged(
                failure(f"set: {archive.path}", done).msg, details={"rc": done.rc, "stderr_tail": done.stderr}
            )
        if feeder is not None and feeder.error is not None:
            raise Damaged(f"set: {archive.path}: {feeder.error}")
    return feeder.sha256.hexdigest() if feeder is not None else ""


def read_toc(archive: Archive, runtime: Runtime, major: int) -> tuple[list[TocEntry], str]:
    """The table of contents of an archive and pg_restore's own text of it."""
    pieces: list[bytes] = []
    program = runtime.program("pg_restore", major=major)
    if not archive.readable_by_name:
        # The list is at the beginning; whatever wrapper damage follows is not asked about here.
        with _lenient(archive, runtime) as stream:
            child = runtime.processes.start([program, "--list"], stdin=-1, stdout=-1)
            feeder = None
            try:
                feeder = _Feeder(child, _pieces(archive, stream))
                while chunk := os.read(child.stdout.fileno(), CHUNK):
                    pieces.append(chunk)
                done = child.wait()
            finally:
                child.stop()
                if feeder is not None:
                    feeder.join()
    else:
        child = runtime.processes.start([program, "--list", archive.path], stdout=-1)
        try:
            while chunk := os.read(child.stdout.fileno(), CHUNK):
                pieces.append(chunk)
            done = child.wait()
        finally:
            child.stop()
    if done.rc != 0:
        raise Damaged(failure(f"set: {archive.path}", done).msg, details={"rc": done.rc, "stderr_tail": done.stderr})
    text = b"".join(pieces).decode("utf-8", "replace")
    entries = parse_toc(text)
    if not entries:
        raise Damaged(f"set: {archive.path}: the table of contents is empty", hint="A dump of nothing proves nothing.")
    return entries, text


@contextlib.contextmanager
def _lenient(archive: Archive, runtime: Runtime) -> t.Iterator[t.IO[bytes]]:
    with contextlib.suppress(Damaged), opened(archive, runtime) as stream:
        yield stream


@dataclass(frozen=True)
class Reading:
    """What a full read found: rows per (schema, table), sha256 of the unwrapped bytes ("" for folders)."""

    rows: dict[tuple[str, str], int]
    plaintext_sha256: str


def read_fully(archive: Archive, runtime: Runtime, major: int, *, work: str) -> Reading:
    """Decode every byte of the data.

    Args:
        work: folder for unpacked copies; a published set is never written to.

    Raises:
        Damaged: anything that isn't a whole dump: wrapper, decompression, a COPY block without end, a missing trailer.
    """
    counter = RowCounter()
    if archive.format == "plain":
        sha = _read_plain(archive, runtime, counter)
    else:
        with unwrapped_directory(archive, runtime, major, work=work) as readable:
            # Data only: a function's body may hold lines that look like COPY.
            sha = pg_restore_stream(readable, runtime, major, ["--data-only", "--file=-"], counter.feed)
        counter.finish()
    return Reading(counter.rows, sha)


def _read_plain(archive: Archive, runtime: Runtime, counter: RowCounter) -> str:
    digest, tail, guard, smuggled = hashlib.sha256(), b"", CommandGuard(), False
    with opened(archive, runtime) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            counter.feed(chunk)
            smuggled = guard.feed(chunk) or smuggled
            tail = (tail + chunk)[-4096:]
    if guard.finish() or smuggled:
        raise Damaged(
            f"set: {archive.path}: it holds the psql command \\unrestrict as no dump does",
            hint="Somebody put commands into it: don't run it with psql either. Use another one.",
        )
    if not any(trailer in tail for trailer in _TRAILERS):
        raise Damaged(
            f"set: {archive.path}: the closing line of the dump is missing: it was cut off",
            hint="A cut plain dump restores without an error and without its last rows. Use another one.",
        )
    return digest.hexdigest()


def unwrapped_directory(archive: Archive, runtime: Runtime, major: int, *, work: str) -> t.ContextManager[Archive]:
    """A directory dump that this pg_restore can read; others pass through as they are.

    zstd files are checked by their frames' checksums first (pg_restore notices neither flips nor a cut), and unpacked
    to a temporary folder.
    """
    if archive.format != "directory" or archive.wrapper != "zstd":
        return contextlib.nullcontext(archive)
    return _unpacked(archive, runtime, work)


@contextlib.contextmanager
def _unpacked(archive: Archive, runtime: Runtime, work: str) -> t.Iterator[Archive]:
    with tempfile.TemporaryDirectory(dir=work, prefix=".unpacked-") as folder:
        for name in sorted(os.listdir(archive.path)):
            target = os.path.join(folder, name[:-4] if name.endswith(".zst") else name)
            with data_file(os.path.join(archive.path, name), runtime) as source, open(target, "wb") as out:
                while chunk := source.read(CHUNK):
                    out.write(chunk)
        yield Archive(folder, "directory")
