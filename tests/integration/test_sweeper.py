# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed run leaves goes without another run: staging, keys in memory, scratch servers; what lives stays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger
from support import kill, modules
from support.flow import FULL, HOSTNAME, Flow
from support.identities import Custodians, make_custodians
from support.plays import installed
from support.servers import PgServer, installations

STALE = 1.0
# Twice STALE and ten seconds, and what a sleepy machine adds.
PATIENCE, SLACK = 12.0, 20.0
CANARY = b"canary-5d1be90c77"
SQL = f"""
CREATE TABLE t (id integer PRIMARY KEY, v text);
INSERT INTO t SELECT i, '{CANARY.decode()} ' || md5(i::text) FROM generate_series(1, 20000) AS i;
"""


@pytest.fixture(scope="module", params=installations()[:1], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as started:
        started.query(SQL)
        yield started


@pytest.fixture(scope="module")
def custodians(tmp_path_factory: pytest.TempPathFactory) -> Custodians:
    return make_custodians(tmp_path_factory.mktemp("custodians"))


@pytest.fixture
def flow(server: PgServer, custodians: Custodians, tmp_path: Path) -> Flow:
    return Flow(server, tmp_path / "backups", protection=custodians.protection)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A place for scratch servers that is this test's alone, and that their account can pass through."""
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
    folder = Path("/var/tmp") / f"mazevault-swept-{os.getpid()}-{name}"
    folder.mkdir(mode=0o711)
    yield folder
    folder.rmdir()  # nothing may be left in it


def begin(flow: Flow, **params: t.Any) -> str:
    return str(flow.must("recovery_set", state="open", stale_after=STALE, **params)["set_id"])


def dumping(flow: Flow, set_id: str) -> dict[str, t.Any]:
    where = {"backup_root": str(flow.root), "set_id": set_id}
    return {**where, **flow.connection, **flow.programs, "compression": "zstd", "jobs": 1}


def dump(flow: Flow, set_id: str) -> None:
    done = modules.run_module("pg_dump", dumping(flow, set_id))
    assert done.rc == 0, done.result


def seal(flow: Flow, set_id: str, **params: t.Any) -> dict[str, t.Any]:
    return flow.must("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME, **params)


def is_whole(sealed: t.Mapping[str, t.Any]) -> bool:
    words = ("sha256sum", "--check", "--quiet", "SHA256SUMS")
    return subprocess.run(words, cwd=sealed["path"], check=False).returncode == 0


def in_progress(root: Path) -> list[str]:
    return [name for name in os.listdir(root / "staging") if not name.startswith(".")]


def memory_of(root: Path, set_id: str) -> Path:
    """Where the keys of an open set are."""
    path = root / "staging" / set_id / "encryption.json"
    found = Path(json.loads(path.read_text(encoding="utf-8"))["memory"])
    assert {"data.key", "keys.key"} <= {key.name for key in found.iterdir()}
    return found


def swept(root: Path) -> list[str]:
    return [str(line["staging"]) for line in _ledger.load(str(root)).of("removed the rest of a dead run")]


def sweepers(root: Path) -> list[kill.Process]:
    everyone = kill.processes().values()
    return [one for one in everyone if str(root) in one.cmdline and "_sweeper" in one.cmdline[3]]


def wait_until(what: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it never came to that"
        time.sleep(0.1)
    return time.monotonic() - began


def wait_swept(root: Path, memory: Path | None = None) -> float:
    """Seconds until nothing of the run is left, and nobody who looked after it."""
    seconds = wait_until(lambda: not (in_progress(root) or (memory is not None and memory.exists())), PATIENCE + SLACK)
    wait_until(lambda: not sweepers(root), 15)
    return seconds


def holding(top: Path) -> list[Path]:
    """Files that hold the canary."""
    return [path for path in top.rglob("*") if path.is_file() and CANARY in path.read_bytes()]


def test_a_killed_dump(flow: Flow, record_property: t.Any) -> None:
    set_id = begin(flow)
    done = modules.run_module("pg_dump", dumping(flow, set_id), kill=("dump: pg_dump has ended", "self"))
    assert done.rc == -9
    memory = memory_of(flow.root, set_id)
    time.sleep(PATIENCE / 2)
    assert (memory_of(flow.root, set_id), in_progress(flow.root)) == (memory, [set_id]), "it could be going on"
    record_property("gone after", round(PATIENCE / 2 + wait_swept(flow.root, memory), 1))
    assert swept(flow.root) == [set_id]
    done = modules.run_module("pg_dump", dumping(flow, set_id))
    assert "no work in progress" in done.result["msg"]
    following = begin(flow)
    dump(flow, following)
    assert is_whole(seal(flow, following))


def test_a_killed_restore_into_scratch(flow: Flow, scratch: Path) -> None:
    """The one place where the plaintext is on the disk as a database."""
    set_id = begin(flow)
    memory = memory_of(flow.root, set_id)
    dump(flow, set_id)
    where = {"backup_root": str(flow.root), **flow.programs, "set": set_id, "jobs": 1, "scratch_dir": str(scratch)}
    done = modules.run_module("backup_verify", where, kill=("verify: compare", "self"))
    assert done.rc == -9
    assert holding(scratch), "positive control: a restored database is there"
    wait_swept(flow.root, memory)
    assert list(scratch.iterdir()) == []
    assert not [one for one in kill.processes().values() if any(str(scratch) in word for word in one.cmdline)]


def test_a_killed_proof_of_a_dump_that_is_in_no_set(flow: Flow, tmp_path: Path) -> None:
    """It is unpacked in a temporary folder; there is no backup root whose next run would clear up."""
    path = tmp_path / "a.dump"
    flow.server.run("pg_dump", "-Fc", "-f", path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    where = {**flow.programs, "set": str(path), "jobs": 1, "stale_after": STALE}
    done = modules.run_module("backup_verify", where, kill=("verify: read", "self"), env={"TMPDIR": str(temporary)})
    assert done.rc == -9
    (place,) = temporary.glob("mazevault-verify-*")
    (work,) = place.glob("staging/verify_*/work")
    (work / "unpacked").write_bytes(CANARY)
    wait_swept(place)
    assert [path for path in temporary.rglob("*") if path.is_file() and path.stat().st_size] == []


@pytest.mark.parametrize("victim", ["everybody", "the control node"] if FULL else ["everybody"])
def test_a_killed_playbook(victim: str, custodians: Custodians, tmp_path: Path, record_property: t.Any) -> None:
    """As Ansible runs modules: out of an archive that is removed when the module ends."""
    with PgServer(installations()[0]) as server, installed(server, tmp_path) as installation:
        installation.protection = custodians.protection
        staging = installation.root / "staging"
        inventory = installation.place.write_inventory({HOSTNAME: installation.variables()})
        extra = {"mazevault_recovery_set_stale_after": STALE}
        with installation.place.started("backup", inventory, extra=extra) as running:
            wait_until(lambda: bool(list(staging.glob("*/progress.json"))), 120)
            if victim == "everybody":
                running.kill()
            else:
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
        (set_id,) = in_progress(installation.root)
        memory = memory_of(installation.root, set_id)
        assert sweepers(installation.root)
        record_property("gone after", round(wait_swept(installation.root, memory), 1))
        assert swept(installation.root) == [set_id]
        done = installation.play("backup")
        assert done.rc == 0, done.output


def test_a_stopped_run_lives(flow: Flow) -> None:
    """Silent for more than the patience, but it holds the lock: nothing is touched, and it comes to its end."""
    set_id = begin(flow)
    with modules.started("pg_dump", dumping(flow, set_id), stop_at="dump: pg_dump has ended") as running:
        assert running.wait_stopped()
        memory = memory_of(flow.root, set_id)
        before = sorted(str(path) for path in (flow.root / "staging" / set_id).rglob("*"))
        time.sleep(PATIENCE + 8)
        assert sorted(str(path) for path in (flow.root / "staging" / set_id).rglob("*")) == before
        assert memory_of(flow.root, set_id) == memory
        running.go_on()
        done = running.end()
    assert done.rc == 0, done.result
    assert is_whole(seal(flow, set_id))
    assert swept(flow.root) == []
    wait_until(lambda: not sweepers(flow.root), 15)


def test_a_restarted_run_is_not_disturbed(flow: Flow) -> None:
    """The sweeper of the first one sees that its folder is gone, and whose the new one is."""
    first = begin(flow)
    done = modules.run_module("pg_dump", dumping(flow, first), kill=("dump: pg_dump has ended", "self"))
    assert done.rc == -9
    time.sleep(STALE + 0.1)
    opened = flow.must("recovery_set", state="open", stale_after=STALE)
    second = str(opened["set_id"])
    assert opened["removed"] == [first]
    with modules.started("pg_dump", dumping(flow, second), stop_at="dump: pg_dump has ended") as running:
        assert running.wait_stopped()
        memory = memory_of(flow.root, second)
        time.sleep(PATIENCE + 5)
        assert (in_progress(flow.root), memory_of(flow.root, second)) == ([second], memory)
        assert len(sweepers(flow.root)) == 1, "the second one's"
        running.go_on()
        assert running.end().rc == 0
    assert is_whole(seal(flow, second))
    assert swept(flow.root) == [first]


def test_what_it_holds_and_shows(flow: Flow, custodians: Custodians) -> None:
    set_id = begin(flow)
    (found,) = sweepers(flow.root)
    place = Path(f"/proc/{found.pid}")
    assert {os.readlink(fd) for fd in (place / "fd").iterdir()} == {os.devnull}
    assert os.readlink(place / "cwd") == "/"
    session, terminal = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[3:5]
    assert int(session) not in (0, os.getsid(0)), "the end of our session isn't its end"
    assert terminal == "0"
    shown = " ".join(found.cmdline)
    assert shown.endswith(f"{flow.root} {set_id} {STALE}")
    assert not any(one.text.splitlines()[1] in shown for one in (*custodians.data, *custodians.keys))
    ticks = [int(word) for word in (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]]
    os.kill(found.pid, signal.SIGHUP)
    time.sleep(4)
    after = [int(word) for word in (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]]
    assert sum(after) - sum(ticks) <= 5, "hundredths of a second"
    resident = int((place / "statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 40e6
    flow.must("recovery_set", state="aborted", set_id=set_id)
    wait_until(lambda: not sweepers(flow.root), 15)


def test_two_sweepers_remove_once(flow: Flow) -> None:
    set_id = begin(flow)
    (found,) = sweepers(flow.root)
    with contextlib.ExitStack() as ended:
        other = subprocess.Popen(list(found.cmdline), stdin=subprocess.DEVNULL, cwd="/")
        ended.callback(other.wait)
    assert len(sweepers(flow.root)) == 2
    wait_swept(flow.root)
    assert swept(flow.root) == [set_id]


def test_keys_go_although_the_folder_was_removed_by_hand(flow: Flow) -> None:
    memory = memory_of(flow.root, begin(flow))
    time.sleep(3)
    shutil.rmtree(flow.root)
    assert memory.exists(), "nobody told who removed it"
    wait_until(lambda: not memory.exists() and not sweepers(flow.root), PATIENCE + SLACK)
    assert not flow.root.exists()


def test_a_kept_key_goes_when_its_restore_never_came(flow: Flow) -> None:
    set_id = begin(flow)
    dump(flow, set_id)
    kept = Path(seal(flow, set_id, keep_key=True)["set_key_file"])
    restore = begin(flow, purpose="restore")
    os.utime(flow.root / "staging" / restore / "heartbeat")
    time.sleep(5)
    assert kept.exists(), "a restore uses it"
    wait_until(lambda: not kept.exists(), 2 * PATIENCE + SLACK)
    wait_until(lambda: not in_progress(flow.root) and not sweepers(flow.root), SLACK)


def test_without_a_sweeper_the_run_goes_on_and_says_so(flow: Flow) -> None:
    params = {"backup_root": str(flow.root), "state": "open", "stale_after": STALE, **flow.protection}
    done = modules.run_module("recovery_set", params, hooks=[("without_sweeper", {})])
    assert done.rc == 0, done.result
    assert "Nobody watches over" in json.dumps(done.result["warnings"])
    assert sweepers(flow.root) == []
    set_id = done.result["set_id"]
    memory = memory_of(flow.root, set_id)
    time.sleep(PATIENCE + 3)
    assert memory_of(flow.root, set_id) == memory
    assert flow.must("recovery_set", state="open", stale_after=STALE)["removed"] == [set_id]


def test_check_mode_starts_nobody(flow: Flow) -> None:
    flow.root.mkdir(mode=0o700)
    params = {"backup_root": str(flow.root), "state": "open", **flow.protection}
    assert modules.run_module("recovery_set", params, check=True).rc == 0
    assert sweepers(flow.root) == []
    assert list(flow.root.iterdir()) == []
