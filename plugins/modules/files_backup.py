#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: files_backup
short_description: Save files and folders as one archive together with what proves it
version_added: 0.1.0
description:
  - Writes an archive with GNU tar in the posix format, with numeric owners, modes, times, ACLs, extended attributes,
    SELinux contexts, symlinks, hard links and sparse files. Names may be any bytes.
  - The same files with the same attributes give the same stream of tar, byte for byte.
  - What was written is read back. Every entry with its attributes and the SHA-256 of its contents goes to the private
    part of the report.
  - Sockets, fifos and device nodes are left out, and named in the report.
  - Files that change or vanish while they are read are looked for. The archive is made again a few times, then they are
    named in the report and in a warning. A file that can't be read is an error.
  - In a recovery set that is encrypted, the archive is encrypted as it is written, to the key of its O(class).
  - The archive appears under its name only when it is whole and flushed. A failed or killed run leaves nothing there.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: none
    details: Each run makes a new archive. An existing O(dest) is never overwritten, it is an error.
options:
  paths:
    description: What is saved.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - File or folder, from the root folder on. A folder is saved with all that lies in it.
          - Where this path itself leads over symlinks, what they lead to is saved. Symlinks inside are saved as such.
        type: str
        required: true
      name:
        description:
          - What it is called in the archive, V(.) for the archive's own folder.
          - Unset means the path (that of O(paths[].like) where it is set) without its first slash.
        type: str
      like:
        description:
          - A file whose owner, mode, times, ACL and extended attributes are saved with the contents of O(paths[].path).
          - So a prepared text takes the place of a file, also of one that another entry would save under the same name.
        type: str
  excludes:
    description:
      - Patterns of what is left out, with V(*), V(?) and V([...]), and all that lies below it.
      - A pattern without a slash is compared with the last part of each name, one that begins with a slash with the
        path on the host, any other with the whole name in the archive. V(*) stands for slashes too.
    type: list
    elements: str
    default: []
  dest:
    description:
      - File to make. It must not exist, its folder must, and nobody else may write there.
      - The facts that prove the archive are written beside it, to O(dest) followed by C(.json).
      - Give either this or O(backup_root) with O(set_id) and O(component).
    type: path
  backup_root:
    description: Backup root with the open recovery set that the archive becomes a part of.
    type: path
  set_id:
    description: Id of the open recovery set, as M(mazevault.backup.recovery_set) returned it.
    type: str
  component:
    description: The component that the archive belongs to. Required with O(set_id).
    type: str
    choices: [config, tls, volumes, vault, keys, kubernetes]
  name:
    description:
      - Name of the archive in its component, where this has several, such as one a volume.
      - Letters, digits, dots, dashes and underscores. Unset means the component's name.
    type: str
  class:
    description: Who may read the archive once it is encrypted, V(data) or V(keys).
    type: str
    default: data
    choices: [data, keys]
  compression:
    description:
      - V(zstd) is the zstd program with frame checksums, V(gzip) the gzip program, V(none) leaves the stream as it is.
      - V(auto) takes V(zstd) where the program is installed, else V(gzip).
    type: str
    default: auto
    choices: [auto, zstd, gzip, none]
  attempts:
    description: How often the archive is made anew while files change, from 1 to 20.
    type: int
    default: 3
  reserve:
    description:
      - Bytes that must stay free on the file system of the archive, as a number or with a unit (V(2G)).
      - Unset means 5 % of the file system, at most 5 GiB.
    type: str
notes:
  - O(backup_root), or O(dest) with its report, is left out where it lies in one of the O(paths).
  - A change through a memory map that began before the run shows in no time stamp, and so isn't noticed.
seealso:
  - module: mazevault.backup.files_restore
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Save the configuration with a prepared text in place of the file with the keys
  mazevault.backup.files_backup:
    backup_root: /opt/mazevault/backups
    set_id: mazevault_20261123_020000
    component: config
    paths:
      - path: /opt/mazevault
      - path: /run/mazevault-backup/env-without-keys
        like: /opt/mazevault/.env
    excludes:
      - "*.sock"
      - /opt/mazevault/certs

- name: Save a volume as an archive of its own
  mazevault.backup.files_backup:
    backup_root: /opt/mazevault/backups
    set_id: mazevault_20261123_020000
    component: volumes
    name: mazevault_backend_data
    paths:
      - path: /var/lib/docker/volumes/mazevault_backend_data/_data
        name: .

- name: Save a folder by hand before a change
  mazevault.backup.files_backup:
    dest: /root/before/nginx.tar.zst
    paths:
      - path: /etc/nginx
"""

RETURN = r"""
path:
  description: The archive.
  type: str
  returned: success
  sample: /opt/mazevault/backups/staging/mazevault_20261123_020000/set/config/config.tar.zst
report:
  description: File with the facts that prove the archive. It names files.
  type: str
  returned: success
recovery_point:
  description: When reading began (UTC), null in check mode.
  type: str
  returned: success
  sample: "2026-11-23T02:00:01.123456Z"
bytes:
  description: Size of the archive, null in check mode.
  type: int
  returned: success
artefacts:
  description: The archive's path, bytes, SHA-256 of the file and of the stream of tar, format, compression and class.
  type: list
  elements: dict
  returned: success
files:
  description: Public facts of the archive for the manifest, in check mode those that are known beforehand.
  type: dict
  returned: success
  contains:
    path:
      description: The archive's path in the set.
      type: str
    recovery_point:
      description: When reading began.
      type: str
    files:
      description: How many files.
      type: int
    folders:
      description: How many folders.
      type: int
    symlinks:
      description: How many symlinks.
      type: int
    hardlinks:
      description: How many other names of files.
      type: int
    size_bytes:
      description: Bytes of all files.
      type: int
    left_out:
      description: How many sockets, fifos, device nodes, excluded files and folders.
      type: int
    changed_while_read:
      description: How many changed while they were read.
      type: int
    vanished:
      description: How many vanished while they were read.
      type: int
left_out:
  description: What was left out, at most the first 100, each with name and reason.
  type: list
  elements: dict
  returned: success
changed_while_read:
  description: Names of what changed while it was read, in the last attempt too.
  type: list
  elements: str
  returned: success
vanished:
  description: Names of what vanished before it was read.
  type: list
  elements: str
  returned: success
attempts:
  description: How many attempts were made. 0 in check mode.
  type: int
  returned: success
"""

import contextlib
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    private_folder,
    read_json,
    remove_tree,
    require_space,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._names import Patterns, shown, told
from ansible_collections.mazevault.backup.plugins.module_utils._pack import (
    SUFFIXES,
    Packer,
    describe,
    report_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime, Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._selection import Selection, sources_of
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._stored import files_of

_SHOWN = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Destination(t.NamedTuple):
    """Where the archive comes to lie, what it is called in the set, its report, and where work is done."""

    path: str
    name: str
    report: str
    work: str
    staging: Staging | None


def _destination(params: dict[str, t.Any], compression: str) -> _Destination:
    if params["set_id"] is None:
        dest = os.path.abspath(params["dest"])
        folder, name = os.path.split(dest)
        return _Destination(dest, name, f"{dest}.json", os.path.join(folder, f".{name}.work"), None)
    component = params["component"]
    name = params["name"] or component
    if not _NAME.fullmatch(name):
        raise BackupError(
            f"name: {name}: not an archive's name",
            hint="Begin with a letter or digit; then letters, digits, dots, dashes and underscores, 128 at most.",
        )
    staging = Staging(params["backup_root"], params["set_id"])
    relative = f"{component}/{name}{SUFFIXES[compression]}"
    work = os.path.join(staging.path, "work", f"files_{component}_{name}")
    return _Destination(
        os.path.join(staging.set_path, relative), relative, staging.report_path(component), work, staging
    )


def _compression(wanted: str, runtime: Runtime) -> str:
    if wanted == "auto":
        return "zstd" if runtime.has("zstd") else "gzip"
    if wanted != "none":
        runtime.program(wanted)
    return wanted


def _backup(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    for name in ("dest", "set_id"):
        if params[name] == "":
            raise BackupError(f"{name}: empty", hint="Name a new file (dest), or the id of an open set (set_id).")
    if not 1 <= params["attempts"] <= 20:
        raise BackupError(f"attempts: {params['attempts']}: out of range", hint="Give a number from 1 to 20.")
    reserve = parse_size(params["reserve"], parameter="reserve")
    runtime = HostRuntime()
    runtime.program("tar")
    compression = _compression(params["compression"], runtime)
    place = _destination(params, compression)
    own = params["backup_root"] or ""
    if place.staging is None:
        if os.path.lexists(place.path):
            raise BackupError(
                f"dest: {place.path}: exists already", hint="An archive never overwrites anything; name a new file."
            )
        private_folder(os.path.dirname(place.path), parameter="dest")
    never = {os.fsencode(os.path.realpath(path)) for path in (own, place.path, place.report, place.work) if path}
    packer = Packer(
        runtime,
        sources_of(params["paths"]),
        Patterns(params["excludes"]),
        compression=compression,
        never=never,
        attempts=params["attempts"],
        reserve=reserve,
        progress=Progress(),
        key=key_of(place.staging, params["class"]) if place.staging and place.staging.exists() else None,
    )
    selection = packer.select()
    if not selection.items:
        raise BackupError("paths: nothing is left to save", hint="See to paths and excludes.")
    require_space(
        os.path.dirname(place.path),
        selection.allocated + 2048 * len(selection.items) + (1 << 20),
        parameter="dest" if place.staging is None else "backup_root",
        what="the archive",
        reserve=reserve,
    )
    result = {**_foreseen(place, selection), "changed": True}
    if module.check_mode:
        return result
    if place.staging is None:
        done = _write(packer, place, Progress(), params, compression)
    else:
        with place.staging.working() as progress:
            done = _write(packer, place, progress, params, compression)
    for what in ("changed_while_read", "vanished"):
        if done[what]:
            module.warn(f"{place.name}: {len(done[what])} {what.replace('_', ' ')}: {', '.join(done[what][:5])}")
    return {**result, **done}


def _foreseen(place: _Destination, selection: Selection) -> dict[str, t.Any]:
    counts = selection.counts()
    return {
        "path": place.path,
        "report": place.report,
        "recovery_point": None,
        "bytes": None,
        "artefacts": [],
        "files": {
            "path": place.name,
            "recovery_point": None,
            **{f"{kind}s": count for kind, count in counts.items()},
            "size_bytes": selection.bytes,
            "left_out": len(selection.left_out),
            "changed_while_read": 0,
            "vanished": len(selection.vanished),
        },
        "left_out": selection.left_out[:_SHOWN],
        "changed_while_read": [],
        "vanished": [told(name) for name in selection.vanished],
        "attempts": 0,
        "diff": {
            "before": "",
            "after": f"{place.path}: archive of {', '.join(f'{count} {kind}s' for kind, count in counts.items())}\n",
        },
    }


def _write(
    packer: Packer, place: _Destination, progress: Progress, params: dict[str, t.Any], compression: str
) -> dict[str, t.Any]:
    """Make the archive in a folder of its own, then let it appear."""
    packer.progress = progress
    remove_tree(place.work)  # of a killed run
    os.makedirs(place.work, mode=0o700)
    try:
        temporary = os.path.join(place.work, "archive")
        packed = packer.pack(temporary, place.work)
        component = params["component"] or "files"
        facts = {
            "compression": compression,
            "class": params["class"],
            "sources": [
                {"path": source.given, "resolved": shown(source.path), "name": told(source.name)}
                for source in packer.sources
            ],
        }
        described = describe(packed, component=component, path=place.name, facts=facts)
        former = None
        if place.staging is not None:
            os.makedirs(os.path.dirname(place.path), mode=0o700, exist_ok=True)
            former = read_json(place.report) if os.path.exists(place.report) else None
        progress.step("files: report")
        write_json(place.report, report_of(component, former, described))
        progress.step("files: rename")
        for old in (former or {}).get("artefacts", ()):
            if place.staging is not None and old["path"] == place.name:
                for name in files_of(old):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(place.staging.set_path, name))
        for path in packed.sink.files:
            os.rename(path, place.path + path[len(temporary) :])
        fsync_path(os.path.dirname(place.path))
        progress.step("files: done")
    finally:
        remove_tree(place.work)
    return {
        "recovery_point": packed.started,
        "bytes": described["artefact"]["bytes"],
        "artefacts": [described["artefact"]],
        "files": described["public"],
        "left_out": packed.selection.left_out[:_SHOWN],
        "changed_while_read": described["private"]["changed_while_read"],
        "vanished": described["private"]["vanished"],
        "attempts": packed.attempts,
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "paths": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "name": {"type": "str"},
                    "like": {"type": "str"},
                },
            },
            "excludes": {"type": "list", "elements": "str", "default": []},
            "dest": {"type": "path"},
            "backup_root": {"type": "path"},
            "set_id": {"type": "str"},
            "component": {"type": "str", "choices": ["config", "tls", "volumes", "vault", "keys", "kubernetes"]},
            "name": {"type": "str"},
            "class": {"type": "str", "default": "data", "choices": ["data", "keys"]},
            "compression": {"type": "str", "default": "auto", "choices": ["auto", "zstd", "gzip", "none"]},
            "attempts": {"type": "int", "default": 3},
            "reserve": {"type": "str"},
        },
        mutually_exclusive=[("dest", "set_id")],
        required_one_of=[("dest", "set_id")],
        required_together=[("backup_root", "set_id"), ("set_id", "component")],
        required_by={"name": ("set_id",)},
        supports_check_mode=True,
    )
    _module.run(module, _backup)


if __name__ == "__main__":
    main()
