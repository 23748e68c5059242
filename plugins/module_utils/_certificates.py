# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which certificates lie in files, until when they are valid, and whose they are."""

from __future__ import annotations

import os
import re
import stat
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime

_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.S
)
# Nobody wants the whole world's in a manifest.
MOST = 400
_BUNDLE = 40
_LARGEST = 4 << 20
_HOST = HostRuntime()


@dataclass(frozen=True)
class Certificate:
    """One certificate in a file.

    Attributes:
        sha256: of the certificate, not of the file.
        not_after: RFC 3339, UTC.
    """

    path: str
    subject: str
    not_after: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def certificates_in(paths: t.Iterable[str]) -> list[Certificate]:
    """Of PEM files, at most MOST; what openssl doesn't take for a certificate is none.

    A file with very many is a bundle of public authorities, whose ends are nobody's business here.
    """
    found: list[Certificate] = []
    for path in paths:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST:
            continue
        with open(path, "rb") as stream:
            blocks = _PEM.findall(stream.read())
        for block in blocks if len(blocks) <= _BUNDLE else ():
            read = _read(path, block)
            found += [read] if read else []
            if len(found) >= MOST:
                return found
    return found


def _read(path: str, block: bytes) -> Certificate | None:
    words = ["-noout", "-subject", "-nameopt", "RFC2253", "-enddate", "-dateopt", "iso_8601", "-fingerprint", "-sha256"]
    done = _HOST.processes.run([_HOST.program("openssl"), "x509", *words], stdin=block, timeout=30)
    subject = re.search(r"(?m)^subject=\s*(.*)$", done.stdout)
    end = re.search(r"(?m)^notAfter=(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)Z$", done.stdout)
    digest = re.search(r"(?im)^sha256 Fingerprint=([0-9A-F:]+)$", done.stdout)
    if done.rc or subject is None or end is None or digest is None:
        return None
    return Certificate(path, subject[1], f"{end[1]}T{end[2]}.000000Z", digest[1].replace(":", "").lower())
