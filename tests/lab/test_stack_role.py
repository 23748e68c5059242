# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role mazevault_stack stops, starts and makes containers on a real host, with either compose program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.conftest import Lab
from lab.site import Site
from support.plays import TOP, Play

NAME = "mv-site-a"
USERS = ("mazevault-backend-1", "mazevault-ocsp-1")
PLUGIN = "/usr/libexec/docker/cli-plugins/docker-compose"
STANDALONE = "/usr/local/bin/docker-compose"


@pytest.fixture
def target(lab: Lab, site: Callable[[str], Site]) -> Site:
    found = site(NAME)
    found.wait_healthy()
    return replace(found, env={"ANSIBLE_COLLECTIONS_PATH": str(TOP / "playbooks/collections")})


def run(site: Site, folder: Path, *entries: str) -> Play:
    """The role's entry points, one after the other."""
    tasks = [
        {
            "name": entry,
            "ansible.builtin.include_role": {"name": "mazevault.backup.mazevault_stack", "tasks_from": entry},
        }
        for entry in entries
    ]
    play = {"name": "The stack", "hosts": "mazevault", "gather_facts": False, "tasks": tasks}
    path = folder / "stack.yml"
    path.write_text(json.dumps([play]), encoding="utf-8")
    done = site.play(path)
    assert done.rc == 0, done.output
    return done


def ids(site: Site) -> dict[str, str]:
    lines = site.shell("docker ps --all --no-trunc --format '{{.Names}} {{.ID}}'").splitlines()
    return dict(line.split() for line in lines)


def test_stop_and_start(target: Site, tmp_path: Path) -> None:
    """The database runs on; the same containers come back, and a second start has nothing to do."""
    before = ids(target)
    stopped = run(target, tmp_path, "discover", "stop")
    assert stopped.changed == ["Stack | Stop the application's containers"]
    states = target.status()
    assert [states[name] for name in USERS] == ["exited", "exited"]
    assert states["mazevault-postgres-1"] == states["mazevault-redis-1"] == "running"
    assert not target.client.healthy()
    started = run(target, tmp_path, "start", "health", "start")
    assert started.changed == ["Stack | Start the application's containers"], "once"
    assert target.client.healthy()
    assert ids(target) == before


@contextmanager
def standalone_only(site: Site) -> Iterator[None]:
    """docker-compose on the PATH, and the engine's program knows no compose."""
    site.shell(f"rm {STANDALONE} && cp {PLUGIN} {STANDALONE} && mv {PLUGIN} {PLUGIN}.away && ! docker compose version")
    try:
        yield
    finally:
        site.shell(f"mv {PLUGIN}.away {PLUGIN} && ln -sf {PLUGIN} {STANDALONE}")


def test_with_docker_compose_alone_a_container_that_is_gone_is_made_again(target: Site, tmp_path: Path) -> None:
    before = ids(target)
    with standalone_only(target):
        target.shell('docker rm --force "$@"', *USERS)
        run(target, tmp_path, "start", "health")
    assert target.client.healthy()
    after = ids(target)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == set(USERS)
