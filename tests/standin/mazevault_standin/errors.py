# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that end a command, with their exit codes."""

from __future__ import annotations


class StandinError(Exception):
    """One clear line on stderr and an exit code of its own."""

    exit_code = 1


class UsageError(StandinError):
    exit_code = 2


class WrongMasterKey(StandinError):
    exit_code = 3


class SchemaError(StandinError):
    exit_code = 4


class DatabaseUnavailable(StandinError):
    exit_code = 5
