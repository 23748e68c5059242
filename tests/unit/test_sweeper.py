# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a run is dead, and what is removed then and what isn't; without a process, by a clock of our own."""

from __future__ import annotations

import json
import os
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger, _sweeper
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_json
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging, locked, open_staging
from ansible_collections.mazevault.backup.plugins.module_utils._sweeper import (
    REMOVED,
    Sweeper,
    Watch,
    may_write,
    patience_of,
    scope_command,
)

STALE, NAP = 120.0, 5.0
PATIENCE = patience_of(STALE)


class Moment:
    """The clock and the naps of a sweeper; things happen while it sleeps."""

    def __init__(self) -> None:
        self.now, self.seconds = 1000.0, 0.0
        self.events: list[tuple[float, object]] = []
        self.limit = 10_000

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.limit -= 1
        if self.limit < 0:
            raise TimeoutError("it never ends")
        self.now += seconds
        self.seconds += seconds
        while self.events and self.events[0][0] <= self.seconds:
            event = self.events.pop(0)[1]
            assert callable(event)
            event()


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    clock = Moment()
    monkeypatch.setattr(_sweeper, "time", types.SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    return clock


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    before = os.umask(0o077)
    (tmp_path / "backups/sets").mkdir(parents=True)
    open_staging(str(tmp_path / "backups"), "a", {"purpose": "set"}, stale_after=STALE, clean=lambda _dead: None)
    yield Staging(str(tmp_path / "backups"), "a")
    os.umask(before)


def beat(staging: Staging, seconds_ago: float) -> None:
    moment = time.time() - seconds_ago
    os.utime(os.path.join(staging.path, "heartbeat"), (moment, moment))


def in_memory(staging: Staging, folder: Path) -> Path:
    """Keys of the run, as its note has them."""
    folder.mkdir()
    (folder / "data.key").write_text("secret", encoding="utf-8")
    note = {"scheme": "cms", "reason": "", "recipients": {}, "memory": str(folder)}
    write_json(os.path.join(staging.path, "encryption.json"), note)
    return folder


def test_a_run_is_dead_when_it_was_silent_for_long_enough() -> None:
    watch = Watch(PATIENCE, NAP)
    looks = [watch.is_dead(7, 100.0 + NAP * number) for number in range(60)]
    assert looks.index(True) * NAP == PATIENCE
    assert all(looks[looks.index(True) :])


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 1e6)), max_size=60), st.floats(1, 1000), st.floats(0.1, 10))
def test_no_run_is_dead_that_gave_a_sign_within_the_patience(
    looks: list[tuple[bool, float]], patience: float, nap: float
) -> None:
    watch, now, sign, silent = Watch(patience, nap), 0.0, 0, 0.0
    watch.is_dead(sign, now)
    for signals, passed in looks:
        now, sign = now + passed, sign + signals
        silent = 0.0 if signals else silent + passed
        if watch.is_dead(sign, now):
            assert silent >= patience * 0.999


def test_a_pause_of_the_whole_machine_is_no_silence() -> None:
    watch = Watch(PATIENCE, NAP)
    assert not watch.is_dead(7, 0.0)
    assert not watch.is_dead(7, 1e6)
    assert not watch.is_dead(7, 2e6)


def test_a_sign_or_an_attempt_begins_again() -> None:
    watch = Watch(2 * NAP, NAP)
    assert [watch.is_dead(7, now) for now in (0.0, 5.0, 10.0)] == [False, False, True]
    watch.begin_again()
    assert [watch.is_dead(7, now) for now in (15.0, 20.0)] == [False, True]
    assert not watch.is_dead(8, 25.0)


def test_the_next_run_comes_first() -> None:
    assert all(patience_of(seconds) > seconds + 5 for seconds in (0.1, 1, 120, 1e6))


def test_it_ends_with_the_folder(staging: Staging, moment: Moment) -> None:
    moment.events = [(60.0, lambda: os.rename(staging.path, staging.path + "-published"))]
    Sweeper(staging, STALE).watch()
    assert 60 <= moment.seconds <= 65
    assert not os.path.exists(_ledger.path_of(staging.root))


def test_a_dead_run_goes_with_its_keys_and_the_ledger_says_so(staging: Staging, moment: Moment, tmp_path: Path) -> None:
    memory = in_memory(staging, tmp_path / "memory")
    beat(staging, 1e6)
    moment.events = [(PATIENCE - NAP, lambda: os.stat(memory / "data.key"))]
    Sweeper(staging, STALE).watch()
    assert moment.events == [], "it was all there until then"
    assert PATIENCE <= moment.seconds <= PATIENCE + NAP
    assert not staging.exists()
    assert not memory.exists()
    (line,) = _ledger.load(staging.root).of(REMOVED)
    assert (line["staging"], line["by"]) == ("a", "sweeper")


def test_a_beating_run_is_left_alone(staging: Staging, moment: Moment, tmp_path: Path) -> None:
    memory = in_memory(staging, tmp_path / "memory")
    there: list[bool] = []

    def live() -> None:
        there.append(staging.exists() and memory.exists())
        beat(staging, 1e6 - len(there))

    moment.events = [(PATIENCE * 0.9 * number, live) for number in range(1, 20)]
    Sweeper(staging, STALE).watch()
    assert there == [True] * 19
    assert moment.seconds >= PATIENCE * 0.9 * 19 + PATIENCE


def test_a_held_lock_is_a_living_run_however_silent(staging: Staging, moment: Moment) -> None:
    beat(staging, 1e6)
    with locked(os.path.join(staging.path, "lock")):
        moment.limit = 500
        with pytest.raises(TimeoutError):
            Sweeper(staging, STALE).watch()
        assert staging.exists()
    moment.limit = 500
    Sweeper(staging, STALE).watch()
    assert not staging.exists()


@pytest.mark.parametrize("ago", [1.0, -60.0])
def test_what_the_wall_clock_says_is_asked_too(staging: Staging, moment: Moment, ago: float) -> None:
    """Silent for us, but the next run would take it for alive: then so do we."""
    beat(staging, ago)
    moment.limit = 200
    with pytest.raises(TimeoutError):
        Sweeper(staging, STALE).watch()
    assert staging.exists()
    moment.limit = 200
    beat(staging, -1e6)  # a clock that was set back doesn't block for ever
    Sweeper(staging, STALE).watch()
    assert not staging.exists()


def test_a_broken_off_swap_keeps_its_journal_until_it_is_finished(staging: Staging, moment: Moment) -> None:
    journal = {"database": "mazevault", "live_oid": 1, "incoming": "b", "incoming_oid": 2, "kept": "c", "comment": None,
               "stop": [], "start": [], "state": "swapping"}  # fmt: skip
    path = Path(staging.path, "swap.json")
    write_json(str(path), journal)
    beat(staging, 1e6)
    before = path.read_bytes()
    seen: list[bytes] = []

    def finish() -> None:
        seen.append(path.read_bytes())
        write_json(str(path), {**journal, "state": "done"})

    moment.events = [(PATIENCE * 10, finish)]
    Sweeper(staging, STALE).watch()
    assert seen == [before]
    assert not staging.exists()
    assert moment.seconds >= PATIENCE * 10


def test_a_removed_backup_root_takes_the_notes_but_not_the_keys(
    staging: Staging, moment: Moment, tmp_path: Path
) -> None:
    memory = in_memory(staging, tmp_path / "memory")
    moment.events = [
        (30.0, lambda: os.rename(staging.root, staging.root + "-away")),
        (30.0 + PATIENCE - 2 * NAP, lambda: os.stat(memory / "data.key")),
    ]
    Sweeper(staging, STALE).watch()
    assert moment.events == []
    assert not memory.exists()
    assert not os.path.exists(staging.root)


def test_a_file_system_that_comes_back_is_as_it_was(staging: Staging, moment: Moment, tmp_path: Path) -> None:
    memory = in_memory(staging, tmp_path / "memory")
    away = staging.root + "-away"
    moment.events = [
        (30.0, lambda: os.rename(staging.root, away)),
        (60.0, lambda: os.rename(away, staging.root)),
        (60.0 + PATIENCE / 2, lambda: os.stat(memory / "data.key")),
        (60.0 + PATIENCE / 2, lambda: os.stat(staging.path)),
    ]
    beat(staging, 1e6)
    Sweeper(staging, STALE).watch()
    assert moment.events == []


def test_what_fails_is_tried_again(staging: Staging, moment: Moment, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(staging, 1e6)
    tries: list[float] = []

    def clean(_dead: Staging) -> None:
        tries.append(moment.seconds)
        if len(tries) < 3:
            raise (BackupError("no end after 60 s") if len(tries) == 1 else OSError(39, "not empty"))

    monkeypatch.setattr(_sweeper, "clean", clean)
    Sweeper(staging, STALE).watch()
    assert not staging.exists()
    assert len(tries) == 3
    assert tries[2] - tries[1] >= PATIENCE


def test_a_kept_key_goes_when_no_restore_comes(
    staging: Staging, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [True]
    monkeypatch.setattr(_sweeper, "is_kept", lambda _root, name: name == "a" and kept[0])
    monkeypatch.setattr(_sweeper, "forget_kept", lambda _root: kept.clear() or kept.append(False))
    restore = os.path.join(staging.root, "staging", "restore_b")
    moment.events = [
        (10.0, lambda: os.rename(staging.path, staging.root + "/sets/a")),
        (20.0, lambda: os.mkdir(restore)),
        (20.0 + 3 * PATIENCE, lambda: os.rename(restore, staging.root + "/closed")),
    ]
    Sweeper(staging, STALE).watch()
    assert kept == [False]
    assert moment.seconds >= 20 + 4 * PATIENCE


def test_only_a_ledger_that_holds_gets_a_line(staging: Staging) -> None:
    root = staging.root
    assert may_write(root), "nothing was published yet"
    Path(root, "sets", "mazevault_20260101_000000").mkdir()
    assert not may_write(root), "somebody removed the ledger"
    _ledger.append(root, "one")
    assert may_write(root)
    path = Path(_ledger.path_of(root))
    path.write_text(json.dumps({"sequence": 5, "previous": "0" * 64}) + "\n", encoding="utf-8")
    assert not may_write(root)


def test_the_arguments_are_those_that_systemd_s_manager_takes() -> None:
    command = scope_command(4711)
    signature, name, mode, count, *rest = command[6:]
    assert signature == "ssa(sv)a(sa(sv))"
    assert (name, mode, count) == ("mazevault-sweeper-4711.scope", "fail", "2")
    # Each property is a name, a type and a value; an array's value begins with its length.
    assert rest == ["PIDs", "au", "1", "4711", "CollectMode", "s", "inactive-or-failed", "0"]


def test_a_broken_ledger_stays_for_a_run_to_find(staging: Staging, moment: Moment) -> None:
    path = Path(_ledger.path_of(staging.root))
    path.write_text(json.dumps({"sequence": 5, "previous": "0" * 64}) + "\n", encoding="utf-8")
    before = path.read_bytes()
    beat(staging, 1e6)
    Sweeper(staging, STALE).watch()
    assert not staging.exists()
    assert path.read_bytes() == before
    assert not list(Path(staging.root).glob("ledger.broken*"))
