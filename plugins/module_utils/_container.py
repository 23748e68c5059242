# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The runtime of an installation whose database runs in a container: PostgreSQL's programs come from its own image."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._carried import SidecarProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, Missing
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import ProcessRunner
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._psql import PsqlSession
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import (
    Limits,
    Sidecar,
    image_account,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server, Session

POSTGRES_PROGRAMS = ("initdb", "pg_dump", "pg_restore", "postgres", "psql", "vacuumdb")
_ACCOUNT = "postgres"
# Seconds that a paused container is waited for.
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Container:
    """What is known of the database's container.

    Attributes:
        image: the id of the image that it runs, which can differ from what its name means by now.
        running: up, and not paused.
        volumes: folders that the image declares as volumes.
        mounts: (folder inside, folder on the host), the longest first.
    """

    identity: str
    name: str
    image: str
    running: bool
    state: str
    volumes: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]


def look_at_container(engine: Engine, name: str) -> Container:
    """Ask the engine for the database's container.

    Raises:
        BackupError: there is none of this name, or its image is gone.
    """
    try:
        (found,) = engine.inspect([name])
        (image,) = engine.inspect([found["Image"]], kind="image")
    except Missing as exc:
        raise BackupError(
            f"container: {name}: {engine.name} has no such container or image",
            hint="Name the container of the database; mazevault_services tells services by their names.",
            details=exc.details,
        ) from exc
    mounts = [(str(mount["Destination"]), str(mount.get("Source") or "")) for mount in found.get("Mounts") or ()]
    state = found["State"]
    return Container(
        found["Id"],
        found["Name"].lstrip("/"),
        found["Image"],
        bool(state.get("Running")) and not state.get("Paused"),
        "paused" if state.get("Paused") else str(state.get("Status", "unknown")),
        tuple(sorted((image.get("Config") or {}).get("Volumes") or {})),
        tuple(sorted(mounts, key=lambda pair: -len(pair[0]))),
    )


class PauseWatch:
    """Notices that a container has been paused for so long that nobody should wait for it."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self._engine, self._container = engine, container
        self._since = 0.0

    def __call__(self) -> str:
        (found,) = self._engine.inspect([self._container.identity])
        if not found["State"].get("Paused"):
            self._since = 0.0
            return ""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since < _LONGEST_PAUSE:
            return ""
        name = self._container.name
        return f"container: {name}: is paused, and was for {_LONGEST_PAUSE:.0f} s: {self._engine.name} unpause {name}"


class ContainerRuntime:
    """PostgreSQL's programs in containers of the database's own image, everything else on the host.

    Args:
        container: name or id of the database's container.
        connected: share the database's network; else the programs have none (proofs need none).
        run: what the containers are found by when the run is dead: see `belongs_to`.
    """

    def __init__(
        self, engine: Engine, container: str, *, connected: bool, limits: Limits, run: str, bin_dir: str = ""
    ) -> None:
        self.name = engine.name
        self._container = look_at_container(engine, container)
        if connected and not self._container.running:
            raise BackupError(
                f"container: {self._container.name}: is {self._container.state}, so there is no database to talk to",
                hint=f"{engine.name} start {self._container.name} (or unpause), then run again.",
            )
        self._engine, self._limits, self._run = engine, limits, run
        self._host = HostRuntime(bin_dir)
        self._sidecar = self._new_sidecar(connected=connected)
        self._processes = SidecarProcesses(self._sidecar, self._host.processes)
        self._found: dict[str, int] | None = None

    def _new_sidecar(self, *, connected: bool) -> Sidecar:
        return Sidecar(
            self._engine,
            self._container.image,
            beside=self._container.identity if connected else "",
            mounts=(),
            limits=self._limits,
            run=self._run,
            volumes=self._container.volumes,
            hopeless=PauseWatch(self._engine, self._container) if connected else None,
        )

    @property
    def processes(self) -> ProcessRunner:
        return self._processes

    @property
    def sidecar(self) -> Sidecar:
        return self._sidecar

    def belongs_to(self, staging: str) -> None:
        """Say, before any program runs, whose work this is; a set's id alone can occur in two backup roots."""
        self._run = self._sidecar.run = staging

    def see(self, path: str, *, writable: bool = False) -> None:
        """Let the programs see a folder or file of this host; one that isn't there (yet) is left out."""
        if path and os.path.exists(path):
            self._sidecar.mount(os.path.abspath(path), writable=writable)

    def program(self, name: str, *, major: int | None = None) -> str:
        """A program's name inside the image, or a path on the host for what isn't PostgreSQL's.

        Raises:
            BackupError: it is missing, or of another version than `major`.
        """
        if name not in POSTGRES_PROGRAMS:
            return self._host.program(name)
        version = self._programs().get(name)
        if version is None:
            raise BackupError(
                f"program: {name}: not in the image of container {self._container.name}",
                hint="Is it the container of the PostgreSQL server? mazevault_services names it.",
            )
        if major is not None and version != major:
            raise BackupError(
                f"program: {name} {major}: the image of container {self._container.name} has version {version}",
                hint=f"An installation that runs PostgreSQL {major} can do this.",
            )
        return name

    def _programs(self) -> dict[str, int]:
        if self._found is None:
            answer = self._sidecar.shell(
                'for name in "$@"; do command -v "$name" >/dev/null && echo "$name $("$name" --version)"; done; :',
                *POSTGRES_PROGRAMS,
            ).check(f"container: {self._container.name}")
            found = re.findall(r"(?m)^(\w+) .*\(PostgreSQL\) (\d+)", answer.stdout)
            self._found = {name: int(version) for name, version in found}
        return self._found

    def has(self, name: str, *, major: int | None = None) -> bool:
        try:
            self.program(name, major=major)
        except BackupError:
            return False
        return True

    def version(self, program: str) -> int:
        """The major version of a program that `program` found."""
        return self._programs()[program]

    def connect(self, server: Server, application: str) -> Session:
        return PsqlSession(server, application, self._processes, self.program("psql"))

    def data_folder(self, path: str) -> str:
        """Where on this host the server's data folder is, or an empty string."""
        for inside, outside in self._container.mounts:
            if outside and (path == inside or path.startswith(inside.rstrip("/") + "/")):
                here = os.path.normpath(outside + path[len(inside.rstrip("/")) :])
                return here if os.path.isdir(here) else ""
        return ""

    def caged(self) -> CagedRuntime:
        """A runtime in a container of its own for a server that must reach nobody."""
        return CagedRuntime(self, self._new_sidecar(connected=False), self._host.processes)

    def close(self) -> None:
        self._sidecar.close()


class CagedRuntime:
    """A container without network in which a server of the image runs, and the programs that talk to it."""

    def __init__(self, outer: ContainerRuntime, sidecar: Sidecar, host: ProcessRunner) -> None:
        self.name = outer.name
        self._outer, self._sidecar, self._host = outer, sidecar, host
        self._processes = SidecarProcesses(sidecar, host)

    @property
    def processes(self) -> ProcessRunner:
        return self._processes

    def see(self, path: str, *, writable: bool = False) -> None:
        if path and os.path.exists(path):
            self._sidecar.mount(os.path.abspath(path), writable=writable)

    def server_processes(self) -> tuple[ProcessRunner, int]:
        """(what starts the server, as the image's own account; that account's user id)."""
        if self._sidecar.engine.rootless:
            # The image's account is one that we may hand nothing to; ours isn't root in there, which is all it takes.
            return self._processes, os.geteuid()
        name, uid = image_account(self._sidecar, _ACCOUNT)
        return SidecarProcesses(self._sidecar, self._host, user=name, uid=uid), uid

    def program(self, name: str, *, major: int | None = None) -> str:
        return self._outer.program(name, major=major)

    def has(self, name: str, *, major: int | None = None) -> bool:
        return self._outer.has(name, major=major)

    def version(self, program: str) -> int:
        return self._outer.version(program)

    def connect(self, server: Server, application: str) -> Session:
        return PsqlSession(server, application, self._processes, self.program("psql"))

    def data_folder(self, path: str) -> str:
        return path

    def close(self) -> None:
        self._sidecar.close()
