# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that take what is sent to them and keep it: mail (SMTP, STARTTLS, AUTH) and HTTP, each in a thread.

They listen on this machine alone, unless another of its addresses is named.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import socket
import socketserver
import ssl
import subprocess
import threading
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """A key and a certificate of this machine that is its own authority."""

    key: Path
    certificate: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def certificate_of_localhost(folder: Path, *addresses: str) -> Certificate:
    """Good for further addresses of this machine, too."""
    found = Certificate(folder / "server.key", folder / "server.crt")
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ",".join(["DNS:localhost", *(f"IP:{address}" for address in addresses)])
    words += ["-addext", f"subjectAltName={names}", "-keyout", str(found.key), "-out", str(found.certificate)]
    subprocess.run(["openssl", "req", "-x509", *words], check=True, capture_output=True)
    return found


@dataclass
class Mailbox:
    """What a mail server got.

    Attributes:
        accounts: (user, password) that were told, over TLS or not.
        secure: whether each message came over TLS.
    """

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    accounts: list[tuple[str, str]] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)
    password: str | None = None
    refuse: str = ""


class _Session(socketserver.StreamRequestHandler):
    """RFC 5321 as far as smtplib needs it."""

    box: Mailbox
    tls: ssl.SSLContext | None
    timeout = 20

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")
        self.wfile.flush()

    def line(self) -> str:
        return self.rfile.readline(4096).decode("ascii", "replace").rstrip("\r\n")

    def handle(self) -> None:
        secure, recipients = False, []
        self.say("220 localhost test")
        while said := self.line():
            verb, _space, rest = said.partition(" ")
            verb = verb.upper()
            if verb == "EHLO":
                offers = ["localhost", *(["STARTTLS"] if self.tls and not secure else []), "AUTH PLAIN", "8BITMIME"]
                for offer in offers[:-1]:
                    self.say(f"250-{offer}")
                self.say(f"250 {offers[-1]}")
            elif verb == "STARTTLS" and self.tls:
                self.say("220 go ahead")
                self.connection = self.tls.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb")
                secure = True
            elif verb == "AUTH":
                coded = rest.partition(" ")[2] or self._asked()
                _none, user, password = base64.b64decode(coded).decode().split("\0")
                self.box.accounts.append((user, password))
                good = self.box.password in (None, password)
                self.say("235 welcome" if good else f"535 no, {password} isn't it")
            elif verb == "RCPT":
                refused = bool(self.box.refuse) and self.box.refuse in rest
                recipients += [] if refused else [rest]
                self.say("550 unknown" if refused else "250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                self._take(secure, recipients)
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def _asked(self) -> str:
        self.say("334 ")
        return self.line()

    def _take(self, secure: bool, recipients: list[str]) -> None:
        lines = []
        while (line := self.rfile.readline(65536)) != b".\r\n":
            lines.append(line[1:] if line.startswith(b"..") else line)
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        self.box.messages.append(message)
        self.box.recipients.append(recipients)
        self.box.secure.append(secure)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that breaks off isn't worth a traceback on the test's output."""


@contextlib.contextmanager
def mail_server(
    certificate: Certificate | None = None, *, password: str | None = None, address: str = HERE
) -> Iterator[Mailbox]:
    box = Mailbox(password=password)
    tls = certificate.context() if certificate else None
    with _serving(_Server((address, 0), type("Session", (_Session,), {"box": box, "tls": tls}))) as port:
        box.port = port
        yield box


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hook:
    """What an HTTP server got; it answers with `status`."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    status: int = 200
    location: str = ""


@contextlib.contextmanager
def http_server(certificate: Certificate | None = None, *, address: str = HERE) -> Iterator[Hook]:
    hook = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hook.requests.append(Request(self.path, dict(self.headers), body))
            self.send_response(hook.status)
            if hook.location:
                self.send_header("Location", hook.location)
            self.end_headers()

        def log_message(self, *words: t.Any) -> None:
            """Nothing on the test's output."""

    server = _Server((address, 0), Handler)
    if certificate:
        server.socket = certificate.context().wrap_socket(server.socket, server_side=True)
    with _serving(server) as port:
        hook.url = f"{'https' if certificate else 'http'}://{'localhost' if address == HERE else address}:{port}"
        yield hook


@contextlib.contextmanager
def _serving(server: _Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def nobodys_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        return int(taken.getsockname()[1])
