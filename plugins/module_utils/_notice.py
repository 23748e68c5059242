# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is told of a scheduled job that failed: words, a digest to know it again, nothing secret. Pure."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock

LINES, WIDTH = 30, 500
# Results of this collection hold no secret; what somebody's own plugin or inventory says isn't trusted as far.
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), "(a key)"),
    (re.compile(r"(?i)(://[^/\s:@]+:)[^/\s@]+@"), r"\1(left out)@"),
    (re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"), r"\1 (left out)"),
    (
        re.compile(
            r"(?i)([\"']?\b\w*(?:pass(?:word|phrase)|secret|token|api_?key|master_key)\w*[\"']? *[=:] *)[^\s,}]+"
        ),
        r"\1(left out)",
    ),
)


@dataclass(frozen=True)
class Notice:
    """One message.

    Attributes:
        event: `failed` or `test`.
        facts: for machines.
    """

    event: str
    subject: str
    lines: tuple[str, ...]
    facts: t.Mapping[str, t.Any]

    @property
    def body(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def digest(self) -> str:
        """The same for the same failure at another time."""
        said = [re.sub(r"\d+", "#", line) for line in self.facts["lines"]]
        return hashlib.sha256(json.dumps([self.facts["job"], self.facts["rc"], said]).encode()).hexdigest()

    def as_json(self) -> dict[str, t.Any]:
        """`text` is what chat programs show."""
        text = "\n".join([self.subject, *self.lines])
        return {"source": "mazevault.backup", "event": self.event, "text": text, **self.facts}


def discreet(text: str) -> str:
    """One line without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:WIDTH]


def notice_of(job: str | None, report: t.Mapping[str, t.Any] | None, *, node: str, now: dt.datetime) -> Notice:
    """What to say.

    Args:
        job: None is a test.
        report: what the job left behind; None: nothing.
    """
    if job is None:
        test_lines = (
            f"Sent from {node} at {_clock.rfc3339(now)}.",
            "It is a test: nothing failed. Whoever gets this is told when a scheduled job of mazevault.backup fails,",
            "and when status.yml finds that a promise is missed.",
        )
        facts: dict[str, t.Any] = {"job": None, "node": node, "rc": None, "started": None, "ended": None, "lines": []}
        return Notice("test", f"MazeVault backup: test from {node}", test_lines, facts)
    known = report if report is not None and report.get("job") == job else {}
    node = discreet(str(known.get("node") or node))
    said = [discreet(str(line)) for line in known.get("lines") or ()][:LINES]
    if not known.get("ended"):
        said = ["it ended without a word: it was killed, or the machine went down"]
    title = discreet(str(known.get("title") or job))
    facts = {
        "job": job,
        "node": node,
        "rc": known.get("rc"),
        "started": known.get("started"),
        "ended": known.get("ended"),
        "lines": said,
    }
    lines = (
        f"Job: {job} ({title}), on {node}",
        f"Started: {facts['started'] or 'not known'}",
        f"Ended: {facts['ended'] or 'not known'}, exit status {'not known' if facts['rc'] is None else facts['rc']}",
        "",
        "What it said:",
        *(f"  {line}" for line in said),
        "",
        f"Log: {discreet(str(known.get('log') or 'not known'))} on {node}",
    )
    return Notice("failed", f"MazeVault backup: FAILED: {title} on {node}", lines, facts)


def told_before(memory: t.Mapping[str, t.Any], notice: Notice, *, now: dt.datetime, repeat_after: float) -> list[str]:
    """Ways by which this was told so lately that it isn't told again."""
    if notice.event == "test" or memory.get("digest") != notice.digest:
        return []
    try:
        age = (now - _clock.parse(str(memory["at"]))).total_seconds()
    except (KeyError, ValueError, TypeError):
        return []
    return [str(way) for way in memory.get("ways") or ()] if 0 <= age < repeat_after else []
