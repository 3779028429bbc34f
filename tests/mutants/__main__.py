"""`python -m tests.mutants run` judges a sample of mutants, `report` prints how many were noticed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.postgres import temporary_server

from .mutations import Mutant
from .packages import ROOT, TESTS, existing, mutants, tests_of

RESULTS: Final = ROOT / ".mutants" / "results.jsonl"
SLACK: Final = 3.0
"""A mutant that takes this many times as long as the unchanged code hangs, which is noticed too."""
TIMEOUT_SECONDS: Final = 60.0
"""Added to it, because a machine is not equally fast all the time."""
KILLED, SURVIVED, HUNG = "killed", "survived", "hung"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of the tree in which defects are made, so that nobody's work is touched."""

    folder: Path
    database_url: str

    def test(self, paths: Sequence[str], timeout: float | None) -> tuple[str, str]:
        """Run tests until one fails; return the outcome and the last lines of the output."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *paths]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "HPO_TEST_DATABASE_URL": self.database_url}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return HUNG, ""
        finally:
            _end_group(process)
        # 5: nothing was collected.
        return (SURVIVED if process.returncode in (0, 5) else KILLED), said[-2000:]


def run(packages: Sequence[str], *, each: int, seed: int) -> None:
    """Judge `each` mutants of every package, but for those that were judged before in a module that is unchanged."""
    judged = {row["key"] for row in _rows()}
    RESULTS.parent.mkdir(exist_ok=True)
    with _checkout() as checkout:
        for package in packages:
            todo = [entry for entry in sample(package, each, seed) if _key(*entry) not in judged]
            if not todo:
                continue
            started = time.monotonic()
            outcome, said = checkout.test(existing(TESTS[package]), None)
            if outcome != SURVIVED:
                print(f"{package}: its tests fail without any mutant\n{said}", file=sys.stderr)
                continue
            limit = SLACK * (time.monotonic() - started) + TIMEOUT_SECONDS
            for path, mutant in todo:
                row = {"key": _key(path, mutant), "package": package, **_judge(checkout, package, path, mutant, limit)}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{row['outcome']:<8} {row['seconds']:5.0f} s  {path}:{mutant.line}  {mutant}", flush=True)


def sample(package: str, each: int, seed: int) -> list[tuple[Path, Mutant]]:
    """Return the mutants that `seed` draws in a package; a larger sample begins with the smaller one."""
    found = mutants(package)
    random.Random(f"{seed}:{package}").shuffle(found)  # noqa: S311 - a sample, not a secret
    return found[:each]


def report(packages: Sequence[str], *, each: int, seed: int) -> None:
    """Print the share of noticed mutants of every package, and the mutants that survived."""
    known = {row["key"]: row for row in _rows()}
    print("| package | mutants in all | judged | noticed | share |\n| --- | ---: | ---: | ---: | ---: |")
    survivors, judged, noticed = [], 0, 0
    for package in packages:
        rows = [known[key] for entry in sample(package, each, seed) if (key := _key(*entry)) in known]
        seen = sum(row["outcome"] != SURVIVED for row in rows)
        survivors += [row for row in rows if row["outcome"] == SURVIVED]
        judged, noticed = judged + len(rows), noticed + seen
        print(f"| {package} | {len(mutants(package))} | {len(rows)} | {seen} | {_share(seen, len(rows))} |")
    print(f"| all | | {judged} | {noticed} | {_share(noticed, judged)} |\n\nSurvivors:\n")
    for row in survivors:
        print(f"- `{row['module']}:{row['line']}` `{row['mutant']}`")


def _judge(checkout: Checkout, package: str, path: Path, mutant: Mutant, limit: float) -> dict[str, Any]:
    started = time.monotonic()
    file = checkout.folder / path
    original = file.read_text()
    file.write_text(mutant.made_in(original))
    try:
        outcome, _ = checkout.test(tests_of(package, path), limit)
    finally:
        file.write_text(original)
    seconds = round(time.monotonic() - started, 1)
    return {"module": str(path), "line": mutant.line, "mutant": str(mutant), "outcome": outcome, "seconds": seconds}


@contextmanager
def _checkout() -> Iterator[Checkout]:
    git = shutil.which("git") or "git"
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    with tempfile.TemporaryDirectory(prefix="hpo-mutants-") as folder, temporary_server() as database_url:
        for name in listed.stdout.decode().splitlines():
            target = Path(folder, "checkout", name)
            if (ROOT / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        yield Checkout(Path(folder, "checkout"), database_url)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End whatever the tests have left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _key(path: Path, mutant: Mutant) -> str:
    """Name a mutant, by the text of its module too: what was judged of an earlier text does not count."""
    digest = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:16]
    return f"{path}@{digest}:{mutant.start}:{mutant.stop}:{mutant.after}"


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("packages", nargs="*", help="packages to sample, such as hpo/store; all without any")
    parser.add_argument("--each", type=int, default=8, help="mutants per package")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other mutants")
    given = parser.parse_intermixed_args()
    unknown = set(given.packages) - TESTS.keys()
    if unknown:
        parser.error(f"unknown packages: {', '.join(sorted(unknown))}; known: {', '.join(TESTS)}")
    # So that the copy and its database are removed also when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = run if given.command == "run" else report
    command(given.packages or list(TESTS), each=given.each, seed=given.seed)


if __name__ == "__main__":
    main()
