# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lab this is: its folder, and the names and addresses that follow from it.

A machine can hold several labs, one a checkout. The folder's path makes their names and networks differ.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]


@dataclass(frozen=True)
class Place:
    folder: Path
    name: str
    subnet: IPv4Network

    @classmethod
    def here(cls) -> Place:
        """This checkout's; MAZEVAULT_LAB_FOLDER and MAZEVAULT_LAB_SUBNET (a /24) choose otherwise."""
        folder = os.environ.get("MAZEVAULT_LAB_FOLDER")
        return cls.of(Path(folder) if folder else TOP / ".lab", os.environ.get("MAZEVAULT_LAB_SUBNET"))

    @classmethod
    def of(cls, folder: Path, subnet: str | None = None) -> Place:
        digest = hashlib.sha256(str(folder.resolve()).encode()).digest()
        network = IPv4Network(subnet or f"10.{200 + digest[0] % 50}.{digest[1]}.0/24")
        return cls(folder.resolve(), f"mvlab-{digest.hex()[:6]}", network)

    def address(self, number: int) -> IPv4Address:
        return self.subnet[number]

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"

    def of_host(self, name: str) -> Path:
        """Where an outside client finds a host's API token and authority."""
        return self.folder / name
