# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's images, made of Debian packages; none comes from a container registry.

Two bare Debian systems by mmdebstrap, Dockerfiles on top of them, so that layers are shared. An image's tag is the hash
of everything it is made from: one that is there is never built again.
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
from .place import HERE, TOP, Place
from .process import LabError, attempt, run, say

LABEL = "mazevault.lab"
PYTHON_OF_BOOKWORM = "3.11"
# Debian's cryptography is too old for the stand-in.
REQUIREMENTS = ("cryptography>=45", "psycopg2-binary>=2.9")
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
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--customize-hook={NO_START}"]
        words += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "system.tar"
            run(*words, self.suite, archive, f"deb {_mirror()} {self.suite} main")
            run("docker", "import", "--change", f"LABEL {LABEL}=image", archive, self.tag)


@dataclass(frozen=True)
class Image:
    """A Dockerfile's target in images/FOLDER, with further files beside it."""

    name: str
    folder: str
    base: System
    target: str = ""
    arguments: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict, hash=False)
    requirements: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        made_from = (self.base.tag, self.target, self.arguments, self.requirements, sorted(self._context().items()))
        return f"{self.name.partition(':')[0]}:{_digest(*made_from)}"

    def build(self) -> None:
        words = ["docker", "build", "--quiet", "--network", "host", "--label", f"{LABEL}=image", "--tag", self.tag]
        for argument in (f"BASE={self.base.tag}", *self.arguments):
            words += ["--build-arg", argument]
        words += ["--target", self.target] if self.target else []
        run(*words, "-", data=_archive({**self._context(), **_packages(self.requirements)}))

    def _context(self) -> dict[str, bytes]:
        own = {path.name: path for path in (HERE / "images" / self.folder).iterdir()}
        return {name: path.read_bytes() for name, path in {**own, **self.files}.items()}


def _standin() -> dict[str, Path]:
    source = TOP / "tests/standin/mazevault_standin"
    kinds = ("*.py", "migrations/*.sql")
    return {str(path.relative_to(source.parent)): path for kind in kinds for path in source.glob(kind)}


def _application(name: str) -> Image:
    return Image(
        f"mazevault-lab/{name}:1.0.17", "mazevault", BOOKWORM, name, files=_standin(), requirements=REQUIREMENTS
    )


BOOKWORM, TRIXIE = System("bookworm"), System("trixie")
# What the stack's compose file names; the engine of each host has them.
STACK = (
    Image("mazevault-lab/postgres:15", "postgres", BOOKWORM, arguments=("MAJOR=15",)),
    Image("mazevault-lab/postgres:17", "postgres", TRIXIE, arguments=("MAJOR=17",)),
    Image("mazevault-lab/redis:7", "redis", BOOKWORM),
    _application("mazevault-backend"),
    _application("mazevault-ocsp"),
    _application("mazevault-init-certs"),
)
SITE = Image("mazevault-lab/site:1", "host", BOOKWORM, "site")
BARE = Image("mazevault-lab/bare:1", "host", BOOKWORM, "bare")


@dataclass(frozen=True)
class Store:
    """An engine's whole folder with the stack's images loaded, as one archive: a host unpacks it in a second."""

    @property
    def tag(self) -> str:
        return f"mazevault-lab/store:{_digest(SITE.tag, [(image.name, image.tag) for image in STACK])}"

    def build(self) -> None:
        nested.pack(SITE.tag, {image.tag: image.name for image in STACK}, self.tag, LABEL)


STORE = Store()
# Those of one row need only those of the rows above.
ROWS: tuple[tuple[Buildable, ...], ...] = ((BOOKWORM, TRIXIE), (SITE, *STACK[:4]), (BARE, *STACK[4:]), (STORE,))


def ensure(_place: Place) -> None:
    present = set(run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split())
    if STORE.tag in present and BARE.tag in present and SITE.tag in present:
        return
    for row in ROWS:
        missing = [image for image in row if image.tag not in present]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_build, missing))


def _build(image: Buildable) -> None:
    say(f"building {image.tag}")
    image.build()


def remove_all() -> None:
    found = run("docker", "images", "--quiet", "--filter", f"label={LABEL}=image").split()
    if found:
        run("docker", "image", "rm", "--force", *sorted(set(found)))


def _mirror() -> str:
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
    """Python packages for the image's Python and glibc, whatever runs here."""
    if not requirements:
        return {}
    machine = platform.machine()
    with tempfile.TemporaryDirectory() as folder:
        words = [_python_with_pip(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        words += ["--root-user-action=ignore", "--target", folder, "--only-binary=:all:", "--implementation=cp"]
        words += [f"--python-version={PYTHON_OF_BOOKWORM}"]
        words += [f"--platform=manylinux{level}_{machine}" for level in ("2014", "_2_17", "_2_28", "_2_34")]
        run(*words, *requirements)
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {f"packages/{path.relative_to(folder)}": path.read_bytes() for path in files}


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
