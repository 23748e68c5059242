# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Habits of this project that no linter knows. Prints FILE:LINE and the reason for each breach; 1 if there is one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parent.parent
PLAYS = ("playbooks/*.yml", "roles/*/tasks/**/*.yml", "roles/*/handlers/**/*.yml")
THROUGH_MEMORY = "takes the bytes through Ansible's memory as base64; move artefacts host to host"
# A prover gets a set over the control node: each file's size is looked at before that.
BOUNDED = ("roles/mazevault_prover/tasks/prove.yml",)

KEYWORDS = {
    "environment": "its values are printed at -vvv, even with no_log; modules read secrets on the target by reference",
    "ignore_errors": "hides a failure; use a condition, or block and rescue that ends in fail",
    "fetch": THROUGH_MEMORY,
    "slurp": THROUGH_MEMORY,
}
SHELL = re.compile(r"\bshell\s*=\s*True|use_unsafe_shell|\bos\.(system|popen)\b")


def pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    """All key, name and value triples of a document, however deep."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from pairs(item)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key, str(key.value), value
            yield from pairs(value)


def breach(name: str, value: yaml.Node) -> str | None:
    """Why this key of a play, task or module call must not be there."""
    word = re.sub(r"^ansible\.(builtin|legacy)\.", "", name)
    if word in KEYWORDS:
        return f"no {word}: {KEYWORDS[word]}"
    if word == "copy" and "content" not in {found for _key, found, _value in pairs(value)}:
        return f"copy only with content: a file {THROUGH_MEMORY}"
    if word == "tasks_from" and str(value.value).endswith((".yml", ".yaml")):
        return "tasks_from without extension: with one Ansible skips the argument specification"
    return None


def breaches(top: Path) -> Iterator[str]:
    for path in sorted(path for pattern in PLAYS for path in top.glob(pattern)):
        for document in yaml.compose_all(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            for key, name, value in pairs(document):
                reason = breach(name, value)
                if reason and not (THROUGH_MEMORY in reason and str(path.relative_to(top)) in BOUNDED):
                    yield f"{path.relative_to(top)}:{key.start_mark.line + 1}: {reason}"
    for path in sorted(top.glob("plugins/**/*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if SHELL.search(line):
                yield f"{path.relative_to(top)}:{number}: no shell: programs get argument lists"


def main(top: Path) -> int:
    found = list(breaches(top))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TOP))
