# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's programs say of themselves, and what is missing where it won't do."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _requirements
from support.modules import Outcome, run_module

MODULE = "mazevault_host_info"
NEEDS = {need.name: need for need in _requirements.required(encryption="age", runtime="host")}


# First lines of the real programs.
@pytest.mark.parametrize(
    ("name", "said", "version"),
    [
        ("openssl", "OpenSSL 3.0.7 1 Nov 2022 (Library: OpenSSL 3.0.7 1 Nov 2022)", "3.0.7"),
        ("openssl", "OpenSSL 3.5.1 1 Jul 2025 (Library: OpenSSL 3.5.1 1 Jul 2025)", "3.5.1"),
        ("zstd", "*** zstd command line interface 64-bits v1.4.4, by Yann Collet ***", "1.4.4"),
        ("zstd", "*** Zstandard CLI (64-bit) v1.5.5, by Yann Collet ***", "1.5.5"),
        ("tar", "tar (GNU tar) 1.34\nCopyright (C) 2021 Free Software Foundation, Inc.", "1.34"),
        ("tar", "tar (GNU tar) 1.30", "1.30"),
        ("age", "v1.1.1", "1.1.1"),
        ("age", "(devel)", ""),
        ("pg_dump", "pg_dump (PostgreSQL) 15.13 (Debian 15.13-1.pgdg120+1)", "15.13"),
        ("postgres", "postgres (PostgreSQL) 18.0", "18.0"),
    ],
)
def test_what_will_do(name: str, said: str, version: str) -> None:
    assert (_requirements.problem(NEEDS[name], said), _requirements.version_of(said)) == ("", version)


@pytest.mark.parametrize(
    ("name", "said", "problem"),
    [
        ("openssl", None, "openssl: not there. Install openssl."),
        ("openssl", "OpenSSL 1.1.1k  FIPS 25 Mar 2021", "openssl: 1.1.1 is older than 3.0. Install a newer openssl."),
        ("openssl", "LibreSSL 3.8.2", "openssl: is another program (LibreSSL 3.8.2). Install openssl."),
        ("tar", "tar (GNU tar) 1.26", "tar: 1.26 is older than 1.29. Install a newer tar."),
        ("tar", "bsdtar 3.6.2 - libarchive 3.6.2 zlib/1.2.13", "tar: is another program (bsdtar 3.6.2"),
        ("tar", "tar (busybox) 1.36.1", "tar: is another program (tar (busybox) 1.36.1). Install tar."),
        ("zstd", "", "zstd: is another program (it says nothing). Install zstd."),
        ("age-keygen", None, "age-keygen: not there. Install age."),
        ("initdb", None, "initdb: not there. Install the PostgreSQL server package"),
    ],
)
def test_what_wont_do(name: str, said: str | None, problem: str) -> None:
    assert _requirements.problem(NEEDS[name], said).startswith(problem)


def test_who_needs_what() -> None:
    def names(encryption: str, runtime: str) -> list[str]:
        return [need.name for need in _requirements.required(encryption=encryption, runtime=runtime)]

    assert names(encryption="cms", runtime="podman") == ["openssl", "zstd", "tar"]
    assert names(encryption="age", runtime="docker")[3:] == ["age", "age-keygen"]
    assert names(encryption="none", runtime="host")[3:] == ["pg_dump", "pg_restore", "psql", "initdb", "postgres"]


def test_the_systems_name() -> None:
    lines = ['NAME="Rocky Linux"\n', 'PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"\n', "\n"]
    assert _requirements.words_of(lines) == "Rocky Linux 9.4 (Blue Onyx)"
    assert _requirements.words_of(["ID=x\n"]) == ""


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, said: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def asked(**params: t.Any) -> Outcome:
    return run_module(MODULE, params)


def test_the_module_names_what_is_missing(only: Path) -> None:
    put(only, "openssl", "OpenSSL 1.1.1k  FIPS 25 Mar 2021")
    put(only, "tar", "tar (GNU tar) 1.34")
    put(only, "podman", "podman version 4.3.1")
    found = asked(runtime="podman").result
    assert [(one["name"], one["version"]) for one in found["programs"]] == [
        ("openssl", "1.1.1"),
        ("zstd", ""),
        ("tar", "1.34"),
    ]
    assert [said.split(":")[0] for said in found["missing"]] == ["openssl", "zstd"]
    assert [one["path"] for one in found["programs"]] == [str(only / "openssl"), None, str(only / "tar")]
    assert (found["engines"], found["root"], found["changed"]) == ({"podman": "4.3.1"}, os.geteuid() == 0, False)
    assert found["system"] and found["python"] and found["account"]


def test_a_program_that_cant_be_started_is_no_crash(only: Path) -> None:
    put(only, "zstd", "")
    (only / "zstd").write_bytes(b"\x00not a program")
    found = asked().result
    assert "zstd: is another program (it says nothing). Install zstd." in found["missing"]


def test_a_folder_that_isnt_there_is_named(tmp_path: Path) -> None:
    done = asked(runtime="host", bin_dir=str(tmp_path / "gone"))
    assert done.rc == 1 and done.result["msg"].startswith(f"bin_dir: {tmp_path}/gone: no such folder")
