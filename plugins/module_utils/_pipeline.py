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
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, Result


class Pipeline:
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
