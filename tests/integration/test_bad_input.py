# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes of operators and machines: each ends in one line that says what to do, and touches nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import typing as t
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.modules import Outcome, run_module
from support.plays import HOSTNAME, server_state, tree_state
from support.servers import PgServer, installation, installations

PASSWORD = "canary-9f3 of'the+db"
DUMP, RESTORE, SWAP = "pg_dump", "pg_restore", "pg_swap"
VERIFY, SET, INFO, PROBE = "backup_verify", "recovery_set", "recovery_set_info", "mazevault_probe"
SQL = """
CREATE TABLE secrets (id integer PRIMARY KEY, cipher bytea NOT NULL);
INSERT INTO secrets SELECT i, sha256(i::text::bytea) FROM generate_series(1, 500) AS i;
"""
Params = dict[str, t.Any]


@dataclass
class World:
    """A server with a password, a backup root with one set, an older server, and odd files."""

    server: PgServer
    older: PgServer
    folder: Path
    set_id: str = ""
    untouched: dict[str, t.Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "backups"

    @property
    def odd(self) -> Path:
        return self.folder / "odd"

    @property
    def dump(self) -> Path:
        (found,) = (self.root / "sets" / self.set_id / "postgres").glob("*.dump*")
        return found

    def connection(self, server: PgServer | None = None) -> Params:
        where = server or self.server
        dsn = where.dsn()
        passfile = {"passfile": str(self.folder / "pgpass")} if where.password else {}
        return {"host": dsn["host"], "port": dsn["port"], "user": dsn["user"], "database": "mazevault", **passfile}

    def params(self, module: str) -> Params:
        """Parameters with which the module would do its work."""
        root, programs = {"backup_root": str(self.root)}, {"bin_dir": str(self.server.install.bin)}
        return {
            DUMP: {**self.connection(), **programs, "dest": str(self.folder / "new")},
            RESTORE: {
                **self.connection(),
                **programs,
                **root,
                "set": "latest",
                "set_id": "restore_20200101_000000",
                "installation": HOSTNAME,
                "inventory_hostname": HOSTNAME,
            },
            SWAP: {
                **self.connection(),
                **root,
                "state": "swapped",
                "set_id": "restore_20200101_000000",
                "inventory_hostname": HOSTNAME,
                "confirm": HOSTNAME,
            },
            VERIFY: {**programs, **root, "set": "latest", "level": "read"},
            SET: {**root, "state": "open"},
            INFO: {**root, "set": "latest"},
            PROBE: {"api_url": "http://127.0.0.1:9", "timeout": 0},
        }[module]

    def state(self) -> dict[str, t.Any]:
        """Everything that a refused step must leave alone."""
        return {
            "files": tree_state(self.folder),
            "server": server_state(self.server),
            "older": server_state(self.older),
        }

    @contextmanager
    def nothing_touched(self) -> Iterator[None]:
        self.untouched = self.untouched or self.state()
        yield
        now = self.state()
        for part, before in self.untouched.items():
            assert now[part] == before, part

    def refused(
        self, module: str, env: Mapping[str, str] | None = None, *, without: tuple[str, ...] = (), **params: t.Any
    ) -> Outcome:
        """Run a module that has to refuse, judge what every refusal must be like, and return it."""
        given = {name: value for name, value in {**self.params(module), **params}.items() if name not in without}
        outcome = run_module(module, given, env=env, timeout=60)
        shown = json.dumps(outcome.result) + outcome.stderr
        assert outcome.rc != 0 and outcome.result.get("failed"), shown
        assert "Traceback" not in shown and "exception" not in outcome.result, shown
        assert PASSWORD not in shown
        assert "\n" not in outcome.result["msg"].strip(), outcome.result["msg"]
        return outcome


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    newest = installations()[0]
    with PgServer(newest, auth="scram", password=PASSWORD) as server, PgServer(installation(15)) as older:
        for each in (server, older):
            each.query(SQL)
        made = World(server, older, folder)
        for name, line in {"pgpass": PASSWORD, "wrong": "guessed", "open": PASSWORD}.items():
            (folder / name).touch(0o600)
            (folder / name).write_text(f"*:*:*:*:{line}\n")
        (folder / "open").chmod(0o644)
        made.set_id = publish(made)
        make_odd_files(made)
        yield made


def publish(world: World) -> str:
    """One set, by the modules themselves."""
    params, done = world.params, []
    set_id = run_module(SET, params(SET)).result["set_id"]
    dump = {**params(DUMP), "backup_root": str(world.root), "set_id": set_id}
    del dump["dest"]
    done.append(run_module(DUMP, dump))
    sealed = {**params(SET), "state": "sealed", "set_id": set_id, "installation": HOSTNAME}
    done.append(run_module(SET, sealed))
    assert [outcome.rc for outcome in done] == [0, 0], done
    return str(set_id)


def make_odd_files(world: World) -> None:
    odd = world.odd
    odd.mkdir(mode=0o700)
    (odd / "empty").touch()
    (odd / "text").write_text("not a dump at all\n")
    (odd / "noise").write_bytes(secrets.token_bytes(100_000))
    (odd / "folder").mkdir()
    os.mkfifo(odd / "pipe", 0o600)
    (odd / "no-programs").mkdir()
    (odd / "a file").touch()
    (odd / "writable").mkdir()
    (odd / "writable").chmod(0o777)
    (odd / "link").symlink_to(world.root)
    shutil.copy(world.dump, odd / "cut")
    os.truncate(odd / "cut", (odd / "cut").stat().st_size // 2)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Mistake:
    """Parameters that are wrong, and how the answer begins; `{...}` are fields of the world."""

    name: str
    module: str
    params: Mapping[str, t.Any]
    said: str
    without: tuple[str, ...] = ()


def mistakes() -> Iterator[Mistake]:
    """Those that Ansible doesn't refuse by itself."""
    unknown = "mazevault_20200101_000000"
    for module in (RESTORE, VERIFY, INFO):
        yield Mistake(f"{module}: unknown set", module, {"set": unknown}, f"set: {unknown}: no such set under {{root}}")
        for odd in ("LATEST", "latest ", "mazevault_20200101_000000\n", "*", ".", "..", "--help", "Ünïcode", " "):
            said = f"set: {' '.join(odd.split())}: "
            yield Mistake(f"{module}: set {odd!r}", module, {"set": odd}, "set: " if not odd.strip() else said)
        for path in ("/no/such/file", "../..", "sets/../../x"):
            yield Mistake(f"{module}: file {path}", module, {"set": path}, f"set: {path}: ")
    yield Mistake("pg_restore: empty set", RESTORE, {"set": ""}, "set: empty")
    yield Mistake("backup_verify: empty set", VERIFY, {"set": ""}, "set: empty")
    for name in ("empty", "text", "noise", "folder", "cut", "pipe"):
        said = f"{{odd}}/{name}: "
        yield Mistake(f"pg_restore: {name}", RESTORE, {"set": f"{{odd}}/{name}"}, said)
    yield Mistake("pg_restore: a device", RESTORE, {"set": "/dev/zero"}, "/dev/zero: ")

    for confirm in ("", "vault2", "VAULT1", " vault1", "yes", "true"):
        said = f"confirm: {confirm.strip()}: isn't the name of this host" if confirm else "confirm: missing"
        yield Mistake(f"pg_swap: confirm {confirm!r}", SWAP, {"confirm": confirm}, said)
        rolled = {"confirm": confirm, "state": "rolled_back"}
        yield Mistake(f"pg_swap: rollback, confirm {confirm!r}", SWAP, rolled, said)
        yield Mistake(f"pg_restore: confirm {confirm!r}", RESTORE, {"confirm": confirm, "mode": "in_place"}, said)
    yield Mistake("pg_swap: no confirm", SWAP, {}, "confirm: missing", ("confirm",))
    yield Mistake("pg_swap: no host name", SWAP, {}, "inventory_hostname: missing", ("inventory_hostname",))
    yield Mistake("pg_restore: in place, no safety set", RESTORE, {"mode": "in_place", "confirm": HOSTNAME}, "set_id: ")
    yield Mistake(
        "pg_swap: nothing to roll back", SWAP, {"state": "rolled_back"}, "set_id: restore_20200101_000000: no work"
    )

    for module in (DUMP, RESTORE, SWAP):
        port = closed_port()
        yield Mistake(
            f"{module}: nobody there",
            module,
            {"host": "127.0.0.1", "port": port},
            f"host: 127.0.0.1:{port}: server not",
        )
        yield Mistake(f"{module}: no socket there", module, {"host": "{odd}"}, "host: {odd}:")
        yield Mistake(f"{module}: no such name", module, {"host": "nowhere.invalid"}, "host: nowhere.invalid:")
        yield Mistake(f"{module}: empty host", module, {"host": ""}, "host: empty")
        yield Mistake(f"{module}: wrong password", module, {"passfile": "{folder}/wrong"}, "user: mazevault: ")
        yield Mistake(f"{module}: no password", module, {}, "user: mazevault: ", ("passfile",))
        yield Mistake(
            f"{module}: open password file", module, {"passfile": "{folder}/open"}, "passfile: {folder}/open: others"
        )
        yield Mistake(
            f"{module}: no password file", module, {"passfile": "/no/such"}, "passfile: /no/such: No such file"
        )
        yield Mistake(
            f"{module}: a folder of passwords", module, {"passfile": "{odd}/folder"}, "passfile: {odd}/folder: "
        )
        yield Mistake(f"{module}: no such user", module, {"user": "nobody"}, "user: nobody: ")
        for port in (0, -1, 65536):
            yield Mistake(f"{module}: port {port}", module, {"port": port}, f"port: {port}: out of range")
    yield Mistake("pg_dump: no such database", DUMP, {"database": "vault"}, "database: vault: does not exist on")

    for module in (DUMP, RESTORE, VERIFY):
        yield Mistake(f"{module}: no programs", module, {"bin_dir": "{odd}/no-programs"}, "program: pg_")
        yield Mistake(
            f"{module}: no folder of programs", module, {"bin_dir": "/no/such"}, "bin_dir: /no/such: no such folder"
        )
        for jobs in (0, -1, 257):
            yield Mistake(f"{module}: jobs {jobs}", module, {"jobs": jobs}, f"jobs: {jobs}: out of range")
        for reserve in ("lots", "-1", "1X", "1 2", "1e9", "5%"):
            yield Mistake(
                f"{module}: reserve {reserve}", module, {"reserve": reserve}, f"reserve: {reserve}: not a size"
            )
    for module in (DUMP, RESTORE):
        parameter = {DUMP: "dest", RESTORE: "server"}[module]
        yield Mistake(f"{module}: too little space", module, {"reserve": "1000T"}, f"{parameter}: ")
    for limit in (0, -1, "0.0", "nan"):
        yield Mistake(f"pg_dump: block_limit {limit}", DUMP, {"block_limit": limit}, "block_limit: ")

    yield Mistake("pg_dump: dest exists", DUMP, {"dest": "{odd}"}, "dest: {odd}: exists already")
    yield Mistake("pg_dump: dest is a link", DUMP, {"dest": "{odd}/link"}, "dest: {odd}/link: exists already")
    yield Mistake("pg_dump: nowhere", DUMP, {"dest": "/no/such/new"}, "dest: /no/such: No such file")
    yield Mistake("pg_dump: anybody's folder", DUMP, {"dest": "{odd}/writable/new"}, "dest: {odd}/writable: others may")
    yield Mistake("pg_dump: below a file", DUMP, {"dest": "{odd}/text/new"}, "dest: {odd}/text: not a folder")
    yield Mistake("pg_dump: an empty id", DUMP, {"backup_root": "{root}", "set_id": ""}, "set_id: ", ("dest",))
    yield Mistake("pg_dump: an empty dest", DUMP, {"dest": ""}, "dest: ")

    climbing = ("../../odd", "../sets/{set_id}", "..", ".", "", "a/../../b", "restore_1/..", "no_such_run")
    for set_id in climbing:
        root = {"backup_root": "{root}", "set_id": set_id}
        for state in ("sealed", "aborted"):
            if (state, set_id) == ("aborted", "no_such_run"):
                continue  # to give up what isn't there is fine
            params = {**root, "state": state, "installation": HOSTNAME}
            yield Mistake(f"recovery_set: {state}, id {set_id!r}", SET, params, "set_id: ")
        yield Mistake(f"pg_dump: id {set_id!r}", DUMP, root, "set_id: ", ("dest",))
        yield Mistake(f"pg_restore: id {set_id!r}", RESTORE, root, "set_id: ")
        yield Mistake(f"pg_swap: id {set_id!r}", SWAP, root, "set_id: ")
    yield Mistake(
        "recovery_set: no installation",
        SET,
        {"state": "sealed", "set_id": "mazevault_20200101_000000"},
        "installation: ",
    )
    for seconds in (0, -5, "nan"):
        yield Mistake(f"recovery_set: stale_after {seconds}", SET, {"stale_after": seconds}, "stale_after: ")
        yield Mistake(f"backup_verify: stale_after {seconds}", VERIFY, {"stale_after": seconds}, "stale_after: ")
        timeout = {"application_timeout": seconds}
        yield Mistake(f"pg_swap: application_timeout {seconds}", SWAP, timeout, "application_timeout: ")
        inplace = {**timeout, "mode": "in_place", "confirm": HOSTNAME}
        yield Mistake(f"pg_restore: application_timeout {seconds}", RESTORE, inplace, "application_timeout: ")

    for module in (RESTORE, SWAP, VERIFY, INFO):
        yield Mistake(
            f"{module}: relative root",
            module,
            {"backup_root": "backups/here"},
            "backup_root: backups/here: not an absolute",
        )
    roots = {
        "odd/a file": "not a folder",
        "odd/writable": "others may write here (mode 0777)",
        "odd/link": "not a folder",
    }
    for path, said in roots.items():
        root_ = f"{{folder}}/{path}"
        yield Mistake(f"recovery_set: root {path}", SET, {"backup_root": root_}, f"backup_root: {root_}: {said}")
    below = "{odd}/writable/new"
    yield Mistake("recovery_set: below anybody's folder", SET, {"backup_root": below}, "backup_root: {odd}/writable: ")
    yield Mistake("recovery_set: below a file", SET, {"backup_root": "{odd}/a file/b"}, "backup_root: {odd}/a file")
    yield Mistake(
        "pg_restore: no root, latest", RESTORE, {"backup_root": "{odd}"}, "set: latest: no usable set under {odd}"
    )
    older = "server: version 15: older than the dump"
    yield Mistake(
        "pg_restore: older server",
        RESTORE,
        {"host": "{older_host}", "port": "{older_port}"},
        older,
        ("passfile", "bin_dir"),
    )
    yield Mistake(
        "pg_restore: another installation's",
        RESTORE,
        {"installation": "vault2"},
        "set: it belongs to installation vault1, not to vault2",
    )
    for scratch in ("no-such-account-9",):
        yield Mistake("pg_restore: scratch_user", RESTORE, {"scratch_user": scratch}, f"scratch_user: {scratch}: ")


MISTAKES = list(mistakes())


def filled(value: t.Any, world: World) -> t.Any:
    if not isinstance(value, str):
        return value
    facts = {
        "folder": world.folder,
        "root": world.root,
        "odd": world.odd,
        "set_id": world.set_id,
        "older_host": world.older.dsn()["host"],
        "older_port": world.older.port,
    }
    return value.format(**facts)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_named_with_a_way_out(world: World, mistake: Mistake) -> None:
    params = {name: filled(value, world) for name, value in mistake.params.items()}
    with world.nothing_touched():
        outcome = world.refused(mistake.module, without=mistake.without, **params)
    message = outcome.result["msg"]
    said = " ".join(str(filled(mistake.said, world)).split())
    assert said in message, message
    assert " -> " in message and message.partition(" -> ")[2].strip(), message
