# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that runs the playbooks itself: ansible-core, the collection and an inventory of itself are put onto it."""

from __future__ import annotations

import json
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

from . import hosts, images
from .control import Ended
from .hosts import Host
from .place import TOP, Place
from .process import attempt, run

# Not where the collection has the key and the policy of a host.
SETTINGS = "/etc/mazevault-control"
INVENTORY = f"{SETTINGS}/inventory"
# While this is there, backup.yml waits as soon as it reads the inventory, after its run began and before it does a
# thing.
HOLD = "/run/hold-backups"
_COLLECTION = "/usr/share/ansible/collections/ansible_collections/mazevault/backup"
_PROGRAMS = ("opt/ansible", "usr/local/bin/ansible-playbook")
_SCRIPT = rf"""#!/bin/sh
while [ -e {HOLD} ] && tr '\0' ' ' </proc/$PPID/cmdline | grep -q mazevault.backup.backup; do sleep 0.2; done
exec cat {SETTINGS}/hosts.json
"""


@dataclass(frozen=True)
class OwnControl:
    place: Place
    host: Host

    def install(self, scratch: Path, variables: t.Mapping[str, t.Any]) -> None:
        """The collection as ansible-galaxy would unpack it, from this checkout."""
        images.ensure_on_host()
        subprocess.run([TOP / "scripts/export-tree.sh", scratch], check=True)
        packed = ("docker", "run", "--rm", "--network=none", images.ON_HOST.tag, "tar", "-cf-", "-C/", *_PROGRAMS)
        self.shell('tar -xf- -C/ && mkdir -p "$@"', _COLLECTION, data=attempt(*packed).stdout)
        run("docker", "cp", f"{scratch}/.", f"{hosts.container(self.place, self.host)}:{_COLLECTION}")
        self.write(INVENTORY, _SCRIPT, mode="0755")
        own = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        hostvars = {self.host.name: {**own, **variables}}
        group = {"hosts": [self.host.name]}
        self.write(f"{SETTINGS}/hosts.json", json.dumps({"mazevault": group, "_meta": {"hostvars": hostvars}}))

    def remove(self) -> None:
        """All of it, and what playbooks keep in root's home."""
        self.shell(
            'rm -rf "$@" /root/.ansible /root/.mazevault-backup',
            *(f"/{program}" for program in _PROGRAMS),
            _COLLECTION,
            SETTINGS,
            HOLD,
        )

    def play(self, playbook: str, **extra: t.Any) -> Ended:
        """As root would on this host."""
        words = ("ansible-playbook", "-i", INVENTORY, f"mazevault.backup.{playbook}", "-e", json.dumps(extra))
        settings = ("--env=ANSIBLE_NOCOLOR=true", "--env=ANSIBLE_LOCALHOST_WARNING=false", "--workdir=/root")
        done = attempt("docker", "exec", *settings, hosts.container(self.place, self.host), *words)
        return Ended(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))

    def write(self, path: str, text: str, *, mode: str = "0600") -> None:
        hosts.inside(self.place, self.host, "install", "-D", "-m", mode, "/dev/stdin", path, data=text.encode())

    def shell(self, script: str, *words: str, data: bytes | None = None) -> str:
        return hosts.inside(self.place, self.host, "bash", "-c", script, "bash", *words, data=data)

    def rc(self, *words: str) -> int:
        """How a program ends there, whatever it says."""
        return attempt("docker", "exec", hosts.container(self.place, self.host), *words).returncode
