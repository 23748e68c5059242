# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The container engine of a host, by its command-line program."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, ProcessRunner, Result

# An engine that is busy, or whose containers are paused, answers late.
PATIENCE = 60.0
_SILENT = ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect",
           "cannot connect to podman")  # fmt: skip
_MISSING = ("no such", "image not known", "no container with name or id")


@dataclass(frozen=True)
class Kind:
    """In what engines differ.

    Attributes:
        service: the unit that has to run (with podman only where its program is set to talk to one).
        per_account: each account has containers of its own, and an account that isn't root has no rights in them but
            those of its own user namespace.
        stops_paused: whether it stops containers that are paused.
        remove_now: options of `rm` without which a container is first asked to end, and waited for.
        controllers: the query that tells which kinds of limits can be set; empty: the engine sees to it.
        network: how a container's network is shared. podman takes sharing by the container's name for a dependency, and
            refuses one on a container in a pod, where podman-compose puts all of them.
    """

    service: str
    per_account: bool = False
    stops_paused: bool = True
    remove_now: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    network: str = "container:{id}"


KINDS = {
    "docker": Kind("docker"),
    "podman": Kind(
        "podman.socket",
        per_account=True,
        stops_paused=False,
        remove_now=("--time=0",),
        controllers=("info", "--format", "{{json .Host.CgroupControllers}}"),
        network="ns:/proc/{pid}/ns/net",
    ),
}


class EngineAway(BackupError):
    """The engine doesn't answer: it is stopped, or is being restarted."""


class NotAllowed(BackupError):
    """The account may not use the engine."""


class Missing(BackupError):
    """There is no container or image of this name."""


def is_away(result: Result) -> bool:
    """Whether a command failed because no engine answered."""
    return result.rc != 0 and any(words in result.stderr.lower() for words in _SILENT)


class Engine:
    """One engine.

    Args:
        name: `docker` or `podman`; the word that users set as the runtime, and the program's name.
        processes: who starts the program.
    """

    def __init__(self, name: str = "docker", processes: ProcessRunner | None = None) -> None:
        self.name, self.kind = name, KINDS[name]
        self.processes: ProcessRunner = processes or HostProcesses()
        self._controllers: frozenset[str] | None = None

    @property
    def program(self) -> str:
        """Path of the engine's program.

        Raises:
            BackupError: it isn't installed.
        """
        # Under sudo the PATH may lack the folder that the vendor's packages use.
        found = shutil.which(self.name) or shutil.which(self.name, path="/usr/local/bin:/usr/bin:/bin")
        if not found:
            raise BackupError(
                f"mazevault_runtime: {self.name}: the program {self.name} isn't there",
                hint=f"Install {self.name} on the host, or set mazevault_runtime to what the installation runs on.",
            )
        if self.name != "podman" and _is_podman(found):
            raise BackupError(
                f"mazevault_runtime: {self.name}: {found} is podman under another name",
                hint="Set mazevault_runtime: podman",
            )
        return found

    @property
    def installed(self) -> bool:
        try:
            return bool(self.program)
        except BackupError:
            return False

    @property
    def rootless(self) -> bool:
        """Whether containers have no more rights than the account that we run as."""
        return self.kind.per_account and os.geteuid() != 0

    def as_ourselves(self, *, alone: bool) -> list[str]:
        """Options of `run` that give a container the account that we run as, for what it reads and writes here.

        Args:
            alone: it has no part in the network of another container.
        """
        if self.rootless and not alone:
            # In an account's containers its number is 0; a user namespace of its own would have no rights in a network
            # that isn't.
            return ["--user=0:0"]
        return [f"--user={os.geteuid()}:{os.getegid()}", *(["--userns=keep-id"] if self.rootless else [])]

    def limits(self, controller: str) -> bool:
        """Whether limits of this kind (`cpu`, `blkio`) can be set."""
        if not self.kind.controllers:
            return True
        if self._controllers is None:
            self._controllers = frozenset(json.loads(self.call("engine", *self.kind.controllers)) or ())
        # The second version of control groups calls it otherwise.
        return bool(self._controllers & {controller, {"blkio": "io"}.get(controller, controller)})

    def run(self, *arguments: str, timeout: float = PATIENCE) -> Result:
        """Run the engine's program to its end; any exit status is the caller's to judge.

        Raises:
            EngineAway: the engine doesn't answer.
        """
        result = self.processes.run(
            [self.program, *arguments], env={"HOME": os.environ.get("HOME", "/")}, timeout=timeout
        )
        said = result.stderr.lower()
        if is_away(result):
            raise EngineAway(f"{self.name}: the engine doesn't answer", hint=f"systemctl start {self.kind.service}")
        if result.rc != 0 and "permission denied" in said and "sock" in said:
            raise NotAllowed(f"{self.name}: this account may not use the engine", hint="Run with become, as root.")
        return result

    def call(self, what: str, *arguments: str, timeout: float = PATIENCE) -> str:
        """Run it and return what it wrote.

        Raises:
            Missing: what the arguments name isn't there.
            BackupError: any other exit status than 0; `what` begins the message.
        """
        result = self.run(*arguments, timeout=timeout)
        if result.rc != 0 and any(words in result.stderr.lower() for words in _MISSING):
            raise Missing(f"{what}: not there", details={"stderr_tail": result.stderr})
        return result.check(what).stdout

    def inspect(self, names: t.Sequence[str], *, kind: str = "container") -> list[dict[str, t.Any]]:
        """What the engine knows of these containers (or images, volumes, networks), in this order."""
        if not names:
            return []
        text = self.call(f"{kind}: {', '.join(names)}", kind, "inspect", "--", *names)
        return t.cast("list[dict[str, t.Any]]", json.loads(text))

    def network_of(self, name: str) -> str:
        """The network option of a container that shares the network of another one, which runs."""
        (found,) = self.inspect([name])
        return self.kind.network.format(id=found["Id"], pid=found["State"]["Pid"])

    def containers(self, **labels: str) -> list[dict[str, t.Any]]:
        """Every container with these labels (an empty value: with the label, whatever its value), also stopped ones.

        One that goes away meanwhile is left out.
        """
        filters = [
            f"--filter=label={key}={value}" if value else f"--filter=label={key}" for key, value in labels.items()
        ]
        names = self.call("containers", "ps", "--all", "--quiet", "--no-trunc", *filters).split()
        found = []
        for name in names:
            try:
                found += self.inspect([name])
            except Missing:
                continue
        return found

    def remove(self, names: t.Sequence[str]) -> None:
        """End and remove containers, with their anonymous volumes; those that are gone already don't matter."""
        if names:
            result = self.run("rm", "--force", "--volumes", *self.kind.remove_now, *names)
            gone = any(words in result.stderr.lower() for words in (*_MISSING, "already in progress"))
            if result.rc != 0 and not gone:
                result.check(f"container: {', '.join(names)}")


def _is_podman(path: str) -> bool:
    """Whether a program of another name is podman, as the package podman-docker installs one."""
    if os.path.basename(os.path.realpath(path)).startswith("podman"):
        return True
    try:
        with open(path, "rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and re.search(rb"(?m)^\s*(exec\s+)?[\w/.-]*/?podman\s", head) is not None
