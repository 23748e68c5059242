# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run side by side, and what the run says at its end."""

from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from support.flow import FULL

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


class OneWorkerEach(LoadScopeScheduling):
    """A file's tests share their servers, and all the lab's tests share its hosts: each of these is one worker's."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "lab" if path.startswith("tests/lab/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWorkerEach:
    return OneWorkerEach(config, log)


# What the same tests are repeated for: servers, ways of encryption, ways of leaving a question unanswered.
_REPEATED = re.compile(r"(?<=[\[-])(?:pg\d+|cms|age|null|empty text)(?=[\]-])")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A sample of what takes long: a file's tests for one of these, by the file's name, so that each is met by some."""
    if FULL:
        return
    same: dict[str, list[pytest.Item]] = {}
    for item in items:
        same.setdefault(_REPEATED.sub("", item.nodeid), []).append(item)
    turns = {name: zlib.crc32(name.partition("::")[0].encode()) for name in same}
    kept = {id(alike[turns[name] % len(alike)]) for name, alike in same.items()}
    left_out = [item for item in items if id(item) not in kept]
    if left_out:
        items[:] = [item for item in items if id(item) in kept]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests recorded: the moments that were struck, the seconds that were measured."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {name}: {value}"
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("recorded")
        for line in lines:
            terminalreporter.write_line(line)
