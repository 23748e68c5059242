# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies beside the database on a host: settings, configuration, certificates, uploads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECRETS = {
    "MASTER_KEY": "q8JmZr2vXkT5wYb1LcNdPfHgS4uA7eRi",
    "JWT_SECRET": "Zt6oVh3nKx9rQp2mWd8sLb5gYc1fJu4a",
    "POSTGRES_PASSWORD": "correct-horse-battery",
}
ENV = f"""# MazeVault
IMAGE_TAG=1.0.17
MASTER_KEY={SECRETS["MASTER_KEY"]}
JWT_SECRET="{SECRETS["JWT_SECRET"]}"
POSTGRES_PASSWORD={SECRETS["POSTGRES_PASSWORD"]}
DATABASE_URL=postgres://mazevault:{SECRETS["POSTGRES_PASSWORD"]}@postgres:5432/mazevault?sslmode=disable
"""


def furnish(home: Path) -> None:
    """What lies beside the database on a host."""
    (home / ".env").write_text(ENV, encoding="utf-8")
    (home / ".env").chmod(0o600)
    (home / "docker-compose.yml").write_text("services:\n  backend:\n    image: mazevault-backend:1.0.17\n")
    for name in ("config", "certs", "uploads/deep"):
        (home / name).mkdir(parents=True)
    (home / "config/nginx.conf").write_text("server { listen 443; }\n")
    (home / "config/jobs.conf").write_text(f"token {SECRETS['JWT_SECRET']}\n")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90"]
    names = ("-subj", "/CN=vault.example", "-keyout", home / "certs/server.key", "-out", home / "certs/server.crt")
    subprocess.run([*make, *names], check=True, capture_output=True)
    (home / "certs/server.key").chmod(0o600)
    (home / "uploads/deep/report.pdf").write_bytes(os.urandom(50_000))
    (home / "uploads/link").symlink_to("deep/report.pdf")
