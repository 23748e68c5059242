# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage files the way disks and broken transfers do."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

Region = t.Literal["head", "middle", "tail", "any"]


@dataclass(frozen=True)
class Damage:
    """What was done to which file."""

    kind: t.Literal["flip", "truncate"]
    path: Path
    offset: int
    size: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path} at byte {self.offset} of {self.size}: {self.detail}"


def _victim(path: Path, rng: random.Random) -> Path:
    """Return the file itself, or a random file with content below a directory."""
    if not path.is_dir():
        return path
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_size)
    if not files:
        raise ValueError(f"{path} holds no file with content")
    return rng.choice(files)


def _offset(size: int, region: Region, rng: random.Random) -> int:
    """Choose a byte: head and tail are the first and the last tenth, at least one byte each."""
    tenth = max(1, size // 10)
    first, last = {
        "head": (0, tenth - 1),
        "middle": (min(tenth, size - 1), max(size - tenth - 1, min(tenth, size - 1))),
        "tail": (size - tenth, size - 1),
        "any": (0, size - 1),
    }[region]
    return rng.randint(first, last)


class _Writable:
    """A file made writable for a moment; its mode and times are what they were, as after real bit rot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stat = path.stat()
        if self._stat.st_nlink > 1:
            raise ValueError(f"{path} is linked {self._stat.st_nlink} times: damage a copy")
        if not self._stat.st_size:
            raise ValueError(f"{path} is empty")
        self.size = self._stat.st_size

    def __enter__(self) -> t.Self:
        os.chmod(self._path, self._stat.st_mode | 0o200)
        return self

    def __exit__(self, *exc: object) -> None:
        os.chmod(self._path, self._stat.st_mode)
        os.utime(self._path, ns=(self._stat.st_atime_ns, self._stat.st_mtime_ns))


def flip(path: Path, rng: random.Random, region: Region = "any") -> Damage:
    """Flip one bit."""
    victim = _victim(path, rng)
    with _Writable(victim) as state, victim.open("r+b") as handle:
        offset = _offset(state.size, region, rng)
        bit = rng.randrange(8)
        handle.seek(offset)
        before = handle.read(1)[0]
        after = before ^ (1 << bit)
        handle.seek(offset)
        handle.write(bytes([after]))
    return Damage("flip", victim, offset, state.size, f"bit {bit}, 0x{before:02x} became 0x{after:02x}")


def truncate(path: Path, rng: random.Random, region: Region = "any") -> Damage:
    """Cut the file at a byte of the region; at least one byte goes."""
    victim = _victim(path, rng)
    with _Writable(victim) as state:
        offset = _offset(state.size, region, rng)
        os.truncate(victim, offset)
    return Damage("truncate", victim, offset, state.size, f"{state.size - offset} bytes gone")


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a file or a directory with modes, owners, times, links and holes; the target is replaced."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-aT", "--", str(source), str(target)], check=True)
    return target
