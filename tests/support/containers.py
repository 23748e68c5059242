# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database servers in containers of the machine's own engine, laid out as the product ships them."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
import typing as t
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2

from lab import engine, images
from lab.place import Place
from lab.process import LabError, attempt, run
from support.flow import Flow
from support.servers import PgInstall, PgServer, ServerError, StopMode

LABEL = "mazevault.test"
MAJORS = (17, 15)
_FOLDER = "/usr/lib/postgresql/{major}/bin"
_SQL = Path(__file__).resolve().parents[1] / "integration/sql"
_PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore", "psql", "vacuumdb")
_started: list[ContainerServer] = []


class Container(t.NamedTuple):
    """What the engine shows of one container."""

    name: str
    labels: dict[str, str]
    state: dict[str, t.Any]
    host: dict[str, t.Any]
    config: dict[str, t.Any]
    mounts: list[dict[str, t.Any]]
    image: str


def docker(*words: str | Path) -> str:
    """Run the engine's program; it has to succeed."""
    return run("docker", *words)


@functools.cache
def ready() -> None:
    """See to it that an engine answers and has the images; root on Debian installs and builds what is missing.

    Raises:
        LabError: what is missing, and why it can't be had.
    """
    if os.geteuid() != 0:
        raise LabError("tests with containers need root: it reaches into the containers, and installs the engine")
    engine.ensure(Place.here())
    images.ensure()


def image_of(major: int) -> str:
    """The image with PostgreSQL of this major version."""
    return next(image.tag for image in images.SERVERS if image.name == f"mazevault-lab/postgres:{major}")


def inspect(*names: str) -> list[Container]:
    """Containers that are there; names of others are left out."""
    found = []
    for name in names:
        answer = attempt("docker", "container", "inspect", name)
        if answer.returncode:
            continue
        for entry in json.loads(answer.stdout):
            found.append(
                Container(
                    entry["Name"].lstrip("/"),
                    entry["Config"]["Labels"] or {},
                    {**entry["State"], "RestartCount": entry["RestartCount"]},
                    entry["HostConfig"],
                    entry["Config"],
                    entry["Mounts"],
                    entry["Image"],
                )
            )
    return found


def listed(*filters: str) -> list[str]:
    """Ids of containers, also of stopped ones."""
    return docker("ps", "--all", "--quiet", "--no-trunc", *(f"--filter={one}" for one in filters)).split()


class ContainerServer(PgServer):
    """PostgreSQL in a container: a volume of its own, an internal network of its own, no published port.

    The bootstrap superuser is the application's role and there is no role postgres. The tests' SQL comes in by the
    container's address with the password; client programs run in the container's namespaces.
    """

    def __init__(self, major: int, *, settings: Mapping[str, str | int] | None = None) -> None:
        ready()
        self.name = f"mvtest-{os.getpid()}-{secrets.token_hex(3)}"
        self._programs = Path(tempfile.mkdtemp(prefix="mvtest-programs-"))
        super().__init__(PgInstall(major, str(major), self._programs), auth="scram")
        self._options = {"fsync": "off", "shared_buffers": "64MB", **(settings or {})}
        self._write_programs()

    def __str__(self) -> str:
        return f"pg{self.major}"

    def _write_programs(self) -> None:
        for name in _PROGRAMS:
            path = self._programs / name
            # Not by the engine's exec, whose streams can lose their end.
            path.write_text(
                "#!/bin/sh\n"
                f"pid=$(docker inspect --format '{{{{.State.Pid}}}}' {self.name}) || exit\n"
                f'exec nsenter --target "$pid" --mount --net --root --wd=/'
                f' {_FOLDER.format(major=self.major)}/{name} "$@"\n',
                encoding="utf-8",
            )
            path.chmod(0o755)

    @property
    def state(self) -> dict[str, t.Any]:
        """What the engine says of it."""
        return inspect(self.name)[0].state

    @property
    def running(self) -> bool:
        found = inspect(self.name)
        return bool(found) and bool(found[0].state["Running"]) and not found[0].state["Paused"]

    @property
    def pid(self) -> int:
        return int(self.state["Pid"])

    @property
    def data(self) -> Path:
        """The volume, as the machine sees it."""
        return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", self.name).strip())

    def dsn(self, dbname: str | None = None, user: str | None = None, *, tcp: bool = False) -> dict[str, t.Any]:
        return super().dsn(dbname, user, tcp=True)

    def start(self, *, timeout: float = 60) -> None:
        if inspect(self.name):
            docker("start", self.name)
        else:
            self._create()
        self._wait(timeout)

    def _create(self) -> None:
        _started.append(self)
        label = f"--label={LABEL}={self.name}"
        docker("network", "create", "--internal", label, self.name)
        docker("volume", "create", label, self.name)
        options = [f"--network={self.name}", f"--volume={self.name}:/var/lib/postgresql/data"]
        options += [f"--volume={_SQL}:{_SQL}:ro", f"--env=POSTGRES_USER={self.superuser}"]
        options += [f"--env=POSTGRES_PASSWORD={self.password}", f"--env=POSTGRES_DB={self.database}"]
        settings = [word for key, value in self._options.items() for word in ("-c", f"{key}={value}")]
        docker(
            "run", "--detach", "--pull=never", f"--name={self.name}", label, *options, image_of(self.major),
            "postgres", *settings,
        )  # fmt: skip

    def _wait(self, timeout: float) -> None:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.host, self.port = docker("inspect", "--format", form, self.name).strip(), 5432
        end = time.monotonic() + timeout
        while True:
            try:
                self.connect(connect_timeout=5).close()
                return
            except psycopg2.OperationalError as exc:
                if "too many" in str(exc) or "reserved" in str(exc):
                    return
                if time.monotonic() > end or not inspect(self.name)[0].state["Running"]:
                    raise ServerError(f"{self.name} isn't ready: {exc}\n{self.log_tail()}") from exc
            time.sleep(0.05)

    def log_tail(self, size: int = 4000) -> str:
        done = attempt("docker", "logs", "--tail=60", self.name)
        return (done.stdout + done.stderr).decode(errors="replace")[-size:]

    def stop(self, mode: StopMode = "fast", *, timeout: float = 60) -> None:
        docker("stop", f"--time={timeout:.0f}", self.name)

    def kill9(self) -> None:
        docker("kill", self.name)

    def restart(self, mode: StopMode = "fast") -> None:
        docker("restart", "--time=30", self.name)
        self._wait(60)

    def pause(self) -> None:
        docker("pause", self.name)

    def unpause(self) -> None:
        docker("unpause", self.name)

    def close(self) -> None:
        if self._owner_pid != os.getpid():
            return
        attempt("docker", "rm", "--force", "--volumes", self.name)
        attempt("docker", "volume", "rm", "--force", self.name)
        attempt("docker", "network", "rm", self.name)
        shutil.rmtree(self._programs, ignore_errors=True)
        if self in _started:
            _started.remove(self)


@atexit.register
def _close_all() -> None:
    for server in list(_started):
        server.close()


@dataclasses.dataclass(frozen=True)
class ContainerFlow(Flow):
    """The collection's steps by the runtime `docker`."""

    @property
    def container(self) -> ContainerServer:
        assert isinstance(self.server, ContainerServer)
        return self.server

    @property
    def programs(self) -> dict[str, t.Any]:
        return self.runtime

    @property
    def runtime(self) -> dict[str, t.Any]:
        return {"runtime": "docker", "container": self.container.name}

    @property
    def connection(self) -> dict[str, t.Any]:
        # As the server's neighbours reach it, who need no password.
        return {"host": "127.0.0.1", "user": self.server.superuser, "database": self.database}


class Dummy:
    """A container that does nothing, in the place of the application."""

    def __init__(self, server: ContainerServer) -> None:
        self.name = f"{server.name}-application"
        self._server = server

    def __enter__(self) -> Dummy:
        label = f"--label={LABEL}={self._server.name}"
        words = (
            "--detach",
            "--pull=never",
            "--network=none",
            "--init",
            "--entrypoint=sleep",
            "--tmpfs=/var/lib/postgresql/data",
        )
        docker("run", *words, label, f"--name={self.name}", image_of(self._server.major), "infinity")
        return self

    def __exit__(self, *_: object) -> None:
        attempt("docker", "rm", "--force", "--volumes", self.name)

    @property
    def commands(self) -> dict[str, t.Any]:
        """Parameters that stop and start it."""
        return {
            "application_stop": ["docker", "stop", "--time=5", self.name],
            "application_start": ["docker", "start", self.name],
            "application_timeout": 60,
        }

    @property
    def running(self) -> bool:
        return bool(inspect(self.name)[0].state["Running"])


class Watch:
    """What the collection's containers looked like while a block ran, by looking again and again from outside.

    Attributes:
        seen: the collection's containers that shared this server's network or saw this flow's folders, by name.
        volumes: names of the volumes that any of them mounted.
        accounts: (program, user id) of every process that worked in them.
    """

    def __init__(self, flow: ContainerFlow) -> None:
        self._flow = flow
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.seen: dict[str, Container] = {}
        self.accounts: set[tuple[str, int]] = set()

    @property
    def volumes(self) -> set[str]:
        return {mount["Name"] for one in self.seen.values() for mount in one.mounts if mount.get("Name")}

    def __enter__(self) -> t.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(0.05):
            for one in sidecars(self._flow):
                self.seen[one.name] = one
                self._look_inside(int(one.state["Pid"]))

    def _look_inside(self, keeper: int) -> None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            inside = os.readlink(f"/proc/{keeper}/ns/pid")
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    with contextlib.suppress(OSError, StopIteration):
                        if os.readlink(f"/proc/{entry}/ns/pid") == inside:
                            name = Path(f"/proc/{entry}/comm").read_text(encoding="utf-8").strip()
                            # A program that only tells its version works with nothing.
                            if b"--version" not in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                                self.accounts.add((name, os.stat(f"/proc/{entry}").st_uid))


def sidecars(flow: ContainerFlow) -> list[Container]:
    """The collection's containers that share the server's network or see the flow's folders."""
    identity = docker("inspect", "--format", "{{.Id}}", flow.container.name).strip()
    found = inspect(*listed("label=mazevault.backup"))
    return [one for one in found if identity in one.host["NetworkMode"] or f"{flow.root}/" in str(one.mounts)]


def footprint(flow: ContainerFlow) -> dict[str, t.Any]:
    """What a backup must leave as it was: containers with state and restarts, volumes, networks and images."""
    server = flow.container
    mine = f"label={LABEL}={server.name}"
    kept = ("Status", "StartedAt", "FinishedAt", "RestartCount", "Pid", "ExitCode")
    return {
        "containers": {one.name: {key: one.state[key] for key in kept} for one in inspect(*listed(mine))},
        "volumes": sorted(docker("volume", "ls", "--quiet", f"--filter={mine}").split()),
        "network": json.loads(docker("network", "inspect", server.name))[0]["Containers"],
        "images": sorted(set(docker("images", "--quiet", "--no-trunc", "mazevault-lab/postgres").split())),
        "sidecars": [one.name for one in sidecars(flow)],
    }


def wait_no_sidecar(flow: ContainerFlow, *, timeout: float = 15) -> float:
    """Seconds until no container of the collection's is left."""
    began = time.monotonic()
    while left := [one.name for one in sidecars(flow)]:
        if time.monotonic() - began > timeout:
            raise AssertionError(f"still there after {timeout} s: {left}")
        time.sleep(0.1)
    return time.monotonic() - began


@contextlib.contextmanager
def paused(server: ContainerServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.unpause()
