"""A few runs of the simulated service, in parallel, with a summary on the console and no rows.

    python -m benchmarks.optimizer quick --problem demo --noise .04 --seeds 0-9 --methods ax+asha sobol+asha tpe+asha

`ax` means our optimizer. The first trials, 4 of 12, are left out of the means of proposals, for all methods alike.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from .methods import OURS
from .problems import load_problem
from .problems.demo import CHANCE, noisy_name
from .service import as_row, simulate


def quick(asked: argparse.Namespace) -> None:
    """Print a line for each method that was asked for."""
    name = noisy_name(asked.noise) if asked.problem == "demo" else asked.problem
    print(_HEAD)
    with ProcessPoolExecutor(asked.jobs) as pool:
        for method in asked.methods:
            started = time.perf_counter()
            ours = method.replace("ax", OURS) if method.partition("+")[0] == "ax" else method
            one = partial(_one, asked, name, ours)
            rows = list(pool.map(one, asked.seeds))
            print(_summary(method, rows, asked.start, time.perf_counter() - started), flush=True)


def _one(asked: argparse.Namespace, name: str, method: str, seed: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    problem = load_problem(name, tables=asked.tables, scramble=asked.scramble)
    return as_row(
        simulate(problem, method, seed, workers=asked.workers, trials=asked.trials, trainings=asked.trainings)
    )


_HEAD = "method            proposals true   exported true   at chance  walls  |z|>2 (n)    z sd  trials  epochs  s/run"


def _summary(method: str, rows: Sequence[dict[str, Any]], start: int, seconds: float) -> str:
    later = [row["trials"][start:] for row in rows]
    exported = [row["trials"][row["exported"]][4] for row in rows if row["exported"] is not None]
    trials = [trial for run in later for trial in run]
    z = np.array([(trial[12] - trial[6]) / trial[7] for trial in trials if trial[7] and trial[3] != "failed"])
    walls = np.array([trial[9] for trial in trials]).sum(axis=0)
    beyond = f"{np.mean(np.abs(z) > 2):.2f} ({len(z)})" if len(z) else "-"
    counts = [len(row["trials"]) for row in rows]
    epochs = [row["epochs"] for row in rows]
    return (
        f"{method:<17} {_mean([float(np.mean([trial[4] for trial in run])) for run in later])}  {_mean(exported)}"
        f" {np.mean([trial[4] <= CHANCE + 0.02 for trial in trials]):9.2f}  {walls[0] / max(walls[1], 1):.2f}"
        f"  {beyond:>11}  {np.std(z) if len(z) else math.nan:6.2f}  {np.mean(counts):6.1f}  {np.mean(epochs):6.1f}"
        f"  {seconds / len(rows):6.1f}"
    )


def _mean(values: Sequence[float]) -> str:
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `quick`, but for its seeds, which the command line reads as it does for runs."""
    parser.add_argument("--problem", default="demo", help="demo, or a problem with simulated trainings")
    parser.add_argument("--noise", type=float, default=0.04, choices=[0.0, 0.01, 0.02, 0.04], help="of demo")
    parser.add_argument("--methods", nargs="+", default=["ax+asha", "sobol+asha"], metavar="METHOD")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--trainings", type=int, help="also limit the epochs, to those of so many trainings")
    parser.add_argument("--start", type=int, default=4, help="leave out so many first trials")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scramble", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
