# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes file trees through the collection's modules, as root and as an ordinary account."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.modules import Hook, Outcome, run_module
from support.trees import ROOT

HOSTNAME = "vault1"
CONFIRMED = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
ACCOUNT = "nobody"


@dataclass(frozen=True)
class Files:
    """A private folder for archives and targets, and who works in it.

    Attributes:
        ordinary: the modules run without root's rights (as ACCOUNT where the tests themselves are root).
    """

    folder: Path
    ordinary: bool = not ROOT

    def run(self, module: str, params: t.Mapping[str, t.Any], **how: t.Any) -> Outcome:
        hooks: list[Hook] = list(how.pop("hooks", ()))
        if self.ordinary and ROOT:
            hooks.append(("become", {"account": ACCOUNT, "module": module}))
        return run_module(module, params, hooks=hooks, **how)

    def must(self, module: str, params: t.Mapping[str, t.Any], **how: t.Any) -> dict[str, t.Any]:
        """Run a module that has to succeed."""
        done = self.run(module, params, **how)
        assert done.rc == 0, (done.result.get("msg"), done.result, done.stderr[-3000:])
        return done.result

    def backup(self, name: str, *paths: t.Mapping[str, str], **params: t.Any) -> dict[str, t.Any]:
        return self.must("files_backup", {"dest": str(self.folder / name), "paths": list(paths), **params})

    def restore(self, name: str, target: str, *, recorded: bool = True, **params: t.Any) -> dict[str, t.Any]:
        return self.must("files_restore", self.restoring(name, target, recorded=recorded, **params))

    def restoring(self, name: str, target: str, *, recorded: bool = True, **params: t.Any) -> dict[str, t.Any]:
        """Parameters of a restore."""
        archive = self.folder / name
        report = {"report": f"{archive}.json"} if recorded else {}
        return {"archive": str(archive), "target": str(self.folder / target), **report, **params}

    def report(self, name: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))


def by_hand(archive: Path, target: Path) -> None:
    """Open an archive as somebody does who has only zstd and tar."""
    target.mkdir()
    unpack = ["tar", "--extract", "--preserve-permissions", "--numeric-owner", "--acls", "--selinux"]
    unpack += ["--xattrs", "--xattrs-include=*", "-C", str(target)]
    with subprocess.Popen(["zstd", "-q", "-d", "-c", str(archive)], stdout=subprocess.PIPE) as zstd:
        done = subprocess.run(unpack, stdin=zstd.stdout, capture_output=True, check=False)
    assert (zstd.returncode, done.returncode) == (0, 0), done.stderr


@contextlib.contextmanager
def place(*, ordinary: bool) -> Iterator[Files]:
    """A private folder that the account which works there can reach; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="files-") as name:
        folder = Path(name)
        if ordinary and ROOT:
            shutil.chown(folder, ACCOUNT)
        yield Files(folder, ordinary)
