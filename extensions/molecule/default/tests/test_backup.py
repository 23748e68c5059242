# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup left on each installation, without asking the collection."""

from __future__ import annotations

import json
import typing as t

testinfra_hosts = ["ansible://mazevault?force_ansible=false"]


def test_one_set_is_published_and_its_sums_hold(host: t.Any) -> None:
    with host.sudo():
        (found,) = host.file("/opt/mazevault/backups/sets").listdir()
        folder = f"/opt/mazevault/backups/sets/{found}"
        assert host.file(folder).mode == 0o700
        assert host.run(f"cd {folder} && sha256sum --check --strict SHA256SUMS").rc == 0
        assert json.loads(host.file(f"{folder}/manifest.json").content_string)["set_id"] == found
        assert host.file("/opt/mazevault/backups/staging").listdir() == []


def test_the_installation_goes_on(host: t.Any) -> None:
    assert host.run("curl --fail --insecure --silent https://localhost:8443/api/v1/health").rc == 0
