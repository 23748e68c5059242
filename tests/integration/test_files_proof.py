# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four levels of proof for an archive of files, and what each of them finds."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._prove_files import prove_files
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import Opener, Record, load_record, opener
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    FAIL,
    LEVELS,
    PASS,
    UNPROVEN,
    Check,
    conclude,
)
from support.files import Files, place
from support.flow import count
from support.trees import ROOT, archive, make_odd_tree, member


@pytest.fixture
def mine() -> Iterator[Files]:
    with place(ordinary=not ROOT) as found:
        top = found.folder / "odd"
        make_odd_tree(top)
        found.backup("a", {"path": str(top), "name": "."})
        (found.folder / "scratch").mkdir(mode=0o700)
        yield found


def prove(files: Files, wanted: str = "restore", *, recorded: bool = True) -> list[Check]:
    path = str(files.folder / "a")
    record: Record | None = load_record(f"{path}.json", path) if recorded else None
    scratch = str(files.folder / "scratch")
    checks = prove_files((path,), lambda: opener(Stored((path,)), HostRuntime()), record, wanted, scratch=scratch)
    assert os.listdir(scratch) == []
    return checks


def verdict(files: Files, wanted: str = "restore", *, recorded: bool = True) -> tuple[str, str]:
    return conclude(prove(files, wanted, recorded=recorded), wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_a_good_archive_passes(mine: Files, level: str) -> None:
    if level == "restore" and not ROOT:
        checks = prove(mine)
        assert {check.name for check in checks if check.verdict != PASS} <= {"owners", "attributes"}
        assert verdict(mine) == (UNPROVEN, "read")
        return
    assert verdict(mine, level) == (PASS, level)


def test_without_a_record_nothing_but_its_list_is_proven(mine: Files) -> None:
    assert verdict(mine, recorded=False) == (UNPROVEN, "toc")
    assert verdict(mine, "toc", recorded=False) == (PASS, "toc")
    assert "fail" not in {check.verdict for check in prove(mine, recorded=False)}


def test_every_flipped_bit_and_every_cut_fails(mine: Files) -> None:
    """With the recorded hash, and by what zstd and the records of the files say, without it."""
    path, rng = mine.folder / "a", random.Random(3)
    whole = path.read_bytes()
    for number in range(count(40, 400)):
        damaged = bytearray(whole)
        if number % 4:
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(whole)) :]
        path.write_bytes(damaged)
        assert verdict(mine, "checksum")[0] == FAIL
        assert verdict(mine, "read", recorded=False)[0] == FAIL or list(
            prove(mine, "read", recorded=False)
        ) == unharmed(damaged)
    path.write_bytes(whole)
    assert verdict(mine, "read") == (PASS, "read")


def unharmed(damaged: bytearray) -> list[Check]:
    """There are bits in a zstd frame that mean nothing: zstd itself has to find the same data."""
    plain = subprocess.run(["zstd", "-q", "-d", "-c"], input=bytes(damaged), capture_output=True, check=False)
    raise AssertionError(f"not noticed, and zstd says {plain.returncode}: {plain.stderr!r}")


def test_another_content_is_found_at_each_level(mine: Files) -> None:
    """Archives that are whole in themselves, but not what was recorded."""
    path = mine.folder / "a"
    plain = subprocess.run(["zstd", "-q", "-d", "-c", path], capture_output=True, check=True).stdout
    where = plain.index(b"a first\0", 1024)
    for changed, level in (
        (plain[:where] + b"b first\0" + plain[where + 8 :], "read"),
        (archive([member("x", content=b"1")]), "toc"),
    ):
        path.write_bytes(changed)
        found = {check.level: check for check in prove(mine, "toc")}
        assert (found["toc"].verdict == FAIL) == (level == "toc")
        checks = prove(mine, "checksum")
        assert any(check.verdict == FAIL for check in checks)
        record = load_record(f"{path}.json", str(path))
        alone = Record(record.entries, record.sha256, record.size)
        checks = prove_files(
            (str(path),),
            lambda: opener(Stored((str(path),)), HostRuntime()),
            alone,
            "read",
            scratch=str(mine.folder / "scratch"),
        )
        assert next(check.level for check in checks if check.verdict == FAIL) == level


def test_what_must_not_be_unpacked_fails(mine: Files) -> None:
    (mine.folder / "a").write_bytes(archive([member("../x", content=b"1")]))
    assert verdict(mine, recorded=False) == (FAIL, "")


def test_what_speaks_not_against_the_archive(mine: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space, no program, a reader that was killed: unproven."""
    path, folder = str(mine.folder / "a"), mine.folder / "scratch"
    record = load_record(f"{path}.json", path)

    def failing() -> Opener:
        raise BackupError("program: zstd: not found")

    checks = prove_files((path,), failing, record, "read", scratch=str(folder))
    assert {check.verdict for check in checks if check.level in ("toc", "read")} == {UNPROVEN}
    way = functools.partial(opener, Stored((path,)), HostRuntime())
    checks = prove_files((path,), way, record, "restore", scratch=str(folder), reserve=1 << 60)
    assert conclude(checks, "restore") == (UNPROVEN, "read") and "too little space" in checks[-1].reason
    programs = mine.folder / "bin"
    programs.mkdir()
    (programs / "zstd").write_text(f'#!/bin/sh\n{shutil.which("zstd")} "$@" | head -c 5000\nkill -9 $$\n')
    (programs / "zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert FAIL not in {check.verdict for check in prove(mine, "read", recorded=True) if "killed" in check.reason}
    assert Path(path).exists()
