# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures as a table for people, and whether the targets are reached. Pure functions."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .contenders import BARE_DUMP, COMPLETE, DUMP, FLOOR, SPECIFICATION
from .measuring import Cost

MEMORY = 100.0
OURS = (BARE_DUMP, DUMP, *COMPLETE.values())


@dataclass(frozen=True)
class Target:
    """A figure that has to be at most `limit`."""

    name: str
    value: float
    limit: float
    reached: bool


Costs = Mapping[str, Sequence[Cost]]


def median(costs: Costs, name: str, what: str) -> float:
    """Of all rounds."""
    return float(statistics.median(getattr(cost, what) for cost in costs[name]))


def judge(costs: Costs) -> list[Target]:
    """Compare the medians with what was promised."""
    bare, dump, floor, script = (median(costs, name, "seconds") for name in (BARE_DUMP, DUMP, FLOOR, SPECIFICATION))
    size, script_size = (median(costs, name, "size") for name in (DUMP, SPECIFICATION))
    # Not the median: the memory has to be there whenever it is needed.
    peak = max(cost.sum_kib for name in OURS for cost in costs[name]) / 1024
    found = (
        ("our dump, as a part of the specification's script", dump / script, 0.25),
        ("our dump without its digests, times the floor", bare / floor, 1.6),
        ("our dump, times the floor", dump / floor, 2.5),
        (
            "complete with proof read, as a part of the script",
            median(costs, COMPLETE["read"], "seconds") / script,
            0.45,
        ),
        ("size, as a part of the script's", size / script_size, 1.0),
        ("peak memory of our own processes together, MB", peak, MEMORY),
    )
    return [Target(name, round(value, 3), limit, value <= limit) for name, value, limit in found]


def table(title: str, runtime: str, size: int, costs: Costs, targets: Sequence[Target]) -> str:
    """Not wider than 100 columns."""
    rounds = len(costs[FLOOR])
    lines = [
        "",
        f"{title} ({runtime}), {size / 1e6:.0f} MB, {os.cpu_count()} processors,"
        f" medians of {rounds} interleaved rounds",
        f"{'':<34}{'s':>7}{'/floor':>7}{'/script':>8} |{'own':>6}{'server':>7}{'beside':>7}"
        f" |{'MB':>5}{'written':>8}{'peak':>5}",
    ]
    floor, script = median(costs, FLOOR, "seconds"), median(costs, SPECIFICATION, "seconds")
    for name in costs:
        seconds = median(costs, name, "seconds")
        own, server, beside = (median(costs, name, what) for what in ("cpu", "server_cpu", "sidecar_cpu"))
        left, written = median(costs, name, "size") / 1e6, median(costs, name, "written") / 1e6
        lines.append(
            f"{name:<34}{seconds:>7.1f}{seconds / floor:>7.2f}{seconds / script:>8.2f} |{own:>6.1f}{server:>7.1f}"
            f"{beside:>7.1f} |{left:>5.0f}{written:>8.0f}{median(costs, name, 'sum_kib') / 1024:>5.0f}"
        )
    lines += [
        "s: wall time. own, server, beside: processor seconds of the command's processes, of the server,",
        "of containers beside it. MB: size left. written: to disk. peak: MB of Pythons and zstds together.",
    ]
    lines += [
        f"{'reached' if target.reached else 'MISSED ':<8} {target.name}: {target.value:.2f} (at most {target.limit:g})"
        for target in targets
    ]
    return "\n".join(lines)
