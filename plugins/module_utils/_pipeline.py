# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""pg_dump, or pg_dump and a compressor, and what comes out of the last of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._pipes import chunks, own, widen, write_all
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, Result

# SIGPIPE and SIGTERM; in a container they are told as a shell does.
_CONSEQUENCES = (-13, -15, 128 + 13, 128 + 15)


class _End:
    """An end of a pipe that a thread works with, and closes for everybody when it is done."""

    def __init__(self, stream: t.IO[bytes]) -> None:
        self._stream, self.number = stream, own(stream)

    def close(self) -> None:
        os.close(self.number)
        with contextlib.suppress(OSError):
            self._stream.close()


class Pipeline:
    """pg_dump, or pg_dump and zstd; what comes out last goes to a file and through SHA-256.

    What goes from pg_dump to zstd goes through SHA-256 too: unpacking has to give just this again.
    """

    def __init__(self, children: list[Child], target: str = "") -> None:
        """Move bytes until the last program ends; without a `target` the only one writes its files itself."""
        self._children = children
        self._written, self._plaintext = hashlib.sha256(), hashlib.sha256()
        self.error: BackupError | None = None
        self._target = target
        self._threads: list[threading.Thread] = []
        if target:
            *before, last = children
            self._threads = [
                *(
                    threading.Thread(target=self._hand_on, args=(_End(first.stdout), _End(last.stdin)), daemon=True)
                    for first in before
                ),
                threading.Thread(target=self._save, args=(_End(last.stdout),), daemon=True),
            ]
        for thread in self._threads:
            thread.start()

    def _hand_on(self, source: _End, sink: _End) -> None:
        """From the first program to the second. Both ends are closed after it: the first may not write for nobody."""
        try:
            widen(sink.number)
            for chunk in chunks(source.number):
                self._plaintext.update(chunk)
                write_all(sink.number, chunk)
        except BrokenPipeError:
            pass  # the second has ended; its exit status says why
        except OSError as exc:
            self.error = BackupError(f"{self._target}: between pg_dump and zstd: {exc.strerror}")
        finally:
            source.close()
            sink.close()

    def _save(self, output: _End) -> None:
        try:
            fd = os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as out:
                for chunk in chunks(output.number):
                    self._written.update(chunk)
                    write_all(out.fileno(), chunk)
                os.fsync(out.fileno())
        except OSError as exc:
            self.error = BackupError(f"{self._target}: {exc.strerror}", hint="Is the disk full or broken?")
        finally:
            output.close()

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def poll(self) -> bool:
        return all(child.poll() is not None for child in self._children) and not any(
            thread.is_alive() for thread in self._threads
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
        return sorted(done, key=lambda result: result.rc in _CONSEQUENCES)

    def sums(self) -> tuple[str, str]:
        """SHA-256 of what was written, and of the same before it was compressed; empty for files of pg_dump's own."""
        for thread in self._threads:
            thread.join()
        if not self._threads:
            return "", ""
        written = self._written.hexdigest()
        return written, written if len(self._children) == 1 else self._plaintext.hexdigest()

    def stop(self) -> None:
        for child in self._children:
            child.stop()
        for thread in self._threads:
            thread.join(10)
