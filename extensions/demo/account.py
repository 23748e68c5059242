# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL refuses to run as root, so root's demo goes on as an account without rights."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import typing as t
from collections.abc import Sequence
from pathlib import Path

NAME = "nobody"
# What runs in the demo; .venv comes on top.
PARTS = ("galaxy.yml", "meta", "plugins", "roles", "playbooks", "extensions/demo", "tests/standin")
UNUSED = shutil.ignore_patterns("pip", "setuptools", "ansible_test", "include")
UNUSED_PYTHON = shutil.ignore_patterns("site-packages", "test", "idlelib", "tkinter", "config-*", "ensurepip")


class CantLeaveRoot(Exception):
    """Says what to do instead."""


def go_on_without_root(top: Path, folder: Path | None, options: Sequence[str]) -> t.NoReturn:
    """Copy the demo to where the account can read it, and replace this process by the copy's.

    Checkout, environment and the Python below it may all lie in folders that are closed to others, such as /root.
    """
    if sys.prefix == sys.base_prefix:
        raise CantLeaveRoot("not in a virtual environment: start this with: make demo")
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        raise CantLeaveRoot(f"there is no account {NAME} here: run the demo as an ordinary user") from None
    copy = Path(tempfile.mkdtemp(prefix="mazevault-demo-"))
    try:
        _copy_checkout(top, copy / "checkout")
        shutil.copytree(sys.prefix, copy / "venv", symlinks=True, ignore=UNUSED)
        if not _can_run(entry, Path(sys.executable).resolve()):
            _copy_python(copy / "python", copy / "venv")
        _give(copy, entry)
        if folder is None:
            folder = copy / "demo"
        elif not folder.exists():
            folder.mkdir(mode=0o700)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        python = copy / "venv/bin/python"
        if not _can_run(entry, python):
            raise CantLeaveRoot(f"{NAME} can't run programs in {copy.parent}: set TMPDIR to another folder")
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.chdir(copy)
    script = str(copy / "checkout/extensions/demo/demo.py")
    os.execv(python, [str(python), script, "--folder", str(folder), "--programs", str(copy), *options])


def remove_programs(copy: Path) -> None:
    """The opposite, at the end; what the demo made stays."""
    for name in ("checkout", "venv", "python"):
        shutil.rmtree(copy / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        copy.rmdir()  # not empty when the demo's own folder is in it


def _copy_checkout(top: Path, target: Path) -> None:
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (top / part).is_dir():
            shutil.copytree(top / part, target / part, symlinks=True)
        else:
            shutil.copy(top / part, target / part)


def _copy_python(target: Path, venv: Path) -> None:
    """The interpreter itself and its library, for an environment that was made from a private one."""
    program, base, library = Path(sys.executable).resolve(), Path(sys.base_prefix), Path(os.__file__).parent
    (target / "bin").mkdir(parents=True)
    shutil.copy(program, target / "bin" / program.name)
    shutil.copytree(library, target / library.relative_to(base), symlinks=True, ignore=UNUSED_PYTHON)
    for shared in (base / "lib").glob("libpython*.so*"):
        shutil.copy(shared, target / "lib" / shared.name, follow_symlinks=False)
    os.environ["LD_LIBRARY_PATH"] = str(target / "lib")
    for link in (venv / "bin").glob("python*"):
        link.unlink()
        link.symlink_to(target / "bin" / program.name)
    settings = venv / "pyvenv.cfg"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("home")]
    settings.write_text("\n".join([f"home = {target / 'bin'}", *lines]) + "\n")


def _give(tree: Path, entry: pwd.struct_passwd) -> None:
    os.chown(tree, entry.pw_uid, entry.pw_gid)
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            os.chown(Path(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _can_run(entry: pwd.struct_passwd, python: Path) -> bool:
    """Whether it is reachable and comes up as the very same Python."""
    words = [str(python), "-c", "import sys; print(sys.version)"]
    who: dict[str, t.Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        done = subprocess.run(words, **who, cwd="/", capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.rstrip("\n") == sys.version
