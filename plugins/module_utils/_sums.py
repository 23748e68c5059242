# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""SHA256SUMS of a recovery set, in the words of sha256sum: written, read, compared with the files."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file, tree_files

SUMS = "SHA256SUMS"
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def sums_text(folder: str) -> str:
    """The content of SHA256SUMS: every file but the sums and their signatures, in the format of sha256sum."""
    lines = []
    for relative in tree_files(folder):
        if relative == SUMS or relative.startswith(f"{SUMS}.sig"):
            continue
        name, mark = relative, ""
        if any(char in relative for char in "\\\n"):
            # as GNU sha256sum escapes them
            name, mark = relative.replace("\\", "\\\\").replace("\n", "\\n"), "\\"
        lines.append(f"{mark}{sha256_file(os.path.join(folder, relative))}  {name}\n")
    return "".join(lines)


def read_sums(folder: str) -> dict[str, str]:
    """SHA-256 by name, as SHA256SUMS has them.

    Raises:
        OSError, ValueError: it can't be read.
    """
    # Only a line feed ends a line: names may hold everything else.
    with open(os.path.join(folder, SUMS), encoding="utf-8", newline="\n") as stream:
        lines = stream.read().split("\n")
    found = {}
    for line in filter(None, lines):
        escaped = line.startswith("\\")
        digest, _gap, name = line.lstrip("\\").partition("  ")
        found[_ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], name) if escaped else name] = digest
    return found


def check_sums(folder: str, *, only: t.Collection[str] = ()) -> list[str]:
    """What is wrong with the files of a set: changed, missing, or there without a line in SHA256SUMS.

    Args:
        only: files and folders of the set that are of interest; nothing means all of it.
    """
    try:
        expected = read_sums(folder)
    except (OSError, ValueError) as exc:
        return [f"{SUMS}: {exc}"]
    present = {name for name in tree_files(folder) if name != SUMS and not name.startswith(f"{SUMS}.sig")}
    if only:
        expected = {name: digest for name, digest in expected.items() if _among(name, only)}
        present = {name for name in present if _among(name, only)}
    problems = [f"{name}: missing" for name in sorted(expected.keys() - present)]
    problems += [f"{name}: not in {SUMS}" for name in sorted(present - expected.keys())]
    for name in sorted(expected.keys() & present):
        if sha256_file(os.path.join(folder, name)) != expected[name]:
            problems.append(f"{name}: changed")
    if not expected:
        problems.append(f"{SUMS}: empty")
    return problems


def _among(name: str, tops: t.Collection[str]) -> bool:
    return any(name == top or name.startswith(f"{top}/") for top in tops)
