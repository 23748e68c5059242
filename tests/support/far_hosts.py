# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts behind Ansible's SSH connection, with a program in the place of ssh: who has a host's key gets in, nobody else.

Each has mounts of its own (namespaces of one process that sleeps): its machine id, and a folder on a disk in memory.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SSH = """#!/bin/sh
top=$(dirname "$0")
key=
for word; do
  case $word in IdentityFile=*) key=$(printf %s "${word#IdentityFile=}" | tr -d '"');; esac
  host=$last
  last=$word
done
if [ -e "$top/$host.away" ]; then
  echo "ssh: connect to host $host port 22: Connection timed out" >&2
  exit 255
fi
if ! grep -qxF -f "$top/$host.authorized" "$key"; then
  echo "$host: Permission denied (publickey)." >&2
  exit 255
fi
exec nsenter --mount="/proc/$(cat "$top/$host.pid")/ns/mnt" \\
  setpriv --reuid "$(cat "$top/$host.account")" --clear-groups /bin/sh -c "$last"
"""
_HOST = """
mount -t tmpfs -o "mode=700,uid=$2" tmpfs "$1"
mount --bind "$3" /etc/machine-id
if [ -d /etc/ssh ]; then mount -t tmpfs tmpfs /etc/ssh; fi
touch "$4"
exec sleep 600
"""


@dataclass(frozen=True)
class FarHosts:
    """Hosts by name, each with a key of its own."""

    top: Path
    names: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The same on each of them, and on none the same."""
        return self.top / "escrow"

    def variables(self) -> dict[str, dict[str, t.Any]]:
        return {
            name: {
                "ansible_connection": "ssh",
                "ansible_ssh_executable": str(self.top / "ssh"),
                "ansible_pipelining": True,
                "ansible_user": "escrow",
                "ansible_ssh_private_key_file": str(self.top / f"{name}.key"),
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for name in self.names
        }

    def let_in(self, host: str, *, key_of: str) -> None:
        """Another host's key opens this one too."""
        with (self.top / f"{host}.authorized").open("a") as stream:
            stream.write((self.top / f"{key_of}.key").read_text())

    def disconnect(self, host: str) -> None:
        (self.top / f"{host}.away").touch()


def missing() -> str:
    """Why this machine can't have them; empty where it can."""
    if os.geteuid() != 0:
        return "only root can make namespaces"
    if not all(shutil.which(name) for name in ("unshare", "nsenter", "setpriv")):
        return "util-linux isn't whole here"
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    done = subprocess.run(words, capture_output=True, check=False)
    return "" if done.returncode == 0 and Path("/etc/machine-id").is_file() else "no mounts here"


@contextlib.contextmanager
def far_hosts(*names: str) -> Iterator[FarHosts]:
    top = Path(tempfile.mkdtemp(prefix="mazevault-far-"))
    processes = []
    try:
        top.chmod(0o711)
        found = FarHosts(top, names)
        found.folder.mkdir()
        (top / "ssh").write_text(_SSH)
        (top / "ssh").chmod(0o755)
        (top / "host").write_text(_HOST)
        accounts = [pwd.getpwnam(name).pw_uid for name in ("nobody", "daemon")]
        for number, name in enumerate(names):
            account = str(accounts[number % len(accounts)])
            (top / f"{name}.key").write_text(f"{secrets.token_hex(16)}\n")
            (top / f"{name}.key").chmod(0o600)
            (top / f"{name}.account").write_text(account)
            (top / f"{name}.id").write_text(f"{secrets.token_hex(16)}\n")
            (top / f"{name}.id").chmod(0o644)
            found.let_in(name, key_of=name)
            ready = top / f"{name}.ready"
            words = ["unshare", "--mount", "--propagation", "private", "sh", "-eu", str(top / "host")]
            given = [str(found.folder), account, str(top / f"{name}.id"), str(ready)]
            processes.append(subprocess.Popen([*words, *given]))
            (top / f"{name}.pid").write_text(str(processes[-1].pid))
            deadline = time.monotonic() + 60
            while not ready.exists():
                if processes[-1].poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} didn't start")
                time.sleep(0.02)
        yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(top)
