# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures: openssl's own verification agrees, the key stays private, and nothing else's signature counts."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, Result
from ansible_collections.mazevault.backup.plugins.module_utils._signature import (
    Signer,
    check_command,
    key_id,
    verify_bytes,
    verify_file,
)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(str(tmp_path / "keys/host.key"))


def openssl(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, args)], input=stdin, capture_output=True, check=False)


def test_a_key_is_made_once_and_is_private(signer: Signer) -> None:
    old = os.umask(0o000)
    try:
        assert signer.ensure()
    finally:
        os.umask(old)
    key, public = Path(signer.key), Path(signer.public_path)
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    assert (public.name, sorted(path.name for path in key.parent.iterdir())) == ("host.pub", ["host.key", "host.pub"])
    shown = openssl("pkey", "-in", key, "-noout", "-text").stdout
    assert b"secp384r1" in shown
    content = key.read_bytes()
    assert not signer.ensure()
    assert key.read_bytes() == content


def test_two_runs_at_once_end_with_one_key(signer: Signer) -> None:
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=signer.ensure) for _number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert Signer(signer.key).public() == Path(signer.public_path).read_text()
    assert sorted(os.listdir(os.path.dirname(signer.key))) == ["host.key", "host.pub"]


def test_openssl_verifies_what_was_signed(signer: Signer, tmp_path: Path) -> None:
    sums = tmp_path / "SHA256SUMS"
    sums.write_bytes(b"0" * 64 + b"  manifest.json\n")
    signer.sign(str(sums))
    signer_public = signer.public_path
    argv = shlex.split(check_command(signer_public))
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Verified OK\n")
    for env, said in (({"MAZEVAULT_HOST_KEY": signer_public}, (0, "Verified OK\n")), ({}, (1, ""))):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", check_command()],
            cwd=tmp_path, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (min(done.returncode, 1), done.stdout) == said
    assert "from the card or the policy" in done.stderr
    assert verify_file(str(sums), [signer.public()]) == key_id(signer.public())
    der = openssl("pkey", "-pubin", "-in", signer_public, "-outform", "DER").stdout
    shown = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout.decode()
    assert shown.split()[0] == key_id(signer.public()), "the id is what sha256sum says of the key's DER"
    sums.write_bytes(sums.read_bytes().replace(b"0", b"1", 1))
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    assert verify_file(str(sums), [signer.public()]) is None


def test_only_a_key_that_counts_counts(signer: Signer, tmp_path: Path) -> None:
    other = Signer(str(tmp_path / "other.key"))
    signature = other.sign_bytes(b"data")
    assert signer.ensure()
    assert verify_bytes(b"data", signature, [signer.public()]) is None
    assert verify_bytes(b"data", signature, []) is None
    assert verify_bytes(b"data", signature, [signer.public(), other.public()]) == key_id(other.public())
    assert verify_bytes(b"data", b"", [other.public()]) is None
    assert verify_bytes(b"data", signature, ["no key"]) is None
    (tmp_path / "unsigned").touch()
    assert verify_file(str(tmp_path / "unsigned"), [other.public()]) is None


def test_where_only_the_public_half_is_it_serves(signer: Signer) -> None:
    assert signer.public() == ""
    signer.ensure()
    public = signer.public()
    os.unlink(signer.key)
    assert Signer(signer.key).public() == public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(signer: Signer, mode: int) -> None:
    signer.ensure()
    os.chmod(signer.key, mode)
    with pytest.raises(BackupError, match=f"signing_key: .*others may read or write it .mode 0{mode:o}") as refused:
        signer.sign_bytes(b"data")
    assert "chmod 600" in refused.value.hint


def test_a_link_in_the_place_of_the_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    signer.ensure()
    elsewhere = tmp_path / "elsewhere"
    os.rename(signer.key, elsewhere)
    os.symlink(elsewhere, signer.key)
    with pytest.raises(BackupError, match="not a file"):
        signer.ensure()


def test_no_word_of_the_key_reaches_a_command_line(signer: Signer) -> None:
    """The runner sees every argument and every input; the key's own text is in none."""
    seen: list[str] = []

    class Watching(HostProcesses):
        def run(self, argv, *, env=None, stdin=None, timeout=None) -> Result:  # type: ignore[no-untyped-def]
            seen.extend([*argv, repr(stdin)])
            return super().run(argv, env=env, stdin=stdin, timeout=timeout)

    watched = Signer(signer.key, processes=Watching())
    watched.sign_bytes(b"data")
    body = Path(signer.key).read_text().splitlines()[1]
    assert seen and not [word for word in seen if body[:20] in word]


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_has_no_id(text: str) -> None:
    with pytest.raises(BackupError, match="public key: not one in PEM"):
        key_id(text)
