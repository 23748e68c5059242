# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration from the environment, under the product's names where it has one."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError


def text(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


def required(*names: str) -> str:
    """The first of these that is set."""
    for name in names:
        if value := text(name):
            return value
    raise UsageError(f"{names[0]} is not set")


def flag(name: str, default: bool) -> bool:
    word = text(name, str(default)).lower()
    if word not in ("true", "false", "1", "0"):
        raise UsageError(f"{name} must be true or false")
    return word in ("true", "1")


def number(name: str, default: float) -> float:
    try:
        value = float(text(name, str(default)))
    except ValueError:
        value = -1
    if value < 0:
        raise UsageError(f"{name} must be a number, not negative")
    return value


def address(name: str, default: str) -> tuple[str, int]:
    host, _colon, port = text(name, default).rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{name} must be host:port")
    return host or "0.0.0.0", int(port)


def database_url() -> str:
    return required("DATABASE_URL", "DB_CONNECTION")


def master_key() -> str:
    return required("MAZEVAULT_MASTER_KEY")


def tls_files() -> tuple[Path, Path] | None:
    if not flag("MAZEVAULT_TLS_ENABLED", False):
        return None
    return Path(required("MAZEVAULT_TLS_CERT")), Path(required("MAZEVAULT_TLS_KEY"))


def release_schema() -> int | None:
    """Imitates an older release: migrations above this number are unknown to it."""
    return int(number("MAZEVAULT_RELEASE_SCHEMA", 0)) or None
