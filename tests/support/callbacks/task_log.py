# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test equipment: writes what every task did to the file that TASK_LOG names, one JSON line each."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_log
type: notification
short_description: Writes what every task did to the file that TASK_LOG names
description: Test equipment.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "task_log"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, outcome: str, result: t.Any) -> None:
        found = result.result if hasattr(result, "result") else result._result
        line = {
            "task": result.task.get_name().partition(" : ")[2] or result.task.get_name(),
            "action": result.task.action,
            "host": result.host.get_name(),
            "outcome": outcome,
            "changed": bool(found.get("changed")),
            "result": json.loads(json.dumps(found, default=str)),
        }
        with open(os.environ["TASK_LOG"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._write("ok", result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._write("skipped", result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._write("failed", result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._write("unreachable", result)
