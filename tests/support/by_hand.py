# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.md as somebody follows it who has stock tools and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from support.keys import signing_key
from support.servers import PgInstall, PgServer

COREUTILS = [
    "[",
    "b2sum",
    "base64",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "comm",
    "cp",
    "csplit",
    "cut",
    "date",
    "dd",
    "df",
    "dir",
    "dirname",
    "du",
    "echo",
    "env",
    "expand",
    "expr",
    "false",
    "fmt",
    "fold",
    "head",
    "id",
    "install",
    "join",
    "link",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mv",
    "nice",
    "nl",
    "nohup",
    "nproc",
    "od",
    "paste",
    "pr",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "seq",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stdbuf",
    "sum",
    "sync",
    "tac",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "wc",
    "whoami",
    "yes",
]
MARK = "--- that was a block ---"
CLIENTS = ("psql", "pg_restore", "vacuumdb")


def stock_tools(folder: Path, install: PgInstall) -> Path:
    """A folder of links to coreutils, bash, zstd and this version's client programs, and to nothing else."""
    folder.mkdir()
    for name in (*COREUTILS, "bash", "openssl", "tar", "zstd"):
        found = shutil.which(name)
        assert found, f"{name} isn't installed"
        (folder / name).symlink_to(found)
    for name in CLIENTS:
        (folder / name).symlink_to(install.program(name))
    return folder


def blocks_of(folder: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", (folder / "RESTORE.md").read_text(encoding="utf-8"), re.M | re.S)


@dataclass(frozen=True)
class ByHand:
    """What somebody saw who typed the blocks, one after the other, into one shell."""

    rc: int
    output: str
    blocks: int
    done: int


def run_blocks(folder: Path, server: PgServer, tools: Path, **more: str) -> ByHand:
    """Run every block as the text says, up to the first that fails."""
    environment = {
        "PATH": str(tools),
        "PGHOST": str(server.socket_directory),
        "PGPORT": str(server.port),
        "PGUSER": server.superuser,
        "MAZEVAULT_HOST_KEY": Signer(signing_key()).public_path,
        **more,
    }
    blocks = blocks_of(folder)
    script = "".join(f"{block}\necho {MARK}\n" for block in blocks)
    words: list[str | Path] = [tools / "bash", "-euo", "pipefail", "-c", script]
    run = subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    # What openssl says of a good signature.
    output = (run.stdout + run.stderr).replace(MARK, "").replace("Verified OK", "").strip()
    return ByHand(run.returncode, output, len(blocks), run.stdout.count(MARK))
