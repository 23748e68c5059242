# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others build on: variables, entry points, and what modules return, are what their documentation says."""

from __future__ import annotations

import ast
import re
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    REASONS,
)
from ansible_collections.mazevault.backup.plugins.module_utils._version import COLLECTION_VERSION
from support.flow import HOSTNAME, IN_PLAIN, Flow
from support.modules import run_module
from support.servers import PgServer, installations

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir() if path.is_dir())
MODULES = sorted(path.stem for path in (TOP / "plugins/modules").glob("*.py"))
PLAYED = sorted([*TOP.glob("playbooks/*.yml"), *TOP.glob("roles/*/tasks/*.yml")])
PYTHON_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "raw": object}
EVERYWHERE = {"changed", "diff", "failed", "msg", "invocation"}
# What Ansible itself takes from a module's result and reads as its own; since 2.21 it converts values to its own types.
READ_BY_ANSIBLE = {"ansible_facts", "ansible_job_id", "ansible_stats", "changed", "deprecations", "diff", "exception"}
READ_BY_ANSIBLE |= {"failed", "finished", "msg", "rc", "skipped", "unreachable", "warnings"}
# What Ansible itself adds to a result with the path of something that exists.
OF_A_PATH = {"uid", "gid", "owner", "group", "mode", "state", "size"}
VARIABLES = (
    "hosts home backup_root runtime postgres_runtime project services namespace api_url api_token_file database "
    "database_user components reason encryption recipients_data recipients_keys escrow_vault escrow_key "
    "restore_set confirm verify_level objectives locations identity_file set_key_file"
)


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def entry_points(role: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", load(TOP / f"roles/{role}/meta/argument_specs.yml")["argument_specs"])


def documented(module: str, part: str) -> t.Any:
    """DOCUMENTATION, EXAMPLES or RETURN of a module."""
    for node in ast.parse((TOP / f"plugins/modules/{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == part:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no {part}")


def tasks_in(value: t.Any) -> Iterator[dict[str, t.Any]]:
    """Every mapping in a playbook or task file, blocks and plays included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from tasks_in(inner)


def included_roles() -> list[tuple[str, str, str]]:
    """(file, role, tasks_from) of each role that a playbook or a role takes in; a template is tried with postgres."""
    found = []
    for path in PLAYED:
        for task in tasks_in(load(path)):
            for word in ("include_role", "import_role"):
                if asked := task.get(f"ansible.builtin.{word}"):
                    name = re.sub(r"\{\{ *__mazevault_component *\}\}", "postgres", asked["name"])
                    found.append((str(path.relative_to(TOP)), name, asked.get("tasks_from", "main")))
    return found


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    defaults = load(TOP / f"roles/{role}/defaults/main.yml")
    options = {name: option for entry in entry_points(role).values() for name, option in entry["options"].items()}
    assert {name: option["default"] for name, option in options.items() if not option.get("required")} == defaults
    wrong = [name for name, value in defaults.items() if not isinstance(value, PYTHON_TYPES[options[name]["type"]])]
    assert wrong == []
    prefix = "mazevault_" if role == "mazevault" else f"{role}_"
    assert [name for name in options if not name.startswith(prefix)] == []
    assert all(option["description"] for option in options.values())


@pytest.mark.parametrize("role", ROLES)
def test_each_entry_point_has_its_tasks(role: str) -> None:
    files = {path.stem for path in (TOP / f"roles/{role}/tasks").glob("*.yml")}
    assert "main" in entry_points(role) and entry_points(role).keys() <= files


@pytest.mark.parametrize(("path", "role", "tasks_from"), included_roles())
def test_what_is_included_is_an_entry_point(path: str, role: str, tasks_from: str) -> None:
    assert role.startswith("mazevault.backup."), path
    assert not Path(tasks_from).suffix, path
    assert tasks_from in entry_points(role.rpartition(".")[2]), path


def test_the_files_with_includes_are_seen() -> None:
    found = included_roles()
    assert {path for path, _role, _tasks in found} >= {f"playbooks/{path.name}" for path in TOP.glob("playbooks/*.yml")}
    assert ("playbooks/backup.yml", "mazevault.backup.mazevault_postgres", "backup") in found


def test_the_variables_that_others_set_are_options() -> None:
    options = entry_points("mazevault")["main"]["options"]
    assert {f"mazevault_{name}" for name in VARIABLES.split()} <= options.keys()


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_the_full_name(module: str) -> None:
    examples = documented(module, "EXAMPLES")
    assert examples and all(task["name"] for task in examples)
    options = documented(module, "DOCUMENTATION")["options"]
    own = [task[f"mazevault.backup.{module}"] for task in examples if f"mazevault.backup.{module}" in task]
    assert own, "it is called by its full name"
    fragments = [path.read_text(encoding="utf-8") for path in TOP.glob("plugins/doc_fragments/*.py")]
    shared = {name for fragment in fragments for name in re.findall(r"^  (\w+):$", fragment, re.M)}
    assert [name for params in own for name in params if name not in options and name not in shared] == []
    words = {word.rpartition(".")[0] for task in examples for word in task if "." in word}
    assert words <= {"mazevault.backup", "ansible.builtin"}


def test_the_version_is_that_of_galaxy_yml() -> None:
    assert load(TOP / "galaxy.yml")["version"] == COLLECTION_VERSION


def test_the_reasons_agree() -> None:
    assert tuple(documented("recovery_set", "DOCUMENTATION")["options"]["reason"]["choices"]) == REASONS
    source = ast.parse((TOP / "plugins/modules/recovery_set.py").read_text(encoding="utf-8"))
    assert REASONS in [tuple(ast.literal_eval(node)) for node in ast.walk(source) if _is_list_of_text(node)]
    preflight = (TOP / "roles/mazevault/tasks/preflight.yml").read_text(encoding="utf-8")
    assert tuple(yaml.safe_load(re.findall(r"__mazevault_reason in (\[.*?\])", preflight)[0])) == REASONS
    (said,) = re.findall(r"__mazevault_reason ~ ': unknown. Take (.*?)\.'", preflight)
    assert tuple(re.split(", | or ", said)) == REASONS
    described = entry_points("mazevault")["main"]["options"]["mazevault_reason"]["description"]
    assert tuple(re.findall(r"V\((\w+)\)", described)) == REASONS


def _is_list_of_text(node: ast.AST) -> bool:
    return isinstance(node, ast.List) and all(isinstance(item, ast.Constant) for item in node.elts)


Results = dict[str, dict[str, t.Any]]
WITHOUT_ROOT = ("backup_policy", "recovery_report", "recovery_set_witness")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each module returned on a tiny database, each first in check mode (`... --check`), then really."""
    found: Results = {}
    with PgServer(installations()[0]) as server:
        server.query("CREATE TABLE secrets AS SELECT 1 AS id, 'x'::bytea AS cipher")
        flow = Flow(server, tmp_path_factory.mktemp("contract") / "backups")
        database = {**flow.connection, **flow.programs}

        def both(name: str, module: str, **params: t.Any) -> dict[str, t.Any]:
            own = {} if module in WITHOUT_ROOT else {"backup_root": str(flow.root)}
            for key, check in ((f"{name} --check", True), (name, False)):
                done = run_module(module, {**own, **params}, check=check, diff=True)
                assert done.rc == 0, (key, done.result, done.stderr)
                found[key] = done.result
            return found[name]

        set_id = both("recovery_set open", "recovery_set", state="open", **IN_PLAIN)["set_id"]
        both("pg_dump", "pg_dump", **database, set_id=set_id)
        both("recovery_set sealed", "recovery_set", state="sealed", set_id=set_id, installation=HOSTNAME)
        both("backup_verify", "backup_verify", **flow.programs, set=set_id, level="read")
        both("recovery_set_info", "recovery_set_info", set="latest")
        both("ledger_verify", "ledger_verify")
        both("recovery_set_pin", "recovery_set_pin", state="held", set=set_id, by="A", reason="x", until="2099-01-01")
        both("recovery_set_info held", "recovery_set_info")
        both("backup_retention", "backup_retention")
        folder = tmp_path_factory.mktemp("trust")
        pinned = {"state": "pinned", "content": {"verify_level": "read"}, "signing_key": str(folder / "host.key")}
        both("backup_policy", "backup_policy", **pinned)
        seen = found["ledger_verify"]["ledger"]
        both("recovery_set_witness", "recovery_set_witness", installation=HOSTNAME, folder=str(folder), seen=seen)
        both("recovery_set_info unset", "recovery_set_info")
        told = {key: found["recovery_set_info"][key] for key in ("sets", "gone", "space")}
        both("recovery_report", "recovery_report", installations=[{"name": HOSTNAME, **told}])
        given_up = both("recovery_set reopened", "recovery_set", state="open", **IN_PLAIN)["set_id"]
        both("recovery_set aborted", "recovery_set", state="aborted", set_id=given_up)
    return found


def promised(name: str) -> set[str]:
    """The keys that RETURN promises for one kind of call."""
    module, _space, kind = name.partition(" ")
    when = {"success", f"O(state={kind})", *(["when O(set) is given"] if not kind else [])}
    keys = documented(module, "RETURN")
    known = {"success", *(f"O(state={state})" for state in ("open", "sealed", "aborted")), "when O(set) is given"}
    assert {entry["returned"] for entry in keys.values()} <= known
    return {key for key, entry in keys.items() if entry["returned"] in when}


CALLS = (
    "recovery_set open",
    "recovery_set sealed",
    "recovery_set aborted",
    "pg_dump",
    "backup_verify",
    "ledger_verify",
    "recovery_set_pin",
    "backup_retention",
    "backup_policy",
    "recovery_set_witness",
    "recovery_report",
)
INFO_CALLS = ("recovery_set_info", "recovery_set_info unset")


@pytest.mark.parametrize("name", [*CALLS, *INFO_CALLS])
def test_returned_is_what_is_documented(results: Results, name: str) -> None:
    assert results[name].keys() - EVERYWHERE - OF_A_PATH == promised(name)
    assert results[f"{name} --check"].keys() - OF_A_PATH == results[name].keys() - OF_A_PATH


@pytest.mark.parametrize("name", MODULES)
def test_no_result_bears_a_name_that_ansible_reads_as_its_own(name: str) -> None:
    assert not documented(name, "RETURN").keys() & READ_BY_ANSIBLE


def test_what_lists_hold_is_documented(results: Results) -> None:
    (found,) = results["recovery_set_info"]["sets"]
    assert found.keys() == documented("recovery_set_info", "RETURN")["sets"]["contains"].keys()
    assert results["recovery_set_info"]["selected"].keys() == found.keys()
    for name, key in (("recovery_set_info", "sets"), ("backup_retention", "plan")):
        (shown,) = results[name][key]
        assert shown.keys() == documented(name, "RETURN")[key]["contains"].keys()
    (pin,) = results["recovery_set_info held"]["sets"][0]["pinned"]
    documented_pin = documented("recovery_set_info", "RETURN")["sets"]["contains"]["pinned"]["contains"]
    assert pin.keys() == documented_pin.keys()
    # A check has no word of what doesn't apply to it.
    said = set().union(*results["backup_verify"]["checks"])
    assert {"name", "level", "verdict"} <= said <= documented("backup_verify", "RETURN")["checks"]["contains"].keys()
