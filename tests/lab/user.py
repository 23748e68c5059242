# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of a host's MazeVault who never rest, and know what they were answered and when."""

from __future__ import annotations

import abc
import itertools
import threading
import time
import typing as t
from dataclasses import dataclass

from .client import Client
from .process import wait_for

SECRET = 1
PROJECT = 1


@dataclass(frozen=True)
class Answer:
    """One request; times are time.monotonic()."""

    number: int
    asked: float
    came: float
    good: bool


class User(abc.ABC):
    """Asks again and again, in a thread of its own."""

    def __init__(self, client: Client, *, pause: float) -> None:
        self.client = client
        self._pause = pause
        self._answers: list[Answer] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> t.Self:
        self._thread.start()
        self.wait_for_good()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    @property
    def answers(self) -> list[Answer]:
        return list(self._answers)

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.good]

    def wait_for_good(self, count: int = 3, *, seconds: float = 60) -> None:
        """Until so many more requests were answered as they should be."""
        goal = len(self.good) + count
        wait_for(f"{self.client.address}: {count} good answers", lambda: len(self.good) >= goal, seconds)

    def interruption(self, since: float) -> float:
        """The longest time without a good answer since then."""
        times = [answer.came for answer in self.good]
        return max((after - before for before, after in itertools.pairwise(times) if after > since), default=0.0)

    def _loop(self) -> None:
        for number in itertools.count():
            if self._stopping.is_set():
                return
            asked = time.monotonic()
            good = self.ask(number)
            self._answers.append(Answer(number, asked, time.monotonic(), good))
            self._stopping.wait(self._pause)

    @abc.abstractmethod
    def ask(self, number: int) -> bool:
        """Whether the request was answered as it should be."""


class Reader(User):
    """Reads one secret, which is good when it comes back decrypted."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, pause=0.02)
        status, secret = client.get(f"/secrets/{SECRET}")
        if status != 200:
            raise AssertionError(f"secret {SECRET}: {status} {secret}")
        self.value = str(secret["value"])

    def ask(self, number: int) -> bool:
        status, secret = self.client.get(f"/secrets/{SECRET}")
        return status == 200 and secret.get("value") == self.value


class Writer(User):
    """Makes one secret after the other; good is what was acknowledged."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, pause=0.1)
        self._mark = f"written-{time.time_ns()}"

    def ask(self, number: int) -> bool:
        status, _secret = self.client.post("/secrets", {"project_id": PROJECT, "key": self.key(number), "value": "v"})
        return status == 201

    def key(self, number: int) -> str:
        return f"{self._mark}-{number}"

    def acknowledged(self, before: float = float("inf")) -> set[str]:
        """Keys of what was acknowledged before a moment."""
        return {self.key(answer.number) for answer in self.good if answer.came < before}
