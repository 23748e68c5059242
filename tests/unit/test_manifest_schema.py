# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON Schema of manifest.json takes what is really written, and nothing else."""

from __future__ import annotations

import copy
import json
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from support.flow import Flow
from support.servers import PgServer, installations

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/schemas/manifest-1.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SQL = """
CREATE ROLE "a role name";
CREATE SCHEMA "a schema name" AUTHORIZATION "a role name";
CREATE TABLE "a schema name"."a table name" ("a column name" text);
INSERT INTO "a schema name"."a table name" VALUES ('a value');
CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);
INSERT INTO schema_migrations VALUES (7, true);
"""

Manifest = dict[str, t.Any]


@pytest.fixture(scope="module", params=installations(), ids=str)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The texts of three manifests: of an empty database, proven, and of one in another form."""
    flow_root = tmp_path_factory.mktemp("manifests") / "backups"
    with PgServer(request.param) as server:
        flow = Flow(server, flow_root)
        folders = [flow.publish()["path"]]
        server.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=SQL)
        folders += [flow.publish(level="read")["path"], flow.publish("directory", "gzip")["path"]]
        yield [Path(folder, "manifest.json").read_text(encoding="utf-8") for folder in folders]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_is_written_is_valid(written: list[str]) -> None:
    for text in written:
        assert [error.message for error in VALIDATOR.iter_errors(json.loads(text))] == []
    first, second, third = (json.loads(text) for text in written)
    assert (first["former_set_sha256"], first["postgres"]["schema_version"]) == (None, None)
    assert (second["verification"]["level"], second["postgres"]["schema_dirty"]) == ("read", True)
    assert [manifest["sequence"] for manifest in (first, second, third)] == [1, 2, 3]


def test_the_schema_names_no_more_than_is_written(written: list[str]) -> None:
    """A property that no manifest has would be a promise that nothing keeps."""
    manifest = json.loads(written[1])
    # These sets have a database alone; components of files look like each other.
    others = set(SCHEMA["$defs"]["component"]["enum"]) - {"postgres"}
    assert set(SCHEMA["properties"]) == set(manifest) | others
    for name in ("artefact", "postgres"):
        entry = manifest["artefacts"][0] if name == "artefact" else manifest[name]
        assert set(SCHEMA["$defs"][name]["properties"]) == set(entry)


def test_no_name_and_no_value_of_the_database_is_public(written: list[str]) -> None:
    words = ("role name", "schema name", "table name", "column name", "a value", "salt")
    for text in written:
        assert not [word for word in words if word in text]


def change(*path: str | int, to: t.Any) -> Callable[[Manifest], None]:
    def do(manifest: Manifest) -> None:
        place: t.Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return do


def without(*path: str | int) -> Callable[[Manifest], None]:
    def do(manifest: Manifest) -> None:
        place: t.Any = manifest
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return do


MUTANTS: dict[str, Callable[[Manifest], None]] = {
    "another schema version": change("schema_version", to=2),
    "a property too many": change("comment", to="x"),
    "no recovery point": without("recovery_point"),
    "an id with a path": change("set_id", to="../mazevault_20261123_020000"),
    "an id with a line end": change("set_id", to="mazevault_20261123_020000\n"),
    "a sequence of none": change("sequence", to=0),
    "a sequence as text": change("sequence", to="1"),
    "a short hash": change("former_set_sha256", to="abc"),
    "a hash in capitals": change("artefacts", 0, "sha256", to="A" * 64),
    "no hash": without("artefacts", 0, "sha256"),
    "no hash of the plaintext": change("artefacts", 0, "sha256_plaintext", to=None),
    "a time without a zone": change("started", to="2026-11-23T02:00:00.000000"),
    "a time with an offset": change("ended", to="2026-11-23T02:00:00.000000+00:00"),
    "a time in the 25th hour": change("recovery_point", to="2026-11-23T25:00:00.000000Z"),
    "an absolute path": change("artefacts", 0, "path", to="/nowhere/x"),
    "a path that leads out": change("artefacts", 0, "path", to="postgres/../../x"),
    "a path that is the parent": change("artefacts", 0, "path", to=".."),
    "a path with an empty part": change("artefacts", 0, "path", to="postgres//x"),
    "a path that ends in a slash": change("artefacts", 0, "path", to="postgres/"),
    "an empty path": change("artefacts", 0, "path", to=""),
    "a negative size": change("artefacts", 0, "bytes", to=-1),
    "an artefact with more": change("artefacts", 0, "password", to="x"),
    "an unknown component": change("artefacts", 0, "component", to="redis"),
    "no artefacts": change("artefacts", to=[]),
    "no components": change("components", to=[]),
    "no word of its keys": without("escrow"),
    "keys that are hoped for": change("escrow", "verdict", to="hope"),
    "a generation twice": change("key_generations", to=["0123456789abcdef"] * 2),
    "a component twice": change("components", to=["postgres", "postgres"]),
    "a component without its facts": without("postgres"),
    "facts without their component": change("components", to=["config"]),
    "a table's name": change("postgres", "table_names", to=["x"]),
    "an unknown reason": change("reason", to="because"),
    "an unknown verdict": change("verification", "verdict", to="ok"),
    "an unknown level": change("verification", "level", to="full"),
    "no verdict": without("verification", "verdict"),
    "an unknown protection": change("missing_protection", to=["hope"]),
    "no version of the collection": without("versions", "mazevault.backup"),
    "an empty installation": change("installation", to=""),
    "a recipient that is no text": change("recipients", "data", to=[1]),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_not_valid(written: list[str], mutant: str) -> None:
    manifest = json.loads(written[1])
    before = copy.deepcopy(manifest)
    MUTANTS[mutant](manifest)
    assert manifest != before
    assert [error.json_path for error in VALIDATOR.iter_errors(manifest)] != []
