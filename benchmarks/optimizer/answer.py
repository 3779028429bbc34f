"""How good the answer of a study is: the choice, what is told of it, and how sure it is, in the simulated service.

    python -m benchmarks.optimizer answer --problems demo trained_motion --noise .01 .03 --seeds 0-19

A run is one of the simulated service (`service`), by our optimizer with and without early stopping. Of each, these
choices among the trials with a result are compared by their truth:

    luckiest    the best observed value of a completed trial
    believed    the completed trial whose curve is believed to end best
    answer      what the study answers (`hpo.answer`)
    best        the truly best

*Told* is what is said of the choice minus its truth: on average 0 if it is honest. On a table of real training the
truth is measured on other clips, on which all configurations may be better or worse: `offset` is the mean of validation
minus truth over the table's configurations above chance, and is part of what is told there.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from hpo.answer import Answer, Candidate, answer
from hpo.trial import TrialRecord, TrialState

from .methods import OURS
from .methods.ours import Ours
from .problems import TRAINED, load_problem
from .problems.demo import demo
from .problems.problem import Problem
from .problems.trained import TrainedTable
from .problems.trained_service import PREFIX
from .reference import reference_of
from .service import Trial, simulate

STOPPINGS: Final = ("", "+asha")
_ABOVE_CHANCE: Final = 0.15
_WITHOUT_NOISE: Final = "demo_00"
"""Its optimum, as a loss, is that of the demo with any noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A trial that was chosen in a run, by its truth and by what was told of it."""

    regret: float
    """The best truth of the problem minus that of the choice."""
    behind: float
    """The best truth among the trials with a result minus that of the choice."""
    told: float
    """What is told of it minus its truth."""
    sd: float
    """What is told of the error; 0 if nothing is."""
    probability: float = 0.0
    """Of being the best, as told."""


Run = dict[str, Choice]
"""The choices of a run by the name of the rule."""


def run_of(problem: Problem, method: str, seed: int, *, trainings: int) -> Run:
    """Return the choices in one run; more is better in the problem's only objective."""
    found = simulate(problem, method, seed, trainings=trainings)
    assert isinstance(found.method, Ours)  # noqa: S101 - only runs of our optimizer have records
    records = found.method.records()
    known = answer(found.method.spec, records)
    assert known is not None  # noqa: S101 - some trial of a run always ends with a result
    trials = {trial.id: trial for trial in found.trials}
    return choices(known, records, trials, optimum=_optimum(problem))


def choices(known: Answer, records: Sequence[TrialRecord], trials: dict[int, Trial], *, optimum: float) -> Run:
    """Return what each rule chooses of the trials with a result."""
    by_number = {record.number: record for record in records}
    metric = known.metric
    ended = [by_number[number] for candidate in known.candidates for number in candidate.trials]
    best = max(trials[record.id].truth for record in ended)
    completed = [record for record in ended if record.state is TrialState.COMPLETED] or ended

    def choice(record: TrialRecord, told: float, sd: float = 0.0, probability: float = 0.0) -> Choice:
        truth = trials[record.id].truth
        return Choice(regret=optimum - truth, behind=best - truth, told=told - truth, sd=sd, probability=probability)

    def last(record: TrialRecord) -> float:
        return (record.metrics or {})[metric]

    def of(candidate: Candidate) -> TrialRecord:
        return by_number[candidate.chosen]

    luckiest = max(completed, key=lambda record: (last(record), -record.number))
    finished = [candidate for candidate in known.candidates if candidate.completed] or list(known.candidates)
    believed = max(finished, key=lambda candidate: candidate.first.believed)
    winner, told = known.winner, known.winner.first
    return {
        "luckiest": choice(luckiest, last(luckiest)),
        "believed": choice(of(believed), believed.first.believed, believed.first.sd),
        "answer": choice(of(winner), told.expected, told.expected_sd, winner.probability),
    }


def _optimum(problem: Problem) -> float:
    if problem.optimum is not None:
        return problem.optimum[0]
    loss = reference_of(_WITHOUT_NOISE).optimum
    assert loss is not None  # noqa: S101 - it was computed
    return -loss


def offset_of(name: str, tables: Path) -> float:
    """Return how much better configurations above chance are on the validation clips of a table than on the others."""
    table = TrainedTable.read(name.removeprefix(PREFIX), tables)
    above = [
        float(one.top1[-1]) - one.final
        for trainings in table.each
        for one in trainings
        if not one.failed and one.final > table.chance + _ABOVE_CHANCE
    ]
    return float(np.mean(above))


def compare(asked: argparse.Namespace) -> None:
    """Print a table of the rules for each problem that was asked for."""
    print(_HEAD)
    with ProcessPoolExecutor(asked.jobs) as pool:
        for name, noise in _asked(asked):
            offset = f"{offset_of(name, asked.tables):+.3f}" if name in TRAINED else "0"
            for stopping in STOPPINGS:
                method = f"{OURS}{stopping}"
                runs = list(pool.map(partial(_one, name, noise, method, asked.tables, asked.trainings), asked.seeds))
                label = f"{name}{'' if noise is None else f' {noise:g}'}{stopping}"
                print("\n".join(lines(label, runs, offset)), flush=True)


def lines(label: str, runs: Sequence[Run], offset: str) -> list[str]:
    """Return a line for each rule: means over the runs, with standard errors."""
    found = []
    for rule in runs[0]:
        chosen = [run[rule] for run in runs]
        told = _mean([choice.told for choice in chosen])
        covered = np.mean([abs(choice.told) <= 1.96 * choice.sd for choice in chosen])
        said = np.mean([choice.probability for choice in chosen])
        row = (
            f"{label:<24}{rule:<10}{np.mean([c.regret for c in chosen]):8.4f}{np.mean([c.behind for c in chosen]):9.4f}"
            f"  {told}  {offset:>7}{np.mean([c.behind <= 1e-9 for c in chosen]):7.2f}"
        )
        found.append(row + (f"{said:7.2f}{covered:9.2f}" if rule == "answer" else ""))
    return found


_HEAD: Final = (
    f"{'problem':<24}{'rule':<10}{'regret':>8}{'behind':>9}  {'told - truth':>16}  {'offset':>7}{'best':>7}"
    f"{'P told':>7}{'covered':>9}"
)


def _asked(asked: argparse.Namespace) -> Iterator[tuple[str, float | None]]:
    for name in asked.problems:
        yield from [(name, noise) for noise in asked.noise] if name == "demo" else [(name, None)]


def _one(name: str, noise: float | None, method: str, tables: Path, trainings: int, seed: int) -> Run:  # noqa: PLR0917 - the last one is mapped over
    warnings.simplefilter("ignore")
    problem = load_problem(name, tables=tables) if noise is None else demo(f"demo_{round(100 * noise):02d}", noise)
    return run_of(problem, method, seed, trainings=trainings)


def _mean(values: Sequence[float]) -> str:
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):+.4f} ± {error:.4f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `answer`, but for its seeds, which the command line reads as it does for runs."""
    parser.add_argument("--problems", nargs="+", default=["demo", *TRAINED], choices=["demo", *TRAINED])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.01, 0.03], help="of demo, in every epoch")
    parser.add_argument("--trainings", type=int, default=12, help="the epochs of so many trainings")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
