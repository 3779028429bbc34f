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
from .packages import ROOT, TESTS, judges_of, mutants

RESULTS: Final = ROOT / ".mutants" / "results.jsonl"
TEST_SECONDS: Final = 180
"""A test that takes longer hangs; on a busy machine none of ours comes near."""
RUN_SECONDS: Final = 1800.0
"""A run of all tests of a package that takes longer hangs."""
KILLED, SURVIVED, UNCLEAR = "killed", "survived", "unclear"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of the tree in which defects are made, so that nobody's work is touched."""

    folder: Path
    database_url: str

    def failing(self, tests: Sequence[str]) -> list[str]:
        """Return the id of the first test that fails, or of the file that cannot be imported; nothing if all pass.

        Raises:
            RuntimeError: pytest could not run them.
        """
        failed = self.folder.with_name("cache") / "v" / "cache" / "lastfailed"
        failed.unlink(missing_ok=True)
        options = ["-x", "-q", "-m", "not slow", f"--timeout={TEST_SECONDS}", "-o", f"cache_dir={failed.parents[2]}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(self.folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                "HPO_TEST_DATABASE_URL": self.database_url,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return list(tests)
        finally:
            _end_group(process)
        # 5: no test was collected, since all of them are slow or skipped.
        if process.returncode in (0, 5):
            return []
        if not failed.exists():
            raise RuntimeError(f"pytest ended with {process.returncode}:\n{said[-2000:]}")
        return list(json.loads(failed.read_text()))

    def judge(self, path: Path, mutant: Mutant, tests: Sequence[str]) -> tuple[str, list[str]]:
        """Return the outcome of the tests with a defect, and the test that failed; the defect is undone.

        A failure counts only when the same test passes without the defect.
        """
        file = self.folder / path
        original = file.read_text()
        file.write_text(mutant.made_in(original))
        try:
            failed = self.failing(tests)
        finally:
            file.write_text(original)
        if not failed:
            return SURVIVED, []
        return (UNCLEAR if self.failing(failed) else KILLED), failed


def run(packages: Sequence[str], *, each: int, seed: int) -> None:
    """Judge `each` mutants of every package, but for those that were judged before in a module that is unchanged."""
    judged = {row["key"] for row in _rows()}
    RESULTS.parent.mkdir(exist_ok=True)
    with _checkout() as checkout:
        for package in packages:
            for path, mutant in sample(package, each, seed):
                key = _key(path, mutant)
                if key in judged:
                    continue
                started = time.monotonic()
                outcome, failed = checkout.judge(path, mutant, judges_of(package, path))
                seconds = round(time.monotonic() - started, 1)
                about = {"module": str(path), "line": mutant.line, "mutant": str(mutant)}
                row = {"key": key, "package": package, **about, "outcome": outcome, "by": failed, "seconds": seconds}
                with RESULTS.open("a") as results:
                    results.write(json.dumps(row) + "\n")
                print(f"{outcome:<8} {seconds:5.0f} s  {path}:{mutant.line}  {mutant}", flush=True)


def sample(package: str, each: int, seed: int) -> list[tuple[Path, Mutant]]:
    """Return the mutants that `seed` draws in a package; a larger sample begins with the smaller one."""
    found = mutants(package)
    random.Random(f"{seed}:{package}").shuffle(found)  # noqa: S311 - a sample, not a secret
    return found[:each]


def report(packages: Sequence[str], *, each: int, seed: int) -> None:
    """Print the share of noticed mutants of every package, and the mutants that survived."""
    known = {row["key"]: row for row in _rows()}
    print("| package | mutants in all | judged | noticed |\n| --- | ---: | ---: | ---: |")
    everything: list[dict[str, Any]] = []
    for package in packages:
        rows = [known[key] for entry in sample(package, each, seed) if (key := _key(*entry)) in known]
        rows = [row for row in rows if row["outcome"] != UNCLEAR]
        everything += rows
        print(f"| {package} | {len(mutants(package))} | {len(rows)} | {_noticed(rows)} |")
    print(f"| all | | {len(everything)} | {_noticed(everything)} |\n\nSurvivors:\n")
    for row in everything:
        if row["outcome"] == SURVIVED:
            print(f"- `{row['module']}:{row['line']}` `{row['mutant']}`")


def _noticed(rows: Sequence[dict[str, Any]]) -> str:
    noticed = sum(row["outcome"] == KILLED for row in rows)
    return f"{noticed} ({noticed / len(rows):.0%})" if rows else "0"


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
    """Return the name of a mutant, which includes its module's text: judgements of earlier texts do not count."""
    digest = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:16]
    return f"{path}@{digest}:{mutant.start}:{mutant.stop}:{mutant.after}"


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


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
