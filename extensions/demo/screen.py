# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prints, and how long each step took."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

WIDTH = 118
BOLD, DIM, RED, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[0m"


class Screen:
    """Plain lines; colours and a line of progress only on a terminal."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._terminal = sys.stdout.isatty()
        self._colours = self._terminal and not os.environ.get("NO_COLOR")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        print(f"\n{self._in(BOLD, f'{len(self.seconds) + 1}. {title}')}", flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            self._forget_progress()
            self.seconds[title] = time.monotonic() - started
        print(self._in(DIM, f"   {self.seconds[title]:.1f} s"), flush=True)

    def say(self, text: str, *, hang: str = "") -> None:
        """A paragraph, folded; further lines begin with `hang`."""
        self._forget_progress()
        for line in textwrap.wrap(
            text, WIDTH - 3, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
        ):
            print(f"   {line}", flush=True)

    def show(self, text: str) -> None:
        """Lines as they are."""
        self._forget_progress()
        print(textwrap.indent(text.rstrip(), "     "), flush=True)

    def command(self, *words: str) -> None:
        self.say(self._in(BOLD, f"$ {' '.join(words)}"), hang="    ")

    def progress(self, text: str) -> None:
        """One line that the next one replaces."""
        if self._terminal:
            room = shutil.get_terminal_size().columns - 6
            print(f"\r\033[K   {self._in(DIM, text[:room])}", end="", flush=True)

    def fail(self, text: str) -> None:
        self._forget_progress()
        print(self._in(RED, text), file=sys.stderr, flush=True)

    def _forget_progress(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", flush=True)

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self._colours else text
