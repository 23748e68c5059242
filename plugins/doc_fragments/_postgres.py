# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  host:
    description: Name or address of the PostgreSQL server, or the folder of its socket.
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
  - psycopg2 2.8 or newer, in the Python that runs the module
  - PostgreSQL 14 or newer on the server
"""

    RUNTIME = r"""
options:
  runtime:
    description: Where the PostgreSQL programs run.
    type: str
    default: host
    choices: [host]
  bin_dir:
    description:
      - Folder of the PostgreSQL programs.
      - Unset means that the version that is needed is looked for in the places of Debian's and the PostgreSQL project's
        packages, then on the C(PATH).
    type: path
  jobs:
    description: Parallel jobs and compression threads. Unset means one per processor.
    type: int
"""
