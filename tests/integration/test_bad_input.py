# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes of operators and machines: each ends in one line that says what to do, and touches nothing.

Some of these modules remove folders. So every path and id here stays inside the test's own folder, also an id that
climbs: from `<folder>/backups/staging` it reaches `<folder>/victim` at most.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.flow import HOSTNAME, IN_PLAIN, Flow
from support.keys import signing_key
from support.modules import Outcome, run_module
from support.plays import Place, Play, databases, tree_state
from support.servers import PgServer, installations

PASSWORD = "canary-9f3 of'the+db"
DUMP, RESTORE, SWAP = "pg_dump", "pg_restore", "pg_swap"
VERIFY, SET, INFO = "backup_verify", "recovery_set", "recovery_set_info"
UNKNOWN = "mazevault_20200101_000000"
RUN = "restore_20200101_000000"
SQL = "CREATE TABLE secrets AS SELECT i AS id, sha256(i::text::bytea) AS cipher FROM generate_series(1, 500) AS i"
Params = dict[str, t.Any]


@dataclass(frozen=True)
class World:
    """Throwaway servers, a folder with everything else, and the published set of its backup root."""

    flow: Flow
    guarded: PgServer
    older: PgServer | None
    folder: Path
    set_id: str

    @property
    def root(self) -> Path:
        return self.flow.root

    def filled(self, value: t.Any) -> t.Any:
        """A parameter's value or a word of an answer, with the names of this run in it."""
        if not isinstance(value, str):
            return value
        facts = {"folder": self.folder, "root": self.root, "odd": self.folder / "odd", "set_id": self.set_id}
        return value.format(**facts, guarded=self.guarded.socket_directory, guarded_port=self.guarded.port)

    def params(self, module: str) -> Params:
        """Parameters with which the module would do its work."""
        server = {**self.flow.connection, **self.flow.programs}
        root = {"backup_root": str(self.root)}
        asked = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
        return {
            DUMP: {**server, "dest": str(self.folder / "new")},
            RESTORE: {**server, **root, **asked, "set": "latest", "set_id": RUN, "installation": HOSTNAME},
            SWAP: {**self.flow.connection, **root, **asked, "state": "rolled_back", "set_id": RUN},
            VERIFY: {**self.flow.programs, **root, "set": "latest", "level": "read"},
            SET: {**root, "state": "open", **IN_PLAIN},
            INFO: {**root, "set": "latest"},
        }[module]

    def state(self) -> dict[str, t.Any]:
        """Everything that a refused step must leave alone; a sign of life in the staging folders is no harm."""
        files = tree_state(self.folder)
        kept = {path: facts for path, facts in files.items() if Path(path).name not in ("staging", "heartbeat")}
        servers = [server for server in (self.flow.server, self.guarded, self.older) if server]
        return {"files": kept, "databases": [databases(server) for server in servers]}


def refused(world: World, module: str, params: Params, *words: str) -> Outcome:
    """Run a module that has to refuse, judge what every refusal must be like, and return its outcome.

    A parameter that is None isn't given at all.
    """
    given = {name: world.filled(value) for name, value in {**world.params(module), **params}.items()}
    before = world.state()
    outcome = run_module(module, {name: value for name, value in given.items() if value is not None}, timeout=60)
    assert world.state() == before
    message, shown = str(outcome.result.get("msg")), json.dumps(outcome.result) + outcome.stderr
    assert outcome.rc != 0 and outcome.result.get("failed"), shown
    assert "Traceback" not in shown and "exception" not in outcome.result, shown
    assert PASSWORD not in shown and json.dumps(PASSWORD)[1:-1] not in shown
    assert "\n" not in message.strip(), message
    assert [word for word in map(world.filled, words) if word not in message] == [], message
    assert message.partition(" -> ")[2].strip(), message
    return outcome


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    newest, oldest = installations()[0], installations()[-1]
    with PgServer(newest) as server, PgServer(oldest, auth="scram", password=PASSWORD) as guarded:
        server.query(SQL)
        flow = Flow(server, folder / "backups")
        set_id = str(flow.publish()["set_id"])
        older = guarded if oldest.major < newest.major else None
        made = World(flow, guarded, older, folder, set_id)
        make_odd_files(made)
        yield made


def make_odd_files(world: World) -> None:
    for victim in (world.folder / "victim", world.root / "victim"):
        (victim / "set").mkdir(parents=True)
        (victim / "set/precious").write_text("precious")
    odd = world.folder / "odd"
    for name in ("no-programs", "writable"):
        (odd / name).mkdir(parents=True)
    (odd / "writable").chmod(0o777)
    (odd / "noise").write_bytes(secrets.token_bytes(100_000))
    for name, line in {"wrong": "guessed", "right": PASSWORD, "readable": PASSWORD}.items():
        (odd / name).touch(0o600)
        (odd / name).write_text(f"*:*:*:*:{line}\n")
    (odd / "readable").chmod(0o644)
    damaged = odd / f"backups/sets/{world.set_id}"
    shutil.copytree(world.root, odd / "backups")
    (odd / "backups").chmod(0o700)
    (dump,) = damaged.glob("postgres/*.dump*")
    os.truncate(dump, dump.stat().st_size // 2)
    shutil.copy(dump, odd / "cut")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


IN_PLACE = {"mode": "in_place"}
NOBODY = {"host": "127.0.0.1", "port": closed_port()}
GUARDED = {"host": "{guarded}", "port": "{guarded_port}"}
STAGED = {"backup_root": "{root}", "dest": None}
SEALED = {"state": "sealed", "installation": HOSTNAME}

# module, parameters, words of the answer
MISTAKES: list[tuple[str, Params, tuple[str, ...]]] = [
    *((module, {"set": UNKNOWN}, ("set", UNKNOWN, "{set_id}")) for module in (RESTORE, VERIFY, INFO)),
    (VERIFY, {"set": "LATEST"}, ("set: LATEST",)),
    (VERIFY, {"set": ""}, ("set: empty",)),
    (RESTORE, {"set": ""}, ("set: empty",)),
    (RESTORE, {"set": "{odd}/nothing"}, ("set: {odd}/nothing: no such file",)),
    (RESTORE, {"set": "{odd}/noise"}, ("{odd}/noise",)),
    (RESTORE, {"set": "{odd}/cut"}, ("set: {odd}/cut", "unpacked")),
    (RESTORE, {"backup_root": "{odd}/backups", "set": "{set_id}"}, ("set: {set_id}: damaged", "postgres/")),
    (RESTORE, {"installation": "vault2"}, ("set", "vault1", "vault2")),
    (RESTORE, {**IN_PLACE, "confirm": "vault2"}, ("confirm: vault2", f"mazevault_confirm={HOSTNAME}")),
    (RESTORE, {**IN_PLACE, "confirm": None}, ("confirm: missing", f"mazevault_confirm={HOSTNAME}")),
    (SWAP, {"confirm": HOSTNAME.upper()}, ("confirm: VAULT1", f"mazevault_confirm={HOSTNAME}")),
    (SWAP, {"confirm": "", "state": "swapped"}, ("confirm: missing", f"mazevault_confirm={HOSTNAME}")),
    (SWAP, {"confirm": None}, ("confirm: missing",)),
    (SWAP, {"inventory_hostname": None}, ("inventory_hostname: missing",)),
    (SWAP, {}, ("kept", "mazevault_before_")),
    *((module, NOBODY, ("host", f"127.0.0.1:{NOBODY['port']}")) for module in (DUMP, RESTORE, SWAP)),
    (DUMP, {"host": ""}, ("host: empty",)),
    (DUMP, {"database": "vault"}, ("database: vault",)),
    (DUMP, {"user": "nobody"}, ("user: nobody",)),
    *((module, {**GUARDED, "passfile": "{odd}/wrong"}, ("user: mazevault", "passfile")) for module in (DUMP, SWAP)),
    (DUMP, GUARDED, ("user: mazevault", "passfile")),
    (DUMP, {**GUARDED, "passfile": "{odd}/readable"}, ("passfile: {odd}/readable", "0644", "chmod 600")),
    (DUMP, {**GUARDED, "passfile": "{odd}/nothing"}, ("passfile: {odd}/nothing",)),
    *((module, {"bin_dir": "{odd}/no-programs"}, ("program: pg_", "bin_dir")) for module in (DUMP, RESTORE)),
    (DUMP, {"bin_dir": "{odd}/nothing"}, ("bin_dir: {odd}/nothing",)),
    (DUMP, {"reserve": "900P"}, ("dest: {folder}: too little space",)),
    (RESTORE, {"reserve": "900P"}, ("server", "too little space")),
    (DUMP, {"reserve": "5%"}, ("reserve: 5%",)),
    (SET, {"backup_root": "{odd}/writable"}, ("backup_root: {odd}/writable", "0777", "chmod go-w")),
    (SET, {"backup_root": "{odd}/writable/new"}, ("backup_root: {odd}/writable", "0777")),
    (SET, {"backup_root": "{odd}/noise"}, ("backup_root: {odd}/noise: not a folder",)),
    (SET, {"backup_root": "{odd}/noise/new"}, ("backup_root: {odd}/noise: not a folder",)),
    (SET, {"backup_root": "{odd}/nothing/new"}, ("backup_root: {odd}/nothing", "Create")),
    *((module, {"backup_root": "some/where"}, ("backup_root: some/where",)) for module in (SET, INFO, SWAP)),
    (SET, {"backup_root": ""}, ("backup_root: empty",)),
    (DUMP, {"jobs": 0}, ("jobs: 0",)),
    (VERIFY, {"jobs": 257}, ("jobs: 257",)),
    (DUMP, {"port": 0}, ("port: 0",)),
    (SWAP, {"port": 65536}, ("port: 65536",)),
    *((DUMP, {"block_limit": limit}, (f"block_limit: {limit}",)) for limit in ("0.0", "-1.0", "nan", "inf")),
    *((module, {"stale_after": "nan"}, ("stale_after: nan",)) for module in (SET, VERIFY)),
    (SET, {"stale_after": -5}, ("stale_after: -5",)),
    (SWAP, {"application_timeout": "nan"}, ("application_timeout: nan",)),
    (RESTORE, {"application_timeout": 0}, ("application_timeout: 0",)),
    (DUMP, {"dest": ""}, ("dest: empty",)),
    (DUMP, {"dest": "{odd}"}, ("dest: {odd}: exists already",)),
    (DUMP, {"dest": "{odd}/nothing/new"}, ("dest: {odd}/nothing",)),
    (DUMP, {"dest": "{odd}/writable/new"}, ("dest: {odd}/writable", "0777")),
    (SET, {**SEALED, "set_id": UNKNOWN, "installation": None}, ("installation: missing",)),
    (SET, {**SEALED, "set_id": UNKNOWN}, (f"set_id: {UNKNOWN}",)),
]
# None of these leads out of the test's own folder, and nothing of it may go.
CLIMBING = ("", "../victim", "../../victim", "../sets/{set_id}", "odd/../../victim")


@pytest.mark.parametrize(("module", "params", "words"), MISTAKES)
def test_a_mistake_is_named_with_a_way_out(world: World, module: str, params: Params, words: tuple[str, ...]) -> None:
    refused(world, module, params, *words)


@pytest.mark.parametrize("set_id", CLIMBING)
def test_an_id_leads_nowhere_else(world: World, set_id: str) -> None:
    assert (world.root / "staging" / world.filled(set_id)).resolve().is_relative_to(world.folder.resolve())
    for module, params in ((SET, {"state": "aborted"}), (SET, SEALED), (DUMP, STAGED), (RESTORE, {}), (SWAP, {})):
        refused(world, module, {**params, "set_id": set_id}, "set_id: ", set_id)


def test_an_id_without_a_time_is_no_staging_folder(world: World) -> None:
    refused(world, SWAP, {"set_id": "norun"}, "set_id: norun")
    refused(world, RESTORE, {"set_id": "norun"}, "set_id: norun")


def test_a_server_older_than_the_dump(world: World) -> None:
    if world.older is None:
        pytest.skip("one version of PostgreSQL is on this machine")
    majors = (f"version {world.older.major}", f"PostgreSQL {world.flow.server.major}")
    programs = {"bin_dir": str(world.older.install.bin)}
    refused(world, RESTORE, {**GUARDED, **programs, "passfile": "{odd}/right"}, "server", *majors)


def test_another_run_is_alive(world: World) -> None:
    with world.flow.staging("set") as other:
        refused(world, SET, {}, "backup_root: {root}", other)


def test_a_set_is_sealed_when_whole_and_once(world: World) -> None:
    with world.flow.staging("set") as opened:
        refused(world, SET, {**SEALED, "set_id": opened}, "components: postgres")
    refused(world, SET, {**SEALED, "set_id": world.set_id}, "set_id: {set_id}")


def play(world: World, folder: Path, playbook: str, *hosts: str, **extra: t.Any) -> Play:
    """Run a playbook that has to refuse, and see that sets and databases are as they were."""
    connection = {name: world.flow.connection[name] for name in ("host", "port")}
    variables = {
        "mazevault_backup_root": str(world.root),
        "mazevault_signing_key": signing_key(),
        "mazevault_postgres_bin_dir": str(world.flow.server.install.bin),
        **{f"mazevault_postgres_{name}": value for name, value in connection.items()},
    }
    place = Place(folder)
    before = (tree_state(world.root / "sets"), databases(world.flow.server))
    done = place.run(playbook, place.write_inventory(dict.fromkeys(hosts, variables)), extra=extra)
    assert done.rc != 0 and len(done.failures) >= 1, done.output
    assert (tree_state(world.root / "sets"), databases(world.flow.server)) == before
    assert "Traceback" not in done.output
    assert not [path for path in (world.root / "staging").iterdir() if not path.name.startswith(".")]
    return done


REFUSED_PLAYS: list[tuple[str, tuple[str, ...], Params, tuple[str, ...]]] = [
    ("backup", (HOSTNAME,), {"mazevault_encription": "cms"}, ("mazevault_encription", "did you mean mazevault_enc")),
    (
        "backup",
        (HOSTNAME,),
        {
            "mazevault_components": "postgres, stack",
            "mazevault_runtime": "kubernetes",
            "mazevault_encryption": "rot13",
            "mazevault_locations": ["/mnt/safe"],
        },
        (
            "mazevault_components: stack",
            "mazevault_runtime: kubernetes",
            "mazevault_encryption: rot13",
            "mazevault_locations: not in this version",
        ),
    ),
    ("restore_database", (HOSTNAME, "vault2"), {"mazevault_confirm": HOSTNAME}, ("2 hosts", "--limit")),
    ("restore_database", (HOSTNAME,), {}, ("mazevault_confirm: missing", f"-e mazevault_confirm={HOSTNAME}")),
    ("rollback_database", (HOSTNAME,), {"mazevault_confirm": "vault2"}, ("confirm: vault2",)),
    ("backup", (), {}, ("mazevault_hosts: mazevault: no host",)),
]


@pytest.mark.parametrize(("playbook", "hosts", "extra", "words"), REFUSED_PLAYS)
def test_a_playbook_refuses(
    world: World, tmp_path: Path, playbook: str, hosts: tuple[str, ...], extra: Params, words: tuple[str, ...]
) -> None:
    if playbook == "rollback_database":
        world.flow.server.create_database_like("mazevault", f"mazevault_before_{RUN.partition('_')[2]}")
    try:
        said = " ".join(task.msg for task in play(world, tmp_path, playbook, *hosts, **extra).failures)
    finally:
        for name in databases(world.flow.server):
            if name.startswith("mazevault_before_"):
                world.flow.server.drop_database(name)
    assert [word for word in words if word not in said] == [], said


def test_the_judge_itself(world: World) -> None:
    """A run that succeeds, and a word that isn't said, are no refusals."""
    with pytest.raises(AssertionError):
        refused(world, INFO, {})
    with pytest.raises(AssertionError, match="not a set id"):
        refused(world, INFO, {"set": "LATEST"}, "words that nobody says")
