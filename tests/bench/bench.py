# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: our dump and proofs against the specification's own script, the best by hand, and the floor.

Rounds are interleaved, so that a machine that slows down slows all of them; the medians' ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import typing as t
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

# In place of this script's own folder, where "bench" would be this file.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import report  # noqa: E402 -- needs the path above
from bench.contenders import ContainerInstallation, HostInstallation, contenders, place, seed  # noqa: E402
from bench.measuring import Cost  # noqa: E402
from support.servers import installations  # noqa: E402

CONTAINER_MAJORS = "17,15"


def arguments() -> argparse.Namespace:
    def default(name: str, value: str) -> str:
        return os.environ.get(f"MAZEVAULT_BENCH_{name}", value)

    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each option's default can be set in the environment: --size by MAZEVAULT_BENCH_SIZE, and so on.",
    )
    parser.add_argument("--size", default=default("SIZE", "2GB"), help="of the database, like 100MB (default: 2GB)")
    parser.add_argument("--rounds", type=int, default=int(default("ROUNDS", "5")), help="(default: 5)")
    parser.add_argument(
        "--runtime",
        choices=("docker", "host"),
        default=default("RUNTIME", "docker"),
        help="docker: the server runs in a container as on a compose host, which needs root and an engine;"
        " host: on this machine (default: docker)",
    )
    parser.add_argument(
        "--versions",
        default=default("VERSIONS", ""),
        help=f"of PostgreSQL, with commas (default: {CONTAINER_MAJORS}; for host: all that are installed)",
    )
    parser.add_argument("--output", default=default("OUTPUT", ""), help="file for every single figure as JSON")
    parser.add_argument(
        "--check",
        action="store_true",
        default=default("CHECK", "") == "1",
        help="exit status 1 when a target is missed",
    )
    return parser.parse_args()


def opened(runtime: str, versions: str) -> t.Iterator[ContainerInstallation | HostInstallation]:
    """One server after the other, each gone before the next one comes."""
    majors = [int(word) for word in versions.split(",") if word]
    if runtime == "docker":
        for major in majors or map(int, CONTAINER_MAJORS.split(",")):
            installation = ContainerInstallation(major)
            try:
                yield installation
            finally:
                installation.server.close()
    else:
        for install in installations():
            if not majors or install.major in majors:
                host = HostInstallation(install)
                try:
                    yield host
                finally:
                    host.server.close()


def run(installation: ContainerInstallation | HostInstallation, title: str, rounds: int) -> dict[str, list[Cost]]:
    """Everybody's figures of each round."""
    costs: dict[str, list[Cost]] = {}
    todo = contenders(installation)
    for number in range(rounds):
        for name, contender in todo.items():
            print(f"  {title}: round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            with place() as folder:
                for what, cost in contender(folder).items():
                    costs.setdefault(what, []).append(cost)
    return costs


def main() -> int:
    options = arguments()
    results, missed = [], []
    for installation in opened(options.runtime, options.versions):
        title = f"PostgreSQL {installation.server.major}"
        print(f"  {title}: filling the database ({options.size})", file=sys.stderr, flush=True)
        size = seed(installation.server, options.size)
        load = os.getloadavg()[0]
        costs = run(installation, title, options.rounds)
        verdicts = report.judge(costs)
        missed += [f"{title}: {target.name}" for target in verdicts if not target.reached]
        print(report.table(title, options.runtime, size, costs, verdicts), flush=True)
        results.append(
            {
                "server": title,
                "database_bytes": size,
                "load_at_start": load,
                "runs": {name: [asdict(cost) for cost in runs] for name, runs in costs.items()},
                "targets": [asdict(target) for target in verdicts],
            }
        )
    path = options.output or os.path.join(tempfile.gettempdir(), "mazevault-bench.json")
    conditions = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runtime": options.runtime,
        "size": options.size,
        "rounds": options.rounds,
        "processors": os.cpu_count(),
    }
    Path(path).write_text(json.dumps({**conditions, "results": results}, indent=2) + "\n", encoding="utf-8")
    print(f"\nEvery figure: {path}")
    return 1 if options.check and (missed or not results) else 0


if __name__ == "__main__":
    sys.exit(main())
