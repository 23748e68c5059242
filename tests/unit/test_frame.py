# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's metadata, its files and its documents agree with one another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
LINKS = TOP / "playbooks/collections/ansible_collections/mazevault/backup"
MODULES = sorted(path.stem for path in (TOP / "plugins/modules").glob("*.py"))
DOCUMENTS = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("roles/*/README.md")])


def load(name: str) -> dict:
    return yaml.safe_load((TOP / name).read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """The names by which a link can point to a heading."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_the_collection_needs_no_other() -> None:
    galaxy = load("galaxy.yml")
    assert (galaxy["namespace"], galaxy["name"]) == ("mazevault", "backup")
    assert galaxy["dependencies"] == {}


def test_the_files_that_galaxy_yml_names_exist() -> None:
    assert (TOP / load("galaxy.yml")["readme"]).is_file()


def test_requirements_and_runtime_want_the_same_ansible() -> None:
    oldest = re.search(r"^ansible-core>=([\d.]+)$", (TOP / "requirements.txt").read_text(encoding="utf-8"), re.M)
    assert oldest, "requirements.txt names no oldest ansible-core"
    assert load("meta/runtime.yml")["requires_ansible"] == f">={oldest[1]}.0"


def test_the_action_group_holds_every_module_and_nothing_else() -> None:
    group = load("meta/runtime.yml")["action_groups"]["backup"]
    assert group == sorted(set(group)), "sorted, each once"
    assert group == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_documents_itself(module: str) -> None:
    text = (TOP / f"plugins/modules/{module}.py").read_text(encoding="utf-8")
    found = dict(re.findall(r'^(DOCUMENTATION|EXAMPLES|RETURN) = r"""(.*?)"""', text, re.M | re.S))
    assert sorted(found) == ["DOCUMENTATION", "EXAMPLES", "RETURN"]
    assert yaml.safe_load(found["DOCUMENTATION"])["module"] == module
    assert f"mazevault.backup.{module}:" in found["EXAMPLES"]
    assert yaml.safe_load(found["RETURN"])


def test_a_checkout_finds_the_collection_through_four_links() -> None:
    links = {path.name: path.resolve() for path in LINKS.iterdir()}
    assert links == {name: TOP / name for name in ("galaxy.yml", "meta", "plugins", "roles")}
    assert all(path.is_symlink() for path in LINKS.iterdir())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.S)
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        name, _hash, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        path = (document.parent / name) if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def test_the_readme_shows_both_first_commands() -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


BREACHES = {
    "roles/r/tasks/main.yml": "- ansible.builtin.command: {argv: ['true']}\n  environment: {A: b}\n",
    "roles/r/tasks/fetch.yml": "- block:\n    - ansible.builtin.fetch: {src: a, dest: b}\n",
    "roles/r/tasks/slurp.yml": "- slurp: {src: a}\n",
    "roles/r/tasks/copy.yml": "- ansible.builtin.copy: {src: a, dest: b}\n",
    "roles/r/tasks/ignore.yml": "- ansible.builtin.command: 'true'\n  ignore_errors: true\n",
    "playbooks/p.yml": "- tasks:\n    - ansible.builtin.include_role: {name: r, tasks_from: open.yml}\n",
    "plugins/module_utils/_u.py": "subprocess.run('x', shell=True)\n",
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_habit_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(BREACHES[name], encoding="utf-8")
    done = habits(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{name}:")


def test_kept_habits_pass(tmp_path: Path) -> None:
    (tmp_path / "roles/r/tasks").mkdir(parents=True)
    (tmp_path / "roles/r/tasks/main.yml").write_text(
        "- ansible.builtin.include_role: {name: r, tasks_from: open}\n"
        "- ansible.builtin.copy: {content: 'environment, fetch, shell=True', dest: b, mode: '0600'}\n",
        encoding="utf-8",
    )
    done = habits(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def habits(top: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOP / "scripts/check_habits.py"), str(top)], capture_output=True, text=True, check=False
    )
