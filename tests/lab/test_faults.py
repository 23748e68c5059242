# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens in the middle of a run: no damaged set, the application is up, and the next run clears up."""

from __future__ import annotations

import contextlib
import itertools
import random
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from lab import faults
from lab.conftest import Lab
from lab.faults import Fault
from lab.site import ROOT, Site
from support.flow import FULL
from support.plays import Play

NAME = "mv-site-b"
BEFORE_SWAP = tuple(step for step in faults.RESTORE if step.startswith("restore: "))
SWAP = tuple(step for step in faults.RESTORE if step.startswith("swap: "))
# So that loading and dumping take a while; random, so that the dump isn't small.
BALLAST = """
CREATE TABLE ballast (id integer PRIMARY KEY, noise text NOT NULL);
INSERT INTO ballast SELECT n, (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, 32) AS m)
  FROM generate_series(1, 20000) AS n;
"""
DAMAGE = "DELETE FROM secret_versions WHERE secret_id % 3 = 2; TRUNCATE ballast;"
SMALL = "/run/small"
# What a dead run leaves counts as alive for so long.
STALE = 1
SLACK = 5.0
DISK_BACKUP = faults.BACKUP[:12] if FULL else ("dump: pg_dump runs",)
DISK_RESTORE = faults.RESTORE if FULL else ("swap: stop the application",)


RANDOM = random.Random(20261123)
SAMPLE = RANDOM.sample(faults.FAULTS, len(faults.FAULTS))


def cases(steps: t.Sequence[str], number: int) -> list[tuple[Fault, str]]:
    """Every fault at every step, or a sample in which no fault occurs twice."""
    if FULL:
        return list(itertools.product(faults.FAULTS, steps))
    return [(SAMPLE.pop(), RANDOM.choice(steps)) for _turn in range(number)]


def name_of(case: object) -> str:
    return case.name.replace(" ", "_") if isinstance(case, Fault) else str(case).replace(" ", "_")


@contextlib.contextmanager
def small_disk(site: Site) -> Iterator[None]:
    """The backup root with all that is in it on a small disk of its own."""
    site.shell(
        f"mkdir -p {SMALL} && mount -t tmpfs -o size=500m,mode=0755 tmpfs {SMALL}"
        f" && cp -a {ROOT}/. {SMALL} && mount --bind {SMALL} {ROOT}"
    )
    try:
        yield
    finally:
        site.shell(f"umount {ROOT} && find {ROOT} -mindepth 1 -delete && cp -a {SMALL}/. {ROOT} && umount {SMALL}")


def content_of(site: Site) -> dict[str, str]:
    """But the audit: a run that ends well has read every secret."""
    return {key: rest for key, rest in site.content().items() if "audit_logs" not in key}


@dataclass
class Ground:
    """A host with a good set, and what its database holds."""

    site: Site
    good: dict[str, str]
    first_set: str
    own_start: float
    """Seconds until the whole stack is up when its engine is restarted."""

    def content(self) -> dict[str, str]:
        return content_of(self.site)

    def damage(self) -> None:
        if self.content() == self.good:
            self.site.sql(DAMAGE)
        for name in self.site.databases():
            if name.startswith("mazevault_before_"):
                self.site.sql(f'DROP DATABASE "{name}"', database="postgres")

    def strike(self, playbook: str, fault: Fault, step: str, record: t.Any, **extra: t.Any) -> Play:
        """A run in which the fault happens; then nobody is left at work, and the operator's part is done."""
        known = faults.BACKUP if playbook == "backup" else faults.RESTORE
        site = self.site
        former = site.sets()
        extra = {"mazevault_recovery_set_stale_after": STALE, **extra}
        with site.started(playbook, **extra) as running:
            with faults.watching(site, fault, known[known.index(step) :]) as watch:
                seen = watch.step()
                faults.after(site, running, fault)
            done = running.end()
        said = done.failures[-1].msg if done.failures else ""
        record("struck", f"{fault.name} at {seen}: exit code {done.rc} {said}")
        if fault.mend:
            site.shell(fault.mend)
        site.wait_idle()
        healthy = site.wait_healthy()
        record("healthy again after", round(healthy, 1))
        assert healthy < self.own_start + SLACK
        sets = site.sets()
        assert all(sets.values()), "no damaged set"
        assert set(former) <= set(sets)
        assert "Traceback" not in done.output
        if done.rc and not fault.kills_control_node:
            assert done.failures and all(task.msg for task in done.failures), done.output
        if done.rc == 0 and playbook == "backup":
            assert len(sets) == len(former) + 1
        return done


@pytest.fixture(scope="module")
def ground(lab: Lab, site: Callable[[str], Site]) -> Iterator[Ground]:
    lab.seed(NAME)
    found = site(NAME)
    found.tidy()
    found.sql(BALLAST)
    good = content_of(found)
    done = found.play("backup", mazevault_verify_level="read")
    assert done.rc == 0, done.output
    (first,) = found.sets()
    found.shell("systemctl restart docker")
    own = found.wait_healthy()
    yield Ground(found, good, first, own)
    found.tidy()
    lab.seed(NAME)


@pytest.mark.parametrize(("fault", "step"), cases(faults.BACKUP, 1), ids=name_of)
def test_backup(ground: Ground, fault: Fault, step: str, record_property: t.Any) -> None:
    ground.strike("backup", fault, step, record_property)
    assert ground.content() == ground.good
    if FULL:
        heal_backup(ground)


def test_after_that_a_backup_clears_up(ground: Ground) -> None:
    heal_backup(ground)


def heal_backup(ground: Ground) -> None:
    former = ground.site.sets()
    done = ground.site.play("backup", mazevault_recovery_set_stale_after=STALE)
    assert (done.rc, done.changed) == (0, ["Recovery set | Publish"]), done.output
    assert len(ground.site.sets()) == len(former) + 1
    assert ground.site.leftovers() == []
    assert ground.content() == ground.good


@pytest.mark.parametrize(("fault", "step"), [*cases(BEFORE_SWAP, 1), *cases(SWAP, 1)], ids=name_of)
def test_restore(ground: Ground, fault: Fault, step: str, record_property: t.Any) -> None:
    ground.damage()
    damaged = ground.content()
    extra: dict[str, t.Any] = {"mazevault_confirm": NAME, "mazevault_restore_set": ground.first_set}
    ground.strike("restore_database", fault, step, record_property, **extra)
    now = ground.content()
    assert now in (ground.good, damaged), "one or the other, and whole"
    record_property("database", "the restored one" if now == ground.good else "as it was")
    if FULL:
        heal_restore(ground)


def test_after_that_a_restore_clears_up(ground: Ground) -> None:
    heal_restore(ground)


@pytest.mark.parametrize("step", DISK_BACKUP)
def test_a_full_disk_during_a_backup(ground: Ground, step: str, record_property: t.Any) -> None:
    with small_disk(ground.site):
        done = ground.strike("backup", faults.DISK_FULL, step, record_property)
        assert done.rc != 0 and any("Free some space" in task.msg for task in done.failures), done.output
        heal_backup(ground)


@pytest.mark.parametrize("step", DISK_RESTORE)
def test_a_full_disk_during_a_restore(ground: Ground, step: str, record_property: t.Any) -> None:
    with small_disk(ground.site):
        test_restore(ground, faults.DISK_FULL, step, record_property)
        heal_restore(ground)


def heal_restore(ground: Ground) -> None:
    ground.damage()
    extra: dict[str, t.Any] = {"mazevault_confirm": NAME, "mazevault_restore_set": ground.first_set}
    done = ground.site.play("restore_database", mazevault_recovery_set_stale_after=STALE, **extra)
    assert done.rc == 0, done.output
    assert ground.content() == ground.good
    assert ground.site.leftovers() == []
