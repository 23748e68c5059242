# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that move while they are read, programs that are killed, disks that are full."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import stat
import subprocess
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _put_back
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._put_back import Workplace
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import check_archive, opener
from ansible_collections.mazevault.backup.plugins.module_utils._tree import canonical
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import Unpacker, difference_from
from support.files import CONFIRMED, Files, place
from support.flow import sample
from support.kill import descendants, wait_gone
from support.modules import Running, started
from support.plays import tree_state
from support.trees import ROOT, facts_of, make_odd_tree

MB = 1 << 20
BACKUP_STEPS = (
    "files: look",
    "files: tar starts",
    "files: tar runs",
    "files: read back what was written",
    "files: report",
    "files: rename",
    "files: done",
)
RESTORE_STEPS = (
    "restore: check the archive",
    "restore: compare with the target",
    "restore: unpack",
    "restore: compare what was unpacked",
    "restore: flush",
    "restore: put in place",
    "restore: in place",
)


@pytest.fixture
def mine() -> Iterator[Files]:
    with place(ordinary=not ROOT) as found:
        yield found


def moving(files: Files) -> Path:
    """A tree whose first file keeps tar busy for as long as nobody takes what it writes."""
    top = files.folder / "source"
    (top / "z folder").mkdir(parents=True)
    (top / "a big").write_bytes(os.urandom(8 * MB))
    for name in ("m", "z folder/x", "z folder/y"):
        (top / name).write_text(name * 1000)
    return top


def run_moving(files: Files, top: Path, change: Callable[[int], object], **params: t.Any) -> dict[str, t.Any]:
    """A backup; `change` is called with each attempt's number when tar has begun and can't go on."""
    given = {"dest": str(files.folder / "a"), "paths": [{"path": str(top), "name": "."}], **params}
    with started("files_backup", given, stop_at="files: tar runs") as running:
        attempt = 0
        while running.wait_stopped():
            attempt += 1
            change(attempt)
            running.go_on()
        done = running.end()
    assert done.rc == 0, (done.result, done.stderr[-2000:])
    return done.result


def same_size(top: Path) -> None:
    """Another content; size and modification time are as before."""
    path = top / "m"
    before = path.stat()
    path.write_text("n" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(content)


def replace(path: Path) -> None:
    new = path.with_name("new one")
    new.write_bytes(path.read_bytes())
    new.rename(path)


def swap_kind(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
        path.write_text("a file again")
    else:
        path.unlink()
        path.mkdir()


def new_file(folder: Path) -> None:
    (folder / str(len(list(folder.iterdir())))).touch()


# What is done to the tree, and what is named then.
CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "contents": (same_size, {"m"}),
    "grown": (lambda top: append(top / "m", b"more"), {"m"}),
    "shrunk": (lambda top: os.truncate(top / "m", 10), {"m"}),
    "shrunk in the middle of reading": (lambda top: os.truncate(top / "a big", 7 * MB), {"a big"}),
    "replaced": (lambda top: replace(top / "m"), {"m", "."}),
    "mode": (lambda top: (top / "m").chmod(0o600 + (top / "m").stat().st_mode % 2), {"m"}),
    "a new file": (lambda top: new_file(top / "z folder"), {"z folder"}),
    "a file is now a folder": (lambda top: swap_kind(top / "m"), {"m", "."}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_while_it_is_read_is_mended_by_another_attempt(mine: Files, name: str) -> None:
    top = moving(mine)
    change, _names = CHANGES[name]
    done = run_moving(mine, top, lambda attempt: change(top) if attempt == 1 else None)
    assert (done["attempts"], done["changed_while_read"], done["vanished"]) == (2, [], [])
    assert "warnings" not in done
    mine.restore("a", "back")
    assert facts_of(mine.folder / "back") == facts_of(top)


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_all_the_time_is_named(mine: Files, name: str) -> None:
    top = moving(mine)
    change, names = CHANGES[name]
    done = run_moving(mine, top, lambda _attempt: change(top), attempts=2)
    assert done["attempts"] == 2
    assert set(done["changed_while_read"]) == names and done["files"]["changed_while_read"] == len(names)
    assert any("changed while read" in str(warning) for warning in done["warnings"])
    report = mine.report("a")
    assert report["private"]["archives"]["a"]["changed_while_read"] == done["changed_while_read"]
    assert report["public"]["warnings"] == [f"files: {len(names)} files changed or vanished while they were read"]
    # What is recorded is what is in the archive.
    mine.restore("a", "back")
    assert facts_of(mine.folder / "back").keys() >= {b"a big", b"z folder/x"}


def test_what_vanishes_is_mended_or_named(mine: Files) -> None:
    top = moving(mine)
    done = run_moving(mine, top, lambda attempt: (top / "m").unlink() if attempt == 1 else None)
    assert (done["attempts"], done["vanished"], done["changed_while_read"]) == (2, [], [])
    (mine.folder / "a").unlink()

    def vanish(_attempt: int) -> None:
        for path in sorted((top / "z folder").iterdir())[:1]:
            path.unlink()

    done = run_moving(mine, top, vanish, attempts=2)
    assert (done["vanished"], done["attempts"], done["changed_while_read"]) == (["z folder/y"], 2, ["z folder"])
    assert any("vanished: z folder/y" in str(warning) for warning in done["warnings"])
    assert mine.report("a")["private"]["archives"]["a"]["vanished"] == ["z folder/y"]
    mine.restore("a", "back")
    assert facts_of(mine.folder / "back").keys() == {b".", b"a big", b"z folder"}


def test_everything_vanishes(mine: Files) -> None:
    top = moving(mine)
    given = {"dest": str(mine.folder / "a"), "paths": [{"path": str(top)}]}
    with started("files_backup", given, stop_at="files: tar starts") as running:
        assert running.wait_stopped()
        shutil.rmtree(top)
        running.go_on()
        while running.wait_stopped():
            running.go_on()
        done = running.end()
    assert done.rc != 0 and "Traceback" not in done.stderr and "archive: " in done.result["msg"]
    assert [path.name for path in mine.folder.iterdir()] == []


@pytest.mark.parametrize("step", sample(BACKUP_STEPS, 3))
def test_kill_a_backup(mine: Files, step: str) -> None:
    """Nothing is there under the final name, or the whole archive; the next run is as if nothing had been."""
    top = moving(mine)
    given = {"dest": str(mine.folder / "a"), "paths": [{"path": str(top), "name": "."}]}
    with started("files_backup", given, stop_at=step) as running:
        assert running.wait_stopped()
        children = [process.pid for process in descendants(running.pid)]
        running.kill()
        assert running.end().rc != 0
        wait_gone(children)
    assert (mine.folder / "a").exists() == (step == "files: done")
    if step == "files: done":
        mine.restore("a", "back")
        return
    mine.backup("a", {"path": str(top), "name": "."})
    assert sorted(path.name for path in mine.folder.iterdir()) == ["a", "a.json", "source"]
    mine.restore("a", "back")
    assert facts_of(mine.folder / "back") == facts_of(top)


@pytest.mark.parametrize("program", ["tar", "zstd"])
def test_kill_a_program(mine: Files, program: str) -> None:
    top = moving(mine)
    given = {"dest": str(mine.folder / "a"), "paths": [{"path": str(top)}]}
    with started("files_backup", given, stop_at="files: tar runs") as running:
        assert running.wait_stopped()
        killed = [process for process in descendants(running.pid) if process.is_called(program)]
        for process in killed:
            os.kill(process.pid, 9)
        running.go_on()
        done = running.end()
    assert killed and done.rc != 0 and f"archive: {program} failed (ended by signal 9)" in done.result["msg"]
    assert [path.name for path in mine.folder.iterdir()] == ["source"]


def killed_restore(files: Files, step: str, **params: t.Any) -> None:
    with started("files_restore", files.restoring("a", "target", **params), stop_at=step) as running:
        assert running.wait_stopped(), running.end()
        children = [process.pid for process in descendants(running.pid)]
        running.kill()
        running.end()
        wait_gone(children)


@pytest.mark.parametrize("step", sample(RESTORE_STEPS, 3))
@pytest.mark.parametrize("existing", ["refuse", "replace", "merge"])
def test_kill_a_restore(mine: Files, step: str, existing: str) -> None:
    """The target is as it was, or as it has to be; the next run brings it back and leaves nothing else."""
    top = mine.folder / "odd"
    make_odd_tree(top)
    mine.backup("a", {"path": str(top), "name": "."})
    target = mine.folder / "target"
    if existing != "refuse":
        (target / "empty folder").mkdir(parents=True)
        (target / "empty folder/mine").write_text("mine")
        (target / ".hidden").write_text("old")
    old = facts_of(target) if target.exists() else None
    killed_restore(mine, step, existing=existing, **CONFIRMED)
    now = facts_of(target) if target.exists() else None
    if step == "restore: in place":
        assert now != old and (target / ".hidden").read_bytes() == (top / ".hidden").read_bytes()
    else:
        assert now == old
    done = mine.restore("a", "target", existing=existing, **CONFIRMED)
    left = {path.name for path in mine.folder.iterdir()} - {"a", "a.json", "odd", "target"}
    assert all(name.startswith("target.before_") for name in left)
    assert len(left) == (existing != "refuse")
    for name in left:
        assert (mine.folder / name / ".hidden").read_text() == "old"
    assert done["removed"] == (
        [str(mine.folder / ".target.mazevault-restore")] if step in RESTORE_STEPS[3:] else done["removed"]
    )
    if existing == "merge":
        assert (target / "empty folder/mine").read_text() == "mine"
    else:
        assert facts_of(target) == facts_of(top)
    assert mine.restore("a", "target", existing=existing, **CONFIRMED)["changed"] is False


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_broken_off_between_the_renames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exchange: bool) -> None:
    """What had been the target is never taken for a rest of work."""
    tmp_path.chmod(0o700)
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    work = Workplace(str(target), "20261123_020000")
    work.make()
    Path(work.tree, "new").write_text("new")
    renames = 0

    def rename(*args: t.Any, **kwargs: t.Any) -> None:
        nonlocal renames
        renames += 1
        if exchange or renames == 2:
            raise KeyboardInterrupt
        real_rename(*args, **kwargs)

    def marker(path: str, value: t.Any) -> None:
        Path(path).write_text(json.dumps(value))

    real_rename = os.rename
    if not exchange:
        monkeypatch.setattr(_put_back, "_RENAME_EXCHANGE", 1 << 30)  # what no kernel knows
    monkeypatch.setattr(_put_back, "write_json", marker)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        work.swap_in(own=True)
    monkeypatch.undo()
    Workplace(str(target), "20261123_030000").clean()
    kept = tmp_path / "target.before_20261123_020000"
    assert (kept / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == (["target", kept.name] if exchange else [kept.name])
    if exchange:
        assert (target / "new").read_text() == "new"


def breaking(stop: int) -> Callable[[Callable[..., t.Any]], Callable[..., t.Any]]:
    """Functions that work `stop` times, all of them together."""
    left = itertools.count()

    def wrap(real: Callable[..., t.Any]) -> Callable[..., t.Any]:
        def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
            if next(left) >= stop:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    return wrap


def test_a_merge_broken_off_anywhere(mine: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name has its old file or the new one, whole; no old one is lost; another run completes it."""
    new = {".env": "new env", "certs/key": "new key", "certs/more/deep": "deep", "other": "other"}
    old = {".env": "old env", "certs/key": "old key", "certs/stays": "stays", "other/file": "in a folder"}
    for top, contents in (("source", new), ("old", old)):
        for name, text in contents.items():
            (mine.folder / top / name).parent.mkdir(parents=True, exist_ok=True)
            (mine.folder / top / name).write_text(text)
    mine.backup("a", {"path": str(mine.folder / "source"), "name": "."})
    source = opener(Stored((str(mine.folder / "a"),)), HostRuntime())
    checked, limits = check_archive(source, Limits(MB, 100)), Limits(MB, 100)
    target, real = mine.folder / "target", {name: getattr(os, name) for name in ("rename", "link", "mkdir")}
    stops = 0
    while True:
        for rest in mine.folder.glob("target*"):
            shutil.rmtree(rest)
        shutil.copytree(mine.folder / "old", target)
        work = Workplace(str(target), "20261123_020000")
        work.make()
        unpacker = Unpacker(work.tree)
        chosen = unpacker.unpack(source, checked, limits)
        wrong = [difference.name for difference in difference_from(str(target), chosen, merge=True)]
        broken = breaking(stops)
        for name, call in real.items():
            monkeypatch.setattr(os, name, broken(call))
        try:
            work.merge(canonical(chosen), wrong)
            whole = True
        except KeyboardInterrupt:
            whole = False
        monkeypatch.undo()
        kept = mine.folder / "target.before_20261123_020000"
        for name, text in old.items():
            found = {path.read_text() for path in (target / name, kept / name) if path.is_file()}
            assert text in found, (stops, name)
        for name in (".env", "certs/key"):
            assert (target / name).read_text() in (old[name], new[name])
        mine.restore("a", "target", existing="merge", **CONFIRMED)
        assert {name: (target / name).read_text() for name in new} == new
        assert (target / "certs/stays").read_text() == "stays"
        if whole:
            break
        stops += 1
    assert stops > 8


def test_two_restores_at_once(mine: Files) -> None:
    top = moving(mine)
    mine.backup("a", {"path": str(top), "name": "."})
    with started("files_restore", mine.restoring("a", "target"), stop_at="restore: unpack") as running:
        assert running.wait_stopped()
        other = mine.run("files_restore", mine.restoring("a", "target"))
        assert other.rc != 0 and "another restore works in" in other.result["msg"]
        running.go_on()
        assert running.end().result["action"] == "created"
    assert facts_of(mine.folder / "target") == facts_of(top)


@pytest.fixture
def full_disk(mine: Files) -> Iterator[Path]:
    """A file system of 30 MB in the private folder."""
    disk = mine.folder / "disk"
    disk.mkdir()
    if (
        not ROOT
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=30m,mode=700", "tmpfs", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root can mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_the_disk_fills_up_during_a_backup(mine: Files, full_disk: Path) -> None:
    top = moving(mine)
    for reserve, said in (("0", "No space left"), ("1M", "broken off: only")):
        given = {"dest": str(full_disk / "a"), "paths": [{"path": str(top)}], "reserve": reserve}
        with started("files_backup", given, stop_at="files: tar runs") as running:
            assert running.wait_stopped()
            fill(full_disk)
            running.go_on()
            done = running.end()
        assert done.rc != 0 and said in done.result["msg"], done.result
        (full_disk / "filler").unlink()
        assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_disk_fills_up_during_a_restore(mine: Files, full_disk: Path, compression: str) -> None:
    top = moving(mine)
    mine.backup("a", {"path": str(top), "name": "."}, compression=compression)
    (full_disk / "target").mkdir()
    (full_disk / "target/old").write_text("old")
    before = tree_state(full_disk)
    given = mine.restoring("a", "disk/target", existing="replace", reserve="0", **CONFIRMED)
    with started("files_restore", given, stop_at="restore: unpack") as running:
        assert running.wait_stopped()
        fill(full_disk)
        running.go_on()
        done = running.end()
    assert done.rc != 0 and "No space left" in done.result["msg"]
    (full_disk / "filler").unlink()
    after = tree_state(full_disk)
    assert {key: value for key, value in after.items() if key != "disk"} == {
        key: value for key, value in before.items() if key != "disk"
    }
    refused = mine.run("files_restore", {**given, "reserve": "25M"})
    assert refused.rc != 0 and "too little space" in refused.result["msg"]


def test_the_archive_changes_after_it_was_checked(mine: Files) -> None:
    """What was checked is unpacked, or nothing."""
    top = moving(mine)
    mine.backup("a", {"path": str(top), "name": "."})
    mine.backup("other", {"path": str(top / "z folder"), "name": "."})
    with started("files_restore", mine.restoring("a", "target"), stop_at="restore: unpack") as running:
        assert running.wait_stopped()
        shutil.copy(mine.folder / "other", mine.folder / "a")
        running.go_on()
        done = running.end()
    assert done.rc != 0 and "not what it was a moment ago" in done.result["msg"]
    assert not (mine.folder / "target").exists() and not (mine.folder / ".target.mazevault-restore").exists()


def test_work_is_closed_to_others(mine: Files) -> None:
    """What isn't finished can be read and changed by nobody else, whatever its modes."""
    top = moving(mine)
    (top / "a big").chmod(0o666)
    mine.backup("a", {"path": str(top), "name": "."})

    def closed(running: Running, name: str) -> None:
        assert running.wait_stopped()
        assert stat.S_IMODE((mine.folder / name).stat().st_mode) == 0o700
        running.go_on()

    with started("files_restore", mine.restoring("a", "t"), stop_at="restore: compare what was unpacked") as running:
        closed(running, ".t.mazevault-restore")
        assert running.end().rc == 0
    given = {"dest": str(mine.folder / "b"), "paths": [{"path": str(top)}]}
    with started("files_backup", given, stop_at="files: read back what was written") as running:
        closed(running, ".b.work")
        assert running.end().rc == 0
