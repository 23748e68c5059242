# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging folders: one run at a time, dead ones removed, living ones left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Busy
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging, locked, open_staging
from support.modules import COLLECTIONS

STALE = 120.0
HOLD = """
import sys, time
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
with Staging(sys.argv[1], sys.argv[2]).working():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    before = os.umask(0o077)  # as every module does
    (tmp_path / "backups").mkdir()
    yield str(tmp_path / "backups")
    os.umask(before)


def begin(root: str, name: str, *, seen: list[str] | None = None) -> list[str]:
    record = seen if seen is not None else []
    return open_staging(
        root, name, {"purpose": "set"}, stale_after=STALE, clean=lambda found: record.append(found.name)
    )


def age(staging: Staging, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(os.path.join(staging.path, "heartbeat"), (moment, moment))


def names(root: str) -> list[str]:
    return sorted(os.listdir(os.path.join(root, "staging")))


def test_an_opened_folder_is_private_and_says_whose_it_is(root: str) -> None:
    assert begin(root, "a") == []
    staging = Staging(root, "a")
    assert staging.exists()
    assert os.stat(staging.path).st_mode & 0o077 == 0
    assert staging.owner()["purpose"] == "set"
    assert set(staging.owner()) == {"purpose", "host", "opened"}
    assert sorted(os.listdir(staging.path)) == ["heartbeat", "lock", "owner.json", "set"]
    assert names(root) == [".lock", "a"], "nothing half made is left"


@pytest.mark.parametrize("name", ["", ".", "..", "/nowhere", "../sets/x", "a/b", "a\0b"])
def test_a_name_never_leads_out_of_staging(root: str, name: str) -> None:
    with pytest.raises(BackupError, match=r"set_id: .*: not the name of a staging folder"):
        Staging(root, name)


@pytest.mark.parametrize(("seconds", "busy"), [(0, True), (STALE - 5, True), (STALE + 5, False), (1e6, False)])
def test_a_fresh_heartbeat_is_a_living_run(root: str, seconds: float, busy: bool) -> None:
    begin(root, "a")
    age(Staging(root, "a"), seconds)
    cleaned: list[str] = []
    if busy:
        with pytest.raises(Busy, match="another run is under way: a"):
            begin(root, "b", seen=cleaned)
        assert (names(root), cleaned) == ([".lock", "a"], [])
    else:
        assert begin(root, "b", seen=cleaned) == ["a"]
        assert (names(root), cleaned) == ([".lock", "b"], ["a"])


def test_a_clock_set_back_does_not_block_for_ever(root: str) -> None:
    begin(root, "a")
    age(Staging(root, "a"), -STALE + 10)
    with pytest.raises(Busy):
        begin(root, "b")
    age(Staging(root, "a"), -STALE - 10)
    assert begin(root, "b") == ["a"]


def test_a_lock_holds_although_the_heartbeat_is_old_and_death_frees_it(root: str) -> None:
    begin(root, "a")
    environment = {**os.environ, "PYTHONPATH": COLLECTIONS}
    argv = [sys.executable, "-c", HOLD, root, "a"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        age(Staging(root, "a"), 1e6)
        assert Staging(root, "a").busy(STALE) == "a module works on it now"
        with pytest.raises(Busy, match="a module works on it now"):
            begin(root, "b")
        with pytest.raises(Busy, match="another module works on it"), Staging(root, "a").working():
            raise AssertionError("two at once")
        holder.kill()
        holder.wait()
    age(Staging(root, "a"), 1e6)
    assert begin(root, "b") == ["a"]


def test_working_beats_and_names_the_step(root: str) -> None:
    begin(root, "a")
    staging = Staging(root, "a")
    age(staging, 1e6)
    with staging.working() as progress:
        deadline = time.monotonic() + 5
        while time.time() - os.stat(os.path.join(staging.path, "heartbeat")).st_mtime > 60:
            assert time.monotonic() < deadline, "no heartbeat"
            time.sleep(0.01)
        progress.step("dump: one", programs=[1])
        progress.step("dump: two")
        said = json.loads(Path(staging.path, "progress.json").read_text(encoding="utf-8"))
        assert (said["step"], said["pid"]) == ("dump: two", os.getpid())
    assert [step["step"] for step in progress.steps] == ["dump: one", "dump: two"]
    assert progress.steps[0]["seconds"] >= 0
    with staging.working():
        pass  # free again


def test_a_folder_that_is_gone_is_named(root: str) -> None:
    with pytest.raises(BackupError, match="set_id: a: no work in progress"), Staging(root, "a").working():
        raise AssertionError("there is nothing to work on")


def test_progress_without_a_folder_only_remembers(tmp_path: Path) -> None:
    progress = Progress()
    progress.step("alone")
    assert [step["step"] for step in progress.steps] == ["alone"]
    progress = Progress(str(tmp_path / "gone" / "progress.json"))
    progress.step("a folder that was removed is no reason to fail")


def test_a_root_that_others_may_write_to_is_refused(root: str) -> None:
    os.chmod(root, 0o777)
    with pytest.raises(BackupError, match=r"backup_root: .*: others may write here"):
        begin(root, "a")


def test_the_rest_of_a_run_that_died_while_opening_is_replaced(root: str) -> None:
    Path(root, "staging", ".a.new", "set").mkdir(parents=True)
    Path(root, "staging", ".a.new", "rest").touch()
    begin(root, "a")
    assert names(root) == [".lock", "a"]
    assert not Path(root, "staging", "a", "rest").exists()


def test_a_clean_up_that_fails_keeps_the_dead_folder(root: str) -> None:
    begin(root, "a")
    age(Staging(root, "a"), 1e6)

    def refuse(found: Staging) -> None:
        raise BackupError(f"{found.name}: a swap was broken off")

    with pytest.raises(BackupError, match="a swap was broken off"):
        open_staging(root, "b", {}, stale_after=STALE, clean=refuse)
    assert names(root) == [".lock", "a"]


def test_a_lock_is_waited_for_and_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path):
        began = time.monotonic()
        with pytest.raises(Busy, match="held by another process"), locked(path, patience=0.2):
            raise AssertionError("held twice")
        assert 0.2 <= time.monotonic() - began < 5
    with locked(path, patience=0):
        pass
