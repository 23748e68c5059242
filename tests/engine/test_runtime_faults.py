# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills, stops and pauses around the runtime `docker`: no damaged set, nothing left, and the next run heals."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.process import attempt
from support import compare, containers, kill, steps
from support.containers import ContainerFlow, ContainerServer, Dummy
from support.flow import FULL, HOSTNAME, sample
from support.modules import Outcome, Running, started

STALE = 0.3
PATIENCE = 4.0
SQL = """
CREATE TABLE t (id integer PRIMARY KEY, v text);
INSERT INTO t SELECT i, md5(i::text) || md5((i * 3)::text) FROM generate_series(1, 50000) AS i;
CREATE TABLE u (id integer REFERENCES t, b bytea);
INSERT INTO u SELECT i, sha256(i::text::bytea) FROM generate_series(1, 1000) AS i;
"""
PARTS: tuple[compare.Part, ...] = ("tables", "sequences")
DUMP = (
    "dump: take the snapshot",
    "dump: pg_dump starts",
    "dump: pg_dump runs",
    "dump: pg_dump has ended",
    "dump: read back what was written",
    "dump: rename",
)
VERIFY = (
    "verify: toc",
    "verify: read",
    "verify: scratch server",
    "verify: restore into scratch",
    "verify: compare",
    "verify: amcheck",
)
SEAL = ("seal: manifest", "seal: rename", "seal: published")
RESTORE = ("restore: create the database", "restore: load", "restore: statistics", "restore: prove")


@dataclass(frozen=True)
class Moment:
    """Where to strike: which module, at which step, whom."""

    module: str
    step: str
    victim: str

    def __str__(self) -> str:
        return f"{self.step}, {self.victim}"


def moments(module: str, steps: tuple[str, ...], *victims: str) -> list[Moment]:
    return [Moment(module, step, victim) for step in steps for victim in victims]


SERVER = ("server killed", "server stopped", "server restarted", "server paused", "server paused for long")
KILLS = [
    *moments("pg_dump", DUMP, "module", "sidecar"),
    *moments("pg_dump", DUMP[1:3], "engine's programs", "psql inside", "pg_dump inside"),
    *moments("backup_verify", VERIFY, "module", "sidecar"),
    *moments("backup_verify", VERIFY[3:5], "engine's programs", "postgres inside", "pg_restore inside"),
    *moments("recovery_set", SEAL, "module"),
    *moments("pg_dump", DUMP[:4], *SERVER),
    *moments("backup_verify", VERIFY[3:5], *SERVER),
    *moments("pg_restore", RESTORE, *SERVER, "module", "sidecar"),
]
SWAPS = moments("pg_swap", steps.SWAP[:-1], *SERVER, "worker", "sidecar")
ALWAYS = [
    Moment("pg_dump", "dump: pg_dump runs", "server paused for long"),
    Moment("pg_dump", "dump: pg_dump runs", "module"),
]
ALWAYS_SWAPS = [Moment("pg_swap", "swap: between the renames", "server paused for long")]


@pytest.fixture(scope="module", params=containers.MAJORS if FULL else containers.MAJORS[:1], ids=lambda m: f"pg{m}")
def server(request: pytest.FixtureRequest) -> Iterator[ContainerServer]:
    with ContainerServer(request.param) as found:
        yield found


@pytest.fixture
def flow(server: ContainerServer, tmp_path: Path) -> Iterator[ContainerFlow]:
    name = "mazevault_faults"
    server.query(f"CREATE DATABASE {name}", dbname="postgres")
    server.query(SQL, dbname=name)
    yield ContainerFlow(server, tmp_path / "backups", name)
    for (found,) in server.query("SELECT datname::text FROM pg_database WHERE datname LIKE 'mazevault_faults%%'"):
        server.drop_database(found)


def hashes(top: Path) -> dict[str, str]:
    files = [path for path in sorted(top.rglob("*")) if path.is_file()]
    return {str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def content(flow: ContainerFlow, database: str) -> compare.State:
    with contextlib.closing(flow.server.connect(database, options=compare.CALM)) as conn:
        return compare.snapshot_of(conn, PARTS)


def inside(flow: ContainerFlow, name: str) -> list[int]:
    """Processes of this name in the collection's containers, as the machine numbers them."""
    found = []
    for one in containers.sidecars(flow):
        with contextlib.suppress(OSError):
            space = os.readlink(f"/proc/{one.state['Pid']}/ns/pid")
            for process in kill.processes().values():
                with contextlib.suppress(OSError):
                    if process.is_called(name) and os.readlink(f"/proc/{process.pid}/ns/pid") == space:
                        found.append(process.pid)
    return found


def kill_inside(flow: ContainerFlow, name: str) -> None:
    """Kill the first process of this name that appears; one that never does was too quick."""
    end = time.monotonic() + 5
    while not (pids := inside(flow, name)) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def strike(flow: ContainerFlow, moment: Moment, running: Running) -> None:
    """Do the harm while the module stands at its step, and let it go on."""
    server, victim = flow.container, moment.victim
    if victim == "module":
        running.kill()
    elif victim == "worker":
        os.kill(running.stopped, 9)
    elif victim == "sidecar":
        for one in containers.sidecars(flow):
            attempt("docker", "kill", one.name)
    elif victim == "engine's programs":
        kill.kill9_named(running.pid, "docker")
    elif victim == "server killed":
        server.kill9()
    elif victim == "server stopped":
        server.stop(timeout=10)
    elif victim == "server restarted":
        server.restart()
    elif victim.startswith("server paused"):
        server.pause()
    running.go_on()
    if victim.endswith(" inside"):
        kill_inside(flow, victim.removesuffix(" inside"))
    if victim == "server paused":
        time.sleep(1)
        server.unpause()


def struck(flow: ContainerFlow, moment: Moment, params: dict[str, t.Any]) -> Outcome:
    """Run the moment's module with the harm done to it; afterwards the server is up again."""
    server = flow.container
    hooks = [("patience", {"seconds": PATIENCE})]
    with started(moment.module, params, stop_at=moment.step, hooks=hooks) as running:
        assert running.wait_stopped(timeout=120), f"{moment} was never reached: {running.end()}"
        try:
            strike(flow, moment, running)
            outcome = ended(running)
        finally:
            state = server.state
            if state["Paused"]:
                server.unpause()
            server.start()
    print(f"{moment}: {outcome.rc} {outcome.result.get('msg')}")
    if moment.victim != "module" and outcome.rc:
        check_message(outcome)
    return outcome


def ended(running: Running) -> Outcome:
    """Its end; a step that is entered again (another attempt) doesn't stop it for good."""
    with contextlib.suppress(TimeoutError):
        while running.wait_stopped(timeout=120):
            running.go_on()
    return running.end()


def check_message(outcome: Outcome) -> None:
    msg = outcome.result.get("msg", "")
    assert msg, f"no message: {outcome.stderr[-3000:]}"
    assert "\n" not in msg
    assert "Traceback" not in msg + outcome.stderr, outcome.stderr[-3000:]


def sessions(flow: ContainerFlow) -> list[tuple[t.Any, ...]]:
    return flow.server.query(
        "SELECT pid, application_name, state, query FROM pg_stat_activity"
        " WHERE application_name LIKE 'mazevault.backup%%' OR application_name IN ('pg_dump', 'pg_restore')",
        dbname="postgres",
    )


def wait_clean(flow: ContainerFlow) -> float:
    """Seconds until neither container nor session of a run is left."""
    began = time.monotonic()
    containers.wait_no_sidecar(flow)
    while found := sessions(flow):
        assert time.monotonic() - began < 15, found
        time.sleep(0.1)
    return time.monotonic() - began


def whole_run(flow: ContainerFlow, moment: Moment | None = None) -> tuple[str, Outcome | None]:
    """Open, dump, prove, publish, restore beside, with the harm at its moment: (the set, what was struck)."""
    set_id = str(flow.must("recovery_set", state="open", stale_after=STALE)["set_id"])
    where = {"backup_root": str(flow.root)}
    steps: list[tuple[str, Callable[[], dict[str, t.Any]]]] = [
        ("pg_dump", lambda: {**where, **flow.connection, **flow.runtime, "set_id": set_id, "jobs": 1}),
        ("backup_verify", lambda: {**where, **flow.runtime, "set": set_id, "jobs": 1}),
        ("recovery_set", lambda: {**where, "state": "sealed", "set_id": set_id, "installation": HOSTNAME}),
    ]
    for module, params in steps:
        if moment is not None and moment.module == module:
            return set_id, struck(flow, moment, params())
        done = flow.must(module, **params())
        assert module != "backup_verify" or done["verdict"] == "pass", done
    return set_id, None


def set_names(flow: ContainerFlow) -> list[str]:
    return sorted(os.listdir(flow.root / "sets"))


def healed(flow: ContainerFlow) -> str:
    time.sleep(STALE + 0.1)
    set_id, _nobody = whole_run(flow)
    assert [name for name in os.listdir(flow.root / "staging") if not name.startswith(".")] == []
    assert flow.verify(set_id, "checksum")["verdict"] == "pass"
    return set_id


@pytest.mark.parametrize("moment", sample(KILLS, 1, always=ALWAYS), ids=str)
def test_struck(moment: Moment, flow: ContainerFlow, record_property: t.Any) -> None:
    first, _nobody = whole_run(flow)
    before, live = hashes(flow.root / "sets" / first), content(flow, flow.database)
    began = time.monotonic()
    if moment.module == "pg_restore":
        outcome, set_id = restore_struck(flow, moment, first), ""
    else:
        set_id, found = whole_run(flow, moment)
        assert found is not None
        outcome = found
    seconds = time.monotonic() - began
    gone = wait_clean(flow)
    record_property("seconds", round(seconds, 1))
    record_property("clean_after", round(gone, 1))
    if moment.victim == "server paused for long" and moment.module != "backup_verify":
        assert outcome.rc != 0
        assert re.search("paused|not reachable", outcome.result["msg"]), outcome.result["msg"]
    if moment.module == "backup_verify" and "inside" in moment.victim and outcome.rc == 0:
        assert outcome.result["verdict"] in ("pass", "fail")
    published = set_names(flow)
    assert set(published) <= {first, set_id}
    if not (moment.module == "recovery_set" and moment.step == SEAL[2]):
        assert published == [first]
    assert hashes(flow.root / "sets" / first) == before
    assert content(flow, flow.database) == live
    again = healed(flow)
    assert set_names(flow) == sorted({*published, again})
    assert hashes(flow.root / "sets" / first) == before
    wait_clean(flow)


def restore_struck(flow: ContainerFlow, moment: Moment, wanted: str) -> Outcome:
    set_id = str(flow.must("recovery_set", state="open", purpose="restore", stale_after=STALE)["set_id"])
    where = {"backup_root": str(flow.root), **flow.connection, **flow.runtime}
    outcome = struck(flow, moment, {**where, "set": wanted, "set_id": set_id, "installation": HOSTNAME, "jobs": 1})
    time.sleep(STALE + 0.1)
    # The next restore clears away what this one left in the server.
    following = str(flow.must("recovery_set", state="open", purpose="restore", stale_after=STALE)["set_id"])
    done = flow.try_restore(wanted, following)
    assert (done.rc, done.result.get("verdict")) == (0, "pass"), done.result
    left = [name for _oid, name in flow.databases() if "_restore_" in name]
    assert left == [done.result["database"]]
    flow.server.drop_database(left[0])
    flow.must("recovery_set", state="aborted", set_id=following)
    return outcome


@pytest.mark.parametrize("moment", sample(SWAPS, 0, always=ALWAYS_SWAPS), ids=str)
def test_struck_swap(moment: Moment, flow: ContainerFlow, record_property: t.Any) -> None:
    """The application is never left down, and the next run brings things to an end."""
    published = flow.publish()
    good = content(flow, flow.database)
    flow.server.query("DELETE FROM u", dbname=flow.database)
    damaged = content(flow, flow.database)
    set_id = str(flow.must("recovery_set", state="open", purpose="restore", stale_after=STALE)["set_id"])
    restored = flow.try_restore(published["set_id"], set_id)
    assert restored.rc == 0, restored.result
    asked = {"set_id": set_id, "confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
    with Dummy(flow.container) as application:
        where = {"backup_root": str(flow.root), **flow.connection, **flow.runtime, **application.commands}
        began = time.monotonic()
        outcome = struck(flow, moment, {**where, **asked, "state": "swapped"})
        record_property("seconds", round(time.monotonic() - began, 1))
        assert application.running, "the application was left down"
        wait_clean(flow)
        finished = flow.must("pg_swap", **{**where, "state": "recovered"})
        assert finished["changed"] == (outcome.rc != 0 and bool(finished["recovered"]))
        assert application.running
    now = content(flow, flow.database)
    assert now in (good, damaged)
    if outcome.rc == 0:
        assert now == good
    time.sleep(STALE + 0.1)
    flow.must("recovery_set", state="aborted", set_id=set_id)
    restored_again, _swapped = flow.restore_and_swap(published["set_id"])
    assert restored_again["verdict"] == "pass"
    assert content(flow, flow.database) == good
    wait_clean(flow)


def test_only_the_dead_run_s_containers_are_removed(flow: ContainerFlow, tmp_path: Path) -> None:
    """Two installations on a host can open sets of the same id in the same second."""
    set_id = str(flow.must("recovery_set", state="open", stale_after=STALE)["set_id"])
    flow.must("pg_dump", **flow.connection, **flow.runtime, set_id=set_id)
    names = [f"{flow.container.name}-{word}" for word in ("dead", "alive")]
    try:
        for name, root in zip(names, (flow.root, tmp_path / "other")):
            labels = {containers.LABEL: flow.container.name, "mazevault.backup": "sidecar"}
            labels["mazevault.backup.run"] = f"{root}/staging/{set_id}"
            words = [f"--label={key}={value}" for key, value in labels.items()]
            containers.docker("create", f"--name={name}", *words, containers.image_of(flow.container.major))
        time.sleep(STALE + 0.1)
        following = flow.must("recovery_set", state="open", stale_after=STALE)
        assert [one.name for one in containers.inspect(*names)] == names[1:]
        flow.must("recovery_set", state="aborted", set_id=following["set_id"])
    finally:
        attempt("docker", "rm", "--force", "--volumes", *names)
