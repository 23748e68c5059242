# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The swap: seconds of downtime, nothing acknowledged is lost, and no kill leaves the application down."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import compare, kill, modules, standin_control, steps
from support.acked import AckedWriter
from support.flow import FULL, HOSTNAME, Flow, sample
from support.plays import Installation, databases, installed
from support.servers import PgServer, installations

SIZES = ("100MB", "2GB") if FULL else ("60MB",)
KILLED = tuple(sample(steps.SWAP, 3))
OUR_PART = 2.0
PARTS: tuple[compare.Part, ...] = ("tables", "sequences", "large_objects", "objects", "database")


@dataclass
class Client:
    """Reads one secret through the API for ever, and knows when it came back decrypted."""

    installation: Installation
    secret: int = 1
    good: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Client:
        self.value = self._read()
        assert self.value
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _read(self) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            reply = self.installation.service.request(f"/api/v1/secrets/{self.secret}")
            return str(reply.data["value"]) if reply.status == 200 else None
        return None

    def _loop(self) -> None:
        while not self._stop.is_set():
            if self._read() == self.value:
                self.good.append(time.monotonic())
            time.sleep(0.01)

    def longest_gap(self) -> float:
        return max(after - before for before, after in zip(self.good, self.good[1:]))


@pytest.fixture(params=installations() if FULL else installations()[:1], ids=str)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    with PgServer(request.param) as server, installed(server, tmp_path) as found:
        yield found


@pytest.fixture(params=SIZES)
def sized(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Installation]]:
    size: str = request.param
    with PgServer(installations()[0]) as server, installed(server, tmp_path, size=size) as found:
        yield size, found


@pytest.fixture
def flow(installation: Installation) -> Flow:
    return Flow(installation.server, installation.root)


def application(installation: Installation) -> dict[str, t.Any]:
    control = [sys.executable, standin_control.__file__, str(installation.application)]
    return {"application_stop": [*control, "stop"], "application_start": [*control, "start"], "application_timeout": 60}


def swap_parameters(flow: Flow, installation: Installation, set_id: str, **more: t.Any) -> dict[str, t.Any]:
    return {
        **flow.connection,
        **application(installation),
        "backup_root": str(flow.root),
        "state": "swapped",
        "set_id": set_id,
        "confirm": HOSTNAME,
        "inventory_hostname": HOSTNAME,
        **more,
    }


def content(server: PgServer, database: str = "mazevault") -> compare.State:
    with contextlib.closing(server.connect(database, options=compare.CALM)) as conn:
        return compare.snapshot_of(conn, PARTS)


def wait_healthy(installation: Installation, *, timeout: float = 30) -> float:
    """Seconds until the application answers again; nobody but the collection starts it."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        with contextlib.suppress(OSError):
            if installation.service.status("/api/v1/health") == 200:
                return time.monotonic() - started
        time.sleep(0.05)
    raise AssertionError(f"the application is down: {(installation.application / 'log').read_text()[-2000:]}")


def test_downtime(sized: tuple[str, Installation], record_property: t.Any) -> None:
    """Our part takes under 2 s whatever the size, and every acknowledged write is in one of the two databases."""
    size, installation = sized
    server, flow = installation.server, Flow(installation.server, installation.root)
    AckedWriter.prepare(server.connector())
    published = flow.publish()
    with flow.staging("restore") as set_id, Client(installation) as client, AckedWriter(server.connector()) as writer:
        restored = flow.try_restore(published["set_id"], set_id)
        assert restored.rc == 0, restored.result
        writer.wait_for(50)
        swapped = flow.must("pg_swap", **swap_parameters(flow, installation, set_id))
        wait_healthy(installation)
        writer.wait_for(50)
        time.sleep(0.3)
    gap, database_gap = client.longest_gap(), writer.longest_gap()
    figures = {
        "size": size,
        "swap_seconds": swapped["swap_seconds"],
        "stopped_seconds": swapped["stopped_seconds"],
        "api_gap": round(gap, 3),
        "database_gap": round(database_gap, 3),
    }
    print(f"swap: {figures}")
    for name, value in figures.items():
        record_property(name, value)
    assert swapped["swap_seconds"] < OUR_PART
    assert database_gap < OUR_PART
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(contextlib.closing(server.connect(name, autocommit=True)))
            for name in ("mazevault", swapped["kept"])
        ]
        assert writer.acked()
        assert writer.missing(*both) == []


def test_rollback_brings_the_old_one_back(installation: Installation, flow: Flow) -> None:
    server = installation.server
    server.query("COMMENT ON DATABASE mazevault IS 'live'")
    published = flow.publish()
    server.query("DELETE FROM secret_versions WHERE secret_id % 2 = 0")
    damaged, oid = content(server), databases(server)["mazevault"]
    _restored, swapped = flow.restore_and_swap(published["set_id"])
    assert compare.difference(content(server, swapped["kept"]), damaged) == []
    assert databases(server)["mazevault"] != oid
    with flow.staging("restore") as set_id:
        back = flow.must("pg_swap", **swap_parameters(flow, installation, set_id, state="rolled_back"))
    assert back["incoming"] == swapped["kept"]
    wait_healthy(installation)
    assert databases(server)["mazevault"] == oid
    assert compare.difference(damaged, content(server)) == []


def prepared(flow: Flow, installation: Installation) -> tuple[str, str, compare.State]:
    """A good set, a damaged live database, and a restored one beside it: (staging id, set id, good content)."""
    good = content(installation.server)
    published = flow.publish()
    installation.server.query("DELETE FROM secret_versions")
    set_id = flow.must("recovery_set", state="open", purpose="restore", stale_after=0.2)["set_id"]
    restored = flow.try_restore(published["set_id"], set_id)
    assert restored.rc == 0, restored.result
    return set_id, published["set_id"], good


def next_run(flow: Flow, installation: Installation, wanted: str, good: compare.State) -> None:
    """What restore_database.yml does after a crash: finish, open, restore, swap; then all is as it should be."""
    flow.must("pg_swap", **flow.connection, **application(installation), state="recovered")
    time.sleep(0.3)
    set_id = flow.must("recovery_set", state="open", purpose="restore", stale_after=0.2)["set_id"]
    restored = flow.try_restore(wanted, set_id)
    assert restored.rc == 0, restored.result
    flow.must("pg_swap", **swap_parameters(flow, installation, set_id))
    flow.must("recovery_set", state="aborted", set_id=set_id)
    wait_healthy(installation)
    assert compare.difference(good, content(installation.server)) == []
    assert not [name for name in databases(installation.server) if "_restore_" in name]
    assert [entry for entry in os.listdir(flow.root / "staging") if not entry.startswith(".")] == []
    assert installation.verify_secrets().returncode == 0


@pytest.mark.parametrize("step", KILLED)
def test_killed_worker(step: str, installation: Installation, flow: Flow) -> None:
    """The process that swaps is killed: the application is up by itself, and the next run brings things to an end."""
    set_id, wanted, good = prepared(flow, installation)
    before = databases(installation.server)
    outcome = modules.run_module("pg_swap", swap_parameters(flow, installation, set_id), kill=(step, "self"))
    print(f"killed at {step}")
    assert f'"killed_at": "{step}"' in outcome.stderr or outcome.rc != 0
    assert outcome.rc != 0
    assert "killed" in outcome.result["msg"]
    wait_healthy(installation)
    after = databases(installation.server)
    assert "mazevault" in after
    assert after["mazevault"] in before.values()
    next_run(flow, installation, wanted, good)


def test_killed_guardian(installation: Installation, flow: Flow) -> None:
    """The worker goes on without its guardian, and the module takes the guardian's place."""
    set_id, _wanted, good = prepared(flow, installation)
    parameters = swap_parameters(flow, installation, set_id)
    with modules.started("pg_swap", parameters, stop_at="swap: between the renames") as running:
        assert running.wait_stopped()
        guardian = _parent(running.stopped)
        assert guardian != running.pid
        os.kill(guardian, signal.SIGKILL)
        running.go_on()
        outcome = running.end()
    assert outcome.rc == 0, outcome.result
    wait_healthy(installation)
    assert compare.difference(good, content(installation.server)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["kill", "lost connection"])
def test_killed_module(number: signal.Signals, installation: Installation, flow: Flow) -> None:
    """The module dies (or its connection is lost): worker and guardian finish without it."""
    set_id, wanted, good = prepared(flow, installation)
    parameters = swap_parameters(flow, installation, set_id)
    with modules.started("pg_swap", parameters, stop_at="swap: rename") as running:
        assert running.wait_stopped()
        os.kill(running.pid, number)
        running.go_on()
        kill.wait_gone([running.stopped])
    wait_healthy(installation)
    assert (flow.root / "evidence" / f"{set_id}.json").is_file(), "what was done has to be told also without the module"
    assert compare.difference(good, content(installation.server)) == []
    installation.server.query("DELETE FROM secret_versions")
    next_run(flow, installation, wanted, good)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


@pytest.mark.parametrize("confirm", [None, "", "vault2"])
def test_without_confirmation_nothing_is_touched(confirm: str | None, installation: Installation, flow: Flow) -> None:
    set_id, _wanted, _good = prepared(flow, installation)
    before = databases(installation.server)
    parameters = swap_parameters(flow, installation, set_id, confirm=confirm)
    outcome = modules.run_module("pg_swap", parameters)
    assert outcome.rc != 0
    assert "confirm:" in outcome.result["msg"]
    assert f"mazevault_confirm={HOSTNAME}" in outcome.result["msg"]
    assert databases(installation.server) == before
    preview = modules.run_module("pg_swap", parameters, check=True)
    assert preview.rc == 0
    assert preview.result["changed"]
    assert databases(installation.server) == before


def in_place(flow: Flow, installation: Installation, wanted: str, safety: str, set_id: str) -> modules.Outcome:
    return flow.try_restore(
        wanted,
        set_id,
        mode="in_place",
        safety_set=safety,
        confirm=HOSTNAME,
        inventory_hostname=HOSTNAME,
        **application(installation),
    )


def test_in_place(installation: Installation, flow: Flow) -> None:
    """Without room for two: the live database is dropped and comes back from the set."""
    good = content(installation.server)
    published = flow.publish()
    installation.server.query("DELETE FROM secret_versions")
    safety = flow.publish(level="read")
    with flow.staging("restore") as set_id:
        outcome = in_place(flow, installation, published["set_id"], safety["set_id"], set_id)
    assert outcome.rc == 0, outcome.result
    assert outcome.result["verdict"] == "pass"
    wait_healthy(installation)
    assert compare.difference(good, content(installation.server)) == []
    assert [name for name in databases(installation.server) if "before" in name] == []


def test_in_place_goes_back(installation: Installation, flow: Flow) -> None:
    """The chosen set doesn't load: the safety set is loaded again, and the application is up."""
    server = installation.server
    server.query("CREATE TABLE a(i int PRIMARY KEY); CREATE TABLE b(i int REFERENCES a)")
    with server.connect(autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; INSERT INTO b VALUES (7)")
    broken = flow.publish()
    server.query("DELETE FROM b")
    now = content(server)
    safety = flow.publish(level="read")
    with flow.staging("restore") as set_id:
        outcome = in_place(flow, installation, broken["set_id"], safety["set_id"], set_id)
    assert outcome.rc != 0
    assert "safety set" in outcome.result["msg"]
    wait_healthy(installation)
    assert compare.difference(now, content(server)) == []
    assert installation.verify_secrets().returncode == 0


def test_in_place_refuses_a_file(installation: Installation, flow: Flow) -> None:
    """Before the application is stopped: no manifest says what has to come back."""
    server = installation.server
    dump = flow.root.parent / "by-hand.dump"
    server.run("pg_dump", "-Fc", "-f", dump)
    safety = flow.publish(level="read")
    before = databases(server)
    with flow.staging("restore") as set_id:
        outcome = in_place(flow, installation, str(dump), safety["set_id"], set_id)
    assert outcome.rc != 0
    assert "mode: in_place" in outcome.result["msg"]
    assert databases(server) == before
    assert installation.service.status("/api/v1/health") == 200
