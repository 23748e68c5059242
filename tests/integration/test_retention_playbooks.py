# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""prune.yml, confirm_change.yml, hold_set.yml, and the last step of backup.yml, as operators and surveys run them."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.dated_sets import days_ago, publish
from support.fake_sets import Site
from support.keys import signing_key
from support.plays import HOSTNAME, Installation, Place, Play, installed, tree_state
from support.servers import PgServer, installations

REMOVE = "Retention | Remove the sets whose time is over"
SAY = "Retention | Say it in the records"
SURVEY = {
    "mazevault_retention_days": "",
    "mazevault_retention_keep": "2",
    "mazevault_retention_component_days": "",
    "mazevault_retention_monthly": None,
    "mazevault_retention_evidence_days": "1826",
    "mazevault_retention_sets": "",
    "mazevault_pin_set": "",
    "mazevault_pin_by": "",
    "mazevault_pin_reason": "",
    "mazevault_pin_until": "",
    "mazevault_confirm": "",
}


@dataclass(frozen=True)
class Host:
    """A host with sets and nothing else: no database, no containers."""

    site: Site

    def play(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        place = Place(self.site.folder)
        variables = {"mazevault_backup_root": str(self.site.root), "mazevault_signing_key": signing_key()}
        inventory = place.write_inventory({HOSTNAME: variables})
        return place.run(playbook, inventory, *arguments, extra={**SURVEY, **extra}, env={"USER": "operator"})

    def sets(self) -> list[str]:
        return [path.name for path in self.site.sets()]

    @property
    def book(self) -> list[dict[str, t.Any]]:
        path = self.site.folder / f"home/.mazevault-backup/witness/{HOSTNAME}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    site = Site(tmp_path)
    site.root.mkdir(mode=0o700)
    for age in (50, 40, 2, 1):
        publish(site.root, days_ago(age))
    return Host(site)


def test_prune_previews_removes_and_comes_to_rest(host: Host) -> None:
    before, ids = tree_state(host.site.root), host.sets()
    previewed = host.play("prune", "--check", "--diff")
    assert previewed.rc == 0, previewed.output
    assert tree_state(host.site.root) == before and host.book == []
    assert previewed.changed == [REMOVE]
    assert f"-{ids[0]}, 1.0 kB: goes: 50.0 d old, kept for 30 d" in previewed.output
    assert f"{ids[3]}, 1.0 kB: stays: postgres is kept for 30 d, until " in previewed.output
    assert "Would remove 2 of 4 sets" in previewed.output
    done = host.play("prune")
    assert done.rc == 0, done.output
    assert done.changed == [REMOVE] and host.sets() == ids[2:]
    lines = host.site.ledger.read_text(encoding="utf-8").splitlines()
    assert [line["ledger_lines"] for line in host.book] == [len(lines)], "the control node saw the new end"
    again = host.play("prune")
    assert (again.rc, again.changed) == (0, [])
    assert "Removed 0 of 2 sets (0.0 MB), kept 2" in again.output


def test_a_misspelt_rule_removes_nothing(host: Host) -> None:
    ids = host.sets()
    done = host.play("prune", mazevault_retention_dayz="90")
    assert done.rc != 0 and "did you mean mazevault_retention_days?" in done.failures[0].msg
    assert host.sets() == ids
    done = host.play("prune", mazevault_retention_days="0")
    assert done.rc != 0 and "days: 0: below 1" in done.failures[0].msg
    done = host.play("prune", mazevault_retention_component_days='{"postgres": "45"}')
    assert done.rc == 0 and host.sets() == ids[1:], done.output


def test_what_is_suspicious_makes_prune_red_until_somebody_accepts_it(host: Host) -> None:
    small = publish(host.site.root, days_ago(0.5), bytes=10).set_id
    done = host.play("prune")
    assert done.rc != 0 and f"{small}: postgres has 10 bytes, after 1000" in done.failures[0].msg
    assert done.changed == [REMOVE], "what was to go went"
    why = {"mazevault_pin_set": small, "mazevault_pin_reason": "emptied", "mazevault_pin_state": "accepted"}
    accepted = host.play("hold_set", **why)
    assert accepted.rc == 0 and accepted.changed == [SAY], accepted.output
    assert host.play("prune").rc == 0


def test_a_change_is_confirmed_once(host: Host) -> None:
    old = publish(host.site.root, days_ago(0.9), reason="pre_change").set_id
    before = tree_state(host.site.root)
    checked = host.play("confirm_change", "--check", "--diff")
    assert checked.rc == 0 and checked.changed == [SAY], checked.output
    assert f"Would be confirmed: {old}" in checked.output and tree_state(host.site.root) == before
    done = host.play("confirm_change")
    assert done.rc == 0 and done.changed == [SAY], done.output
    (record,) = (host.site.root / "records" / old).glob("*-pin.json")
    assert json.loads(record.read_text(encoding="utf-8"))["by"] == "operator"
    assert done.of("recovery_set_pin")[0]["sets"] == [old]
    assert len(host.book) == 1
    again = host.play("confirm_change", mazevault_pin_by="A. Person")
    assert (again.rc, again.changed) == (0, [])


def test_a_held_set_stays_for_the_one_who_holds_it(host: Host) -> None:
    first = host.sets()[0]
    hold = {"mazevault_pin_set": first, "mazevault_pin_reason": "audit", "mazevault_pin_until": "2099-03-01"}
    done = host.play("hold_set", mazevault_pin_by="A. Person", **hold)
    assert done.rc == 0 and done.changed == [SAY], done.output
    again = host.play("hold_set", mazevault_pin_by="A. Person", **hold)
    assert (again.rc, again.changed) == (0, []), again.output
    pruned = host.play("prune")
    assert first in host.sets() and len(host.sets()) == 3
    assert "held by A. Person until 2099-03-02" in pruned.output
    missing = host.play("hold_set", mazevault_pin_set=first)
    assert missing.rc != 0 and "reason: missing" in missing.failures[0].msg


def test_a_set_goes_by_name_with_a_confirmation(host: Host) -> None:
    newest = host.sets()[-1]
    refused = host.play("prune", mazevault_retention_sets=newest)
    assert refused.rc != 0 and f"mazevault_confirm={HOSTNAME}" in refused.failures[0].msg
    done = host.play("prune", mazevault_retention_sets=newest, mazevault_confirm=HOSTNAME)
    assert done.rc == 0 and newest not in host.sets() and len(host.sets()) == 3, done.output


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    with PgServer(installations()[0]) as server, installed(server, folder) as found:
        yield found


def test_backup_prunes_last_and_a_failed_prune_hides_no_set(installation: Installation) -> None:
    installation.root.mkdir(parents=True, mode=0o700)
    old = [publish(installation.root, days_ago(age)).set_id for age in (60, 50, 40, 35, 34)]
    sets = installation.root / "sets"
    kept = installation.play("backup", mazevault_verify_level="toc", mazevault_prune="false")
    assert kept.rc == 0 and kept.changed == ["Recovery set | Publish"], kept.output
    assert all((sets / name).exists() for name in old)
    failed = installation.play("backup", mazevault_verify_level="toc", mazevault_retention_days="x")
    assert failed.rc != 0
    (new,) = {path.name for path in sets.iterdir()} - {*old, kept.of("recovery_set")[0]["set_id"]}
    assert f"{new} is published. Removing old sets failed at" in failed.failures[-1].msg
    assert f"Published {sets}/{new}" in failed.output
    done = installation.play("backup", mazevault_verify_level="toc")
    assert done.rc == 0, done.output
    assert done.changed == ["Recovery set | Publish", REMOVE]
    assert [name for name in old if (sets / name).exists()] == old[3:], "the newest proven ones"
    verified = installation.play("verify", mazevault_verify_level="toc", mazevault_restore_set=new)
    ledger = verified.of("ledger_verify")[0]
    assert {check["name"]: check["verdict"] for check in ledger["checks"]}["sets entered"] == "pass"
