"""The study of `hpo demo` with several seeds of its optimizer: do its proposals beat the start-up?

    python -m benchmarks.demo_seeds run --seeds 0-9 --home build/demo-seeds     # three minutes a seed on two idle cores
    python -m benchmarks.demo_seeds report --home build/demo-seeds

The real service, two workers on the CPU and the demo's own videos. Each study that has ended is a line of
`demo_seeds.jsonl` in the home; a seed that has a line is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpo.cli.demo import demo_spec, make_videos, running_service, running_workers, watch_study
from hpo.cli.serve import make_home
from hpo.client.creating import create_new_study
from hpo.settings import Settings

from .optimizer.__main__ import seeds_of

METRIC: Final = "val_top1"
START_UP: Final = "sobol"


def run(home: Path, seeds: Sequence[int], trials: int) -> None:
    """Run the studies that have no line yet, one after the other."""
    settings = Settings(home=home.absolute())
    make_home(settings)
    root = make_videos(settings)
    done = {row["seed"] for row in rows_of(home)}
    with running_service(settings) as client:
        for seed in seeds:
            if seed in done:
                continue
            name = f"seed-{seed}"
            if name in {study["name"] for study in client.studies()}:
                client.delete_study(name)  # it was interrupted
            spec = {**demo_spec(root, name=name, trials=trials), "optimizer": {"name": "ax", "seed": seed}}
            study = client.run(create_new_study(spec))
            with running_workers(settings, client.url, name) as workers:
                watch_study(client, study, workers)
            row = {"seed": seed, "trials": client.trials(name), "best": client.best(name)}
            with (home / "demo_seeds.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def rows_of(home: Path) -> list[dict[str, Any]]:
    """Return a row for each study that has ended."""
    file = home / "demo_seeds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def report(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line of Markdown for each study, and the means."""
    headings = ("seed", "start-up: mean", "proposals: mean", "start-up: best", "proposals: best", "answer")
    yield f"| {' | '.join(headings)} |"
    yield "| --- " * 6 + "|"
    found = []
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        first, later = ([value(trial) for trial in of(row, is_first=is_first)] for is_first in (True, False))
        if not first or not later:
            continue
        found.append([float(np.mean(first)), float(np.mean(later)), max(first), max(later)])
        best = next(trial for trial in row["trials"] if trial["number"] == row["best"]["number"])
        who = "start-up" if best["generator"] == START_UP else "proposal"
        yield f"| {row['seed']} | {' | '.join(f'{one:.3f}' for one in found[-1])} | {who} |"
    if not found:
        return
    means = np.array(found)
    errors = means.std(axis=0, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.full(4, np.nan)
    cells = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means.mean(axis=0), errors, strict=True)]
    yield f"| mean | {' | '.join(cells)} | |"


def of(row: Mapping[str, Any], *, is_first: bool) -> list[Mapping[str, Any]]:
    """Return the trials of the start-up, or those that the model proposed, which have a result."""
    return [
        trial
        for trial in row["trials"]
        if (trial["generator"] == START_UP) == is_first and (trial["metrics"] or {}).get(METRIC) is not None
    ]


def value(trial: Mapping[str, Any]) -> float:
    """Return the last validation top-1 of a trial."""
    return float(trial["metrics"][METRIC])


def main() -> None:
    """Run the studies, or print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_seeds", description=__doc__)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--home", type=Path, default=Path("build/demo-seeds"))
    parser.add_argument("--seeds", type=seeds_of, default=range(10), help="such as 0-9")
    parser.add_argument("--trials", type=int, default=12)
    asked = parser.parse_args()
    if asked.command == "run":
        run(asked.home, asked.seeds, asked.trials)
    print("\n".join(report(rows_of(asked.home))))


if __name__ == "__main__":
    main()
