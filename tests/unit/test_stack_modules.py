# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules for container stacks do, on an engine that answers as docker does."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from support.fake_docker import FakeDocker, Said, container
from support.modules import Outcome, run_module

INFO, STACK, KEYS = "mazevault_stack_info", "mazevault_stack", "keys_in_use"
PASSWORD = "canary-of-a-database-password"
KEY = "canary-of-a-master-key"
DATABASE = {"POSTGRES_USER": "vault_owner", "POSTGRES_DB": "vault_data", "POSTGRES_PASSWORD": PASSWORD}
APPLICATION = {
    "MAZEVAULT_MASTER_KEY": KEY,
    "DATABASE_URL": f"postgres://vault_owner:{PASSWORD}@postgres:5432/vault_data",
}
IMAGES = "ghcr.io/axiemirror/mazevault-"


def stack(home: Path, *, version: int = 2, **states: str) -> list[Said]:
    """The shipped compose file's containers; keywords give states other than running."""

    def one(service: str, image: str, **more: t.Any) -> Said:
        status = states.get(service.replace("-", "_"), "running")
        return container(service, image, status=status, folder=str(home), version=version, **more)

    data = {"volume": "mazevault_pgdata", "destination": "/var/lib/postgresql/data"}
    return [
        one("postgres", "postgres:15-alpine", environment=DATABASE, health="healthy", **data),
        one("redis", "redis:7-alpine", environment={"REDIS_PASSWORD": PASSWORD}, health="healthy"),
        one("backend", f"{IMAGES}backend:1.0.17", environment=APPLICATION, health="healthy"),
        one("ocsp", f"{IMAGES}ocsp:1.0.17", environment=APPLICATION),
        one("frontend", f"{IMAGES}frontend:1.0.17"),
        one("docs", f"{IMAGES}docs:1.0.17"),
        container("init-certs", f"{IMAGES}init-certs:1.0.17", status="exited", folder=str(home), version=version),
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/docker-compose.yml").write_text("services: {}\n", encoding="utf-8")
    return tmp_path / "home"


def services(containers: list[Said]) -> dict[str, t.Any]:
    """The files that would make these containers, as `config` tells of them."""
    found = {}
    for said in containers:
        environment = dict(entry.split("=", 1) for entry in said["Config"]["Env"])
        name = said["Config"]["Labels"]["com.docker.compose.service"]
        found[name] = {"image": said["Config"]["Image"], "environment": environment}
    return found


def engine(tmp_path: Path, containers: list[Said], *, compose: str = "2.27.0") -> FakeDocker:
    fake = FakeDocker(tmp_path / "bin", containers, compose=compose)
    fake.state["images"] = [
        {"Id": f"sha256:{'a' * 64}", "RepoTags": [], "RepoDigests": [f"{IMAGES}backend@sha256:{'b' * 64}"]}
    ]
    fake.state["compose"]["services"] = services(containers)
    fake.write()
    return fake


def run(fake: FakeDocker, module: str, home: Path, *, ok: bool = True, check: bool = False, **params: t.Any) -> Outcome:
    done = run_module(module, {"home": str(home), **params}, check=check, diff=True, env=fake.env)
    assert (done.rc == 0) is ok, (done.result, done.stderr)
    said = json.dumps(done.result) + done.stderr
    assert PASSWORD not in said and KEY not in said
    return done


def documented(module: str, part: str) -> t.Any:
    path = Path(__file__).resolve().parents[2] / f"plugins/modules/{module}.py"
    return yaml.safe_load(path.read_text(encoding="utf-8").split(f'{part} = r"""', 1)[1].split('"""', 1)[0])


def test_info_tells_what_is_there(home: Path, tmp_path: Path) -> None:
    found = run(engine(tmp_path, stack(home)), INFO, home).result
    assert (found["found"], found["runtime"], found["project"], found["home"]) == (
        True,
        "docker",
        "mazevault",
        str(home),
    )
    assert found["engine_version"] == "28.2.1"
    assert found["compose"] == {
        "program": "docker compose",
        "version": "2.27.0",
        "files": [f"{home}/docker-compose.yml"],
    }
    assert found["postgres"] == {
        "container": "mazevault-postgres-1",
        "state": "running",
        "image": "postgres:15-alpine",
        "user": "vault_owner",
        "database": "vault_data",
        "said_by": "DATABASE_URL",
    }
    assert found["database"]["host"] == "postgres" and found["ask"] == ""
    assert found["why"] == f"image {IMAGES}backend"
    users = ["mazevault-backend-1", "mazevault-ocsp-1"]
    assert found["stop"] == [str(tmp_path / "bin/docker"), "stop", *users]
    assert found["start"] == [str(tmp_path / "bin/docker"), "start", *users]
    assert found["problems"] == [] and found["differences"] == []
    assert list(found["roles"]) == ["postgres", "redis", "backend", "ocsp", "frontend", "docs", "init_certs"]
    backend = next(one for one in found["containers"] if one["role"] == "backend")
    assert backend["environment_names"] == ["DATABASE_URL", "MAZEVAULT_MASTER_KEY"]
    assert backend["repo_digests"] == [f"{IMAGES}backend@sha256:{'b' * 64}"]
    assert backend["ports"] == [{"container": "8443/tcp", "host_ip": "0.0.0.0", "host": "8443"}]
    assert backend["image_tag"] == "1.0.17"


def test_what_info_returns_is_documented(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home))
    fake.state["compose"]["services"]["ocsp"]["image"] = f"{IMAGES}ocsp:1.0.18"
    fake.write()
    found = run(fake, INFO, home).result
    promised = documented(INFO, "RETURN")
    assert found.keys() - {"changed", "invocation"} == promised.keys()
    for name in ("compose", "postgres"):
        assert found[name].keys() == promised[name]["contains"].keys()
    for name in ("containers", "differences"):
        assert found[name][0].keys() == promised[name]["contains"].keys()
    assert run(fake, STACK, home, state="stopped").result.keys() - {"changed", "invocation", "diff"} == (
        documented(STACK, "RETURN").keys()
    )


def test_nothing_here_is_an_error_only_where_it_is_required(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, [])
    said = run(fake, INFO, home, ok=False, required=False).result["msg"]
    assert "docker-compose.yml is there, but no container" in said and "mazevault_runtime: host" in said
    (home / "docker-compose.yml").unlink()
    assert "no compose project that looks like MazeVault" in run(fake, INFO, home, ok=False).result["msg"]
    found = run(fake, INFO, home, required=False).result
    assert (found["found"], found["runtime"], found["start"]) == (False, "", []) and "looks like" in found["reason"]
    fake.state["away"] = 99
    fake.write()
    said = run(fake, INFO, home, ok=False, required=False, timeout=0.1).result["msg"]
    assert "the engine doesn't answer" in said


def test_info_waits_for_an_engine_that_is_restarted(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home))
    fake.state["away"] = 1
    fake.write()
    assert run(fake, INFO, home).result["found"]


def test_what_the_files_say_otherwise(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home))
    files = fake.state["compose"]["services"]
    files["backend"]["image"] = f"{IMAGES}backend:1.0.18"
    files["postgres"]["environment"]["POSTGRES_PASSWORD"] = f"{KEY}-new"
    files["redis"]["image"] = "docker.io/library/redis:7-alpine"
    fake.state["images"].append({"Id": f"sha256:{'c' * 64}", "RepoTags": [f"{IMAGES}ocsp:1.0.17"], "RepoDigests": []})
    fake.write()
    found = run(fake, INFO, home).result
    assert [(entry["service"], entry["what"], entry["names"]) for entry in found["differences"]] == [
        ("postgres", "environment", ["POSTGRES_PASSWORD"]),
        ("backend", "image", []),
        ("ocsp", "image_id", []),
    ]
    assert found["problems"] == [
        "mazevault-postgres-1 was made with other values than the files have now: POSTGRES_PASSWORD",
        f"mazevault-backend-1 runs {IMAGES}backend:1.0.17, the files say {IMAGES}backend:1.0.18",
        "mazevault-ocsp-1 runs an older image than the one that its tag stands for now",
    ]


@pytest.mark.parametrize("compose", ["1.29.2", ""])
def test_env_file_is_read_where_compose_tells_less(home: Path, tmp_path: Path, compose: str) -> None:
    fake = engine(tmp_path, stack(home, version=1), compose=compose)
    (home / ".env").write_text(
        f"IMAGE_TAG=1.0.18\nPOSTGRES_PASSWORD='{PASSWORD}'\nPOSTGRES_DB=other # was it\nMASTER_KEY={KEY}x\n", "utf-8"
    )
    found = run(fake, INFO, home).result
    names = {(entry["service"], *entry["names"]) for entry in found["differences"] if entry["what"] == "environment"}
    assert {
        ("postgres", "POSTGRES_DB"),
        ("backend", "MAZEVAULT_MASTER_KEY"),
        ("ocsp", "MAZEVAULT_MASTER_KEY"),
    } == names
    tags = {entry["service"]: entry["files"] for entry in found["differences"] if entry["what"] == "image"}
    # The program knows what IMAGE_TAG comes to in the files; alone, `.env` has to do.
    assert tags.get("backend") == (None if compose else f"{IMAGES}backend:1.0.18")
    assert (found["compose"] or {}).get("program") == ("docker-compose" if compose else None)


def test_stop_and_start(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home))
    application = [f"mazevault-{name}-1" for name in ("backend", "ocsp", "frontend", "docs")]
    planned = run(fake, STACK, home, state="stopped", check=True)
    assert planned.result["changed"] and not fake.acts()
    done = run(fake, STACK, home, state="stopped")
    assert (
        sorted(done.result["actions"])
        == sorted(f"stop {name}" for name in application)
        == sorted(planned.result["actions"])
    )
    assert done.result["diff"] == planned.result["diff"]
    assert done.result["states"] == dict.fromkeys(application, "exited")
    assert fake.status()["mazevault-postgres-1"] == "running"
    assert not run(fake, STACK, home, state="stopped").result["changed"]
    planned = run(fake, STACK, home, state="started", check=True)
    done = run(fake, STACK, home, state="started")
    assert done.result["actions"] == planned.result["actions"] == [f"start {name}" for name in application]
    assert done.result["diff"] == planned.result["diff"]
    assert set(done.result["states"].values()) == {"running"}
    again = run(fake, STACK, home, state="started")
    assert not again.result["changed"] and len(fake.acts()) == 2


def test_stores_come_first(home: Path, tmp_path: Path) -> None:
    down = dict.fromkeys(("postgres", "redis", "backend", "ocsp", "frontend", "docs"), "exited")
    fake = engine(tmp_path, stack(home, **down))
    run(fake, STACK, home, state="started")
    assert fake.acts() == [
        ["docker", "start", "mazevault-postgres-1", "mazevault-redis-1"],
        ["docker", "start", *(f"mazevault-{name}-1" for name in ("backend", "ocsp", "frontend", "docs"))],
    ]
    assert run(fake, STACK, home, state="stopped", roles="all").result["changed"]
    assert set(fake.status().values()) == {"exited"}
    stopped = fake.acts()[-1]
    assert stopped[2:][-1] == "mazevault-postgres-1"


def test_the_application_is_started_though_redis_stays_sick(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home, backend="exited"))
    fake.state["containers"][1]["State"]["Health"]["Status"] = "unhealthy"
    fake.write()
    done = run(fake, STACK, home, ok=False, state="started", timeout=1)
    assert "mazevault-redis-1 is unhealthy" in done.result["msg"]
    assert fake.status()["mazevault-backend-1"] == "running"


def test_paused_and_restarting(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home, backend="paused", ocsp="restarting", docs="created"))
    done = run(fake, STACK, home, state="started")
    assert done.result["actions"] == ["unpause mazevault-backend-1", "start mazevault-docs-1"]
    fake = engine(tmp_path / "2", stack(home, backend="paused", ocsp="restarting", docs="created", frontend="dead"))
    done = run(fake, STACK, home, state="stopped")
    assert sorted(done.result["actions"]) == ["stop mazevault-backend-1", "stop mazevault-ocsp-1"]


def test_an_engine_that_is_away_for_a_while(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home, backend="exited"))
    fake.state["away"] = 2
    fake.write()
    began = time.monotonic()
    assert run(fake, STACK, home, state="started").result["changed"]
    assert time.monotonic() - began > 2
    fake.state = fake.read()
    fake.state["away"] = 99
    fake.write()
    assert "doesn't answer" in run(fake, STACK, home, ok=False, state="started", timeout=0.1).result["msg"]


def test_what_an_engine_takes_down_again(home: Path, tmp_path: Path) -> None:
    """An engine that is restarted stops what was started a moment ago, and starts only some of it again."""
    fake = engine(tmp_path, stack(home, redis="exited", backend="exited", ocsp="exited"))
    fake.state["falls"] = ["mazevault-redis-1", "mazevault-backend-1"]
    fake.write()
    done = run(fake, STACK, home, state="started").result
    names = ["redis", "backend", "ocsp"]
    assert done["actions"] == [f"start mazevault-{name}-1" for name in names]
    assert {fake.status()[f"mazevault-{name}-1"] for name in names} == {"running"}


@pytest.mark.parametrize("compose", ["2.27.0", "1.29.2"])
def test_what_has_no_container_is_brought_up(home: Path, tmp_path: Path, compose: str) -> None:
    whole = stack(home, version=int(compose[0]))
    fake = engine(tmp_path, [], compose=compose)
    fake.state["compose"]["services"] = services(whole)
    fake.state["spare"] = {said["Config"]["Labels"]["com.docker.compose.service"]: said for said in whole}
    fake.write()
    planned = run(fake, STACK, home, state="started", check=True).result
    assert planned["changed"] and not fake.acts()
    done = run(fake, STACK, home, state="started").result
    names = ["postgres", "redis", "backend", "ocsp", "frontend", "docs"]
    assert done["actions"] == planned["actions"] == [f"up {name}" for name in names]
    program = ["docker", "compose"] if compose[0] == "2" else ["docker-compose"]
    where = ["--project-name", "mazevault", "--project-directory", str(home), "--file", f"{home}/docker-compose.yml"]
    limits = ["--no-recreate", "--no-build", *(["--pull", "never"] if compose[0] == "2" else [])]
    up = [*program, *where, "up", "--detach", *limits]
    assert fake.acts() == [[*up, *names[:2]], [*up, *names[2:]]]
    assert not run(fake, STACK, home, state="started").result["changed"]


def test_a_failing_compose_is_quoted_without_secrets(home: Path, tmp_path: Path) -> None:
    whole = stack(home)
    fake = engine(tmp_path, whole[:3])
    fake.state["compose"]["services"] = services(whole)
    fake.state["compose"]["fails"] = f"invalid interpolation: {KEY} {PASSWORD}\n"
    fake.write()
    done = run(fake, STACK, home, ok=False, state="started")
    assert (
        "docker compose: up ocsp frontend docs failed (exit status 1): invalid interpolation: *** ***"
        in done.result["msg"]
    )


def test_a_line_that_compose_quotes_is_no_secret_less(home: Path, tmp_path: Path) -> None:
    """Compose writes the line of `.env` that it doesn't understand into its message."""
    whole = stack(home)
    (home / ".env").write_text(f'MASTER_KEY={KEY}\nPOSTGRES_PASSWORD="{PASSWORD}-of-the-file\n', "utf-8")
    fake = engine(tmp_path, whole[:3])
    fake.state["compose"]["services"] = services(whole)
    fake.state["compose"]["fails"] = f'failed to read .env: line 2: unterminated quoted value "{PASSWORD}-of-the-file\n'
    fake.write()
    done = run(fake, STACK, home, ok=False, state="started")
    assert "line 2: unterminated quoted value ***" in done.result["msg"]


def test_nothing_to_start_from(tmp_path: Path) -> None:
    fake = engine(tmp_path, [])
    done = run(fake, STACK, tmp_path, ok=False, state="started")
    assert "mazevault_project" in done.result["msg"]
    (tmp_path / "docker-compose.yml").touch()
    fake = engine(tmp_path / "2", [], compose="")
    done = run(fake, STACK, tmp_path, ok=False, state="started")
    assert "Install a compose program" in done.result["msg"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"roles": ["database"]}, "roles: database: no such role"),
        ({"services": {"databse": "x"}}, "services: databse: no such role"),
        ({"services": {"postgres": "x"}}, "services: postgres: x: neither"),
        ({"timeout": 0}, "timeout: 0.0: not above 0"),
        ({"project": "other"}, "project: other: no container"),
    ],
)
def test_bad_parameters(home: Path, tmp_path: Path, params: dict[str, t.Any], words: str) -> None:
    fake = engine(tmp_path, stack(home))
    done = run(fake, STACK, home, ok=False, state="stopped", **params)
    assert words in done.result["msg"] and not fake.acts()


def test_one_role_alone(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home))
    done = run(fake, STACK, home, state="stopped", roles=["init-certs", "docs"])
    assert done.result["actions"] == ["stop mazevault-docs-1"]


def told(done: Outcome) -> dict[str, tuple[str, str]]:
    assert done.result["checks"][0].keys() <= documented(KEYS, "RETURN")["checks"]["contains"].keys()
    return {check["name"]: (check["verdict"], check.get("reason", "")) for check in done.result["checks"]}


def test_keys_in_use_are_those_of_the_files(home: Path, tmp_path: Path) -> None:
    done = run(engine(tmp_path, stack(home)), KEYS, home)
    assert done.result["verdict"] == "pass", done.result
    assert set(told(done)) == {f"mazevault-{name}-1" for name in ("postgres", "redis", "backend", "ocsp")}
    backend = next(check for check in done.result["checks"] if "backend" in check["name"])
    assert backend["observed"] == "the same as in the files: DATABASE_URL, MAZEVAULT_MASTER_KEY"


@pytest.mark.parametrize("compose", ["2.27.0", ""])
def test_a_file_that_was_edited_isnt_what_is_used(home: Path, tmp_path: Path, compose: str) -> None:
    fake = engine(tmp_path, stack(home), compose=compose)
    fake.state["compose"]["services"]["backend"]["environment"]["MAZEVAULT_MASTER_KEY"] = f"{KEY}-new"
    fake.write()
    (home / ".env").write_text(f"MASTER_KEY={KEY}-new\nPOSTGRES_PASSWORD={PASSWORD}\n", encoding="utf-8")
    done = run(fake, KEYS, home)
    assert done.result["verdict"] == "fail"
    verdict, reason = told(done)["mazevault-backend-1"]
    assert (verdict, reason.split(". ")[0]) == (
        "fail",
        "was made with other values than the files have now: MAZEVAULT_MASTER_KEY",
    )


def test_what_does_not_run_or_nobody_can_compare_is_unproven(home: Path, tmp_path: Path) -> None:
    fake = engine(tmp_path, stack(home, ocsp="exited"))
    del fake.state["compose"]["services"]["backend"]["environment"]["MAZEVAULT_MASTER_KEY"]
    fake.write()
    done = run(fake, KEYS, home)
    assert done.result["verdict"] == "unproven"
    found = told(done)
    assert found["mazevault-backend-1"] == ("unproven", "nothing says what its files want for MAZEVAULT_MASTER_KEY")
    assert "doesn't run" in found["mazevault-ocsp-1"][1]


def test_a_master_key_in_the_vault_is_as_old_as_the_process(home: Path, tmp_path: Path) -> None:
    containers = stack(home)
    for said in containers:
        said["Config"]["Env"] = [entry for entry in said["Config"]["Env"] if "MASTER_KEY" not in entry]
        said["State"]["StartedAt"] = "2026-11-23T10:00:00.123456789+01:00"
    fake, vault = engine(tmp_path, containers), home / "secrets.vault"
    assert "there is no vault" in told(run(fake, KEYS, home))["mazevault-backend-1"][1]
    vault.write_bytes(b"a vault")
    # 09:00 UTC it was started.
    for hour, verdict in (("08", "pass"), ("09:30", "unproven")):
        moment = dt.datetime.fromisoformat(f"2026-11-23T{hour if ':' in hour else hour + ':00'}:00+00:00").timestamp()
        os.utime(vault, (moment, moment))
        done = run(fake, KEYS, home, vault_file=str(vault))
        assert told(done)["mazevault-backend-1"][0] == verdict, done.result
