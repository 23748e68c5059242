# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs: time, processors, memory and writing, its own and that of the containers that work for it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.05
# What the collection itself is made of; PostgreSQL's and the engine's programs are counted apart.
OWN = ("python", "zstd")


@dataclass
class Cost:
    """What one command, or several in a row, took.

    Attributes:
        cpu: processor seconds of the processes that it started on this machine.
        server_cpu: processor seconds of the database server.
        sidecar_cpu: processor seconds of containers that came and went meanwhile for it.
        largest_kib: peak memory of the largest of its Pythons and zstds.
        sum_kib: the sum of the peaks of those that ran at the same time, so at least what they had together.
        others_kib: the most that its other programs had together (PostgreSQL's, the engine's command line).
        sidecar_kib: peak memory of the largest of the containers, page cache included.
        written: bytes that it made dirty on the way to a disk, also of files that were removed again.
        size: bytes that it left behind.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    server_cpu: float = 0.0
    sidecar_cpu: float = 0.0
    largest_kib: int = 0
    sum_kib: int = 0
    others_kib: int = 0
    sidecar_kib: int = 0
    written: int = 0
    size: int = 0

    def __add__(self, other: Cost) -> Cost:
        """One after the other; the size is the later one's."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu + other.cpu,
            self.server_cpu + other.server_cpu,
            self.sidecar_cpu + other.sidecar_cpu,
            max(self.largest_kib, other.largest_kib),
            max(self.sum_kib, other.sum_kib),
            max(self.others_kib, other.others_kib),
            max(self.sidecar_kib, other.sidecar_kib),
            self.written + other.written,
            other.size,
        )


class Processes:
    """Who started whom, looked up once for each process, so that looking again and again costs little."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def descendants(self, pid: int) -> list[int]:
        """Of one process, those that live now."""
        living = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        self._parents = {one: self._parents.get(one) or _parent(one) for one in living}
        children: dict[int, list[int]] = {}
        for one, parent in self._parents.items():
            children.setdefault(parent, []).append(one)
        found = [pid]
        for one in found:
            found += children.get(one, [])
        return found[1:]


class Load(t.Protocol):
    """What works for a command outside of its own processes."""

    def server_cpu(self) -> float:
        """Processor seconds of the database server up to now."""

    def sidecars(self, pid: int) -> dict[str, ControlGroup]:
        """Containers that run now for this process, by id."""


@dataclass(frozen=True)
class ControlGroup:
    """One container's, in the layout of version 1 or 2.

    Attributes:
        shim: the process that the container's processes are children of; what they wrote is counted there in the end.
    """

    folders: Mapping[str, Path]
    shim: int

    @classmethod
    def of(cls, pid: int) -> ControlGroup:
        """The one that a container's first process is in."""
        folders = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
            _number, controllers, path = line.split(":", 2)
            for name in controllers.split(",") if controllers else ("",):
                folders[name] = Path("/sys/fs/cgroup") / name / path.lstrip("/")
        return cls(folders, _parent(pid))

    @property
    def cpu_folder(self) -> Path:
        return self.folders.get("cpuacct") or self.folders[""]

    def cpu(self) -> float:
        if "cpuacct" in self.folders:
            return int(_text(self.cpu_folder / "cpuacct.usage") or 0) / 1e9
        words = _text(self.cpu_folder / "cpu.stat").split()
        return int(words[words.index("usage_usec") + 1]) / 1e6 if "usage_usec" in words else 0.0

    def peak_kib(self) -> int:
        if "memory" in self.folders:
            return int(_text(self.folders["memory"] / "memory.max_usage_in_bytes") or 0) >> 10
        return int(_text(self.folders[""] / "memory.peak") or 0) >> 10

    def written(self, processes: Processes) -> int:
        return sum(_written(pid) for pid in (self.shim, *processes.descendants(self.shim)))


@dataclass
class _Sampler:
    """Looks at a command's processes and containers again and again while it runs."""

    pid: int
    load: Load
    processes: Processes = field(default_factory=Processes)
    largest_kib: int = 0
    sum_kib: int = 0
    others_kib: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    peak_kib: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> t.Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._look_at_processes()
            for name, group in self.load.sidecars(self.pid).items():
                self.cpu[name] = max(self.cpu.get(name, 0.0), group.cpu())
                self.peak_kib[name] = max(self.peak_kib.get(name, 0), group.peak_kib())
                self.written[name] = max(self.written.get(name, 0), group.written(self.processes))

    def _look_at_processes(self) -> None:
        own = others = 0
        for pid in (self.pid, *self.processes.descendants(self.pid)):
            words = _text(Path(f"/proc/{pid}/status")).split()
            if "VmRSS:" not in words:
                continue
            resident = int(words[words.index("VmRSS:") + 1])
            if not words[1].startswith(OWN):
                others += resident
            # A process that was forked and has not become a program yet has its parent's pages.
            elif pid == self.pid or _text(Path(f"/proc/{pid}/cmdline")) != _text(Path(f"/proc/{_parent(pid)}/cmdline")):
                peak = int(words[words.index("VmHWM:") + 1])
                own += peak
                self.largest_kib = max(self.largest_kib, peak)
        self.sum_kib, self.others_kib = max(self.sum_kib, own), max(self.others_kib, others)


def measure(
    argv: Sequence[str],
    load: Load,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    expected: int = 0,
) -> tuple[Cost, str]:
    """Run a command to its end; what it left in `folder` is its size.

    Raises:
        SystemExit: it ended with another exit status than `expected`.
    """
    server_before, started = load.server_cpu(), time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    assert process.stdin is not None and process.stdout is not None
    with _Sampler(process.pid, load) as sampler:
        process.stdin.write(stdin)
        process.stdin.close()
        output = process.stdout.read().decode(errors="replace")
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
    if process.returncode != expected:
        raise SystemExit(f"{argv[0]} ended with {process.returncode}:\n{output[-3000:]}")
    return (
        Cost(
            seconds,
            usage.ru_utime + usage.ru_stime,
            load.server_cpu() - server_before,
            sum(sampler.cpu.values()),
            sampler.largest_kib,
            sampler.sum_kib,
            sampler.others_kib,
            max(sampler.peak_kib.values(), default=0),
            usage.ru_oublock * 512 + sum(sampler.written.values()),
            size_of(folder),
        ),
        output,
    )


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def last_json(output: str) -> dict[str, t.Any]:
    """What a module answered."""
    return t.cast("dict[str, t.Any]", json.loads(next(line for line in output.splitlines() if line.startswith("{"))))


def cpu_of_tree(pid: int) -> float:
    """Processor seconds of a process, its living descendants, and those that it has waited for."""
    ticks = 0
    for one in (pid, *Processes().descendants(pid)):
        words = _text(Path(f"/proc/{one}/stat")).rpartition(")")[2].split()
        ticks += sum(int(word) for word in words[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _parent(pid: int) -> int:
    words = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(words[1]) if words else 0


def _written(pid: int) -> int:
    words = _text(Path(f"/proc/{pid}/io")).split()
    return int(words[words.index("write_bytes:") + 1]) if "write_bytes:" in words else 0


def _text(path: Path) -> str:
    """A file of the kernel's; empty when what it tells of is gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
