# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is measured: the specification's script, the best by hand, the floor, and the collection's own modules."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import containers
from support.containers import ContainerServer
from support.flow import HOSTNAME, IN_PLAIN
from support.modules import command
from support.servers import PgInstall, PgServer

from .measuring import ControlGroup, Cost, cpu_of_tree, last_json, measure

FLOOR = "floor: pg_dump -Fc -Z0 >/dev/null"
SPECIFICATION = "the specification's script"
BARE_DUMP = "ours: pg_dump, without digests"
DUMP = "ours: pg_dump alone"
COMPLETE = {level: f"ours: complete, proof {level}" for level in ("toc", "checksum", "read", "restore")}
BENCH_LABEL = "mazevault.bench"
# As written, but for the names of folder, container and database.
SCRIPT = """#!/bin/bash
# mazevault-backup.sh
BACKUP_DIR={folder}
TIMESTAMP=$(date +%Y%m%d_%H%M%S)
BACKUP_FILE="${{BACKUP_DIR}}/mazevault_${{TIMESTAMP}}.sql.gz"
# Create backup
{inside}pg_dump \\
-U {user} \\
-d {database} \\
--format=custom \\
--compress=9 \\
> "$BACKUP_FILE"
# Verify backup integrity
{inside}pg_restore \\
--list "$BACKUP_FILE" > /dev/null 2>&1
if [ $? -eq 0 ]; then
echo "Backup successful: $BACKUP_FILE"
# Cleanup old backups (keep 30 days)
find "$BACKUP_DIR" -name "mazevault_*.sql.gz" -mtime +30 -delete
else
echo "ERROR: Backup verification failed"
exit 1
fi
"""

Contender = Callable[[Path], dict[str, Cost]]


class Installation(t.Protocol):
    """A server with the database to be dumped, and how each way of dumping reaches it."""

    server: PgServer
    modules: dict[str, t.Any]
    programs: dict[str, t.Any]
    script_status: int
    pg_dump_has_zstd: bool

    def server_cpu(self) -> float: ...

    def sidecars(self, pid: int) -> dict[str, ControlGroup]: ...

    def script(self, folder: Path) -> str:
        """The specification's."""

    def beside(self, line: str, folder: Path) -> list[str]:
        """A command line that runs a line of shell beside the server; it may write to the folder."""

    def inside(self, line: str) -> list[str]:
        """A command line that runs a line of shell where the server runs."""

    def environment(self) -> dict[str, str]: ...


class HostInstallation:
    """Server and programs on this machine, without an engine."""

    script_status = 0
    # Some builds for development haven't.
    pg_dump_has_zstd = False

    def __init__(self, install: PgInstall) -> None:
        self.server = PgServer(install, fsync=True, settings={"shared_buffers": "128MB"})
        self.server.start()
        dsn = self.server.dsn()
        self.programs = {"bin_dir": str(install.bin)}
        where = {"host": dsn["host"], "port": dsn["port"], "user": dsn["user"], "database": dsn["dbname"]}
        self.modules = {**self.programs, **where}

    def server_cpu(self) -> float:
        return cpu_of_tree(self.server.pid)

    def sidecars(self, pid: int) -> dict[str, ControlGroup]:
        return {}

    def script(self, folder: Path) -> str:
        dsn = self.server.dsn()
        return SCRIPT.format(folder=folder, inside="", user=dsn["user"], database=dsn["dbname"])

    def beside(self, line: str, folder: Path) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", line]

    def inside(self, line: str) -> list[str]:
        return ["bash", "-c", line]

    def environment(self) -> dict[str, str]:
        return {**self.server.environment(), "PATH": f"{self.server.install.bin}:{os.environ['PATH']}"}


class ContainerInstallation:
    """Server in a container as on a compose host; nothing but the engine outside of it."""

    # The file that the script made isn't inside of the container where it looks for it.
    script_status = 1

    def __init__(self, major: int) -> None:
        self.server = ContainerServer(major, settings={"fsync": "on", "shared_buffers": "128MB"})
        self.server.start()
        self.programs = {"runtime": "docker", "container": self.server.name}
        self.modules = {**self.programs, "host": "127.0.0.1", "user": "mazevault", "database": "mazevault"}
        self.pg_dump_has_zstd = major >= 16
        self._group = ControlGroup.of(self.server.pid)
        self._known: dict[str, tuple[str, ControlGroup] | None] = {}

    def server_cpu(self) -> float:
        return self._group.cpu()

    def sidecars(self, pid: int) -> dict[str, ControlGroup]:
        names = os.listdir(self._group.cpu_folder.parent)
        found = {}
        for identity in re.findall(r"[0-9a-f]{64}", " ".join(names)):
            if identity not in self._known:
                self._known[identity] = self._look_at(identity)
            known = self._known[identity]
            if known is not None and known[0] in ("", str(pid)):
                found[identity] = known[1]
        return found

    def _look_at(self, identity: str) -> tuple[str, ControlGroup] | None:
        """(process that it runs for, control group); None for those of others."""
        for one in containers.inspect(identity):
            made_for = one.labels.get("mazevault.backup.for", "").partition("-")[0]
            if made_for or one.labels.get(BENCH_LABEL) == self.server.name:
                try:
                    return made_for, ControlGroup.of(int(one.state["Pid"]))
                except OSError:
                    break
        return None

    def script(self, folder: Path) -> str:
        inside = f"docker exec {self.server.name} "
        return SCRIPT.format(folder=folder, inside=inside, user="mazevault", database="mazevault")

    def beside(self, line: str, folder: Path) -> list[str]:
        return [
            "docker", "run", "--rm", "--pull=never", f"--label={BENCH_LABEL}={self.server.name}",
            f"--network=container:{self.server.name}", f"--volume={folder}:{folder}",
            "--tmpfs=/var/lib/postgresql/data",
            "--env=PGHOST=127.0.0.1", "--env=PGUSER=mazevault", "--env=PGDATABASE=mazevault", "--entrypoint=bash",
            containers.image_of(self.server.major), "-euo", "pipefail", "-c", line,
        ]  # fmt: skip

    def inside(self, line: str) -> list[str]:
        return ["docker", "exec", self.server.name, "bash", "-c", line]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


def contenders(installation: Installation) -> dict[str, Contender]:
    """Who runs in each round, by name; one may bring figures under several names."""

    def beside(name: str, line: str) -> Contender:
        def run(folder: Path) -> dict[str, Cost]:
            argv = installation.beside(line.format(d=shlex.quote(str(folder))), folder)
            return {name: measure(argv, installation, folder, env=installation.environment())[0]}

        return run

    def floor(folder: Path) -> dict[str, Cost]:
        argv = installation.inside("pg_dump -U mazevault -Fc -Z0 >/dev/null")
        return {FLOOR: measure(argv, installation, folder, env=installation.environment())[0]}

    def script(folder: Path) -> dict[str, Cost]:
        path = folder.parent / "mazevault-backup.sh"
        path.write_text(installation.script(folder), encoding="utf-8")
        argv, status = ["bash", str(path)], installation.script_status
        cost, _output = measure(argv, installation, folder, env=installation.environment(), expected=status)
        if not cost.size:
            raise SystemExit("the specification's script wrote nothing")
        return {SPECIFICATION: cost}

    def bare(folder: Path) -> dict[str, Cost]:
        params = {**installation.modules, "dest": str(folder / "dump")}
        argv, stdin, env = command("pg_dump", params, [("no_digests", {})])
        return {BARE_DUMP: measure(argv, installation, folder, env=env, stdin=stdin)[0]}

    cores = str(os.cpu_count() or 1)
    by_hand = {"by hand: -Fd -j, gzip 1": f"pg_dump -Fd -j{cores} -Z1 -f {{d}}/dump"}
    if installation.pg_dump_has_zstd:
        by_hand = {"by hand: -Fd -j, zstd 3": f"pg_dump -Fd -j{cores} --compress=zstd:3 -f {{d}}/dump"}
    by_hand["by hand: -Fc -Z0 | zstd -1"] = f"pg_dump -Fc -Z0 | zstd -q -1 -T{cores} >{{d}}/dump.zst"
    return {
        FLOOR: floor,
        SPECIFICATION: script,
        **{name: beside(name, line) for name, line in by_hand.items()},
        BARE_DUMP: bare,
        DUMP: lambda folder: ours(installation, folder),
    }


def ours(installation: Installation, folder: Path) -> dict[str, Cost]:
    """The modules that the playbook calls. The one dump is proven at each level; a complete backup has one proof."""
    root = str(folder / "root")

    def call(module: str, **params: t.Any) -> tuple[Cost, dict[str, t.Any]]:
        argv, stdin, env = command(module, {"backup_root": root, **params})
        cost, output = measure(argv, installation, folder, env=env, stdin=stdin)
        return cost, last_json(output)

    opening, opened = call("recovery_set", state="open", purpose="set", **IN_PLAIN)
    set_id = opened["set_id"]
    costs = {DUMP: call("pg_dump", **installation.modules, set_id=set_id)[0]}
    proofs = {}
    for level in COMPLETE:
        proofs[level], result = call("backup_verify", **installation.programs, set=set_id, level=level)
        if (result["verdict"], result["level"]) != ("pass", level):
            raise SystemExit(f"{level}: {result['summary']}")
    proof = {"verdict": "pass", "level": "restore", "wanted": "restore"}
    sealing, _result = call("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME, verification=proof)
    for level, cost in proofs.items():
        costs[COMPLETE[level]] = opening + costs[DUMP] + cost + sealing
    return costs


def seed(server: PgServer, size: str) -> int:
    """Fill the server's database as MazeVault would, and return its size."""
    dsn = server.dsn(tcp=True)
    login = f"{dsn['user']}:{dsn['password']}" if dsn.get("password") else dsn["user"]
    url = f"postgres://{login}@{dsn['host']}:{dsn['port']}/{dsn['dbname']}?sslmode=disable"
    env = {**os.environ, "DATABASE_URL": url, "MAZEVAULT_MASTER_KEY": "bench", "MAZEVAULT_JWT_KEY": "bench"}
    with tempfile.TemporaryDirectory() as folder:
        words = ["seed", "--size", size, "--seed", "1", "--token-file", f"{folder}/token"]
        subprocess.run(
            [sys.executable, "-m", "mazevault_standin", *words], env=env, check=True, stdout=subprocess.DEVNULL
        )
    # Else the first one who reads the rows would write as well.
    server.query("VACUUM (ANALYZE, PARALLEL 0)")
    server.query("CHECKPOINT")
    return int(server.query("SELECT pg_database_size(current_database())")[0][0])


@contextmanager
def place() -> Iterator[Path]:
    """A folder on the disk that backups lie on, gone afterwards."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mazevault-bench-") as top:
        folder = Path(top) / "out"
        folder.mkdir(mode=0o700)
        yield folder
