# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What can be scheduled, how each job is started, and whether the schedule can keep what is promised. Pure."""

from __future__ import annotations

import datetime as dt
import json
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._calendar import Calendar
from ansible_collections.mazevault.backup.plugins.module_utils._clock import exact_span
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import (
    HOST,
    SPECIFICATION,
    parse_objectives,
    targets_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._timetable import judge_timetable
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL

# Who changes sets waits for each other, or leaves it to the next run.
SETS = "sets"
# A backup waits so long for a run that looks for changes, or prunes.
PATIENCE = 3600


@dataclass(frozen=True)
class Job:
    """One kind of run.

    Attributes:
        lock: what it shares with other jobs; its own lock it has anyway.
        waits: it waits for the lock; others end with a word, as their next run does the same.
    """

    name: str
    title: str
    playbook: str
    lock: str = ""
    waits: bool = False


JOBS = (
    Job("backup", "backup", "backup", SETS, True),
    Job("on_change", "backup of what changed", "backup", SETS),
    Job("verify", "verification of the published sets", "verify"),
    Job("replicate", "replication", "replicate"),
    Job("drill", "disaster-recovery drill", "dr_test"),
    Job("verify_keys", "check of the escrowed keys", "verify_keys"),
    Job("prune", "removal of sets whose time is over", "prune", SETS),
    Job("status", "status, red where an objective is missed", "status"),
)
NAMES = tuple(job.name for job in JOBS)


@dataclass(frozen=True)
class Planned:
    """A job, when it runs, and its command line."""

    job: Job
    calendar: Calendar
    argv: tuple[str, ...]


def command_of(
    program: str,
    playbook: str,
    *,
    inventory: t.Sequence[str],
    arguments: t.Sequence[str],
    variables: t.Mapping[str, t.Any],
) -> tuple[str, ...]:
    """A command line of ansible-playbook; extra variables as JSON, so that no value is split or converted."""
    sources = [word for source in inventory for word in ("-i", source)]
    extra = ["-e", json.dumps(dict(variables), sort_keys=True)] if variables else []
    return (program, *sources, playbook, *arguments, *extra)


def problems_of(
    installations: t.Iterable[t.Mapping[str, t.Any]],
    objectives: t.Mapping[str, t.Mapping[str, float]],
    backups: Calendar | None,
    *,
    delay: float,
    now: dt.datetime,
) -> list[str]:
    """What this schedule can't keep, one line each, for what the host itself has to have.

    Args:
        installations: `name`, and as far as they are known `sets`, `policy`, `runtime`.
    """
    if backups is None:
        return ["no backup is scheduled, so nothing that is promised can be kept by this schedule"]
    found = []
    for said in installations:
        pinned = parse_objectives((said.get("policy") or {}).get("objectives"), parameter=f"policy of {said['name']}")
        targets, _overridden = targets_of(objectives, pinned, kubernetes=said.get("runtime") == "kubernetes")
        lasts = max((_duration(one) for one in said.get("sets") or ()), default=None)
        for scenario in SPECIFICATION:
            if scenario.need.reach != HOST or scenario.need.immutable or scenario.name == "key_loss":
                continue
            target = targets[scenario.name].rpo
            judged = judge_timetable(backups.timetable(delay), lasts, target, now=now)
            if judged.verdict == FAIL:
                found.append(f"{said['name']}: {scenario.title}: RPO < {exact_span(target)}: {judged.reason}")
    return found


def _duration(one: t.Mapping[str, t.Any]) -> float:
    """Seconds from the moment of the data until it was published."""
    published = one.get("published_at") or one["recovery_point"]
    return max(0.0, (_clock.parse(published) - _clock.parse(one["recovery_point"])).total_seconds())
