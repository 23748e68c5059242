# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published sets: their sums in the words of sha256sum, their order, and what is known of each."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    all_sets,
    check_sums,
    enter_in_ledger,
    heal_ledger,
    load_set,
    newest_proof,
    next_sequence,
    records_of,
    resolve,
    set_names,
    sums_text,
    write_record,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN

Proof = tuple[str, str]


def make_set(root: Path, day: int, sequence: int, verdict: str = PASS, level: str = "restore") -> RecoverySet:
    set_id = f"mazevault_202611{day:02}_020000"
    folder = root / "sets" / set_id
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "database.dump").write_text(f"dump {day}", encoding="utf-8")
    manifest = {
        "schema_version": 1,
        "set_id": set_id,
        "sequence": sequence,
        "verification": {"verdict": verdict, "level": level, "wanted": "restore", "at": "2026-11-01T00:00:00.000000Z"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "SHA256SUMS").write_text(sums_text(str(folder)), encoding="utf-8")
    return load_set(str(root), set_id)


# sums

# sha256sum reads stdin for the name `-`, and drops a carriage return at the end of a name.
file_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..", "-") and len(name.encode()) < 200 and name[-1] != "\r")
trees = st.dictionaries(file_names, st.binary(max_size=20), min_size=1, max_size=6)


@settings(max_examples=60)
@given(trees, st.booleans())
def test_sha256sum_agrees_whatever_files_are_called(tree: dict[str, bytes], deep: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        below = Path(folder, "-r \\ \n x") if deep else Path(folder)
        below.mkdir(exist_ok=True)
        for name, content in tree.items():
            (below / name).write_bytes(content)
        Path(folder, "SHA256SUMS").write_bytes(sums_text(folder).encode())
        names = [name for name in tree if deep or not name.startswith("SHA256SUMS")]
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
        )
        if names:
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(b"\n") == len(names)
            assert check_sums(folder) == []
            victim = below / names[0]
            victim.write_bytes(victim.read_bytes() + b"x")
            relative = os.path.relpath(victim, folder)
            assert check_sums(folder) == [f"{relative}: changed"]
            assert (
                subprocess.run(
                    ["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
                ).returncode
                == 1
            )
            victim.unlink()
            assert check_sums(folder) == [f"{relative}: missing"]
        else:
            assert check_sums(folder) == ["SHA256SUMS: empty"]


def test_files_without_a_sum_and_sums_without_files_are_found(tmp_path: Path) -> None:
    found = make_set(tmp_path, 1, 1)
    assert check_sums(found.path) == []
    Path(found.path, "SHA256SUMS.sig").touch()
    assert check_sums(found.path) == [], "signatures sign the sums, not the other way round"
    Path(found.path, "postgres", "added").touch()
    assert check_sums(found.path) == ["postgres/added: not in SHA256SUMS"]
    Path(found.path, "manifest.json").unlink()
    assert check_sums(found.path) == ["manifest.json: missing", "postgres/added: not in SHA256SUMS"]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"no sums at all\n"])
def test_sums_that_are_none_are_a_problem(tmp_path: Path, content: bytes | None) -> None:
    found = make_set(tmp_path, 1, 1)
    path = Path(found.path, "SHA256SUMS")
    path.unlink() if content is None else path.write_bytes(content)
    assert check_sums(found.path) != []


def test_links_in_a_set_are_refused(tmp_path: Path) -> None:
    found = make_set(tmp_path, 1, 1)
    Path(found.path, "postgres", "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="neither a file nor a folder"):
        check_sums(found.path)


# order and names


def test_the_order_is_by_sequence_not_by_name(tmp_path: Path) -> None:
    """A clock set back gives the newer set the older name."""
    for day, sequence in ((9, 1), (3, 2), (5, 3)):
        make_set(tmp_path, day, sequence)
    good, bad = all_sets(str(tmp_path))
    assert ([found.manifest["sequence"] for found in good], bad) == ([1, 2, 3], [])
    assert resolve(str(tmp_path), "latest").manifest["sequence"] == 3


def test_foreign_and_broken_folders(tmp_path: Path) -> None:
    make_set(tmp_path, 1, 1)
    for name in ("notes", "mazevault_2026", "mazevault_20261101_020000.bak", ".mazevault_20261102_020000"):
        (tmp_path / "sets" / name).mkdir()
    (tmp_path / "sets" / "mazevault_20261103_020000").mkdir()
    (tmp_path / "sets" / "mazevault_20261104_020000").mkdir()
    (tmp_path / "sets" / "mazevault_20261104_020000" / "manifest.json").write_text("[]", encoding="utf-8")
    (tmp_path / "sets" / "mazevault_20261105_020000").mkdir()
    (tmp_path / "sets" / "mazevault_20261105_020000" / "manifest.json").write_text(
        '{"schema_version": 2}', encoding="utf-8"
    )
    assert len(set_names(str(tmp_path))) == 4
    good, bad = all_sets(str(tmp_path))
    assert [found.set_id for found in good] == ["mazevault_20261101_020000"]
    assert bad == [f"mazevault_2026110{day}_020000" for day in (3, 4, 5)]


@pytest.mark.parametrize(
    "name", ["latest ", "..", "../sets", "mazevault_20261101_020000/..", "MAZEVAULT_20261101_020000"]
)
def test_an_odd_id_is_refused(tmp_path: Path, name: str) -> None:
    make_set(tmp_path, 1, 1)
    with pytest.raises(BackupError, match=r"set: .*: (not a set id|no such set)"):
        resolve(str(tmp_path), name)


def test_a_missing_set_is_answered_with_the_newest(tmp_path: Path) -> None:
    with pytest.raises(BackupError) as nothing:
        load_set(str(tmp_path), "mazevault_20260101_000000")
    assert "There is no set yet" in nothing.value.hint
    make_set(tmp_path, 1, 1)
    with pytest.raises(BackupError) as another:
        load_set(str(tmp_path), "mazevault_20260101_000000")
    assert "mazevault_20261101_020000" in another.value.hint


def test_latest_is_the_newest_that_has_not_failed(tmp_path: Path) -> None:
    root = str(tmp_path)
    make_set(tmp_path, 1, 1, PASS)
    make_set(tmp_path, 2, 2, UNPROVEN, "")
    newest = make_set(tmp_path, 3, 3, FAIL, "read")
    assert resolve(root, "latest").manifest["sequence"] == 2
    assert resolve(root, "").manifest["sequence"] == 2
    assert resolve(root, newest.set_id).manifest["sequence"] == 3, "a name is taken as it is"
    write_record(root, "mazevault_20261102_020000", "verify", {"verdict": FAIL, "level": "toc", "wanted": "checksum"})
    assert resolve(root, "latest").manifest["sequence"] == 1
    write_record(root, "mazevault_20261101_020000", "verify", {"verdict": FAIL, "level": "toc", "wanted": "checksum"})
    with pytest.raises(BackupError, match=r"no usable set under .* \(3 are there, all failed or damaged\)"):
        resolve(root, "latest")


def test_the_next_number_follows_sets_and_ledger(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert next_sequence(root) == (1, None)
    first = make_set(tmp_path, 1, 1)
    enter_in_ledger(first)
    second = make_set(tmp_path, 2, 2)
    assert next_sequence(root) == (3, second.sums_sha256), "also when the ledger doesn't know it yet"
    assert heal_ledger(root) == [second.set_id]
    assert heal_ledger(root) == []
    sums = second.sums_sha256
    for found in (first, second):
        subprocess.run(["rm", "-r", found.path], check=True)
    assert next_sequence(root) == (3, sums), "a number is never used twice, although all sets are gone"


def test_a_damaged_set_is_not_entered_late(tmp_path: Path) -> None:
    found = make_set(tmp_path, 1, 1)
    Path(found.path, "postgres", "database.dump").write_text("other", encoding="utf-8")
    assert heal_ledger(str(tmp_path)) == []


# records


def test_a_record_counts_only_when_the_ledger_vouches_for_it(tmp_path: Path) -> None:
    root = str(tmp_path)
    found = make_set(tmp_path, 1, 1, UNPROVEN, "")
    path = Path(write_record(root, found.set_id, "verify", {"verdict": PASS, "level": "restore"}))
    assert [record["verdict"] for record in records_of(root, found.set_id)] == [PASS]
    assert _ledger.read(root)[-1]["record_sha256"] == sha256_file(str(path))
    forged = path.with_name(f"9{path.name}")
    forged.write_text(path.read_text(encoding="utf-8").replace("restore", "read"), encoding="utf-8")
    assert len(records_of(root, found.set_id)) == 1
    path.write_text(path.read_text(encoding="utf-8").replace("pass", "fail"), encoding="utf-8")
    assert records_of(root, found.set_id) == []


def proof_of(published: Proof, *later: Proof) -> dict[str, t.Any]:
    """The newest proof of a set after records of (verdict, level reached), each of which wanted `restore`."""

    def fact(number: int, proof: Proof) -> dict[str, t.Any]:
        return {"kind": "verify", "verdict": proof[0], "level": proof[1], "wanted": proof[1] or "toc", "at": number}

    found = RecoverySet("/nowhere", "x", {"verification": fact(0, published)})
    return newest_proof(found, [fact(number, proof) for number, proof in enumerate(later, 1)])


@pytest.mark.parametrize(
    ("history", "verdict", "level", "at"),
    [
        ([(UNPROVEN, "")], UNPROVEN, "", None),
        ([(UNPROVEN, "toc")], UNPROVEN, "toc", 0),
        ([(PASS, "read")], PASS, "read", 0),
        ([(PASS, "read"), (PASS, "restore")], PASS, "restore", 1),
        # a lower proof later says nothing new about the higher one: neither its level nor its time changes
        ([(PASS, "restore"), (PASS, "checksum")], PASS, "restore", 0),
        ([(PASS, "restore"), (PASS, "restore")], PASS, "restore", 1),
        ([(PASS, "restore"), (UNPROVEN, "checksum")], PASS, "restore", 0),
        ([(PASS, "restore"), (FAIL, "toc")], FAIL, "toc", 1),
        ([(PASS, "restore"), (FAIL, "toc"), (PASS, "toc")], FAIL, "toc", 1),
        ([(PASS, "restore"), (FAIL, "toc"), (PASS, "checksum")], PASS, "checksum", 2),
        ([(FAIL, "read"), (PASS, "read")], FAIL, "read", 0),
        ([(FAIL, "read"), (UNPROVEN, "read")], FAIL, "read", 0),
        ([(FAIL, "read"), (PASS, "restore")], PASS, "restore", 1),
        ([(FAIL, "read"), (FAIL, "toc"), (PASS, "checksum")], FAIL, "toc", 1),
        ([(FAIL, "read"), (FAIL, "toc"), (PASS, "restore")], PASS, "restore", 2),
        ([(FAIL, "")], FAIL, "", 0),
        ([(FAIL, ""), (PASS, "toc")], PASS, "toc", 1),
    ],
)
def test_newest_proof(history: list[Proof], verdict: str, level: str, at: int | None) -> None:
    assert proof_of(*history) == {"verdict": verdict, "level": level, "at": at}


def test_the_level_that_failed_is_told_by_its_checks() -> None:
    """A set can reach `toc`, be unproven at `checksum`, and fail at `read`."""
    failed = {
        "kind": "verify", "verdict": FAIL, "level": "toc", "at": 1,
        "checks": [{"level": "checksum", "verdict": UNPROVEN}, {"level": "read", "verdict": FAIL}],
    }  # fmt: skip
    found = RecoverySet("/nowhere", "x", {"verification": {"verdict": UNPROVEN, "level": "", "at": 0}})
    again = {"kind": "verify", "verdict": PASS, "level": "checksum", "at": 2}
    assert newest_proof(found, [failed, again])["verdict"] == FAIL
    assert newest_proof(found, [failed, again, {**again, "level": "read", "at": 3}])["verdict"] == PASS


proofs = st.one_of(
    st.tuples(st.just(PASS), st.sampled_from(LEVELS)),
    st.tuples(st.sampled_from([FAIL, UNPROVEN]), st.sampled_from(["", *LEVELS[:-1]])),
)


@given(st.lists(proofs, min_size=1, max_size=10))
def test_a_pass_rests_on_a_pass_of_that_level_after_every_failure_it_covers(history: list[Proof]) -> None:
    proof = proof_of(*history)
    failures = [number for number, (verdict, _level) in enumerate(history) if verdict == FAIL]
    if proof["verdict"] == PASS:
        assert history[proof["at"]] == (PASS, proof["level"])
        for number in failures:
            later = [LEVELS.index(level) for verdict, level in history[number + 1 :] if verdict == PASS]
            failed = LEVELS.index(history[number][1]) + 1 if history[number][1] else 0
            assert any(rank >= failed for rank in later)
    if failures and not any(verdict == PASS for verdict, _level in history[failures[-1] :]):
        assert proof["verdict"] == FAIL
