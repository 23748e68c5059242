# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives come back beside what is there, in its place, or into it; nothing that was there is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.files import CONFIRMED, HOSTNAME, Files, place
from support.plays import tree_state
from support.trees import ACL, ROOT, archive, facts_of, make_odd_tree, member

needs_root = pytest.mark.skipif(not ROOT, reason="only root can mount, and set owners")


@pytest.fixture
def mine() -> Iterator[Files]:
    with place(ordinary=not ROOT) as found:
        yield found


def small(files: Files, name: str = "source") -> Path:
    """A tree with little in it, and an archive of it called `a`."""
    top = files.folder / name
    (top / "certs").mkdir(parents=True)
    (top / ".env").write_text("KEY=1\n")
    (top / "certs/server.key").write_text("key")
    os.link(top / "certs/server.key", top / "same key")
    (top / "link").symlink_to(".env")
    (top / ".env").chmod(0o600)
    for number, path in enumerate(sorted([top, *top.rglob("*")])):
        os.utime(path, (10**9 + number, 10**9 + number), follow_symlinks=False)
    files.backup("a", {"path": str(top), "name": "."})
    return top


def kept_of(done: dict[str, t.Any]) -> Path:
    return Path(done["kept"])


def test_the_second_time_nothing_changes(mine: Files) -> None:
    top = mine.folder / "odd"
    make_odd_tree(top)
    mine.backup("a", {"path": str(top), "name": "."})
    for existing in ("refuse", "replace", "merge"):
        target = f"to {existing}"
        params = mine.restoring("a", target, existing=existing)
        before = tree_state(mine.folder)
        foreseen = mine.must("files_restore", params, check=True, diff=True)
        assert tree_state(mine.folder) == before
        first = mine.must("files_restore", params, diff=True)
        assert first == {**foreseen, "invocation": first["invocation"]}
        assert (first["changed"], first["action"], first["kept"]) == (True, "created", None)
        after = facts_of(mine.folder / target)
        assert after == facts_of(top)
        before = tree_state(mine.folder)
        for check in (True, False):
            again = mine.must("files_restore", params, check=check, diff=True)
            assert (again["changed"], again["action"], again["different"]) == (False, "none", 0)
            assert again["diff"]["before"] == again["diff"]["after"] == ""
        assert tree_state(mine.folder) == before


def test_a_target_with_something_else_is_refused(mine: Files) -> None:
    small(mine)
    target = mine.folder / "target"
    target.mkdir()
    (target / "precious").write_text("precious")
    before = tree_state(mine.folder)
    done = mine.run("files_restore", mine.restoring("a", "target", **CONFIRMED))
    assert done.rc != 0 and "target: " in done.result["msg"] and "existing=replace" in done.result["hint"]
    assert tree_state(mine.folder) == before


@pytest.mark.parametrize("existing", ["replace", "merge"])
def test_what_is_there_is_changed_only_with_a_confirmation(mine: Files, existing: str) -> None:
    small(mine)
    (mine.folder / "target").mkdir()
    (mine.folder / "target/.env").write_text("KEY=2\n")
    params = mine.restoring("a", "target", existing=existing)
    before = tree_state(mine.folder)
    for wrong in ({}, {"inventory_hostname": HOSTNAME}, {**CONFIRMED, "confirm": "vault2"}, {"confirm": HOSTNAME}):
        done = mine.run("files_restore", {**params, **wrong})
        assert done.rc != 0 and ("confirm: " in done.result["msg"] or "inventory_hostname: " in done.result["msg"])
        assert tree_state(mine.folder) == before
    foreseen = mine.must("files_restore", params, check=True, diff=True)
    assert tree_state(mine.folder) == before
    done_well = mine.must("files_restore", {**params, **CONFIRMED}, diff=True)
    for key in ("changed", "action", "differences", "different", "diff", "entries", "bytes"):
        assert foreseen[key] == done_well[key]
    assert ".env: contents\n" in done_well["diff"]["before"]
    assert "KEY=" not in json.dumps([foreseen, done_well])


def test_replace(mine: Files) -> None:
    top = small(mine)
    target = mine.folder / "target"
    shutil.copytree(top, target, symlinks=True)
    (target / "additional").write_text("additional")
    (target / "certs/server.key").write_text("other")
    os.truncate(target / "same key", 1)
    old = facts_of(target)
    done = mine.restore("a", "target", existing="replace", **CONFIRMED)
    assert done["action"] == "replaced"
    assert facts_of(target) == facts_of(top)
    assert kept_of(done).name.startswith("target.before_") and facts_of(kept_of(done)) == old
    names = sorted(path.name for path in mine.folder.iterdir())
    assert names == ["a", "a.json", "source", "target", kept_of(done).name]


def test_merge(mine: Files) -> None:
    """What the archive holds comes, what it doesn't hold stays, what it takes the place of is kept."""
    top = small(mine)
    target = mine.folder / "target"
    (target / "certs/inside").mkdir(parents=True)
    (target / "certs/server.key").write_text("older key")
    (target / "certs/inside/mine").write_text("mine")
    (target / "link").mkdir()
    (target / "link/in a folder").write_text("x")
    outside = mine.folder / "outside"
    outside.write_text("outside")
    (target / ".env").symlink_to(outside)
    (target / "same key").symlink_to("/nowhere")
    others = {b"certs/inside", b"certs/inside/mine"}
    before = facts_of(target)
    done = mine.restore("a", "target", existing="merge", **CONFIRMED)
    assert (done["action"], outside.read_text()) == ("merged", "outside")
    after, wanted = facts_of(target), facts_of(top)
    for facts in (after, wanted):
        for name in (b".", b"certs"):
            del facts[name]["mtime"]  # others work in it
    assert {name: facts for name, facts in after.items() if name not in others} == wanted
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    kept = facts_of(kept_of(done))
    for name in (b"certs/server.key", b"link/in a folder", b".env", b"same key"):
        assert kept[name] == before[name]
    assert kept.keys() == {b".", b"certs", b"certs/server.key", b"link", b"link/in a folder", b".env", b"same key"}
    again = mine.restore("a", "target", existing="merge", **CONFIRMED)
    assert (again["changed"], again["kept"]) == (False, None)
    # Names of one file that became two files are one again.
    (target / "same key").unlink()
    shutil.copy2(target / "certs/server.key", target / "same key")
    mine.restore("a", "target", existing="merge", **CONFIRMED)
    assert (target / "same key").samefile(target / "certs/server.key")
    (target / ".env").write_text("KEY=9\n")
    third = mine.restore("a", "target", existing="merge", **CONFIRMED)
    assert facts_of(kept_of(third)).keys() == {b".", b".env"}
    assert [str(path.relative_to(target)) for path in target.rglob("*mazevault-restore*")] == []


def test_merge_never_goes_over_a_link(mine: Files) -> None:
    """A folder of the archive takes the place of a link in the target; what the link led to isn't touched."""
    small(mine)
    outside, target = mine.folder / "outside", mine.folder / "target"
    outside.mkdir()
    (outside / "server.key").write_text("somebody else's")
    target.mkdir()
    (target / "certs").symlink_to(outside)
    before = facts_of(outside)
    done = mine.restore("a", "target", existing="merge", **CONFIRMED)
    assert facts_of(outside) == before
    assert not (target / "certs").is_symlink() and (target / "certs/server.key").read_text() == "key"
    assert (kept_of(done) / "certs").readlink() == outside
    # Folders that it has only in other names come as tar makes them.
    (mine.folder / "b").write_bytes(archive([member("x/y/z", content=b"1")]))
    for name in ("target", "fresh"):
        mine.restore("b", name, recorded=False, existing="merge", **CONFIRMED)
        assert [(mine.folder / name / part).stat().st_mode & 0o777 for part in ("x", "x/y")] == [0o755, 0o755]
    # Where the archive has the folder only in other names, it isn't known what to put in its place.
    (mine.folder / "b").write_bytes(archive([member("certs/server.key", content=b"evil")]))
    shutil.rmtree(target)
    target.mkdir()
    (target / "certs").symlink_to(outside)
    refused = mine.run("files_restore", mine.restoring("b", "target", recorded=False, existing="merge", **CONFIRMED))
    assert refused.rc != 0 and "certs: a symlink, and a folder in the archive's names" in refused.result["msg"]
    assert facts_of(outside) == before and (target / "certs").is_symlink()


def test_an_empty_folder_is_no_obstacle(mine: Files) -> None:
    top = small(mine)
    (mine.folder / "target").mkdir()
    assert mine.restore("a", "target")["action"] == "created"
    assert facts_of(mine.folder / "target") == facts_of(top)


def test_an_archive_in_the_target_isnt_moved_away(mine: Files) -> None:
    """As where the backup root lies in the application's folder."""
    top = small(mine)
    target = mine.folder / "target"
    (target / "backups").mkdir(parents=True)
    for name in ("a", "a.json"):
        shutil.move(mine.folder / name, target / "backups" / name)
    before = tree_state(mine.folder)
    done = mine.run("files_restore", mine.restoring("target/backups/a", "target", existing="replace", **CONFIRMED))
    assert done.rc != 0 and "archive lies in it" in done.result["msg"] and tree_state(mine.folder) == before
    mine.restore("target/backups/a", "target", existing="merge", **CONFIRMED)
    assert (target / "backups/a").exists() and (target / ".env").read_text() == (top / ".env").read_text()


def test_a_link_to_the_target_is_followed(mine: Files) -> None:
    top = small(mine)
    (mine.folder / "link").symlink_to("real")
    done = mine.restore("a", "link")
    assert done["target"] == str(mine.folder / "real") and facts_of(mine.folder / "real") == facts_of(top)
    assert (mine.folder / "link").is_symlink()


def test_the_products_own_archive(mine: Files) -> None:
    """As the documentation of the product makes it: tar czf config_YYYYmmdd.tar.gz /opt/mazevault/.env ..."""
    home = mine.folder / "opt/mazevault"
    (home / "config").mkdir(parents=True)
    (home / ".env").write_text("MASTER_KEY=canary\n")
    (home / ".env").chmod(0o600)
    (home / "docker-compose.yml").write_text("services: {}\n")
    (home / "config/nginx.conf").write_text("x")
    paths = [str(home / name) for name in (".env", "docker-compose.yml", "config")]
    subprocess.run(["tar", "-czf", mine.folder / "config_20260210.tar.gz", *paths], check=True, capture_output=True)
    part = str(home).lstrip("/")
    params = mine.restoring("config_20260210.tar.gz", "back", recorded=False, part=part)
    shown = mine.must("files_restore", params, check=True, diff=True)
    assert (shown["recorded"], shown["entries"], shown["action"]) == (False, 4, "created")
    assert ".env file 0600" in shown["diff"]["after"] and "canary" not in json.dumps(shown)
    assert not (mine.folder / "back").exists()
    mine.must("files_restore", params)
    found, wanted = facts_of(mine.folder / "back"), facts_of(home)
    for facts in (found, wanted):
        del facts[b"."]  # not in the archive
        for name in facts:
            facts[name]["mtime"] //= 10**9  # gzip tar of this form has whole seconds
    assert found == wanted
    # Into the place where the rest of the installation is.
    (home / "docker-compose.yml").write_text("services: changed\n")
    (home / "data").mkdir()
    (mine.folder / "opt").chmod(0o700)
    done = mine.must("files_restore", {**params, "target": str(home), "existing": "merge", **CONFIRMED})
    assert done["differences"] != [] and (home / "data").is_dir()
    assert (home / "docker-compose.yml").read_text() == "services: {}\n"


@needs_root
def test_acls_and_labels_as_others_write_them(mine: Files) -> None:
    """tar can be told to write them as text, and nothing else of extended attributes."""
    top = mine.folder / "odd"
    make_odd_tree(top)
    pack = ["tar", "-c", "--format=posix", "--acls", "--selinux", "--numeric-owner", "--sparse", "-C", str(top)]
    subprocess.run([*pack, "-f", str(mine.folder / "b"), "."], check=True)
    mine.restore("b", "back", recorded=False, allow=["privileges", "outside_links"])
    wanted = facts_of(top)
    for facts in wanted.values():
        for name in [name for name in facts["xattrs"] if name.startswith(("user.", "trusted."))]:
            del facts["xattrs"][name]
    assert {name for facts in wanted.values() for name in facts["xattrs"]} == {
        "system.posix_acl_access",
        "system.posix_acl_default",
        "security.selinux",
    }
    assert facts_of(mine.folder / "back") == wanted


@needs_root
def test_owners_of_a_folder_that_the_archive_lacks_stay(mine: Files) -> None:
    (mine.folder / "b").write_bytes(archive([member("etc/app/x", content=b"1")]))
    target = mine.folder / "target"
    target.mkdir()
    target.chmod(0o2750)
    os.chown(target, 70, 71)
    (target / "old").touch()
    mine.restore("b", "target", recorded=False, part="etc/app", existing="replace", **CONFIRMED)
    info = target.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o2750, 70, 71)
    assert sorted(path.name for path in target.iterdir()) == ["x"]


@needs_root
def test_nothing_is_inherited_from_above(mine: Files) -> None:
    """Neither an ACL nor a group of the folder that the target lies in gets into it."""
    top = small(mine)
    above = mine.folder / "above"
    above.mkdir(mode=0o755)
    os.setxattr(above, "system.posix_acl_default", ACL)
    os.chown(above, 0, 71)
    above.chmod(0o2755)
    mine.restore("a", "above/target")
    assert facts_of(above / "target") == facts_of(top)


@needs_root
def test_a_mount_point(mine: Files) -> None:
    top = small(mine)
    target = mine.folder / "mounted"
    target.mkdir(mode=0o700)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", target], check=False)
    if done.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        (target / "other").write_text("other")
        refused = mine.run("files_restore", mine.restoring("a", "mounted", existing="replace", **CONFIRMED))
        assert refused.rc != 0 and "a mount point" in refused.result["msg"]
        (target / ".env").write_text("old")
        merged = mine.restore("a", "mounted", existing="merge", **CONFIRMED)
        assert (kept_of(merged) / ".env").read_text() == "old" and kept_of(merged).parent == target
        shutil.rmtree(kept_of(merged))
        (target / "other").unlink()
        found, wanted = facts_of(target), facts_of(top)
        for facts in (found, wanted):
            for name in (b".", b"certs"):
                del facts[name]["mtime"]
        assert found == wanted
        assert mine.restore("a", "mounted", existing="merge", **CONFIRMED)["changed"] is False
    finally:
        subprocess.run(["umount", target], check=True)


@needs_root
def test_attributes_that_a_file_system_lacks_are_named(mine: Files) -> None:
    """Labels of links can't be kept everywhere; here the account may not set them."""
    top = small(mine)
    os.setxattr(top / ".env", "trusted.note", b"1")
    mine.backup("b", {"path": str(top), "name": "."})
    shutil.chown(mine.folder, "nobody")
    for name in ("b", "b.json"):
        shutil.chown(mine.folder / name, "nobody")
    ordinary = Files(mine.folder, ordinary=True)
    done = ordinary.restore("b", "back")
    assert (done["owners"], done["without"]) == (False, {"trusted.note": 1})
    assert any("trusted.note" in str(warning) for warning in done["warnings"])
    assert ordinary.restore("b", "back")["changed"] is False
    found, wanted = facts_of(mine.folder / "back", owners=False), facts_of(top, owners=False)
    assert wanted[b".env"].pop("xattrs") == {"trusted.note": b"1"}
    assert found[b".env"].pop("xattrs") == {}
    assert found == wanted


def test_a_record_is_held_to(mine: Files) -> None:
    """Another archive than the recorded one is refused, in whatever it differs."""
    small(mine)
    entries = json.loads((mine.folder / "a.json").read_text())["private"]["archives"]["a"]["entries"]
    plain = subprocess.run(["zstd", "-q", "-d", "-c", mine.folder / "a"], capture_output=True, check=True).stdout
    changed = plain.replace(b"KEY=1\n", b"KEY=2\n")
    assert len(changed) == len(plain) and changed != plain
    fewer = archive([member("x", content=b"1")])
    for data, said in ((changed, "isn't what was recorded"), (fewer, "isn't what was recorded"), (plain, "")):
        (mine.folder / "a").write_bytes(data)
        done = mine.run("files_restore", mine.restoring("a", "target"))
        assert (done.rc == 0) == (not said), done.result
        assert said in done.result.get("msg", "")
        assert (mine.folder / "target").exists() == (not said)
    assert len(entries) == 6
    # A record from a set's private manifest.
    report = json.loads((mine.folder / "a.json").read_text())
    (mine.folder / "manifest.private.json").write_text(json.dumps({"schema_version": 1, "config": report["private"]}))
    params = mine.restoring("a", "two", report=str(mine.folder / "manifest.private.json"), component="config")
    assert mine.must("files_restore", params)["recorded"] is True
    for bad in ({"component": "tls"}, {"report": str(mine.folder / "a")}, {"report": str(mine.folder / "none")}):
        done = mine.run("files_restore", {**params, **bad, "target": str(mine.folder / "three")})
        assert done.rc != 0 and not (mine.folder / "three").exists() and " -> " in done.result["msg"]


@pytest.mark.parametrize("length", ["0", "100", "half", "all but one"])
def test_a_cut_archive(mine: Files, length: str) -> None:
    small(mine)
    size = (mine.folder / "a").stat().st_size
    os.truncate(mine.folder / "a", {"0": 0, "100": 100, "half": size // 2, "all but one": size - 1}[length])
    for recorded in (True, False):
        done = mine.run("files_restore", mine.restoring("a", "target", recorded=recorded))
        assert done.rc != 0 and "Traceback" not in done.stderr and "archive: " in done.result["msg"]
    assert sorted(path.name for path in mine.folder.iterdir()) == ["a", "a.json", "source"]


def test_mistakes_are_told(mine: Files) -> None:
    small(mine)
    (mine.folder / "file").write_text("x")
    (mine.folder / "open").mkdir()
    (mine.folder / "open").chmod(0o777)
    tarfile.open(mine.folder / "nothing in it", "w").close()
    mistakes: list[tuple[dict[str, t.Any], str]] = [
        ({"archive": str(mine.folder / "none")}, "none: No such file"),
        ({"archive": str(mine.folder / "file")}, "not a tar archive"),
        ({"archive": str(mine.folder / "nothing in it"), "report": None}, "archive: "),
        ({"target": str(mine.folder / "file")}, "there, and no folder"),
        ({"target": str(mine.folder / "no/such")}, "target: "),
        ({"target": str(mine.folder / "open/x")}, "others may write here"),
        ({"target": "/"}, "target: /: not a folder below /"),
        ({"target": ""}, "target: empty"),
        ({"part": "x"}, "part: x: not in the archive"),
        ({"part": "../x"}, "part: ../x"),
        ({"max_bytes": "0", "report": None}, "max_bytes: 0"),
        ({"max_members": 0, "report": None}, "max_members: 0"),
        ({"max_members": 3, "report": None}, "more than 3 members"),
        ({"reserve": "900T"}, "too little space"),
    ]
    before = tree_state(mine.folder)
    for params, said in mistakes:
        given = {key: value for key, value in {**mine.restoring("a", "t"), **params}.items() if value is not None}
        done = mine.run("files_restore", given)
        assert done.rc != 0 and said in done.result["msg"] and " -> " in done.result["msg"], done.result
        assert "Traceback" not in done.stderr
        assert tree_state(mine.folder) == before
