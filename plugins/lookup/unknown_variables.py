# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import difflib
import glob
import os
import typing as t

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase

PREFIX = "mazevault_"
# What playbooks hand to schedulers and workflows comes back as variables of the next run.
RESULT_PREFIX = "mazevault_result_"


def known_variables(load: t.Callable[[str], t.Any]) -> dict[str, dict[str, t.Any]]:
    """The options of every entry point of every role beside this plugin, by role and as each role has them."""
    roles = os.path.join(os.path.dirname(__file__), "..", "..", "roles")
    found: dict[str, dict[str, t.Any]] = {}
    for path in sorted(glob.glob(os.path.join(roles, "*", "meta", "argument_specs.yml"))):
        for entry in load(path)["argument_specs"].values():
            found.update(entry.get("options") or {})
    return found


class LookupModule(LookupBase):
    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        known = known_variables((self._loader or DataLoader()).load_from_file)
        unknown = sorted(
            name
            for name in variables or {}
            if name.startswith(PREFIX) and not name.startswith(RESULT_PREFIX) and name not in known
        )
        answers = []
        for name in unknown:
            close = difflib.get_close_matches(name, known, n=1)
            answers.append(f"{name} (did you mean {close[0]}?)" if close else name)
        return answers
