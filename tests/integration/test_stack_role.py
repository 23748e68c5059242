# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role mazevault_stack and what preflight finds, on an engine that answers as docker does."""

from __future__ import annotations

import json
import os
import sys
import typing as t
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.fake_docker import FakeDocker, Said, container
from support.plays import TOP, Place, Play, tree_state

PASSWORD = "canary-of-a-database-password"
IMAGES = "ghcr.io/axiemirror/mazevault-"
USERS = ["mazevault-backend-1", "mazevault-ocsp-1"]

ALONE = """
- hosts: mazevault
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: mazevault.backup.mazevault_stack
        tasks_from: "{{ item }}"
      loop: "{{ entry_points }}"
"""
TOLD = """
- hosts: mazevault
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: mazevault.backup.mazevault}
    - ansible.builtin.include_role: {name: mazevault.backup.mazevault, tasks_from: preflight}
    - name: Told
      ansible.builtin.debug:
        msg: "{{ {'runtime': __mazevault_runtime, 'postgres_runtime': __mazevault_postgres_runtime,
                  'container': __mazevault_postgres_container, 'user': __mazevault_database_user,
                  'database': __mazevault_database, 'stop': __mazevault_stop_command,
                  'start': __mazevault_start_command} }}"
"""


class Lab:
    """A control node, and a host whose engine is the fake one."""

    def __init__(self, folder: Path, containers: list[Said]) -> None:
        self.place = Place(folder)
        self.home = folder / "mazevault"
        self.home.mkdir()
        self.fake = FakeDocker(folder / "bin", containers)
        self.fake.state["compose"]["services"] = {}
        self.fake.write()

    def run(self, playbook: str, hosts: Mapping[str, Mapping[str, t.Any]], *words: str, **extra: t.Any) -> Play:
        path = self.place.folder / "playbook.yml"
        path.write_text(playbook, encoding="utf-8")
        base = {"mazevault_home": str(self.home)}
        inventory = self.place.write_inventory({host: {**base, **given} for host, given in hosts.items()})
        env = {
            "PATH": f"{self.fake.folder}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(TOP / "playbooks/collections"),
        }
        done = self.place.run(path, inventory, *words, extra=extra, env=env)
        assert PASSWORD not in done.output
        return done


def stack(**states: str) -> list[Said]:
    said = [
        container(
            "postgres",
            "postgres:15-alpine",
            health="healthy",
            environment={"POSTGRES_USER": "owner", "POSTGRES_DB": "data", "POSTGRES_PASSWORD": PASSWORD},
            destination="/var/lib/postgresql/data",
        ),
        *(container(name, f"{IMAGES}{name}:1.0.17", environment={"DB": PASSWORD}) for name in ("backend", "ocsp")),
    ]
    for one in said:
        service = one["Config"]["Labels"]["com.docker.compose.service"]
        one["State"]["Status"] = states.get(service, "running")
    return said


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, stack())


# variables of a host -> runtime, the database's runtime, its container
RULES: dict[str, tuple[dict[str, t.Any], tuple[str, str, str]]] = {
    "nothing": ({}, ("docker", "docker", "mazevault-postgres-1")),
    "empty": ({"mazevault_runtime": "", "mazevault_project": None}, ("docker", "docker", "mazevault-postgres-1")),
    "docker": ({"mazevault_runtime": "docker"}, ("docker", "docker", "mazevault-postgres-1")),
    "host": ({"mazevault_runtime": "host"}, ("host", "host", "")),
    "server": ({"mazevault_postgres_host": "/run/postgresql"}, ("host", "host", "")),
    "elsewhere": ({"mazevault_runtime": "docker", "mazevault_postgres_runtime": "host"}, ("docker", "host", "")),
    "elsewhere2": ({"mazevault_runtime": "docker", "mazevault_postgres_host": "db"}, ("docker", "host", "")),
    "only_database": (
        {"mazevault_runtime": "host", "mazevault_postgres_runtime": "docker"},
        ("host", "docker", "mazevault-postgres-1"),
    ),
    "survey": (
        {"mazevault_services": '{"postgres": "mazevault-postgres-1"}', "mazevault_project": "mazevault"},
        ("docker", "docker", "mazevault-postgres-1"),
    ),
}


def test_the_runtime_is_found_unless_it_is_set(lab: Lab) -> None:
    done = lab.run(TOLD, {host: given for host, (given, _expected) in RULES.items()})
    assert done.rc == 0, done.output
    told = {task.host: t.cast("dict[str, t.Any]", task.result["msg"]) for task in done.tasks if task.name == "Told"}
    docker = str(lab.fake.folder / "docker")
    for host, (_given, (runtime, postgres_runtime, name)) in RULES.items():
        own = ("owner", "data") if name else ("mazevault", "mazevault")
        commands = [[docker, verb, *USERS] if runtime == "docker" else [] for verb in ("stop", "start")]
        expected = [runtime, postgres_runtime, name, *own, *commands]
        assert list(told[host].values()) == expected, host


def test_what_is_set_wins(lab: Lab) -> None:
    given = {
        "mazevault_database": "other",
        "mazevault_database_user": "me",
        "mazevault_stack_stop_command": "systemctl stop 'my vault'",
        "mazevault_stack_start_command": ["systemctl", "start", "x"],
    }
    (told,) = [task for task in lab.run(TOLD, {"one": given}).tasks if task.name == "Told"]
    assert list(t.cast("dict[str, t.Any]", told.result["msg"]).values())[3:] == [
        "me",
        "other",
        ["systemctl", "stop", "my vault"],
        ["systemctl", "start", "x"],
    ]


def test_an_engine_without_mazevault_is_a_host(tmp_path: Path) -> None:
    lab = Lab(tmp_path, [container("postgres", "postgres:15", project="shop")])
    done = lab.run(TOLD, {"found": {}, "wanted": {"mazevault_runtime": "docker"}, "named": {"mazevault_project": "x"}})
    (told,) = [task for task in done.tasks if task.name == "Told"]
    assert told.host == "found" and told.result["msg"]["runtime"] == "host"
    failed = {task.host: task.msg for task in done.failures}
    assert "no compose project that looks like MazeVault" in failed["wanted"] and "project: x" in failed["named"]
    assert "Runs on   the host (docker runs nothing that looks like MazeVault)" in done.output


def test_a_stack_without_its_database(tmp_path: Path) -> None:
    done = Lab(tmp_path, stack()[1:]).run(TOLD, {"one": {}})
    assert "mazevault_services.postgres" in done.failures[0].msg and "mazevault_postgres_host" in done.failures[0].msg


def test_a_database_elsewhere_is_asked_for(tmp_path: Path) -> None:
    address = {"DATABASE_URL": f"postgres://mazevault:{PASSWORD}@db.bank.example/mazevault"}
    said = [*stack()[:1], container("backend", f"{IMAGES}backend:1.0.17", environment=address)]
    given = {"told": {"mazevault_runtime": "docker", "mazevault_postgres_host": "db.bank.example"}, "asked": {}}
    done = Lab(tmp_path, said).run(TOLD, given)
    assert [task.host for task in done.failures] == ["asked"]
    assert "names db.bank.example:5432" in done.failures[0].msg
    assert "Set mazevault_postgres_host" in done.failures[0].msg


def test_preflight_tells_what_told_it(tmp_path: Path) -> None:
    address = {"DATABASE_URL": f"postgres://mazevault:{PASSWORD}@store/mazevault"}
    said = [
        container("api", f"{IMAGES}backend:1.0.17", project="vault", environment=address),
        container("store", "postgres:15-alpine", project="vault", destination="/var/lib/postgresql/data"),
    ]
    done = Lab(tmp_path, said).run(TOLD, {"one": {}})
    (lines,) = [task.result["msg"] for task in done.tasks if task.name.endswith("What is here")]
    at = lines.index(f"Told by   project vault: image {IMAGES}backend")
    assert [line.strip() for line in lines[at + 1 : at + 3]] == [
        "postgres vault-store-1: DATABASE_URL of vault-api-1",
        "backend vault-api-1: image",
    ]
    assert all(len(line) <= 100 for line in lines[at : at + 3])


def test_two_stacks_are_not_guessed(tmp_path: Path) -> None:
    second = [container("backend", f"{IMAGES}backend:1", project="mazevault2")]
    done = Lab(tmp_path, [*stack(), *second]).run(TOLD, {"one": {}, "two": {"mazevault_project": "mazevault"}})
    assert [task.host for task in done.failures] == ["one"]
    assert "2 installations look like MazeVault" in done.failures[0].msg


@pytest.mark.parametrize("entry_point", ["discover", "stop", "start", "health"])
def test_an_entry_point_alone_on_a_fresh_host_in_check_mode(lab: Lab, entry_point: str) -> None:
    before = tree_state(lab.home)
    done = lab.run(ALONE, {"one": {}}, "--check", "--diff", entry_points=[entry_point])
    assert done.rc == 0 and not lab.fake.acts(), done.output
    assert tree_state(lab.home) == before
    assert bool(done.changed) == (entry_point == "stop")


def test_stop_and_start_and_health(lab: Lab) -> None:
    done = lab.run(ALONE, {"one": {}}, "-vvv", entry_points=["stop", "stop", "start", "start", "health"])
    assert done.rc == 0 and len(done.changed) == 2, done.output
    assert [call[1:3] for call in lab.fake.acts()] == [["stop", "mazevault-ocsp-1"], ["start", "mazevault-backend-1"]]
    given = {"mazevault_stack_roles": "ocsp", "mazevault_stack_timeout": "2"}
    done = lab.run(ALONE, {"one": given}, entry_points=["stop", "health"])
    assert lab.fake.status() == {
        "mazevault-postgres-1": "running",
        "mazevault-backend-1": "running",
        "mazevault-ocsp-1": "exited",
    }
    assert done.rc != 0 and "ocsp (mazevault-ocsp-1) is exited" in done.failures[0].msg


def test_the_sites_own_commands(lab: Lab, tmp_path: Path) -> None:
    note = tmp_path / "note"
    command = [sys.executable, "-c", f"open({str(note)!r}, 'a').write('called')"]
    given = {"mazevault_stack_stop_command": command, "mazevault_stack_timeout": "60"}
    done = lab.run(ALONE, {"one": given}, entry_points=["stop"])
    assert done.rc == 0 and note.read_text() == "called" and not lab.fake.acts()
    given = {"mazevault_runtime": "host", "mazevault_stack_roles": ""}
    done = lab.run(ALONE, {"one": given}, entry_points=["discover", "stop", "start", "health"])
    assert done.rc == 0 and not done.changed and not lab.fake.acts()


def test_preflight_shows_what_is_here(tmp_path: Path) -> None:
    lab = Lab(tmp_path, stack(ocsp="restarting"))
    (lab.home / "docker-compose.yml").touch()
    for said in lab.fake.state["containers"]:
        said["Config"]["Labels"]["com.docker.compose.project.working_dir"] = str(lab.home)
        said["Config"]["Labels"]["com.docker.compose.project.config_files"] = f"{lab.home}/docker-compose.yml"
    lab.fake.state["compose"]["services"] = {"backend": {"image": f"{IMAGES}backend:1.0.18"}}
    lab.fake.write()
    done = lab.run(TOLD, {"one": {"mazevault_backup_root_limit": "60%"}}, "--check")
    (lines,) = [task.result["msg"] for task in done.tasks if task.name.endswith("What is here")]
    rows = {line[:10].strip(): line[10:] for line in lines if line[:10].strip()}
    assert list(rows) == ["To do", "Runs in", "Services", "Database", "Sets in", "Newest", "Look at"]
    assert rows["Runs in"] == f"docker 28.2.1, project mazevault in {lab.home}, docker compose 2.27.0"
    assert rows["Services"] == "postgres    running, healthy    mazevault-postgres-1  postgres:15-alpine"
    assert rows["Database"] == "data as owner in mazevault-postgres-1"
    assert rows["Sets in"].startswith(f"{lab.home}/backups, ") and rows["Sets in"].endswith(" free, limit 60%")
    assert "a check: nothing is changed" in rows["To do"] and rows["Newest"] == "none, there is no set yet"
    said = json.dumps(lines)
    assert f"runs {IMAGES}backend:1.0.17, the files say {IMAGES}backend:1.0.18" in said
    assert "ocsp (mazevault-ocsp-1) starts again and again" in said


def test_preflight_on_a_host_is_short(lab: Lab) -> None:
    done = lab.run(TOLD, {"one": {"mazevault_runtime": "host", "mazevault_backup_root": ""}})
    (lines,) = [task.result["msg"] for task in done.tasks if task.name.endswith("What is here")]
    assert [line[:10].strip() for line in lines] == ["To do", "Runs on", "Database", "Sets in", "Newest"]
    assert "Database  mazevault as mazevault at localhost" in lines
