# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three ways in which the product has named its parts, by either engine: all is found with no name given.

One run, one set with everything, encrypted; it comes back by the collection, and elsewhere by hand.
"""

from __future__ import annotations

import tempfile
import typing as t
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import by_hand, commands, hosts, stack
from lab.layout import Layout
from lab.place import Place
from lab.site import Site
from support.containers import MAJORS
from support.flow import FULL
from support.identities import Custodians, make_custodians

NAMED = ("postgres", "redis", "backend", "ocsp")
GENERATIONS = {
    "client-*": Layout(
        project="client",
        home="/opt/mazevault-client",
        services={"postgres": "client-postgres", "redis": "client-redis", "ocsp": "ocsp-responder"},
        containers={**{name: f"client-{name}" for name in NAMED}, "ocsp": "client-ocsp-responder"},
    ),
    "mazevault-*": Layout(
        project="prod",
        home="/srv/prod",
        services={name: f"mazevault-{name}" for name in NAMED},
        containers={name: f"mazevault-{name}" for name in NAMED},
    ),
    "bare": Layout(project="vault", home="/srv/vault"),
}
ENGINES = {"docker": "mv-site-b", "podman": "mv-podman"}
CASES = [(engine, name, major) for engine in ENGINES for name in GENERATIONS for major in MAJORS]


# The other tests of the lab meet bare names, podman and version 15.
SAMPLE = [("docker", "client-*", 17)]


@pytest.fixture(scope="module")
def custodians(tmp_path_factory: pytest.TempPathFactory) -> Custodians:
    return make_custodians(tmp_path_factory.mktemp("custodians"))


@pytest.fixture(params=CASES if FULL else SAMPLE, ids=lambda case: "-".join(map(str, case)))
def site(place: Place, request: pytest.FixtureRequest, tmp_path: Path, custodians: Custodians) -> Iterator[Site]:
    """A host with nothing but this installation."""
    engine, generation, major = request.param
    usual = hosts.named(ENGINES[engine])
    layout = replace(GENERATIONS[generation], settings={"POSTGRES_IMAGE": f"mazevault-lab/postgres:{major}"})
    host = replace(usual, layout=layout)
    commands.up(place, [usual])
    stack.compose(place, usual, "down")
    try:
        stack.ensure(place, host)
        with tempfile.TemporaryDirectory(prefix="mvlab-") as control_path:
            found = Site(place, host, tmp_path, Path(control_path), protection=custodians.protection)
            found.tidy()
            yield found
            found.tidy()
    finally:
        stack.remove(place, host)
        stack.ensure(place, usual)


def secrets_of(site: Site) -> dict[int, t.Any]:
    """Every secret as a user reads it; None: it doesn't decrypt."""
    numbers = [int(word) for word in site.sql("SELECT id FROM secrets").split()]
    answers = {number: site.client.get(f"/secrets/{number}") for number in numbers}
    return {number: said.get("value") if status == 200 else None for number, (status, said) in answers.items()}


def test_backup_destruction_and_restore(site: Site, custodians: Custodians, record_property: t.Any) -> None:
    good = secrets_of(site)
    assert len(good) > 10 and None not in good.values()
    backup = site.play("backup")
    assert (backup.rc, backup.changed) == (0, ["Recovery set | Publish"]), backup.output
    (found,) = backup.of("mazevault_stack_info")
    layout, engine = site.host.layout, site.host.engine
    assert (found["runtime"], found["project"], found["home"]) == (engine.program, layout.project, layout.home)
    assert found["postgres"]["container"] == layout.container(engine, "postgres")
    ((name, whole),) = site.sets().items()
    assert whole
    manifest = site.manifest(name)
    assert manifest["encryption"]["scheme"] == custodians.scheme
    assert sorted(manifest["components"]) == ["config", "postgres", "tls", "volumes"]
    version = manifest["postgres"]["server_version"]
    content = site.content()
    with by_hand.container_with_stock_tools(site.place, int(version.partition(".")[0])) as elsewhere:
        elsewhere.take(site, name)
        elsewhere.open(name, custodians)
        assert elsewhere.follow(name) == ""
        assert {key for key, row in elsewhere.content().items() if content.get(key) != row} == set()
        assert by_hand.differing_files(site, elsewhere) == {}

    site.sql("DROP DATABASE mazevault WITH (FORCE)", database="postgres")
    assert site.client.get("/secrets/1")[0] != 200, "positive control: it is gone"
    identity = "/dev/shm/identity.key"
    lent = custodians.data[1].private.read_bytes()
    hosts.inside(site.place, site.host, "install", "-m", "0600", "/dev/stdin", identity, data=lent)
    restored = site.play("restore_database", mazevault_confirm=site.name, mazevault_identity_file=identity)
    site.shell('shred -u "$1"', identity)
    assert restored.rc == 0, restored.output
    site.wait_healthy()
    assert secrets_of(site) == good
    assert site.leftovers() == []
    record_property("server", version)
