# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers are MazeVault: real output of an engine, and the shapes that the field has.

The files under data/ were written by docker 20.10 and compose 2.26 for a stack of stand-ins; values of secrets were
replaced by canaries, and parts that say nothing of the stack were cut.
"""

from __future__ import annotations

import copy
import json
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import (
    _compose,
    _differences,
    _discovery,
    _env_file,
    _stack,
)
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from support.fake_docker import Said, container

DATA = Path(__file__).parent / "data"
REAL: list[Said] = json.loads((DATA / "docker-20.10-inspect.json").read_text(encoding="utf-8"))
IMAGES = "ghcr.io/axiemirror/mazevault-"


def choose(said: t.Sequence[Said], project: str = "", **services: str) -> _stack.Stack:
    return _discovery.choose(map(_stack.container_of, said), project=project, services=services)


def shown(stack: _stack.Stack) -> str:
    return json.dumps([found.public() for found in stack.containers])


# three generations


def shipped(**more: t.Any) -> list[Said]:
    """Bare service names, no container_name."""
    return [
        container("postgres", "postgres:15-alpine", **more),
        container("redis", "redis:7-alpine", **more),
        container("backend", f"{IMAGES}backend:1.0.17", **more),
        container("ocsp", f"{IMAGES}ocsp:1.0.17", **more),
        container("frontend", f"{IMAGES}frontend:1.0.17", **more),
        container("docs", f"{IMAGES}docs:1.0.17", **more),
        container("init-certs", f"{IMAGES}init-certs:1.0.17", status="exited", **more),
    ]


def specified(project: str = "opt", **more: t.Any) -> list[Said]:
    """client-* by container_name; services partly called otherwise."""
    names = {
        "client-postgres": ("client-postgres", "postgres:15-alpine"),
        "client-redis": ("client-redis", "redis:7-alpine"),
        "backend": ("client-backend", "registry.local/vault/api:4"),
        "ocsp-responder": ("client-ocsp-responder", "registry.local/vault/ocsp:4"),
        "client-frontend": ("client-frontend", "registry.local/vault/web:4"),
    }
    return [container(service, image, name=name, project=project, **more) for service, (name, image) in names.items()]


def prefixed(**more: t.Any) -> list[Said]:
    """mazevault-* by container_name, services of the same names."""
    found = []
    for said in shipped(project="vaultstack", **more):
        service = f"mazevault-{said['Config']['Labels']['com.docker.compose.service']}"
        one = copy.deepcopy(said)
        one["Name"] = f"/{service}"
        one["Config"]["Labels"]["com.docker.compose.service"] = service
        found.append(one)
    return found


def by_hand() -> list[Said]:
    """Started without any compose program."""
    return [
        container("x", "postgres:15", name="client-postgres", version=0),
        container(
            "x", "registry.local/api:4", name="client-backend", version=0, environment={"MAZEVAULT_MASTER_KEY": "1"}
        ),
        container("x", "postgres:15", name="postgres", version=0),
    ]


EXPECTED = [
    (shipped(), "mazevault", "mazevault-postgres-1", "mazevault-ocsp-1"),
    (shipped(version=1), "mazevault", "mazevault_postgres_1", "mazevault_ocsp_1"),
    (specified(), "opt", "client-postgres", "client-ocsp-responder"),
    (specified(version=1), "opt", "client-postgres", "client-ocsp-responder"),
    (prefixed(), "vaultstack", "mazevault-postgres", "mazevault-ocsp"),
    (REAL, "mazevault", "mazevault-postgres-1", "mazevault-ocsp-1"),
]


@pytest.mark.parametrize(("said", "project", "postgres", "ocsp"), EXPECTED)
def test_each_generation_is_found(said: list[Said], project: str, postgres: str, ocsp: str) -> None:
    shop = [container(name, f"shop/{name}:1", project="shop") for name in ("postgres", "backend", "frontend", "redis")]
    stack = choose([*shop, *said])
    assert stack.project == project
    assert stack.postgres and stack.postgres.name == postgres
    assert [found.name for found in stack.of("ocsp")] == [ocsp]
    assert {"postgres", "redis", "backend", "ocsp"} <= stack.roles.keys()
    assert all(found.role for found in stack.containers)


def test_containers_made_by_hand() -> None:
    stack = choose(by_hand())
    assert stack.project == "" and stack.roles == {"postgres": ["client-postgres"], "backend": ["client-backend"]}


def test_podman_compose() -> None:
    """Its own label for the project, names without a slash, ids without their algorithm."""
    said = shipped(version=1)
    for one in said:
        labels = one["Config"]["Labels"]
        labels["io.podman.compose.project"] = labels.pop("com.docker.compose.project")
        one["Name"] = one["Name"].lstrip("/")
        one["Image"] = "a" * 64
        one["State"]["Status"] = "stopped" if one["State"]["Status"] == "exited" else one["State"]["Status"]
    stack = choose(said)
    assert stack.project == "mazevault" and stack.postgres and stack.postgres.name == "mazevault_postgres_1"
    assert stack.postgres.image_id == f"sha256:{'a' * 64}"
    assert stack.of("init_certs")[0].status == "exited"


def test_what_a_real_engine_says() -> None:
    stack = choose(REAL)
    assert (stack.folder, stack.files) == ("/opt/mazevault", ("/opt/mazevault/docker-compose.yml",))
    postgres = stack.of("postgres")[0].public()
    assert (postgres["state"], postgres["health"], postgres["image_tag"]) == ("running", "healthy", "15")
    assert postgres["mounts"][0]["name"] == "mazevault_pgdata" and postgres["networks"] == ["mazevault_internal"]
    assert postgres["restart_policy"] == "unless-stopped" and "POSTGRES_PASSWORD" in postgres["environment_names"]
    backend = stack.of("backend")[0].public()
    assert {"container": "8443/tcp", "host_ip": "0.0.0.0", "host": "8443"} in backend["ports"]
    assert _stack.database_of(stack) == ("mazevault", "mazevault", "DATABASE_URL")
    assert stack.why == "image mazevault-lab/mazevault-backend"
    assert _stack.problems(stack) == []
    assert "canary" in json.dumps(REAL) and "canary" not in shown(stack) + repr(stack)


# one and no other


def test_nothing_that_looks_like_it() -> None:
    with pytest.raises(_stack.NotFound, match=r"projects on this host: shop\)") as caught:
        choose([container(name, f"shop/{name}:1", project="shop") for name in ("postgres", "backend")])
    assert "mazevault_project" in caught.value.hint and "mazevault_services" in caught.value.hint
    with pytest.raises(_stack.NotFound, match="on this host: none"):
        choose([])


def test_two_that_look_like_it() -> None:
    both = [*shipped(folder="/opt/a"), *shipped(project="mazevault-test", folder="/opt/b")]
    with pytest.raises(BackupError, match="2 installations look like MazeVault") as caught:
        choose(both)
    assert "mazevault (/opt/a: " in caught.value.msg and "mazevault-test (/opt/b: " in caught.value.msg
    assert "set mazevault_project to mazevault or mazevault-test" in caught.value.hint
    assert choose(both, "mazevault-test").folder == "/opt/b"
    with pytest.raises(_stack.NotFound, match="project: other") as missing:
        choose(both, "other")
    assert "mazevault, mazevault-test" in missing.value.hint


def test_a_project_that_is_named_needs_no_sign() -> None:
    shop = [container(name, f"shop/{name}:1", project="shop") for name in ("postgres", "backend")]
    assert choose(shop, "shop").roles == {"postgres": ["shop-postgres-1"], "backend": ["shop-backend-1"]}


def test_two_for_one_role() -> None:
    left_over = container("postgres", "postgres:14", name="0123_mazevault-postgres-1", status="exited", number=2)
    with pytest.raises(BackupError, match="services: postgres: 2 containers could be it: ") as caught:
        choose([*shipped(), left_over])
    assert "0123_mazevault-postgres-1 (exited, postgres:14)" in caught.value.msg
    assert "mazevault_services.postgres" in caught.value.hint
    chosen = choose([*shipped(), left_over], postgres="mazevault-postgres-1").postgres
    assert chosen and chosen.name == "mazevault-postgres-1"
    with pytest.raises(BackupError, match="services: backend: 2 containers"):
        choose([*shipped(), container("client-backend", "x:1")])


def test_copies_and_one_offs_are_no_second_ones() -> None:
    said = [
        *shipped(),
        container("ocsp", f"{IMAGES}ocsp:1.0.17", number=2),
        container("postgres", "postgres:15-alpine", name="mazevault-postgres-run-1", oneoff=True),
    ]
    assert choose(said).roles["ocsp"] == ["mazevault-ocsp-1", "mazevault-ocsp-2"]


def test_services_are_named() -> None:
    said = [
        container("pg-main", "bitnami/pg:15", project="vault"),
        container("api", "registry.local/api:4", project="vault"),
        container("backend", "registry.local/other:4", project="vault"),
    ]
    stack = choose(said, postgres="pg-main", backend="api")
    assert stack.roles == {"postgres": ["vault-pg-main-1"], "backend": ["vault-api-1"]}
    assert choose(said, postgres="vault-pg-main-1").roles["postgres"] == ["vault-pg-main-1"]
    with pytest.raises(BackupError, match=r"services: ocsp: nobody: neither .*services: api, backend, pg-main"):
        choose(said, postgres="pg-main", ocsp="nobody")
    with pytest.raises(BackupError, match="services: api: named for two roles, backend and ocsp"):
        choose(said, backend="api", ocsp="api")


def test_a_database_elsewhere_on_the_host() -> None:
    said = [*shipped()[1:], container("main", "postgres:16", name="shared-db", project="databases")]
    stack = choose(said, postgres="shared-db")
    assert stack.project == "mazevault" and stack.roles["postgres"] == ["shared-db"]


def test_a_role_is_told_by_the_image_last() -> None:
    said = [container("storage", "docker.io/library/postgres:15"), *shipped()[1:]]
    assert choose(said).roles["postgres"] == ["mazevault-storage-1"]
    said += [container("postgres", "bitnami/pg:15")]
    assert choose(said).roles["postgres"] == ["mazevault-postgres-1"]


@pytest.mark.parametrize(
    ("name", "project", "role"),
    [
        ("mazevault_postgres_1", "mazevault", "postgres"),
        ("mazevault-client-postgres-1", "mazevault", "postgres"),
        ("vault-prod-ocsp-responder-1", "vault-prod", "ocsp"),
        ("Init_Certs", "", "init_certs"),
        ("backend-worker", "mazevault", ""),
        ("mazevault-backup-6470ace37179", "mazevault", ""),
        ("postgres-exporter", "", ""),
        ("", "", ""),
    ],
)
def test_role_of_a_name(name: str, project: str, role: str) -> None:
    assert _stack.role_of(name, project) == role


def test_overrides() -> None:
    assert _stack.overrides_of({"postgres": "x", "redis": "", "init-certs": "y", "ocsp": None}) == {
        "postgres": "x",
        "init_certs": "y",
    }
    with pytest.raises(BackupError, match="services: db: no such role"):
        _stack.overrides_of({"db": "x"})


# states and steps


def test_problems_are_said() -> None:
    said = [
        container(
            "postgres", "postgres:15", health="unhealthy", volume="f" * 64, destination="/var/lib/postgresql/data"
        ),
        container("redis", "redis:7", status="restarting", restarts=14, exit_code=1),
        container("ocsp", f"{IMAGES}ocsp:1", status="exited", exit_code=137),
        container("docs", f"{IMAGES}docs:1", status="paused"),
        container("init-certs", f"{IMAGES}init-certs:1", status="exited", exit_code=2),
    ]
    assert _stack.problems(choose(said, "mazevault")) == [
        "no container for backend",
        "postgres (mazevault-postgres-1) is unhealthy",
        "redis (mazevault-redis-1) starts again and again (14 times, last exit status 1)",
        "ocsp (mazevault-ocsp-1) is exited with status 137",
        "docs (mazevault-docs-1) is paused",
        "init_certs (mazevault-init-certs-1) failed with status 2",
        "postgres (mazevault-postgres-1) keeps its data in no named volume: removing the container loses it",
        "nothing tells which database is MazeVault's: set mazevault_database unless it is mazevault",
    ]


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"POSTGRES_USER": "u", "POSTGRES_DB": "d"}, ("u", "d", "POSTGRES_DB")),
        ({"POSTGRES_USER": "u"}, ("u", "u", "POSTGRES_USER")),
        # Every server has a database postgres; that the image made no other doesn't tell that somebody uses it.
        ({}, ("postgres", "", "")),
        ({"POSTGRES_USER_FILE": "/run/secrets/u", "POSTGRES_DB": "d"}, ("", "d", "POSTGRES_DB")),
        ({"POSTGRES_USER": "u", "POSTGRES_DB_FILE": "/run/secrets/d"}, ("u", "", "")),
    ],
)
def test_the_database_as_its_image_makes_it(environment: dict[str, str], names: tuple[str, str, str]) -> None:
    stack = choose([container("postgres", "postgres", environment=environment)], "mazevault")
    assert _stack.database_of(stack) == names


states = st.sampled_from(["running", "paused", "restarting", "exited", "created", "dead"])


@given(st.lists(states, min_size=7, max_size=7), st.sets(st.sampled_from(_stack.ROLES), min_size=1))
def test_steps_touch_what_has_to_change_and_nothing_else(given_states: list[str], roles: set[str]) -> None:
    said = shipped()
    for one, state in zip(said, given_states):
        one["State"] |= {"Status": state, "Paused": state == "paused", "Restarting": state == "restarting"}
    stack = choose(said)
    asked = {found.name for found in stack.of(*roles)}
    stopped = {name for step in _stack.steps_to_stop(stack, list(roles)) for name in step.names}
    assert stopped == {found.name for found in stack.containers if found.name in asked and found.up}
    steps = _stack.steps_to_start(stack.containers, list(roles))
    started = {name: step.verb for step in steps for name in step.names}
    assert started.keys() == {
        found.name
        for found in stack.containers
        if found.name in asked and found.status not in ("running", "restarting")
    }
    assert {name for name, verb in started.items() if verb == "unpause"} == {
        found.name for found in stack.containers if found.name in asked and found.status == "paused"
    }


def test_roles_that_are_wanted() -> None:
    assert _stack.wanted_roles([]) == ["backend", "ocsp", "frontend", "docs"]
    assert _stack.wanted_roles(["docs", "init-certs", " backend"]) == ["backend", "docs", "init_certs"]
    assert "init_certs" not in _stack.wanted_roles(["all"]) and "postgres" in _stack.wanted_roles(["all"])
    with pytest.raises(BackupError, match="roles: pg"):
        _stack.wanted_roles(["pg"])


# files


def test_a_real_config_agrees_with_its_containers() -> None:
    stack = choose(REAL)
    asked = _compose.wanted_of_json((DATA / "compose-2.26-config.json").read_text(encoding="utf-8"))
    assert asked and set(asked) == {found.service for found in stack.containers}
    assert _differences.differences(stack, asked, {}) == []
    plain = _compose.wanted_of_yaml((DATA / "compose-2.26-config.txt").read_text(encoding="utf-8"))
    assert plain and {name: said.image for name, said in plain.items()} == {
        name: said.image for name, said in asked.items()
    }
    environment = asked["backend"].environment
    assert environment is not None
    changed = {**environment, "MAZEVAULT_MASTER_KEY": "another"}
    asked["backend"] = _differences.Wanted("mazevault-lab/mazevault-backend:1.0.18", changed)
    said = _differences.differences(stack, asked, {})
    assert [(entry["what"], entry["names"]) for entry in said] == [
        ("image", []),
        ("environment", ["MAZEVAULT_MASTER_KEY"]),
    ]
    assert "canary" not in json.dumps(said)


def test_config_of_compose_1() -> None:
    text = (
        "services:\n  client-postgres:\n    container_name: client-postgres\n    environment:\n"
        "      image: not-this\n    image: postgres:15-alpine\n    restart: always\n  'backend':\n"
        "    image: \"registry.local:5000/backend:1\"\nversion: '3.8'\nvolumes:\n  image:\n    image: nor-this\n"
    )
    assert _compose.wanted_of_yaml(text) == {
        "client-postgres": _differences.Wanted("postgres:15-alpine"),
        "backend": _differences.Wanted("registry.local:5000/backend:1"),
    }
    assert _compose.wanted_of_yaml("no services\n") is None
    for text in (
        "",
        "[]",
        "{}",
        '{"services": []}',
        '{"services": {"x": null}}',
        '{"services": {"x": {"environment": [1]}}}',
    ):
        assert _compose.wanted_of_json(text) is None


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        (" A = b # why", "b"),
        ("export A=b", "b"),
        ("A='b # $c'", "b # $c"),
        ('A="b c" # why', "b c"),
        ("A=b#c", "b#c"),
        ("A=", ""),
        ("A=a=b==", "a=b=="),
        ("A=${B}", None),
        ('A="$B"', None),
        ("# A=b", None),
        ("A", None),
        ("A B=c", None),
    ],
)
def test_lines_of_an_env_file(line: str, value: str | None) -> None:
    assert _env_file.settings_of(f"\n{line}\n").values.get("A") == value


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("postgres", ("postgres", "latest")),
        ("registry:5000/postgres", ("registry:5000/postgres", "latest")),
        ("registry:5000/postgres:15", ("registry:5000/postgres", "15")),
        (f"postgres@sha256:{'a' * 64}", ("postgres", "")),
        (f"postgres:15@sha256:{'a' * 64}", ("postgres", "15")),
    ],
)
def test_image_references(image: str, parts: tuple[str, str]) -> None:
    assert _stack.split_image(image) == parts


def test_the_same_image_in_other_words() -> None:
    assert _stack.same_image("postgres:15", "docker.io/library/postgres:15")
    assert _stack.same_image("redis", "redis:latest")
    assert not _stack.same_image("postgres:15", "registry.local/postgres:15")


def test_the_help_decides_what_up_is_told() -> None:
    compose = _compose.Compose(Engine(), "docker-compose", ("docker-compose",), "1.29.2")
    quiet = compose.up_command(["a"], "      --quiet-pull\n      --no-build\n")
    assert quiet == ["up", "--detach", "--no-recreate", "--no-build", "a"]
    assert compose.up_command([], "      --pull string   Pull\n")[-2:] == ["--pull", "never"]


def test_files_of_a_project(tmp_path: Path) -> None:
    nothing = _compose.project_of(None, home=str(tmp_path))
    assert nothing == _compose.Project("mazevault", str(tmp_path), ())
    for name in ("docker-compose.yml", "docker-compose.override.yml", "other.yml"):
        (tmp_path / name).touch()
    both = (f"{tmp_path}/docker-compose.yml", f"{tmp_path}/docker-compose.override.yml")
    assert _compose.project_of(None, name="x", home=str(tmp_path)) == _compose.Project("x", str(tmp_path), both)
    for version in (1, 2):
        stack = choose(shipped(folder=str(tmp_path), version=version))
        assert _compose.project_of(stack, home="/nowhere").files == both[:1]
    gone = choose(shipped(folder=str(tmp_path / "gone")))
    found = _compose.project_of(gone, home=str(tmp_path))
    assert (found.files, found.missing) == (both, (f"{tmp_path}/gone/docker-compose.yml",))


# no secret leaves


values = st.text(min_size=6).map(lambda text: f"canary{text}")
names = st.from_regex(r"\A[A-Z][A-Z0-9_]{0,12}\Z")
nameless = values.filter(lambda text: "=" not in text)
entries = st.lists(st.one_of(st.tuples(names, values).map("=".join), nameless, values.map(lambda text: f"={text}")))


@settings(max_examples=200)
@given(entries, entries, st.dictionaries(names, values))
def test_no_value_in_any_result(database: list[str], backend: list[str], files: dict[str, str]) -> None:
    said = shipped()
    said[0]["Config"]["Env"] = database
    said[2]["Config"]["Env"] = backend
    for one in said:
        one["Config"]["Cmd"] = one["Args"] = ["--requirepass", "canary-of-a-command"]
        one["Config"]["Labels"]["canary"] = "canary-of-a-label"
        one["State"]["Error"] = "canary-of-an-error"
        one["State"]["Health"] = {"Status": "healthy", "Log": [{"Output": "canary-of-a-check"}]}
    stack = choose(said)
    wanted = {found.service: _differences.Wanted("other:1", files) for found in stack.containers}
    differing = _differences.differences(stack, wanted, {})
    result = [
        [{**found.public(), "environment_names": []} for found in stack.containers],
        differing,
        _stack.problems(stack),
        [_differences.said_of(entry) for entry in differing],
        repr(stack),
        repr(wanted),
    ]
    assert "canary" not in json.dumps(result)
    # Names are what they are; a value never is taken for one.
    assert all("canary" not in name for found in stack.containers for name in found.public()["environment_names"])


@given(st.lists(values, min_size=1), st.text())
def test_redaction(secrets: list[str], around: str) -> None:
    text = around.join(secrets)
    assert "canary" not in _stack.redacted(text, [{str(i): value for i, value in enumerate(secrets)}])
