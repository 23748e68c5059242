# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of a host's MazeVault, from outside the host."""

from __future__ import annotations

import http.client
import json
import ssl
import typing as t
from dataclasses import dataclass
from pathlib import Path

from .hosts import Host
from .place import Place

PORT = 8443


@dataclass(frozen=True)
class Client:
    """Without an authority's certificate it takes any server for the right one."""

    address: str
    authority: Path | None = None
    token_file: Path | None = None

    @classmethod
    def of(cls, place: Place, host: Host) -> Client:
        folder = place.of_host(host.name)
        return cls(str(place.address(host.number)), folder / "ca.crt", folder / "api-token")

    def get(self, path: str) -> tuple[int, t.Any]:
        """Status and parsed answer; status 0 when nobody answers, or not the right one."""
        return self._ask("GET", path)

    def post(self, path: str, data: t.Mapping[str, t.Any]) -> tuple[int, t.Any]:
        return self._ask("POST", path, json.dumps(data))

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, t.Any]:
        connection = http.client.HTTPSConnection(self.address, PORT, timeout=5, context=self._context())
        try:
            connection.request(method, f"/api/v1{path}", body, self._headers())
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    def healthy(self) -> bool:
        status, body = self.get("/health")
        return status == 200 and isinstance(body, dict) and body.get("status") == "healthy"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"} if self.token_file else {}

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if self.authority is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
