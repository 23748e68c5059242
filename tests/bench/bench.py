# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: our dump and proofs against the specification's own command, the best by hand, and the floor.

Rounds are interleaved, so that a machine that slows down slows all of them; the medians' ratios are what counts.
Environment: MAZEVAULT_BENCH_SIZE (default 200MB), MAZEVAULT_BENCH_ROUNDS (default 3).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from dataclasses import asdict, dataclass

from support.servers import PgInstall, PgServer, installations

SIZE = os.environ.get("MAZEVAULT_BENCH_SIZE", "200MB")
ROUNDS = int(os.environ.get("MAZEVAULT_BENCH_ROUNDS", "3"))
SPECIFICATION = "the specification's script"
_CHILD = """
import json, sys
from support.modules import run_module
outcome = run_module(*json.load(sys.stdin))
print(json.dumps(outcome.result))
sys.exit(outcome.rc)
"""
FLOOR = "floor: pg_dump -Fc -Z0 > /dev/null"


@dataclass
class Run:
    """One measured command: seconds, processor seconds, peak of the largest process, bytes left on the disk."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_kib: int
    bytes: int


def measure(
    name: str, argv: t.Sequence[str], folder: str, *, env: t.Mapping[str, str], stdin: bytes = b""
) -> tuple[Run, str]:
    started = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(stdin)
    process.stdin.close()
    output = process.stdout.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        raise SystemExit(f"{name} failed:\n{output.decode(errors='replace')[-3000:]}")
    written = sum(
        os.path.getsize(os.path.join(top, file)) for top, _folders, files in os.walk(folder) for file in files
    )
    return Run(name, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, written), output.decode()


def measure_module(name: str, module: str, params: dict[str, t.Any], folder: str) -> tuple[Run, dict[str, t.Any]]:
    stdin = json.dumps([module, params]).encode()
    run, output = measure(f"{name}: {module}", [sys.executable, "-c", _CHILD], folder, env=os.environ, stdin=stdin)
    return run, t.cast("dict[str, t.Any]", json.loads(output.splitlines()[-1]))


def contenders(install: PgInstall, server: PgServer) -> dict[str, t.Callable[[str], Run]]:
    env = {**os.environ, **server.environment(), "PATH": f"{install.bin}:{os.environ['PATH']}"}
    cores = str(os.cpu_count() or 1)

    def shell(name: str, line: str) -> t.Callable[[str], Run]:
        def run(folder: str) -> Run:
            argv = ["bash", "-euo", "pipefail", "-c", line.format(d=shlex.quote(folder))]
            return measure(name, argv, folder, env=env)[0]

        return run

    def ours(name: str, level: str | None) -> t.Callable[[str], Run]:
        dsn = server.dsn()
        params = {
            "host": dsn["host"],
            "port": dsn["port"],
            "user": dsn["user"],
            "database": dsn["dbname"],
            "bin_dir": str(install.bin),
        }

        def run(folder: str) -> Run:
            root = os.path.join(folder, "root")
            first, opened = measure_module(name, "recovery_set", {"state": "open", "backup_root": root}, folder)
            set_id = opened["set_id"]
            dump, _result = measure_module(name, "pg_dump", {**params, "backup_root": root, "set_id": set_id}, folder)
            runs = [first, dump]
            if level:
                proof = {"backup_root": root, "set": set_id, "level": level, "bin_dir": str(install.bin)}
                done, result = measure_module(name, "backup_verify", proof, folder)
                if result["verdict"] != "pass":
                    raise SystemExit(f"{name}: {result['summary']}")
                runs.append(done)
            return Run(
                name,
                sum(one.seconds for one in runs),
                sum(one.cpu_seconds for one in runs),
                max(one.peak_kib for one in runs),
                runs[-1].bytes,
            )

        return run

    return {
        FLOOR: shell(FLOOR, "pg_dump -Fc -Z0 > /dev/null"),
        SPECIFICATION: shell(
            SPECIFICATION,
            "pg_dump --format=custom --compress=9 > {d}/dump; pg_restore --list {d}/dump > /dev/null",
        ),
        "by hand: -Fd -j -Z1": shell("by hand: -Fd -j -Z1", f"pg_dump -Fd -j{cores} -Z1 -f {{d}}/dump"),
        "ours: dump, counts, digests": ours("ours: dump, counts, digests", None),
        "ours: and read": ours("ours: and read", "read"),
        "ours: and restore": ours("ours: and restore", "restore"),
    }


def seed(server: PgServer) -> None:
    dsn = server.dsn(tcp=True)
    url = f"postgres://{dsn['user']}@{dsn['host']}:{dsn['port']}/{dsn['dbname']}?sslmode=disable"
    env = {**os.environ, "DATABASE_URL": url, "MAZEVAULT_MASTER_KEY": "bench", "MAZEVAULT_JWT_KEY": "bench"}
    with tempfile.TemporaryDirectory() as folder:
        token = os.path.join(folder, "token")
        argv = [sys.executable, "-m", "mazevault_standin", "seed", "--size", SIZE, "--seed", "1", "--token-file", token]
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)


def bench(install: PgInstall) -> list[Run]:
    with PgServer(install, fsync=True) as server:
        seed(server)
        runs: list[Run] = []
        todo = contenders(install, server)
        for number in range(ROUNDS):
            for name, contender in todo.items():
                print(f"  {install}: round {number + 1} of {ROUNDS}: {name}", file=sys.stderr)
                top = tempfile.mkdtemp(dir="/var/tmp", prefix="mazevault-bench-")
                folder = os.path.join(top, "out")
                os.mkdir(folder, 0o700)
                try:
                    runs.append(contender(folder))
                finally:
                    shutil.rmtree(top)
        return runs


def report(install: PgInstall, runs: list[Run]) -> None:
    def median(name: str, key: str) -> float:
        return statistics.median(getattr(run, key) for run in runs if run.name == name)

    print(f"\n{install}, {SIZE}, {os.cpu_count()} processors, medians of {ROUNDS} interleaved rounds")
    print(f"{'':<38}{'s':>7}{'x floor':>9}{'x spec':>8}{'cpu s':>8}{'MB':>8}{'peak MB':>9}")
    for name in dict.fromkeys(run.name for run in runs):
        seconds = median(name, "seconds")
        print(
            f"{name:<38}{seconds:>7.2f}{seconds / median(FLOOR, 'seconds'):>9.2f}"
            f"{seconds / median(SPECIFICATION, 'seconds'):>8.2f}{median(name, 'cpu_seconds'):>8.2f}"
            f"{median(name, 'bytes') / 1e6:>8.1f}{median(name, 'peak_kib') / 1024:>9.1f}"
        )


def main() -> None:
    results = {}
    for install in installations():
        runs = bench(install)
        report(install, runs)
        results[str(install)] = [asdict(run) for run in runs]
    path = os.path.join(tempfile.gettempdir(), "mazevault-bench.json")
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"size": SIZE, "rounds": ROUNDS, "processors": os.cpu_count(), "runs": results}, stream, indent=2)
    print(f"\nEvery run: {path}")


if __name__ == "__main__":
    main()
