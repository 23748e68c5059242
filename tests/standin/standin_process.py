# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stand-in's commands and services as processes, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import psycopg2

HERE = Path(__file__).resolve().parent
LISTEN = {"api": "MAZEVAULT_LISTEN_ADDR", "ocsp": "MAZEVAULT_OCSP_LISTEN_ADDR"}
HEALTH = {"api": "/api/v1/health", "ocsp": "/live"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the caller's own configuration leaks in."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", **extra}


def run(*arguments: str, env: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mazevault_standin", *arguments],
        env=environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> t.Any:
        return json.loads(self.body)


@dataclass
class Service:
    """One service on a free port; output goes to files in the directory."""

    command: str
    env: Mapping[str, str]
    directory: Path
    token: str = field(default="", repr=False)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, healthy: bool = True) -> float:
        """Seconds until healthy."""
        started = time.monotonic()
        env = environment({**self.env, LISTEN[self.command]: f"127.0.0.1:{self.port}"})
        with (self.directory / f"{self.command}.out").open("ab") as out, self._errors.open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mazevault_standin", self.command], env=env, stdout=out, stderr=err
            )
        while healthy and self.status(HEALTH[self.command]) != 200:
            if self.process.poll() is not None or time.monotonic() - started > 30:
                raise AssertionError(f"{self.command} is not healthy: {self._errors.read_text()} {self.output}")
            time.sleep(0.02)
        return time.monotonic() - started

    def stop(self) -> float:
        """Seconds that SIGTERM took."""
        started = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        return time.monotonic() - started

    @property
    def _errors(self) -> Path:
        return self.directory / f"{self.command}.err"

    @property
    def output(self) -> str:
        return (self.directory / f"{self.command}.out").read_text() + self._errors.read_text()

    def request(self, path: str, *, method: str = "GET", body: object = None, token: str | None = None) -> Reply:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        if bearer := self.token if token is None else token:
            request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return Reply(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, dict(error.headers), error.read())

    def status(self, path: str) -> int:
        """0 when nobody answers."""
        try:
            return self.request(path).status
        except (OSError, HTTPException):
            return 0


@dataclass(frozen=True)
class Site:
    """A database with the environment that belongs to it."""

    url: str
    directory: Path
    token: str = field(default="", repr=False)
    master_key: str = field(default="an opaque+string/that is=not decoded", repr=False)

    @property
    def env(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.url,
            "MAZEVAULT_MASTER_KEY": self.master_key,
            "MAZEVAULT_JWT_KEY": "jwt",
            "MAZEVAULT_RATE_LIMIT": "0",
            "LICENSE_SERVER_URL": "http://127.0.0.1:9/heartbeat",
            "RUN_MIGRATIONS": "true",
        }

    def service(self, command: str, **extra: str) -> Service:
        return Service(command, {**self.env, **extra}, self.directory, self.token)

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, env={**self.env, **extra})

    def query(self, statement: str, *values: object) -> list[tuple[t.Any, ...]]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()
