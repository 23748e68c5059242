# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup, proof, damage, restore and rollback on a real host, over ssh, with no name of anything given.

What happened is judged from outside: by the engine, by SQL, by sums of files, and by users of the API.
"""

from __future__ import annotations

import re
import time
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lab import by_hand
from lab.conftest import Lab
from lab.site import Site
from lab.user import Reader, Writer
from support.flow import FULL
from support.plays import Play

NAME = "mv-site-a"
PLAYBOOKS = ("backup", "verify", "restore_database", "rollback_database")
OUR_PART = 2.0
SIZE = "2GB" if FULL else "30MB"
DAMAGE = """
DELETE FROM secret_versions WHERE secret_id % 3 = 2;
UPDATE secret_versions SET ciphertext = wrapped_dek WHERE secret_id % 5 = 4;
DROP TABLE certificates CASCADE;
CREATE TABLE only_in_the_damaged_one (id integer);
"""
# Reading a secret is audited by the application.
READING = ("public.audit_logs", "public.audit_logs_id_seq")


def differing(one: dict[str, str], other: dict[str, str], *, ignore: t.Collection[str] = ()) -> list[str]:
    """Tables, sequences and definitions that aren't the same."""
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key) and key not in ignore]


@dataclass
class Swap:
    """One swap as users saw it."""

    play: Play
    interruption: float
    acknowledged_before: set[str]
    acknowledged: set[str]
    restarted: tuple[str, ...]


@dataclass
class Story:
    """What was done to one host, and how it was before and after."""

    site: Site
    plays: dict[str, Play] = field(default_factory=dict)
    before: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    after: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    backups: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    swaps: dict[str, Swap] = field(default_factory=dict)
    seen: dict[str, t.Any] = field(default_factory=dict)

    def play(self, name: str, playbook: str, *arguments: str) -> None:
        backups = self.site.backups()
        self.before[name] = self.site.state()
        self.plays[name] = self.site.play(playbook, *arguments)
        self.after[name] = self.site.state()
        self.backups[name] = backups, self.site.backups()

    def swap(self, playbook: str) -> None:
        """Under the eyes of a reader, while another user writes."""
        site, began = self.site, time.monotonic()
        restarts = site.started_at()
        with Reader(site.client) as reader, Writer(site.client) as writer:
            done = site.play(playbook, mazevault_confirm=site.name)
            for user in (reader, writer):
                user.wait_for_good()
        stopped = next(answer.asked for answer in reader.answers if not answer.good)
        self.plays[playbook] = done
        self.swaps[playbook] = Swap(
            done,
            reader.interruption(began),
            writer.acknowledged(before=stopped),
            writer.acknowledged(),
            tuple(sorted(name for name, at in site.started_at().items() if restarts.get(name) != at)),
        )


def own_stop_and_start(site: Site, containers: t.Sequence[str]) -> float:
    """Seconds that users see the application away when it is stopped and started by hand, with nothing in between."""
    with Reader(site.client) as reader:
        began = time.monotonic()
        site.shell('docker stop "$@" && docker start "$@"', *containers)
        reader.wait_for_good()
    return reader.interruption(began)


@pytest.fixture(scope="module")
def story(lab: Lab, site: Callable[[str], Site]) -> Iterator[Story]:
    lab.seed(NAME, size=SIZE)
    told = Story(site(NAME))
    told.site.tidy()
    told.play("backup preview", "backup", "--check", "--diff")
    told.play("backup", "backup")
    told.seen["good"] = told.after["backup"]["content"]["mazevault"]
    told.play("verify", "verify")
    told.site.sql(DAMAGE)
    told.seen["damaged"] = told.site.content()
    told.seen["damaged oid"] = told.site.databases()["mazevault"]
    told.play("restore_database preview", "restore_database", "--check", "--diff")
    told.swap("restore_database")
    told.seen["after restore"] = told.site.databases()
    told.seen["restored"] = told.site.content()
    told.seen["own"] = [own_stop_and_start(told.site, told.swaps["restore_database"].restarted)]
    told.play("rollback_database preview", "rollback_database", "--check", "--diff")
    told.swap("rollback_database")
    told.seen["after rollback"] = told.site.databases()
    told.seen["own"].append(own_stop_and_start(told.site, told.swaps["rollback_database"].restarted))
    yield told
    told.site.tidy()
    lab.seed(NAME)


def test_backup_publishes_one_set(story: Story) -> None:
    done = story.plays["backup"]
    assert (done.rc, done.changed) == (0, ["Recovery set | Publish"]), done.output
    assert list(story.site.sets().values()) == [True]


@pytest.mark.parametrize("name", ["backup preview", "backup", "verify", "restore_database preview"])
def test_the_installation_is_as_it_was(story: Story, name: str) -> None:
    """The same containers, running since the same moment, volumes, networks, images, files and rows."""
    assert story.plays[name].rc == 0, story.plays[name].output
    assert set(story.before[name]["stack"]) ^ set(story.after[name]["stack"]) == set()
    assert story.before[name]["databases"] == story.after[name]["databases"]
    for database, content in story.before[name]["content"].items():
        assert differing(content, story.after[name]["content"][database]) == [], database


@pytest.mark.parametrize("playbook", ["backup", "restore_database", "rollback_database"])
def test_a_preview_writes_no_file(story: Story, playbook: str) -> None:
    before, after = story.backups[f"{playbook} preview"]
    assert before == after


@pytest.mark.parametrize("playbook", ["backup", "restore_database", "rollback_database"])
def test_a_preview_predicts_what_the_run_does(story: Story, playbook: str) -> None:
    assert story.plays[f"{playbook} preview"].changed == story.plays[playbook].changed


@pytest.mark.parametrize("playbook", ["restore_database", "rollback_database"])
def test_a_preview_ends_with_the_command_to_type(story: Story, playbook: str) -> None:
    command = rf"mazevault\.backup\.{playbook} --limit {NAME} .*-e mazevault_confirm={NAME}"
    assert re.search(command, story.plays[f"{playbook} preview"].output)


def test_nothing_is_left_of_all_that(story: Story) -> None:
    assert story.site.leftovers() == []


def test_verify_adds_its_record_only(story: Story) -> None:
    before, after = story.backups["verify"]
    new = {line.split()[0] for line in after if line not in before and "/records/" not in line}
    assert new <= {"./records", "./ledger.jsonl", "./.ledger.lock", "./staging"} | {
        line.split()[0] for line in after if line.endswith("./ledger.jsonl")
    }


def test_restore_brings_back_what_was_lost(story: Story) -> None:
    assert story.plays["restore_database"].rc == 0, story.plays["restore_database"].output
    assert differing(story.seen["good"], story.seen["damaged"]), "positive control: the damage shows"
    written = {"public.secrets", "public.secret_versions", "public.secrets_id_seq", "public.secret_versions_id_seq"}
    found = set(differing(story.seen["good"], story.seen["restored"]))
    assert found <= written | set(READING), "a user went on writing after the swap"


def test_the_damaged_database_is_kept_with_all_that_was_acknowledged(story: Story) -> None:
    found = story.seen["after restore"]
    (kept,) = [name for name, oid in found.items() if oid == story.seen["damaged oid"]]
    assert kept.startswith("mazevault_before_")
    assert len(story.swaps["restore_database"].acknowledged_before) > 3


@pytest.mark.parametrize("playbook", ["restore_database", "rollback_database"])
def test_no_acknowledged_write_is_lost(story: Story, playbook: str) -> None:
    """What was acknowledged before the stop is in the database that was replaced; after it, in the new one."""
    before = playbook == "restore_database"
    databases = story.seen["after rollback"]
    live = [name for name, oid in databases.items() if oid == story.seen["damaged oid"]]
    other = [name for name in databases if name.startswith("mazevault_rolledback_")]
    assert live == ["mazevault"] and len(other) == 1
    replaced, incoming = (live, other) if before else (other, live)
    swap = story.swaps[playbook]
    keys = [set(story.site.sql("SELECT key FROM secrets", database=name).split()) for (name,) in (replaced, incoming)]
    assert swap.acknowledged_before and swap.acknowledged_before <= keys[0]
    assert swap.acknowledged <= keys[0] | keys[1]
    assert swap.acknowledged - keys[0], "the writer went on in the new one"


def test_rollback_is_back_where_it_was(story: Story) -> None:
    assert story.plays["rollback_database"].rc == 0, story.plays["rollback_database"].output
    after = story.seen["after rollback"]
    assert after["mazevault"] == story.seen["damaged oid"]
    written = {"public.secrets", "public.secret_versions", "public.secrets_id_seq", "public.secret_versions_id_seq"}
    found = set(differing(story.seen["damaged"], story.site.content()))
    assert found <= written | set(READING)


def test_only_what_uses_the_database_was_restarted(story: Story) -> None:
    for swap in story.swaps.values():
        assert swap.restarted == ("mazevault-backend-1", "mazevault-ocsp-1")


@pytest.mark.parametrize("playbook", ["restore_database", "rollback_database"])
def test_the_interruption_is_the_applications_own(story: Story, playbook: str, record_property: t.Any) -> None:
    own = max(story.seen["own"])
    seen = story.swaps[playbook].interruption
    figures = {"size": SIZE, "interruption": seen, "own_stop_and_start": own, "our_part": seen - own}
    shown = {name: round(value, 2) if isinstance(value, float) else value for name, value in figures.items()}
    print(f"{playbook}: {shown}, own: {[round(value, 2) for value in story.seen['own']]}")
    for name, value in shown.items():
        record_property(name, value)
    assert seen - own < OUR_PART


def test_restore_md_is_enough_on_a_bare_host(story: Story) -> None:
    """Its blocks as they stand, on a host with PostgreSQL's programs and nothing of ours."""
    (name,) = story.site.sets()
    with by_hand.bare_host(story.site.place) as elsewhere:
        elsewhere.take(story.site, name)
        assert elsewhere.follow(name) == ""
        assert differing(story.seen["good"], elsewhere.content()) == []
        assert by_hand.differing_files(story.site, elsewhere) == {}
