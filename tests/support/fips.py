# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An openssl that has its FIPS provider and no other, out of Debian's packages; this machine's own stays as it is."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.images import mirror
from lab.place import TOP
from lab.process import LabError

SUITE = "trixie"  # the first that has the provider
PACKAGES = ("openssl", "openssl-provider-fips")
CACHE = TOP / ".venv/cache" / f"fips-{SUITE}-{platform.machine()}"
CONFIG = """\
config_diagnostics = 1
openssl_conf = all
.include {module}
[all]
providers = providers
alg_section = algorithms
[providers]
fips = fips_sect
base = base
[base]
activate = 1
[algorithms]
default_properties = fips=yes
"""
WRAPPER = """\
#!/bin/sh
printf '%s\\n' "$*" >>{log}
export OPENSSL_CONF={config} OPENSSL_MODULES={modules}
exec {loader} --library-path {libraries} {program} "$@"
"""


class NotToBeHad(Exception):
    """This machine can't get the packages."""


@dataclass(frozen=True)
class FipsOpenssl:
    """Where it is."""

    folder: Path

    @property
    def bin(self) -> Path:
        """For the front of PATH."""
        return self.folder / "bin"

    def calls(self) -> list[str]:
        """The command lines that it was started with."""
        return (self.folder / "calls").read_text(encoding="utf-8").splitlines()

    def try_(self, *words: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.bin / "openssl", *words], input=data, capture_output=True, check=False)


def install(folder: Path) -> FipsOpenssl:
    """Make it, in a folder of its own.

    Raises:
        NotToBeHad: and why.
    """
    root = _packages()
    modules, loader = _one(root, "ossl-modules"), _one(root, "ld-linux*.so.*")
    (folder / "bin").mkdir()
    (folder / "calls").touch()
    words = {
        "log": folder / "calls",
        "config": folder / "openssl.cnf",
        "modules": modules,
        "loader": loader,
        "libraries": _one(root, "libcrypto.so.3").parent,
        "program": _one(root, "bin/openssl"),
    }
    wrapper = folder / "bin/openssl"
    wrapper.write_text(WRAPPER.format(**{name: shlex.quote(str(path)) for name, path in words.items()}))
    wrapper.chmod(0o755)
    made = FipsOpenssl(folder)
    # What its checks would let pass for the sake of old programs is refused too.
    (folder / "openssl.cnf").touch()
    done = made.try_("fipsinstall", "-pedantic", "-module", modules / "fips.so", "-out", folder / "fips.cnf")
    if done.returncode:
        raise NotToBeHad(f"openssl fipsinstall failed: {done.stderr.decode()[-300:]}")
    (folder / "openssl.cnf").write_text(CONFIG.format(module=folder / "fips.cnf"))
    (folder / "calls").write_text("")
    return made


def _packages() -> Path:
    """The packages' files, got once."""
    if CACHE.is_dir():
        return CACHE
    if shutil.which("mmdebstrap") is None:
        raise NotToBeHad("mmdebstrap isn't installed (scripts/setup-test-host.sh, on Debian)")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as work:
        root = Path(work) / "root"
        words = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
        try:
            words.append(f"deb {mirror()} {SUITE} main")
        except LabError as exc:
            raise NotToBeHad(str(exc)) from exc
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise NotToBeHad(f"{SUITE}'s {' and '.join(PACKAGES)} can't be had: {done.stderr.strip()[-300:]}")
        root.rename(CACHE)
    return CACHE


def _one(root: Path, name: str) -> Path:
    """The file of this name; the same one may be there under two paths."""
    return sorted(path for path in root.glob(f"usr/**/{name}") if path.exists())[0]
