# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The scenarios that are promised something, their targets, and what a copy must be to outlive each. Pure."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._policy import SCENARIOS, seconds_of

HOUR = 3600.0
# How far a copy is from the installation's own host.
HOST, OTHER_HOST, OTHER_SITE = REACHES = ("host", "other_host", "other_site")
# From the declaration of the emergency to service for users.
SEGMENTS = (
    "obtain_identity",
    "provision",
    "fetch",
    "decrypt",
    "config",
    "keys",
    "database",
    "start",
    "health",
    "functional_proof",
)


@dataclass(frozen=True)
class Need:
    """What a copy must be to be out of a scenario's reach.

    Attributes:
        reach: it is at least as far away.
        immutable: nobody can change or delete it, and somebody else than the host itself has proven it.
    """

    reach: str = HOST
    immutable: bool = False

    @property
    def words(self) -> str:
        place = {HOST: "", OTHER_HOST: " on another host", OTHER_SITE: " at another site"}[self.reach]
        return ("immutable " if self.immutable else "") + "copy" + place


@dataclass(frozen=True)
class Scenario:
    """One row of the specification's table; times in seconds."""

    name: str
    title: str
    rpo: float
    rto: float
    need: Need = Need()
    rto_kubernetes: float | None = None


@dataclass(frozen=True)
class Target:
    """What is promised for a scenario. A target of 0 is met by 0, any other one by less than it."""

    rpo: float
    rto: float


SPECIFICATION = (
    Scenario("database_corruption", "Database corruption", 24 * HOUR, 4 * HOUR),
    Scenario("node_failure", "Complete node failure", 24 * HOUR, 4 * HOUR, Need(OTHER_HOST), 2 * HOUR),
    Scenario("datacentre_failure", "Datacentre failure", 1 * HOUR, 8 * HOUR, Need(OTHER_SITE)),
    Scenario("key_loss", "Encryption key loss", 0.0, 2 * HOUR),
    Scenario("ransomware", "Ransomware, data loss", 24 * HOUR, 8 * HOUR, Need(OTHER_HOST, immutable=True)),
)


def meets(seconds: float, target: float) -> bool:
    return seconds < target or seconds == target == 0


def parse_objectives(given: t.Any, *, parameter: str = "objectives") -> dict[str, dict[str, float]]:
    """Seconds by scenario and `rpo` or `rto`; empty values mean unset.

    Raises:
        BackupError: it names what isn't known, or no span of time.
    """
    found: dict[str, dict[str, float]] = {}
    if given in (None, ""):
        return found
    if not isinstance(given, dict):
        raise BackupError(f"{parameter}: {given}: no dictionary", hint="Give rpo and rto by scenario.")
    for scenario, targets in given.items():
        if scenario not in SCENARIOS:
            raise BackupError(f"{parameter}: {scenario}: unknown", hint=f"Take {', '.join(SCENARIOS)}.")
        if targets in (None, ""):
            continue
        if not isinstance(targets, dict):
            raise BackupError(f"{parameter}.{scenario}: {targets}: no dictionary", hint="Give rpo, rto or both.")
        for name, span in targets.items():
            if name not in ("rpo", "rto"):
                raise BackupError(f"{parameter}.{scenario}: {name}: unknown", hint="Take rpo or rto.")
            if span is None or span == "":
                continue
            found.setdefault(scenario, {})[name] = _span(span, f"{parameter}.{scenario}.{name}")
    return found


def _span(value: t.Any, parameter: str) -> float:
    try:
        seconds = seconds_of(value)
    except ValueError as exc:
        raise BackupError(f"{parameter}: {exc}", hint="Write a number of seconds, 24 h, 45 min or 30 d.") from exc
    if not math.isfinite(seconds) or seconds < 0:
        raise BackupError(f"{parameter}: {value}: not 0 or more", hint="Write a number of seconds, 24 h or 45 min.")
    return seconds


def targets_of(
    wanted: t.Mapping[str, t.Mapping[str, float]],
    pinned: t.Mapping[str, t.Mapping[str, float]],
    *,
    kubernetes: bool = False,
) -> tuple[dict[str, Target], list[str]]:
    """(targets by scenario, names of what was wished longer than the policy has it).

    The operator's wish takes the place of the specification's; the pinned policy holds against both.
    """
    found, overridden = {}, []
    for scenario in SPECIFICATION:
        own_rto = scenario.rto_kubernetes if kubernetes and scenario.rto_kubernetes else scenario.rto
        settled = {}
        for name, usual in (("rpo", scenario.rpo), ("rto", own_rto)):
            wish = wanted.get(scenario.name, {}).get(name)
            most = pinned.get(scenario.name, {}).get(name)
            if wish is not None and most is not None and wish > most:
                overridden.append(f"objectives.{scenario.name}.{name}")
                wish = most
            settled[name] = wish if wish is not None else most if most is not None else usual
        found[scenario.name] = Target(**settled)
    return found, overridden
