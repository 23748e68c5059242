# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other hosts, as far as one machine has them: Ansible hosts with an account and a folder of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Accounts that every system has; without root there is only one's own.
ACCOUNTS = ("nobody", "daemon")
# Takes su's arguments, and asks no PAM: not every container has one that works.
_BECOME = """#!/bin/sh
exec setpriv --reuid "$(id -u "$1")" --regid "$(id -g "$1")" --clear-groups /bin/sh -c "$3"
"""


@dataclass
class Elsewhere:
    """A folder for each host, which only its account can look into.

    Attributes:
        down: hosts that don't answer.
        locked: hosts that answer, and let nobody become the account.
    """

    top: Path
    hosts: dict[str, str]
    down: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)

    def folder(self, host: str) -> Path:
        return self.top / host

    def variables(self) -> dict[str, dict[str, t.Any]]:
        """Of each host, for an inventory."""
        return {host: self._of(host) for host in self.hosts}

    def own(self, host: str, path: Path) -> None:
        """Give what a test has put there to the host's account."""
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.hosts[host])
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)

    def _of(self, host: str) -> dict[str, t.Any]:
        if host in self.down:
            # Nobody listens there.
            return {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
        local = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        if host in self.locked:
            way = {"ansible_become_method": "su", "ansible_become_exe": "/bin/false"}
            return {**local, "ansible_become": True, "ansible_become_user": self.hosts[host], **way}
        if os.geteuid() != 0:
            return local
        way = {"ansible_become_method": "su", "ansible_become_exe": str(self.top / "become")}
        return {**local, "ansible_become": True, "ansible_become_user": self.hosts[host], **way}


@contextlib.contextmanager
def elsewhere(*names: str) -> Iterator[Elsewhere]:
    """Hosts with these names, each under another account."""
    # Test folders are for one account only, those above them too.
    top = Path(tempfile.mkdtemp(prefix="mazevault-elsewhere-"))
    try:
        top.chmod(0o711)
        (top / "become").write_text(_BECOME)
        (top / "become").chmod(0o755)
        found = Elsewhere(top, dict(zip(names, ACCOUNTS * len(names), strict=False)))
        for host in names:
            found.folder(host).mkdir(mode=0o700)
            found.own(host, found.folder(host))
        yield found
    finally:
        shutil.rmtree(top)
