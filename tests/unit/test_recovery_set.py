# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published sets: their sums in the words of sha256sum, their order, and what is known of each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._examination import examine
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    enter_in_ledger,
    next_sequence,
    settle_ledger,
)
from ansible_collections.mazevault.backup.plugins.module_utils._records import (
    ABOUT_THE_LEDGER,
    look_at,
    newest_proof,
    records_of,
    write_record,
)
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    all_sets,
    load_set,
    resolve,
    set_names,
    shelf_of,
    state_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer, key_id
from ansible_collections.mazevault.backup.plugins.module_utils._sums import check_sums, sums_text
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN
from support.keys import own_trust

Proof = tuple[str, str]
TRUST = own_trust()
# What a manifest needs besides to be listed.
LISTED: dict[str, t.Any] = {
    "installation": "vault1",
    "reason": "manual",
    "recovery_point": "2026-11-01T00:00:00.000000Z",
    "components": ["postgres"],
    "artefacts": [],
    "not_covered": [],
    "missing_protection": [],
}


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
        **LISTED,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "SHA256SUMS").write_text(sums_text(str(folder)), encoding="utf-8")
    TRUST.signer.sign(str(folder / "SHA256SUMS"))
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
    assert resolve(str(tmp_path), "latest", TRUST).manifest["sequence"] == 3


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
    "change",
    [
        {"sequence": "9"},
        {"sequence": None},
        {"verification": "pass"},
        {"recovery_point": "soon"},
        {"recovery_point": "2026-11-01T00:00:00"},
        {"artefacts": [{"bytes": "many"}]},
        {"artefacts": 7},
        {"installation": None},
        {"components": "postgres"},
    ],
)
def test_a_manifest_that_makes_no_sense_stops_no_other(tmp_path: Path, change: dict[str, t.Any]) -> None:
    """Whoever can write here must not be able to stop every list, and with it every backup, by one file."""
    good, odd = make_set(tmp_path, 1, 1), make_set(tmp_path, 2, 2)
    edit_manifest(odd, **change)
    assert [found.set_id for found in all_sets(str(tmp_path))[0]] == [good.set_id]
    assert all_sets(str(tmp_path))[1] == [odd.set_id]
    shelf = shelf_of(str(tmp_path), TRUST)
    assert [state_of(found, shelf)["set_id"] for found in all_sets(str(tmp_path))[0]] == [good.set_id]


@pytest.mark.parametrize(
    "name", ["latest ", "..", "../sets", "mazevault_20261101_020000/..", "MAZEVAULT_20261101_020000"]
)
def test_an_odd_id_is_refused(tmp_path: Path, name: str) -> None:
    make_set(tmp_path, 1, 1)
    with pytest.raises(BackupError, match=r"set: .*: (not a set id|no such set)"):
        resolve(str(tmp_path), name, TRUST)


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
    assert resolve(root, "latest", TRUST).manifest["sequence"] == 2
    assert resolve(root, "", TRUST).manifest["sequence"] == 2
    assert resolve(root, newest.set_id, TRUST).manifest["sequence"] == 3, "a name is taken as it is"
    write_record(
        root, "mazevault_20261102_020000", "verify", {"verdict": FAIL, "level": "toc", "wanted": "checksum"}, TRUST
    )
    assert resolve(root, "latest", TRUST).manifest["sequence"] == 1
    write_record(
        root, "mazevault_20261101_020000", "verify", {"verdict": FAIL, "level": "toc", "wanted": "checksum"}, TRUST
    )
    with pytest.raises(BackupError, match=r"no usable set under .* \(3 are there, all failed or damaged\)"):
        resolve(root, "latest", TRUST)


def test_the_next_number_follows_sets_and_ledger(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert next_sequence(root) == (1, None)
    first = make_set(tmp_path, 1, 1)
    enter_in_ledger(first, TRUST)
    second = make_set(tmp_path, 2, 2)
    assert next_sequence(root) == (3, second.sums_sha256), "also when the ledger doesn't know it yet"
    assert settle_ledger(root, TRUST)["healed"] == [second.set_id]
    assert settle_ledger(root, TRUST)["healed"] == []
    sums = second.sums_sha256
    for found in (first, second):
        subprocess.run(["rm", "-r", found.path], check=True)
    assert next_sequence(root) == (3, sums), "a number is never used twice, although all sets are gone"


def test_a_damaged_set_is_not_entered_late(tmp_path: Path) -> None:
    found = make_set(tmp_path, 1, 1)
    Path(found.path, "postgres", "database.dump").write_text("other", encoding="utf-8")
    assert settle_ledger(str(tmp_path), TRUST)["healed"] == []


# records


def test_a_record_counts_only_when_the_ledger_vouches_for_it(tmp_path: Path) -> None:
    root = str(tmp_path)
    found = make_set(tmp_path, 1, 1, UNPROVEN, "")
    path = Path(write_record(root, found.set_id, "verify", {"verdict": PASS, "level": "restore"}, TRUST))
    assert [record["verdict"] for record in records_of(root, found.set_id, TRUST)] == [PASS]
    assert _ledger.read(root)[-1]["record_sha256"] == sha256_file(str(path))
    forged = path.with_name(f"9{path.name}")
    forged.write_text(path.read_text(encoding="utf-8").replace("restore", "read"), encoding="utf-8")
    assert len(records_of(root, found.set_id, TRUST)) == 1
    path.write_text(path.read_text(encoding="utf-8").replace("pass", "fail"), encoding="utf-8")
    assert records_of(root, found.set_id, TRUST) == []


def test_a_record_that_nobody_signed_doesnt_count_although_the_ledger_names_it(tmp_path: Path) -> None:
    """Whoever can write the files can add lines to the ledger too; a signature is what they can't make."""
    root = str(tmp_path)
    found = make_set(tmp_path, 1, 1, UNPROVEN, "")
    made = Path(write_record(root, found.set_id, "verify", {"verdict": FAIL, "level": "toc"}, TRUST))
    forged = made.with_name("99999999_000000-verify.json")
    forged.write_text(made.read_text(encoding="utf-8").replace("fail", "pass"), encoding="utf-8")
    copied = made.with_name("99999999_000001-verify.json")
    copied.write_bytes(made.read_bytes())
    shutil.copy(f"{made}.sig", f"{copied}.sig")
    _ledger.append(root, "record verify", set_id=found.set_id, record_sha256=sha256_file(str(forged)))
    filed = look_at(root, found.set_id, TRUST, _ledger.load(root))
    assert [record["verdict"] for record in filed.counting] == [FAIL]
    assert filed.forged == {forged.name: "no signature of a key that counts"}
    assert filed.stray == [copied.name], "a copy counts once"


def test_a_record_of_another_set_and_one_that_is_gone(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, second = make_set(tmp_path, 1, 1), make_set(tmp_path, 2, 2)
    made = Path(write_record(root, first.set_id, "verify", {"verdict": PASS, "level": "restore"}, TRUST))
    gone = Path(write_record(root, first.set_id, "verify", {"verdict": FAIL, "level": "restore"}, TRUST))
    place = tmp_path / "records" / second.set_id
    place.mkdir()
    for path in (made, Path(f"{made}.sig")):
        shutil.copy(path, place)
    _ledger.append(root, "record verify", set_id=second.set_id, record_sha256=sha256_file(str(made)))
    gone.unlink()
    chain = _ledger.load(root)
    assert look_at(root, second.set_id, TRUST, chain).forged == {made.name: "it was made for another set"}
    assert look_at(root, first.set_id, TRUST, chain).forged == {"line 2 of the ledger": "its record verify is gone"}


@pytest.mark.parametrize("keep", ["the record alone", "the signature alone", "both"])
def test_what_a_crash_leaves_of_a_record_is_no_forgery(tmp_path: Path, keep: str) -> None:
    root = str(tmp_path)
    found = make_set(tmp_path, 1, 1)
    made = Path(write_record(root, found.set_id, "verify", {"verdict": PASS, "level": "restore"}, TRUST))
    Path(_ledger.path_of(root)).unlink()
    if keep == "the signature alone":
        made.unlink()
    if keep == "the record alone":
        Path(f"{made}.sig").unlink()
    filed = look_at(root, found.set_id, TRUST, _ledger.load(root))
    assert filed.counting == []
    # The signature is written first: a record without one is no crash's.
    assert bool(filed.forged) == (keep == "the record alone")


# who vouches for a set


def doubts(root: str, set_id: str) -> dict[str, str]:
    shelf = shelf_of(root, TRUST)
    return {check.name: check.verdict for check in shelf.standing(load_set(root, set_id)) if check.verdict != PASS}


def entered(tmp_path: Path, day: int, sequence: int) -> RecoverySet:
    found = make_set(tmp_path, day, sequence)
    enter_in_ledger(found, TRUST)
    return found


def edit_manifest(found: RecoverySet, **changes: t.Any) -> None:
    path = Path(found.path, "manifest.json")
    path.write_text(json.dumps({**found.manifest, **changes}), encoding="utf-8")


def test_a_set_as_it_was_published_is_beyond_doubt(tmp_path: Path) -> None:
    found = entered(tmp_path, 1, 1)
    assert doubts(str(tmp_path), found.set_id) == {}
    (signed,) = (entry["signed_by"] for entry in _ledger.read(str(tmp_path)))
    assert signed == key_id(TRUST.signer.public())


def test_what_a_manifest_says_is_not_believed_before_it_is_the_signed_one(tmp_path: Path) -> None:
    found = entered(tmp_path, 1, 1)
    edit_manifest(found, installation="other")
    assert doubts(str(tmp_path), found.set_id) == {"manifest": FAIL}
    Path(found.path, "SHA256SUMS").write_text(sums_text(found.path), encoding="utf-8")
    assert doubts(str(tmp_path), found.set_id) == {"signature": FAIL, "ledger": FAIL}
    shelf = shelf_of(str(tmp_path), TRUST)
    assert shelf.judge(load_set(str(tmp_path), found.set_id))["verdict"] == FAIL


def test_a_set_under_another_name(tmp_path: Path) -> None:
    found = entered(tmp_path, 1, 1)
    os.rename(found.path, tmp_path / "sets" / "mazevault_20261102_020000")
    assert doubts(str(tmp_path), "mazevault_20261102_020000") == {"manifest": FAIL, "ledger": UNPROVEN}


def test_without_a_signature_or_a_key_nothing_is_proven(tmp_path: Path) -> None:
    found = entered(tmp_path, 1, 1)
    nobody = shelf_of(str(tmp_path), Trust(Signer(str(tmp_path / "no.key"))))
    assert [check.verdict for check in nobody.standing(found)] == [UNPROVEN, PASS, PASS]
    Path(found.path, "SHA256SUMS.sig").unlink()
    assert doubts(str(tmp_path), found.set_id) == {"signature": UNPROVEN}


def test_a_broken_ledger_stops_trust_and_no_backup(tmp_path: Path) -> None:
    root = str(tmp_path)
    found = entered(tmp_path, 1, 1)
    write_record(root, found.set_id, "verify", {"verdict": PASS, "level": "restore"}, TRUST)
    path = Path(_ledger.path_of(root))
    path.write_bytes(path.read_bytes().replace(b'"set_sequence": 1', b'"set_sequence": 9'))
    assert doubts(root, found.set_id) == {"ledger": FAIL}
    with pytest.raises(BackupError, match=r"no usable set .*ledger.jsonl: line 2 doesn't follow"):
        resolve(root, "latest", TRUST)

    settled = settle_ledger(root, TRUST)
    assert settled == {"healed": [], "set_aside": "line 2 doesn't follow from the line before it"}
    assert doubts(root, found.set_id) == {"ledger": UNPROVEN}
    assert next_sequence(root)[0] == 10, "a number that was told of is not used again, even if that was a lie"
    newer = make_set(tmp_path, 2, 10)
    enter_in_ledger(newer, TRUST)
    assert doubts(root, newer.set_id) == {}
    assert resolve(root, "latest", TRUST).set_id == newer.set_id

    accepted = {"sets": {found.set_id: found.sums_sha256}, "by": "a person"}
    write_record(root, ABOUT_THE_LEDGER, "accepted", accepted, TRUST)
    assert doubts(root, found.set_id) == {}


def test_a_ledger_that_is_gone_doesnt_make_old_sets_new(tmp_path: Path) -> None:
    root = str(tmp_path)
    for day in (1, 2, 3):
        entered(tmp_path, day, day)
    Path(_ledger.path_of(root)).unlink()
    assert settle_ledger(root, TRUST) == {"healed": [], "set_aside": "there is no ledger, though there are 3 sets"}
    assert settle_ledger(root, TRUST) == {"healed": [], "set_aside": None}
    assert doubts(root, "mazevault_20261103_020000") == {"ledger": UNPROVEN}


def test_a_newer_set_that_nobody_signed_is_not_the_latest(tmp_path: Path) -> None:
    root = str(tmp_path)
    genuine = entered(tmp_path, 1, 1)
    laid_beside = make_set(tmp_path, 2, 10**9)
    Path(laid_beside.path, "SHA256SUMS.sig").unlink()
    assert resolve(root, "latest", TRUST).set_id == genuine.set_id
    found = {check.name: check for check in examine(root, TRUST, None, {}).checks}
    assert found["signatures"].verdict == UNPROVEN
    assert "set numbers 2 to 999999999 is neither here" in found["sets in order"].reason
    shutil.rmtree(genuine.path)
    assert resolve(root, "latest", TRUST).set_id == laid_beside.set_id, "better than nothing; a restore asks"


def test_only_a_signed_set_is_entered_late(tmp_path: Path) -> None:
    entered(tmp_path, 1, 1)
    found = make_set(tmp_path, 2, 2)
    Path(found.path, "SHA256SUMS.sig").write_bytes(b"x")
    assert settle_ledger(str(tmp_path), TRUST)["healed"] == []


# what is known of a set


def proof_of(published: Proof, *later: Proof) -> dict[str, t.Any]:
    """The newest proof of a set after records of (verdict, level reached), each of which wanted `restore`."""

    def fact(number: int, proof: Proof) -> dict[str, t.Any]:
        return {"kind": "verify", "verdict": proof[0], "level": proof[1], "wanted": proof[1] or "toc", "at": number}

    found = RecoverySet("/nowhere", "x", {"verification": fact(0, published)})
    return newest_proof(found.manifest, [fact(number, proof) for number, proof in enumerate(later, 1)])


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
    assert newest_proof(found.manifest, [failed, again])["verdict"] == FAIL
    assert newest_proof(found.manifest, [failed, again, {**again, "level": "read", "at": 3}])["verdict"] == PASS


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
