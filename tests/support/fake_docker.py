# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test equipment: programs that answer as docker and docker-compose do, from a file in the test's own folder."""

from __future__ import annotations

import hashlib
import json
import sys
import typing as t
from collections.abc import Mapping, Sequence
from pathlib import Path

Said = dict[str, t.Any]
_BINDS = "/var/lib/docker/volumes"

# Answers out of state.json, which each call reads and writes; calls.jsonl is what was asked of it.
_PROGRAM = r"""#!{python}
import json, os, pathlib, sys
top = pathlib.Path({top!r})
argv = [word for word in sys.argv[1:] if word != "--"]
before = (top / "state.json").read_text()
state = json.loads(before)
with (top / "calls.jsonl").open("a") as stream:
    stream.write(json.dumps([{name!r}, *argv]) + "\n")


def end(rc, out="", err=""):
    if json.dumps(state) != before:
        new = top / ("state." + str(os.getpid()))
        new.write_text(json.dumps(state))
        new.rename(top / "state.json")
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(rc)


def compose(words):
    files = []
    while words and words[0].startswith("--"):
        if words[0] in ("--file", "--project-name", "--project-directory"):
            files += words[1:2] if words[0] == "--file" else []
            words = words[2:]
        else:
            end(1, err="unknown flag: " + words[0] + "\n")
    if words[:1] == ["version"]:
        end(0, state["compose"]["version"] + "\n")
    if words == ["config", "--services"]:
        end(0, "".join(name + "\n" for name in state["compose"]["services"]))
    if words[:1] == ["config"]:
        if words[1:] and not state["compose"]["json"]:
            end(1, err="Unknown option: --format\n")
        if words[1:]:
            end(0, json.dumps({{"name": "x", "services": state["compose"]["services"]}}))
        text = "services:\n"
        for name, said in state["compose"]["services"].items():
            text += "  " + name + ":\n    environment:\n"
            pairs = said.get("environment", {{}}).items()
            text += "".join("      " + key + ": " + value + "\n" for key, value in pairs)
            text += "    image: " + said["image"] + "\n"
        end(0, text + "version: '3.8'\n")
    if words == ["up", "--help"]:
        end(0, "      --no-build    Don't\n" + ("      --pull string  Pull\n" if state["compose"]["pull"] else ""))
    if words[:1] == ["up"]:
        if state["compose"].get("fails"):
            end(1, err=state["compose"]["fails"])
        names = [word for word in words[1:] if not word.startswith("-") and word != "never"]
        for name in names:
            state["containers"].append(state["spare"][name])
        end(0)
    end(1, err="unknown command\n")


if {name!r} == "docker-compose":
    compose(argv)
if state["away"] > 0:
    state["away"] -= 1
    end(1, err="Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n")
if argv[:1] == ["version"]:
    end(0, json.dumps({{"Client": {{"Version": "28.2.2"}}, "Server": {{"Version": "28.2.1"}}}}) + "\n")
if argv[:1] == ["compose"]:
    if not state["compose"]["plugin"]:
        end(1, err="docker: 'compose' is not a docker command.\n")
    compose(argv[1:])
if argv[:1] == ["ps"]:
    # What falls does so once, after it was started.
    for one in state["containers"]:
        if one["Name"].lstrip("/") in state["falls"] and one["State"]["Status"] == "running":
            state["falls"].remove(one["Name"].lstrip("/"))
            one["State"].update(Status="exited", Running=False, ExitCode=137)
    end(0, "".join(one["Id"] + "\n" for one in state["containers"]))
if argv[1:2] == ["inspect"]:
    found, missing = [], []
    for name in argv[3:] if argv[2] == "--" else argv[2:]:
        if argv[0] == "image":
            one = [dict(image) for image in state["images"] if name in (image["Id"], *image["RepoTags"])]
        else:
            one = [said for said in state["containers"] if name in (said["Id"], said["Name"].lstrip("/"))]
        found += one
        missing += [] if one else [name]
    errors = "".join("Error: No such object: " + name + "\n" for name in missing)
    end(1 if missing else 0, json.dumps(found) + "\n", errors)
if argv[:1] and argv[0] in ("stop", "start", "unpause"):
    for name in argv[1:]:
        (one,) = [said for said in state["containers"] if said["Name"] == "/" + name]
        up = argv[0] != "stop"
        paused = one["State"]["Paused"]
        if argv[0] == "start" and paused:
            end(1, err="Error response from daemon: cannot start a paused container, try unpause instead\n")
        one["State"].update(
            Status="running" if up else "exited", Running=up, Paused=False, Restarting=False, ExitCode=0 if up else 137
        )
        if up and "Health" in one["State"]:
            one["State"]["Health"]["Status"] = state.get("health", "healthy")
    end(0, "\n".join(argv[1:]) + "\n")
end(1, err="docker: '" + " ".join(argv) + "' is not known here\n")
"""


def container(
    service: str,
    image: str,
    *,
    name: str = "",
    project: str = "mazevault",
    folder: str = "/opt/mazevault",
    status: str = "running",
    health: str = "",
    environment: Mapping[str, str] | None = None,
    version: int = 2,
    number: int = 1,
    oneoff: bool = False,
    image_id: str = "",
    restarts: int = 0,
    exit_code: int = 0,
    volume: str = "",
    destination: str = "/data",
    command: Sequence[str] = ("docker-entrypoint.sh", "server"),
    labels: Mapping[str, str] | None = None,
    networks: Mapping[str, Sequence[str]] | None = None,
    links: Sequence[str] = (),
    published: Mapping[str, str] | None = None,
) -> Said:
    """One entry of `docker container inspect`, with the labels of that compose version (0: made by hand).

    Args:
        labels: more of them.
        networks: network -> names there; unset means the project's own, with the service's name.
        published: port inside, as `5432/tcp` -> port of the host.
    """
    separator = "-" if version != 1 else "_"
    name = name or f"{project}{separator}{service}{separator}{number}"
    marks = {"org.opencontainers.image.title": "an image's own label", **(labels or {})}
    if version:
        marks |= {
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.container-number": str(number),
            "com.docker.compose.oneoff": str(oneoff),
            "com.docker.compose.config-hash": "0" * 64,
            "com.docker.compose.project.working_dir": folder,
            # Version 1 writes the names as they were given to it.
            "com.docker.compose.project.config_files": f"{folder}/docker-compose.yml"
            if version == 2
            else "docker-compose.yml",
            "com.docker.compose.version": "2.27.0" if version == 2 else "1.29.2",
        }
    state = {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": False,
        "Dead": False,
        "Pid": 4711,
        "ExitCode": exit_code,
        "Error": "",
        "StartedAt": "2026-11-23T02:00:00.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    if health:
        state["Health"] = {"Status": health, "FailingStreak": 0, "Log": [{"ExitCode": 0, "Output": "log of a check"}]}
    digest = hashlib.sha256(f"{project}/{service}/{number}/{name}".encode()).hexdigest()
    return {
        "Id": digest,
        "Created": "2026-11-20T10:00:00.000000001Z",
        "Path": command[0],
        "Args": [*command[1:]],
        "State": state,
        "Image": image_id or f"sha256:{'a' * 64}",
        "Name": f"/{name}",
        "RestartCount": restarts,
        "HostConfig": {
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "Links": [*links] or None,
        },
        "Mounts": [
            {
                "Type": "volume",
                "Name": volume or f"{project}_{service}",
                "Source": f"{_BINDS}/{volume or f'{project}_{service}'}/_data",
                "Destination": destination,
                "Driver": "local",
                "Mode": "z",
                "RW": True,
                "Propagation": "",
            }
        ],
        "Config": {
            "Image": image,
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
            "Cmd": [*command[1:]],
            "Labels": marks,
        },
        "NetworkSettings": {
            "Ports": {
                **{
                    inside: [{"HostIp": "0.0.0.0", "HostPort": port}]
                    for inside, port in (published or {"8443/tcp": "8443"}).items()
                },
                "9000/tcp": None,
            },
            "Networks": {
                network: {"Aliases": [*names], "IPAddress": f"172.20.0.{int(digest[:2], 16)}"}
                for network, names in (networks or {f"{project}_internal": [service]}).items()
            },
        },
    }


class FakeDocker:
    """A folder with the programs `docker` and, for version 1, `docker-compose`; state is what they tell.

    Args:
        compose: version of the compose program; empty for none. From 2 on it is the engine's plugin.
    """

    def __init__(self, folder: Path, containers: Sequence[Said] = (), *, compose: str = "2.27.0") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        old = compose.startswith("1.")
        self.state: Said = {
            "away": 0,
            "falls": [],
            "containers": list(containers),
            "images": [],
            "spare": {},
            "compose": {
                "version": compose,
                "plugin": bool(compose) and not old,
                "json": not old,
                "pull": not old,
                "services": {},
            },
        }
        for name in ["docker", *(["docker-compose"] if old else [])]:
            path = folder / name
            path.write_text(_PROGRAM.format(python=sys.executable, top=str(folder), name=name), encoding="utf-8")
            path.chmod(0o700)
        self.write()

    def write(self) -> None:
        (self.folder / "state.json").write_text(json.dumps(self.state), encoding="utf-8")

    def read(self) -> Said:
        self.state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        return self.state

    @property
    def env(self) -> dict[str, str]:
        """Only this folder is looked through for programs."""
        return {"PATH": str(self.folder)}

    @property
    def calls(self) -> list[list[str]]:
        """What was asked of the programs, in order."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def acts(self) -> list[list[str]]:
        """Those of the calls that change something."""
        return [
            call
            for call in self.calls
            if (call[1] in ("stop", "start", "unpause", "rm", "run", "exec") or "up" in call) and call[-1] != "--help"
        ]

    def status(self) -> dict[str, str]:
        return {said["Name"].lstrip("/"): said["State"]["Status"] for said in self.read()["containers"]}
