# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A short-lived container of the server's own image, in which programs run beside the server.

Its first process reads from ours: however we end, it ends too, and with it everything that runs in there.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import secrets
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree
from ansible_collections.mazevault.backup.plugins.module_utils._process import (
    PIPE,
    Child,
    Result,
    TimedOut,
)

LABEL = "mazevault.backup"
RUN_LABEL = "mazevault.backup.run"
# Process id and start of the process that the container is for: together they are never used again.
_FOR_LABEL = "mazevault.backup.for"
_PIPES = "mazevault-pipes-"
# Seconds between two looks at whether there is still somebody to talk to.
_LOOK = 5.0
# A loaded host takes seconds to start a container.
_START_TIMEOUT = 120.0
_KEEPER = 'echo up >"$1/up" && exec cat >/dev/null'
# The folders of Debian's and the RPM packages are added for images whose PATH lacks them.
_PATH = (
    "for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin;"
    ' do [ ! -d "$folder" ] || PATH=$PATH:$folder; done;'
)
_STARTER = (
    f"umask 077; pipes=$1; shift; {_PATH}"
    ' exec <"$pipes/in" >"$pipes/out" 2>"$pipes/err" && echo $$ >"$pipes/pid" && exec "$@"'
)


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host that the container sees under the same path."""

    path: str
    writable: bool = False


@dataclass(frozen=True)
class Limits:
    """What a container may use of a busy host.

    Attributes:
        cpus: number of processors, 0 for any; beside others that are busy it gets half a share in any case.
        memory: as the engine takes it (`2g`), empty for any.
        io_weight: from 10 to 1000 as against 500 of everybody else, where the kernel can do that; 0 for the same.
    """

    cpus: float = 0
    memory: str = ""
    io_weight: int = 0

    def options(self, engine: Engine) -> list[str]:
        # What nobody asked for is left out where the engine would refuse it.
        options = ["--cpu-shares=512"] if engine.limits("cpu") else []
        if self.cpus:
            options.append(f"--cpus={self.cpus:g}")
        if self.memory:
            options.append(f"--memory={self.memory}")
        if self.io_weight and engine.limits("blkio"):
            options.append(f"--blkio-weight={self.io_weight}")
        return options


class Sidecar:
    """One container and its folder of pipes; started when it is first needed.

    Args:
        image: id of the image (a name could mean another image than the one that runs).
        beside: the container whose network it shares; empty: it has none.
        run: the run's staging folder, by which what a dead run left is found.
        volumes: folders that the image declares as volumes (each would get an anonymous one).
        hopeless: why nothing in the container can come to an end any more, or an empty string; asked again and again.
    Attributes:
        trouble: what `hopeless` said when the container was ended for it.
    """

    def __init__(
        self,
        engine: Engine,
        image: str,
        *,
        beside: str,
        mounts: t.Sequence[Mount],
        limits: Limits,
        run: str,
        volumes: t.Sequence[str] = (),
        hopeless: t.Callable[[], str] | None = None,
    ) -> None:
        self._hopeless, self.trouble = hopeless, ""
        self._over = threading.Event()
        self._engine, self._image, self._beside = engine, image, beside
        self._mounts, self._limits, self.run, self._volumes = list(mounts), limits, run, volumes
        self._keeper: Child | None = None
        self._owner = 0
        self.name = ""
        self._pipes = ""

    @property
    def engine(self) -> Engine:
        return self._engine

    def mount(self, path: str, *, writable: bool = False) -> None:
        """Let the container see a path of the host; before it is started."""
        if self._keeper is not None and self._owner == os.getpid():
            raise ValueError("the container runs already")
        known = next((mount for mount in self._mounts if mount.path == path), None)
        if known is not None:
            self._mounts.remove(known)
            writable = writable or known.writable
        self._mounts.append(Mount(path, writable))

    def start(self) -> None:
        """Start the container unless it runs. After a fork each process has its own.

        Raises:
            BackupError: it can't be started; why is in the message.
        """
        if self._keeper is not None and self._owner == os.getpid():
            return
        _remove_dead_pipes()
        _remove_dead_sidecars(self._engine)
        self._owner = os.getpid()
        # Others may pass through (the server's account has to reach its own pipes) but can't list it.
        self._pipes = tempfile.mkdtemp(prefix=f"{_PIPES}{os.getpid()}-")
        os.chmod(self._pipes, 0o711)
        self.name = f"mazevault-backup-{secrets.token_hex(6)}"
        keeper = self._engine.processes.start(
            [self._engine.program, *self._command()], env={"HOME": os.environ.get("HOME", "/")}, stdin=PIPE
        )
        self._keeper = keeper
        try:
            self._wait_until_up(keeper)
        except BaseException:
            self.close()
            raise
        if self._hopeless is not None:
            self._over = threading.Event()
            threading.Thread(target=self._look_after, args=(self._hopeless, self._over), daemon=True).start()

    def _look_after(self, hopeless: t.Callable[[], str], over: threading.Event) -> None:
        """Programs and sessions that wait for ever end with the container."""
        while not over.wait(_LOOK):
            with contextlib.suppress(BackupError):
                self.trouble = hopeless()
                if self.trouble:
                    self._engine.remove([self.name])
                    return

    def _command(self) -> list[str]:
        labels = {LABEL: "sidecar", RUN_LABEL: self.run, _FOR_LABEL: _identity(os.getpid())}
        network = self._engine.network_of(self._beside) if self._beside else "none"
        command = [
            "run", "--rm", "--interactive", "--pull=never", f"--name={self.name}", f"--network={network}",
            "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--security-opt=label=disable",
            "--log-driver=none", "--shm-size=256m", "--entrypoint=sh",
            *self._engine.as_ourselves(alone=not self._beside), *self._limits.options(self._engine),
            *(f"--label={key}={value}" for key, value in labels.items()),
        ]  # fmt: skip
        command += [f"--tmpfs={folder}" for folder in ("/tmp", *self._volumes)]
        for mount in (*self._mounts, Mount(self._pipes, True)):
            command += ["--mount", _mount_option(mount)]
        return [*command, self._image, "-c", _KEEPER, "sh", self._pipes]

    def _wait_until_up(self, keeper: Child) -> None:
        end = time.monotonic() + _START_TIMEOUT
        while not os.path.exists(os.path.join(self._pipes, "up")):
            if keeper.poll() is not None:
                done = keeper.wait()
                words = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
                # Warnings come first.
                words = [line for line in words if "error" in line.lower()] + words
                raise BackupError(
                    f"{self._engine.name}: the container beside the server didn't start:"
                    f" {words[0] if words else 'no reason given'}",
                    hint="Is the database's container running, and its image on this host?",
                    details={"stderr_tail": done.stderr},
                )
            if time.monotonic() > end:
                raise BackupError(
                    f"{self._engine.name}: the container beside the server wasn't up after {_START_TIMEOUT:.0f} s,"
                    f" or doesn't see {self._pipes}",
                    hint="The engine must run on this host; a remote one can't read this host's folders.",
                )
            time.sleep(0.01)

    def folder(self) -> str:
        """A new folder for one program's pipes."""
        self.start()
        return tempfile.mkdtemp(dir=self._pipes)

    def execute(self, pipes: str, argv: t.Sequence[str], env: t.Mapping[str, str], user: str) -> Child:
        """Start a program in the container whose pipes are in the folder `pipes`.

        Args:
            user: account of the image to run it as; empty: the one that we run as.
        """
        options = [f"--user={user}"] if user else []
        # No value is a secret: a password file is named by its path.
        options += [f"--env={key}={value}" for key, value in env.items()]
        return self._engine.processes.start(
            [self._engine.program, "exec", *options, self.name, "sh", "-c", _STARTER, "sh", pipes, *argv],
            env={"HOME": os.environ.get("HOME", "/")},
        )

    def shell(self, script: str, *arguments: str, user: str = "") -> Result:
        """Run a few words of shell in the container; for answers of a line or two."""
        self.start()
        options = [f"--user={user}"] if user else []
        return self._engine.run("exec", *options, self.name, "sh", "-c", f"{_PATH} {script}", "sh", *arguments)

    def close(self) -> None:
        """End the container and everything in it."""
        if self._keeper is None or self._owner != os.getpid():
            return
        keeper, self._keeper = self._keeper, None
        self._over.set()
        with contextlib.suppress(OSError):
            keeper.stdin.close()
        try:
            keeper.wait(10)
        except TimedOut:
            # A program of another account goes on, or the engine is slow.
            with contextlib.suppress(BackupError):
                self._engine.remove([self.name])
            keeper.stop()
        remove_tree(self._pipes)


def _mount_option(mount: Mount) -> str:
    """As the engine reads it: a line of CSV, so that a path may hold commas and quotes."""
    fields = ["type=bind", f"source={mount.path}", f"target={mount.path}"]
    if not mount.writable:
        fields.append("readonly")
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _remove_dead_pipes() -> None:
    """Folders of pipes whose process was killed."""
    top = tempfile.gettempdir()
    for name in os.listdir(top):
        match = re.fullmatch(rf"{_PIPES}(\d+)-\w+", name)
        if match is None or os.path.exists(f"/proc/{match[1]}"):
            continue
        path = os.path.join(top, name)
        with contextlib.suppress(OSError):
            info = os.lstat(path)
            if info.st_uid == os.geteuid() and not os.path.islink(path):
                remove_tree(path)


def _identity(pid: int) -> str:
    """`<pid>-<start in clock ticks since boot>` of a process, or an empty string when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            words = stream.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{pid}-{words[19]}"


def _remove_dead_sidecars(engine: Engine) -> None:
    """Containers whose process was killed before it held their stdin; others have ended with theirs."""
    dead = []
    for entry in engine.containers(**{LABEL: "sidecar"}):
        made_for = str(entry["Config"]["Labels"].get(_FOR_LABEL, ""))
        pid = made_for.partition("-")[0]
        if pid.isdigit() and _identity(int(pid)) != made_for:
            dead.append(str(entry["Id"]))
    engine.remove(dead)


def reap(engine: Engine, run: str) -> list[str]:
    """Remove the containers that a dead run left, and return their names."""
    left = [str(entry["Id"]) for entry in engine.containers(**{LABEL: "", RUN_LABEL: run})]
    engine.remove(left)
    return left


def image_account(sidecar: Sidecar, *names: str) -> tuple[str, int]:
    """(name, user id) of the first of these accounts that the container's image has."""
    for name in names:
        answer = sidecar.shell('id -u "$1"', name)
        if answer.rc == 0 and answer.stdout.strip().isdigit():
            return name, int(answer.stdout)
    raise BackupError(f"image: none of the accounts {', '.join(names)} is in it", hint="Is it a PostgreSQL image?")
