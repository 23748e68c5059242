# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""In what podman differs from docker.

The files under data/ and the messages here were written by podman 4.3 and podman-compose 1.0 and 1.5 for a stack of
stand-ins; values of secrets were exchanged for words.
"""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _compose, _differences, _discovery, _stack
from ansible_collections.mazevault.backup.plugins.module_utils._container import look_at_container
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, EngineAway, Missing, NotAllowed
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import Child, Result
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import Limits

DATA = Path(__file__).parent / "data"
INSPECT: list[dict[str, t.Any]] = json.loads((DATA / "podman-4.3-inspect.json").read_text(encoding="utf-8"))
DOCKERS: list[dict[str, t.Any]] = json.loads((DATA / "docker-20.10-inspect.json").read_text(encoding="utf-8"))
CONTROLLERS = '["cpuset","cpu","cpuacct","blkio","memory","devices","freezer","pids"]'
# As the package podman-docker has it.
SHIM = """#!/usr/bin/sh
[ -e /etc/containers/nodocker ] || \\
echo "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg." >&2
exec /usr/bin/podman "$@"
"""
Answer = tuple[int, str, str]


class Answers:
    """In place of programs: answers by the words that a command line begins with; and what it was called with."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {name.replace("_", " "): answer for name, answer in answers.items()}
        self.calls: list[list[str]] = []

    def run(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | bytes | None = None,
        timeout: float | None = None,
    ) -> Result:
        words = [os.path.basename(argv[0]), *argv[1:]]
        self.calls.append(words[1:])
        line = " ".join(words[1:])
        fitting = [answer for start, answer in self.answers.items() if line.startswith(start)]
        return Result(tuple(argv), *(fitting[-1] if fitting else (125, "", f"Error: unrecognized command {line}\n")))

    def start(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str] | None = None,
        stdin: t.IO[bytes] | int | None = None,
        stdout: t.IO[bytes] | int | None = None,
    ) -> Child:
        raise AssertionError(f"nothing is started here: {argv}")


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both programs, ahead of the machine's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "podman", "podman-compose"):
        install(folder / name, "#!/bin/sh\nexit 99\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def install(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def listing(containers: list[dict[str, t.Any]]) -> dict[str, Answer]:
    names = "".join(f"{one['Id']}\n" for one in containers)
    return {"ps": (0, names, ""), "container_inspect": (0, json.dumps(containers), "")}


def engine(name: str = "podman", **answers: Answer) -> Engine:
    return Engine(name, Answers(**answers))


def calls(of: Engine) -> list[list[str]]:
    return t.cast("Answers", of.processes).calls


def stack_of(containers: list[dict[str, t.Any]]) -> _stack.Stack:
    return _discovery.choose(map(_stack.container_of, containers))


# What it tells of containers.


def test_a_stack_of_podman_compose_is_understood() -> None:
    found = stack_of(INSPECT)
    assert (found.project, found.folder, found.files) == (
        "mazevault",
        "/opt/mazevault",
        ("/opt/mazevault/docker-compose.yml",),
    )
    assert found.roles == {
        "postgres": ["mazevault_postgres_1"],
        "redis": ["mazevault_redis_1"],
        "backend": ["mazevault_backend_1"],
        "ocsp": ["mazevault_ocsp_1"],
        "init_certs": ["mazevault_init-certs_1"],
    }
    database = found.postgres
    assert database is not None
    assert _stack.database_of(found)[:2] == ("mazevault", "mazevault")
    assert (database.image, database.health, database.restart_policy) == (
        "localhost/mazevault-lab/postgres:15",
        "healthy",
        "unless-stopped",
    )
    assert database.image_id.startswith("sha256:")
    (mount,) = database.mounts
    assert (mount["type"], mount["name"], mount["destination"]) == (
        "volume",
        "mazevault_pgdata",
        "/var/lib/postgresql/data",
    )
    assert _stack.problems(found) == []
    assert all(one.ready for one in found.of("postgres", "redis", "ocsp"))


def test_the_files_want_what_runs() -> None:
    """podman writes image names in full and ids without their algorithm; neither is a difference."""
    text = (DATA / "podman-compose-1.5-config.txt").read_text(encoding="utf-8")
    wanted = _compose.wanted_of_yaml(text)
    assert wanted is not None and wanted.keys() == {"backend", "init-certs", "ocsp", "postgres", "redis"}
    found = stack_of(INSPECT)
    ids = {
        said.image: _stack.with_algorithm(one["Image"])
        for one in INSPECT
        for said in wanted.values()
        if said.image and _stack.same_image(said.image, one["Config"]["Image"])
    }
    assert len(ids) == 5
    assert _differences.differences(found, wanted, ids) == []
    other = {**wanted, "backend": _differences.Wanted("mazevault-lab/mazevault-backend:1.0.18")}
    assert [one["what"] for one in _differences.differences(found, other, ids)] == ["image"]


@pytest.mark.parametrize(
    ("said", "status", "up"),
    [("configured", "created", False), ("stopped", "exited", False), ("stopping", "stopping", False)],
)
def test_states_that_only_podman_has(said: str, status: str, up: bool) -> None:
    entry = json.loads(json.dumps(next(one for one in INSPECT if one["Name"] == "mazevault_backend_1")))
    entry["State"].update(Status=said, Running=False)
    found = _stack.container_of(entry)
    assert (found.status, found.up) == (status, up)
    steps = _stack.steps_to_stop(stack_of([entry]), ["backend"])
    assert [step.verb for step in steps] == (["stop"] if said == "stopping" else [])


def test_the_database_s_container() -> None:
    entry = next(one for one in INSPECT if one["Name"] == "mazevault_postgres_1")
    image = {"Id": entry["Image"], "Config": {"Volumes": {"/var/lib/postgresql/data": {}}}}
    asked = engine(container_inspect=(0, json.dumps([entry]), ""), image_inspect=(0, json.dumps([image]), ""))
    found = look_at_container(asked, "mazevault_postgres_1")
    assert (found.identity, found.image, found.running) == (entry["Id"], entry["Image"], True)
    assert found.volumes == ("/var/lib/postgresql/data",)
    assert found.mounts[0][1].endswith("/storage/volumes/mazevault_pgdata/_data")


@pytest.mark.parametrize(
    "said",
    [
        "Error: inspecting object: no such container nosuch\n",
        "Error: inspecting object: nosuch: image not known\n",
        'Error: no container with name or ID "nosuch" found: no such container\n',
    ],
)
def test_what_is_missing(said: str) -> None:
    asked = engine(container_inspect=(125, "[]\n", said))
    with pytest.raises(Missing):
        asked.inspect(["nosuch"])


def test_other_faults_aren_t_taken_for_something_missing() -> None:
    said = "Error: container ca92 is running or paused, refusing to clean up: container state improper\n"
    asked = engine(stop=(125, "", said))
    with pytest.raises(BackupError, match="container state improper") as caught:
        asked.call("stop", "stop", "ca92")
    assert not isinstance(caught.value, Missing)


# What it is asked for.


def test_a_network_is_joined_by_the_process() -> None:
    """By the container's name podman refuses it for one in a pod."""
    entry = next(one for one in INSPECT if one["Name"] == "mazevault_postgres_1")
    answers: dict[str, Answer] = {"container_inspect": (0, json.dumps([entry]), "")}
    assert engine(**answers).network_of("x") == f"ns:/proc/{entry['State']['Pid']}/ns/net"
    assert engine("docker", **answers).network_of("x") == f"container:{entry['Id']}"


def test_removing_waits_for_nobody() -> None:
    asked = {name: engine(name, rm=(0, "", "")) for name in ("docker", "podman")}
    for one in asked.values():
        one.remove(["a"])
    assert calls(asked["docker"]) == [["rm", "--force", "--volumes", "a"]]
    assert calls(asked["podman"]) == [["rm", "--force", "--volumes", "--time=0", "a"]]


def test_limits_that_the_account_can_t_have() -> None:
    """Without the controller podman refuses even the share that nobody asked for."""
    wanted = Limits(cpus=1.5, memory="1b", io_weight=100)
    everything = ["--cpu-shares=512", "--cpus=1.5", "--memory=1b", "--blkio-weight=100"]
    assert wanted.options(engine("docker")) == everything
    assert wanted.options(engine(info=(0, CONTROLLERS + "\n", ""))) == everything
    assert wanted.options(engine(info=(0, '["cpu","io","memory"]\n', ""))) == everything
    few = engine(info=(0, '["memory","pids"]\n', ""))
    assert wanted.options(few) == ["--cpus=1.5", "--memory=1b"]
    assert Limits().options(few) == []
    assert len(calls(few)) == 1, "asked once"
    assert Limits().options(engine(info=(0, "null\n", ""))) == []


def test_the_account_s_own_number_where_it_isn_t_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, uid, more in (("podman", 1000, ["--userns=keep-id"]), ("podman", 0, []), ("docker", 1000, [])):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        asked = engine(name)
        ourselves = f"--user={uid}:{os.getegid()}"
        assert asked.as_ourselves(alone=True) == [ourselves, *more]
        assert asked.as_ourselves(alone=False) == (["--user=0:0"] if more else [ourselves])


# Which engine it is.


def test_a_docker_that_is_podman(programs: Path) -> None:
    install(programs / "docker", SHIM)
    assert [one.name for one in _compose.engines_of(None)] == ["podman"]
    with pytest.raises(BackupError, match="docker is podman under another name") as caught:
        Engine("docker").run("ps")
    assert caught.value.hint == "Set mazevault_runtime: podman"
    (programs / "docker").unlink()
    (programs / "docker").symlink_to(programs / "podman")
    assert not Engine("docker").installed
    assert Engine("podman").installed


def test_no_engine_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(BackupError, match="neither of the programs docker, podman"):
        _compose.engines_of(None)
    with pytest.raises(BackupError, match="the program podman isn't there"):
        _compose.engines_of("podman")


SILENT: Answer = (1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?\n")
REFUSED: Answer = (1, "", "permission denied while trying to connect to the Docker daemon socket at unix:///x.sock\n")
NOTHING: Answer = (0, "", "")


def test_the_engine_that_runs_it_is_taken() -> None:
    both = [engine("docker", ps=NOTHING), engine(**listing(INSPECT))]
    found = _compose.find(both)
    assert (found.engine.name, found.stack.project, found.unknown) == ("podman", "mazevault", ())
    other = [engine("docker", **listing(DOCKERS)), engine(ps=NOTHING)]
    assert _compose.find(other).engine.name == "docker"


def test_both_run_one() -> None:
    both = [engine("docker", **listing(DOCKERS)), engine(**listing(INSPECT))]
    with pytest.raises(BackupError, match=r"more than one engine runs MazeVault: docker .* and podman ") as caught:
        _compose.find(both)
    assert "mazevault_runtime" in str(caught.value.hint)
    assert _compose.find(both[1:]).engine.name == "podman"


def test_both_tell_of_the_same_containers() -> None:
    """Docker's program can be set to talk to podman's service."""
    both = [engine("docker", **listing(INSPECT)), engine(**listing(INSPECT))]
    assert _compose.find(both).engine.name == "podman"


@pytest.mark.parametrize(("said", "error"), [(SILENT, EngineAway), (REFUSED, NotAllowed)])
def test_one_of_them_can_t_be_asked(said: Answer, error: type[BackupError]) -> None:
    found = _compose.find([engine("docker", ps=said), engine(**listing(INSPECT))])
    assert found.engine.name == "podman"
    assert len(found.unknown) == 1 and found.unknown[0].startswith("docker: ")
    with pytest.raises(error):
        _compose.find([engine("docker", ps=said), engine(ps=NOTHING)])


def test_neither_has_one() -> None:
    with pytest.raises(_stack.NotFound, match=r"docker: project: .*; podman: project: ") as caught:
        _compose.find([engine("docker", ps=NOTHING), engine(ps=NOTHING)])
    assert "become_user" in str(caught.value.hint)
    with pytest.raises(_stack.NotFound, match=r"\Aproject: ") as one:
        _compose.find([engine("docker", ps=NOTHING)])
    assert "become_user" not in str(one.value.hint)


# Its compose program.


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("podman version 4.3.1\n['podman', '--version', '']\nusing podman version: 4.3.1\n"
         "podman-composer version  1.0.3\npodman --version \nexit code: 0\n", "1.0.3"),
        ("podman version 4.3.1\npodman-compose version 1.5.0\n", "1.5.0"),
    ],
)  # fmt: skip
def test_the_version_of_podman_compose(said: str, version: str) -> None:
    found = _compose.find_compose(engine(**{"--version": (0, said, "")}))
    assert found is not None
    assert (found.name, found.version, found.careful) == ("podman-compose", version, False)
    project = _compose.Project("mazevault", "/opt/mazevault", ("/opt/mazevault/docker-compose.yml",))
    found.run(project, "config")
    assert calls(found.engine)[-1] == [
        "--project-name", "mazevault", "--file", "/opt/mazevault/docker-compose.yml", "config",
    ]  # fmt: skip


def test_podman_compose_is_another_program_s_name_without_the_one_beside(programs: Path) -> None:
    (programs / "podman-compose").unlink()
    found = _compose.find_compose(engine(compose_version=(0, "2.27.0\n", "")))
    assert found is not None
    assert (found.name, found.version, found.careful) == ("podman compose", "2.27.0", True)


def test_nothing_is_pulled() -> None:
    """The older program's --pull takes no value and pulls; `never` would be the name of a service."""
    known = _compose.Compose(engine(), "podman-compose", ("podman-compose",), "1", careful=False)
    older, newer = ((DATA / f"podman-compose-{version}-up-help.txt").read_text() for version in ("1.0", "1.5"))
    least = ["up", "--detach", "--no-recreate", "--no-build"]
    assert known.up_command(["redis"], older) == [*least, "redis"]
    assert known.up_command(["redis"], newer)[:4] == least
