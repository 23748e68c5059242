# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The licence heartbeat's tries are on record."""

from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from standin_process import Site


def outcomes(output: str) -> list[str]:
    return re.findall(r"license-heartbeat url=\S+ outcome=(.*)", output)


def test_a_failed_try_blocks_nobody(site: Site) -> None:
    with site.service("api", LICENSE_SERVER_URL="http://license.invalid/heartbeat") as api:
        deadline = time.monotonic() + 15
        while not outcomes(api.output) and time.monotonic() < deadline:
            assert api.status("/api/v1/secrets/1") == 200
        assert outcomes(api.output)[0].startswith("failed")
        last = api.request("/api/v1/health/system").data["license"]["heartbeat"]
        assert last["outcome"].startswith("failed")


def test_a_reached_server_is_recorded_each_time(site: Site) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/heartbeat"
    with site.service("api", LICENSE_SERVER_URL=url, MAZEVAULT_LICENSE_INTERVAL="0.2") as api:
        deadline = time.monotonic() + 10
        while len(outcomes(api.output)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert outcomes(api.output)[:3] == ["reached (204)"] * 3
    server.shutdown()
    server.server_close()


def test_a_silent_server_does_not_delay_the_stop(site: Site) -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    url = f"http://127.0.0.1:{server.server_address[1]}/heartbeat"
    api = site.service("api", LICENSE_SERVER_URL=url)
    assert api.start() < 2
    assert api.stop() < 1
    server.server_close()


def test_switched_off(site: Site) -> None:
    with site.service("api", ENABLE_LICENSE_CHECK="false") as api:
        time.sleep(0.5)
        assert not outcomes(api.output)
