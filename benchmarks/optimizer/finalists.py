"""Are finalists worth their share: is what a study exports really the best of its trials?

    python -m benchmarks.optimizer.finalists --problems demo_01 demo_03 --seeds 0-39

Each run is a study of `--trials` trainings in all, played twice: once all of them search, once the search leaves the
last 15 % to the finalists. Both begin with the same trials. What is exported is said by `hpo.answer`; `observed` is the
trial with the highest last value, which the service exported once. A hit exports the configuration that is truly the
best of the trials of its study, and the regret is how far the exported one truly lies below that best one.

`demo_NN` is the end of the demo's curves in closed form, with normal noise of the stated sd 0.NN in every training.
`motion`, `people` and `appearance` are tables of real trainings with their curves; only configurations with two
trainings take part, a further training is the other one, and so each has one at most.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from hpo.answer import Answer, answer
from hpo.answer.race import Room, next_trainings
from hpo.optimizer import create_optimizer
from hpo.optimizer.ask_tell import MODEL_FREE_OPTIMIZERS
from hpo.optimizer.cube import key_of
from hpo.spec import StudySpec
from hpo.spec.finalists import FinalistsConfig
from hpo.trial import FINALISTS, FailureKind, Params, TrialRecord, TrialState

from .problems import TABLES_FOLDER, load_problem
from .problems.demo import demo_curve
from .problems.problem import Problem
from .problems.trained import TRAINED, TrainedTable, read_rows
from .study import spec_of

_SECONDS = 1.0
_HEAD = "problem     way        hits   regret            trainings  expected - true"


class Trainings(Protocol):
    """A problem whose configurations can be trained several times."""

    @property
    def epochs(self) -> int:
        """Epochs of a training that does not fail."""
        ...

    def curve(self, params: Params, again: int, rng: np.random.Generator) -> Sequence[float]:
        """Return the accuracy after each epoch of one training; fewer than `epochs` if it fails."""
        ...

    def truth(self, params: Params) -> float:
        """Return the accuracy to be expected on new data."""
        ...


@dataclass(frozen=True)
class Demo:
    """The end of the demo's curves in closed form."""

    noise: float
    epochs: int = 1

    def curve(self, params: Params, again: int, rng: np.random.Generator) -> Sequence[float]:
        """Return the end of the mean curve with the noise of one training."""
        return [min(max(self.truth(params) + self.noise * float(rng.standard_normal()), 0.0), 1.0)]

    def truth(self, params: Params) -> float:
        """Return the end of the mean curve."""
        return float(demo_curve(params)[-1])


class Table:
    """A table of real trainings, of the configurations that were trained twice."""

    def __init__(self, name: str, folder: Path) -> None:
        header, rows = read_rows(folder, name)
        cells: dict[str, set[int]] = {}
        for row in rows:
            cells.setdefault(repr(sorted(row["params"].items())), set()).add(row["seed"])
        twice = [row for row in rows if len(cells[repr(sorted(row["params"].items()))]) > 1]
        self.table = TrainedTable(name, header, twice)
        self.epochs = self.table.epochs
        self._first: dict[object, int] = {}

    def curve(self, params: Params, again: int, rng: np.random.Generator) -> Sequence[float]:
        """Return one of the two trainings; the first time a random one, the second time the other."""
        cell = self.table.cell(params)
        first = self._first.setdefault(cell, int(rng.integers(2)))
        return [float(value) for value in self.table.curve(params, (first + again) % 2)]

    def truth(self, params: Params) -> float:
        """Return the mean accuracy of both trainings on the larger set."""
        return float(self.table.truth(params))


@dataclass(slots=True)
class Study:
    """A study that is played one training after another."""

    trainings: Trainings
    spec: StudySpec
    seed: int
    records: list[TrialRecord] = field(default_factory=list)

    def search(self, count: int) -> None:
        """Add trials of the optimizer until there are `count`."""
        optimizer = create_optimizer(self.spec)
        optimizer.replay(self.records)
        learns = self.spec.optimizer.name not in MODEL_FREE_OPTIMIZERS
        while len(self.records) < count:
            for suggestion in optimizer.ask(1 if learns else count - len(self.records)):
                self.train(suggestion.params, None)
            optimizer.replay(self.records)

    def finalists(self, rules: FinalistsConfig, most: int) -> None:
        """Train the finalists until their race is over."""
        room = Room(trials=most, at_once=1, epochs=self.trainings.epochs)
        while (found := answer(self.spec, self.records)) is not None:
            following = next_trainings(found, self.records, rules, room)
            if following.over is not None:
                return
            for number in following.trials:
                self.train(self.records[number].params, number)

    def train(self, params: Params, replicate_of: int | None) -> None:
        """Train a configuration and keep the trial."""
        number = len(self.records)
        rng = np.random.default_rng([self.seed, number])
        again = sum(key_of(record.params) == key_of(params) for record in self.records)
        curve = self.trainings.curve(params, again, rng)
        is_whole = len(curve) == self.trainings.epochs
        self.records.append(
            TrialRecord(
                id=number,
                number=number,
                state=TrialState.COMPLETED if is_whole else TrialState.FAILED,
                params=params,
                curve={step: {"val_top1": value} for step, value in enumerate(curve, start=1)},
                metrics={"val_top1": curve[-1]} if is_whole else None,
                failure_kind=None if is_whole else FailureKind.DIVERGED,
                generator="search" if replicate_of is None else FINALISTS,
                replicate_of=replicate_of,
                epochs_done=len(curve),
                gpu_seconds=_SECONDS * len(curve),
            )
        )

    def outcome(self, number: int) -> tuple[bool, float]:
        """Return whether trial `number` is truly the best of the study, and how far it lies below the best one."""
        truths = [self.trainings.truth(record.params) for record in self.records]
        return truths[number] >= max(truths) - 1e-12, max(truths) - truths[number]

    def luckiest(self) -> int:
        """Return the number of the trial with the highest last value."""
        done = [record for record in self.records if record.metrics]
        return max(done, key=lambda record: ((record.metrics or {})["val_top1"], -record.number)).number


def played(  # noqa: PLR0917 - the options of the command
    problem: str, trials: int, rules: FinalistsConfig, method: str, tables: Path, seed: int
) -> Mapping[str, tuple[bool, float, int, float]]:
    """Return (hit, regret, trainings, expected minus true) of each way to use the same budget."""
    warnings.simplefilter("ignore")
    trainings, shape, stated = _problem(problem, tables)
    objectives = [{"metric": "val_top1", "noise_sd": stated}]
    optimizer = {"name": method, "seed": seed}
    spec = spec_of(shape, trials=trials, seed=seed, optimizer=optimizer, objectives=objectives)
    most = rules.most_of(trials)
    study = Study(trainings, spec, seed)
    study.search(trials - most)
    short = Study(trainings, spec, seed, list(study.records))
    short.finalists(replace_seeds(rules, problem), most)
    study.search(trials)
    ways = {"observed": (study, study.luckiest())}
    for name, one in (("believed", study), ("finalists", short)):
        ways[name] = (one, _winner(one))
    return {
        name: (*one.outcome(number), len(one.records), _optimism(one, name, number))
        for name, (one, number) in ways.items()
    }


def replace_seeds(rules: FinalistsConfig, problem: str) -> FinalistsConfig:
    """Return the rules for a problem: of a table there is one further training of each configuration."""
    return rules.model_copy(update={"seeds": 1, "top": rules.top * rules.seeds}) if problem in TRAINED else rules


def _found(study: Study) -> Answer:
    found = answer(study.spec, study.records)
    if found is None:
        raise ValueError("no trial has a result")
    return found


def _winner(study: Study) -> int:
    return _found(study).winner.chosen


def _optimism(study: Study, name: str, number: int) -> float:
    expected = study.records[number].metrics or {}
    value = expected["val_top1"] if name == "observed" else _found(study).winner.first.expected
    return value - study.trainings.truth(study.records[number].params)


def _problem(name: str, tables: Path) -> tuple[Trainings, Problem, float | None]:
    """Return the trainings, the shape of the problem, and the noise that a person states."""
    if name in TRAINED:
        table = Table(name, tables)
        return table, table.table.problem(), None
    noise = float(name.removeprefix("demo_")) / 100
    return Demo(noise), replace(load_problem("demo_00"), name=name, epochs=1, training=None), noise


def main(arguments: Sequence[str] | None = None) -> None:
    """Play the studies and print a line for each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer.finalists", description=__doc__)
    parser.add_argument("--problems", nargs="+", default=["demo_01", "demo_03"])
    parser.add_argument("--seeds", default="0-39", help="such as 0-39")
    parser.add_argument("--trials", type=int, default=60, help="trainings in all")
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="further trainings of each finalist at most")
    parser.add_argument("--method", default="tpe", help="the optimizer that searches")
    parser.add_argument("--tables", type=Path, default=TABLES_FOLDER)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args(arguments)
    first, _, last = asked.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    rules = FinalistsConfig(top=asked.top, seeds=asked.repeats)
    print(_HEAD, flush=True)
    for problem in asked.problems:
        one = partial(played, problem, asked.trials, rules, asked.method, asked.tables)
        with ProcessPoolExecutor(asked.jobs) as pool:
            rows = list(pool.map(one, seeds))
        for way in rows[0]:
            found = np.array([row[way] for row in rows], dtype=float)
            error = found[:, 1].std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
            print(
                f"{problem:<11} {way:<10} {found[:, 0].mean():.2f}   {found[:, 1].mean():.4f} ± {error:.4f}"
                f"   {found[:, 2].mean():9.1f}  {found[:, 3].mean():+.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
