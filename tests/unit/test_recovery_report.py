# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What recovery_report writes, looked at with other people's parsers."""

from __future__ import annotations

import json
import os
import re
import stat
import typing as t
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import html5lib
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.mazevault.backup.plugins.module_utils._metrics import HELP, PREFIX
from support.histories import HOURS, MINUTES, NOW, History, a_fleet, a_set, every, text
from support.modules import Outcome, run_module

TEMPLATE = Path(__file__).resolve().parents[2] / "roles/mazevault_monitoring/templates/status.html.j2"
FILES = {"status.html", "status.json", "mazevault_backup.prom", "mazevault_backup.rules.yml"}
# What would leave the page, or run in it.
ATTRIBUTES = ("src", "href", "srcset", "action", "formaction", "data", "background", "poster", "xlink:href", "ping")
NASTY = "<script>alert(1)</script>\"'&\\\x1b[31m\n"


def report(folder: Path | None, *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
    done = run(folder, check=check, **params)
    assert done.rc == 0, (done.result, done.stderr)
    return done.result


def run(folder: Path | None, *, check: bool = False, **params: t.Any) -> Outcome:
    own = {"folder": str(folder), "page_template": str(TEMPLATE)} if folder else {}
    return run_module("recovery_report", {"installations": a_fleet(), "now": text(NOW), **own, **params}, check=check)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, t.Any]]:
    folder = tmp_path_factory.mktemp("status") / "reports"
    return folder, report(folder, schedule=["02:00", "14:00"])


def metrics(folder: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text_of = (folder / "mazevault_backup.prom").read_text(encoding="utf-8")
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text_of):
        assert family.documentation and family.type == "gauge", family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "each series once"
            found[key] = sample.value
    return found


def value(folder: Path, name: str, **labels: str) -> float:
    return metrics(folder)[PREFIX + name, frozenset(labels.items())]


def rules(folder: Path) -> list[dict[str, t.Any]]:
    content = yaml.safe_load((folder / "mazevault_backup.rules.yml").read_text(encoding="utf-8"))
    (group,) = content["groups"]
    return t.cast("list[dict[str, t.Any]]", group["rules"])


# Files


def test_four_files_for_their_readers_alone(written: tuple[Path, dict[str, t.Any]]) -> None:
    folder, result = written
    assert {path.name for path in folder.iterdir()} == FILES
    assert result["files"] == sorted(str(folder / name) for name in FILES)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {name: 0o600 if name.startswith("status") else 0o644 for name in FILES}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert json.loads((folder / "status.json").read_bytes()) == result["report"]


def test_only_what_appears_is_a_change(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    assert report(folder, check=True)["changed"] is True
    assert not folder.exists()
    assert report(folder)["changed"] is True
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    later = {"now": text(NOW + 10 * MINUTES)}
    assert report(folder, check=True, **later)["changed"] is False
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert report(folder, **later)["changed"] is False
    assert (folder / "status.html").read_bytes() != before["status.html"], "and yet it is the newest"
    assert report(folder, alarm_after="6 h", **later)["changed"] is True
    (folder / "status.html").unlink()
    assert report(folder, check=True, alarm_after="6 h")["changed"] is True


def test_nobody_reads_half_of_a_file(tmp_path: Path) -> None:
    """Another file under the same name, not the same file with other bytes."""
    folder = tmp_path / "reports"
    report(folder)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    held = (folder / "mazevault_backup.prom").open(encoding="utf-8")
    old = held.read()
    report(folder, now=text(NOW + HOURS))
    held.seek(0)
    assert held.read() == old
    held.close()
    assert {path.name for path in folder.iterdir()} == FILES, "no temporary file is left"
    assert all(path.stat().st_ino != before[path.name] for path in folder.iterdir())


def test_other_places(tmp_path: Path) -> None:
    prom, rule = tmp_path / "collector/x.prom", tmp_path / "rules.yml"
    prom.parent.mkdir()
    found = report(tmp_path / "reports", metrics_file=str(prom), rules_file=str(rule))
    assert sorted(found["files"]) == sorted(
        map(str, (prom, rule, tmp_path / "reports/status.html", tmp_path / "reports/status.json"))
    )
    refused = run(tmp_path / "reports", metrics_file=str(tmp_path / "x.txt"))
    assert refused.rc != 0 and "doesn't end in .prom" in refused.result["msg"]


def test_what_only_some_saw_replaces_no_report_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    found = report(folder, partial=True)
    assert not folder.exists() and found["files"] == [] and found["changed"] is False
    assert "vault-ostrava" not in found["verdicts"]
    assert any("only some of the installations were looked at" in line for line in found["table"])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"review_days": 0}, "review_days: 0.0: not from 1 to 3660"),
        ({"schedule": ["noon"]}, "schedule: noon: not a span of time"),
        ({"schedule_delay": "a bit"}, "schedule_delay: a bit: not a span of time"),
        ({"objectives": {"flood": {}}}, "objectives: flood: unknown"),
        ({"allowances": {"coffee": "1 h"}}, "allowances: coffee: unknown"),
        ({"now": "yesterday"}, "now: "),
        ({"alarm_after": "1 s"}, "alarm_after: 1 s: less than a minute"),
        ({"installations": [{"name": "a"}, {"name": "a"}]}, "installations: a: given twice"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, params: Mapping[str, t.Any], said: str) -> None:
    done = run(tmp_path / "reports", **params)
    assert done.rc != 0 and done.result["msg"].startswith(said)
    assert " -> " in done.result["msg"] and not (tmp_path / "reports").exists()


# The table


def test_the_table_fits_a_terminal(written: tuple[Path, dict[str, t.Any]]) -> None:
    table = written[1]["table"]
    assert max(map(len, table)) <= 100
    assert all(line.isprintable() for line in table)
    words = [" ".join(line.split()) for line in table]
    assert "vault-brno FAIL" in words and "vault-prague FAIL" in words and "vault-ostrava FAIL" in words
    assert "Database corruption < 24 h 12 h 19 min 5 h 0 min pass < 4 h 1 h 42 min pass" in words
    assert "- reachable: fail: expected, and in no inventory" in words


def test_long_and_nasty_names_break_nothing(tmp_path: Path) -> None:
    one = History("x" * 150 + NASTY, [a_set(NOW - HOURS, doubts=[NASTY * 20], verdict="unproven")]).said()
    other = {"name": "gone", "problem": NASTY}
    found = report(tmp_path / "reports", installations=[one, other])
    assert max(map(len, found["table"])) <= 100 and all(line.isprintable() for line in found["table"])
    page = parsed(tmp_path / "reports")
    assert not page.tags & {"script"}
    assert "<script>" in "".join(page.texts), "it is shown as text"
    names = {dict(labels).get("installation") for _name, labels in metrics(tmp_path / "reports")}
    assert "x" * 150 + NASTY in names


# The page


class Seen(HTMLParser):
    """Every tag, attribute and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, content or "") for name, content in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(folder: Path) -> Seen:
    content = (folder / "status.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(content)
    seen = Seen()
    seen.feed(content)
    return seen


def test_the_page_is_valid_and_asks_nobody_for_anything(written: tuple[Path, dict[str, t.Any]]) -> None:
    page = parsed(written[0])
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image"}
    assert [name for name, _content in page.attributes if name in ATTRIBUTES or name.startswith("on")] == []
    content = (written[0] / "status.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:", content)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_a_page_that_is_not_valid_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.j2"
    bad.write_text(TEMPLATE.read_text(encoding="utf-8").replace("</main>", ""), encoding="utf-8")
    report(tmp_path / "reports", page_template=str(bad))
    with pytest.raises(html5lib.html5parser.ParseError):
        parsed(tmp_path / "reports")


def test_the_page_shows_what_is_promised_and_what_was_measured(written: tuple[Path, dict[str, t.Any]]) -> None:
    page = parsed(written[0])
    texts = [" ".join(part.split()) for part in page.texts if part.strip()]
    for words in (
        "vault-prague",
        "12 h 19 min",
        "expected, and in no inventory",
        "mazevault_20261113_140000: made before a change that nobody has confirmed yet",
        "mazevault_20261113_140000: confirm the change: now",
        "never ended, begun on 2026-11-15 19:00 UTC; target < 4 h",
        "backup: 2026-11-24 02:00 UTC",
        "2026-11-14 19:00 UTC: database put in place",
        "the disk of the backup root is nearly full",
    ):
        assert words in texts, words


def test_pictures_stay_within_their_frames(written: tuple[Path, dict[str, t.Any]]) -> None:
    found = html5lib.parse((written[0] / "status.html").read_text(encoding="utf-8"), namespaceHTMLElements=False)
    svg = "{http://www.w3.org/2000/svg}"
    pictures = found.findall(f".//{svg}svg")
    assert len(pictures) > 10
    for picture in pictures:
        _left, _top, width, height = map(float, picture.get("viewBox").split())
        for line in picture.findall(f".//{svg}polyline"):
            for pair in line.get("points").split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= width and 0 <= y <= height
        for box in picture.findall(f".//{svg}rect"):
            assert float(box.get("x")) + float(box.get("width")) <= width + 2
            assert float(box.get("y")) >= -0.1 and float(box.get("y")) + float(box.get("height")) <= height + 0.1


def test_what_was_missed_is_red_in_the_picture(written: tuple[Path, dict[str, t.Any]]) -> None:
    content = (written[0] / "status.html").read_text(encoding="utf-8")
    assert re.findall(r"([0-9hmin ]+) without a newer set", content) == ["48 h 8 min", "36 h 8 min", "24 h 7 min"]


# Metrics and alerts


def test_metrics_say_what_the_report_says(written: tuple[Path, dict[str, t.Any]]) -> None:
    folder = written[0]
    assert value(folder, "status_timestamp_seconds") == NOW.timestamp()
    assert value(folder, "installation_up", installation="vault-prague") == 1
    assert value(folder, "installation_up", installation="vault-ostrava") == 0
    own = {"installation": "vault-prague", "scenario": "database_corruption", "objective": "rpo"}
    assert value(folder, "objective_target_seconds", **own) == 86400
    assert value(folder, "objective_verdict", verdict="pass", **own) == 1
    assert value(folder, "objective_verdict", verdict="fail", **own) == 0
    assert value(folder, "objective_now_seconds", **own) == 5 * 3600
    assert value(folder, "sets", installation="vault-brno") == 40
    assert value(folder, "newest_proven_recovery_point_timestamp_seconds", installation="vault-prague") == (
        NOW.timestamp() - 5 * 3600
    )


def test_names_and_units_are_as_prometheus_wants_them(written: tuple[Path, dict[str, t.Any]]) -> None:
    names = {name for name, _labels in metrics(written[0])}
    assert names == {PREFIX + name for name in HELP}, "a fleet with everything has every metric"
    assert all(re.fullmatch(r"mazevault_backup_[a-z_]+", name) for name in names)
    assert not [name for name in names if re.search(r"_(total|count|sum|bucket|info|hours|days|minutes|mb)$", name)]
    assert (written[0] / "mazevault_backup.prom").read_text(encoding="utf-8").endswith("\n")


def test_rules_name_only_what_there_is(written: tuple[Path, dict[str, t.Any]]) -> None:
    known = {name for name, _labels in metrics(written[0])}
    labels = {label for _name, found in metrics(written[0]) for label, _value in found}
    for rule in rules(written[0]):
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        named = set(re.findall(r"\bmazevault_\w+", rule["expr"]))
        assert named and named <= known, rule["alert"]
        used = re.findall(r'(\w+)="', rule["expr"])
        used += re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        assert set(used) <= labels, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["expr"].count("{") == rule["expr"].count("}")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert len({rule["alert"] for rule in rules(written[0])}) == len(rules(written[0]))


def test_what_is_always_there_is_missed_when_it_is_not(written: tuple[Path, dict[str, t.Any]], tmp_path: Path) -> None:
    absent = {found[0] for rule in rules(written[0]) if (found := re.findall(r"^absent\((\w+)\)$", rule["expr"]))}
    report(tmp_path / "reports", installations=[{"name": "vault1", "problem": "no answer"}])
    always = {name for name, _labels in metrics(tmp_path / "reports")}
    assert absent == always, "metrics of a fleet of which nobody could look at anything"


def test_a_report_that_nobody_makes_anew_alarms(tmp_path: Path) -> None:
    """The expression as it stands, with this server's clock in the place of time()."""
    report(tmp_path / "reports", alarm_after="6 h")
    (rule,) = [one for one in rules(tmp_path / "reports") if one["alert"] == "MazeVaultBackupStatusOld"]
    found = re.fullmatch(r"time\(\) - (\w+) > (\d+)", rule["expr"])
    assert found and found[1] == PREFIX + "status_timestamp_seconds"
    made = value(tmp_path / "reports", "status_timestamp_seconds")
    for hours, alarms in ((5.9, False), (6.1, True)):
        assert ((NOW + hours * HOURS).timestamp() - made > float(found[2])) is alarms


def test_many_sets_take_no_time(tmp_path: Path) -> None:
    sets = [a_set(at) for at in every(14 * MINUTES, days=100)]
    assert len(sets) > 10_000
    before = os.times()
    found = report(tmp_path / "reports", installations=[History(sets=sets).said()])
    spent = os.times()
    assert found["report"]["installations"][0]["objectives"][0]["rpo"]["verdict"] == "pass"
    assert spent.children_user - before.children_user < 30
    assert (tmp_path / "reports/status.html").stat().st_size < 4_000_000
