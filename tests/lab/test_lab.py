# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab is what its users take it for."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import hosts
from lab.client import Client
from lab.conftest import Lab
from lab.hosts import USUAL
from lab.place import TOP, Place

ALL = [host.name for host in USUAL]
SITES = [host.name for host in USUAL if host.has_stack]
SERVICES = ("postgres", "redis", "backend", "ocsp")
CERTIFICATES = "/var/lib/docker/volumes/mazevault_certs/_data"


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ALL)
def test_reached_by_an_operator_who_may_sudo(lab: Lab, name: str) -> None:
    assert lab.host(name, sudo=False).check_output("id -un; hostname") == f"operator\n{name}"
    assert lab.host(name).check_output("id -un") == "root"


@pytest.mark.parametrize("name", ALL)
def test_a_whole_system(lab: Lab, name: str) -> None:
    host = lab.host(name)
    assert host.check_output("systemctl is-system-running") == "running"
    assert all(host.service(service).is_running for service in ("ssh", "cron", "dbus"))


def test_ansible_reaches_all(lab: Lab) -> None:
    ansible = Path(sys.executable).with_name("ansible")
    words: list[str | Path] = [ansible, "all", "-i", lab.place.inventory, "-m", "ansible.builtin.ping"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Others are there when they were named, or when their tests came first.
    assert set(re.findall(r"^(\S+) \| SUCCESS", done.stdout, re.MULTILINE)) >= set(ALL)


@pytest.mark.parametrize("name", SITES)
def test_the_stack_is_healthy(lab: Lab, name: str) -> None:
    client, host = lab.client(name), lab.host(name)
    assert client.healthy()
    form = "{{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}"
    deadline = time.monotonic() + 60  # Docker asks every ten seconds
    while True:
        states = [host.check_output(f"docker inspect -f '{form}' mazevault-{service}-1") for service in SERVICES]
        if states == ["running healthy"] * 3 + ["running "]:
            break
        assert time.monotonic() < deadline, states
        time.sleep(1)


@pytest.mark.parametrize("name", SITES)
def test_its_secrets_can_be_read_from_outside(lab: Lab, name: str) -> None:
    client = lab.client(name)
    status, secret = client.get("/secrets/1")
    assert status == 200
    assert secret["value"]
    assert Client(client.address, client.authority).get("/secrets/1")[0] == 401


def test_each_installation_has_its_own_authority_and_keys(lab: Lab) -> None:
    first, second = (lab.client(name) for name in SITES)
    assert Client(first.address, second.authority).get("/health")[0] == 0
    keys = {lab.host(name).check_output("grep ^MASTER_KEY= /opt/mazevault/.env") for name in SITES}
    assert len(keys) == len(SITES)


@pytest.mark.parametrize("name", SITES)
def test_the_bootstrap_superuser_bears_the_products_name(lab: Lab, name: str) -> None:
    assert lab.sql(name, "SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_'") == "mazevault|t"
    assert lab.sql(name, "SHOW server_version").startswith("15.")


@pytest.mark.parametrize("name", SITES)
def test_postgres_trusts_its_own_address_and_wants_a_password_from_others(lab: Lab, name: str) -> None:
    host = lab.host(name)
    for_address = "docker exec mazevault-postgres-1 psql -w -U mazevault -Atc 'SELECT 1' -h %s"
    assert host.check_output(for_address, "127.0.0.1") == "1"
    refused = host.run(for_address, "postgres")
    assert refused.rc == 2
    assert "no password supplied" in refused.stderr


@pytest.mark.parametrize("name", SITES)
def test_postgres_is_on_the_internal_network_only(lab: Lab, name: str) -> None:
    host, address = lab.host(name), str(lab.place.address(hosts.named(name).number))
    assert listens(address, 8443)
    assert not listens(address, 5432)
    form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    assert host.check_output(f"docker inspect -f '{form}' mazevault-postgres-1").split() == ["mazevault_internal"]
    assert host.check_output("docker network inspect -f '{{.Internal}}' mazevault_internal") == "true"


@pytest.mark.parametrize("name", SITES)
def test_modes(lab: Lab, name: str) -> None:
    host = lab.host(name)
    expected = {".env": 0o600, "api-token": 0o600, "certs": 0o700, "data": 0o700, "docker-compose.yml": 0o644}
    found = {path: host.file(f"/opt/mazevault/{path}") for path in expected}
    assert {path: file.mode for path, file in found.items()} == expected
    assert {file.user for file in found.values()} == {"root"}
    key = host.file(f"{CERTIFICATES}/server.key")
    assert (key.uid, key.gid, key.mode) == (70, 70, 0o600)
    assert {host.file(f"{CERTIFICATES}/{other}").mode for other in ("server.crt", "ca.crt", "ca-bundle.crt")} == {0o644}


@pytest.mark.parametrize("name", SITES)
def test_a_site_has_stock_tools_only(lab: Lab, name: str) -> None:
    host = lab.host(name)
    assert all(host.exists(tool) for tool in ("docker", "docker-compose", "python3", "rsync", "sudo", "zstd"))
    assert re.search(r"version v?2\.", host.check_output("docker compose version"))
    assert not any(host.exists(tool) for tool in ("psql", "pg_dump", "pg_restore"))
    assert host.run("python3 -c 'import json'").rc == 0
    assert host.run("python3 -c 'import psycopg2'").rc == 1


def test_the_bare_host_has_postgresql_and_no_docker(lab: Lab) -> None:
    host = lab.host("mv-bare")
    assert host.check_output("/usr/lib/postgresql/15/bin/postgres --version").startswith("postgres (PostgreSQL) 15.")
    assert host.exists("psql")
    assert host.exists("zstd")
    assert not host.exists("docker")


def test_seeding_replaces_what_was_there(lab: Lab) -> None:
    name = SITES[-1]
    token = lab.client(name).token_file
    assert token is not None
    old = token.read_text()
    lab.sql(name, "CREATE TABLE left_over ()")
    lab.seed(name, size="5MB", number=2)
    assert lab.sql(name, "SELECT to_regclass('left_over') IS NULL, count(*) > 5000 FROM audit_logs") == "t|t"
    assert token.read_text() != old
    assert lab.client(name).get("/secrets/1")[0] == 200
    assert lab.host(name).file("/opt/mazevault/api-token").content_string == token.read_text()


def test_down_leaves_nothing(tmp_path: Path, lab: Lab) -> None:
    """A second lab beside the first, which stays."""
    folder = tmp_path / "second"
    name = Place.of(folder).name
    env = {**os.environ, "MAZEVAULT_LAB_FOLDER": str(folder)}

    def command(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, TOP / "tests/lab/lab.py", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def docker(*words: str) -> list[str]:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()

    def left() -> list[str]:
        every = (*docker("ps", "-aq", "--no-trunc"), *docker("network", "ls", "-q", "--no-trunc"))
        return [one for one in (*every, *docker("volume", "ls", "-q")) if one in made]

    before = {*docker("volume", "ls", "-q")}
    command("up", "mv-site-b")
    (container,) = docker("ps", "-q", "--no-trunc", "--filter", f"name={name}-mv-site-b")
    network = docker("network", "ls", "-q", "--no-trunc", "--filter", f"name={name}")
    volumes = docker("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", container)
    made = {container, *network, *volumes}
    assert volumes
    assert not before & {*volumes}
    assert len(left()) == len(made)
    command("down")
    assert left() == []
    assert [path.name for path in folder.iterdir()] == []
    assert lab.client(SITES[0]).healthy()
