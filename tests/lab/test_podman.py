# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose MazeVault is run by podman and podman-compose: backup, restore and rollback with no name given.

podman-compose puts the containers into a pod and ties each to those that it needs, which is the harder case of the two.
"""

from __future__ import annotations

import json
import tempfile
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lab import commands, faults, hosts, stack
from lab.faults import Fault
from lab.place import Place
from lab.process import wait_for
from lab.site import Site
from lab.user import Reader
from support.flow import FULL
from support.plays import TOP, Play

NAME = "mv-podman"
USERS = ("mazevault_backend_1", "mazevault_ocsp_1")
DAMAGE = """
DELETE FROM secret_versions WHERE secret_id % 3 = 2;
UPDATE secret_versions SET ciphertext = wrapped_dek WHERE secret_id % 5 = 4;
DROP TABLE certificates CASCADE;
"""
# Reading a secret is audited by the application.
READING = ("public.audit_logs", "public.audit_logs_id_seq")
# A container beside the database says which process it is for; with pipelining, nothing else tells a module.
MODULE_KILLED = Fault(
    "the module is killed",
    r"""
    for made_for in $(podman ps --filter label=mazevault.backup.for --format '{{index .Labels "mazevault.backup.for"}}'
    ); do kill -KILL "${made_for%-*}"; done
    """,
)
CONTAINERS = "podman ps --all --filter label=mazevault.backup --format '{{.Names}} {{.Status}}'"


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Tables, sequences and definitions that aren't the same, but for what reading changes."""
    return {key for key in {*one, *other} if one.get(key) != other.get(key)} - set(READING)


def secrets_of(site: Site) -> dict[int, t.Any]:
    """Every secret as a user reads it; None: it doesn't decrypt."""
    numbers = [int(word) for word in site.sql("SELECT id FROM secrets").split()]
    answers = {number: site.client.get(f"/secrets/{number}") for number in numbers}
    return {number: said.get("value") if status == 200 else None for number, (status, said) in answers.items()}


@pytest.fixture(scope="module")
def site(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    host = hosts.named(NAME)
    commands.up(place, [host])
    stack.seed(place, host, size="small", number=1)
    with tempfile.TemporaryDirectory(prefix="mvlab-") as control_path:
        found = Site(place, host, tmp_path_factory.mktemp(NAME), Path(control_path))
        found.tidy()
        yield found
        found.tidy()


@dataclass
class Story:
    plays: dict[str, Play] = field(default_factory=dict)
    seen: dict[str, t.Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(site: Site) -> Story:
    told = Story()
    told.seen["secrets"] = secrets_of(site)
    told.seen["before"] = site.state()
    told.plays["backup"] = site.play("backup")
    told.seen["after"] = site.state()
    site.sql(DAMAGE)
    told.seen["damaged"] = site.content()
    told.seen["damaged secrets"] = secrets_of(site)
    told.seen["oid"] = site.databases()["mazevault"]
    running = site.started_at()
    for playbook in ("restore_database", "rollback_database"):
        began = time.monotonic()
        with Reader(site.client) as reader:
            told.plays[playbook] = site.play(playbook, mazevault_confirm=NAME)
            reader.wait_for_good()
        told.seen[f"{playbook}: interruption"] = reader.interruption(began)
        told.seen[f"{playbook}: content"] = site.content()
        told.seen[f"{playbook}: secrets"] = secrets_of(site)
        told.seen[f"{playbook}: databases"] = site.databases()
    told.seen["restarted"] = {name for name, at in site.started_at().items() if running.get(name) != at}
    return told


def test_a_backup_is_published_with_its_proof(site: Site, story: Story) -> None:
    done = story.plays["backup"]
    assert (done.rc, done.changed) == (0, ["Recovery set | Publish"]), done.output
    ((name, whole),) = site.sets().items()
    assert whole
    (proof,) = done.of("backup_verify")
    assert (proof["verdict"], proof["level"]) == ("pass", "restore")
    assert name in done.output


def test_the_installation_is_as_it_was(story: Story) -> None:
    """The same containers, running since the same moment, volumes, networks, images, files and rows."""
    before, after = story.seen["before"], story.seen["after"]
    assert set(before["stack"]) ^ set(after["stack"]) == set()
    assert before["databases"] == after["databases"]
    assert differing(before["content"]["mazevault"], after["content"]["mazevault"]) == set()


def test_preflight_shows_what_was_found(story: Story) -> None:
    (found,) = story.plays["backup"].of("mazevault_stack_info")
    assert (found["runtime"], found["project"], found["home"]) == ("podman", "mazevault", stack.HOME)
    assert found["compose"]["program"] == "podman-compose"
    assert found["postgres"]["container"] == "mazevault_postgres_1"
    assert (found["differences"], found["problems"]) == ([], [])


def test_a_restore_brings_back_every_secret(story: Story, record_property: t.Any) -> None:
    done = story.plays["restore_database"]
    assert done.rc == 0, done.output
    assert None in story.seen["damaged secrets"].values(), "positive control: the damage shows"
    assert story.seen["restore_database: secrets"] == story.seen["secrets"]
    assert None not in story.seen["secrets"].values() and len(story.seen["secrets"]) > 10
    good = story.seen["before"]["content"]["mazevault"]
    assert differing(good, story.seen["damaged"])
    assert differing(good, story.seen["restore_database: content"]) == set()
    record_property("interruption", round(story.seen["restore_database: interruption"], 2))


def test_a_rollback_is_back_where_it_was(story: Story, record_property: t.Any) -> None:
    done = story.plays["rollback_database"]
    assert done.rc == 0, done.output
    assert story.seen["rollback_database: databases"]["mazevault"] == story.seen["oid"]
    assert differing(story.seen["damaged"], story.seen["rollback_database: content"]) == set()
    record_property("interruption", round(story.seen["rollback_database: interruption"], 2))


def test_only_what_uses_the_database_was_restarted(story: Story) -> None:
    """podman itself starts what a container was tied to and has ended: that is the one that runs once."""
    assert story.seen["restarted"] == {*USERS, "mazevault_init-certs_1"}


def test_nothing_is_left_of_all_that(site: Site, story: Story) -> None:
    assert story.plays
    assert site.leftovers() == []


def test_a_killed_module_takes_its_containers_with_it(site: Site, story: Story) -> None:
    """Whatever it did, its containers end with it, before anybody looks after them; the next run clears up the rest."""
    former = set(site.sets())
    assert story.plays["backup"].rc == 0
    for step in ("dump: pg_dump starts", "verify: scratch server") if FULL else ("verify: scratch server",):
        known = faults.BACKUP[faults.BACKUP.index(step) :]
        with (
            site.started("backup", mazevault_recovery_set_stale_after=2) as running,
            faults.watching(site, MODULE_KILLED, known) as watch,
        ):
            watch.step()
            assert running.end().rc != 0, "positive control: the module was killed"
        wait_for(f"{NAME}: no container of a dead module", lambda: not site.shell(CONTAINERS), 15)
        assert set(site.sets()) == former
    site.wait_idle()
    time.sleep(2)
    done = site.play("backup", mazevault_recovery_set_stale_after=2, mazevault_verify_level="read")
    assert done.rc == 0, done.output
    assert len(site.sets()) == len(former) + 1
    assert site.leftovers() == []


def run_module(site: Site, *states: str) -> Play:
    """mazevault_stack as it stands, one state after the other."""
    known = replace(site, env={"ANSIBLE_COLLECTIONS_PATH": str(TOP / "playbooks/collections")})
    tasks = [{"name": state, "mazevault.backup.mazevault_stack": {"state": state}} for state in states]
    path = site.folder / "stack.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    done = known.play(path)
    assert done.rc == 0, done.output
    return done


def test_stop_and_start(site: Site) -> None:
    """podman neither stops nor starts a container that is paused; what it is asked for comes about all the same."""
    site.shell("podman pause mazevault_backend_1")
    try:
        done = run_module(site, "stopped", "stopped", "started", "started")
    finally:
        site.shell("podman unpause --all")
    assert done.changed == ["stopped", "started"]
    first, _again, third, _fourth = done.of("mazevault_stack")
    assert first["states"] == dict.fromkeys(USERS, "exited")
    assert third["states"] == dict.fromkeys(USERS, "running")
    site.wait_healthy()


def test_a_project_without_containers_is_brought_up(site: Site) -> None:
    """By podman-compose, out of its files; the data is in volumes."""
    before = site.content()
    stack.compose(site.place, site.host, "down")
    assert site.status() == {}
    done = run_module(site, "started")
    assert set(USERS) <= {name for name, state in site.status().items() if state == "running"}
    assert "up postgres" in done.of("mazevault_stack")[0]["actions"]
    site.wait_healthy()
    assert differing(before, site.content()) == set()
