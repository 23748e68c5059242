# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation of the stand-in on a throwaway server, and the checkout's playbooks run against it as users do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
import typing as t
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import standin_process
from support import compare, kill, standin_control
from support.flow import FULL, IN_PLAIN
from support.keys import signing_key
from support.servers import PgServer

TOP = Path(__file__).resolve().parents[2]
HOSTNAME = "vault1"
CONTENT: tuple[compare.Part, ...] = ("tables", "sequences", "large_objects", "objects", "database")
Variables = Mapping[str, t.Any]


@dataclass(frozen=True)
class Task:
    """What one task did on one host."""

    name: str
    action: str
    host: str
    outcome: str
    changed: bool
    result: dict[str, t.Any] = field(repr=False)

    @property
    def msg(self) -> str:
        return str(self.result.get("msg", ""))


@dataclass(frozen=True)
class Play:
    """One run of ansible-playbook."""

    rc: int
    output: str
    tasks: list[Task] = field(repr=False)

    @property
    def changed(self) -> list[str]:
        return [task.name for task in self.tasks if task.changed]

    @property
    def failures(self) -> list[Task]:
        return [task for task in self.tasks if task.outcome in ("failed", "unreachable")]

    def of(self, action: str) -> list[dict[str, t.Any]]:
        """Results of all tasks of one of the collection's modules that ran."""
        name = f"mazevault.backup.{action}"
        return [task.result for task in self.tasks if task.action == name and task.outcome != "skipped"]


@dataclass(frozen=True)
class Place:
    """Where ansible-playbook runs: a home and a configuration of its own, nothing of the user's."""

    folder: Path

    def environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ},
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "ANSIBLE_HOME": str(self.folder / "home/.ansible"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "home/remote"),
            "ANSIBLE_CONFIG": str(self.folder / "home/ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "no-collections"),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_CALLBACK_PLUGINS": str(TOP / "tests/support/callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "task_log",
            # Faster; jobs of AWX and the full counts go the usual way.
            "ANSIBLE_PIPELINING": "false" if FULL else "true",
        }

    def write_inventory(self, hosts: Mapping[str, Variables], name: str = "inventory.yml") -> Path:
        """The group mazevault with these hosts, each on this machine."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        group = {"hosts": {host: {**local, **variables} for host, variables in hosts.items()}}
        path = self.folder / name
        path.write_text(json.dumps({"mazevault": group}), encoding="utf-8")
        return path

    def run(
        self,
        playbook: str | Path,
        inventory: Path | None,
        *arguments: str,
        extra: Variables | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        timeout: float = 300,
    ) -> Play:
        """Run one of the checkout's playbooks, or a playbook's file.

        Args:
            inventory: None is no inventory at all.
            prefix: a program that runs it.
        """
        with self.started(playbook, inventory, *arguments, extra=extra, env=env, prefix=prefix) as running:
            return running.end(timeout=timeout)

    @contextlib.contextmanager
    def started(
        self,
        playbook: str | Path,
        inventory: Path | None,
        *arguments: str,
        extra: Variables | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Iterator[RunningPlay]:
        """Start it in the background; what runs at the end of the block is killed."""
        (self.folder / "home").mkdir(exist_ok=True)
        (self.folder / "home/ansible.cfg").touch()
        path = TOP / f"playbooks/{playbook}.yml" if isinstance(playbook, str) else playbook
        log, output = self.folder / "tasks.jsonl", self.folder / "output.txt"
        log.unlink(missing_ok=True)
        given = ["-i", str(inventory)] if inventory else []
        argv = [*prefix, str(Path(sys.executable).parent / "ansible-playbook"), *given, str(path), *arguments]
        if extra:
            argv += ["-e", json.dumps(dict(extra))]
        with output.open("wb") as stream:
            process = subprocess.Popen(
                argv,
                env={**self.environment(), "TASK_LOG": str(log), **(env or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        running = RunningPlay(process, log, output)
        try:
            yield running
        finally:
            running.kill()


@dataclass(frozen=True)
class RunningPlay:
    """A run of ansible-playbook that goes on beside the test."""

    process: subprocess.Popen[bytes]
    log: Path
    output: Path

    def end(self, *, timeout: float = 300) -> Play:
        rc = self.process.wait(timeout)
        return Play(rc, self.output.read_text(encoding="utf-8", errors="replace"), _tasks(self.log))

    def kill(self) -> None:
        """With SIGKILL, and everything below it."""
        if self.process.poll() is None:
            kill.kill9_tree(self.process.pid)
            self.process.wait()


def _tasks(log: Path) -> list[Task]:
    if not log.exists():
        return []
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [Task(name=line.pop("task"), **line) for line in lines]


@dataclass
class Installation:
    """MazeVault's stand-in with its database, and the host's folders."""

    server: PgServer
    folder: Path
    site: standin_process.Site
    service: standin_process.Service
    protection: Mapping[str, t.Any] = field(default_factory=lambda: IN_PLAIN)

    @property
    def place(self) -> Place:
        return Place(self.folder)

    @property
    def root(self) -> Path:
        return self.folder / "opt/mazevault/backups"

    @property
    def application(self) -> Path:
        return self.folder / "application"

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    @property
    def passfile(self) -> Path:
        return self.folder / "pgpass"

    def variables(self) -> dict[str, t.Any]:
        """What the inventory says of this installation."""
        dsn = self.server.dsn()
        control = [sys.executable, standin_control.__file__, str(self.application)]
        return {
            "mazevault_home": str(self.root.parent),
            "mazevault_signing_key": signing_key(),
            "mazevault_postgres_host": dsn["host"],
            "mazevault_postgres_port": dsn["port"],
            "mazevault_postgres_bin_dir": str(self.server.install.bin),
            **({"mazevault_postgres_passfile": str(self.passfile)} if self.server.password else {}),
            "mazevault_postgres_jobs": 2,
            "mazevault_api_url": self.service.url,
            "mazevault_api_token_file": str(self.token_file),
            "mazevault_stack_stop_command": [*control, "stop"],
            "mazevault_stack_start_command": [*control, "start"],
            "mazevault_stack_timeout": 60,
            **{f"mazevault_{name}": value for name, value in self.protection.items()},
        }

    def play(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        """Run a playbook of the checkout against this installation, extra variables as keywords."""
        inventory = self.place.write_inventory({HOSTNAME: self.variables()})
        return self.place.run(playbook, inventory, *arguments, extra=extra)

    def start(self) -> None:
        standin_control.start(self.application)
        deadline = time.monotonic() + 30
        while self.service.status("/api/v1/health") != 200:
            if time.monotonic() > deadline:
                raise AssertionError(f"not healthy: {(self.application / 'log').read_text()}")
            time.sleep(0.02)

    def secret_values(self) -> dict[str, str]:
        """What the running application answers for each secret: its value, or the status of a refusal."""
        listed = self.service.request("/api/v1/secrets?limit=1000").data["data"]
        replies = {str(entry["id"]): self.service.request(f"/api/v1/secrets/{entry['id']}") for entry in listed}
        return {
            number: str(reply.data["value"]) if reply.status == 200 else f"status {reply.status}"
            for number, reply in replies.items()
        }

    def verify_secrets(self) -> subprocess.CompletedProcess[str]:
        """The stand-in's own check, in the database."""
        return self.site.run("verify-secrets", "--all-versions")


@contextlib.contextmanager
def installed(
    server: PgServer, folder: Path, *, size: str = "small", master_key: str | None = None
) -> Iterator[Installation]:
    """Seed the server's database and start the application."""
    under = {"master_key": master_key} if master_key else {}
    application = folder / "application"
    for path in (application, folder / "opt/mazevault"):
        path.mkdir(parents=True, mode=0o700)
    auth = f":{server.password}" if server.password else ""
    url = f"postgres://{server.superuser}{auth}@{server.host}:{server.port}/{server.database}?sslmode=disable"
    site = standin_process.Site(url, folder, **under)
    token_file = folder / "token"
    seeded = site.run("seed", "--size", size, "--token-file", str(token_file))
    if seeded.returncode:
        raise AssertionError(seeded.stderr)
    token_file.chmod(0o600)
    site = standin_process.Site(url, folder, token=token_file.read_text().strip(), **under)
    service = site.service("api")
    listen = {standin_process.LISTEN["api"]: f"127.0.0.1:{service.port}"}
    (application / "environment.json").write_text(json.dumps(standin_process.environment({**service.env, **listen})))
    if server.password:
        (folder / "pgpass").touch(0o600)
        (folder / "pgpass").write_text(f"*:*:*:{server.superuser}:{server.password}\n")
    found = Installation(server, folder, site, service)
    try:
        found.start()
        yield found
    finally:
        standin_control.stop(application)


def tree_state(top: Path) -> dict[str, tuple[t.Any, ...]]:
    """Mode, owner, time and content of everything at and below a path; nothing there is an empty tree."""
    if not os.path.lexists(top):
        return {}
    paths = [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]
    return {str(path.relative_to(top.parent)): _file_state(path) for path in paths}


def _file_state(path: Path) -> tuple[t.Any, ...]:
    info = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
    return (oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, content)


def databases(server: PgServer) -> dict[str, int]:
    """Object ids of all databases by name."""
    rows = server.query("SELECT datname::text, oid::bigint FROM pg_database ORDER BY 1", dbname="template1")
    return dict(rows)


def server_state(server: PgServer, parts: Collection[compare.Part] = CONTENT) -> dict[str, t.Any]:
    """The list of databases and roles, and the content of each database of ours."""
    found = databases(server)
    state: dict[str, t.Any] = {"databases": found}
    for name in found:
        if name in ("template0", "template1", "postgres"):
            continue
        with contextlib.closing(server.connect(name, options=compare.CALM)) as conn:
            state[name] = compare.snapshot_of(conn, (*parts, "roles"))
    return state


def content_of(server: PgServer, database: str = "mazevault") -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", server_state(server)[database])
