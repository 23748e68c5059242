# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""vault_verify: the stand-in's word, and tools that lie, hang, complain or tell too much."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from support.modules import run_module

TOP = Path(__file__).resolve().parents[2]
TOOL = TOP / "tests/standin/bin/vault-tool"
SECRET = "4f6a0c41b7e24d5c9a3e8f1d2b7c6a59"


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)


@pytest.fixture
def vault(tmp_path: Path) -> dict[str, t.Any]:
    """A vault with two credentials, made by the stand-in itself."""
    files = ["--vault-file", tmp_path / "secrets.vault", "--key-file", tmp_path / "vault.key"]
    entries = json.dumps({"MAZEVAULT_MASTER_KEY": SECRET, "SMTP_PASSWORD": "Sommer2026"})
    subprocess.run([TOOL, "create", *files], input=entries.encode(), check=True)
    return {
        "vault_file": str(tmp_path / "secrets.vault"),
        "key_file": str(tmp_path / "vault.key"),
        "tool": str(TOOL),
        "timeout": 20,
    }


def verify(vault: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    done = run_module("vault_verify", {**vault, **more})
    assert done.rc == 0, done.result
    assert done.result["changed"] is False
    told = json.dumps(done.result) + done.stderr
    assert SECRET not in told
    assert "Sommer2026" not in told
    return done.result


def made_tool(tmp_path: Path, script: str) -> str:
    path = tmp_path / "another-tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_a_vault_and_its_key(vault: dict[str, t.Any]) -> None:
    before = [Path(vault[name]).read_bytes() for name in ("vault_file", "key_file")]
    found = verify(vault, expected=["MAZEVAULT_MASTER_KEY"])
    assert (found["verdict"], found["names"]) == ("pass", ["MAZEVAULT_MASTER_KEY", "SMTP_PASSWORD"])
    assert [check["name"] for check in found["checks"]] == ["opens", "refuses another key"]
    assert [Path(vault[name]).read_bytes() for name in ("vault_file", "key_file")] == before


def test_another_key_a_flipped_bit_and_a_missing_name_fail(vault: dict[str, t.Any], tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("another-passphrase\n")
    assert verify(vault, key_file=str(other))["verdict"] == "fail"
    damaged = tmp_path / "damaged.vault"
    content = bytearray(Path(vault["vault_file"]).read_bytes())
    content[-20] ^= 1
    damaged.write_bytes(content)
    assert verify(vault, vault_file=str(damaged))["verdict"] == "fail"
    found = verify(vault, expected=["LICENSE_PUBLIC_KEY"])
    assert (found["verdict"], found["checks"][0]["reason"]) == ("fail", "not in the vault: LICENSE_PUBLIC_KEY")


def test_an_empty_vault_is_unproven(vault: dict[str, t.Any], tmp_path: Path) -> None:
    files = ["--vault-file", tmp_path / "empty.vault", "--key-file", tmp_path / "vault.key"]
    subprocess.run([TOOL, "create", *files], input=b"{}", check=True)
    found = verify(vault, vault_file=str(tmp_path / "empty.vault"))
    assert (found["verdict"], found["names"]) == ("unproven", [])


def test_without_the_tool_it_is_unproven(vault: dict[str, t.Any], tmp_path: Path) -> None:
    assert verify(vault, tool="no-such-vault-tool")["verdict"] == "unproven"
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF not a program")
    broken.chmod(0o700)
    assert verify(vault, tool=str(broken))["verdict"] == "unproven"


REFUSING = f'grep -q . "$3" && exec {TOOL} "$@" >/dev/null'


@pytest.mark.parametrize(
    ("script", "verdict", "names"),
    [
        ("echo 'Error: cannot open vault'", "fail", []),
        ("echo MAZEVAULT_MASTER_KEY; echo 'error: 3 entries are damaged' >&2", "fail", ["MAZEVAULT_MASTER_KEY"]),
        (f"echo MAZEVAULT_MASTER_KEY={SECRET}", "unproven", []),
        (f"echo SMTP_PASSWORD; echo {SECRET}", "unproven", ["SMTP_PASSWORD"]),
        (f"echo {SECRET.upper()}", "unproven", []),
        ("echo 'this is vault-tool 1.0'; echo SMTP_PASSWORD", "unproven", ["SMTP_PASSWORD"]),
        ("echo ALWAYS_THE_SAME", "unproven", ["ALWAYS_THE_SAME"]),
        ("kill -9 $$", "unproven", []),
        (f"exit 7 # {SECRET}", "fail", []),
        ("printf '  - SMTP_PASSWORD\\n'; case $5 in *vault.key) ;; *) exit 1;; esac", "pass", ["SMTP_PASSWORD"]),
        ("echo x >> $3; echo SMTP_PASSWORD; case $5 in *vault.key) ;; *) exit 1;; esac", "fail", ["SMTP_PASSWORD"]),
    ],
)
def test_other_tools(vault: dict[str, t.Any], tmp_path: Path, script: str, verdict: str, names: list[str]) -> None:
    found = verify(vault, tool=made_tool(tmp_path, script))
    assert (found["verdict"], found["names"]) == (verdict, names), found["checks"]


def test_a_tool_that_hangs_is_ended(vault: dict[str, t.Any], tmp_path: Path) -> None:
    begin = time.monotonic()
    found = verify(vault, tool=made_tool(tmp_path, "exec sleep 600"), timeout=1)
    assert found["verdict"] == "unproven"
    assert time.monotonic() - begin < 20


def test_nothing_stays_in_memory(vault: dict[str, t.Any], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    tool = made_tool(tmp_path, f'dirname "$3" >> {seen}; ls -l "$3" "$5" >> {seen}.modes; exec {TOOL} "$@"')
    assert verify(vault, tool=tool)["verdict"] == "pass"
    folders = set(seen.read_text().split())
    assert len(folders) == 1
    assert not Path(folders.pop()).exists()
    assert {line.split()[0] for line in Path(f"{seen}.modes").read_text().splitlines()} == {"-rw-------"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"timeout": 0}, "timeout: 0.0: not above 0"),
        ({"runtime": "docker"}, "image: missing"),
        ({"vault_file": str(TOP / "tests/no-such.vault")}, f"vault_file: {TOP}/tests/no-such.vault: No such file"),
    ],
)
def test_wrong_parameters(vault: dict[str, t.Any], more: dict[str, t.Any], said: str) -> None:
    done = run_module("vault_verify", {**vault, **more})
    assert done.rc == 1
    assert done.result["msg"].startswith(said)


def test_in_a_container(vault: dict[str, t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers as docker does: the folder that is mounted is where the tool finds its files."""
    programs = tmp_path / "programs"
    programs.mkdir()
    engine = programs / "docker"
    engine.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        "if sys.argv[1] != 'run' or 'no-such-image' in sys.argv: sys.exit(125)\n"
        "folder = [w for w in sys.argv if w.startswith('--mount=')][0].split('source=')[1].split(',')[0]\n"
        "words = [w.replace('/mazevault-vault', folder) for w in sys.argv[sys.argv.index('backend:1') + 1:]]\n"
        f"os.execv({str(TOOL)!r}, [{str(TOOL)!r}, *words])\n"
    )
    engine.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    found = verify(vault, runtime="docker", image="backend:1", tool="/app/vault-tool")
    assert (found["verdict"], found["names"]) == ("pass", ["MAZEVAULT_MASTER_KEY", "SMTP_PASSWORD"])
    asked = (tmp_path / "asked").read_text().splitlines()
    for word in ("--network=none", "--pull=never", "--read-only", "readonly", "--entrypoint=/app/vault-tool"):
        assert word in asked[0]
    assert SECRET not in "".join(asked)
    assert verify(vault, runtime="docker", image="no-such-image")["verdict"] == "unproven"
