# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The report as Prometheus reads it from a file, and the rules that alarm on it, its age and its absence. Pure."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN

PREFIX = "mazevault_backup_"
# Of each name: what it says. Written always, so that their absence is a fault: those of ALWAYS.
HELP = {
    "status_timestamp_seconds": "When this report was made.",
    "verdict": "1 for the verdict on everything that is promised for the installation, else 0.",
    "installation_up": "Whether the installation could be looked at; 0 for one that vanished.",
    "objective_verdict": "1 for the verdict on an objective, else 0.",
    "objective_target_seconds": "What is promised.",
    "objective_worst_seconds": "What was measured at worst: data lost (rpo), time to service (rto).",
    "objective_now_seconds": "Data that would be lost now.",
    "schedule_verdict": "1 for the verdict on whether the schedule can meet the recovery point objective, else 0.",
    "check_verdict": "1 for the verdict on what else was looked at, else 0.",
    "sets": "Recovery sets on the host.",
    "pinned_sets": "Recovery sets that stay until somebody lets them go.",
    "newest_recovery_point_timestamp_seconds": "The moment of the newest set's data.",
    "newest_proven_recovery_point_timestamp_seconds": "The moment of the data of the newest set that counts.",
    "newest_size_bytes": "Size of the newest set.",
    "newest_duration_seconds": "What it took to make and prove the newest set.",
    "filesystem_free_bytes": "Room on the file system of the backup root.",
    "filesystem_size_bytes": "Size of the file system of the backup root.",
    "due_timestamp_seconds": "When something has to be done next; 0 is now.",
}
ALWAYS = ("status_timestamp_seconds", "verdict", "installation_up", "objective_verdict", "objective_target_seconds")
Labels = t.Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    name: str
    labels: Labels
    value: float


def metrics_text(report: t.Mapping[str, t.Any]) -> str:
    """The text format, metric by metric, in the order of HELP."""
    samples = list(_samples(report))
    lines = []
    for name, words in HELP.items():
        own = [sample for sample in samples if sample.name == name]
        if own:
            lines += [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} gauge"]
            lines += [f"{PREFIX}{name}{_labels(sample.labels)} {_number(sample.value)}" for sample in own]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    pairs = [f'{key}="{_escaped(value)}"' for key, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(round(float(value), 3))


def _epoch(text: str) -> float:
    return _clock.parse(text).timestamp()


def _states(name: str, labels: Labels, verdict: str) -> t.Iterator[Sample]:
    for word in (PASS, FAIL, UNPROVEN):
        yield Sample(name, {**labels, "verdict": word}, float(word == verdict))


def _samples(report: t.Mapping[str, t.Any]) -> t.Iterator[Sample]:
    yield Sample("status_timestamp_seconds", {}, _epoch(report["at"]))
    for one in report["installations"]:
        labels = {"installation": str(one["name"])}
        seen = one["checks"][0]["verdict"] == PASS
        yield from _states("verdict", labels, one["verdict"])
        yield Sample("installation_up", labels, float(seen))
        for check in one["checks"][1:]:
            yield from _states("check_verdict", {**labels, "check": check["name"]}, check["verdict"])
        yield from _of_objectives(one, labels)
        if seen:
            yield from _of_sets(one, labels)
        for due in one["due"]:
            yield Sample(
                "due_timestamp_seconds", {**labels, "what": due["what"]}, _epoch(due["at"]) if due["at"] else 0
            )


def _of_objectives(one: t.Mapping[str, t.Any], labels: Labels) -> t.Iterator[Sample]:
    for row in one["objectives"]:
        for kind in ("rpo", "rto"):
            own = {**labels, "scenario": row["scenario"], "objective": kind}
            judged = row[kind]
            yield from _states("objective_verdict", own, judged["verdict"])
            yield Sample("objective_target_seconds", own, judged["target_seconds"])
            for name in ("worst", "now"):
                if judged[f"{name}_seconds"] is not None:
                    yield Sample(f"objective_{name}_seconds", own, judged[f"{name}_seconds"])
        if row["schedule"]:
            yield from _states("schedule_verdict", {**labels, "scenario": row["scenario"]}, row["schedule"]["verdict"])


def _of_sets(one: t.Mapping[str, t.Any], labels: Labels) -> t.Iterator[Sample]:
    sets, space = one["sets"], one["space"] or {}
    yield Sample("sets", labels, len(sets))
    yield Sample("pinned_sets", labels, len(one["pinned"]))
    if sets:
        yield Sample("newest_recovery_point_timestamp_seconds", labels, _epoch(sets[-1]["recovery_point"]))
        yield Sample("newest_size_bytes", labels, sets[-1]["bytes"])
        yield Sample("newest_duration_seconds", labels, sets[-1]["seconds"])
    counting = [_epoch(entry["recovery_point"]) for entry in sets if entry["counts"]]
    if counting:
        yield Sample("newest_proven_recovery_point_timestamp_seconds", labels, max(counting))
    if space.get("total_bytes"):
        yield Sample("filesystem_free_bytes", labels, space["free_bytes"])
        yield Sample("filesystem_size_bytes", labels, space["total_bytes"])


@dataclass(frozen=True)
class Rule:
    """One alert; `expr` names metrics with their whole names."""

    name: str
    expr: str
    severity: str
    summary: str
    wait: str = ""


def rules_of(alarm_after: float) -> list[Rule]:
    """The alerts.

    Args:
        alarm_after: seconds after which a report that wasn't made anew is of no worth.
    """
    known = "{{ $labels.installation }}"
    of_scenario = "{{ $labels.scenario }} ({{ $labels.objective }})"
    corruption = 'objective_target_seconds{scenario="database_corruption",objective="rpo"}'
    rules = [
        Rule(
            "MazeVaultBackupStatusOld",
            f"time() - {PREFIX}status_timestamp_seconds > {alarm_after:.0f}",
            "critical",
            "Nobody has looked at the backups for too long; every other figure is as old.",
        ),
        Rule(
            "MazeVaultBackupStatusFromTheFuture",
            f"{PREFIX}status_timestamp_seconds - time() > 300",
            "critical",
            "The report's time is ahead of this server's, so its age can't be told.",
        ),
        Rule(
            "MazeVaultBackupInstallationMissing",
            f"{PREFIX}installation_up == 0",
            "critical",
            f"{known} could not be looked at, or is in no inventory any more.",
        ),
        Rule(
            "MazeVaultBackupObjectiveMissed",
            f'{PREFIX}objective_verdict{{verdict="fail"}} == 1',
            "critical",
            f"{known} misses an objective: {of_scenario}.",
        ),
        Rule(
            "MazeVaultBackupObjectiveUnproven",
            f'{PREFIX}objective_verdict{{verdict="unproven"}} == 1',
            "info",
            f"Nobody knows whether {known} meets an objective: {of_scenario}.",
            "1d",
        ),
        Rule(
            "MazeVaultBackupScheduleTooSlow",
            f'{PREFIX}schedule_verdict{{verdict="fail"}} == 1',
            "warning",
            f"The schedule of {known} can't meet the objective of {{{{ $labels.scenario }}}} even if every run works.",
        ),
        Rule(
            "MazeVaultBackupCheckFailed",
            f'{PREFIX}check_verdict{{verdict="fail"}} == 1',
            "critical",
            f"{known}: {{{{ $labels.check }}}} failed.",
        ),
        Rule(
            "MazeVaultBackupTooOld",
            # By the server's own clock, so that it alarms between two reports as well.
            f"time() - {PREFIX}newest_proven_recovery_point_timestamp_seconds"
            f" > ignoring(scenario, objective) {PREFIX}{corruption}",
            "critical",
            f"The newest proven recovery point of {known} is older than what may be lost.",
        ),
        Rule(
            "MazeVaultBackupNothingProven",
            f"{PREFIX}installation_up == 1 unless {PREFIX}newest_proven_recovery_point_timestamp_seconds",
            "critical",
            f"{known} has no proven recovery set.",
        ),
        Rule(
            "MazeVaultBackupDiskNearlyFull",
            f"{PREFIX}filesystem_free_bytes / {PREFIX}filesystem_size_bytes < 0.05",
            "warning",
            f"The disk of the backup root of {known} is nearly full.",
        ),
    ]
    for name in ALWAYS:
        rule = "MazeVaultBackupNo" + "".join(word.capitalize() for word in name.split("_"))
        rules.append(Rule(rule, f"absent({PREFIX}{name})", "critical", f"{PREFIX}{name} is not there.", "15m"))
    return rules


def rules_text(alarm_after: float) -> str:
    """The alerts as a file of rules (YAML); text in the quotes of JSON, which YAML reads alike."""
    lines = [
        "# Made by mazevault.backup (status.yml); changes are overwritten.",
        "groups:",
        "  - name: mazevault_backup",
    ]
    lines.append("    rules:")
    for rule in rules_of(alarm_after):
        lines += [f"      - alert: {rule.name}", f"        expr: {json.dumps(rule.expr)}"]
        lines += [f"        for: {rule.wait}"] if rule.wait else []
        lines += ["        labels:", f"          severity: {rule.severity}"]
        lines += ["        annotations:", f"          summary: {json.dumps(rule.summary)}"]
    return "\n".join(lines) + "\n"
