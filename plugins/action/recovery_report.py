# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import typing as t

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Of the line's last word; Ansible colours nothing unless it writes to a terminal.
COLOURS = {"PASS": "green", "FAIL": "red", "UNPROVEN": "yellow"}


class ActionModule(ActionBase):
    """Runs the module and prints its table, which a module can't; a result is printed with quotes and escapes."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        if boolean(self._task.args.get("show", True), strict=False):
            display = Display()
            for line in result.get("table") or ():
                display.display(str(line), color=COLOURS.get(str(line).rpartition(" ")[2].upper()))
        return result
