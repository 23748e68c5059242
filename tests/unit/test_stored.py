# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Artefacts on the disk: parts as openssl and age open them, in any length, within flat memory."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _stored
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import PART_BYTES, SetKey, make_key
from ansible_collections.mazevault.backup.plugins.module_utils._errors import Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Sink, Stored
from support.flow import count
from support.modules import COLLECTIONS

PART = 1 << 16
AGE = pytest.param(
    "age", marks=pytest.mark.skipif(shutil.which("age") is None, reason="the program age isn't installed")
)


def key_of(folder: Path, scheme: str) -> SetKey | None:
    return make_key(scheme, private=f"{folder}/k", public=f"{folder}/p", name="x") if scheme != "none" else None


def written(folder: Path, content: bytes, key: SetKey | None, step: int) -> Sink:
    sink = Sink(str(folder / "artefact"), key)
    for start in range(0, len(content), step):
        sink.write(memoryview(content)[start : start + step])
    sink.close()
    return sink


def by_hand(files: list[str], key: SetKey | None) -> bytes:
    """What stock programs make of it."""
    pieces = []
    for path in files:
        if key is None:
            words = ["cat", path]
        elif key.scheme == "age":
            words = ["age", "-d", "-i", key.private, path]
        else:
            words = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", path]
            words += ["-recip", key.public, "-inkey", key.private]
        pieces.append(subprocess.run(words, check=True, capture_output=True).stdout)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 7], ids=str)
@pytest.mark.parametrize("scheme", ["none", "cms", AGE])
def test_what_was_written_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, size: int) -> None:
    monkeypatch.setattr(_stored, "PART_BYTES", PART)
    key, content = key_of(tmp_path, scheme), random.Random(size).randbytes(size)
    sink = written(tmp_path, content, key, step=random.Random(size).randint(1000, 3 * PART))
    parts = max(1, -(-size // PART)) if scheme == "cms" else 1
    assert len(sink.files) == parts
    assert by_hand(sink.files, key) == content
    with Stored(tuple(sink.files), key).opened() as stream:
        assert stream.read() == content if key is None else b"".join(iter(lambda: stream.read(4096), b"")) == content
    stored = b"".join(Path(path).read_bytes() for path in sink.files)
    assert sink.sha256 == hashlib.sha256(stored).hexdigest()
    assert content[:64] not in stored or key is None or size < 16
    assert {oct(os.stat(path).st_mode & 0o777) for path in sink.files} == {"0o600"}


@pytest.mark.parametrize("scheme", ["cms", AGE])
@pytest.mark.parametrize("where", [0.001, 0.3, 0.6, 0.999])
def test_nothing_of_a_damaged_part_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, where: float
) -> None:
    monkeypatch.setattr(_stored, "PART_BYTES", PART)
    key, content = key_of(tmp_path, scheme), random.Random(1).randbytes(4 * PART)
    sink = written(tmp_path, content, key, step=PART)
    victim = Path(sink.files[-1])
    stored = bytearray(victim.read_bytes())
    stored[int(len(stored) * where)] ^= 4
    victim.write_bytes(stored)
    out = b""
    with pytest.raises(Damaged, match="doesn't open"), Stored(tuple(sink.files), key).opened() as stream:
        while chunk := stream.read(4096):
            out += chunk
    assert content.startswith(out), "what came out before the damage is right"
    assert len(out) < len(content)
    if scheme == "cms":
        assert len(out) == 3 * PART, "and nothing of the damaged part"


def test_who_has_read_enough_is_not_told_of_damage_further_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stored, "PART_BYTES", PART)
    key = key_of(tmp_path, "cms")
    sink = written(tmp_path, bytes(40 * PART), key, step=PART)
    Path(sink.files[-1]).write_bytes(b"nothing")
    with Stored(tuple(sink.files), key).opened() as stream:
        assert stream.read(10) == bytes(10)


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    key = key_of(tmp_path, "cms")
    (tmp_path / "artefact.00000.cms").symlink_to("/dev/full")
    sink = Sink(str(tmp_path / "artefact"), key)
    with pytest.raises(_stored.BackupError, match="openssl failed") as caught:
        for _number in range(64):
            sink.write(memoryview(bytes(1 << 20)))
        sink.close()
    sink.stop()
    assert "disk full" in caught.value.hint


_FLAT = r"""
import json, resource, sys
base = "ansible_collections.mazevault.backup.plugins.module_utils."
import importlib
stored, encryption = (importlib.import_module(base + name) for name in ("_stored", "_encryption"))
folder, size = sys.argv[1], int(sys.argv[2])
key = encryption.make_key("cms", private=f"{folder}/k", public=f"{folder}/p", name="x")
sink = stored.Sink(f"{folder}/artefact", key)
block = memoryview(bytes(1 << 20))
for number in range(size >> 20):
    sink.write(block)
sink.close()
read = 0
with stored.Stored(tuple(sink.files), key).opened() as stream:
    while chunk := stream.read(1 << 20):
        read += len(chunk)
# What rusage says of this process begins with the size of the one that started it.
with open("/proc/self/status") as status:
    own = next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM:"))
programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
print(json.dumps({"parts": len(sink.files), "read": read, "own": own, "programs": programs}))
"""


def memory_for(folder: Path, size: int) -> dict[str, int]:
    """In MiB, to encrypt that many bytes and open them again."""
    folder.mkdir()
    words = [sys.executable, "-c", _FLAT, str(folder), str(size)]
    env = {**os.environ, "PYTHONPATH": COLLECTIONS}
    done = subprocess.run(words, check=True, capture_output=True, env=env, encoding="ascii")
    shutil.rmtree(folder)
    found: dict[str, int] = json.loads(done.stdout)
    assert (found["parts"], found["read"]) == (-(-size // PART_BYTES), size)
    return found


def test_memory_is_flat(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """Two parts of this process at once, one part and its answer in openssl; however much there is."""
    less, more = 100 << 20, count(200 << 20, 5 << 30)
    found = {size: memory_for(tmp_path / str(size), size) for size in (less, more)}
    for size, needed in found.items():
        record_property(f"{size >> 20} MiB", f"{needed['own']} MiB, its programs {needed['programs']} MiB")
    assert found[more]["own"] < found[less]["own"] + 10 < 120
    assert found[more]["programs"] < found[less]["programs"] + 10 < 190
