# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""MazeVault's stack on a host: installed as the product's installer would, and filled with test data."""

from __future__ import annotations

import base64
import io
import secrets
import subprocess
import tarfile
import time

from . import hosts
from .client import Client
from .hosts import Host
from .layout import SHIPPED
from .place import Place
from .process import LabError, say, wait_for

HOME = SHIPPED.home
TOKEN_FILE = "api-token"
DATABASE = "mazevault"
FOLDERS = {"backups": 0o755, "certs": 0o700, "config": 0o755, "data": 0o700, "data/postgres": 0o755}
FOLDERS |= {"data/redis": 0o755, "logs": 0o755, "scripts": 0o755}


def ensure(place: Place, host: Host) -> None:
    """Installed, up, and not empty."""
    if not hosts.succeeds(place, host, "test", "-e", f"{host.layout.home}/.env"):
        _install(place, host)
    compose(place, host, "up", "--detach")
    _wait_healthy(place, host)
    if not hosts.succeeds(place, host, "test", "-e", _token_file(host)):
        seed(place, host, size="small", number=1)
    _tell_outside(place, host)


def compose(place: Place, host: Host, *words: str, data: bytes | None = None) -> str:
    program = ("docker", "compose") if host.engine.program == "docker" else ("podman-compose",)
    where = ("--project-name", host.layout.project, "--file", f"{host.layout.home}/docker-compose.yml")
    return hosts.inside(place, host, *program, *where, *words, data=data)


def execute(place: Place, host: Host, service: str, *words: str, data: bytes | None = None) -> str:
    """Run a program in the container of a service."""
    engine = host.engine
    carrier = (engine.program, "exec", "--interactive", host.layout.container(engine, service))
    return hosts.inside(place, host, *carrier, *words, data=data)


def remove(place: Place, host: Host) -> None:
    """With all that is in its volumes."""
    compose(place, host, "down", "--volumes")
    hosts.inside(place, host, "rm", "--recursive", host.layout.home)


def healthy(place: Place, host: Host) -> bool:
    return Client(str(place.address(host.number))).healthy()


def _install(place: Place, host: Host) -> None:
    say(f"{host.name}: installing the stack")
    values = {name: secrets.token_urlsafe(24) for name in ("postgres_password", "redis_password")}
    values |= {name: _random_key() for name in ("master_key", "jwt_secret", "session_secret")}
    values["cert_names"] = f"DNS:localhost,DNS:backend,DNS:{host.name},IP:127.0.0.1,IP:{place.address(host.number)}"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        _add(archive, ".", 0o755)
        for name, mode in FOLDERS.items():
            _add(archive, name, mode)
        _add(archive, "docker-compose.yml", 0o644, host.layout.compose_file())
        _add(archive, ".env", 0o600, host.layout.env_file(values))
    home = host.layout.home
    hosts.inside(place, host, "mkdir", "--parents", home)
    hosts.inside(place, host, "tar", "--extract", "--file", "-", "--directory", home, data=stream.getvalue())


def _random_key() -> str:
    """As openssl rand -base64 32 makes them."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _add(archive: tarfile.TarFile, name: str, mode: int, data: bytes | None = None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, int(time.time())
    entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
    entry.size = len(data or b"")
    archive.addfile(entry, io.BytesIO(data or b""))


def seed(place: Place, host: Host, *, size: str, number: int) -> None:
    """In place of all that is in the database; with a new API token."""
    say(f"{host.name}: seeding {size}")
    users = [host.layout.service(name) for name in ("backend", "ocsp")]
    compose(place, host, "stop", *users)
    for statement in (f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"CREATE DATABASE {DATABASE}"):
        sql(place, host, statement, database="postgres")
    words = ["python3", "-m", "mazevault_standin", "seed", "--size", size, "--seed", str(number)]
    script = '"$@" --token-file /tmp/token >&2 && cat /tmp/token'
    token = compose(place, host, "run", "--rm", "--no-deps", "-T", users[0], "sh", "-c", script, "seed", *words)
    hosts.inside(place, host, "install", "-m", "0600", "/dev/stdin", _token_file(host), data=token.encode())
    compose(place, host, "start", *users)
    _wait_healthy(place, host)
    _tell_outside(place, host)


def _wait_healthy(place: Place, host: Host) -> None:
    """Until its API says so. Podman's names are sometimes not known yet when a container starts, which then ends."""
    for last in (False, False, True):
        try:
            wait_for(f"{host.name}: the stack's API", lambda: healthy(place, host), 50)
            return
        except LabError:
            if last:
                raise
        users = [host.layout.service(name) for name in ("backend", "ocsp")]
        compose(place, host, "start", *users)


def _token_file(host: Host) -> str:
    return f"{host.layout.home}/{TOKEN_FILE}"


def _tell_outside(place: Place, host: Host) -> None:
    """A client's token and authority."""
    folder = place.of_host(host.name)
    folder.mkdir(mode=0o700, exist_ok=True)
    token = folder / "api-token"
    token.touch(mode=0o600)
    token.write_text(hosts.inside(place, host, "cat", _token_file(host)), encoding="utf-8")
    authority = execute(place, host, "backend", "cat", "/certs/ca.crt")
    (folder / "ca.crt").write_text(authority, encoding="utf-8")


def sql(place: Place, host: Host, statement: str, *, database: str = DATABASE) -> str:
    """One statement's rows as text, columns parted by |."""
    psql = _psql(database)
    return execute(place, host, "postgres", *psql, "--no-align", "--tuples-only", data=statement.encode())


def sql_by_hand(place: Place, host: Host, statement: str | None, database: str) -> int:
    """psql with its own habits, for people."""
    words = ["docker", "exec", "--interactive", hosts.container(place, host)]
    words += [host.engine.program, "exec", "--interactive", host.layout.container(host.engine, "postgres")]
    words += _psql(database)
    return subprocess.run([*words, "--command", statement] if statement else words, check=False).returncode


def _psql(database: str) -> list[str]:
    return ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--username", DATABASE, "--dbname", database]
