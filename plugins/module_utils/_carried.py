# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Programs in a sidecar, started and watched as those of the host are.

What they read and write goes through named pipes and files in a folder that both sides see, never through the engine,
whose streams are slow and can lose their end.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import (
    PIPE,
    Child,
    ProcessRunner,
    Result,
    TimedOut,
    tail_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import Sidecar


class SidecarProcesses:
    """Starts programs: bare names in the container, absolute paths on the host.

    Args:
        user: account of the image to run the container's programs as; empty: the one that we run as.
    """

    def __init__(self, sidecar: Sidecar, host: ProcessRunner, *, user: str = "", uid: int | None = None) -> None:
        self._sidecar, self._host, self._user, self._uid = sidecar, host, user, uid

    def start(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | int | None = None,
        stdout: t.IO[bytes] | int | None = None,
    ) -> Child:
        if os.path.isabs(argv[0]):
            return self._host.start(argv, env=env, stdin=stdin, stdout=stdout)
        if stdin not in (None, PIPE) or stdout not in (None, PIPE):
            raise ValueError("a program in a container is reached by pipes only")
        return self._launch(argv, env, b"" if stdin is None else None, stdout is not None)[0]

    def run(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | bytes | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run to the end and return stdout as text (meant for small outputs)."""
        if os.path.isabs(argv[0]):
            return self._host.run(argv, env=env, stdin=stdin, timeout=timeout)
        data = b"" if stdin is None else stdin if isinstance(stdin, bytes) else stdin.read()
        child, pipes = self._launch(argv, env, data, False)
        try:
            done = child.wait(timeout)
        except TimedOut as exc:
            child.stop()
            raise BackupError(f"{argv[0]}: no end after {timeout:.0f} s") from exc
        except BaseException:
            child.stop()
            raise
        with open(os.path.join(pipes, "out"), encoding="utf-8", errors="replace") as stream:
            return Result(done.argv, done.rc, stream.read(), done.stderr)

    def _launch(
        self, argv: t.Sequence[str], env: t.Mapping[str, str] | None, data: bytes | None, piped: bool
    ) -> tuple[ContainerChild, str]:
        """(program, folder of its pipes). `data` is all of its stdin; None: a pipe."""
        pipes = self._sidecar.folder()
        reading: t.IO[bytes] | None = None
        writing: t.IO[bytes] | None = None
        # Both ends are held open until the program has its own, so that neither side waits or sees an end too early.
        held: list[int] = []
        try:
            if data is None:
                writing, other = _pipe(os.path.join(pipes, "in"), write=True)
                held.append(other)
            else:
                with open(os.path.join(pipes, "in"), "wb") as stream:
                    stream.write(data)
            if piped:
                reading, other = _pipe(os.path.join(pipes, "out"), write=False)
                held.append(other)
            if self._uid is not None:
                for path in (pipes, *(os.path.join(pipes, name) for name in os.listdir(pipes))):
                    os.chown(path, self._uid, -1)
            carrier = self._sidecar.execute(pipes, argv, {"LC_ALL": "C", "HOME": "/tmp", **(env or {})}, self._user)
            pid = _wait_for_pid(pipes, carrier)
        except BaseException:
            for open_end in (reading, writing):
                if open_end is not None:
                    open_end.close()
            raise
        finally:
            for fd in held:
                os.close(fd)
        return ContainerChild(argv, self._sidecar, carrier, self._user, pipes, pid, writing, reading), pipes


class ContainerChild(Child):
    """A program in the container; its exit status comes by the engine's program that carries it."""

    def __init__(
        self,
        argv: t.Sequence[str],
        sidecar: Sidecar,
        carrier: Child,
        user: str,
        pipes: str,
        inner: int,
        writing: t.IO[bytes] | None,
        reading: t.IO[bytes] | None,
    ) -> None:
        self._argv, self._sidecar, self._carrier, self._user = tuple(argv), sidecar, carrier, user
        self._pipes, self._inner = pipes, inner
        self._writing, self._reading = writing, reading

    @property
    def pid(self) -> int:
        """Of the engine's program on the host."""
        return self._carrier.pid

    @property
    def stdout(self) -> t.IO[bytes]:
        if self._reading is None:
            raise ValueError("stdout of this program is not a pipe")
        return self._reading

    @property
    def stdin(self) -> t.IO[bytes]:
        if self._writing is None:
            raise ValueError("stdin of this program is not a pipe")
        return self._writing

    def bytes_read(self) -> int:
        if self._inner:
            words = self._sidecar.shell('read -r _ count <"/proc/$1/io" && echo "$count"', str(self._inner)).stdout
            if words.strip().isdigit():
                return int(words)
        return time.monotonic_ns()

    def poll(self) -> int | None:
        return self._carrier.poll()

    def wait(self, timeout: float | None = None) -> Result:
        carried = self._carrier.wait(timeout)
        trouble = self._sidecar.trouble
        return Result(self._argv, carried.rc, "", f"error: {trouble}\n" if trouble else self._tail() + carried.stderr)

    def stop(self, *, patience: float = 5.0) -> None:
        """SIGTERM in the container, SIGKILL after `patience` seconds."""
        for name, seconds in (("TERM", patience), ("KILL", 5.0)):
            if self._carrier.poll() is not None:
                break
            self.signal(name)
            with contextlib.suppress(TimedOut):
                self._carrier.wait(seconds)
        self._carrier.stop()
        for stream in (self._writing, self._reading):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def signal(self, name: str) -> None:
        """Send a signal; that the program is gone, or the engine away, doesn't matter."""
        if self._inner:
            with contextlib.suppress(BackupError):
                self._sidecar.shell('kill -"$1" "$2"', name, str(self._inner), user=self._user)

    def _tail(self) -> str:
        try:
            with open(os.path.join(self._pipes, "err"), "rb") as stream:
                return tail_of(stream)
        except OSError:
            return ""


def _pipe(path: str, *, write: bool) -> tuple[t.IO[bytes], int]:
    """(our end, the other end, to be closed once the program has opened its own)."""
    os.mkfifo(path, 0o600)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(reading, True)
    writing = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    if write:
        return os.fdopen(writing, "wb"), reading
    return os.fdopen(reading, "rb"), writing


def _wait_for_pid(pipes: str, carrier: Child) -> int:
    """The program's process id inside the container, once all its pipes are open; 0 when it didn't come that far."""
    path = os.path.join(pipes, "pid")
    while True:
        ended = carrier.poll() is not None
        with contextlib.suppress(OSError), open(path, encoding="ascii") as stream:
            text = stream.read()
            if text.endswith("\n"):
                return int(text)
        if ended:
            return 0
        time.sleep(0.005)
