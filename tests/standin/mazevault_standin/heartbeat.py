# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The licence heartbeat: tries to leave the network and says what came of it."""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException

from .database import first_line

LOG = logging.getLogger("mazevault.license")


@dataclass(frozen=True)
class Try:
    at: str
    outcome: str


class Heartbeat:
    """Runs in a daemon thread; whatever happens there, the application goes on."""

    def __init__(self, url: str, interval: float) -> None:
        self._url = url
        self._interval = max(interval, 0.1)
        # Straight to the address: a proxy from the environment would hide the attempt.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.last: Try | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="license-heartbeat", daemon=True).start()

    def attempt(self) -> Try:
        try:
            with self._opener.open(urllib.request.Request(self._url, data=b"{}", method="POST"), timeout=5) as reply:
                outcome = f"reached ({reply.status})"
        except urllib.error.HTTPError as error:
            outcome = f"reached ({error.code})"
        except (OSError, HTTPException, ValueError) as error:
            outcome = f"failed ({first_line(error)})"
        self.last = Try(datetime.now(UTC).isoformat(timespec="seconds"), outcome)
        LOG.info("license-heartbeat url=%s outcome=%s", self._url, outcome)
        return self.last

    def _run(self) -> None:
        while True:
            self.attempt()
            time.sleep(self._interval)
