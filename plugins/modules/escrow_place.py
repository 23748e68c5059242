#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_place
short_description: Look at a place that holds one half of the escrow on another host, and heal it
version_added: 0.1.0
description:
  - Runs on the host of the place, which needs Python and nothing else, under an account that may write to that folder
    and nowhere else. It decrypts nothing, and has nothing to decrypt with.
  - Compares the folder with what M(mazevault.backup.escrow) says has to be there, and takes the copies that are handed
    over. The folder gets the same mark as a place on the installation's own host.
  - A file that lies in the stead of a copy is kept under another name, and nothing is ever removed. So an installation
    that somebody has taken over can't make its former keys go.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(looked) compares only. V(healed) writes what is in O(contents) where a copy isn't whole. V(given) hands copies
        back, for a restore, or for a host that has lost its own ones.
    type: str
    default: looked
    choices: [looked, healed, given]
  path:
    description: The folder. It has to be there.
    type: path
    required: true
  half:
    description: The half that it holds.
    type: str
    required: true
    choices: [vault, key]
  installation:
    description: Name of the installation whose keys these are.
    type: str
    required: true
  known_as:
    description: Id that the place had last. With it a folder without its mark is refused, as it may be a missing mount.
    type: str
    default: ""
  fresh:
    description: The folder is a new medium in the place of a known one.
    type: bool
    default: false
  copies:
    description: What has to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The file's name.
        type: str
        required: true
      bytes:
        description: Its size.
        type: int
        required: true
      sha256:
        description: Its SHA-256.
        type: str
        required: true
  contents:
    description: Files in base64 by name, as M(mazevault.backup.escrow_bundles) hands them over.
    type: dict
    default: {}
  names:
    description: With O(state=given) the files that are wanted. Unset means all, as far as they fit into one run.
    type: list
    elements: str
    default: []
  generation:
    description: With O(state=given) the generation whose files come first.
    type: str
    default: latest
seealso:
  - module: mazevault.backup.escrow
  - module: mazevault.backup.escrow_bundles
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Is all there that has to be there?
  mazevault.backup.escrow_place:
    path: /srv/escrow/prague
    half: key
    installation: prague
    copies: "{{ kept.away[0].copies }}"
    known_as: "{{ kept.away[0].known_as }}"
  delegate_to: key-escrow-1
  register: looked
"""

RETURN = r"""
place_id:
  description: Id in the place's mark, or empty.
  type: str
  returned: success
wrong:
  description: Names of copies that weren't what they have to be, each with the reason.
  type: dict
  returned: success
healed:
  description: Names of those that were written.
  type: list
  elements: str
  returned: success
whole:
  description: SHA-256 by name of all copies that are whole now.
  type: dict
  returned: success
problem:
  description: Why the place can't be used, or empty.
  type: str
  returned: success
contents:
  description: With O(state=given) files in base64 by name.
  type: dict
  returned: success
left:
  description: With O(state=given) names that didn't fit.
  type: list
  elements: str
  returned: success
"""

import contextlib
import json
import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _escrow_looks, _escrow_place, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import Copy, Look, is_index, stamp_in
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, locked

LOCK = ".mazevault-escrow.lock"


def _copies(params: dict[str, t.Any]) -> list[Copy]:
    for one in params["copies"]:
        if not stamp_in(one["name"]):
            raise BackupError(f"copies: {one['name'][:80]!r}: not the name of a bundle or an index")
    return [Copy(one["name"], one["bytes"], one["sha256"]) for one in params["copies"]]


def _look(params: dict[str, t.Any], copies: list[Copy]) -> Look:
    more = {"known_as": params["known_as"], "fresh": params["fresh"]}
    return _escrow_place.look(params["path"], params["half"], copies, installation=params["installation"], **more)


def _compared(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    copies, contents = _copies(params), _escrow_looks.decoded(params["contents"], "contents")
    wants = params["state"] == "healed"
    found = _look(params, copies)
    would = [name for name in found.wrong if name in contents]
    would_mark = wants and not found.problem and not found.place_id
    complete = not found.problem
    if wants and complete and not module.check_mode:
        try:
            # Another run's work is waited for, and then looked at: it may have done this one's.
            with locked(os.path.join(params["path"], LOCK)):
                found = _look(params, copies)
                complete = not found.problem
                if complete:
                    _escrow_place.heal(
                        found,
                        contents.get,
                        copies,
                        installation=params["installation"],
                        progress=Progress(),
                        aside=True,
                    )
        except OSError as exc:
            found.problem = f"{exc.filename or params['path']}: {exc.strerror or exc}"
    unlike = set(found.wrong) - set(found.healed)
    changed = (bool(found.healed) or would_mark) if not module.check_mode else (wants and bool(would or would_mark))
    return {
        "changed": changed,
        "place_id": found.place_id,
        "wrong": found.wrong,
        "healed": found.healed,
        "whole": {copy.name: copy.sha256 for copy in copies if copy.name not in unlike} if complete else {},
        "problem": found.problem,
        "contents": {},
        "left": [],
        "diff": {
            "before": "".join(f"{params['path']}/{name}: {why}\n" for name, why in found.wrong.items()),
            "after": "".join(f"{params['path']}/{name}: whole\n" for name in found.healed or (would if wants else ())),
        },
    }


def _there(path: str) -> dict[str, int]:
    """Our files by name, with their sizes; a link isn't followed."""
    found = {}
    for name in sorted(os.listdir(path)):
        info = os.lstat(os.path.join(path, name))
        if stamp_in(name) and stat.S_ISREG(info.st_mode):
            found[name] = info.st_size
    return found


def _generation_of(path: str, stamp: str) -> str:
    """As the index says; whether it may be believed is for who gets it."""
    name = os.path.join(path, f"escrow.{stamp}.json")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), open(name, encoding="utf-8") as stream:
        return str(json.load(stream)["generation"])
    return ""


def _given(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    path = params["path"]
    contents: dict[str, bytes] = {}
    later: list[str] = []
    problem = ""
    try:
        sizes = _there(path)
        stamps = {stamp: _generation_of(path, stamp) for stamp in sorted({stamp_in(name) for name in sizes})}

        def rank(name: str) -> tuple[bool, bool, int]:
            stamp = stamp_in(name)
            return not is_index(name), stamps[stamp] != params["generation"], -list(stamps).index(stamp)

        names = [name for name in params["names"] if name in sizes] if params["names"] else sorted(sizes, key=rank)
        now, later = _escrow_looks.carried(names, lambda name: sizes[name])
        for name in now:
            with open(os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
                contents[name] = stream.read()
    except OSError as exc:
        problem = f"{exc.filename or path}: {exc.strerror or exc}"
    return {
        "changed": False,
        "place_id": "",
        "wrong": {},
        "healed": [],
        "whole": {},
        "problem": problem,
        "contents": _escrow_looks.encoded(contents),
        "left": later,
    }


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    path = module.params["path"]
    if not os.path.isabs(path):
        raise BackupError(f"path: {path}: not an absolute path", hint="Name it from the root folder on.")
    return _given(module) if module.params["state"] == "given" else _compared(module)


def main() -> t.NoReturn:
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "looked", "choices": ["looked", "healed", "given"]},
            "path": {"type": "path", "required": True},
            "half": {"type": "str", "required": True, "choices": ["vault", "key"]},
            "installation": text,
            "known_as": {"type": "str", "default": ""},
            "fresh": {"type": "bool", "default": False},
            "copies": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": text, "bytes": {"type": "int", "required": True}, "sha256": text},
            },
            # Encrypted, but nobody needs it in a log.
            "contents": {"type": "dict", "default": {}, "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "generation": {"type": "str", "default": "latest"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
