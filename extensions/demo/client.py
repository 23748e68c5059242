# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of the application: reads secrets through the API, and notes when it gets no answer."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import threading
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.1


@dataclass(frozen=True)
class Client:
    """One user with an API token."""

    port: int
    token_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, t.Any]:
        """Status and parsed answer; status 0 when nobody answers."""
        token = self.token_file.read_text().strip() if self.token_file.exists() else ""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    def wait_until_healthy(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.get("/health")[0] != 200:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def secret_ids(self) -> list[int]:
        return [int(entry["id"]) for entry in self.get("/secrets?limit=1000")[1]["data"]]

    def read(self, secret: int) -> str:
        """The value's fingerprint, or the refusal: the value itself is forgotten at once."""
        status, body = self.get(f"/secrets/{secret}")
        if status == 200:
            return hashlib.sha256(body["value"].encode()).hexdigest()
        return f"{status} {body['error'] if isinstance(body, dict) else 'no answer'}"


@dataclass
class Watch:
    """Reads one secret again and again, in the background; every answer has to be the value that was there first."""

    client: Client
    secret: int
    _answers: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def longest_gap(self, since: float) -> float:
        """The longest time without a good answer, in seconds on time.monotonic()'s clock."""
        moments = [since, *(moment for moment in self._answers if moment > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def _watch(self) -> None:
        value = self.client.read(self.secret)
        while not self._stop.wait(EVERY):
            if self.client.read(self.secret) == value:
                self._answers.append(time.monotonic())
