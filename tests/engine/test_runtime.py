# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runtime `docker` against real database containers: all comes back, nothing is left, nothing gets out."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import socket
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import images
from support import compare, containers
from support.containers import ContainerFlow, ContainerServer, Dummy, Watch
from support.flow import FULL, HOSTNAME, StepFailed, count
from support.modules import Outcome, run_module, started
from support.odd import load_odd
from support.plays import tree_state

_numbers = itertools.count(1)
SMALL = "CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 5000) AS n; CREATE SEQUENCE s"


@pytest.fixture(scope="module", params=containers.MAJORS, ids=lambda major: f"pg{major}")
def server(request: pytest.FixtureRequest) -> Iterator[ContainerServer]:
    with ContainerServer(request.param) as found:
        yield found


@pytest.fixture(scope="module", params=containers.MAJORS if FULL else [0], ids=lambda major: f"pg{major or 'newest'}")
def some(request: pytest.FixtureRequest, newest: ContainerServer) -> Iterator[ContainerServer]:
    """For what hardly depends on the version: a sample has no server of its own for it."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(ContainerServer(request.param)) if request.param else newest


@pytest.fixture(scope="module")
def newest() -> Iterator[ContainerServer]:
    """For what doesn't depend on the version."""
    with ContainerServer(containers.MAJORS[0]) as found:
        yield found


def flow_of(server: ContainerServer, folder: Path, statement: str = SMALL) -> ContainerFlow:
    """A database and a backup root of a test's own."""
    name = f"mazevault_{next(_numbers)}"
    server.query(f"CREATE DATABASE {name}", dbname="postgres")
    if statement:
        server.query(statement, dbname=name)
    return ContainerFlow(server, folder / "backups", name)


def rolled_back(flow: ContainerFlow, application: Dummy) -> dict[str, t.Any]:
    asked = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME, "accept": list(flow.accept)}
    with flow.staging("restore") as set_id:
        return flow.must(
            "pg_swap",
            **flow.connection,
            **flow.runtime,
            **asked,
            **application.commands,
            state="rolled_back",
            set_id=set_id,
        )


# ---- what comes back

WAYS = {17: [("custom", "zstd"), ("directory", "gzip")], 15: [("directory", "gzip"), ("custom", "gzip")]}


def test_round_trip_of_odd_things(server: ContainerServer, tmp_path: Path) -> None:
    """Dump, all four levels of proof, publication, restore beside, swap, and the way back."""
    flow = flow_of(server, tmp_path, "")
    load_odd(server, flow.database)
    before = compare.state_of(server, flow.database)
    ways = list(itertools.product(("custom", "directory"), ("zstd", "gzip"))) if FULL else WAYS[server.major][:1]
    for dump_format, compression in ways:
        oid = dict((name, oid) for oid, name in flow.databases())[flow.database]
        published = flow.publish(dump_format, compression, level="restore")
        with Dummy(server) as application:
            restored, swapped = flow.restore_and_swap(published["set_id"])
            assert restored["verdict"] == "pass", [check for check in restored["checks"] if check["verdict"] != "pass"]
            assert restored["left_out"] == []
            assert compare.difference(before, compare.state_of(server, flow.database)) == []
            back = rolled_back(flow, application)
            assert application.running
        assert (back["database"], back["incoming"]) == (flow.database, swapped["kept"])
        assert (oid, flow.database) in flow.databases()


def test_each_level_by_each_way(some: ContainerServer, tmp_path: Path) -> None:
    flow = flow_of(some, tmp_path)
    for dump_format, compression in WAYS[some.major][1:]:
        published = flow.publish(dump_format, compression)
        for level in ("toc", "checksum", "read", "restore"):
            found = flow.verify(published["set_id"], level)
            assert (found["verdict"], found["level"]) == ("pass", level), found["summary"]


def test_in_place(some: ContainerServer, tmp_path: Path) -> None:
    flow = flow_of(some, tmp_path)
    before = compare.state_of(some, flow.database)
    published = flow.publish()
    some.query("DROP TABLE t; CREATE TABLE other (n integer)", dbname=flow.database)
    safety = flow.publish()
    asked = {"mode": "in_place", "confirm": HOSTNAME, "inventory_hostname": HOSTNAME, "safety_set": safety["set_id"]}
    with flow.staging("restore") as set_id, Dummy(some) as application:
        done = flow.try_restore(published["set_id"], set_id, **asked, **application.commands)
        assert application.running
    assert (done.rc, done.result.get("verdict")) == (0, "pass"), done.result
    assert compare.difference(before, compare.state_of(some, flow.database)) == []


def test_a_file_of_the_former_way(some: ContainerServer, tmp_path: Path) -> None:
    """pg_dump's plain text, packed by gzip: rehearsed in a scratch server, then beside the live one."""
    flow = flow_of(some, tmp_path)
    before = compare.state_of(some, flow.database)
    path = tmp_path / "mazevault_20261101_030000.sql.gz"
    path.write_bytes(gzip.compress(some.run("pg_dump", dbname=flow.database).stdout.encode()))
    some.query("DELETE FROM t", dbname=flow.database)
    with flow.staging("restore") as set_id, Watch(flow) as watch:
        restored = flow.try_restore(str(path), set_id)
        assert restored.rc == 0, restored.result
        swap = {"state": "swapped", "set_id": set_id, "confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
        flow.must("pg_swap", **flow.connection, **flow.runtime, **swap)
    assert restored.result["verdict"] == "unproven"
    assert "none" in {one.host["NetworkMode"] for one in watch.seen.values()}, "it was not rehearsed"
    assert compare.difference(before, compare.state_of(some, flow.database)) == []


# ---- what is left, and what can be seen from outside


def test_seen_from_outside(newest: ContainerServer, tmp_path: Path) -> None:
    """A dump and a proof leave the machine and the database as they were, and run with as few rights as can be."""
    flow = flow_of(newest, tmp_path)
    limits = {"cpus": 1.5, "memory": "1g", "io_weight": 100}
    before, content = containers.footprint(flow), compare.state_of(newest, flow.database)
    with Watch(flow) as watch, flow.staging("set") as set_id:
        flow.must("pg_dump", **flow.connection, **flow.runtime, **limits, set_id=set_id, jobs=2)
        dumping = set(watch.seen)
        proof = flow.must("backup_verify", **flow.programs, **limits, set=set_id)
        flow.must("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME)
    assert proof["verdict"] == "pass"
    containers.wait_no_sidecar(flow)
    assert compare.difference(before, containers.footprint(flow)) == []
    assert compare.difference(content, compare.state_of(newest, flow.database)) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"backups"}
    assert list((flow.root / "staging").glob("[!.]*")) == []
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"mazevault-pipes-{os.getpid()}-*"))
    # The counterparts: there was something to see, and something that is left would be seen.
    assert dumping
    assert set(watch.seen) > dumping
    assert watch.volumes == set(), "a volume was made for a sidecar"
    check_rights(newest, watch, dumping)
    with LeftBehind(newest):
        assert compare.difference(before, containers.footprint(flow)) != []


def check_rights(server: ContainerServer, watch: Watch, dumping: set[str]) -> None:
    for name, one in watch.seen.items():
        host = one.host
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert "no-new-privileges" in host["SecurityOpt"], name
        assert host["NanoCpus"] == 1_500_000_000, name
        assert host["Memory"] == 1 << 30, name
        assert (host["PidMode"], host["UsernsMode"], host["PortBindings"] or {}) == ("", "", {}), name
        own_network = host["NetworkMode"].startswith("container:")
        assert own_network or host["NetworkMode"] == "none", name
        if name in dumping:
            assert own_network, name
        told = f"{one.config['Env']} {one.config['Cmd']} {one.config['Entrypoint']} {one.labels}"
        assert str(server.password) not in told
        assert "/var/run/docker.sock" not in str(one.mounts)
    caged = [name for name, one in watch.seen.items() if one.host["NetworkMode"] == "none"]
    assert caged, "no scratch server was seen"
    servers = {account for program, account in watch.accounts if program == "postgres"}
    assert servers == {70}, f"scratch servers ran as {servers}"


class LeftBehind:
    """A container such as a killed run could leave."""

    def __init__(self, server: ContainerServer) -> None:
        self._server = server
        self._name = f"{server.name}-left"

    def __enter__(self) -> None:
        options = (f"--network=container:{self._server.name}", f"--label={containers.LABEL}={self._server.name}")
        containers.docker("create", f"--name={self._name}", *options, containers.image_of(self._server.major))

    def __exit__(self, *_: object) -> None:
        containers.docker("rm", "--force", "--volumes", self._name)


def test_check_mode_writes_nothing(newest: ContainerServer, tmp_path: Path) -> None:
    flow = flow_of(newest, tmp_path)
    published = flow.publish()
    where = {"backup_root": str(flow.root)}
    with flow.staging("set") as set_id:
        calls: list[tuple[str, dict[str, t.Any]]] = [
            ("pg_dump", {**where, **flow.connection, **flow.runtime, "set_id": set_id}),
            ("backup_verify", {**where, **flow.programs, "set": published["set_id"]}),
            (
                "pg_restore",
                {**where, **flow.connection, **flow.runtime, "set": published["set_id"], "installation": HOSTNAME},
            ),
        ]
        before = tree_state(tmp_path), containers.footprint(flow), flow.databases()
        for module, params in calls:
            done = run_module(module, params, check=True)
            assert done.rc == 0, done.result
            after = tree_state(tmp_path), containers.footprint(flow), flow.databases()
            assert compare.difference(list(before), list(after)) == [], module
        # The counterpart.
        flow.must("pg_dump", **flow.connection, **flow.runtime, set_id=set_id)
        assert compare.difference(before[0], tree_state(tmp_path)) != []


FINDINGS = "mazevault_findings"
# Runs wherever the view is filled: on the source when it is made, in the scratch server when the dump is loaded.
MALICIOUS = r"""
CREATE FUNCTION act() RETURNS integer LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE $copy$COPY (SELECT 1) TO PROGRAM $program${program}$program$ $copy$;
    RETURN 1;
END $body$;
CREATE TABLE t (n integer);
CREATE MATERIALIZED VIEW trap AS SELECT act() AS n;
"""
PROGRAM = (
    'exec 2>/dev/null; cat >/dev/null; say() {{ "$@" && echo "yes $*" || echo "no $*"; }}; {{'
    " say touch {folder}/touched; say touch {root}/touched; say touch /touched; say cat {root}/START-HERE.txt;"
    ' say touch {findings}.control; say bash -c "exec 3<>/dev/tcp/{address}/5432";'
    ' say bash -c "exec 3<>/dev/tcp/{gateway}/{port}"; grep -E "^(Uid|CapEff|CapBnd|NoNewPrivs)" /proc/self/status;'
    " echo interfaces $(ls /sys/class/net); }} >{findings}"
)


def test_a_malicious_dump_gets_nowhere(newest: ContainerServer, tmp_path: Path) -> None:
    """A dump is code that runs as superuser: in the proof it reaches neither network nor host."""
    gateway = newest.host.rpartition(".")[0] + ".1"
    with socket.create_server(("0.0.0.0", 0)) as listening:
        facts = {"folder": tmp_path, "root": tmp_path / "backups", "findings": FINDINGS, "address": newest.host}
        program = PROGRAM.format(**facts, gateway=gateway, port=listening.getsockname()[1])
        flow = flow_of(newest, tmp_path, MALICIOUS.replace("{program}", program))
        on_source = (newest.data / FINDINGS).read_text(encoding="utf-8")
        published = flow.publish()
        where = {"backup_root": str(flow.root), **flow.programs}
        with started("backup_verify", {**where, "set": published["set_id"]}, stop_at="verify: compare") as running:
            assert running.wait_stopped(), running.end()
            (path,) = flow.root.glob(f"staging/*/mazevault-scratch-*/data/{FINDINGS}")
            found = path.read_text(encoding="utf-8")
            running.go_on()
            done = running.end()
    # The counterpart: the same program, on a server with a network.
    assert f"yes bash -c exec 3<>/dev/tcp/{newest.host}/5432" in on_source
    assert done.rc == 0, done.result
    said = [line for line in found.splitlines() if line.startswith("yes")]
    assert said == [f"yes touch {FINDINGS}.control"], found
    assert "interfaces lo\n" in found
    assert "CapEff:\t0000000000000000" in found
    assert "CapBnd:\t0000000000000000" in found
    assert "NoNewPrivs:\t1" in found
    assert "Uid:\t70\t70\t70\t70" in found
    assert not list(tmp_path.rglob("touched"))


# ---- settings as shipped and worse


HOSTILE = {
    "statement_timeout": "50ms",
    "lock_timeout": "10ms",
    "idle_in_transaction_session_timeout": "50ms",
    "idle_session_timeout": "50ms",
    "default_transaction_isolation": "serializable",
}


def test_short_time_limits(some: ContainerServer, tmp_path: Path) -> None:
    """They are meant for the application: no step of ours ends by them."""
    settings = {**HOSTILE, **({"transaction_timeout": "200ms"} if some.major >= 17 else {})}
    flow = flow_of(some, tmp_path, SMALL.replace("5000", "100000"))
    before = compare.state_of(some, flow.database)
    places = ("SYSTEM", f"ROLE {some.superuser}")
    try:
        for name, value in settings.items():
            for place in places:
                some.query(f"ALTER {place} SET {name} = '{value}'", dbname="postgres")
        some.query("SELECT pg_reload_conf()", dbname="postgres")
        with Dummy(some) as application:
            published = flow.publish("directory", level="restore")
            with flow.staging("restore") as set_id:
                restored = flow.try_restore(published["set_id"], set_id, jobs=2)
                assert restored.rc == 0, restored.result
                asked = {"state": "swapped", "set_id": set_id, "confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
                flow.must("pg_swap", **flow.connection, **flow.runtime, **asked, **application.commands)
    finally:
        for place in places:
            some.query(f"ALTER {place} RESET ALL", dbname="postgres")
        some.query("SELECT pg_reload_conf()", dbname="postgres")
    assert compare.difference(before, compare.state_of(some, flow.database)) == []


def test_no_connection_is_left(tmp_path: Path) -> None:
    """With the places of superusers left a backup succeeds; without any it says so."""
    settings: dict[str, str | int] = {"max_connections": 12, "superuser_reserved_connections": 3, "autovacuum": "off"}
    with ContainerServer(containers.MAJORS[0], settings=settings) as server:
        flow = flow_of(server, tmp_path)
        server.query("CREATE ROLE application LOGIN PASSWORD 'x'", dbname="postgres")
        sessions = []
        try:
            while True:
                try:
                    sessions.append(server.connect("postgres", user="application", password="x"))
                except Exception as exc:
                    assert "reserved" in str(exc) or "too many" in str(exc)
                    break
            published = flow.publish(level="read")
            while True:
                try:
                    sessions.append(server.connect("postgres"))
                except Exception as exc:
                    assert "too many" in str(exc)
                    break
            with flow.staging("set") as set_id:
                done = run_module(
                    "pg_dump", {"backup_root": str(flow.root), **flow.connection, **flow.runtime, "set_id": set_id}
                )
            assert done.rc != 0
            assert "connections" in done.result["msg"]
            assert "max_connections" in done.result["msg"], done.result["msg"]
            assert "\n" not in done.result["msg"]
            # Too few places are free, then enough: it says why, or succeeds.
            for free in (2, 3):
                for _turn in range(free):
                    sessions.pop().close()
                with flow.staging("set") as set_id:
                    done = run_module(
                        "pg_dump", {"backup_root": str(flow.root), **flow.connection, **flow.runtime, "set_id": set_id}
                    )
                assert done.rc == 0 or "max_connections" in done.result["msg"], done.result
            assert done.rc == 0, done.result
        finally:
            for one in sessions:
                one.close()
        assert flow.verify(published["set_id"], "checksum")["verdict"] == "pass"


@pytest.mark.parametrize("pause", [0.2, 1.0] if FULL else [1.0])
def test_a_schema_that_changes_all_the_time(pause: float, newest: ContainerServer, tmp_path: Path) -> None:
    """Each backup succeeds and is one moment, or says why there is none."""
    flow = flow_of(newest, tmp_path, "CREATE TABLE a (n integer); INSERT INTO a SELECT generate_series(1, 1000)")
    with Altering(newest, flow.database, pause) as altering:
        for _turn in range(count(1, 10)):
            try:
                published = flow.publish(level="restore")
            except StepFailed as exc:
                assert "other work on the schema" in str(exc)
                continue
            assert flow.verify(published["set_id"], "checksum")["verdict"] == "pass"
    assert altering.done > 0
    assert list((flow.root / "staging").glob("[!.]*")) == []


class Altering:
    """ALTER TABLE in a loop: every one rewrites the table, none changes how many rows it has."""

    def __init__(self, server: ContainerServer, database: str, pause: float) -> None:
        self._server, self._database, self._pause = server, database, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.done = 0

    def __enter__(self) -> Altering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _loop(self) -> None:
        # Closing: the connection as a context would be one long transaction.
        with (
            contextlib.closing(self._server.connect(self._database, autocommit=True)) as conn,
            conn.cursor() as cursor,
        ):
            while not self._stop.is_set():
                cursor.execute(f"ALTER TABLE a ALTER COLUMN n TYPE {('bigint', 'integer')[self.done % 2]}")
                self.done += 1
                self._stop.wait(self._pause)


# ---- mistakes


def no_engine(tmp_path: Path) -> dict[str, t.Any]:
    return {"env": {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}}


MISTAKES: dict[str, tuple[dict[str, t.Any], t.Callable[[Path], dict[str, t.Any]], tuple[str, ...]]] = {
    "no container named": ({"container": None}, lambda _folder: {}, ("container: missing", "docker")),
    "empty name": ({"container": ""}, lambda _folder: {}, ("container: missing",)),
    "unknown container": ({"container": "mvtest-nobody"}, lambda _folder: {}, ("container: mvtest-nobody:",)),
    "a container's id cut short": ({"container": "-v"}, lambda _folder: {}, ("container: -v",)),
    "not PostgreSQL": ({"container": "{other}"}, lambda _folder: {}, ("container {other}", "psql")),
    "stopped": ({"container": "{stopped}"}, lambda _folder: {}, ("container: {stopped}", "docker start {stopped}")),
    "engine away": ({}, no_engine, ("docker: the engine doesn't answer", "systemctl start docker")),
    "no rights": (
        {},
        lambda _folder: {"hooks": [("become", {"account": "nobody", "module": "pg_dump"})]},
        ("docker: this account", "root"),
    ),
    "no program": ({}, lambda _folder: {"hooks": [("without_program", {"name": "docker"})]}, ("the program docker",)),
}


@pytest.fixture(scope="module")
def others(newest: ContainerServer) -> Iterator[dict[str, str]]:
    """A container that isn't PostgreSQL, and one that doesn't run."""
    label = f"--label={containers.LABEL}={newest.name}"
    (redis,) = (image.tag for image in images.SERVERS if "redis" in image.name)
    names = {"other": f"{newest.name}-other", "stopped": f"{newest.name}-stopped"}
    sleeping = ("--pull=never", "--network=none", label, "--init", "--entrypoint=sleep")
    try:
        containers.docker("run", "--detach", *sleeping, f"--name={names['other']}", redis, "infinity")
        image = containers.image_of(newest.major)
        containers.docker("create", *sleeping, f"--name={names['stopped']}", image, "infinity")
        yield names
    finally:
        containers.docker("rm", "--force", "--volumes", *names.values())


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, newest: ContainerServer, others: dict[str, str], tmp_path: Path) -> None:
    """Each ends in one line that names parameter and value and says what to do, and touches nothing."""
    changed, prepare, words = MISTAKES[name]
    flow = flow_of(newest, tmp_path, "")
    params = {**flow.connection, **flow.runtime, "dest": str(tmp_path / "new")}
    params |= {key: value.format(**others) if value else value for key, value in changed.items()}
    before = containers.footprint(flow), tree_state(tmp_path)
    done: Outcome = run_module("pg_dump", params, **prepare(tmp_path))
    assert done.rc != 0
    msg = done.result["msg"]
    assert "\n" not in msg
    assert "Traceback" not in msg + done.stderr
    for word in words:
        assert word.format(**others) in msg, msg
    assert done.result["hint"], "it doesn't say what to do"
    assert compare.difference(list(before), [containers.footprint(flow), tree_state(tmp_path)]) == []
