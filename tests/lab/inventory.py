# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's folder: what ssh and Ansible need to reach the hosts."""

from __future__ import annotations

import shutil
from string import Template

from . import hosts
from .hosts import HOSTS, Host
from .place import HERE, Place
from .process import LabError, run

MARK = ".mazevault-lab"


def begin(place: Place) -> None:
    """Make the folder this lab's. Hosts that a lost folder of this name left behind are nobody's: they go."""
    folder = place.folder
    if not (folder / MARK).exists() and any(path.name != "dockerd.log" for path in folder.iterdir()):
        raise LabError(f"{folder} is no lab's folder: name another one in MAZEVAULT_LAB_FOLDER")
    folder.chmod(0o700)
    (folder / MARK).touch()
    if not place.key.exists():
        for host in HOSTS:
            hosts.remove(place, host)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", place.name, "-f", place.key)


def write(place: Place) -> None:
    """For the hosts that run now."""
    running = [host for host in HOSTS if hosts.state(place, host) == "running"]
    lines = [f"{host.name},{place.address(host.number)} {hosts.host_key(place, host)}" for host in running]
    place.known_hosts.write_text("".join(lines), encoding="utf-8")
    place.ssh_config.write_text("".join(_ssh_block(place, host) for host in running), encoding="utf-8")
    place.inventory.write_text(_inventory(place, running), encoding="utf-8")


def _ssh_block(place: Place, host: Host) -> str:
    return f"""\
Host {host.name} {place.address(host.number)}
    HostName {place.address(host.number)}
    User operator
    IdentityFile "{place.key}"
    IdentitiesOnly yes
    UserKnownHostsFile "{place.known_hosts}"
    StrictHostKeyChecking yes

"""


def _inventory(place: Place, running: list[Host]) -> str:
    template = Template((HERE / "inventory.yml.template").read_text(encoding="utf-8"))
    listed = {
        group: "".join(f"    {host.name}:\n{_variables(place, host)}" for host in running if host.group == group)
        or "    {}\n"
        for group in ("mazevault", "bare")
    }
    return template.substitute(listed, ssh_config=place.ssh_config)


def _variables(place: Place, host: Host) -> str:
    values = {"ansible_host": f"{place.address(host.number)}"}
    if host.inner:
        values["lab_url"] = f"https://{place.address(host.number)}:8443"
        values["mazevault_runtime"] = host.inner.program
        values["mazevault_api_ca_path"] = f"{host.inner.volumes}/mazevault_certs/_data/ca.crt"
    return "".join(f"      {name}: {value}\n" for name, value in values.items())


def remove(place: Place) -> None:
    """Everything but the engine's log, which that goes on writing."""
    if not (place.folder / MARK).exists():
        return
    for path in place.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "dockerd.log":
            path.unlink()
