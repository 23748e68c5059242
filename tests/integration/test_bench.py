# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: its instruments show what is there, its verdicts follow from the figures, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from bench import report
from bench.contenders import BARE_DUMP, COMPLETE, DUMP, FLOOR, SPECIFICATION
from bench.measuring import ControlGroup, Cost, measure
from support.servers import installations

BENCH = Path(__file__).resolve().parents[1] / "bench/bench.py"
MB = 1 << 20
# Works, remembers, writes, and forgets again, then waits until somebody must have looked.
BUSY = """
import os, sys, time
end = time.process_time() + 0.4
while time.process_time() < end:
    pass
held = b"x" * (80 << 20)
with open(sys.argv[1], "wb") as out:
    out.write(b"x" * (8 << 20))
    out.flush()
    os.fsync(out.fileno())
time.sleep(0.5)
print("done")
"""


class Nobody:
    """No server and no containers."""

    def server_cpu(self) -> float:
        return 0.0

    def sidecars(self, pid: int) -> dict[str, ControlGroup]:
        return {}


def test_instruments(tmp_path: Path) -> None:
    idle, _output = measure([sys.executable, "-c", "import time; time.sleep(0.5)"], Nobody(), tmp_path)
    busy, output = measure([sys.executable, "-c", BUSY, str(tmp_path / "file")], Nobody(), tmp_path)
    assert output == "done\n"
    # What a child does, and a child's child.
    nested, _output = measure(["sh", "-c", f"{sys.executable} -c '{BUSY}' {tmp_path}/file; :"], Nobody(), tmp_path)
    assert (idle.size, busy.size) == (0, 8 * MB)
    for cost in (busy, nested):
        assert 0.9 < cost.seconds < 60
        assert 0.4 <= cost.cpu < idle.cpu + 3
        assert 70 << 10 < cost.largest_kib - idle.largest_kib < 110 << 10
        assert cost.largest_kib <= cost.sum_kib
        assert cost.others_kib < 10 << 10
    assert idle.cpu < 0.4


def test_a_failure_ends_the_bench(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no space"):
        measure(["sh", "-c", "echo no space; exit 3"], Nobody(), tmp_path)
    assert measure(["sh", "-c", "exit 3"], Nobody(), tmp_path, expected=3)[0].size == 0


GOOD = {
    FLOOR: (10.0, 0),
    SPECIFICATION: (100.0, 50),
    BARE_DUMP: (15.0, 50),
    DUMP: (24.0, 50),
    **{name: (40.0, 50) for name in COMPLETE.values()},
}


def costs_of(**changed: t.Any) -> dict[str, list[Cost]]:
    figures = {
        **GOOD,
        **{
            {"floor": FLOOR, "bare": BARE_DUMP, "dump": DUMP, "read": COMPLETE["read"]}[key]: changed[key]
            for key in changed
        },
    }
    # A bad round among good ones changes no median.
    return {
        name: [Cost(seconds=seconds, size=size, sum_kib=50 << 10), Cost(seconds=seconds, size=size), Cost(seconds=1e6)]
        for name, (seconds, size) in figures.items()
    }


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({}, []),
        ({"dump": (25.5, 50)}, ["our dump, as a part of the specification's script", "our dump, times the floor"]),
        ({"bare": (16.5, 50)}, ["our dump without its digests, times the floor"]),
        ({"floor": (9.5, 0)}, ["our dump, times the floor"]),
        ({"read": (46.0, 50)}, ["complete with proof read, as a part of the script"]),
        ({"dump": (24.0, 51)}, ["size, as a part of the script's"]),
    ],
)
def test_verdicts(changed: dict[str, tuple[float, int]], missed: list[str]) -> None:
    targets = report.judge(costs_of(**changed))
    assert [target.name for target in targets if not target.reached] == missed


def test_memory_counts_in_every_round() -> None:
    costs = costs_of()
    costs[COMPLETE["restore"]][1].sum_kib = 101 << 10
    assert [target.name for target in report.judge(costs) if not target.reached] == [
        "peak memory of our own processes together, MB"
    ]


def test_it_runs(tmp_path: Path) -> None:
    """One round with a tiny database, without containers; so small, starting programs is all that takes time."""
    path, major = tmp_path / "figures.json", installations()[0].major
    words = ["--runtime", "host", "--size", "small", "--rounds", "1", "--versions", str(major), "--check"]
    done = subprocess.run(
        [sys.executable, BENCH, *words, "--output", path], capture_output=True, text=True, timeout=300, check=False
    )
    shown = done.stdout.splitlines()
    assert (done.returncode, bool(shown)) == (1, True), done.stderr
    assert max(map(len, shown)) <= 100
    (result,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    for name in (FLOOR, SPECIFICATION, BARE_DUMP, DUMP, *COMPLETE.values()):
        assert any(line.startswith(name) for line in shown), name
        (cost,) = result["runs"][name]
        assert cost["seconds"] > 0
        assert (cost["size"] > 0) == (name != FLOOR)
    assert all(result["runs"][name][0]["sum_kib"] > 0 for name in (BARE_DUMP, DUMP, *COMPLETE.values()))
    missed = {target["name"] for target in result["targets"] if not target["reached"]}
    assert "our dump, times the floor" in missed
    assert sum(line.startswith("MISSED") for line in shown) == len(missed)
