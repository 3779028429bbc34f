"""Is it better to hold out the same groups in all trials of a study, or other groups in each of them?

    python -m benchmarks.reshuffled train       # resumable: a row for each training
    python -m benchmarks.reshuffled compare

`train` trains configurations of the table `people` (`benchmarks.optimizer.trained`), each once for every draw of
held-out groups (`split_seed` 0, 1, ...). `compare` lets random searches choose among some of the configurations: by the
last value, and by the answer of a study (`hpo.answer`). In a search with fixed groups all trials are of one draw; with
reshuffled groups each is of a draw of its own. The truth of a configuration is its mean top-1 over all draws: on the
groups that draws hold out, but for the one that it was chosen by, and on persons whom no draw trains or validates with.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpo.answer import answer
from hpo.arrays import Array, Indices
from hpo.spec import StudySpec, parse_spec
from hpo.trial import Params, TrialRecord, TrialState

from .optimizer.trained.definitions import PEOPLE

_SEED: Final = 14
"""Draws the configurations from the grid of the table."""
_RESAMPLED: Final = 60
"""How often the table is resampled for the standard errors of the differences."""
_CHEAPER: Final = 20
"""So many more searches by the last value, which costs next to nothing."""
_CLASSES: Final = 5
_FIGURES: Final = ("groups", "persons", "said")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The trainings of configurations, each once for every draw of groups."""

    params: Sequence[Params]
    top1: Array
    """On the held-out groups after each epoch, (configurations, draws, epochs)."""
    clips: Indices
    """Clips in the held-out groups, (draws,)."""
    final: Array
    """On other persons after the last epoch, (configurations, draws)."""


def configurations(count: int) -> list[Params]:
    """Return configurations of the grid, drawn at random and always the same."""
    grid = list(PEOPLE.configurations())
    return [grid[place] for place in np.random.default_rng(_SEED).permutation(len(grid))[:count]]


def train(rows: Path, videos: Path, *, count: int, draws: int) -> None:
    """Do the trainings that have no row yet, one draw of groups after the other."""
    from .optimizer.trained.training import Trainings  # imports torch

    logging.getLogger("data.dataset").setLevel(logging.ERROR)
    rows.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["draw"], json.dumps(row["params"])) for row in _read(rows)}
    for draw in range(draws):
        wanted = [params for params in configurations(count) if (draw, json.dumps(params)) not in done]
        if not wanted:
            continue
        task = PEOPLE.task(PEOPLE.videos(videos))
        task = task.model_copy(update={"dataset": task.dataset.model_copy(update={"split_seed": draw})})
        trainings = Trainings(task, cache=videos / "cache", final_views=PEOPLE.final_views)
        counts = trainings.counts()
        shared = {"draw": draw, "clips": counts["validation_clips"], "final_clips": counts["final_clips"]}
        for params in wanted:
            line = {**shared, **trainings.train(params, seed=draw)}
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _read(rows: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []


def read(rows: Path) -> Drawn:
    """Return the trainings of the draws that are complete; those that failed are as good as guessing."""
    found = _read(rows)
    keys = list(dict.fromkeys(json.dumps(row["params"]) for row in found))
    draws = sorted({row["draw"] for row in found})
    draws = [draw for draw in draws if sum(row["draw"] == draw for row in found) == len(keys)]
    chance = 1 / _CLASSES
    top1 = np.full((len(keys), len(draws), PEOPLE.epochs), chance)
    final, clips = np.full((len(keys), len(draws)), chance), np.zeros(len(draws), dtype=np.intp)
    for row in found:
        if row["draw"] not in draws:
            continue
        cell = keys.index(json.dumps(row["params"])), draws.index(row["draw"])
        clips[cell[1]] = row["clips"]
        if "failure" not in row:
            top1[cell] = np.array(row["hits"]) / row["clips"]
            final[cell] = row["final_hits"] / row["final_clips"]
    return Drawn(params=[json.loads(key) for key in keys], top1=top1, clips=clips, final=final)


Choose = Callable[[Drawn, Indices, Indices, bool], tuple[int, float]]
"""Returns which of some configurations is chosen, each trained with its draw, and what is said of its top-1."""


def by_last_value(drawn: Drawn, members: Indices, draws: Indices, is_reshuffled: bool) -> tuple[int, float]:
    """Choose the highest last value."""
    values = drawn.top1[members, draws, -1]
    place = int(values.argmax())
    return place, float(values[place])


def by_answer(drawn: Drawn, members: Indices, draws: Indices, is_reshuffled: bool) -> tuple[int, float]:
    """Choose what a study with these trials answers."""
    records = [
        _record(number, drawn.params[member], drawn.top1[member, draw], int(drawn.clips[draw]))
        for number, (member, draw) in enumerate(zip(members, draws, strict=True))
    ]
    found = answer(_spec(is_reshuffled), records)
    if found is None:
        raise ValueError("no trial has a result")
    return found.winner.chosen, found.winner.first.expected


def _spec(is_reshuffled: bool) -> StudySpec:
    dataset = {**PEOPLE.dataset, "root": "/data", **({"split_seed": "trial"} if is_reshuffled else {})}
    space = {key: parameter.model_dump(mode="json", exclude_defaults=True) for key, parameter in PEOPLE.space.items()}
    task = {"dataset": dataset, "epochs": PEOPLE.epochs, "base": dict(PEOPLE.base)}
    objectives = [{"metric": "val_top1"}]
    return parse_spec(
        {"name": "people", "objectives": objectives, "task": task, "space": space, "budget": {"trials": 99}}
    )


def _record(number: int, params: Params, curve: Array, clips: int) -> TrialRecord:
    values = {step: {"val_top1": float(value), "val_clips": clips} for step, value in enumerate(curve, start=1)}
    return TrialRecord(
        id=number,
        number=number,
        state=TrialState.COMPLETED,
        params=params,
        curve=values,
        metrics=values[len(values)],
        epochs_done=len(values),
    )


def searches(drawn: Drawn, choose: Choose, *, trials: int, count: int, seed: int) -> Array:
    """Return what searches of either way find, (searches, 2 ways, 3 figures).

    The figures: top-1 of the chosen one on the groups of other draws, its top-1 on other persons, and what is said of
    it minus the first.
    """
    rng = np.random.default_rng(seed)
    configurations, draws = drawn.final.shape
    last = drawn.top1[:, :, -1]
    found = np.zeros((count, 2, 3))
    for place in range(count):
        members = rng.permutation(configurations)[:trials]
        fixed = np.full(trials, rng.integers(draws))
        for way, of in enumerate((fixed, rng.integers(draws, size=trials))):
            chosen, said = choose(drawn, members, of, bool(way))
            others = np.delete(last[members[chosen]], of[chosen]).mean()
            found[place, way] = others, drawn.final[members[chosen]].mean(), said - others
    return found


def compare(rows: Path, *, trials: int, count: int) -> Iterator[str]:
    """Yield a line for each rule and way, and the differences between the ways with their standard errors."""
    drawn = read(rows)
    configurations, draws = drawn.final.shape
    yield f"{configurations} configurations, {draws} draws of {drawn.clips.min()} to {drawn.clips.max()} clips"
    for choose, more in ((by_last_value, _CHEAPER), (by_answer, 1)):
        each = searches(drawn, choose, trials=trials, count=more * count, seed=0)
        for way, name in enumerate(("fixed", "reshuffled")):
            groups, persons, said = each[:, way].mean(axis=0)
            yield f"{choose.__name__:<14} {name:<11} groups {groups:.4f}  persons {persons:.4f}  said {said:+.4f}"
        differences = each[:, 1] - each[:, 0]
        of_searches = differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
        of_table = _error(drawn, choose, trials=trials, count=count) if more > 1 else np.full(3, np.nan)
        for place, what in enumerate(_FIGURES):
            errors = f"± {of_searches[place]:.4f} by searches, ± {of_table[place]:.4f} by table"
            yield f"{choose.__name__:<14} {what} {differences[:, place].mean():+.4f} {errors}"


def _error(drawn: Drawn, choose: Choose, *, trials: int, count: int) -> Array:
    """Return the standard errors of the differences, by resampling the configurations and the draws of the table."""
    rng = np.random.default_rng(1)
    configurations, draws = drawn.final.shape
    gains = []
    for again in range(_RESAMPLED):
        rows = rng.integers(configurations, size=(configurations,))
        columns = rng.integers(draws, size=(draws,))
        some = Drawn(
            params=[drawn.params[row] for row in rows.tolist()],
            top1=drawn.top1[rows][:, columns],
            clips=drawn.clips[columns],
            final=drawn.final[rows][:, columns],
        )
        each = searches(some, choose, trials=trials, count=count, seed=again)
        gains.append((each[:, 1] - each[:, 0]).mean(axis=0))
    return np.asarray(np.std(gains, axis=0, ddof=1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reshuffled", description=__doc__)
    parser.add_argument("what", choices=["train", "compare"])
    parser.add_argument("--rows", type=Path, default=Path("build/reshuffled.jsonl"))
    parser.add_argument("--videos", type=Path, default=Path("build/trained"), help="folder of videos and frames")
    parser.add_argument("--configurations", type=int, default=24)
    parser.add_argument("--draws", type=int, default=14)
    parser.add_argument("--trials", type=int, default=12, help="of a search")
    parser.add_argument("--searches", type=int, default=400)
    asked = parser.parse_args(arguments)
    if asked.what == "train":
        train(asked.rows, asked.videos, count=asked.configurations, draws=asked.draws)
        return
    for line in compare(asked.rows, trials=asked.trials, count=asked.searches):
        print(line, flush=True)


if __name__ == "__main__":
    main()
