# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found on odd sites, one file each under data/sites: the finding with its reasons, or the one question.

A container there is what `support.fake_docker.container` takes; from it comes what the engine would say.
"""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.modules import mazevault_stack_info
from support.fake_docker import FakeDocker, Said, container

SITES = {path.stem: path for path in sorted((Path(__file__).parent / "data/sites").glob("*.yml"))}
Site = dict[str, t.Any]


def site_of(name: str) -> Site:
    return t.cast("Site", yaml.safe_load(SITES[name].read_text(encoding="utf-8")))


def engine_of(site: Site, top: Path) -> FakeDocker:
    """The site's engine and files; its folders lie under the test's own."""
    containers: list[Said] = []
    for number, given in enumerate(site["containers"]):
        environment = {**given.get("environment", {}), "SITE_PASSWORD": f"canary-of-container-{number}"}
        folder = top / str(given.get("folder", "/opt/mazevault")).lstrip("/")
        containers.append(container(**{**given, "environment": environment, "folder": str(folder)}))
        if given.get("version", 2):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "docker-compose.yml").touch()
    for name, text in site.get("files", {}).items():
        path = top / "opt/mazevault" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    if site.get("engine") == "podman":
        for one in containers:
            as_podman_says(one)
    return FakeDocker(top / "bin", containers, compose=site.get("compose", "2.27.0"))


def as_podman_says(one: Said) -> None:
    labels = one["Config"]["Labels"]
    for word in ("project", "config-hash"):
        if f"com.docker.compose.{word}" in labels:
            labels[f"io.podman.compose.{word}"] = labels.pop(f"com.docker.compose.{word}")
    one["Name"] = one["Name"].lstrip("/")
    one["Image"] = one["Image"].partition(":")[2]
    one["State"]["Status"] = "stopped" if one["State"]["Status"] == "exited" else one["State"]["Status"]


def outcome(site: Site, top: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Said, str]:
    """(result or error, all that could be printed of it); paths as on the site."""
    monkeypatch.setenv("PATH", engine_of(site, top).env["PATH"])
    given = site.get("given", {})
    home = str(top / given.get("home", "/nowhere").lstrip("/"))
    params = {"runtime": "docker", "project": None, "services": None, "required": True, "timeout": 1.0, "wait": 0.0}
    module = SimpleNamespace(params={**params, **given, "home": home}, check_mode=False)
    result: Said
    try:
        result = mazevault_stack_info._act(t.cast("t.Any", module))
    except BackupError as exc:
        result = {"msg": exc.msg, "hint": exc.hint, "details": exc.details}
    text = json.dumps(result).replace(str(top), "")
    return t.cast("Said", json.loads(text)), text


@pytest.mark.parametrize("name", SITES)
def test_site(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of(name)
    expected = site["expected"]
    found, text = outcome(site, tmp_path, monkeypatch)
    assert "canary" not in text
    if "question" in expected:
        assert "msg" in found, found
        assert [words for words in expected["question"] if words not in found["msg"]] == [], found["msg"]
        assert [words for words in expected["hint"] if words not in found["hint"]] == [], found["hint"]
        return
    assert "msg" not in found, found
    assert (found["project"], found["roles"]) == (expected["project"], expected["roles"])
    told = (found["postgres"] or {}).get("user"), (found["postgres"] or {}).get("database")
    assert told == (expected.get("user"), expected.get("database"))
    assert len(found["problems"]) == len(expected["worth"]), found["problems"]
    for words, problem in zip(expected["worth"], found["problems"]):
        assert words in problem
    assert [words for words in expected.get("ask", ()) if words not in found["ask"]] == [], found["ask"]
    assert bool(found["ask"]) == ("ask" in expected)
    assert found["why"] and expected.get("why", found["why"]) == found["why"]
    whys = {one["role"]: one["why"] for one in found["containers"] if one["role"]}
    assert all(whys.values())
    assert {role: whys[role] for role in expected.get("whys", ())} == expected.get("whys", {})


def test_there_are_sites_of_every_kind() -> None:
    sites = [site_of(name) for name in SITES]
    assert len(sites) >= 20
    assert {site["generation"] for site in sites if "generation" in site} == {"client", "mazevault", "bare"}
    assert {"question", "ask", "worth"} <= {key for site in sites for key in site["expected"]}
    assert all(site["about"].strip() for site in sites)


def test_a_site_that_would_leak_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look for canaries itself: a secret in a name is shown, and found."""
    site = site_of("shipped")
    site["containers"][0]["environment"]["canary_NAME"] = "x"
    assert "canary" in outcome(site, tmp_path, monkeypatch)[1]
