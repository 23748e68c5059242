# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  runtime:
    description: The container engine, by the name of its program.
    type: str
    default: docker
    choices: [docker]
  project:
    description:
      - Name of the compose project.
      - Unset means the one that is MazeVault, told by the product's images, variables or names, or by O(home). Two of
        them are an error, and so is what only looks like it, as neither may be guessed.
    type: str
  services:
    description:
      - Names of services or containers by their role, one of V(postgres), V(redis), V(backend), V(ocsp), V(frontend),
        V(docs), V(init_certs).
      - Roles that aren't named are told by the names of services and containers (V(postgres), V(client-postgres),
        V(mazevault-postgres)), then by their images.
      - Which container holds the database is told by the application's own variables first, such as C(DATABASE_URL); a
        container that is called V(postgres) may be left over.
    type: dict
  home:
    description: Folder of the compose file, where the containers don't tell. What was made from its files is MazeVault.
    type: path
    default: /opt/mazevault
requirements:
  - docker, and the right to use it (as a rule root's)
"""
