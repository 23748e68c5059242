# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations: the same material has the same id, other material another one, and no value is ever written."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import random
import secrets
import stat
import tempfile
import typing as t
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _generations, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._fingerprint import (
    FingerprintKey,
    is_strong,
    is_strong_file,
)
from ansible_collections.mazevault.backup.plugins.module_utils._generations import Generation, adopt, current, known
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from support.keys import own_trust

_CHANCE = random.Random(20261123)


def drawn_by_chance() -> str:
    """The same in each run of the tests."""
    return _CHANCE.randbytes(32).hex()


VALUES = {
    "MASTER_KEY": drawn_by_chance(),
    "JWT_SECRET": "q3Vt9ZkR0eXbW7uLh2Yc8mPfS5oNa1Gd4Ij6TzKx",
    "POSTGRES_PASSWORD": "changeme",
}
FILES = {"secrets.vault": os.urandom(300), "vault.key": drawn_by_chance().encode() + b"\n"}
TYPED = [
    "changeme",
    "correct horse battery staple correct horse",
    "correcthorsebatterystaplecorrecthorse",
    "CorrectHorseBatteryStapleForTheVault2026",
    "Prod-Db-2024-Password-Prague-01",
    "0123456789abcdef0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "deadbeefdeadbeefdeadbeefdeadbeef",
    "00000000000000000000000000000000",
    "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3",
    "1234567890123456789012345678901234567890",
    "postgres://mazevault:Kx82mQpR41vB@db:5432/mazevault",
    "tajneheslodotrezoru1234",
    "qwertyuiopasdfghjklzxcvbnm1234567890",
    "",
]


@pytest.fixture(scope="module")
def trust() -> Trust:
    return own_trust()


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "root").mkdir(mode=0o700)
    return str(tmp_path / "root")


def state(root: str) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads((Path(root) / "generations.json").read_text(encoding="utf-8"))
    return found


def changed(name: str, value: str) -> dict[str, str]:
    return {**VALUES, name: value}


def everything_written(*folders: str) -> bytes:
    """All that lies below some folders, as a thief of it would get it."""
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return b"\n".join(path.read_bytes() for path in paths)


def test_the_same_material_has_the_same_id(root: str, trust: Trust) -> None:
    first = current(root, VALUES, FILES, trust)
    assert (first.new, first.weak, len(first.id)) == (True, ("POSTGRES_PASSWORD",), 16)
    before = (Path(root) / "generations.json").stat()
    for _run in range(10):
        again = current(root, dict(reversed(VALUES.items())), FILES, trust)
        assert (again.id, again.new, again.changed) == (first.id, False, ())
    after = (Path(root) / "generations.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [entry["id"] for entry in known(root, trust)] == [first.id]


@pytest.mark.parametrize(
    ("values", "files", "names"),
    [
        (changed("MASTER_KEY", drawn_by_chance()), FILES, ("MASTER_KEY",)),
        (changed("JWT_SECRET", drawn_by_chance()), FILES, ("JWT_SECRET",)),
        (VALUES, {**FILES, "secrets.vault": os.urandom(300)}, ("secrets.vault",)),
        (VALUES, {**FILES, "vault.key": drawn_by_chance().encode()}, ("vault.key",)),
        ({name: VALUES[name] for name in ("MASTER_KEY", "POSTGRES_PASSWORD")}, FILES, ("JWT_SECRET",)),
        (VALUES, {}, ("secrets.vault", "vault.key")),
    ],
)
def test_other_material_is_another_generation(
    root: str, trust: Trust, values: dict[str, str], files: dict[str, bytes], names: tuple[str, ...]
) -> None:
    first = current(root, VALUES, FILES, trust)
    second = current(root, values, files, trust)
    assert second.new
    assert second.id != first.id
    assert set(second.changed) - {"POSTGRES_PASSWORD"} == set(names)


def test_a_flipped_bit_is_another_generation(root: str, trust: Trust) -> None:
    first = current(root, VALUES, FILES, trust)
    vault = bytearray(FILES["secrets.vault"])
    vault[150] ^= 1
    assert current(root, VALUES, {**FILES, "secrets.vault": bytes(vault)}, trust).id != first.id


def test_twenty_rotations_are_twenty_generations_and_each_is_found_again(root: str, trust: Trust) -> None:
    materials = [{"MASTER_KEY": drawn_by_chance(), "JWT_SECRET": drawn_by_chance()} for _rotation in range(20)]
    ids = []
    for values in materials:
        ids.append(current(root, values, {}, trust).id)
        assert current(root, values, {}, trust) == Generation(ids[-1], False, known(root, trust)[-1]["first_seen"])
    assert len(set(ids)) == 20
    assert [entry["id"] for entry in known(root, trust)] == ids
    assert current(root, materials[3], {}, trust).id == ids[3], "an older one came back"
    lines = [entry["generation"] for entry in _ledger.load(root).of("key generation")]
    assert lines == ids


def test_no_value_is_written_in_any_form(root: str, trust: Trust) -> None:
    current(root, VALUES, FILES, trust)
    current(root, changed("MASTER_KEY", drawn_by_chance()), FILES, trust)
    written = everything_written(root)
    assert b"MASTER_KEY" in written
    for value in (*(value.encode() for value in VALUES.values()), *FILES.values()):
        forms = [value, value.strip(), value.hex().encode(), base64.b64encode(value).rstrip(b"=")]
        forms += [getattr(hashlib, name)(value).hexdigest().encode() for name in ("sha256", "sha1", "md5", "sha512")]
        assert not [form for form in forms if form in written]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=st.text(min_size=1, max_size=24), other=st.text(min_size=1, max_size=24))
@example(one="changeme", other="changeme2")
@example(one="a", other="b")
def test_weak_values_leave_no_trace(one: str, other: str, trust: Trust) -> None:
    """Two hosts that differ in nothing but a guessable password write the same bytes."""
    if is_strong(one) or is_strong(other):
        return
    written = []
    for value in (one, other):
        with tempfile.TemporaryDirectory() as folder, mock.patch("secrets.token_hex", return_value="ab" * 8):
            moment = mock.patch.object(_generations._clock, "rfc3339", return_value="2026-11-23T02:00:00.000000Z")
            with moment, mock.patch.object(Signer, "sign_bytes", return_value=b"a signature"):
                current(folder, {"MASTER_KEY": VALUES["MASTER_KEY"], "POSTGRES_PASSWORD": value}, {}, trust)
            written.append(everything_written(folder))
    assert written[0] == written[1]


def test_a_weak_value_that_may_have_changed_is_another_generation(root: str, trust: Trust, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("POSTGRES_PASSWORD=changeme\n")
    first = current(root, VALUES, FILES, trust, sources=[str(env)])
    assert not current(root, VALUES, FILES, trust, sources=[str(env)]).new
    os.utime(env, ns=(1, 1))
    second = current(root, VALUES, FILES, trust, sources=[str(env)])
    assert second.new
    assert second.changed == ("POSTGRES_PASSWORD",)
    assert first.id != second.id
    assert not current(root, VALUES, FILES, trust, sources=[str(env)]).new


def test_a_file_written_anew_is_nothing_where_all_values_are_strong(root: str, trust: Trust, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    values = {"MASTER_KEY": VALUES["MASTER_KEY"]}
    env.write_text("MASTER_KEY=...\n")
    current(root, values, {}, trust, sources=[str(env)])
    os.utime(env, ns=(1, 1))
    assert not current(root, values, {}, trust, sources=[str(env)]).new


def test_check_mode_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    root, trust = str(tmp_path / "root"), Trust(Signer(str(tmp_path / "keys/host.key")))
    (tmp_path / "keys").mkdir()
    looked = current(root, VALUES, FILES, trust, write=False)
    assert (looked.id, looked.new) == ("", True)
    assert list(tmp_path.rglob("*")) == [tmp_path / "root", tmp_path / "keys"]
    made = current(root, VALUES, FILES, trust)
    before = everything_written(str(tmp_path))
    assert current(root, VALUES, FILES, trust, write=False).id == made.id
    assert current(root, changed("MASTER_KEY", drawn_by_chance()), FILES, trust, write=False).new
    assert everything_written(str(tmp_path)) == before


def test_no_material_is_an_error(root: str, trust: Trust) -> None:
    with pytest.raises(BackupError, match="no key material"):
        current(root, {"MASTER_KEY": ""}, {"vault.key": b""}, trust)


def test_the_key_is_private_and_its_loss_costs_one_generation(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    root, trust = str(tmp_path / "root"), Trust(Signer(str(tmp_path / "keys/host.key")))
    first = current(root, VALUES, FILES, trust)
    key = tmp_path / "keys/fingerprint.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_text().strip()) == 64
    key.unlink()
    second = current(root, VALUES, FILES, trust)
    assert second.new
    assert [entry["id"] for entry in known(root, trust)] == [first.id, second.id]
    key.chmod(0o640)
    with pytest.raises(BackupError, match=r"fingerprint\.key"):
        current(root, VALUES, FILES, trust)
    key.chmod(0o600)
    key.write_text("not a key\n")
    with pytest.raises(BackupError, match="not 64 hexadecimal digits"):
        current(root, VALUES, FILES, trust)


def test_two_hosts_keys_make_different_fingerprints(tmp_path: Path) -> None:
    keys = [FingerprintKey(str(tmp_path / name)) for name in ("one", "two")]
    assert [key.ensure() for key in keys] == [True, True]
    assert len({key.of_value("MASTER_KEY", "x") for key in keys}) == 2
    assert keys[0].of_value("A", "x") != keys[0].of_value("B", "x") != keys[0].of_file("B", b"x")


@pytest.mark.parametrize("damage", ["edited", "cut", "empty", "other key", "no json"])
def test_a_list_that_was_changed_is_set_aside_and_said(root: str, trust: Trust, tmp_path: Path, damage: str) -> None:
    first = current(root, VALUES, FILES, trust)
    path = Path(root) / "generations.json"
    content = state(root)
    if damage == "edited":
        content["generations"][0]["id"] = "0" * 16
        path.write_text(json.dumps(content))
    elif damage == "other key":
        other = Signer(str(tmp_path / "other/host.key"))
        content["signature"] = base64.b64encode(other.sign_bytes(_generations._signed_part(content))).decode()
        path.write_text(json.dumps(content))
    else:
        text = path.read_bytes()
        path.write_bytes({"cut": text[: len(text) // 2], "empty": b"", "no json": b"[]"}[damage])
    assert known(root, trust) == []
    second = current(root, VALUES, FILES, trust)
    assert second.new
    assert second.id not in (first.id, "0" * 16)
    assert "generations.json" in second.notes[0]
    assert len(list(Path(root).glob("generations.broken.*.json"))) == 1
    assert [line["event"] for line in _ledger.read(root)][-2:] == ["key generations set aside", "key generation"]
    assert current(root, VALUES, FILES, trust) == Generation(
        second.id, False, second.first_seen, weak=("POSTGRES_PASSWORD",)
    )


def test_a_crash_before_the_ledgers_line_is_healed(root: str, trust: Trust) -> None:
    with mock.patch.object(_ledger, "append", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        current(root, VALUES, FILES, trust)
    assert _ledger.read(root) == []
    found = current(root, VALUES, FILES, trust)
    assert not found.new
    assert [line["generation"] for line in _ledger.read(root)] == [found.id]
    current(root, VALUES, FILES, trust)
    assert len(_ledger.read(root)) == 1


def test_a_crash_while_the_list_is_written_leaves_the_former_one(root: str, trust: Trust) -> None:
    first = current(root, VALUES, FILES, trust)
    with mock.patch("os.rename", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        current(root, changed("MASTER_KEY", drawn_by_chance()), FILES, trust)
    assert [entry["id"] for entry in known(root, trust)] == [first.id]
    assert sorted(path.name for path in Path(root).iterdir() if "tmp" in path.name) == []


def test_runs_at_once_agree_on_one_id(root: str, trust: Trust) -> None:
    trust.signer.ensure()
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=current, args=(root, VALUES, FILES, trust)) for _number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert len(known(root, trust)) == 1
    assert len(_ledger.load(root).of("key generation")) == 1


def test_material_from_escrow_keeps_its_id(root: str, trust: Trust) -> None:
    assert adopt(root, "00112233445566ff", VALUES, FILES, trust).new
    assert not adopt(root, "00112233445566ff", VALUES, FILES, trust).new
    assert current(root, {"MASTER_KEY": VALUES["MASTER_KEY"]}, FILES, trust).id != "00112233445566ff"
    with pytest.raises(BackupError, match="knows other material by that id: MASTER_KEY"):
        adopt(root, "00112233445566ff", changed("MASTER_KEY", drawn_by_chance()), FILES, trust)
    with pytest.raises(BackupError, match="not the id of a key generation"):
        adopt(root, "../../escape", VALUES, FILES, trust)


def test_how_material_differs_is_told_by_names(root: str, trust: Trust) -> None:
    made = current(root, VALUES, FILES, trust)
    other = {"MASTER_KEY": drawn_by_chance(), "SMTP_PASSWORD": drawn_by_chance()}
    assert _generations.differences(root, made.id, other, {"vault.key": FILES["vault.key"]}, trust) == {
        "MASTER_KEY": "other",
        "JWT_SECRET": "missing",
        "secrets.vault": "missing",
        "SMTP_PASSWORD": "extra",
        "POSTGRES_PASSWORD": "uncompared",
    }
    with pytest.raises(BackupError, match="nothing to compare"):
        _generations.differences(root, "ff" * 8, VALUES, FILES, trust)


@pytest.mark.parametrize("value", TYPED)
def test_what_people_type_is_weak(value: str) -> None:
    assert not is_strong(value)
    assert not is_strong_file(value.encode())


def drawn() -> Iterator[str]:
    yield secrets.token_hex(16)
    yield secrets.token_hex(32)
    yield base64.b64encode(os.urandom(32)).decode()
    yield secrets.token_urlsafe(32)
    yield base64.b64encode(os.urandom(24)).decode()


def test_what_machines_draw_is_nearly_always_strong() -> None:
    """A miss costs a copy too many; it has to be rare."""
    values = [value for _round in range(400) for value in drawn()]
    missed = sum(not is_strong(value) for value in values)
    assert missed <= len(values) * 0.03
    assert is_strong(values[1]) or is_strong(values[6])
    assert all(is_strong_file(os.urandom(64)) for _round in range(100))


def test_a_long_file_is_judged_quickly() -> None:
    assert is_strong_file(base64.b64encode(os.urandom(1 << 20)))
    assert not is_strong_file(b"ab" * (1 << 20))
