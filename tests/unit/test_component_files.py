# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a host belong to which component."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.mazevault.backup.plugins.filter.component_files import component_files

HOME = "/opt/mazevault"
VOLUMES = "/var/lib/docker/volumes"


def volume(name: str, destination: str) -> dict[str, t.Any]:
    return {"type": "volume", "name": name, "source": f"{VOLUMES}/{name}/_data", "destination": destination}


def bind(source: str, destination: str = "/x") -> dict[str, t.Any]:
    return {"type": "bind", "name": "", "source": source, "destination": destination}


def stack(**mounts: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    return {
        "home": HOME,
        "compose": {"files": [f"{HOME}/docker-compose.yml"]},
        "containers": [{"role": role, "mounts": found} for role, found in mounts.items()],
    }


def paths(found: dict[str, t.Any], component: str) -> list[str]:
    return [entry["path"] for entry in found[component]["paths"]]


def test_the_product_as_it_is_released() -> None:
    found = component_files(
        stack(
            postgres=[volume("mazevault_pgdata", "/var/lib/postgresql/data")],
            backend=[volume("mazevault_certs", "/certs"), volume("mazevault_backend_data", "/app/data")],
            init_certs=[volume("mazevault_certs", "/certs"), bind(f"{HOME}/certs", "/custom-certs")],
        ),
        "/elsewhere",
    )
    assert paths(found, "config") == [f"{HOME}/config", f"{HOME}/scripts"]
    assert (found["config"]["settings"], found["config"]["texts"]) == ([f"{HOME}/.env"], [f"{HOME}/docker-compose.yml"])
    assert found["tls"]["paths"] == [
        {"path": f"{HOME}/certs"},
        {"path": f"{VOLUMES}/mazevault_certs/_data", "name": "volumes/mazevault_certs"},
    ]
    assert found["tls"]["linked"] == ["/etc/letsencrypt"]
    assert found["volumes"]["paths"] == [
        {"path": f"{VOLUMES}/mazevault_backend_data/_data", "name": "volumes/mazevault_backend_data"}
    ]
    # Their secrets are looked for everywhere.
    assert found["tls"]["secrets_of"] == found["volumes"]["secrets_of"] == [f"{HOME}/.env"]


def test_nothing_in_containers() -> None:
    found = component_files({}, HOME)
    assert paths(found, "tls") == [f"{HOME}/certs"]
    assert found["config"]["texts"] == [f"{HOME}/docker-compose.yml"]
    assert paths(found, "volumes") == []


@pytest.mark.parametrize(
    "mount",
    [
        bind("/var/run/docker.sock"),
        bind("/etc/localtime"),
        bind("/etc/ssl/certs", "/etc/ssl/certs"),
        bind("/etc/pki/ca-trust"),
        bind("/proc"),
        bind("/dev/log"),
        bind("/etc/hosts"),
        bind(HOME),
        {"type": "tmpfs", "name": "", "source": "", "destination": "/tmp"},
        volume("0" * 64, "/var/cache"),
    ],
    ids=lambda mount: str(mount["source"] or mount["type"])[:30],
)
def test_what_is_the_systems_or_nobodys(mount: dict[str, t.Any]) -> None:
    assert component_files(stack(backend=[mount]), HOME) == component_files(stack(backend=[]), HOME)


@pytest.mark.parametrize("role", ["postgres", "redis"])
def test_data_of_the_database_and_of_redis_are_not_files(role: str) -> None:
    mounts = [volume("data", "/data"), bind(f"{HOME}/data/{role}", "/var/lib")]
    assert component_files(stack(**{role: mounts}), HOME) == component_files({"home": HOME}, HOME)


def test_what_is_mounted_belongs_to_it_once() -> None:
    found = component_files(
        stack(
            frontend=[bind("/srv/nginx/nginx.conf"), bind(f"{HOME}/config/site"), bind("/etc/letsencrypt/live/x")],
            backend=[bind("/srv/nginx/nginx.conf"), bind("/srv/vault/tls")],
        ),
        HOME,
    )
    assert paths(found, "config") == [f"{HOME}/config", f"{HOME}/scripts", "/srv/nginx/nginx.conf"]
    assert paths(found, "tls") == [f"{HOME}/certs", "/etc/letsencrypt/live/x", "/srv/vault/tls"]


def test_what_the_operator_names_comes_on_top() -> None:
    more = {"config": ["/etc/nginx", f"{HOME}/config/x"], "tls": ["/etc/letsencrypt"], "volumes": ["/srv/uploads"]}
    found = component_files(stack(), HOME, more)
    assert paths(found, "config") == [f"{HOME}/config", f"{HOME}/scripts", "/etc/nginx"]
    assert paths(found, "tls")[-1] == "/etc/letsencrypt"
    assert paths(found, "volumes") == ["/srv/uploads"]


def test_something_else_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="a dictionary is wanted"):
        component_files([], HOME)  # type: ignore[arg-type]
