# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  host:
    description:
      - Name or address of the PostgreSQL server, or the folder of its socket.
      - As the programs see it. In a container they share the server's network, where V(localhost) is the server.
    type: str
    default: localhost
  port:
    description: Port of the PostgreSQL server.
    type: int
    default: 5432
  user:
    description: Role to connect as.
    type: str
    default: mazevault
  database:
    description: Name of MazeVault's database.
    type: str
    default: mazevault
  passfile:
    description:
      - A libpq password file on the target with lines V(host:port:database:user:password), mode 0600.
      - The password itself is never a parameter.
    type: path
  sslmode:
    description: How TLS is used, as libpq knows it. Unset leaves it to libpq (V(prefer)).
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  sslrootcert:
    description: File with the certificate authorities that the server's certificate is checked against.
    type: path
requirements:
  - psycopg2 2.8 or newer, in the Python that runs the module (O(runtime=host))
  - PostgreSQL 14 or newer on the server
"""

    RUNTIME = r"""
options:
  runtime:
    description:
      - Where the PostgreSQL programs run.
      - V(host) takes the host's own.
      - V(docker) and V(podman) run those of the image of the database's container, each time in a short-lived container
        beside it without capabilities, with a read-only root and as the module's own user. Nothing but the engine is
        needed on the host, and zstd for the best compression.
    type: str
    default: host
    choices: [host, docker, podman]
  container:
    description: Name or id of the database's container. Needed unless O(runtime=host).
    type: str
  cpus:
    description:
      - Number of processors that those containers may use. Unset means all, at half the share of everybody else.
    type: float
  memory:
    description: Memory that each of those containers may use, such as V(2G). Unset means no limit.
    type: str
  io_weight:
    description:
      - Weight of those containers at the disks, from 10 to 1000, as against 500 of everybody else. Unset means 500.
      - Kernels and disks that know no weights ignore it.
    type: int
  bin_dir:
    description:
      - Folder of the PostgreSQL programs.
      - Unset means that the version that is needed is looked for in the places of Debian's and the PostgreSQL project's
        packages, then on the C(PATH).
      - Only for O(runtime=host).
    type: path
"""

    JOBS = r"""
options:
  jobs:
    description: Parallel jobs and compression threads. Unset means one per processor.
    type: int
"""
