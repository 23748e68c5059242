# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Who else can know of a witness's line: a time stamp authority (RFC 3161, by openssl ts) and syslog."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import socket
import tempfile
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, ProcessRunner
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import PASS, UNPROVEN

Post = t.Callable[[str, bytes], bytes]
_LARGEST = 1 << 20


def ask(
    digest: str, url: str, ca: str, out: str, post: Post, *, processes: ProcessRunner | None = None
) -> dict[str, t.Any]:
    """Ask an authority to stamp a SHA-256, keep its reply in `out`, and verify it.

    Args:
        ca: file with the authority's CA certificates; without one the reply is kept and unproven.
        post: sends a query, returns the reply.
    Returns:
        `verdict`, `reason`, `time` as the authority says it, `file`.
    """
    runner = processes or HostProcesses()
    with tempfile.TemporaryDirectory(prefix="mazevault-stamp-") as folder:
        query = os.path.join(folder, "query")
        runner.run(["openssl", "ts", "-query", "-digest", digest, "-sha256", "-cert", "-out", query]).check(
            "time stamp: query", hint="Install openssl."
        )
        with open(query, "rb") as stream:
            reply = post(url, stream.read())
    if len(reply) > _LARGEST:
        raise BackupError(f"tsa_url: {url}: a reply of {len(reply)} bytes", hint="That is no time stamp.")
    write_file(out, reply)
    shown = runner.run(["openssl", "ts", "-reply", "-in", out, "-text"])
    found = re.search(r"^Time stamp: (.+)$", shown.stdout, re.MULTILINE)
    said = {"time": found[1] if found else None, "file": out}
    if not ca:
        return {**said, "verdict": UNPROVEN, "reason": "kept, but not verified: no CA certificates are given (tsa_ca)"}
    done = runner.run(["openssl", "ts", "-verify", "-digest", digest, "-in", out, "-CAfile", ca])
    if done.rc != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["openssl refused it"]
        return {
            **said,
            "verdict": UNPROVEN,
            "reason": f"the reply doesn't verify: {lines[-1].rpartition(':')[2] or lines[-1]}",
        }
    return {**said, "verdict": PASS, "reason": ""}


def tell_syslog(address: str, text: str) -> None:
    """Send one message to a socket (a path) or to `host` or `host:port` (UDP).

    Raises:
        BackupError: it can't be sent. That an UDP message arrives, nobody can know.
    """
    where: str | tuple[str, int] = address
    if not address.startswith("/"):
        host, _colon, port = address.rpartition(":")
        if not host:
            host, port = address, "514"
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise BackupError(f"syslog: {address}: no such port", hint="Give HOST, HOST:PORT or a socket's path.")
        where = (host.strip("[]"), int(port))
    try:
        handler = _Handler(where, _Handler.LOG_AUTH, socktype=socket.SOCK_DGRAM)
    except OSError as exc:
        raise BackupError(f"syslog: {address}: {exc.strerror or exc}", hint="See to the address.") from exc
    try:
        handler.emit(logging.LogRecord("mazevault", logging.NOTSET, "", 0, text, None, None))
    finally:
        handler.close()
    if handler.failed:
        raise BackupError(f"syslog: {address}: nobody takes the message", hint="See to the address.")


class _Handler(logging.handlers.SysLogHandler):
    """The library's own prints errors and goes on; here they are wanted."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the library's
        self.failed = True
