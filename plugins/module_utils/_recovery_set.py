# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Published recovery sets: their names, manifests, sums, and how one becomes visible by a single rename."""

from __future__ import annotations

import glob
import json
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey, part_name
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Damaged
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    fsync_tree,
    read_json,
    sha256_file,
    tree_files,
    write_file,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._instructions import restore_instructions
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of, noted
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored, store
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, LEVELS, PASS, UNPROVEN

SCHEMA_VERSION = 1
ID = re.compile(r"mazevault_\d{8}_\d{6}\Z")
SUMS = "SHA256SUMS"
PRIVATE = "manifest.private.json"
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
REASONS = ("scheduled", "pre_change", "on_change", "rotation", "manual")
# What a set has to say of itself as long as this isn't there.
MISSING = ("signature", "escrow", "witness")


@dataclass(frozen=True)
class RecoverySet:
    """A published set; `manifest` is parsed, nothing of it is checked yet."""

    root: str
    set_id: str
    manifest: t.Mapping[str, t.Any]

    @property
    def path(self) -> str:
        return os.path.join(self.root, "sets", self.set_id)

    @property
    def records_path(self) -> str:
        return os.path.join(self.root, "records", self.set_id)

    @property
    def scheme(self) -> str:
        """Of its encryption; former sets have none."""
        return str((self.manifest.get("encryption") or {}).get("scheme", "none"))

    def private(self, key: SetKey | None = None) -> dict[str, t.Any]:
        """The rest of the manifest.

        Args:
            key: of class data, with its private half; None: the set is in plain.
        Raises:
            BackupError: the set is encrypted and the key isn't here, or what it opens isn't what was written.
        """
        path = os.path.join(self.path, PRIVATE)
        if self.scheme == "none":
            return t.cast("dict[str, t.Any]", read_json(path))
        name = part_name(path, 0, self.scheme)
        with Stored((name,), key).opened() as stream:
            content = stream.read()
        try:
            return t.cast("dict[str, t.Any]", json.loads(content))
        except ValueError as exc:
            raise Damaged(f"{name}: not readable as JSON: {exc}", hint="Take another copy of the set.") from exc

    @property
    def sums_sha256(self) -> str:
        return sha256_file(os.path.join(self.path, SUMS))


def set_names(root: str) -> list[str]:
    """Names under `sets/` that look like ours; foreign ones are nobody's business."""
    try:
        return sorted(name for name in os.listdir(os.path.join(root, "sets")) if ID.match(name))
    except FileNotFoundError:
        return []


def load_set(root: str, set_id: str) -> RecoverySet:
    if not ID.match(set_id):
        raise BackupError(f"set: {set_id}: not a set id", hint="Set ids look like mazevault_20261123_020000.")
    if not os.path.isdir(os.path.join(root, "sets", set_id)):
        known = set_names(root)
        raise BackupError(
            f"set: {set_id}: no such set under {root}/sets",
            hint=f"The newest one is {known[-1]}." if known else "There is no set yet: run backup.yml first.",
        )
    manifest = read_json(os.path.join(root, "sets", set_id, "manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise BackupError(
            f"set: {set_id}: its manifest isn't of schema version {SCHEMA_VERSION}",
            hint="It is damaged, or was made by a newer version of the collection.",
        )
    return RecoverySet(root, set_id, manifest)


def all_sets(root: str) -> tuple[list[RecoverySet], list[str]]:
    """Every readable set in the order of their sequence numbers, and the names of those that aren't readable."""
    good, bad = [], []
    for name in set_names(root):
        try:
            good.append(load_set(root, name))
        except BackupError:
            bad.append(name)
    return sorted(good, key=lambda found: (int(found.manifest.get("sequence", 0)), found.set_id)), bad


def records_of(root: str, set_id: str) -> list[dict[str, t.Any]]:
    """Records of one set that the ledger vouches for, oldest first; others don't count."""
    folder = os.path.join(root, "records", set_id)
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    known = {entry.get("record_sha256") for entry in _ledger.read(root)}
    found = []
    for name in names:
        path = os.path.join(folder, name)
        if sha256_file(path) in known:
            found.append(t.cast("dict[str, t.Any]", read_json(path)))
    return found


def write_record(root: str, set_id: str, kind: str, content: t.Mapping[str, t.Any]) -> str:
    """Write `records/<set id>/<time>-<kind>.json`, put its hash into the ledger, return its path."""
    moment = _clock.now()
    folder = os.path.join(root, "records", set_id)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{_clock.stamp(moment)}_{moment.microsecond:06d}-{kind}.json")
    write_json(
        path,
        {"schema_version": SCHEMA_VERSION, "set_id": set_id, "kind": kind, "at": _clock.rfc3339(moment), **content},
    )
    _ledger.append(
        root, f"record {kind}", set_id=set_id, record_sha256=sha256_file(path), verdict=content.get("verdict")
    )
    return path


def newest_proof(found: RecoverySet, records: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """What is known of a set: a failure stays until the level that failed passes; else the highest level proven."""
    history = [found.manifest["verification"], *(record for record in records if record.get("kind") == "verify")]
    best: dict[str, t.Any] = {"verdict": UNPROVEN, "level": "", "at": None}
    failed = -1
    for proof in history:
        verdict, level = proof.get("verdict"), str(proof.get("level") or "")
        rank, held = _rank(level), _rank(best["level"])
        known = {"verdict": verdict, "level": level, "at": proof.get("at")}
        if verdict == FAIL:
            failed = max(failed, _failed_rank(proof))
            best = known
        elif verdict == PASS and best["verdict"] == FAIL:
            if rank >= failed:
                best, failed = known, -1
        elif (verdict == PASS and (best["verdict"] == UNPROVEN or rank >= held)) or (
            verdict == UNPROVEN and best["verdict"] == UNPROVEN and rank > held
        ):
            best = known
    return best


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else -1


def _failed_rank(proof: t.Mapping[str, t.Any]) -> int:
    """The highest level at which a failure was found; `level` of a proof is only the one that was still reached."""
    found = [_rank(str(check.get("level"))) for check in proof.get("checks") or () if check.get("verdict") == FAIL]
    if found:
        return max(found)
    return max(_rank(str(proof.get("wanted") or "")), min(_rank(str(proof.get("level") or "")) + 1, len(LEVELS) - 1))


def resolve(root: str, wanted: str) -> RecoverySet:
    """`latest` is the newest set that hasn't failed; an id is taken as it is."""
    if wanted and wanted != "latest":
        return load_set(root, wanted)
    good, bad = all_sets(root)
    for found in reversed(good):
        if newest_proof(found, records_of(root, found.set_id))["verdict"] != FAIL:
            return found
    raise BackupError(
        f"set: latest: no usable set under {root}/sets"
        + (f" ({len(good) + len(bad)} are there, all failed or damaged)" if good or bad else ""),
        hint="Name a set's id to choose one on your own risk, or run backup.yml.",
    )


def sums_text(folder: str) -> str:
    """The content of SHA256SUMS: every file but the sums and their signatures, in the format of sha256sum."""
    lines = []
    for relative in tree_files(folder):
        if relative == SUMS or relative.startswith(f"{SUMS}.sig"):
            continue
        name, mark = relative, ""
        if any(char in relative for char in "\\\n"):
            # as GNU sha256sum escapes them
            name, mark = relative.replace("\\", "\\\\").replace("\n", "\\n"), "\\"
        lines.append(f"{mark}{sha256_file(os.path.join(folder, relative))}  {name}\n")
    return "".join(lines)


def check_sums(folder: str) -> list[str]:
    """What is wrong with the files of a set: changed, missing, or there without a line in SHA256SUMS."""
    try:
        # Only a line feed ends a line: names may hold everything else.
        with open(os.path.join(folder, SUMS), encoding="utf-8", newline="\n") as stream:
            lines = stream.read().split("\n")
    except (OSError, ValueError) as exc:
        return [f"{SUMS}: {exc}"]
    problems, expected = [], {}
    for line in filter(None, lines):
        escaped = line.startswith("\\")
        digest, _gap, name = line.lstrip("\\").partition("  ")
        expected[_ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], name) if escaped else name] = digest
    present = {name for name in tree_files(folder) if name != SUMS and not name.startswith(f"{SUMS}.sig")}
    problems += [f"{name}: missing" for name in sorted(expected.keys() - present)]
    problems += [f"{name}: not in {SUMS}" for name in sorted(present - expected.keys())]
    for name in sorted(expected.keys() & present):
        if sha256_file(os.path.join(folder, name)) != expected[name]:
            problems.append(f"{name}: changed")
    if not expected:
        problems.append(f"{SUMS}: empty")
    return problems


def next_sequence(root: str) -> tuple[int, str | None]:
    """Sequence number of the next set, and the hash of the newest set's SHA256SUMS."""
    good, _bad = all_sets(root)
    published = [entry for entry in _ledger.read(root) if entry["event"] == "published"]
    last = max(
        [int(found.manifest["sequence"]) for found in good]
        + [int(entry.get("set_sequence", 0)) for entry in published]
        + [0]
    )
    former = good[-1].sums_sha256 if good else published[-1].get("sums_sha256") if published else None
    return last + 1, former


def seal(staging: Staging, facts: t.Mapping[str, t.Any], progress: Progress) -> RecoverySet:
    """Write manifest, instructions and sums into the staged set, flush everything, and publish it by one rename.

    Args:
        facts: `installation`, `site`, `reason`, `components`, `versions`, `verification`.
    Raises:
        BackupError: a component is missing, or a set of this id exists.
    """
    root, set_id = staging.root, staging.name
    reports = {}
    for component in facts["components"]:
        if not os.path.isfile(staging.report_path(component)):
            raise BackupError(
                f"components: {component}: it left no report, so the set isn't complete",
                hint="Nothing was published. Look for the step that failed before.",
            )
        reports[component] = read_json(staging.report_path(component))
    if os.path.exists(os.path.join(root, "sets", set_id)):
        raise BackupError(f"set_id: {set_id}: is published already", hint="Open a new one.")
    progress.step("seal: manifest")
    manifest, private = compose(staging, reports, facts)
    text = json.dumps(private, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for old in glob.glob(f"{glob.escape(os.path.join(staging.set_path, PRIVATE))}*"):
        os.unlink(old)  # of an attempt that was killed
    store(os.path.join(staging.set_path, PRIVATE), text.encode(), key_of(staging, "data"))
    write_json(os.path.join(staging.set_path, "manifest.json"), manifest)
    write_file(os.path.join(staging.set_path, "RESTORE.md"), restore_instructions(manifest, private))
    progress.step("seal: sums")
    write_file(os.path.join(staging.set_path, SUMS), sums_text(staging.set_path))
    progress.step("seal: flush")
    fsync_tree(staging.set_path)
    os.makedirs(os.path.join(root, "sets"), mode=0o700, exist_ok=True)
    progress.step("seal: rename")
    os.rename(staging.set_path, os.path.join(root, "sets", set_id))
    progress.step("seal: published")
    fsync_path(os.path.join(root, "sets"))
    found = load_set(root, set_id)
    progress.step("seal: ledger")
    enter_in_ledger(found)
    return found


def enter_in_ledger(found: RecoverySet, *, late: bool = False) -> None:
    extra = {"found_after_a_crash": True} if late else {}
    reason = (found.manifest.get("encryption") or {}).get("reason")
    _ledger.append(
        found.root,
        "published",
        set_id=found.set_id,
        set_sequence=found.manifest["sequence"],
        sums_sha256=found.sums_sha256,
        verdict=found.manifest["verification"]["verdict"],
        **({"encryption_reason": reason} if reason else {}),
        **extra,
    )


def heal_ledger(root: str) -> list[str]:
    """Enter sets that were published by a run that died before it could say so; return their ids."""
    known = {entry.get("set_id") for entry in _ledger.read(root) if entry["event"] == "published"}
    healed = []
    for found in all_sets(root)[0]:
        if found.set_id not in known and not check_sums(found.path):
            enter_in_ledger(found, late=True)
            healed.append(found.set_id)
    return healed


def compose(
    staging: Staging, reports: t.Mapping[str, t.Mapping[str, t.Any]], facts: t.Mapping[str, t.Any]
) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """(public, private) manifest from the components' reports."""
    sequence, former = next_sequence(staging.root)
    owner, protected = staging.owner(), noted(staging)
    artefacts = [artefact for report in reports.values() for artefact in report["artefacts"]]
    not_covered = ["Redis (an ephemeral cache, by specification)"]
    for report in reports.values():
        not_covered += report["public"].get("not_covered", [])
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "set_id": staging.name,
        "sequence": sequence,
        "former_set_sha256": former,
        "installation": facts["installation"],
        "site": facts["site"],
        "reason": facts["reason"],
        "recovery_point": min(report["recovery_point"] for report in reports.values()),
        "started": owner["opened"],
        "ended": _clock.rfc3339(_clock.now()),
        "components": sorted(reports),
        "artefacts": artefacts,
        **{component: report["public"] for component, report in reports.items()},
        "key_generations": [],
        "encryption": {"scheme": protected["scheme"], "reason": protected["reason"]},
        "recipients": protected["recipients"],
        "policy_sha256": None,
        "certificates": [],
        "images": [],
        "not_covered": not_covered,
        "missing_protection": [*MISSING, *(["encryption"] if protected["scheme"] == "none" else [])],
        "verification": facts["verification"],
        "versions": facts["versions"],
    }
    return manifest, {
        "schema_version": SCHEMA_VERSION,
        "set_id": staging.name,
        "host": owner["host"],
        **{component: report["private"] for component, report in reports.items()},
    }


def prepare_root(root: str) -> None:
    """The folders of the backup root; the ledger is mended where a crash tore it."""
    for name in ("sets", "records", "evidence", "staging"):
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)


def state_of(found: RecoverySet) -> dict[str, t.Any]:
    """A set as other playbooks want it: flat, no secret, no table name."""
    manifest = found.manifest
    proof = newest_proof(found, records_of(found.root, found.set_id))
    point = _clock.parse(manifest["recovery_point"])
    return {
        "set_id": found.set_id,
        "path": found.path,
        "sequence": manifest["sequence"],
        "installation": manifest["installation"],
        "reason": manifest["reason"],
        "recovery_point": manifest["recovery_point"],
        "age_seconds": max(0, int((_clock.now() - point).total_seconds())),
        "components": manifest["components"],
        "bytes": sum(artefact["bytes"] for artefact in manifest["artefacts"]),
        "verdict": proof["verdict"],
        "level": proof["level"],
        "proven_at": proof["at"],
        "proof_seconds": manifest["verification"].get("seconds"),
        "not_covered": manifest["not_covered"],
        "missing_protection": manifest["missing_protection"],
        "postgres": manifest.get("postgres"),
    }
