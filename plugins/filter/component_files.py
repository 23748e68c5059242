# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import posixpath
import re
import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: component_files
author:
  - The mazevault.backup authors (@mazevault)
version_added: 0.1.0
short_description: Which files of a host belong to the components config, tls and volumes
description:
  - From what M(mazevault.backup.mazevault_stack_info) found, or nothing, to what M(mazevault.backup.key_material) looks
    through. It only names places; what isn't there is left out later.
  - The files of the database and of Redis belong to none of them, nor do sockets and the system's own folders.
options:
  _input:
    description: What M(mazevault.backup.mazevault_stack_info) returned, or an empty dictionary.
    type: dict
    required: true
  home:
    description: Folder of the installation, for where no stack was found.
    type: str
    required: true
  more:
    description: Further paths by component.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Where is what has to be saved?
  ansible.builtin.debug:
    msg: "{{ stack | mazevault.backup.component_files('/opt/mazevault') }}"
"""

RETURN = r"""
_value:
  description:
    - For each of V(config), V(tls) and V(volumes) a dictionary with V(paths), V(linked), V(settings), V(texts) and
      V(secrets_of), as M(mazevault.backup.key_material) wants them.
  type: dict
"""

_CERTIFICATES = re.compile(r"(?:\A|[/_-])(?:certs?|certificates|ssl|tls|pki|letsencrypt)(?:\Z|[/_-])", re.IGNORECASE)
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
# Of the system, not of MazeVault.
_SYSTEM = (
    "/etc/ssl",
    "/etc/pki",
    "/usr",
    "/etc/localtime",
    "/etc/timezone",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/tmp",
    "/var/lib/docker",
)
_SYSTEM_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/passwd", "/etc/group")
_KEPT_ELSEWHERE = ("postgres", "redis")
_LETS_ENCRYPT = "/etc/letsencrypt"


def component_files(
    found: Mapping[str, t.Any], home: str, more: Mapping[str, Iterable[str]] | None = None
) -> dict[str, t.Any]:
    """The places of each component."""
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("a dictionary is wanted, as mazevault_stack_info returns it")
    top = str(found.get("home") or home)
    files = [str(path) for path in (found.get("compose") or {}).get("files") or ()]
    env = f"{top}/.env"
    config = [f"{top}/config", f"{top}/scripts"]
    tls: list[dict[str, str]] = [{"path": f"{top}/certs"}]
    volumes: dict[str, dict[str, str]] = {}
    for container in found.get("containers") or ():
        for mount in container.get("mounts") or ():
            source, name = str(mount.get("source") or ""), str(mount.get("name") or "")
            telling = (name, source if mount.get("type") == "bind" else "", str(mount.get("destination") or ""))
            if not source.startswith("/") or container.get("role") in _KEPT_ELSEWHERE or _of_the_system(source):
                continue
            of_tls = any(_CERTIFICATES.search(word) for word in telling)
            if mount.get("type") == "bind":
                if of_tls:
                    tls.append({"path": source})
                elif source != top:
                    config.append(source)
            elif mount.get("type") == "volume" and not _ANONYMOUS.fullmatch(name):
                entry = {"path": source, "name": f"volumes/{name}"}
                if of_tls:
                    tls.append(entry)
                else:
                    volumes[name] = entry
    given = {name: [str(path) for path in paths] for name, paths in (more or {}).items()}
    config += given.get("config", [])
    tls += [{"path": path} for path in given.get("tls", [])]
    others = [{"path": path} for path in given.get("volumes", [])]
    taken = [entry["path"] for entry in tls]
    return {
        "config": {
            "paths": _outermost({"path": path} for path in config if path not in (env, *files) and path not in taken),
            "linked": [],
            "settings": [env],
            "texts": files or [f"{top}/docker-compose.yml"],
            "secrets_of": [],
        },
        "tls": {"paths": _outermost(tls), "linked": [_LETS_ENCRYPT], "settings": [], "texts": [], "secrets_of": [env]},
        "volumes": {
            "paths": _outermost([*(volumes[name] for name in sorted(volumes)), *others]),
            "linked": [],
            "settings": [],
            "texts": [],
            "secrets_of": [env],
        },
    }


def _of_the_system(path: str) -> bool:
    inside = any(path == top or path.startswith(f"{top}/") for top in _SYSTEM)
    return path.endswith(".sock") or path in _SYSTEM_FILES or (inside and "/volumes/" not in path)


def _outermost(entries: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Without what is there twice, or lies in another one."""
    by_path: dict[str, dict[str, str]] = {}
    for entry in entries:
        by_path.setdefault(posixpath.normpath(entry["path"]), entry)
    return [
        entry
        for path, entry in by_path.items()
        if not any(path != other and path.startswith(f"{other.rstrip('/')}/") for other in by_path)
    ]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"component_files": component_files}
