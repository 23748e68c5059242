# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that are broken off: everybody killed at once, in place, output closed; and refused ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import compare, kill, modules, standin_control, steps
from support.acked import AckedWriter
from support.flow import FULL, HOSTNAME, Flow, sample
from support.plays import Installation, content_of, databases, installed, server_state, tree_state
from support.servers import PgServer, installations

SOME = installations() if FULL else installations()[:1]
IN_PLACE_STEPS = (
    "in place: stop the application",
    "in place: drop the database",
    "in place: load",
    "in place: prove",
    "in place: start the application",
)


@pytest.fixture(params=SOME, ids=str)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    with PgServer(request.param) as server, installed(server, tmp_path) as found:
        yield found


@pytest.fixture
def flow(installation: Installation) -> Flow:
    return Flow(installation.server, installation.root)


def application(installation: Installation) -> dict[str, t.Any]:
    control = [sys.executable, standin_control.__file__, str(installation.application)]
    return {"application_stop": [*control, "stop"], "application_start": [*control, "start"], "application_timeout": 60}


def wait_healthy(installation: Installation, *, timeout: float = 30) -> None:
    """Nobody but the collection starts the application."""
    deadline = time.monotonic() + timeout
    while installation.service.status("/api/v1/health") != 200:
        assert time.monotonic() < deadline, (installation.application / "log").read_text()[-2000:]
        time.sleep(0.05)


def swap_params(flow: Flow, installation: Installation, set_id: str, **more: t.Any) -> dict[str, t.Any]:
    return {
        "backup_root": str(flow.root),
        **flow.connection,
        **application(installation),
        "state": "swapped",
        "set_id": set_id,
        "confirm": HOSTNAME,
        "inventory_hostname": HOSTNAME,
        **more,
    }


def in_place_params(
    flow: Flow, installation: Installation, wanted: str, safety: str, set_id: str, **more: t.Any
) -> dict[str, t.Any]:
    return {
        "backup_root": str(flow.root),
        **flow.connection,
        **flow.programs,
        **application(installation),
        "mode": "in_place",
        "set": wanted,
        "set_id": set_id,
        "safety_set": safety,
        "installation": HOSTNAME,
        "confirm": HOSTNAME,
        "inventory_hostname": HOSTNAME,
        **more,
    }


def open_restore(flow: Flow) -> str:
    return str(flow.must("recovery_set", state="open", purpose="restore", stale_after=0.2)["set_id"])


def restored_beside(flow: Flow, wanted: str) -> str:
    set_id = open_restore(flow)
    done = flow.try_restore(wanted, set_id)
    assert done.rc == 0, done.result
    return set_id


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


@pytest.mark.parametrize("step", sample(steps.SWAP, 1, always=["swap: between the renames"]))
def test_everybody_killed_at_once_is_mended_by_the_next_run(step: str, installation: Installation, flow: Flow) -> None:
    """Worker, guardian and module, as when the machine goes down: the databases are whole; `recovered` starts all."""
    server = installation.server
    good = content_of(server)
    wanted = flow.publish()["set_id"]
    server.query("DELETE FROM secret_versions")
    bad = content_of(server)
    set_id = restored_beside(flow, wanted)
    before = databases(server)
    with modules.started("pg_swap", swap_params(flow, installation, set_id), stop_at=step) as running:
        assert running.wait_stopped(), f"never came to {step}"
        victims = [running.pid, parent(running.stopped), running.stopped]
        assert len(set(victims)) == 3
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        kill.wait_gone(victims)
    print(f"killed everybody at {step}")
    swapped = step not in steps.SWAP[:4]
    assert databases(server)["mazevault"] == before[next(name for name in before if "_restore_" in name)] or not swapped
    assert content_of(server) == (good if swapped else bad)
    # Until then nobody may begin something else, which would remove the journal.
    time.sleep(0.3)
    other = modules.run_module(
        "recovery_set", {"backup_root": str(flow.root), "state": "open", "purpose": "restore", "stale_after": 0.2}
    )
    assert other.rc != 0
    assert "in the middle of a swap" in other.result["msg"]
    recovered = flow.must("pg_swap", **flow.connection, **application(installation), state="recovered")
    assert [entry["outcome"] for entry in recovered["recovered"]] == ["done" if swapped else "nothing happened"]
    wait_healthy(installation)
    assert content_of(server) == (good if swapped else bad)
    again = flow.must("pg_swap", **flow.connection, **application(installation), state="recovered")
    assert (again["recovered"], again["changed"]) == ([], False)
    time.sleep(0.3)
    set_id = restored_beside(flow, wanted)
    flow.must("pg_swap", **swap_params(flow, installation, set_id))
    flow.must("recovery_set", state="aborted", set_id=set_id)
    wait_healthy(installation)
    assert content_of(server) == good
    assert not [name for name in databases(server) if "_restore_" in name]


def test_what_a_server_left_that_died_while_it_created_one(installation: Installation, flow: Flow) -> None:
    """It goes; what merely has such a name stays."""
    server = installation.server
    left, opened, other = (f"mazevault_restore_{tail}" for tail in ("20200101_000000", "20200101_000001", "of_mine"))
    for name in (left, other):
        server.query(f"CREATE DATABASE {name} ALLOW_CONNECTIONS false", dbname="postgres")
    server.query(f"CREATE DATABASE {opened}", dbname="postgres")
    try:
        set_id = restored_beside(flow, flow.publish()["set_id"])
        (new,) = [name for name in databases(server) if name.endswith(set_id.removeprefix("mazevault"))]
        assert {name for name in databases(server) if "_restore_" in name} == {opened, other, new}
        allowed = server.query(f"SELECT datallowconn FROM pg_database WHERE datname = '{new}'", dbname="postgres")
        assert allowed == [(True,)]
    finally:
        for name in (left, opened, other):
            server.query(f"DROP DATABASE IF EXISTS {name}", dbname="postgres")


def test_what_was_acknowledged_before_the_stop_is_in_the_kept_database(installation: Installation, flow: Flow) -> None:
    server = installation.server
    AckedWriter.prepare(server.connector())
    wanted = flow.publish()["set_id"]
    with AckedWriter(server.connector()) as writer:
        set_id = restored_beside(flow, wanted)
        writer.wait_for(100)
        early = set(writer.acked())
        swapped = flow.must("pg_swap", **swap_params(flow, installation, set_id))
        writer.wait_for(20)
    with contextlib.closing(server.connect(swapped["kept"])) as conn, conn.cursor() as cur:
        cur.execute(f"SELECT n FROM {AckedWriter.TABLE}")
        kept = {n for (n,) in cur.fetchall()}
    assert early <= kept
    # The first refused write is the border: all acknowledged before it are kept, all after it are in the new one.
    first_refused = min((attempt.number for attempt in writer.tries if not attempt.acked), default=max(kept) + 1)
    assert {number for number in writer.acked() if number < first_refused} <= kept
    with contextlib.closing(server.connect()) as conn, conn.cursor() as cur:
        cur.execute(f"SELECT n FROM {AckedWriter.TABLE}")
        new = {n for (n,) in cur.fetchall()}
    assert {number for number in writer.acked() if number > first_refused} <= new


def test_closed_output_and_hangup_do_not_end_a_swap(installation: Installation, flow: Flow) -> None:
    """As after a lost SSH connection: nobody reads what the module says, and it gets SIGHUP."""
    server = installation.server
    good = content_of(server)
    set_id = restored_beside(flow, flow.publish()["set_id"])
    server.query("DELETE FROM secret_versions")
    marker = installation.folder / "stopped.json"
    hooks = [("stop_at", {"step": "swap: between the renames", "marker": str(marker)})]
    with subprocess.Popen(
        [sys.executable, "-c", modules._CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=modules._environment(None),
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(
            modules._input("pg_swap", swap_params(flow, installation, set_id), False, False, None, hooks)
        )
        process.stdin.close()
        running = modules.Running(process, installation.folder, (Path(os.devnull), Path(os.devnull)))
        assert running.wait_stopped()
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        running.go_on()
        process.wait(30)
        kill.wait_gone([running.stopped])
    wait_healthy(installation)
    assert content_of(server) == good


@pytest.mark.parametrize("step", sample(IN_PLACE_STEPS, 1, always=["in place: start the application"]))
def test_killed_in_place(step: str, installation: Installation, flow: Flow) -> None:
    """The application is up by itself, and nothing that was still there is thrown away."""
    server = installation.server
    server.query("CREATE TABLE late (n integer)")
    good = content_of(server)
    wanted = flow.publish()["set_id"]
    server.query("DELETE FROM secret_versions")
    saved = content_of(server)
    safety = flow.publish(level="read")["set_id"]
    # Acknowledged after the safety set was taken.
    server.query("INSERT INTO late VALUES (1)")
    now = content_of(server)
    set_id = open_restore(flow)
    params = in_place_params(flow, installation, wanted, safety, set_id)
    with modules.started("pg_restore", params, stop_at=step) as running:
        assert running.wait_stopped(), f"never came to {step}"
        os.kill(running.stopped, signal.SIGKILL)
        # The guardian comes by some of the steps on its way back.
        while running.wait_stopped():
            running.go_on()
        done = running.end()
    print(f"killed in place at {step}")
    assert done.rc != 0
    assert "killed" in done.result["msg"]
    wait_healthy(installation)
    dropped = step in IN_PLACE_STEPS[2:4]
    expected = saved if dropped else good if step == IN_PLACE_STEPS[4] else now
    assert compare.difference(expected, content_of(server)) == []
    flow.must("recovery_set", state="aborted", set_id=set_id)
    with flow.staging("restore") as set_id:
        flow.must("pg_restore", **in_place_params(flow, installation, wanted, safety, set_id))
    wait_healthy(installation)
    assert compare.difference(good, content_of(server)) == []


def test_an_application_that_does_not_stop_keeps_its_database(installation: Installation, flow: Flow) -> None:
    server = installation.server
    wanted = flow.publish()["set_id"]
    before = databases(server)
    set_id = open_restore(flow)
    stubborn = {"application_stop": [sys.executable, "-c", "raise SystemExit('no')"]}
    done = modules.run_module("pg_restore", in_place_params(flow, installation, wanted, wanted, set_id, **stubborn))
    assert done.rc != 0
    assert "application: stop" in done.result["msg"]
    assert databases(server) == before
    wait_healthy(installation)


@pytest.mark.parametrize("confirm", [None, "", "vault2", f"{HOSTNAME} ", HOSTNAME.upper()])
def test_in_place_without_confirmation_changes_nothing(
    confirm: str | None, installation: Installation, flow: Flow
) -> None:
    wanted = flow.publish()["set_id"]
    set_id = open_restore(flow)
    before, files = server_state(installation.server), tree_state(flow.root)
    params = in_place_params(flow, installation, wanted, wanted, set_id, confirm=confirm)
    done = modules.run_module("pg_restore", params)
    assert done.rc != 0
    assert "confirm:" in done.result["msg"]
    assert (server_state(installation.server), tree_state(flow.root)) == (before, files)
    assert installation.service.status("/api/v1/health") == 200


def test_check_mode_changes_nothing(installation: Installation, flow: Flow) -> None:
    """Databases and files are the same before and after; the same call without check mode is the counterpart."""
    wanted = flow.publish()["set_id"]
    installation.server.query("DELETE FROM secret_versions")
    set_id = restored_beside(flow, wanted)
    before, files = server_state(installation.server), tree_state(flow.root)
    swap = swap_params(flow, installation, set_id)
    calls = [
        ("pg_restore", in_place_params(flow, installation, wanted, wanted, set_id)),
        ("pg_restore", {**in_place_params(flow, installation, wanted, "", set_id), "mode": "beside"}),
        ("pg_swap", swap),
        ("recovery_set", {"backup_root": str(flow.root), "state": "aborted", "set_id": set_id}),
    ]
    for name, params in calls:
        done = modules.run_module(name, params, check=True, diff=True)
        assert done.rc == 0, done.result
        assert (server_state(installation.server), tree_state(flow.root)) == (before, files), name
    assert installation.service.status("/api/v1/health") == 200
    flow.must("pg_swap", **swap)
    assert server_state(installation.server) != before
    rollback = {**swap, "state": "rolled_back", "set_id": open_another(flow, set_id)}
    before, files = server_state(installation.server), tree_state(flow.root)
    done = modules.run_module("pg_swap", rollback, check=True, diff=True)
    assert done.rc == 0, done.result
    assert (server_state(installation.server), tree_state(flow.root)) == (before, files)


def open_another(flow: Flow, set_id: str) -> str:
    flow.must("recovery_set", state="aborted", set_id=set_id)
    return open_restore(flow)
