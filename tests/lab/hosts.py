# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts: containers of the machine's engine that behave as machines."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from . import images, nested
from .layout import SHIPPED, Layout
from .place import Place
from .process import LabError, attempt, run, say, wait_for

LABEL = "mazevault.lab.name"


@dataclass(frozen=True)
class Host:
    name: str
    number: int
    """The last part of its address."""
    group: str
    inner: nested.Inner | None = None
    """The engine that runs MazeVault's stack on it."""
    on_demand: bool = False
    """Not there unless it is named."""
    layout: Layout = SHIPPED
    """Of MazeVault's stack."""

    @property
    def has_stack(self) -> bool:
        return self.inner is not None

    @property
    def engine(self) -> nested.Inner:
        if self.inner is None:
            raise LabError(f"{self.name} has no engine")
        return self.inner

    @property
    def image(self) -> str:
        return images.STORES[self.inner].site.tag if self.inner else images.BARE.tag


HOSTS = (
    Host("mv-site-a", 11, "mazevault", nested.DOCKER),
    Host("mv-site-b", 12, "mazevault", nested.DOCKER),
    Host("mv-podman", 13, "mazevault", nested.PODMAN, on_demand=True),
    Host("mv-bare", 21, "bare"),
)
USUAL = tuple(host for host in HOSTS if not host.on_demand)


def named(name: str) -> Host:
    for host in HOSTS:
        if host.name == name:
            return host
    raise argparse.ArgumentTypeError(f"one of {', '.join(host.name for host in HOSTS)}, not {name}")


def container(place: Place, host: Host) -> str:
    return f"{place.name}-{host.name}"


def inside(place: Place, host: Host, *words: str, data: bytes | None = None) -> str:
    """Run a program on the host as root, past ssh."""
    return run("docker", "exec", "--interactive", container(place, host), *words, data=data)


def succeeds(place: Place, host: Host, *words: str) -> bool:
    return attempt("docker", "exec", container(place, host), *words).returncode == 0


def state(place: Place, host: Host) -> str:
    done = attempt("docker", "inspect", "--format", "{{.State.Status}}", container(place, host))
    return done.stdout.decode().strip() or "absent"


def ensure_network(place: Place) -> None:
    if attempt("docker", "network", "inspect", place.name).returncode:
        label = f"{LABEL}={place.name}"
        run("docker", "network", "create", "--subnet", str(place.subnet), "--label", label, place.name)


def ensure(place: Place, host: Host) -> None:
    """Running, and reachable with this lab's key."""
    found = state(place, host)
    if found == "absent":
        _create(place, host)
    elif found != "running":
        run("docker", "start", container(place, host))
    wait_for(f"{host.name}: sshd", lambda: succeeds(place, host, "systemctl", "is-active", "ssh"), 60)
    if host.inner:
        program = host.inner.program
        wait_for(f"{host.name}: its engine", lambda: succeeds(place, host, program, "version"), 60)
    keys = "/home/operator/.ssh/authorized_keys"
    public = place.key.with_suffix(".pub").read_bytes()
    inside(place, host, "install", "-o", "operator", "-g", "operator", "-m", "0600", "/dev/stdin", keys, data=public)


def _create(place: Place, host: Host) -> None:
    say(f"starting {host.name}")
    name, label = container(place, host), f"{LABEL}={place.name}"
    words = ["--detach", "--name", name, "--hostname", host.name, "--label", label, "--restart=no", *nested.options()]
    words += ["--network", place.name, "--ip", str(place.address(host.number))]
    words += [f"--add-host={other.name}:{place.address(other.number)}" for other in HOSTS if other != host]
    if host.inner:
        attempt("docker", "volume", "rm", name)
        run("docker", "volume", "create", "--label", label, name)
        nested.unpack(images.STORES[host.inner].tag, name)
        words += [f"--volume={name}:{host.inner.folder}"]
    run("docker", "run", *words, host.image)


def host_key(place: Place, host: Host) -> str:
    return inside(place, host, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")


def remove(place: Place, host: Host) -> None:
    """Shut down in order, so that the inner engine takes its control groups with it."""
    name = container(place, host)
    if state(place, host) != "absent":
        say(f"removing {host.name}")
        run("docker", "stop", "--time", "10", name)
        run("docker", "rm", "--force", "--volumes", name)
    if attempt("docker", "volume", "inspect", name).returncode == 0:
        run("docker", "volume", "rm", name)


def remove_rest(place: Place) -> None:
    """The network, and a control node that tests left in it."""
    rest = run("docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={place.name}").split()
    if rest:
        run("docker", "rm", "--force", "--volumes", *rest)
    if attempt("docker", "network", "inspect", place.name).returncode == 0:
        run("docker", "network", "rm", place.name)
