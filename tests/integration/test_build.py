# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection holds what users need and nothing else, and works where only ansible-core is installed."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
MODULES = yaml.safe_load((TOP / "meta/runtime.yml").read_text(encoding="utf-8"))["action_groups"]["backup"]
PLAYBOOKS = ("accept_ledger", "backup", "init", "pin_policy", "restore_database", "rollback_database", "verify")


@dataclass(frozen=True)
class Site:
    """A place with its own home, where nothing of this checkout can be found."""

    bin: Path
    top: Path

    def run(self, program: str, *args: str | Path) -> str:
        env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(self.top / "home"),
            "ANSIBLE_HOME": str(self.top / "home/.ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
        }
        argv = [str(self.bin / program), *map(str, args)]
        done = subprocess.run(
            argv, cwd=self.top, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, f"{program} {' '.join(argv[1:])}: exit status {done.returncode}\n{done.stderr}"
        return done.stdout

    @property
    def collections(self) -> Path:
        return self.top / "collections"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With the demo's environment (requirements.txt and nothing else), made here if there is none."""
    top = tmp_path_factory.mktemp("site")
    bin_folder = TOP / ".venv/demo/bin"
    if not (bin_folder / "ansible-galaxy").exists():
        bin_folder = top / "venv/bin"
        subprocess.run([TOP / "scripts/make-venv.sh", bin_folder.parent, TOP / "requirements.txt"], check=True)
    (top / "home").mkdir()
    (top / "collections").mkdir()
    return Site(bin=bin_folder, top=top)


@pytest.fixture(scope="module")
def tarball(site: Site) -> Path:
    export, out = site.top / "export", site.top / "out"
    subprocess.run([TOP / "scripts/export-tree.sh", export], check=True)
    site.run("ansible-galaxy", "collection", "build", export, "--output-path", out)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(site: Site, tarball: Path) -> Path:
    site.run("ansible-galaxy", "collection", "install", tarball, "-p", site.collections, "--force", "--offline")
    return site.collections / "ansible_collections/mazevault/backup"


@pytest.fixture(scope="module")
def names(tarball: Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive.getmembers()}


def test_the_name_tells_the_version(tarball: Path) -> None:
    version = yaml.safe_load((TOP / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert tarball.name == f"mazevault-backup-{version}.tar.gz"


def test_nothing_of_the_workshop_is_packed(names: set[str]) -> None:
    files = {"CHANGELOG.md", "CONTRIBUTING.md", "COPYING", "FILES.json", "MANIFEST.json", "README.md"}
    folders = {"changelogs", "docs", "extensions", "meta", "playbooks", "plugins", "roles"}
    assert {name.split("/")[0] for name in names} <= files | folders
    assert not {name for name in names if name.startswith("playbooks/collections")}
    assert not {name for name in names if "__pycache__" in name or "/." in name}


def test_what_users_need_is_packed(names: set[str]) -> None:
    wanted = {"README.md", "COPYING", "meta/runtime.yml"}
    wanted |= {f"plugins/modules/{module}.py" for module in MODULES}
    wanted |= {f"playbooks/{playbook}.yml" for playbook in PLAYBOOKS}
    assert wanted <= names


def test_the_export_holds_uncommitted_work_and_no_links_for_the_checkout(site: Site, tarball: Path) -> None:
    export = site.top / "export"
    assert (export / "galaxy.yml").read_bytes() == (TOP / "galaxy.yml").read_bytes()
    assert not (export / "playbooks/collections").exists()
    assert not (export / ".venv").exists()
    assert not (export / ".git").exists()


def test_what_was_installed_is_what_was_built(site: Site, installed: Path) -> None:
    listed = json.loads(site.run("ansible-galaxy", "collection", "list", "--format", "json"))
    places = [folder for folder, found in listed.items() if "mazevault.backup" in found]
    assert places == [str(site.collections / "ansible_collections")]
    site.run("ansible-galaxy", "collection", "verify", "--offline", "mazevault.backup")
    assert installed.is_dir()


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_an_installed_playbook_parses(site: Site, installed: Path, playbook: str) -> None:
    shown = site.run("ansible-playbook", "-i", "localhost,", f"mazevault.backup.{playbook}", "--syntax-check")
    assert shown.strip() == f"playbook: {installed}/playbooks/{playbook}.yml"


@pytest.mark.parametrize("module", MODULES)
def test_an_installed_module_shows_its_documentation(site: Site, installed: Path, module: str) -> None:
    name = f"mazevault.backup.{module}"
    documents = json.loads(site.run("ansible-doc", "--type", "module", "--json", name))
    assert name in documents, "not installed, or its documentation can't be read"
    shown = documents[name]
    assert shown["doc"]["filename"] == str(installed / f"plugins/modules/{module}.py")
    assert shown["doc"]["short_description"]
    assert name in shown["examples"]
    assert shown["return"]
