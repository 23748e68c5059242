# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypting, proving and opening take no more memory for an artefact of gigabytes than for a small one."""

from __future__ import annotations

import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from bench.measuring import Cost, last_json, measure
from support.by_hand import blocks_of
from support.flow import count
from support.identities import Custodians, make_custodians, open_by_hand
from support.modules import command

MB = 1 << 20
# Several parts of an encrypted artefact each.
SMALL, LARGE = 80 * MB, count(160 * MB, 5120 * MB)
# Of all processes together; what is counted shakes by a few MB.
MOST, SHAKE = 400, 30


class Nothing:
    """No server and no containers work here."""

    def server_cpu(self) -> float:
        return 0.0

    def sidecars(self, pid: int) -> dict[str, t.Any]:
        return {}


def make_file(path: Path, size: int) -> str:
    """Bytes that don't compress; their SHA-256."""
    words = (
        f"head -c {size} /dev/zero | openssl enc -aes-128-ctr -K {'0' * 32} -iv {'1' * 32} | tee '{path}' | sha256sum"
    )
    return subprocess.run(["bash", "-c", words], check=True, capture_output=True, encoding="ascii").stdout.split()[0]


def memory(cost: Cost) -> int:
    """MB of all its processes together."""
    return (cost.sum_kib + cost.others_kib) >> 10


@pytest.fixture(scope="module")
def custodians(tmp_path_factory: pytest.TempPathFactory) -> Custodians:
    return make_custodians(tmp_path_factory.mktemp("custodians"))


def taken(folder: Path, size: int, custodians: Custodians) -> dict[str, int]:
    """MB by step: from a file to a set, its proof, and back by hand."""
    source, root = folder / "source", str(folder / "root")
    source.mkdir(parents=True)
    digest = make_file(source / "huge", size)
    used = {}

    def run(step: str, module: str, **params: t.Any) -> dict[str, t.Any]:
        argv, stdin, env = command(module, {"backup_root": root, **params})
        cost, output = measure(argv, Nothing(), folder / "nothing", env=env, stdin=stdin)
        used[step] = memory(cost)
        return last_json(output)

    opened = run("open", "recovery_set", state="open", **custodians.protection)
    where = {"set_id": opened["set_id"]}
    run("encrypt", "files_backup", **where, component="volumes", paths=[{"path": str(source), "name": "data"}])
    proof = run("prove", "backup_verify", set=opened["set_id"], level="read")
    assert proof["verdict"] == "pass", proof["summary"]
    sealed = run("seal", "recovery_set", state="sealed", installation="vault1", components=["volumes"], **where)
    made = Path(sealed["path"])
    assert len([*made.glob("volumes/*.cms")]) > size // (33 * MB), "in parts"

    key = folder / "data.key"
    open_by_hand(made, custodians.data[0].private, "data", key)
    (function,) = {
        found for block in blocks_of(made) for found in re.findall(r"^plain\(\) \{\n.*?^\}", block, re.M | re.S)
    }
    archive = next(made.glob("volumes/*.cms")).name.partition(".tar.zst")[0] + ".tar.zst"
    script = (
        f"cd '{made}'; export DATA_KEY='{key}'; {function}\nplain volumes/{archive} | zstd -dc | tar -xO | sha256sum"
    )
    cost, output = measure(["bash", "-euo", "pipefail", "-c", script], Nothing(), folder / "nothing")
    used["open by hand"] = memory(cost)
    assert output.split()[0] == digest
    return used


def test_memory_is_flat(tmp_path: Path, custodians: Custodians, record_property: t.Any) -> None:
    small = taken(tmp_path / "small", SMALL, custodians)
    large = taken(tmp_path / "large", LARGE, custodians)
    record_property("MB of memory by step", f"{SMALL // MB} MB: {small}; {LARGE // MB} MB: {large}")
    assert max(large.values()) < MOST
    assert {step: mb for step, mb in large.items() if mb > small[step] + SHAKE} == {}
