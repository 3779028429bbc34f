"""Tables of real trainings: every configuration of a grid, trained with our own workers' library (see `trained/`).

A file `NAME.jsonl`, or `NAME.jsonl.gz` once packed, is a header and a row for each training:

    header  what         one sentence
            command, commit, date, machine, torch       how it was made
            space        parameters as in a study spec
            levels       the values of each parameter that were trained
            base         the settings that all trainings share, flat
            dataset      the fields of the data set, without its root
            epochs, chance, validation_clips, final_clips
    row     params, seed the configuration, at levels, and the training's seed
            hits, loss   after each epoch: validation clips classified right, and the mean cross-entropy in nats
            seconds      CPU seconds of each epoch on one thread, validation included
            final_hits, final_loss   the same after the last epoch on a larger set that was never seen before
            failure      {kind, epoch} of a training that failed: `hits` ends before that epoch, `final_hits` is missing

A float of the space is cut into equal parts (of its logarithm with `log`), one for each level, which is its middle. So
every point of the continuous space stands for one trained configuration.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.spec.parameters import matches
from hpo.trial import Params, ParamValue

from .problem import ACCURACY, Problem, ProblemMissing, Values, row_by_row
from .scramble import scrambled_space

TRAINED: Final = ("motion", "people", "appearance")
"""The tables that `python -m benchmarks.optimizer.trained make` makes."""
TABLES_FOLDER: Final = Path(__file__).resolve().parents[1] / "tables"

Levels = Mapping[str, Sequence[ParamValue]]
Space = Mapping[str, AnyParameter]
Cell = tuple[int, ...]
"""The number of the level of each parameter of the space; -1 where the parameter is inactive."""

_SPACE: Final = TypeAdapter(dict[str, AnyParameter])


class Failed(NamedTuple):
    """A training that failed in an epoch (from 1), by a kind of `hpo.trial.FailureKind`."""

    kind: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training of a configuration."""

    top1: NDArray[np.float64]
    """Validation top-1 after each epoch, (epochs done,)."""
    loss: NDArray[np.float64]
    """Validation cross-entropy in nats after each epoch, (epochs done,)."""
    seconds: float
    """Mean CPU seconds of an epoch; NaN if the first failed."""
    final: float
    """Top-1 on the larger set; of a failed training that of guessing."""
    failed: Failed | None


class TrainedTable:
    """A table: what each point of its space gave, by the seed of the training.

    A configuration that is not in the table yet is answered by the nearest one that is, so that a table can be used
    while it is made.
    """

    def __init__(self, name: str, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
        self.name = name
        self.header = dict(header)
        self.space: Space = _SPACE.validate_python(header["space"])
        self.levels: Levels = header["levels"]
        self.epochs: int = header["epochs"]
        self.chance: float = header["chance"]
        self.validation_clips: int = header["validation_clips"]
        self.final_clips: int = header["final_clips"]
        self.objectives = (ACCURACY,)
        self._own_space = self.space
        self._to_own: Callable[[Params], Params] = dict
        found: dict[Cell, dict[int, Training]] = {}
        for row in rows:
            found.setdefault(self.cell(row["params"]), {})[row["seed"]] = self._training(row)
        self._trainings = {cell: [by_seed[seed] for seed in sorted(by_seed)] for cell, by_seed in found.items()}

    @classmethod
    def read(cls, name: str, folder: Path = TABLES_FOLDER) -> Self:
        """Return the table `name` of a folder.

        Raises:
            ProblemMissing: there is no such table, or it has no rows yet.
        """
        header, rows = read_rows(folder, name)
        if not rows:
            raise ProblemMissing(f"the table {name} in {folder} has no trainings yet")
        return cls(name, header, rows)

    @property
    def each(self) -> list[Sequence[Training]]:
        """The trainings of every configuration in the table, in the order of `truths`."""
        return list(self._trainings.values())

    @property
    def configurations(self) -> int:
        """Number of configurations with at least one training."""
        return len(self._trainings)

    @cached_property
    def truths(self) -> NDArray[np.float64]:
        """The truth of every configuration in the table, in no particular order."""
        return np.array([_truth(trainings) for trainings in self._trainings.values()])

    @property
    def optimum(self) -> float:
        """The best truth of the table."""
        return float(self.truths.max())

    @property
    def median(self) -> float:
        """The median truth of the table."""
        return float(np.median(self.truths))

    def seeds(self, params: Params) -> int:
        """Return how many trainings the configuration has; their seeds count from 0."""
        return len(self.trainings(params))

    def curve(self, params: Params, seed: int) -> NDArray[np.float64]:
        """Return the validation top-1 after each epoch, (epochs,); shorter where the training failed.

        Args:
            seed: any integer; the remainder by the number of trainings selects one.
        """
        return self._one(params, seed).top1

    def failure(self, params: Params, seed: int) -> Failed | None:
        """Return how this training failed; None if it did not."""
        return self._one(params, seed).failed

    def truth(self, params: Params) -> float:
        """Return the mean over the trainings of the top-1 on the larger set; a failed one counts as guessing."""
        return _truth(self.trainings(params))

    def seconds(self, params: Params) -> float:
        """Return the CPU seconds of one epoch."""
        known = [t.seconds for t in self.trainings(params) if not math.isnan(t.seconds)]
        return float(np.mean(known)) if known else self._median_seconds

    def trainings(self, params: Params) -> Sequence[Training]:
        """Return the trainings of a configuration by their seeds, from 0."""
        cell = self.cell(params)
        found = self._trainings.get(cell)
        return found if found is not None else self._trainings[self._nearest(cell)]

    def cell(self, params: Params) -> Cell:
        """Return the place of a configuration in the grid."""
        return cell_of(self._own_space, self.levels, self._to_own(params))

    def settings(self, params: Params) -> dict[str, ParamValue]:
        """Return the values at which the configuration was trained."""
        places = zip(self.levels.items(), self.cell(params), strict=True)
        return {key: levels[place] for (key, levels), place in places if place >= 0}

    def scrambled(self, seed: int) -> TrainedTable:
        """Return the table over a space with relabelled categories and reflected dimensions; see `scramble`."""
        space, back = scrambled_space(self.space, self.name, seed)
        changed, before = copy(self), self._to_own
        changed.space, changed._to_own = space, lambda params: before(back(params))
        return changed

    def problem(self) -> Problem:
        """Return the table as a problem of whole trainings, with the noise of the last epoch's validation."""

        def noise(params: Params, rng: np.random.Generator) -> Values:
            trainings = self.trainings(params)
            drawn = trainings[int(rng.integers(len(trainings)))]
            return (self.chance if drawn.failed else float(drawn.top1[-1]),)

        return Problem(
            name=f"trained_{self.name}",
            space=self.space,
            objectives=self.objectives,
            truth=row_by_row(lambda params: (self.truth(params),)),
            noise=noise,
            optimum=(self.optimum,),
            median=self.median,
        )

    @cached_property
    def _median_seconds(self) -> float:
        every = [t.seconds for trainings in self._trainings.values() for t in trainings]
        return float(np.nanmedian(every))

    def _one(self, params: Params, seed: int) -> Training:
        trainings = self.trainings(params)
        return trainings[seed % len(trainings)]

    def _training(self, row: Mapping[str, Any]) -> Training:
        failure, seconds = row.get("failure"), row["seconds"]
        return Training(
            top1=np.array(row["hits"], dtype=np.float64) / self.validation_clips,
            loss=np.array(row["loss"], dtype=np.float64),
            seconds=float(np.mean(seconds)) if seconds else math.nan,
            final=self.chance if failure else row["final_hits"] / self.final_clips,
            failed=Failed(failure["kind"], failure["epoch"]) if failure else None,
        )

    def _nearest(self, cell: Cell) -> Cell:
        wanted = np.array(cell)
        known = np.array(list(self._trainings))
        sizes = np.array([max(1, len(levels) - 1) for levels in self.levels.values()])
        return tuple(int(n) for n in known[np.abs((known - wanted) / sizes).sum(axis=1).argmin()])


def _truth(trainings: Sequence[Training]) -> float:
    return float(np.mean([training.final for training in trainings]))


def levels_of(parameter: AnyParameter, count: int | None = None) -> list[ParamValue]:
    """Return the values at which a parameter is trained: all that it has, of a float the middles of `count` parts.

    Raises:
        ValueError: the parameter is a float without a count, or has a step.
    """
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return list(parameter.choices)
    if isinstance(parameter, IntParameter):
        return list(range(parameter.low, parameter.high + 1, parameter.step))
    if count is None or parameter.step is not None:
        raise ValueError("a float needs the number of its levels, and no step")
    low, high = _ends(parameter)
    middles = [low + (high - low) * (place + 0.5) / count for place in range(count)]
    return [float(f"{math.exp(middle) if parameter.log else middle:.4g}") for middle in middles]


def cell_of(space: Space, levels: Levels, params: Params) -> Cell:
    """Return the place of a configuration in the grid."""
    return tuple(
        _place(parameter, levels[key], params[key]) if matches(parameter.when, dict(params)) else -1
        for key, parameter in space.items()
    )


def grid(space: Space, levels: Levels) -> Iterator[dict[str, ParamValue]]:
    """Yield every configuration of the grid once; inactive parameters are left out."""
    seen: set[Cell] = set()
    for values in product(*(levels[key] for key in space)):
        every = dict(zip(space, values, strict=True))
        cell = cell_of(space, levels, every)
        if cell not in seen:
            seen.add(cell)
            yield {key: value for (key, value), place in zip(every.items(), cell, strict=True) if place >= 0}


def _place(parameter: AnyParameter, levels: Sequence[ParamValue], value: ParamValue) -> int:
    if not isinstance(parameter, FloatParameter):
        return list(levels).index(value)
    low, high = _ends(parameter)
    at = math.log(float(value)) if parameter.log else float(value)
    return min(max(math.floor((at - low) / (high - low) * len(levels)), 0), len(levels) - 1)


def _ends(parameter: FloatParameter) -> tuple[float, float]:
    """Return the ends of the range, as logarithms if it is logarithmic."""
    return (math.log(parameter.low), math.log(parameter.high)) if parameter.log else (parameter.low, parameter.high)


def read_rows(folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header and the rows of a table: those of the compressed file, then those of the plain one.

    Where a training has several rows, the first counts.

    Raises:
        ProblemMissing: the folder has no such table.
    """
    packed, plain = folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl"
    lines = _whole(gzip.decompress(packed.read_bytes()).decode()) if packed.exists() else []
    lines += _whole(plain.read_text()) if plain.exists() else []
    header = next((line for line in lines if "space" in line), None)
    if header is None:
        raise ProblemMissing(f"there is no table {plain}; make it with `python -m benchmarks.optimizer.trained make`")
    first: dict[str, dict[str, Any]] = {}
    for row in lines:
        if "space" not in row:
            first.setdefault(identity(row["params"], row["seed"]), row)
    return header, list(first.values())


def pack(source: Path, name: str, target: Path) -> Path:
    """Write the table `name` of a folder compressed into the folder `target`, and return the file.

    The same rows give the same bytes. Within one folder the plain file, which is in the compressed one then, goes.

    Raises:
        ProblemMissing: the folder `source` has no such table.
    """
    header, rows = read_rows(source, name)
    lines = [header, *sorted(rows, key=lambda row: identity(row["params"], row["seed"]))]
    text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.jsonl.gz"
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))
    unfinished.replace(path)
    if source.resolve() == target.resolve():
        (source / f"{name}.jsonl").unlink(missing_ok=True)
    return path


def identity(params: Params, seed: int) -> str:
    """Return a text that is the same for the same training."""
    return json.dumps([seed, dict(params)], sort_keys=True)


def _whole(text: str) -> list[dict[str, Any]]:
    """Return the objects of the whole lines; a kill may leave the last one incomplete."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
