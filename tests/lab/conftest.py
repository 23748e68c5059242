# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for all tests that need hosts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host as Observer

from lab import commands, hosts, stack
from lab.client import Client
from lab.hosts import HOSTS, USUAL
from lab.place import Place
from lab.site import Site


@dataclass(frozen=True)
class Lab:
    """What tests do with hosts, which they call by their names."""

    place: Place

    def host(self, name: str, *, sudo: bool = True) -> Observer:
        """Looked at over ssh, as the operator or as root."""
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(self.place.ssh_config), sudo=sudo)

    def client(self, name: str) -> Client:
        return Client.of(self.place, hosts.named(name))

    def sql(self, name: str, statement: str, *, database: str = stack.DATABASE) -> str:
        """One statement's rows as text, columns parted by |."""
        return stack.sql(self.place, hosts.named(name), statement, database=database).strip()

    def seed(self, name: str, *, size: str = "small", number: int = 1) -> None:
        stack.seed(self.place, hosts.named(name), size=size, number=number)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """What is there before the tests stays after them; with MAZEVAULT_LAB_KEEP=1 all of it."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    found = Place.here()
    keep = os.environ.get("MAZEVAULT_LAB_KEEP") == "1" or found.inventory.exists()
    yield found
    if not keep:
        commands.down(found, HOSTS)


@pytest.fixture(scope="session")
def lab(place: Place) -> Lab:
    """With all the usual hosts."""
    commands.up(place, USUAL)
    return Lab(place)


@pytest.fixture(scope="session")
def one_site(place: Place) -> Lab:
    """With mv-site-a, and whatever else runs already."""
    commands.up(place, [hosts.named("mv-site-a")])
    return Lab(place)


@pytest.fixture(scope="session")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """Hosts with their stack, each with a control node of its own."""
    with tempfile.TemporaryDirectory(prefix="mvlab-") as control_path:
        known: dict[str, Site] = {}

        def named(name: str) -> Site:
            if name not in known:
                folder = tmp_path_factory.mktemp(name)
                known[name] = Site(lab.place, hosts.named(name), folder, Path(control_path))
            return known[name]

        yield named
