# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A program, or one and a compressor, and what comes out of the last of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, of_system
from ansible_collections.mazevault.backup.plugins.module_utils._pipes import chunks, own, widen, write_all
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, Result
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Sink

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
    """pg_dump or tar, or one of them and zstd; what comes out last goes to a sink.

    What the first one writes goes through SHA-256: unpacking has to give just this again.
    """

    def __init__(self, children: list[Child], sink: Sink | None = None) -> None:
        """Move bytes until the last program ends; without a `sink` the only one writes its files itself."""
        self._children = children
        self._plaintext = hashlib.sha256()
        self.error: BackupError | None = None
        self._sink = sink
        self._threads: list[threading.Thread] = []
        if sink is not None:
            *before, last = children
            self._threads = [
                *(
                    threading.Thread(target=self._hand_on, args=(_End(first.stdout), _End(last.stdin)), daemon=True)
                    for first in before
                ),
                threading.Thread(target=self._save, args=(_End(last.stdout), sink), daemon=True),
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
            self.error = BackupError(f"between the first program and the compressor: {exc.strerror}")
        finally:
            source.close()
            sink.close()

    def _save(self, output: _End, sink: Sink) -> None:
        try:
            alone = len(self._children) == 1
            for chunk in chunks(output.number):
                if alone:
                    self._plaintext.update(chunk)
                sink.write(chunk)
            sink.close()
        except BackupError as exc:
            self.error = exc
        except OSError as exc:
            self.error = of_system(exc, "See whether the disk is broken.", what=sink.name)
        finally:
            sink.stop()
            output.close()

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def poll(self) -> bool:
        return all(child.poll() is not None for child in self._children) and not any(
            thread.is_alive() for thread in self._threads
        )

    def wait(self, seconds: float) -> bool:
        """Whether all has ended, at the latest after so long."""
        deadline = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

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

    def plaintext_sha256(self) -> str:
        """SHA-256 of what the first program wrote; empty for files of its own. All is written after it."""
        for thread in self._threads:
            thread.join()
        return self._plaintext.hexdigest() if self._threads else ""

    def stop(self) -> None:
        for child in self._children:
            child.stop()
        for thread in self._threads:
            thread.join(10)
