# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Does this key open this vault? The vendor's tool says so; how much its word is worth is judged here.

Of the tool only `list --vault-file F --key-file K` is documented: neither exit statuses nor what it prints. So its word
counts only where it prints names and nothing else, and where it refuses another key.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, EngineAway
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file
from ansible_collections.mazevault.backup.plugins.module_utils._fingerprint import is_strong
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, TimedOut
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import memory_for
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

LEVEL = "read"
PATIENCE = 30.0
_VAULT, _KEY = "secrets.vault", "vault.key"
# Credentials of MazeVault have such names; anything else on a line may be a value.
_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,63}\Z")
_COMPLAINT = re.compile(r"(?i)\b(?:errors?|fatal|panic|failed|failure|cannot|can't|denied|invalid|wrong|corrupt\w*)\b")
_MOST_READ = 1 << 20
_SEEN_IN = "/mazevault-vault"
# An engine's own: it couldn't run the container, or the program in it.
_NOT_RUN = (125, 126, 127)


@dataclass(frozen=True)
class Said:
    """What one run of the tool came to; `stdout` and `complaint` may hold values, and are shown to nobody.

    Attributes:
        rc: None: it didn't end in time, or was ended by a signal.
        absent: why the tool couldn't be run at all.
    """

    rc: int | None = None
    stdout: str = ""
    complaint: str = ""
    absent: str = ""


@dataclass(frozen=True)
class Opened:
    """The proof: names that the vault holds, and what was looked at."""

    names: tuple[str, ...]
    checks: tuple[Check, ...]


class Tool(t.Protocol):
    """Where the vendor's tool runs."""

    def list_names(self, folder: str, key: str, timeout: float) -> Said:
        """List what `secrets.vault` in a folder holds, opened with a key file in it."""


class HostTool:
    """The tool as a program of this machine.

    Args:
        program: its path, or a name that is looked for.
    """

    def __init__(self, program: str) -> None:
        self._program = program

    def list_names(self, folder: str, key: str, timeout: float) -> Said:
        found = shutil.which(self._program) or shutil.which(self._program, path="/usr/local/bin:/opt/mazevault/bin")
        if found is None:
            return Said(absent=f"{self._program} isn't there, or isn't executable")
        return _run([found, *_arguments(folder, key)], timeout)


class ContainerTool:
    """The tool in a container image: no network, nothing but copies of both files, read-only."""

    def __init__(self, engine: Engine, image: str, program: str) -> None:
        self._engine, self._image, self._program = engine, image, program

    def list_names(self, folder: str, key: str, timeout: float) -> Said:
        name = f"mazevault-vault-{secrets.token_hex(6)}"
        options = [
            "--rm", "--pull=never", "--network=none", "--read-only", "--cap-drop=ALL", f"--name={name}",
            "--security-opt=no-new-privileges", "--security-opt=label=disable", "--log-driver=none",
            f"--mount=type=bind,source={folder},target={_SEEN_IN},readonly", f"--entrypoint={self._program}",
            *self._engine.as_ourselves(alone=True),
        ]  # fmt: skip
        try:
            said = _run([self._engine.program, "run", *options, self._image, *_arguments(_SEEN_IN, key)], timeout)
            if said.rc is None:
                self._engine.remove([name])
        except EngineAway as exc:
            return Said(absent=exc.msg)
        if said.rc in _NOT_RUN:
            return Said(absent=f"{self._program} in {self._image} can't be run (exit status {said.rc})")
        return said


def prove(vault: bytes, key: bytes, tool: Tool, *, expected: t.Iterable[str] = (), timeout: float = PATIENCE) -> Opened:
    """Whether the key opens the vault, by copies of both that are in memory only.

    Args:
        expected: names that have to be in it.
    """
    with memory_for("vault") as folder:
        write_file(os.path.join(folder, _VAULT), vault)
        write_file(os.path.join(folder, _KEY), key)
        write_file(os.path.join(folder, "another.key"), f"{secrets.token_urlsafe(32)}\n")
        said = tool.list_names(folder, _KEY, timeout)
        names, check = judge(said, frozenset(expected))
        checks = [check]
        if check.verdict == PASS:
            checks.append(_judge_refusal(tool.list_names(folder, "another.key", timeout)))
        with open(os.path.join(folder, _VAULT), "rb") as stream:
            if stream.read() != vault:
                checks.append(Check("only read", LEVEL, FAIL, "the tool changed the copy of the vault"))
        return Opened(names, tuple(checks))


def judge(said: Said, expected: frozenset[str]) -> tuple[tuple[str, ...], Check]:
    """(names, what the tool's answer is worth). Nothing that it printed is quoted but names."""
    name = "opens"
    if said.absent:
        return (), Check(name, LEVEL, UNPROVEN, said.absent)
    if said.rc is None:
        return (), Check(name, LEVEL, UNPROVEN, "the tool didn't come to an end")
    if said.rc != 0:
        return (), Check(name, LEVEL, FAIL, "the key doesn't open the vault", "exit status 0", f"{said.rc}")
    lines = [line.strip().lstrip("-*").strip() for line in said.stdout.splitlines()]
    lines = [line for line in lines if line]
    names = tuple(sorted({line for line in lines if line in expected or (_NAME.match(line) and not is_strong(line))}))
    others = [line for line in lines if line not in names]
    if _COMPLAINT.search(said.complaint) or any(_COMPLAINT.search(line) for line in others):
        return names, Check(name, LEVEL, FAIL, "the tool complains, although it ends with exit status 0")
    if others:
        reason = f"the tool prints more than names ({len(others)} lines, which are dropped): they may be values"
        return names, Check(name, LEVEL, UNPROVEN, reason)
    missing = sorted(expected - set(names))
    if missing:
        return names, Check(name, LEVEL, FAIL, f"not in the vault: {', '.join(missing)}")
    if not names:
        return names, Check(name, LEVEL, UNPROVEN, "the vault opens and holds nothing")
    return names, Check(name, LEVEL, PASS, "", "names", f"{len(names)} names")


def _judge_refusal(said: Said) -> Check:
    """A tool that lists names with any key has opened nothing."""
    if said.rc is None or said.absent:
        return Check("refuses another key", LEVEL, UNPROVEN, "the tool didn't come to an end with another key")
    if said.rc == 0:
        return Check(
            "refuses another key", LEVEL, UNPROVEN, "the tool is content with any key: its word proves nothing"
        )
    return Check("refuses another key", LEVEL, PASS)


def _arguments(folder: str, key: str) -> list[str]:
    return ["list", "--vault-file", os.path.join(folder, _VAULT), "--key-file", os.path.join(folder, key)]


def _run(argv: list[str], timeout: float) -> Said:
    with tempfile.TemporaryFile() as out:
        try:
            child = HostProcesses().start(argv, stdout=out)
        except BackupError as exc:
            return Said(absent=exc.msg)
        try:
            done = child.wait(timeout)
        except TimedOut:
            return Said()
        finally:
            child.stop(patience=1)
        out.seek(0)
        text = out.read(_MOST_READ).decode("utf-8", "replace")
    return Said(done.rc if done.rc >= 0 else None, text, done.stderr)
