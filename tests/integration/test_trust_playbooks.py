# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""backup.yml and verify.yml with a witness: green where nothing happened, red where something did or nobody looked."""

from __future__ import annotations

import json
import re
import shutil
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.module_utils._sums import sums_text
from support.flow import sample
from support.keys import signing_key
from support.plays import HOSTNAME, TOP, Installation, Play, installed
from support.servers import PgServer, installations

LEDGER = "Recovery set | Are ledger, sets and records what the host signed and the witness saw?"
REQUIRED = {
    "ledger": LEDGER,
    "checksums": "Recovery set | Are the bytes of every set those that were published?",
    "newest": "Recovery set | Prove the newest one, or the one that was named",
}


@dataclass(frozen=True)
class Host:
    """An installation with two sets, and a copy of its backups to go back to."""

    installation: Installation
    copy: Path

    def verify(self, *arguments: str, **extra: t.Any) -> Play:
        return self.installation.play("verify", *arguments, mazevault_verify_level="toc", **extra)

    def restored(self) -> None:
        shutil.rmtree(self.installation.root)
        shutil.copytree(self.copy, self.installation.root)

    @property
    def book(self) -> Path:
        return self.installation.folder / f"home/.mazevault-backup/witness/{HOSTNAME}.jsonl"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("installation")
    with PgServer(installations()[0]) as server, installed(server, folder) as installation:
        for _number in range(2):
            done = installation.play("backup", mazevault_verify_level="toc")
            assert done.rc == 0, done.output
            assert done.changed == ["Recovery set | Publish"]
        copy = folder / "copy"
        shutil.copytree(installation.root, copy)
        yield Host(installation, copy)


@pytest.fixture
def fresh(host: Host) -> Iterator[Host]:
    """With the book as it was too: each test is about one attack."""
    before = host.book.read_bytes()
    host.restored()
    yield host
    host.book.write_bytes(before)
    host.restored()


def ledger_of(play: Play) -> dict[str, t.Any]:
    (found,) = play.of("ledger_verify")
    return found


def test_what_nobody_touched_is_green_and_witnessed(fresh: Host) -> None:
    lines = len(fresh.book.read_text(encoding="utf-8").splitlines())
    done = fresh.verify()
    assert done.rc == 0, done.output
    assert ledger_of(done)["summary"] == "pass: signed by the host, as a witness saw it, without a pinned policy"
    assert "ledger: pass: signed by the host, as a witness saw it" in done.output
    assert done.changed == []
    book = [json.loads(line) for line in fresh.book.read_text(encoding="utf-8").splitlines()]
    assert len(book) == lines + 1, "the records that were made now are seen now"


def test_a_check_looks_and_writes_nothing(fresh: Host) -> None:
    before = fresh.book.read_bytes()
    done = fresh.verify("--check", "--diff")
    assert done.rc == 0, done.output
    assert ledger_of(done)["verdict"] == "pass"
    assert fresh.book.read_bytes() == before


def test_a_root_that_was_put_back_is_red(fresh: Host) -> None:
    done = fresh.installation.play("backup", mazevault_verify_level="toc")
    assert done.rc == 0, done.output
    fresh.restored()
    seen = fresh.book.read_bytes()
    done = fresh.verify()
    assert done.rc != 0
    assert "an older copy took its place" in ledger_of(done)["summary"]
    assert "ledger: fail: " in done.output
    assert fresh.book.read_bytes() == seen, "what contradicts the witness doesn't become its truth"


def test_an_edited_manifest_with_fixed_sums_is_red(fresh: Host) -> None:
    folder = sorted((fresh.installation.root / "sets").iterdir())[0]
    path = folder / "manifest.json"
    old = path.read_bytes()
    path.write_bytes(old.replace(b'"reason": "manual"', b'"reason": "rotation"'))
    assert path.read_bytes() != old
    (folder / "SHA256SUMS").write_text(sums_text(str(folder)), encoding="utf-8")
    done = fresh.verify()
    assert done.rc != 0
    assert f"{folder.name}: signature: " in ledger_of(done)["summary"]


def test_without_a_witness_it_says_so(fresh: Host) -> None:
    done = fresh.verify(mazevault_witness="false")
    assert done.rc == 0, done.output
    assert "pass: signed by the host, and seen by no witness" in done.output
    assert done.of("recovery_set_witness") == []


def test_an_empty_path_of_the_key_means_the_usual_one(fresh: Host) -> None:
    """Only in check mode: as root the usual one is the machine's own."""
    done = fresh.installation.play("backup", "--check", mazevault_signing_key="")
    assert done.rc == 0, done.output
    assert done.of("recovery_set_info")[0]["ledger"]["ledger_lines"] > 0


def test_a_witness_that_forgot_proves_nothing(fresh: Host) -> None:
    done = fresh.verify(mazevault_witness_folder=str(fresh.installation.folder / "another"))
    assert done.rc != 0
    assert "unproven: ledger as witnessed: no witness has seen this ledger" in done.output


@pytest.mark.parametrize("without", sample(list(REQUIRED), 1))
def test_a_required_check_that_is_left_out_is_no_pass(fresh: Host, tmp_path: Path, without: str) -> None:
    """The same playbook from a checkout in which somebody has removed one task."""
    for name in ("plugins", "roles", "meta"):
        shutil.copytree(TOP / name, tmp_path / name)
    shutil.copytree(TOP / "playbooks", tmp_path / "playbooks", symlinks=True)
    shutil.copy(TOP / "galaxy.yml", tmp_path)
    path = tmp_path / "roles/mazevault_recovery_set/tasks/verify.yml"
    tasks = yaml.safe_load(path.read_text(encoding="utf-8"))
    kept = [task for task in tasks if task["name"] != REQUIRED[without]]
    assert len(kept) == len(tasks) - 1
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    inventory = fresh.installation.place.write_inventory({HOSTNAME: fresh.installation.variables()})
    done = fresh.installation.place.run(
        tmp_path / "playbooks/verify.yml", inventory, extra={"mazevault_verify_level": "toc"}
    )
    assert done.rc != 0
    (said,) = done.failures
    assert re.match(
        r"Not everything is proven \(unproven\): \S+: unproven: (it was|its bytes were) not looked at", said.msg
    )


def test_a_pinned_policy_holds_against_extra_variables(fresh: Host) -> None:
    """What runs as it should is green, what somebody weakened isn't, and nothing that it proves says pass."""
    policy = fresh.installation.folder / "policy.yml"
    policy.write_text(f"installations: [{HOSTNAME}]\nverify_level: checksum\nwitness: true\n", encoding="utf-8")
    key = fresh.installation.folder / "etc/host.key"
    key.parent.mkdir()
    shutil.copy(signing_key(), key)
    own = {"mazevault_signing_key": str(key)}
    done = fresh.installation.play("pin_policy", mazevault_policy_file=str(policy), **own)
    assert done.rc == 0, done.output
    assert done.changed == ["Policy | Pin it"]
    assert fresh.installation.play("pin_policy", mazevault_policy_file=str(policy), **own).changed == []
    done = fresh.installation.play("verify", mazevault_verify_level="checksum", **own)
    assert ledger_of(done)["summary"] == "pass: signed by the host, as a witness saw it"
    assert done.rc == 0, done.output
    for name, weaker in (
        ("verify_level", {"mazevault_verify_level": "toc"}),
        ("witness", {"mazevault_witness": False}),
    ):
        done = fresh.installation.play("verify", **{"mazevault_verify_level": "checksum", **own, **weaker})
        assert done.rc != 0
        assert f"policy overridden: {name}" in ledger_of(done)["summary"]
    done = fresh.installation.play("backup", mazevault_verify_level="toc", **own)
    assert "policy overridden: verify_level" in done.output
    newest = sorted((fresh.installation.root / "sets").iterdir())[-1]
    manifest = json.loads((newest / "manifest.json").read_bytes())
    assert manifest["policy_overridden"] == ["verify_level"] and manifest["policy_sha256"]


def test_a_person_accepts_a_ledger_that_was_lost(fresh: Host) -> None:
    (fresh.installation.root / "ledger.jsonl").unlink()
    assert fresh.verify().rc != 0
    why = {"mazevault_accept_by": "A. Person", "mazevault_accept_reason": "the disk was replaced"}
    refused = fresh.installation.play("accept_ledger", **why)
    assert refused.rc != 0 and f"mazevault_confirm={HOSTNAME}" in refused.failures[0].msg
    done = fresh.installation.play("accept_ledger", mazevault_confirm=HOSTNAME, **why)
    assert done.rc == 0, done.output
    done = fresh.verify()
    assert done.rc == 0, done.output
