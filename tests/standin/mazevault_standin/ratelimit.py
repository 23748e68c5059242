# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit of requests a minute for each client."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from .web import HttpError

WINDOW = 60.0


class RateLimiter:
    """Fixed windows that begin with a client's first request; a limit of 0 lets all pass."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._clock = clock
        self._windows: dict[int, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def admit(self, client: int) -> dict[str, str]:
        """The headers to send, or HttpError 429."""
        if not self._limit:
            return {}
        now = self._clock()
        with self._lock:
            begin, used = self._windows.get(client, (now, 0))
            if now - begin >= WINDOW:
                begin, used = now, 0
            used += 1
            self._windows[client] = (begin, used)
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - used)),
            "X-RateLimit-Reset": str(math.ceil(begin + WINDOW)),
        }
        if used > self._limit:
            headers["Retry-After"] = str(max(1, math.ceil(begin + WINDOW - now)))
            raise HttpError(429, "rate limit exceeded", f"{self._limit} requests a minute", headers)
        return headers
