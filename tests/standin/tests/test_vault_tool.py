# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vault file and its tool."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from standin_process import HERE

ENTRIES = {"MAZEVAULT_MASTER_KEY": "opaque=/+", "SMTP_PASSWORD": "h\u00e1\u010dek\nsecond line", "EMPTY": ""}
Files = tuple[Path, Path]


def tool(action: str, files: Files, *more: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    vault, key = files
    return subprocess.run(
        [HERE / "bin" / "vault-tool", action, "--vault-file", vault, "--key-file", key, *more],
        env={"PATH": os.environ["PATH"], "MAZEVAULT_STANDIN_PYTHON": sys.executable},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = tmp_path / "secrets.vault", tmp_path / "vault.key"
    assert tool("create", made, stdin=json.dumps(ENTRIES)).returncode == 0
    return made


def test_list_prints_names_only(files: Files) -> None:
    done = tool("list", files)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, sorted(ENTRIES), "")


def test_get(files: Files) -> None:
    for name, value in ENTRIES.items():
        assert tool("get", files, name).stdout == value + "\n"
    assert tool("get", files, "OTHER").returncode == 1


def test_files_are_private_and_hide_all(files: Files) -> None:
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name, value in ENTRIES.items():
        assert name.encode() not in files[0].read_bytes()
        assert not value or value.encode() not in files[0].read_bytes()


def test_create_keeps_a_key_and_replaces_the_vault(files: Files) -> None:
    key, vault = files[1].read_bytes(), files[0].read_bytes()
    assert tool("create", files, stdin="{}").returncode == 0
    assert files[1].read_bytes() == key
    assert files[0].read_bytes() != vault
    assert tool("list", files).stdout == ""


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{"])
def test_create_refuses(files: Files, text: str) -> None:
    before = files[0].read_bytes()
    assert tool("create", files, stdin=text).returncode == 2
    assert files[0].read_bytes() == before
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["secrets.vault", "vault.key"]


def test_wrong_key(files: Files) -> None:
    files[1].write_text("another")
    done = tool("list", files)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_final_line_break_of_the_key_does_not_count(files: Files) -> None:
    files[1].write_bytes(files[1].read_bytes().strip() + b"\r\n")
    assert tool("list", files).returncode == 0


@pytest.mark.parametrize("position", [0, 17, 21, 27, 30, 50, 70, -1])
def test_one_flipped_bit(files: Files, position: int) -> None:
    data = bytearray(files[0].read_bytes())
    data[position] ^= 0x80
    files[0].write_bytes(data)
    done = tool("list", files)
    assert done.returncode in (1, 2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


@pytest.mark.parametrize("keep", [0, 15, 40, 56, 70])
def test_cut_off(files: Files, keep: int) -> None:
    files[0].write_bytes(files[0].read_bytes()[:keep])
    assert tool("list", files).returncode in (1, 2)


def test_missing_files(files: Files) -> None:
    files[1].unlink()
    assert tool("list", files).returncode == 2
    assert tool("list", (files[1], files[0])).returncode == 2
    files[1].write_text("\n")
    assert tool("list", files).returncode == 2
