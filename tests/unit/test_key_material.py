# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No key value is left in a prepared text, and nothing else is gone; files with key material are told from others."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._env_file import settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._key_material import (
    config_without_keys,
    is_key_name,
    looked_for,
    secret_values,
    sort_files,
    without_keys,
)

MARK = "@generation:unknown"
KEY_NAMES = (
    *("MASTER_KEY", "MAZEVAULT_MASTER_KEY", "JWT_SECRET", "MAZEVAULT_JWT_KEY", "SESSION_SECRET", "POSTGRES_PASSWORD"),
    *("REDIS_PASSWORD", "PGPASSWORD_2", "SMTP_PASSWORD", "LICENSE_KEY", "API_TOKEN", "ENCRYPTION_KEYS", "HSM_PIN"),
    *("VAULT_PASSPHRASE", "AZURE_CLIENT_SECRET", "HASH_SALT", "db.password", "oidc-client-secret", "SIGNING_KEY_1"),
    "APIKEY",
)
OTHER_NAMES = (
    *("POSTGRES_USER", "IMAGE_TAG", "DATABASE_HOST", "MASTER_KEY_FILE", "TLS_KEY_PATH", "JWT_TTL", "PASSWORD_LENGTH"),
    *("TOKEN_EXPIRY", "KEYBOARD", "MONKEY_BUSINESS", "SECRETARY", "ENABLE_LICENSE_CHECK", "KEY_ROTATION_DAYS"),
    *("COMPASS", "TOKENIZER", "SECRET_CIPHER_ALGORITHM", "MAZEVAULT_TLS_ENABLED", "SEEDLING"),
)


@pytest.mark.parametrize("name", KEY_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_other_things(name: str) -> None:
    assert not is_key_name(name)


ENV = """\
# MazeVault
export MASTER_KEY="base64+with=signs/and more"   # do not lose
JWT_SECRET='single $quoted'
POSTGRES_USER=mazevault
POSTGRES_PASSWORD=pl4in-password # a word
EMPTY_KEY=
DATABASE_URL=postgres://mazevault:pl4in-password@postgres:5432/mazevault?sslmode=disable
REDIS_URL="redis://:r3dis-pass-word@redis:6379/0"
#OLD_MASTER_KEY=the former key
# the password pl4in-password is also written here
IMAGE_TAG=1.0.17
CERT_KEY="-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg
-----END PRIVATE KEY-----"
TLS_KEY_FILE=/certs/server.key
"""
PREPARED = """\
# MazeVault
export MASTER_KEY=@generation:unknown   # do not lose
JWT_SECRET=@generation:unknown
POSTGRES_USER=mazevault
POSTGRES_PASSWORD=@generation:unknown
EMPTY_KEY=
DATABASE_URL=@generation:unknown
REDIS_URL=@generation:unknown
#OLD_MASTER_KEY=@generation:unknown
# the password @generation:unknown is also written here
IMAGE_TAG=1.0.17
CERT_KEY=@generation:unknown
TLS_KEY_FILE=/certs/server.key
"""


def test_an_env_file() -> None:
    secrets = secret_values(settings_of(ENV))
    assert secrets["DATABASE_URL/0"] == "pl4in-password" and secrets["REDIS_URL/0"] == "r3dis-pass-word"
    found = without_keys(ENV, MARK, secrets.values())
    assert found.text == PREPARED
    assert found.names == (
        "MASTER_KEY",
        "JWT_SECRET",
        "POSTGRES_PASSWORD",
        "DATABASE_URL",
        "REDIS_URL",
        "CERT_KEY",
    )


def test_what_compose_refuses_is_taken_out_line_by_line() -> None:
    text = 'IMAGE_TAG=1\nMASTER_KEY="not closed\nsecond line\nJWT_SECRET=abcdefgh\n'
    found = without_keys(text, MARK, ()).text
    assert "IMAGE_TAG=1\n" in found
    for secret in ("not closed", "second line", "abcdefgh"):
        assert secret not in found


COMPOSE = """\
services:
  backend:
    image: ${IMAGE_REGISTRY}/mazevault-backend:${IMAGE_TAG}
    environment:
      MASTER_KEY: ${MASTER_KEY}
      JWT_SECRET: "${JWT_SECRET:?set it}"
      SESSION_SECRET: "typed in here"
      DATABASE_URL: postgres://mazevault:${POSTGRES_PASSWORD}@postgres:5432/mazevault
      OTHER_URL: postgres://mazevault:typed-too@postgres:5432/mazevault
      TLS_KEY_FILE: /certs/server.key
    command: ["--token", "value-of-the-env-file"]
  postgres:
    environment:
      - POSTGRES_PASSWORD=typed by hand
      - POSTGRES_USER=mazevault
"""


def test_a_compose_file() -> None:
    found = config_without_keys(COMPOSE, MARK, ["value-of-the-env-file"])
    for secret in ("typed in here", "typed-too", "typed by hand", "value-of-the-env-file"):
        assert secret not in found.text
    assert found.names == ("SESSION_SECRET", "OTHER_URL", "POSTGRES_PASSWORD")
    kept = [line for line in COMPOSE.splitlines() if "typed" not in line and "value-of" not in line]
    assert [line for line in found.text.splitlines() if MARK not in line] == kept
    assert f'SESSION_SECRET: "{MARK}"' in found.text and f"- POSTGRES_PASSWORD={MARK}" in found.text


LETTERS = string.ascii_letters + string.digits + "+/=_-.:@ #$'\"\\"
VALUES = st.text(LETTERS, min_size=8, max_size=40).map(str.strip).filter(lambda value: len(value) >= 8)


def quoted(value: str, style: str) -> str:
    if style == "double":
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
    if style == "single":
        return "'" + value.replace("'", "\\'") + "'"
    # Quotes and references would make something else of it.
    return re.sub(r"[\"'$#\\ ]", "x", value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*KEY_NAMES, *OTHER_NAMES]).filter(str.isupper),
            VALUES,
            st.sampled_from(["double", "single", "bare"]),
            st.sampled_from(["", "export ", "# "]),
            st.sampled_from(["\n", "\r\n", "  # a comment\n", "\n\n"]),
        ),
        max_size=8,
    )
)
def test_no_secret_is_left_whatever_the_file(lines: list[tuple[str, str, str, str, str]]) -> None:
    text = "".join(f"{lead}{name}={quoted(value, style)}{end}" for name, value, style, lead, end in lines)
    settings = settings_of(text)
    secrets = secret_values(settings)
    found = without_keys(text, MARK, secrets.values())
    for name, secret in secrets.items():
        if secret in looked_for(secrets.values()) and secret not in MARK:
            assert secret not in found.text.replace(MARK, ""), name
    event(f"refused: {bool(settings.refused)}")
    if not settings.refused and not settings.unknown:
        again = settings_of(found.text)
        assert list(again.values) == list(settings.values), "every setting is still there"
        touched = {name.partition("/")[0] for name in secrets} | set(found.names)
        same = {name: value for name, value in settings.values.items() if name not in touched}
        clean = {name: value for name, value in same.items() if not any(secret in value for secret in secrets.values())}
        assert {name: again.values[name] for name in clean} == clean


def test_a_word_that_is_a_password_is_one_only_where_it_is_set() -> None:
    text = "IMAGE=postgres:15\nPOSTGRES_USER=postgres\nPOSTGRES_PASSWORD=postgres\n"
    found = without_keys(text, MARK, ["postgres"])
    assert found.text == f"IMAGE=postgres:15\nPOSTGRES_USER=postgres\nPOSTGRES_PASSWORD={MARK}\n"
    assert looked_for(["postgres", "Changeme", "MAZEVAULT", "short1", "correct-horse", "x9kfjw2m"]) == [
        "correct-horse",
        "x9kfjw2m",
    ]


def test_files_with_key_material_are_told_from_others(tmp_path: Path) -> None:
    private = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI\n-----END EC PRIVATE KEY-----\n"
    contents = {
        "server.crt": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "bundle.pem": b"-----BEGIN CERTIFICATE-----\n" + b"x" * ((1 << 20) - 40) + private.encode(),
        "server.key": b"whatever it holds",
        "notes.txt": b"the password is " + b"y" * (1 << 20) + b"s3cret-of-ours",
        "plain.txt": b"nothing",
        "keystore": b"\xfe\xed\xfe\xed\x00\x00",
        "deep/er/public.pem": b"-----BEGIN PUBLIC KEY-----\nMIIB\n",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "link").symlink_to("server.key")
    found = sort_files([str(tmp_path)], ["s3cret-of-ours", "short"])
    assert {Path(path).name: why for path, why in found.keys.items()} == {
        "bundle.pem": "a private key",
        "server.key": "its name",
        "notes.txt": "a secret value",
        "keystore": "a key store",
    }
    assert len(found.paths) == len(contents)
    assert sort_files([str(tmp_path / "plain.txt")], []).keys == {}
