# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets are readable for their recipients and for nobody else, proven from the bytes that were written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import compare
from support.by_hand import run_blocks, stock_tools
from support.flow import HOSTNAME, Flow
from support.identities import (
    Custodians,
    expired_certificate,
    make_custodians,
    make_identity,
    open_by_hand,
    schemes,
)
from support.modules import Outcome, run_module
from support.servers import PgServer, installations

CANARY = "canary-7f3a91c2d4e8"
CONTENT = f"""
CREATE ROLE auditor;
CREATE TABLE secrets (id serial PRIMARY KEY, name text, value bytea);
INSERT INTO secrets (name, value) SELECT '{CANARY} ' || i, sha256(i::text::bytea) FROM generate_series(1, 3000) AS i;
SELECT lo_from_bytea(0, convert_to('{CANARY}', 'UTF8'));
GRANT SELECT ON secrets TO auditor;
COMMENT ON TABLE secrets IS '{CANARY}';
"""


@pytest.fixture(scope="module", params=installations()[:1], ids=str)
def source(request: pytest.FixtureRequest) -> Iterator[PgServer]:
    with PgServer(request.param) as server:
        server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname="mazevault", stdin=CONTENT)
        yield server


@pytest.fixture(scope="module", params=schemes())
def custodians(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Custodians:
    return make_custodians(tmp_path_factory.mktemp("custodians"), request.param)


@pytest.fixture(scope="module")
def flow(source: PgServer, custodians: Custodians, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    return Flow(source, tmp_path_factory.mktemp("encrypted") / "backups", protection=custodians.protection)


@pytest.fixture(scope="module")
def published(flow: Flow) -> Path:
    return Path(flow.publish(level="restore")["path"])


def in_memory(root: Path) -> set[Path]:
    """Folders on file systems in memory that runs of this backup root have made; other tests have theirs."""
    mark = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    places = [Path(place) for place in ("/run", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm") if place]
    return {found for place in places for found in place.glob(f"mazevault-*{mark}*")}


def test_a_set_shows_nothing_to_who_has_no_key(published: Path, custodians: Custodians) -> None:
    names = {path.name for path in published.rglob("*") if path.is_file()}
    plain = {"manifest.json", "SHA256SUMS", "SHA256SUMS.sig", "RESTORE.md"}
    plain |= {"data.crt", "keys.crt", "data.recipient", "keys.recipient"}
    assert {name for name in names - plain if not name.endswith(f".{custodians.scheme}")} == set()
    assert len([path for path in (published / "postgres").iterdir() if path.is_file()]) == 4
    for path in published.rglob("*"):
        if path.is_file():
            # A table is called secrets; a file that no set holds is secrets.vault.
            content = path.read_bytes().replace(b"secrets.vault", b"")
            for told in (CANARY, "secrets", "auditor"):
                assert told.encode() not in content, (path, told)
    manifest = json.loads((published / "manifest.json").read_text())
    assert "encryption" not in manifest["missing_protection"]
    assert manifest["verification"]["verdict"] == "pass" and manifest["verification"]["level"] == "restore"
    assert [len(manifest["recipients"][name]) for name in ("data", "keys")] == [2, 2]


def test_its_keys_are_forgotten(published: Path) -> None:
    assert published.is_dir()
    assert in_memory(published.parents[1]) == set()


@pytest.mark.parametrize("number", [0, 1])
def test_each_recipient_opens_it_alone(
    flow: Flow, published: Path, custodians: Custodians, number: int, tmp_path: Path
) -> None:
    by_identity = flow.must(
        "backup_verify",
        **flow.programs,
        set=published.name,
        level="restore",
        identity_file=str(custodians.data[number].private),
    )
    assert (by_identity["verdict"], by_identity["level"]) == ("pass", "restore"), by_identity["summary"]
    key = tmp_path / "data.key"
    assert open_by_hand(published, custodians.data[number].private, "data", key).returncode == 0
    assert b"proof code" in key.read_bytes()
    by_key = flow.must("backup_verify", **flow.programs, set=published.name, level="read", set_key_file=str(key))
    assert (by_key["verdict"], by_key["level"]) == ("pass", "read"), by_key["summary"]


def test_without_a_key_only_its_bytes_are_proven(flow: Flow, published: Path) -> None:
    assert flow.verify(published.name, "checksum")["verdict"] == "pass"
    found = flow.verify(published.name, "restore")
    assert (found["verdict"], found["level"]) == ("unproven", "checksum")
    assert "encrypted" in found["summary"]


def test_nobody_else_opens_it(flow: Flow, published: Path, custodians: Custodians, tmp_path: Path) -> None:
    stranger = make_identity(tmp_path, "stranger", custodians.scheme)
    # Who opens the keys doesn't open the data, nor the other way round.
    for private in (stranger.private, custodians.keys[0].private):
        done = run_module(
            "backup_verify",
            {"backup_root": str(flow.root), **flow.programs, "set": published.name, "identity_file": str(private)},
        )
        assert done.rc != 0
        assert f"identity_file: {private}: doesn't open" in done.result["msg"]
    for name, identity in (("data", custodians.keys[0]), ("keys", custodians.data[0])):
        target = tmp_path / f"{name}.key"
        assert open_by_hand(published, identity.private, name, target).returncode != 0
        assert not target.exists() or b"PRIVATE KEY" not in target.read_bytes()


def test_a_passphrase_is_not_asked_for(flow: Flow, published: Path, custodians: Custodians, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    if custodians.scheme == "age":
        # age makes one at a terminal only; this is how it begins.
        locked.write_text("age-encryption.org/v1\n-> scrypt bm90IG9mIG91cnM 18\n", encoding="ascii")
    else:
        words = ["openssl", "pkcs8", "-topk8", "-in", custodians.data[0].private, "-out", locked]
        subprocess.run([*words, "-passout", "pass:none-of-ours"], check=True)
    locked.chmod(0o600)
    params = {"backup_root": str(flow.root), **flow.programs, "set": published.name, "identity_file": str(locked)}
    done = run_module("backup_verify", params)
    assert done.rc != 0 and "is protected by a passphrase" in done.result["msg"]


def test_another_sets_key_is_refused(flow: Flow, published: Path, custodians: Custodians, tmp_path: Path) -> None:
    other = Path(flow.publish()["path"])
    key = tmp_path / "data.key"
    assert open_by_hand(other, custodians.data[0].private, "data", key).returncode == 0
    params = {"backup_root": str(flow.root), **flow.programs, "set": published.name, "set_key_file": str(key)}
    done = run_module("backup_verify", params)
    assert done.rc != 0 and "isn't the key of class data of" in done.result["msg"]
    key.chmod(0o644)
    done = run_module("backup_verify", params)
    assert done.rc != 0 and "others may read it" in done.result["msg"]


def test_restore_md_opens_it_with_stock_tools(
    source: PgServer, published: Path, custodians: Custodians, tmp_path: Path
) -> None:
    key = tmp_path / "data.key"
    assert open_by_hand(published, custodians.data[1].private, "data", key).returncode == 0
    tools = stock_tools(tmp_path / "tools", source.install)
    if custodians.scheme == "age":
        (tools / "age").symlink_to(str(shutil.which("age")))
    with PgServer(source.install, database="postgres") as fresh:
        done = run_blocks(published, fresh, tools, DATA_KEY=str(key))
        assert (done.rc, done.output, done.done) == (0, "", done.blocks)
        assert compare.difference(compare.state_of(source, "mazevault"), compare.state_of(fresh, "mazevault")) == []


@pytest.mark.parametrize("with_sums", [False, True], ids=["sums as published", "sums mended"])
def test_a_flipped_bit_is_found(
    flow: Flow, custodians: Custodians, published: Path, with_sums: bool, tmp_path: Path
) -> None:
    folder = Path(flow.publish(level="read")["path"])
    victim = next((folder / "postgres").glob("database.dump.zst*"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    identity = {"identity_file": str(custodians.data[0].private)}
    if with_sums:
        # Somebody who can compute sums, and whose manifest says so too: the key still tells.
        manifest = json.loads((folder / "manifest.json").read_text())
        for artefact in manifest["artefacts"]:
            if artefact["path"] == "postgres/database.dump.zst":
                artefact["sha256"] = subprocess.run(
                    ["sha256sum", victim], check=True, capture_output=True, encoding="ascii"
                ).stdout.split()[0]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        files.remove("SHA256SUMS")
        sums = subprocess.run(["sha256sum", *files], cwd=folder, check=True, capture_output=True).stdout
        (folder / "SHA256SUMS").write_bytes(sums)
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    found = flow.must("backup_verify", **flow.programs, set=folder.name, level="read", **identity)
    assert found["verdict"] == "fail"
    assert not with_sums or "doesn't open" in str(found["checks"])
    assert (
        flow.must("backup_verify", **flow.programs, set=published.name, level="read", **identity)["verdict"] == "pass"
    )
    shutil.rmtree(folder)


def test_restore_and_swap_with_the_set_key(
    source: PgServer, flow: Flow, published: Path, custodians: Custodians, tmp_path: Path
) -> None:
    key = tmp_path / "data.key"
    assert open_by_hand(published, custodians.data[0].private, "data", key).returncode == 0
    before = compare.state_of(source, "mazevault")
    source.run("psql", "-X", "-q", dbname="mazevault", stdin="DELETE FROM secrets WHERE id > 5;")
    with flow.staging("restore") as set_id:
        done = flow.try_restore(published.name, set_id)
        assert done.rc != 0 and "its key isn't here" in done.result["msg"]
    Flow(source, flow.root, opened_by={"set_key_file": str(key)}).restore_and_swap(published.name)
    assert compare.difference(before, compare.state_of(source, "mazevault")) == []
    assert in_memory(flow.root) == set()


def in_place(flow: Flow, custodians: Custodians, wanted: str) -> Outcome:
    """As the playbook does it: a safety set of what is live, whose key is kept for the restore."""
    set_id = str(flow.must("recovery_set", state="open")["set_id"])
    flow.must("pg_dump", **flow.connection, **flow.programs, set_id=set_id)
    sealed = flow.must("recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME, keep_key=True)
    assert stat.S_IMODE(Path(sealed["set_key_file"]).stat().st_mode) == 0o600
    nothing = [sys.executable, "-c", "pass"]
    with flow.staging("restore") as staging:
        done = flow.try_restore(
            wanted,
            staging,
            mode="in_place",
            confirm=HOSTNAME,
            inventory_hostname=HOSTNAME,
            safety_set=set_id,
            safety_set_key_file=sealed["set_key_file"],
            identity_file=str(custodians.data[0].private),
            application_stop=nothing,
            application_start=nothing,
        )
    assert in_memory(flow.root) == set()
    return done


def test_in_place(source: PgServer, flow: Flow, custodians: Custodians) -> None:
    before = compare.state_of(source, "mazevault")
    wanted = flow.publish()["set_id"]
    source.query("DELETE FROM secrets WHERE id > 7")
    done = in_place(flow, custodians, wanted)
    assert done.rc == 0, done.result
    assert done.result["verdict"] == "pass"
    assert compare.difference(before, compare.state_of(source, "mazevault")) == []


def test_in_place_goes_back_to_the_encrypted_safety_set(source: PgServer, flow: Flow, custodians: Custodians) -> None:
    broken = "CREATE TABLE a(i int PRIMARY KEY); CREATE TABLE b(i int REFERENCES a);"
    broken += " SET session_replication_role = replica; INSERT INTO b VALUES (7)"
    source.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname="mazevault", stdin=broken)
    wanted = flow.publish()["set_id"]
    source.query("DROP TABLE b, a")
    now = compare.state_of(source, "mazevault")
    done = in_place(flow, custodians, wanted)
    assert done.rc != 0
    assert "safety set" in done.result["msg"]
    assert compare.difference(now, compare.state_of(source, "mazevault")) == []


def test_keys_of_a_dead_run_go_with_the_next(flow: Flow) -> None:
    done = run_module(
        "recovery_set",
        {"backup_root": str(flow.root), "state": "open", "stale_after": 0.2, **flow.protection},
    )
    assert done.rc == 0
    assert len(in_memory(flow.root)) == 1
    following = flow.must("recovery_set", state="open", stale_after=0.2)
    assert following["removed"] == [done.result["set_id"]]
    assert len(in_memory(flow.root)) == 1
    flow.must("recovery_set", state="aborted", set_id=following["set_id"])
    assert in_memory(flow.root) == set()


def refusals(custodians: Custodians, folder: Path) -> dict[str, tuple[dict[str, t.Any], str]]:
    good = custodians.protection
    one = good["recipients_data"][:1]
    expired = expired_certificate(folder) if custodians.scheme == "cms" else "age1short"
    other = "age" if custodians.scheme == "cms" else "cms"
    return {
        "nobody": ({**good, "recipients_data": []}, "recipients_data: empty"),
        "one": ({**good, "recipients_data": one}, "recipients_data: one recipient only"),
        "one twice": ({**good, "recipients_data": one * 2}, "recipients_data: one recipient only"),
        "one for both": (
            {**good, "recipients_keys": [*one, good["recipients_keys"][0]]},
            "is among recipients_data too",
        ),
        "plain without a reason": ({"encryption": "none"}, "encryption: none, without a reason"),
        "nonsense": ({**good, "recipients_keys": ["nonsense", "more"]}, "recipients_keys: 'nonsense': not a"),
        "out of date": ({**good, "recipients_data": [expired, *one]}, "recipients_data"),
        "of another scheme": ({**good, "encryption": other}, "recipients_data"),
    }


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_what_is_refused(custodians: Custodians, check: bool, tmp_path: Path) -> None:
    root = tmp_path / "backups"
    for name, (params, said) in refusals(custodians, tmp_path).items():
        done = run_module("recovery_set", {"backup_root": str(root), "state": "open", **params}, check=check)
        assert done.rc != 0, name
        assert said in done.result["msg"], (name, done.result["msg"])
        assert not root.exists(), name


def test_a_reason_allows_one_recipient_and_is_kept(source: PgServer, custodians: Custodians, tmp_path: Path) -> None:
    reason = "the second custodian starts in May"
    one = {**custodians.protection, "recipients_data": custodians.protection["recipients_data"][:1]}
    flow = Flow(source, tmp_path / "backups", protection={**one, "encryption_reason": reason})
    folder = Path(flow.publish()["path"])
    assert json.loads((folder / "manifest.json").read_text())["encryption"]["reason"] == reason
    assert reason in (flow.root / "ledger.jsonl").read_text()
    assert HOSTNAME in (folder / "manifest.json").read_text()
