# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An identity takes another one's place: old sets are opened by the new one, and stay as they were."""

from __future__ import annotations

import shutil
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.flow import Flow, count
from support.identities import Custodians, Identity, make_custodians, make_identity, open_by_hand, schemes
from support.modules import Outcome, run_module
from support.plays import tree_state
from support.servers import PgServer, installations

SETS = count(5, 50)


@dataclass(frozen=True)
class Archive:
    """Sets that two identities open, and a third that is to take the place of the first."""

    flow: Flow
    custodians: Custodians
    new: Identity
    sets: list[Path]

    def rewrap(self, identity: Identity, *recipients: Identity, check: bool = False, **more: t.Any) -> Outcome:
        params = {
            "backup_root": str(self.flow.root),
            "class": "data",
            "recipients": [one.text for one in recipients],
            "identity_file": str(identity.private),
            **more,
        }
        return run_module("recovery_set_access", params, check=check, diff=True)

    def opened_by(self, identity: Identity) -> list[Outcome]:
        """For each set, what proving it to level read with this identity says."""
        params = {"backup_root": str(self.flow.root), **self.flow.programs, "level": "read"}
        opening = {"identity_file": str(identity.private)}
        return [run_module("backup_verify", {**params, **opening, "set": path.name}) for path in self.sets]


@pytest.fixture(scope="module", params=schemes())
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("access")
    custodians = make_custodians(folder / "custodians", request.param)
    with PgServer(installations()[0]) as server:
        server.query("CREATE TABLE one AS SELECT generate_series(1, 10) AS i")
        flow = Flow(server, folder / "backups", protection=custodians.protection)
        sets = [Path(flow.publish()["path"]) for _number in range(SETS)]
        new = make_identity(folder / "custodians", "data-c", request.param)
        yield Archive(flow, custodians, new, sets)


def test_the_new_identity_opens_old_sets_and_they_stay_as_they_are(archive: Archive, tmp_path: Path) -> None:
    old, other = archive.custodians.data
    before = tree_state(archive.flow.root / "sets")
    assert [done.rc != 0 for done in archive.opened_by(archive.new)] == [True] * SETS, "positive control"
    everything = tree_state(archive.flow.root)
    preview = archive.rewrap(old, other, archive.new, check=True)
    assert (preview.rc, preview.result["changed"]) == (0, True), preview.result
    assert tree_state(archive.flow.root) == everything, "check mode changes nothing"
    done = archive.rewrap(old, other, archive.new)
    assert (done.rc, done.result["changed"]) == (0, True), done.result
    assert done.result["changed_sets"] == preview.result["changed_sets"] == [path.name for path in archive.sets]
    assert done.result["diff"] == preview.result["diff"]
    assert tree_state(archive.flow.root / "sets") == before
    proofs = archive.opened_by(archive.new)
    assert [proof.result["verdict"] for proof in proofs] == ["pass"] * SETS
    # By stock programs too: the new file lies where the set's own would.
    for path in archive.sets:
        copy = tmp_path / path.name
        shutil.copytree(path, copy)
        (later,) = (archive.flow.root / "records" / path.name / "access").glob("data.*.key.[ac]*[!n]")
        shutil.copy(later, copy / f"access/data.key.{archive.custodians.scheme}")
        assert open_by_hand(copy, archive.new.private, "data", tmp_path / f"{path.name}.key").returncode == 0
    again = archive.rewrap(old, archive.new, other)
    assert (again.rc, again.result["changed"], again.result["changed_sets"]) == (0, False, [])


def test_who_opens_nothing_gives_nothing_away(archive: Archive, tmp_path: Path) -> None:
    before = tree_state(archive.flow.root)
    stranger = make_identity(tmp_path, "stranger", archive.custodians.scheme)
    done = archive.rewrap(archive.custodians.keys[0], stranger, archive.new)
    assert done.rc != 0
    assert f"doesn't open {SETS} of {SETS} sets" in done.result["msg"]
    assert set(done.result["unopened"]) == {path.name for path in archive.sets}
    assert tree_state(archive.flow.root) == before


def test_one_recipient_is_none(archive: Archive) -> None:
    before = tree_state(archive.flow.root)
    done = archive.rewrap(archive.custodians.data[0], archive.new, archive.new)
    assert done.rc != 0 and "recipients: 1: when one identity is lost" in done.result["msg"]
    assert tree_state(archive.flow.root) == before


def test_a_forged_key_is_not_taken(archive: Archive) -> None:
    """Whoever may write beside the sets can put a key of his own there; it isn't this set's."""
    path = archive.sets[-1]
    folder = archive.flow.root / "records" / path.name / "access"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"data.99991231_000000_000000.key.{archive.custodians.scheme}"
    source = archive.sets[0] / f"access/data.key.{archive.custodians.scheme}"
    shutil.copy(source, folder / name)
    (folder / f"{name}.json").write_text('{"recipients": []}')
    params = {"backup_root": str(archive.flow.root), **archive.flow.programs, "set": path.name, "level": "read"}
    with_identity = {**params, "identity_file": str(archive.custodians.data[0].private)}
    assert run_module("backup_verify", with_identity).result["verdict"] == "pass", "the set's own is still there"
    own = path / f"access/data.key.{archive.custodians.scheme}"
    kept = own.read_bytes()
    shutil.copy(source, own)
    try:
        done = run_module("backup_verify", with_identity)
        assert done.rc != 0 and "isn't the key of this set" in done.result["msg"]
    finally:
        own.write_bytes(kept)
    (folder / name).unlink()
    assert run_module("backup_verify", with_identity).result["verdict"] == "pass"
