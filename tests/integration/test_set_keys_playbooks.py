# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""backup.yml and restore_database.yml with an escrow, as an operator runs them: what is refused touches nothing."""

from __future__ import annotations

import json
import secrets
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.escrow_site import TOOL, Site
from support.flow import IN_PLAIN
from support.identities import make_identity
from support.plays import HOSTNAME, Installation, Play, databases, installed
from support.servers import PgServer, installations

PUBLISH = "Recovery set | Publish"
KEEP = "Keys | Keep every generation in both halves"


@dataclass
class Told:
    """One installation with an escrow, and what its playbooks did, in their order."""

    installation: Installation
    site: Site
    plays: dict[str, Play] = field(default_factory=dict)
    manifests: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    seen: dict[str, t.Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.installation.root.parent

    def play(self, name: str, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        before = self.sets()
        done = self.installation.play(playbook, *arguments, **extra)
        assert not [secret for secret in self.site.secrets if secret in done.output]
        for new in sorted(self.sets() - before):
            path = self.installation.root / "sets" / new / "manifest.json"
            self.manifests[name] = json.loads(path.read_text(encoding="utf-8"))
        self.plays[name] = done
        return done

    def sets(self) -> set[str]:
        folder = self.installation.root / "sets"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def state(self) -> dict[str, t.Any]:
        """What a refused restore leaves alone: databases, and an application that answers."""
        return {"databases": databases(self.installation.server), "secrets": self.installation.secret_values()}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("installation")
    with pytest.MonkeyPatch.context() as patch, PgServer(installations()[0]) as server:
        # What module processes of the plays find; it isn't handed on by the plays' own environment.
        patch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
        with installed(server, folder, master_key=secrets.token_hex(32)) as installation:
            story = Told(installation, made(folder, installation))
            tell(story)
            yield story


def made(folder: Path, installation: Installation) -> Site:
    """Keys of the stand-in's own master key, places for both halves, and people."""
    top = folder / "keys"
    for name in ("people", "place-vault", "place-key"):
        (top / name).mkdir(parents=True)
    people = {name: make_identity(top / "people", name) for name in ("vault-a", "vault-b", "key-a", "key-b")}
    site = Site(top, "cms", people)
    env = f"MASTER_KEY={installation.site.master_key}\nPOSTGRES_PASSWORD=changeme\n"
    (installation.root.parent / ".env").write_text(env, encoding="utf-8")
    site.secrets.append(installation.site.master_key)
    public = {name: str(one.public) for name, one in people.items()}
    installation.protection = {
        **IN_PLAIN,
        "escrow_vault": [str(site.place("vault"))],
        "escrow_key": str(site.place("key")),
        "keys_recipients_vault": [public["vault-a"], public["vault-b"]],
        "keys_recipients_key": f"{public['key-a']},{public['key-b']}",
        "keys_tool": str(TOOL),
        "verify_level": "read",
        "prune": "false",
    }
    return site


def tell(story: Told) -> None:
    env = story.home / ".env"
    story.play("first", "backup")
    story.play("only keys", "backup", mazevault_components="vault,keys")
    new = story.home / ".env.new"
    text = env.read_text(encoding="utf-8").replace(story.installation.site.master_key, secrets.token_hex(32))
    new.write_text(text, encoding="utf-8")
    story.play("rotation of nothing", "backup", mazevault_reason="rotation")
    story.play("rotation of half", "backup", mazevault_reason="rotation", **aside(story, new))
    story.site.top.joinpath("away").rename(story.site.place("key"))
    named = {"mazevault_keys_new_env_file": str(new), "mazevault_components": "config"}
    story.play("rotation", "backup", mazevault_reason="rotation", **named)
    # The keys are put into place, but the data are still those of the former ones.
    new.replace(env)
    story.seen["before"] = story.state()
    story.play("other keys", "restore_database", mazevault_confirm=HOSTNAME)
    story.seen["after"] = story.state()
    env.write_text(env.read_text(encoding="utf-8") + f"JWT_SECRET={secrets.token_hex(32)}\n", encoding="utf-8")
    story.site.place("key").rename(story.site.top / "away")
    story.play("half away", "backup", mazevault_components="config")


def aside(story: Told, new: Path) -> dict[str, str]:
    """The other half's place is out of reach."""
    story.site.place("key").rename(story.site.top / "away")
    return {"mazevault_keys_new_env_file": str(new)}


def test_keys_are_kept_before_the_data_that_need_them(told: Told) -> None:
    done = told.plays["first"]
    assert (done.rc, done.changed) == (0, [KEEP, PUBLISH]), done.output
    order = [task.name for task in done.tasks]
    assert order.index(KEEP) < next(n for n, task in enumerate(done.tasks) if task.action.endswith("pg_dump"))
    manifest = told.manifests["first"]
    assert manifest["escrow"] == {"expected": True, "verdict": "pass", "reasons": []}
    (generation,) = manifest["key_generations"]
    assert (
        f"secrets.vault and vault.key, where there are any (in escrow, as key generation {generation})"
        in (manifest["not_covered"])
    )
    assert manifest["verification"]["verdict"] == "pass"


def test_vault_and_keys_alone_make_no_set(told: Told) -> None:
    done = told.plays["only keys"]
    assert (done.rc, done.changed) == (0, []), done.output
    assert "only keys" not in told.manifests
    assert len(done.of("escrow")) == 1


def test_a_rotation_needs_new_keys_and_both_halves(told: Told) -> None:
    nothing, half = told.plays["rotation of nothing"], told.plays["rotation of half"]
    assert nothing.rc != 0 and "mazevault_keys_new_env_file" in nothing.failures[0].msg
    assert half.rc != 0 and half.failures[0].msg.startswith("Don't put the new keys into place: ")
    assert not {"rotation of nothing", "rotation of half"} & told.manifests.keys()


def test_a_rotation_is_kept_first_and_then_told_how_to_go_on(told: Told) -> None:
    done = told.plays["rotation"]
    assert done.rc == 0, done.output
    assert f"mv -f {told.home}/.env.new {told.home}/.env" in done.output
    assert told.manifests["rotation"]["key_generations"][0] == told.manifests["first"]["key_generations"][0]
    assert len(list((told.installation.root / "escrow").iterdir())) >= 2


def test_a_set_of_other_keys_is_refused_before_anything_is_stopped(told: Told) -> None:
    done = told.plays["other keys"]
    assert done.rc != 0
    was = told.manifests["first"]["key_generations"][0]
    (failed,) = [task for task in done.failures if task.action.endswith("pg_restore")]
    assert f"its data need key generation {was}, and this host uses" in failed.msg
    assert "MASTER_KEY (other)" in failed.msg
    assert told.seen["before"] == told.seen["after"]
    assert told.seen["after"]["secrets"] and "status" not in str(told.seen["after"]["secrets"])


def test_with_a_half_away_the_set_is_published_and_the_run_is_red(told: Told) -> None:
    done, manifest = told.plays["half away"], told.manifests["half away"]
    assert done.rc != 0
    assert manifest["verification"]["verdict"] == "unproven"
    assert "hasn't arrived at any place of the half" in manifest["escrow"]["reasons"][0]
    assert "was published, but isn't proven as long as its keys aren't in escrow" in done.failures[-1].msg
