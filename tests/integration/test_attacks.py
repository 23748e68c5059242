# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup root in the hands of somebody who can write all of it, run sha256sum and rebuild the ledger, but has no key.

Each attack uses plain files and stock programs; what it did is looked for by the host with what its control node saw.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._records import write_record
from support.fake_sets import DUMP, Site
from support.flow import HOSTNAME
from support.keys import own_trust

FIRST = "0" * 64


def sha256(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def fix_sums(folder: Path) -> None:
    """As an attacker would: sha256sum over every file but the sums and their signature."""
    command = "find . -type f ! -name 'SHA256SUMS*' -printf '%P\\0' | sort -z | xargs -0 sha256sum > SHA256SUMS"
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)


def lines(site: Site) -> list[dict[str, t.Any]]:
    return [json.loads(line) for line in site.ledger.read_text(encoding="utf-8").splitlines()]


def rebuild(site: Site, entries: list[dict[str, t.Any]]) -> None:
    """A ledger of these entries, with a chain that holds."""
    head, text = FIRST, b""
    for number, entry in enumerate(entries, 1):
        line = json.dumps({**entry, "sequence": number, "previous": head}, sort_keys=True, ensure_ascii=False).encode()
        head, text = hashlib.sha256(line).hexdigest(), text + line + b"\n"
    site.ledger.write_bytes(text)


def fix_ledger(site: Site, *folders: Path) -> None:
    """Put the sums of changed sets into the ledger, and rebuild its chain."""
    sums = {folder.name: sha256(folder / "SHA256SUMS") for folder in folders}
    entries = lines(site)
    for entry in entries:
        if entry["event"] == "published" and entry["set_id"] in sums:
            entry["sums_sha256"] = sums[entry["set_id"]]
    rebuild(site, entries)


def edit_manifest(site: Site) -> None:
    folder = site.sets()[1]
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["verification"]["level"] = "toc"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    fix_sums(folder)


def edit_manifest_and_ledger(site: Site) -> None:
    edit_manifest(site)
    fix_ledger(site, site.sets()[1])


def swap_artefacts(site: Site) -> None:
    first, second = (folder / DUMP for folder in site.sets()[:2])
    first.rename(first.with_suffix(".x"))
    second.rename(first)
    first.with_suffix(".x").rename(second)
    for folder in site.sets()[:2]:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for artefact in manifest["artefacts"]:
            artefact["sha256"] = sha256(folder / artefact["path"])
            artefact["bytes"] = os.path.getsize(folder / artefact["path"])
        path.write_text(json.dumps(manifest), encoding="utf-8")
        fix_sums(folder)


def swap_artefacts_and_fix_ledger(site: Site) -> None:
    swap_artefacts(site)
    fix_ledger(site, *site.sets()[:2])


def swap_whole_sets(site: Site) -> None:
    """Genuine sets with their genuine signatures, under each other's name."""
    first, second = site.sets()[:2]
    first.rename(site.root / "x")
    second.rename(first)
    (site.root / "x").rename(second)
    fix_ledger(site, first, second)


def cut_the_end(site: Site) -> None:
    rebuild(site, lines(site)[:-2])


def cut_the_middle(site: Site) -> None:
    entries = lines(site)
    rebuild(site, [entry for entry in entries if entry["event"] != "record verify"])
    assert len(lines(site)) == len(entries) - 1


def cut_the_middle_and_make_up_the_length(site: Site) -> None:
    entries = [entry for entry in lines(site) if entry["event"] != "record verify"]
    rebuild(site, [*entries, {"event": "noted", "at": entries[-1]["at"]}])


def rewrite(site: Site) -> None:
    entries = lines(site)
    for entry in entries:
        entry["at"] = f"1999{entry['at'][4:]}"
    rebuild(site, entries)


def put_an_older_copy_in_place(site: Site) -> None:
    shutil.rmtree(site.root)
    shutil.copytree(site.folder / "older", site.root)


def forge_a_record(site: Site) -> Path:
    folder = site.root / "records" / site.sets()[0].name
    (made,) = folder.glob("*.json")
    forged = folder / made.name.replace("-verify", "9-verify")
    record = json.loads(made.read_text(encoding="utf-8"))
    record.update(verdict="pass", level="restore", checks=[])
    forged.write_text(json.dumps(record), encoding="utf-8")
    line = {"event": "record verify", "set_id": record["set_id"], "record_sha256": sha256(forged), "verdict": "pass"}
    rebuild(site, [*lines(site), {**line, "at": record["at"]}])
    return forged


def forge_a_record_with_a_signature_of_its_own(site: Site) -> None:
    forged = forge_a_record(site)
    key = site.folder / "attacker.key"
    make = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", key]
    subprocess.run(make, check=True)
    subprocess.run(["openssl", "dgst", "-sha384", "-sign", key, "-out", f"{forged}.sig", forged], check=True)


def remove_a_set_with_its_lines(site: Site) -> None:
    victim = site.sets()[1]
    shutil.rmtree(victim)
    shutil.rmtree(site.root / "records" / victim.name, ignore_errors=True)
    rebuild(site, [entry for entry in lines(site) if entry.get("set_id") != victim.name])


def remove_the_newest_set_with_its_lines(site: Site) -> None:
    victim = site.sets()[2]
    shutil.rmtree(victim)
    rebuild(site, [entry for entry in lines(site) if entry.get("set_id") != victim.name])


def remove_a_set_and_write_a_line_that_says_so(site: Site) -> None:
    victim = site.sets()[0]
    shutil.rmtree(victim)
    shutil.rmtree(site.root / "records" / victim.name)
    rebuild(site, [*lines(site), {"event": "record removed", "set_id": victim.name, "record_sha256": "0" * 64}])


# What the attack is, and what the verdict has to name: for each check that fails, a part of its reason.
Named = dict[str, str]
ATTACKS: dict[str, tuple[Callable[[Site], object], Named]] = {
    "edited manifest, sums fixed": (
        edit_manifest,
        {"signatures": "{1}: signature: ", "sets as witnessed": "{1}: not the set"},
    ),
    "edited manifest, sums and ledger fixed": (
        edit_manifest_and_ledger,
        {"signatures": "{1}: signature: ", "sets as witnessed": "{1}: not the set", "ledger as witnessed": "rewritten"},
    ),
    "swapped artefacts, sums fixed": (
        swap_artefacts,
        {"signatures": "{0}: signature: ", "sets as witnessed": "{0}: not the set that a witness saw; {1}: not"},
    ),
    "swapped artefacts, sums and ledger fixed": (
        swap_artefacts_and_fix_ledger,
        {"signatures": "{0}: signature: ", "sets as witnessed": "{0}: not the set that a witness saw; {1}: not"},
    ),
    "swapped sets": (
        swap_whole_sets,
        {"signatures": "{0}: manifest: it is that of {1}", "sets as witnessed": "{0}: not"},
    ),
    "ledger cut at the end": (cut_the_end, {"ledger as witnessed": "its end was cut off"}),
    "ledger cut in the middle": (cut_the_middle, {"ledger as witnessed": "a witness saw"}),
    "ledger cut in the middle, as long as before": (
        cut_the_middle_and_make_up_the_length,
        {"ledger as witnessed": "it was rewritten"},
    ),
    "ledger rewritten": (rewrite, {"ledger as witnessed": "line 1 is not the one that a witness saw"}),
    "an older copy of the whole root": (
        put_an_older_copy_in_place,
        {
            "ledger as witnessed": "an older copy took its place",
            "sets as witnessed": "{2}: a witness saw it, and it is gone",
        },
    ),
    "a forged record": (forge_a_record, {"records": "9-verify.json: no signature of a key that counts"}),
    "a forged record with another's signature": (
        forge_a_record_with_a_signature_of_its_own,
        {"records": "9-verify.json: no signature of a key that counts"},
    ),
    "a set removed with its lines": (
        remove_a_set_with_its_lines,
        {"sets as witnessed": "{1}: a witness saw it, and it is gone", "sets in order": "number 2 is neither here nor"},
    ),
    "the newest set removed with its lines": (
        remove_the_newest_set_with_its_lines,
        {"sets as witnessed": "{2}: a witness saw it, and it is gone", "ledger as witnessed": "cut off"},
    ),
    "a set removed, and a line about it": (
        remove_a_set_and_write_a_line_that_says_so,
        {
            "sets as witnessed": "{0}: a witness saw it, and it is gone",
            "sets entered": "{0}: was published and is gone",
        },
    ),
}
# What the host alone can tell, by its key: these need no witness.
BY_THE_HOST_ALONE = {name for name, (_attack, named) in ATTACKS.items() if not all("witness" in key for key in named)}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three sets, each witnessed when it was published; one of them with a record; and a copy of the time of two."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.witnessed(site.publish(b"first"))
    first = site.sets()[0].name
    record_failure(site, first)
    site.witnessed(site.publish(b"second"))
    shutil.copytree(site.root, site.folder / "older")
    site.witnessed(site.publish(b"third"))
    return site


def record_failure(site: Site, set_id: str) -> None:
    """A genuine record: the proof of a dump that is none fails."""
    done = site.module("backup_verify", set=set_id, level="toc")
    assert done["verdict"] == "fail" and done["record"]


@pytest.fixture
def site(pristine: Site, tmp_path: Path) -> Site:
    """A copy for one attack; the witness's book stays out of the attacker's reach."""
    shutil.copytree(pristine.folder, tmp_path / "site", symlinks=True)
    return Site(tmp_path / "site")


def failed(result: dict[str, t.Any]) -> dict[str, str]:
    return {check["name"]: check["reason"] for check in result["checks"] if check["verdict"] == "fail"}


def test_what_nobody_touched_passes(site: Site) -> None:
    result = site.verify(site.testimony())
    assert (result["verdict"], failed(result)) == ("pass", {}), result["checks"]
    assert {check["verdict"] for check in result["checks"]} == {"pass"}
    assert result["summary"] == "pass: signed by the host, as a witness saw it, without a pinned policy"
    assert [found["verdict"] for found in result["sets"].values()] == ["pass"] * 3


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_named(site: Site, name: str) -> None:
    attack, named = ATTACKS[name]
    ids = [folder.name for folder in site.sets()]
    testimony = site.testimony()
    attack(site)
    result = site.verify(testimony)
    found = failed(result)
    assert result["verdict"] == "fail"
    assert result["summary"].startswith("fail: ")
    for check, part in named.items():
        assert part.format(*ids) in found.get(check, ""), (check, result["checks"])


@pytest.mark.parametrize("name", sorted(BY_THE_HOST_ALONE))
def test_what_needs_no_witness(site: Site, name: str) -> None:
    ATTACKS[name][0](site)
    result = site.verify(without_witness=True)
    assert result["verdict"] == "fail", result["checks"]


def test_only_a_witness_can_tell_of_the_rest(site: Site) -> None:
    """Else the tests above would prove nothing about the witness."""
    for name in sorted(ATTACKS.keys() - BY_THE_HOST_ALONE):
        copy = Site(site.folder / name.replace(" ", "-"))
        copy.folder.mkdir()
        shutil.copytree(site.root, copy.root)
        shutil.copytree(site.folder / "older", copy.folder / "older")
        ATTACKS[name][0](copy)
        result = copy.verify(without_witness=True)
        assert "ledger as witnessed" not in failed(result)


def test_an_attack_that_is_older_than_the_next_backup_is_still_found(site: Site) -> None:
    """The witness sees the ledger again, and doesn't take what is there for what was there."""
    before = len(lines(site))
    cut_the_end(site)
    for number in range(2):
        site.witnessed(site.publish(b"more %d" % number))
    assert len(lines(site)) > before
    assert "was rewritten" in failed(site.verify(site.testimony()))["ledger as witnessed"]


def test_the_next_backup_is_red_when_the_ledger_got_shorter(site: Site) -> None:
    for folder in site.sets()[1:]:
        shutil.rmtree(folder)
    rebuild(site, lines(site)[:1])
    seen = site.witnessed(site.publish(b"another second"))
    assert seen["verdict"] == "fail"
    assert {check["name"] for check in seen["checks"] if check["verdict"] == "fail"} == {"ledger", "set"}
    assert seen["line"], "what was seen is kept all the same"


def test_the_manifests_word_doesnt_count_after_an_attack(site: Site) -> None:
    """What lists sets, and what chooses `latest`, sees it without a witness."""
    edit_manifest(site)
    found = site.module("recovery_set_info", set="latest")
    verdicts = {entry["set_id"]: (entry["verdict"], entry["doubts"]) for entry in found["sets"]}
    verdict, doubts = verdicts[site.sets()[1].name]
    assert verdict == "fail" and any(doubt.startswith("signature: ") for doubt in doubts)
    assert found["selected"]["set_id"] == site.sets()[2].name


def test_a_record_of_a_failure_cant_be_outvoted(site: Site) -> None:
    forge_a_record(site)
    found = site.module("recovery_set_info")
    (first,) = (entry for entry in found["sets"] if entry["set_id"] == site.sets()[0].name)
    assert first["verdict"] == "fail"


def test_a_set_that_was_removed_on_purpose_is_no_attack(site: Site) -> None:
    """The counterpart of removing one: the host's key has signed that."""
    gone = site.sets()[0]
    shutil.rmtree(gone)
    assert site.verify(site.testimony())["verdict"] == "fail"
    write_record(str(site.root), gone.name, "removed", {"reason": "retention"}, own_trust())
    result = site.verify(site.testimony())
    assert result["verdict"] == "pass", result["checks"]


def test_a_witness_that_saw_nothing_proves_nothing(site: Site) -> None:
    result = site.verify()
    assert result["verdict"] == "unproven"
    missing = {check["name"] for check in result["checks"] if check["verdict"] == "unproven"}
    assert missing == {"ledger as witnessed", "sets as witnessed", "host key", "time"}
    assert site.verify(without_witness=True)["verdict"] == "pass"


def test_another_installations_testimony_doesnt_fit(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    other.witnessed(other.publish(b"elsewhere"))
    assert site.verify(other.testimony())["verdict"] == "fail"


def test_a_changed_book_of_the_witness_is_no_proof(site: Site) -> None:
    book = site.witness / f"{HOSTNAME}.jsonl"
    text = book.read_text(encoding="utf-8")
    last = text.splitlines()[-1]
    book.write_text(text.replace(last, last.replace('"time":"pass"', '"time":"xxxx"')), encoding="utf-8")
    read = site.module("recovery_set_witness", installation=HOSTNAME, state="read")
    assert read["verdict"] == "fail" and "not signed by this witness" in read["summary"]
    assert site.verify(read["testimony"])["verdict"] == "fail"
