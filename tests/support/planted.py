# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation full of canaries: in its settings, keys, files and database; and all that its runs leave behind."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import tempfile
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.canaries import Canary, Search, of_bytes, of_key, of_text, planted
from support.identities import Custodians, make_custodians
from support.plays import HOSTNAME, TOP, Installation, Play, RunningPlay, installed
from support.servers import PgInstall, PgServer

# Each becomes part of the run as soon as it is part of the collection.
COMPONENTS = tuple(
    name
    for name in ("postgres", "config", "tls", "volumes")
    if (TOP / f"roles/mazevault_{name}/tasks/backup.yml").is_file()
)
COMPOSE = """\
services:
  postgres:
    image: postgres:15-alpine
    environment:
      POSTGRES_PASSWORD: "{password}"
  backend:
    image: mazevault-backend:1.0.17
    env_file: .env
    environment:
      DATABASE_URL: "{url}"
      MAZEVAULT_MASTER_KEY: ${{MASTER_KEY}}
      MAZEVAULT_JWT_KEY: ${{JWT_SECRET}}
      GREETING: "{greeting}"
"""
SQL = """
CREATE TABLE customers (id integer PRIMARY KEY, name text, portrait bytea, note json);
INSERT INTO customers VALUES (1, {text}, '\\x{binary}', json_build_object('text', {text}::text));
INSERT INTO customers SELECT i, md5(i::text), sha256(i::text::bytea), '{{}}' FROM generate_series(2, 3000) AS i;
SELECT lo_from_bytea(0, '\\x{binary}');
COMMENT ON TABLE customers IS {comment};
ALTER DATABASE {database} SET mazevault.setting = {setting};
CREATE ROLE auditor LOGIN PASSWORD {role};
"""


@dataclass(frozen=True)
class Planted:
    """What must be where.

    Attributes:
        keys: key material: in no artefact of class data, opened or not.
        rows: what the database holds: in its artefact, once that is opened.
        settings: what the files of the configuration hold beside keys: in theirs, once they are opened.
    """

    keys: tuple[Canary, ...]
    rows: tuple[Canary, ...]
    settings: tuple[Canary, ...]

    @property
    def all(self) -> tuple[Canary, ...]:
        return (*self.keys, *self.rows, *self.settings)

    @property
    def expected(self) -> set[str]:
        """Names of those that class data shows, of the components that there are."""
        found = self.rows + (self.settings if "config" in COMPONENTS else ())
        return {canary.name for canary in found}


def plant(installation: Installation, password: Canary) -> Planted:
    """In its home and its database; the application's own secrets become canaries too."""
    home, server = installation.root.parent, installation.server
    texts = {name: planted(name) for name in ("row", "comment", "database's setting", "greeting", "script", "upload")}
    simple = {name: planted(name, awkward="_") for name in ("JWT_SECRET", "SMTP_PASSWORD", "role's password")}
    binary = of_bytes("bytea", secrets.token_bytes(32))
    master = of_text("MASTER_KEY", installation.site.master_key)
    url = f"postgres://mazevault:{password.text}@postgres:5432/mazevault"
    settings = {
        "MASTER_KEY": master.text,
        **{name: simple[name].text for name in ("JWT_SECRET", "SMTP_PASSWORD")},
        "POSTGRES_PASSWORD": password.text,
        "DATABASE_URL": url,
        "GREETING": texts["greeting"].text,
    }
    _write(home / ".env", "".join(f'{name}="{value}"\n' for name, value in settings.items()), mode=0o600)
    compose = COMPOSE.format(password=password.text, url=url, greeting=texts["greeting"].text)
    _write(home / "docker-compose.yml", compose)
    _write(home / "config/mazevault.yml", f'greeting: "{texts["greeting"].text}"\n')
    _write(home / "scripts/tidy.sh", f"#!/bin/sh\n# {texts['script'].text}\n", mode=0o755)
    _write(home / "uploads/report.txt", f"{texts['upload'].text}\n")
    # Somebody's copy of a key makes a file key material, wherever it lies.
    _write(home / "uploads/notes.txt", f"the old one was {master.text}\n")
    key = _certificate(home / "certs")
    _write(home / "certs/legacy/old-server.pem", key.read_text(encoding="ascii"), mode=0o600)

    quoted = {name: "'" + canary.text.replace("'", "''") + "'" for name, canary in {**texts, **simple}.items()}
    statements = SQL.format(
        text=quoted["row"],
        binary=binary.value.hex(),
        comment=quoted["comment"],
        database=server.database,
        setting=quoted["database's setting"],
        role=quoted["role's password"],
    )
    server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname=server.database, stdin=statements)
    return Planted(
        keys=(
            password,
            master,
            *simple.values(),
            *(of_text(f"verifier of {name}", text) for name, text in _verifiers(installation)),
            of_text("API token", installation.site.token),
            of_key("TLS key", key),
            *_secrets(installation),
        ),
        rows=(texts["row"], texts["comment"], texts["database's setting"], binary),
        settings=(texts["greeting"], texts["script"], texts["upload"]),
    )


def _secrets(installation: Installation) -> list[Canary]:
    """Values that the application decrypts; a few of those that can be told from chance."""
    found = []
    for number, value in installation.secret_values().items():
        with contextlib.suppress(ValueError):
            found.append(of_text(f"secret {number}", value))
    return found[:6]


def _verifiers(installation: Installation) -> list[tuple[str, str]]:
    """What the server keeps of passwords; sets are to carry none."""
    rows = installation.server.query("SELECT rolname::text, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    return [(str(name), str(text)) for name, text in rows]


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _certificate(folder: Path) -> Path:
    folder.mkdir()
    words: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "90"]
    words += ["-subj", "/CN=vault.example", "-keyout", folder / "server.key", "-out", folder / "server.crt"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "server.key").chmod(0o600)
    return folder / "server.key"


@dataclass(frozen=True)
class Guarded:
    """Such an installation, encrypted for custodians; it runs as it is told, and everything it writes is known."""

    installation: Installation
    custodians: Custodians
    planted: Planted
    scratch: Path

    @property
    def folder(self) -> Path:
        return self.installation.folder

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def search(self) -> Search:
        return Search(self.planted.all)

    def left(self) -> list[Path]:
        """Where anything of a run can be: backup root, witness, Ansible's homes and logs, temporary files."""
        own = ("home", "ansible.log", "output.txt", "tasks.jsonl", "inventory.yml")
        paths = [self.folder / name for name in own]
        # tmp, and the jobs' folders beside it.
        return [self.installation.root, *paths, *self.folder.glob("tmp*"), self.scratch, self.installation.server.log]

    def variables(self) -> dict[str, t.Any]:
        return {
            **self.installation.variables(),
            "mazevault_components": list(COMPONENTS),
            "mazevault_postgres_scratch_dir": str(self.scratch),
            "mazevault_volumes_paths": [str(self.installation.root.parent / "uploads")],
        }

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The modules' files, with their arguments in them, stay to be searched."""
        return {
            "TMPDIR": str(self.temporary),
            "ANSIBLE_LOG_PATH": str(self.folder / "ansible.log"),
            "ANSIBLE_KEEP_REMOTE_FILES": "true",
            **(env or {}),
        }

    def play(
        self, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **extra: t.Any
    ) -> Play:
        """Run backup.yml, as talkative as it gets."""
        with self.started(*arguments, env=env, prefix=prefix, **extra) as running:
            return running.end()

    @contextlib.contextmanager
    def started(
        self, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **extra: t.Any
    ) -> Iterator[RunningPlay]:
        place = self.installation.place
        inventory = place.write_inventory({HOSTNAME: self.variables()})
        words = ("-vvv", "--diff", *arguments)
        with place.started("backup", inventory, *words, extra=extra, env=self.environment(env), prefix=prefix) as run:
            yield run


@contextlib.contextmanager
def guarded(install: PgInstall, folder: Path) -> Iterator[Guarded]:
    password, master = planted("POSTGRES_PASSWORD"), planted("MASTER_KEY", awkward="+/")
    # Scratch servers run under an account that can't pass through the tests' own folders.
    with (
        tempfile.TemporaryDirectory(prefix="mazevault-canaries-", dir="/var/tmp") as scratch,
        PgServer(install, auth="scram", password=password.text) as server,
        installed(server, folder, master_key=master.text) as installation,
    ):
        Path(scratch).chmod(0o711)
        custodians = make_custodians(folder / "custodians")
        installation.protection = {
            "recipients_data": [str(one.public) for one in custodians.data],
            "recipients_keys": [str(one.public) for one in custodians.keys],
        }
        (folder / "tmp").mkdir()
        made = Guarded(installation, custodians, plant(installation, password), Path(scratch))
        # From here on the server keeps every statement.
        server.query("ALTER SYSTEM SET log_statement = 'all'")
        server.query("SELECT pg_reload_conf()")
        yield made
