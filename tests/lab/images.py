# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's images, made of Debian packages.

Two bare Debian systems by mmdebstrap, Dockerfiles on top of them, so that layers are shared. An image's tag is the hash
of everything it is made from: one that is there is never built again. No container registry is asked; where one can be,
MAZEVAULT_LAB_DEBIAN=debian takes the public bare systems from there.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import platform
import sys
import tarfile
import tempfile
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import nested
from .place import HERE, TOP
from .process import LabError, attempt, run, say

LABEL = "mazevault.lab"
PYTHON_OF_BOOKWORM, PYTHON_OF_TRIXIE = "3.11", "3.13"
# Debian's cryptography is too old for the stand-in.
REQUIREMENTS = ("cryptography>=45", "psycopg2-binary>=2.9")
# What the control node has beside this machine's own ansible-core.
ANSIBLE = ("2.20", "2.21")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
# As in the public Debian images: nothing starts because it is installed.
NO_START = 'printf "#!/bin/sh\\nexit 101\\n" >"$1/usr/sbin/policy-rc.d" && chmod 0755 "$1/usr/sbin/policy-rc.d"'


class Buildable(t.Protocol):
    @property
    def tag(self) -> str: ...

    def build(self) -> None: ...


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class System:
    """A bare Debian."""

    suite: str

    @property
    def tag(self) -> str:
        return f"mazevault-lab/{self.suite}:{_digest(self.suite, LEFT_OUT, NO_START)}"

    def build(self) -> None:
        if public := os.environ.get("MAZEVAULT_LAB_DEBIAN"):
            run("docker", "pull", "--quiet", f"{public}:{self.suite}-slim")
            run("docker", "tag", f"{public}:{self.suite}-slim", self.tag)
            return
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--customize-hook={NO_START}"]
        words += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "system.tar"
            run(*words, self.suite, archive, f"deb {mirror()} {self.suite} main")
            run("docker", "import", "--change", f"LABEL {LABEL}=image", archive, self.tag)


@dataclass(frozen=True)
class Image:
    """A Dockerfile in images/, with further files beside it."""

    name: str
    """As compose files call it."""
    base: Buildable
    arguments: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    environments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Requirements of virtual environments, whose wheels the Dockerfile finds in wheels/NAME/."""

    @property
    def tag(self) -> str:
        made_from = (self.base.tag, self.arguments, self.requirements, sorted(self._context().items()))
        return f"{self._repository}:{_digest(*made_from, *sorted(self.environments.items()))}"

    def build(self) -> None:
        words = ["docker", "build", "--quiet", "--network=host", f"--label={LABEL}=image", f"--tag={self.tag}"]
        words += [f"--build-arg={argument}" for argument in (f"BASE={self.base.tag}", *self.arguments)]
        files = {**self._context(), **_packages(self.requirements)}
        for name, requirements in self.environments.items():
            files |= _wheels(name, requirements)
        run(*words, "-", data=_archive(files))

    @property
    def _repository(self) -> str:
        return self.name.partition(":")[0]

    def _context(self) -> dict[str, bytes]:
        own = {path.name: path for path in (HERE / "images" / Path(self._repository).name).iterdir()}
        return {name: path.read_bytes() for name, path in {**own, **self.files}.items()}


def _standin() -> dict[str, Path]:
    source = TOP / "tests/standin"
    kinds = ("mazevault_standin/*.py", "mazevault_standin/migrations/*.sql", "bin/vault-tool")
    return {str(path.relative_to(source)): path for kind in kinds for path in source.glob(kind)}


BOOKWORM, TRIXIE = System("bookworm"), System("trixie")
APPLICATION = Image("mazevault-lab/application:1", BOOKWORM, files=_standin(), requirements=REQUIREMENTS)
SERVERS = (
    Image("mazevault-lab/postgres:15", BOOKWORM, ("MAJOR=15",)),
    Image("mazevault-lab/postgres:17", TRIXIE, ("MAJOR=17",)),
    Image("mazevault-lab/redis:7", BOOKWORM),
)
PRODUCT = tuple(
    Image(f"mazevault-lab/{name}:1.0.17", APPLICATION)
    for name in ("mazevault-backend", "mazevault-ocsp", "mazevault-init-certs")
)
HOST = Image("mazevault-lab/host:1", BOOKWORM)
CONTROL = Image(
    "mazevault-lab/control:1",
    TRIXIE,
    environments={version: (f"ansible-core=={version}.*", "jmespath>=1.0") for version in ANSIBLE},
)
# For hosts that run playbooks themselves.
ON_HOST = Image("mazevault-lab/ansible:1", HOST, requirements=("ansible-core==2.19.*", "jmespath>=1.0"))
SITE, BARE = Image("mazevault-lab/site:1", HOST), Image("mazevault-lab/bare:1", HOST)
# Debian's podman-compose is older than any that is in use on hosts of the Red Hat kind.
PODMAN_SITE = Image("mazevault-lab/podman-site:1", HOST, requirements=("podman-compose==1.5.*",))


@dataclass(frozen=True)
class Store:
    """An engine's whole folder with the stack's images loaded, as one archive: a host unpacks it in a second."""

    inner: nested.Inner
    site: Image

    @property
    def tag(self) -> str:
        loaded = [(image.name, image.tag) for image in (*SERVERS, *PRODUCT)]
        return f"mazevault-lab/store:{_digest(self.site.tag, loaded)}"

    def build(self) -> None:
        loaded = {image.tag: image.name for image in (*SERVERS, *PRODUCT)}
        nested.pack(self.inner, self.site.tag, loaded, self.tag, LABEL)


STORES = {inner: Store(inner, site) for inner, site in ((nested.DOCKER, SITE), (nested.PODMAN, PODMAN_SITE))}
# Those of one row need only those of the rows above.
ROWS: tuple[tuple[Buildable, ...], ...] = (
    (BOOKWORM, TRIXIE),
    (HOST, *SERVERS, APPLICATION),
    (SITE, PODMAN_SITE, BARE, *PRODUCT),
    tuple(STORES.values()),
)
# What only some hosts need is built for them.
_OPTIONAL = (SITE, PODMAN_SITE, BARE, *STORES.values())


def ensure(inners: t.Collection[nested.Inner | None] = (nested.DOCKER, None)) -> None:
    """For hosts with these engines; None: with no engine."""
    stores = [STORES[inner] for inner in inners if inner]
    wanted = (*stores, *(store.site for store in stores), *((BARE,) if None in inners else ()))
    rows = tuple(tuple(image for image in row if image in wanted or image not in _OPTIONAL) for row in ROWS)
    _ensure(wanted, rows)


def ensure_control() -> None:
    _ensure((CONTROL,), ((TRIXIE,), (CONTROL,)))


def ensure_on_host() -> None:
    _ensure((ON_HOST,), ((BOOKWORM,), (HOST,), (ON_HOST,)))


def _ensure(wanted: tuple[Buildable, ...], rows: tuple[tuple[Buildable, ...], ...]) -> None:
    present = set(run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split())
    if present.issuperset(image.tag for image in wanted):
        return
    for row in rows:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_build, [image for image in row if image.tag not in present]))


def _build(image: Buildable) -> None:
    say(f"building {image.tag}")
    image.build()


def remove_all() -> None:
    found = run("docker", "images", "--quiet", "--filter", f"label={LABEL}=image").split()
    if found:
        run("docker", "image", "rm", "--force", *sorted(set(found)))


def mirror() -> str:
    """Where this machine gets its own packages."""
    form = "$(SITE) $(ORIGIN) $(LABEL) $(COMPONENT)"
    listed = run("apt-get", "indextargets", "--format", form, "Identifier: Packages").splitlines()
    for line in listed:
        site, *kind = line.split()
        if kind == ["Debian", "Debian", "main"]:
            return site
    raise LabError("the machine's apt sources name no mirror of Debian's packages")


@functools.cache
def _packages(requirements: tuple[str, ...]) -> dict[str, bytes]:
    """Installed, for the Python of bookworm."""
    words = ("install", "--no-compile", "--root-user-action=ignore", "--target")
    return _fetched("packages", words, requirements, PYTHON_OF_BOOKWORM)


def _wheels(environment: str, requirements: tuple[str, ...]) -> dict[str, bytes]:
    return _fetched(f"wheels/{environment}", ("download", "--dest"), requirements, PYTHON_OF_TRIXIE)


def _fetched(prefix: str, command: tuple[str, ...], requirements: tuple[str, ...], python: str) -> dict[str, bytes]:
    """Python packages for the image's Python and glibc, whatever runs here."""
    if not requirements:
        return {}
    machine = platform.machine()
    with tempfile.TemporaryDirectory() as folder:
        words = [_python_with_pip(), "-m", "pip", *command, folder, "--quiet", "--disable-pip-version-check"]
        words += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        words += [f"--platform=manylinux{level}_{machine}" for level in ("2014", "_2_17", "_2_28", "_2_34")]
        run(*words, *requirements)
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in files}


def _python_with_pip() -> str:
    for python in (sys.executable, str(TOP / ".venv/test/bin/python")):
        if Path(python).exists() and attempt(python, "-m", "pip", "--version").returncode == 0:
            return python
    raise LabError(f"{sys.executable} has no pip: start this with: make lab-up")


def _archive(files: dict[str, bytes]) -> bytes:
    """With everything but the bytes and the right to run them made equal."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
