# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""An artefact's bytes on the disk: one file as it is, or encrypted in one or more parts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _encryption
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import PART_BYTES, SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK, fsync_path
from ansible_collections.mazevault.backup.plugins.module_utils._pipes import chunks, own, widen, write_all
from ansible_collections.mazevault.backup.plugins.module_utils._process import PIPE, Child, failure


class Sink:
    """Where an artefact's bytes go: a new file, or the parts that they are encrypted to.

    Args:
        path: the artefact's name; parts have it with a suffix.
        key: what to encrypt to; None: as they are.
    """

    def __init__(self, path: str, key: SetKey | None = None) -> None:
        self._path, self._key = path, key
        self._digest = hashlib.sha256()
        self._child: Child | None = None
        self._fd = -1
        self._in_part = 0
        self.files: list[str] = []

    @property
    def name(self) -> str:
        return self._path

    @property
    def scheme(self) -> str:
        return "none" if self._key is None else self._key.scheme

    @property
    def sha256(self) -> str:
        """Of the files' bytes, one after the other."""
        return self._digest.hexdigest()

    def write(self, data: memoryview) -> None:
        while data:
            if not self._open():
                self._begin()
            room = PART_BYTES - self._in_part if self._key is not None and self._key.scheme == "cms" else len(data)
            piece, data = data[:room], data[room:]
            if self._child is not None:
                try:
                    write_all(self._child.stdin.fileno(), piece)
                except BrokenPipeError:
                    self._end()
            else:
                self._digest.update(piece)
                write_all(self._fd, piece)
            self._in_part += len(piece)
            if self._child is not None and self._in_part >= PART_BYTES and self._key and self._key.scheme == "cms":
                self._end()

    def close(self) -> None:
        """Everything is on the disk after it; also an empty artefact has a file."""
        if not self.files:
            self._begin(empty=True)
        self._end()

    def stop(self) -> None:
        """End what runs; what was written is of no use."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        return self._child is not None or self._fd >= 0

    def _begin(self, *, empty: bool = False) -> None:
        self._in_part = 0
        if self._key is None:
            self.files.append(self._path)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            return
        name = _encryption.part_name(self._path, len(self.files), self._key.scheme)
        self.files.append(name)
        self._child = _encryption.start(_encryption.encrypting(self._key, name, empty=empty), stdin=PIPE)
        widen(self._child.stdin.fileno())

    def _end(self) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._child is None:
            return
        child, self._child = self._child, None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        done = child.wait()
        child.stop()
        if done.rc != 0:
            raise failure(
                f"{self.files[-1]}", done, hint="Is the disk full or broken? Free some space, then run again."
            )
        os.chmod(self.files[-1], 0o600)
        with open(self.files[-1], "rb") as stream:
            while chunk := stream.read(CHUNK):
                self._digest.update(chunk)
        fsync_path(self.files[-1])


def store(path: str, content: bytes, key: SetKey | None) -> Sink:
    """Write something small; in plain it is nowhere but in memory."""
    sink = Sink(path, key)
    try:
        sink.write(memoryview(content))
        sink.close()
    finally:
        sink.stop()
    return sink


def described(sink: Sink, top: str, *, component: str, plaintext_sha256: str, **facts: t.Any) -> dict[str, t.Any]:
    """What the manifest says of an artefact.

    Args:
        top: the set's folder, which paths are relative to.
        facts: `format`, `compression`, `class` and `seconds`.
    """
    return {
        "component": component,
        "path": os.path.relpath(sink.name, top),
        "files": [os.path.relpath(path, top) for path in sink.files],
        "bytes": sum(os.path.getsize(path) for path in sink.files),
        "sha256": sink.sha256,
        "sha256_plaintext": plaintext_sha256,
        "encryption": sink.scheme,
        **facts,
    }


def files_of(artefact: t.Mapping[str, t.Any]) -> list[str]:
    """Relative paths of an artefact's files, in order; former sets name but one."""
    return list(artefact.get("files") or [artefact["path"]])


@dataclass(frozen=True)
class Stored:
    """What a sink has written, to be read again.

    Attributes:
        files: paths, in order.
        key: what opens them; None: they are as they are (then there is one).
    """

    files: tuple[str, ...]
    key: SetKey | None = None

    def opened(self) -> t.ContextManager[t.IO[bytes]]:
        """The bytes as a stream with a descriptor of its own.

        Raises:
            Damaged: when the block ends, and a part didn't open; the stream ends before it.
        """
        return open(self.files[0], "rb") if self.key is None else _decrypted(self.files, self.key)


@contextlib.contextmanager
def _decrypted(files: t.Sequence[str], key: SetKey) -> t.Iterator[t.IO[bytes]]:
    if not key.is_open:
        raise BackupError(
            f"set: {os.path.dirname(files[0])}: is encrypted, and its key isn't here",
            hint="Let a recipient open it (set_key_file), or bring an identity (identity_file); RESTORE.md has the"
            " command.",
        )
    reading, writing = os.pipe()
    opener = _Opener(files, key, writing)
    with os.fdopen(reading, "rb", buffering=0) as stream:
        try:
            yield stream
        except Damaged as exc:
            # Who reads a stream that ends too early finds damage too; this is its cause.
            if (cause := opener.end(stream)) is not None:
                raise cause from exc
            raise
        except BaseException:
            opener.end(stream)
            raise
    if (cause := opener.end(stream)) is not None:
        raise cause


class _Opener:
    """Decrypts one part after the other into a pipe, none before it is known to be whole."""

    def __init__(self, files: t.Sequence[str], key: SetKey, writing: int) -> None:
        self._files, self._key, self._writing = files, key, writing
        self._error: BackupError | None = None
        self._running: Child | None = None
        self._wanted = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self, stream: t.IO[bytes]) -> BackupError | None:
        """What was wrong; a reader that had enough before the end is right."""
        self._wanted = False
        stream.close()
        self._thread.join()
        return self._error

    def _run(self) -> None:
        following: Child | None = None
        try:
            widen(self._writing)
            for number, path in enumerate(self._files):
                child = following or self._start(path)
                # openssl writes only when it has all: the next part is opened while this one is read.
                following = self._start(self._files[number + 1]) if number + 1 < len(self._files) else None
                self._pass_on(child, path)
        except BrokenPipeError:
            pass
        except BackupError as exc:
            self._error = exc
        except OSError as exc:
            self._error = BackupError(f"{self._files[0]}: {exc.strerror or exc}")
        finally:
            if following is not None:
                following.stop()
            os.close(self._writing)

    def _start(self, path: str) -> Child:
        return _encryption.start(_encryption.decrypting(self._key, path), stdout=PIPE)

    def _pass_on(self, child: Child, path: str) -> None:
        try:
            source = own(child.stdout)
            try:
                if self._key.scheme == "age":
                    # It checks each piece before it writes it.
                    for chunk in chunks(source):
                        write_all(self._writing, chunk)
                    self._judge(child, path)
                else:
                    # openssl says only after it that what it wrote was tampered with.
                    with os.fdopen(os.dup(source), "rb", buffering=0) as stream:
                        whole = stream.read()
                    self._judge(child, path)
                    write_all(self._writing, memoryview(whole))
            finally:
                os.close(source)
        finally:
            child.stop()

    def _judge(self, child: Child, path: str) -> None:
        done = child.wait()
        if done.rc != 0:
            raise Damaged(
                f"{path}: doesn't open: {failure('decrypt', done).msg}",
                hint="It is damaged, or the key isn't that of this set.",
                details={"rc": done.rc},
            )
