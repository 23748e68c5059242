# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small threaded HTTP server for both services."""

from __future__ import annotations

import json
import logging
import signal
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from .errors import DatabaseUnavailable, UsageError

LOG = logging.getLogger("mazevault")
MAX_BODY = 1 << 20


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    authorization: str
    body: bytes

    def json(self) -> dict[str, object]:
        try:
            data = json.loads(self.body or b"{}")
        except ValueError:
            raise HttpError(400, "bad request", "the body is not JSON") from None
        if not isinstance(data, dict):
            raise HttpError(400, "bad request", "the body is not a JSON object")
        return data


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class HttpError(Exception):
    def __init__(self, status: int, error: str, details: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.response = json_response({"error": error, "details": details}, status, headers)


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, json.dumps(data).encode(), headers=headers or {})


def answer(respond: Callable[[Request], Response], request: Request) -> Response:
    try:
        return respond(request)
    except HttpError as error:
        return error.response
    except DatabaseUnavailable as error:
        return HttpError(503, "service unavailable", str(error)).response
    except Exception:
        LOG.exception("request failed: %s %s", request.method, request.path)
        return HttpError(500, "internal error", "see the log").response


def build_server(
    address: tuple[str, int], respond: Callable[[Request], Response], tls_files: tuple[Path, Path] | None = None
) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "mazevault-standin"
        disable_nagle_algorithm = True
        timeout = 60

        def _serve(self) -> None:
            started = time.monotonic()
            length = self.headers.get("Content-Length") or "0"
            if not length.isdigit() or int(length) > MAX_BODY:
                self.send_error(413)
                return
            parts = urlsplit(self.path)
            request = Request(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                self.headers.get("Authorization", ""),
                self.rfile.read(int(length)),
            )
            response = answer(respond, request)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)
            milliseconds = (time.monotonic() - started) * 1000
            LOG.info("%s %s %d %.1fms", self.command, parts.path, response.status, milliseconds)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_args: object) -> None:
            """Said once, by _serve."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def server_bind(self) -> None:
            # HTTPServer would look its own name up, which hangs where there is no name server.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = address

        def handle_error(self, request: object, client_address: object) -> None:
            LOG.info("connection from %s ended early", client_address)

    try:
        server = Server(address, Handler)
        if tls_files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls_files)
            # The handshake happens in the connection's own thread, at its first read.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    except OSError as error:
        raise UsageError(f"cannot listen on {address[0]}:{address[1]}: {error}") from None
    return server


def stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def serve(server: ThreadingHTTPServer, stop: threading.Event) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    LOG.info("listening on %s:%d", *server.server_address[:2])
    stop.wait()
    server.shutdown()
    server.server_close()
    LOG.info("stopped")
