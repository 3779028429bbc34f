"""What is believed of the ends of learning curves, beside the ends: how honest it is, and how sharp.

    python -m benchmarks.beliefs                                             # a minute; all curves whose data are there
    python -m benchmarks.beliefs --sets demo motion --noise 0 0.03 --draws 20

A study has as many completed trials as stopped ones, three, eight or twenty of each; stopped is the half that was worse
at an epoch, and ten further trials run at that epoch. The model of curves (`hpo.stopping.curve_model`) learns from the
completed and the stopped ones, and predicts the ends of all. Noise is added to each epoch; the end is the value without
it. Curves of the tables of real training have their own noise: there the end is the mean last value of the trainings of
the configuration, so that two trainings of it differ by more than its curve shows.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from hpo.arrays import Array
from hpo.optimizer.cube import decode
from hpo.stopping.curve_model import CurveModel, rungs
from hpo.trial import Params

from .optimizer.problems import DEMOS, LCBENCH, SHARED_DATA, TABLES_FOLDER, Problem, ProblemMissing, load_problem
from .optimizer.problems.demo import demo_curve
from .optimizer.problems.trained import TRAINED, TrainedTable
from .optimizer.study import spec_of

NOISES: Final = (0.0, 0.01, 0.02, 0.04)
SIZES: Final = (3, 8, 20)
"""Numbers of completed trials of a study, and as many stopped ones."""
KINDS: Final = ("completed", "stopped", "running")
RUNNING: Final = 10
HEADINGS: Final = (
    "| curves | noise | trials | sd over RMSE | within 1 sd | within 1.96 sd | RMSE over the spread of ends |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
_STOPPED_AT: Final = (1 / 8, 1 / 3)
_CURVES: Final = 300
"""Curves of a set that can be drawn at will."""
_INVENTED_EPOCHS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSet:
    """Curves that a study may have."""

    name: str
    values: Array
    """(curves, epochs)"""
    ends: Array
    """What is to be predicted, (curves,)."""
    is_measured: bool = False
    """Whether the values have a noise of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Predictions of one kind of trials, in units of the metric."""

    errors: Array
    deviations: Array
    spread: float
    """The standard deviation of all ends of the set."""

    def cells(self) -> list[str]:
        """Return the figures of a row, without its names."""
        scaled = np.abs(self.errors) / self.deviations
        rmse = np.sqrt((self.errors**2).mean())
        ratio = np.sqrt((self.deviations**2).mean()) / max(rmse, 1e-9)
        within = [(scaled < width).mean() for width in (1.0, 1.96)]
        return [f"{ratio:.2f}", *(f"{share:.2f}" for share in within), f"{rmse / self.spread:.3f}"]


def power_laws(rng: np.random.Generator) -> CurveSet:
    """Return accuracies that approach their ends by power laws."""
    steps = np.arange(1, _INVENTED_EPOCHS + 1)
    end, height, speed = _uniform(rng, (0.3, 0.9), (0.1, 0.6), (0.2, 1.5))
    values = end - height * steps**-speed
    return CurveSet(name="power laws", values=values, ends=values[:, -1])


def slow_starters(rng: np.random.Generator) -> CurveSet:
    """Return accuracies that begin to rise after 1 to 12 epochs, and then at different speeds."""
    steps = np.arange(1, _INVENTED_EPOCHS + 1)
    end, middle, width = _uniform(rng, (0.3, 0.9), (1.0, 12.0), (1.0, 5.0))
    values = 0.1 + (end - 0.1) / (1 + np.exp(-(steps - middle) / width)) * (1 - np.exp(-steps / 8))
    return CurveSet(name="slow starters", values=values, ends=values[:, -1])


def demo(rng: np.random.Generator) -> CurveSet:
    """Return curves of random configurations of the closed form of the demo."""
    return _of_configurations(load_problem(DEMOS[0]), demo_curve, rng)


def lcbench(name: str, data: Path, rng: np.random.Generator) -> CurveSet:
    """Return curves of random configurations of a task of lcbench.

    Raises:
        ProblemMissing: the surrogates are not there.
    """
    problem = load_problem(name, data=data)
    assert problem.curve is not None  # noqa: S101 - these tasks have curves
    return _of_configurations(problem, problem.curve, rng)


def measured(name: str, tables: Path, _: np.random.Generator) -> CurveSet:
    """Return the first training of each configuration of a table that did not fail."""
    table = TrainedTable.read(name, tables)
    whole = [[one.top1 for one in trainings if not one.failed] for trainings in table.each]
    return CurveSet(
        name=name,
        values=np.array([each[0] for each in whole if each]),
        ends=np.array([np.mean([one[-1] for one in each]) for each in whole if each]),
        is_measured=True,
    )


def predictions(curves: CurveSet, noise: float, draws: int) -> Mapping[str, Found]:
    """Return what is believed in `draws` studies of each of `SIZES`, by the kind of the trials."""
    errors: dict[str, list[float]] = {kind: [] for kind in KINDS}
    deviations: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for draw in range(draws):
        rng = np.random.default_rng([draw, round(1000 * noise)])
        for size in SIZES:
            for kind, error, deviation in _study(curves, noise, size, _STOPPED_AT[draw % 2], rng):
                errors[kind].append(error)
                deviations[kind].append(deviation)
    spread = float(curves.ends.std())
    return {
        kind: Found(errors=np.array(errors[kind]), deviations=np.array(deviations[kind]), spread=spread)
        for kind in KINDS
    }


def rows(sets: Sequence[CurveSet], noises: Sequence[float], draws: int) -> Iterator[str]:
    """Yield a row of Markdown below `HEADINGS` for each set, noise and kind of trials."""
    for curves in sets:
        for noise in [0.0] if curves.is_measured else noises:
            for kind, found in predictions(curves, noise, draws).items():
                named = [curves.name, "its own" if curves.is_measured else f"{noise:g}", kind]
                yield f"| {' | '.join([*named, *found.cells()])} |"


def _study(
    curves: CurveSet, noise: float, size: int, stopped_at: float, rng: np.random.Generator
) -> Iterator[tuple[str, float, float]]:
    """Yield the kind of each trial of a study, the error of the prediction of its end, and its standard deviation."""
    places = rng.choice(len(curves.values), 2 * size + RUNNING, replace=False)
    seen = curves.values[places] + noise * rng.standard_normal((len(places), curves.values.shape[1]))
    epochs = seen.shape[1]
    stop = max(2, round(stopped_at * epochs))
    worse = set(np.argsort(seen[: 2 * size, stop - 1])[:size].tolist())
    kinds = ["stopped" if row in worse else "completed" if row < 2 * size else "running" for row in range(len(seen))]
    lengths = [epochs if kind == "completed" else stop for kind in kinds]
    shown = [dict(enumerate(row[:length].tolist(), 1)) for row, length in zip(seen, lengths, strict=True)]
    model = CurveModel(shown[: 2 * size], rungs(1, epochs), on_these_clips=not curves.is_measured)
    for kind, place, found in zip(kinds, places, model.predict_all(shown), strict=True):
        yield kind, float(curves.ends[place]) - found.mean, found.deviation


def _uniform(rng: np.random.Generator, *ranges: tuple[float, float]) -> list[Array]:
    return [rng.uniform(low, high, (_CURVES, 1)) for low, high in ranges]


def _of_configurations(problem: Problem, curve: Callable[[Params], Array], rng: np.random.Generator) -> CurveSet:
    spec = spec_of(problem, trials=1)
    drawn = [decode(spec, rng.random(len(problem.space)).tolist()) for _ in range(_CURVES)]
    values = np.array([curve(params) for params in drawn])
    return CurveSet(name=problem.name, values=values, ends=values[:, -1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status after printing the table; sets whose data are missing are left out and named."""
    asked = _parser().parse_args(arguments)
    make: Mapping[str, Callable[[np.random.Generator], CurveSet]] = {
        "power": power_laws,
        "slow": slow_starters,
        "demo": demo,
        **{name: partial(lcbench, name, asked.yahpo) for name in LCBENCH},
        **{name: partial(measured, name, asked.tables) for name in TRAINED},
    }
    if unknown := sorted(set(asked.sets) - make.keys()):
        print(f"there are no curves {', '.join(unknown)}; known: {', '.join(make)}", file=sys.stderr)
        return 1
    print(HEADINGS)
    for name in asked.sets or make:
        try:
            found = make[name](np.random.default_rng(0))
        except ProblemMissing as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for row in rows([found], asked.noise, asked.draws):
            print(row, flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beliefs", description=__doc__)
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--noise", nargs="*", type=float, default=NOISES, help="sd added to each epoch")
    parser.add_argument("--draws", type=int, default=6, help="studies of each size")
    parser.add_argument("--yahpo", type=Path, default=SHARED_DATA, help="folder of the YAHPO surrogates")
    parser.add_argument("--tables", type=Path, default=TABLES_FOLDER, help="folder of the tables of trainings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
