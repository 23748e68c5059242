# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The one place where programs are started: argument lists only, never a shell."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import signal
import subprocess
import tempfile
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

STDERR_TAIL = 4000
_PR_SET_PDEATHSIG = 1
PIPE = subprocess.PIPE
TimedOut = subprocess.TimeoutExpired
# Exit statuses of programs that somebody ended; a container's are those of a shell.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
_LIBC = ctypes.CDLL(None, use_errno=True)
# Where PostgreSQL's programs quote rows and statements. They translate these words with their own locale, which is C.
_LABELS = r"(?:psql:[^\n]*: )?(?:DETAIL|CONTEXT|STATEMENT|QUERY|LINE \d+|Command was): *"
_OTHERS = r"(?:psql|pg_\w+|\w+db)(?:\[\d+\])?: |(?:psql:[^\n]*: )?(?:ERROR|FATAL|PANIC|WARNING|NOTICE|HINT|LOCATION): "
_UP_TO_THE_NEXT = rf".*?(?=^(?:{_LABELS}|{_OTHERS})|\Z)"
_QUOTED = re.compile(rf"^({_LABELS}){_UP_TO_THE_NEXT}", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(rf"(invalid input (?:syntax|value) for [^\n]*?: )\"{_UP_TO_THE_NEXT}", re.MULTILINE | re.DOTALL)
# What of them is no value: columns of a constraint, the place in a COPY, the first words of a statement.
_HARMLESS = re.compile(
    r"DETAIL: *Key \([^()\n]*\)|CONTEXT: *COPY [^\n]*?, line \d+|Command was: *(?:[A-Z]+ )+[^'$(\n]*"
)


@dataclass(frozen=True)
class Result:
    """What a finished program left behind; `stderr` is its last 4,000 characters."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str

    @property
    def program(self) -> str:
        return os.path.basename(self.argv[0])

    def check(self, what: str, *, hint: str = "") -> Result:
        """Raise a BackupError that quotes the end of stderr unless the exit status is 0."""
        if self.rc != 0:
            raise failure(what, self, hint=hint)
        return self


def discreet(text: str) -> str:
    """What a program of PostgreSQL's or its library said, without the rows that it quotes."""

    def without(found: re.Match[str]) -> str:
        kept = _HARMLESS.search(found[0])
        return f"{kept[0].rstrip() if kept else found[1].rstrip()} (the rest is left out: it may quote data)\n"

    return _VALUE.sub(r"\1(a value)\n", _QUOTED.sub(without, text))


def tail_of(stream: t.IO[bytes]) -> str:
    """The end of a program's messages, fit to be shown."""
    # A quotation is known by how it begins.
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - 16 * STDERR_TAIL))
    return discreet(stream.read().decode("utf-8", "replace"))[-STDERR_TAIL:]


class ProcessRunner(t.Protocol):
    """What the collection needs of the operating system; tests bring their own."""

    def run(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | bytes | None = None,
        timeout: float | None = None,
    ) -> Result: ...

    def start(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | int | None = None,
        stdout: t.IO[bytes] | int | None = None,
    ) -> Child: ...


def failure(what: str, result: Result, *, hint: str = "") -> BackupError:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    shown = next(
        (line for line in lines if "error" in line.lower() or "fatal" in line.lower()), lines[-1] if lines else ""
    )
    end = f"ended by signal {-result.rc}" if result.rc < 0 else f"exit status {result.rc}"
    return BackupError(
        f"{what}: {result.program} failed ({end}){': ' + shown.strip() if shown else ''}",
        hint=hint,
        details={"rc": result.rc, "stderr_tail": result.stderr},
    )


def _die_with_parent() -> None:
    # An orphaned pg_dump or scratch server would work on in a staging folder that the next run removes.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def clean_environment(extra: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without what diverts libpq, in the C locale, plus `extra`."""
    env = {k: v for k, v in os.environ.items() if not (k.startswith("PG") and k.isupper())}
    env.pop("LANGUAGE", None)
    env["LC_ALL"] = "C.UTF-8" if env.get("PYTHONUTF8") == "1" else "C"
    env.update(extra or {})
    return env


class Child:
    """A running program whose stderr is collected in an unnamed file (it can't block on a full pipe)."""

    def __init__(self, popen: subprocess.Popen[bytes], errors: t.IO[bytes]) -> None:
        self._popen = popen
        self._errors = errors

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdout(self) -> t.IO[bytes]:
        if self._popen.stdout is None:
            raise ValueError("stdout of this program is not a pipe")
        return self._popen.stdout

    @property
    def stdin(self) -> t.IO[bytes]:
        if self._popen.stdin is None:
            raise ValueError("stdin of this program is not a pipe")
        return self._popen.stdin

    def bytes_read(self) -> int:
        """How much it has read up to now; where the kernel doesn't say, no two answers are the same."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/io", encoding="ascii") as stream:
            return int(stream.readline().split()[1])
        return time.monotonic_ns()

    def signal(self, name: str) -> None:
        """Send a signal (`QUIT`); that the program has ended doesn't matter."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.Signals[f"SIG{name}"])

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> Result:
        rc = self._popen.wait(timeout)
        return Result(tuple(map(str, t.cast("list[str]", self._popen.args))), rc, "", self._tail())

    def stop(self, *, patience: float = 5.0) -> None:
        """End the program: SIGTERM (pg_dump then cancels its queries), SIGKILL after `patience` seconds."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._popen.terminate()
            try:
                self._popen.wait(patience)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for stream in (self._popen.stdout, self._popen.stdin):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _tail(self) -> str:
        return tail_of(self._errors)


class HostProcesses:
    """Programs on this machine.

    Args:
        user: run them as this account (needs root); the account's group goes with it.
        prefix: words put before every command line, such as `unshare --net --`.
    """

    def __init__(self, *, user: str | None = None, prefix: t.Sequence[str] = ()) -> None:
        self._user = user
        self._prefix = tuple(prefix)

    def start(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | int | None = None,
        stdout: t.IO[bytes] | int | None = None,
    ) -> Child:
        identity: dict[str, t.Any] = {}
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with contextlib.ExitStack() as unless_started:
            errors = unless_started.enter_context(tempfile.TemporaryFile())
            try:
                popen = subprocess.Popen(
                    [*self._prefix, *argv],
                    env=clean_environment(env),
                    stdin=subprocess.DEVNULL if stdin is None else stdin,
                    stdout=subprocess.DEVNULL if stdout is None else stdout,
                    stderr=errors,
                    close_fds=True,
                    cwd="/",
                    preexec_fn=_die_with_parent,
                    **identity,
                )
            except OSError as exc:
                raise BackupError(
                    f"{argv[0]}: can't be started: {exc.strerror or exc}",
                    hint="Install the program, or name the folder it lies in (bin_dir).",
                ) from exc
            unless_started.pop_all()
        return Child(popen, errors)

    def run(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | bytes | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run to the end and return stdout as text (meant for small outputs)."""
        with contextlib.ExitStack() as files:
            source: t.IO[bytes] | None
            if isinstance(stdin, bytes):
                source = files.enter_context(tempfile.TemporaryFile())
                source.write(stdin)
                source.seek(0)
            else:
                source = stdin
            out = files.enter_context(tempfile.TemporaryFile())
            child = self.start(argv, env=env, stdin=source, stdout=out)
            try:
                done = child.wait(timeout)
            except subprocess.TimeoutExpired as exc:
                child.stop()
                raise BackupError(f"{argv[0]}: no end after {timeout:.0f} s") from exc
            except BaseException:
                child.stop()
                raise
            out.seek(0)
            return Result(done.argv, done.rc, out.read().decode("utf-8", "replace"), done.stderr)
