# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine inside a container: what it may do there, and how its folder is filled beforehand."""

from __future__ import annotations

import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from .process import LabError, attempt, run, say, wait_for

# In the order of their numbers; what a host with its own engine needs, beyond what containers have anyway. Neither the
# clock nor the kernel's modules are among them: those are the machine's.
WANTED = {
    2: "DAC_READ_SEARCH",
    9: "LINUX_IMMUTABLE",
    11: "NET_BROADCAST",
    12: "NET_ADMIN",
    14: "IPC_LOCK",
    15: "IPC_OWNER",
    19: "SYS_PTRACE",
    21: "SYS_ADMIN",
    22: "SYS_BOOT",
    23: "SYS_NICE",
    24: "SYS_RESOURCE",
    26: "SYS_TTY_CONFIG",
    28: "LEASE",
}


@dataclass(frozen=True)
class Inner:
    """A kind of engine."""

    program: str
    folder: str
    """All that it keeps."""
    serving: tuple[str, ...]
    """What runs while the folder is filled."""
    ending: str
    """The signal that ends that."""
    volumes: str
    sign: str
    """Between the parts of the names that the compose program gives to containers."""


# An engine that is stopped in order leaves a folder in order; podman has none to stop.
DOCKER = Inner("docker", "/var/lib/docker", ("dockerd",), "TERM", "/var/lib/docker/volumes", "-")
PODMAN = Inner(
    "podman",
    "/var/lib/containers",
    ("sleep", "infinity"),
    "KILL",
    "/var/lib/containers/storage/volumes",
    "_",
)


def options() -> list[str]:
    """For docker run: enough rights for systemd and for an engine."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return ["--privileged", "--cgroupns=private", "--tmpfs=/run:exec", "--tmpfs=/run/lock"]
    # Version 1 of control groups. --privileged fails where the machine itself lacks a capability; each one by its name
    # works.
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    held = int(bounding[1], 16) if bounding else 0
    words = [f"--cap-add={name}" for number, name in WANTED.items() if held >> number & 1]
    words += [f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")]
    words += ["--device-cgroup-rule=a *:* rwm", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    words += ["--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "--tmpfs=/run:exec", "--tmpfs=/run/lock"]
    return words


def pack(inner: Inner, site: str, images: dict[str, str], tag: str, label: str) -> None:
    """Load images (tag outside: name inside) into an engine's empty folder and keep that as an archive in an image."""
    say(f"filling the store of the hosts' engines ({inner.program})")
    name = f"mvlab-store-{uuid.uuid4().hex[:8]}"
    volume = f"--volume={name}:{inner.folder}"
    entry, *serving = inner.serving
    try:
        run("docker", "run", "--detach", "--name", name, *options(), volume, "--entrypoint", entry, site, *serving)
        inside = ("docker", "exec", "--interactive", name)
        wait_for("an engine inside a container", lambda: attempt(*inside, inner.program, "version").returncode == 0, 60)
        _copy_images(list(images), (*inside, inner.program))
        for outside, within in images.items():
            run(*inside, inner.program, "tag", outside, within)
            run(*inside, inner.program, "rmi", outside)
        run("docker", "kill", "--signal", inner.ending, name)
        run("docker", "wait", name)
        run("docker", "rm", name)
        archive = ("tar", "--xattrs", "--create", "--file", "/store.tar", "--directory", inner.folder, ".")
        run("docker", "run", "--name", name, "--cap-add=SYS_ADMIN", volume, "--entrypoint", "env", site, *archive)
        run("docker", "commit", "--change", f"LABEL {label}=image", "--change", "CMD []", name, tag)
    finally:
        attempt("docker", "rm", "--force", "--volumes", name)
        attempt("docker", "volume", "rm", name)


def _copy_images(tags: list[str], inside: tuple[str, ...]) -> None:
    with subprocess.Popen(["docker", "save", *tags], stdout=subprocess.PIPE) as source:
        loaded = subprocess.run([*inside, "load", "--quiet"], stdin=source.stdout, capture_output=True, check=False)
    if source.returncode or loaded.returncode:
        raise LabError(f"the images don't go into the inner engine: {loaded.stderr.decode(errors='replace')}")


def unpack(store: str, volume: str) -> None:
    """Fill a host's volume."""
    words = ("tar", "--xattrs", "--xattrs-include=*", "--extract", "--file", "/store.tar", "--directory", "/filled")
    mount = f"--volume={volume}:/filled"
    run("docker", "run", "--rm", "--cap-add=SYS_ADMIN", "--network=none", mount, "--entrypoint", "env", store, *words)
