"""How many trials a plot of the dashboard shows, and which: plots of all of them would be many megabytes.

Plots are made from what `get_all_trials` answers. While a plot is made, that is a sample: the best, the worst and an
even spread of values between them, so that the sample is distributed as the whole; the times of trials are spread over
the numbers. The whole front of several objectives stays. What a plot does not show of a study, its title says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from hpo.optuna_view.storage import StudyStorage
from hpo.optuna_view.trials import CONSTRAINTS_KEY

_PLOT: Final = re.compile(r"^/api/studies/\d+/plot/(\w+)/?$")
_FEWEST: Final = 30
"""However many parameters there are."""


@dataclass(slots=True)
class Plot:
    """A plot that is being made."""

    kind: str
    shown: int = 0
    trials: int = 0
    """Of which so many are shown."""


_plot: ContextVar[Plot | None] = ContextVar("plot", default=None)


def most_trials(kind: str, parameters: int) -> int | None:
    """Return how many trials of a study a plot shows, None for all.

    The bounds are what takes about 3 MB and a second of CPU, by what each plot grows with.
    """
    n = max(parameters, 1)
    most = {
        "contour": 500 / n,  # a grid of trials x trials for each pair of parameters
        "rank": 40_000 / n**3,  # a point for each trial and pair, with all parameters in words
        "parallel_coordinate": 20_000 / (n + 1),
        "slice": 100_000 / n,
        "timeline": 3_000,
        "pareto_front": 3_000,
    }.get(kind)
    return None if most is None else max(int(most), _FEWEST)


@contextmanager
def plot_of(path: str) -> Iterator[Plot | None]:
    """Yield what becomes of the plot of a path, and let `SampledStorage` answer with samples; None for other paths."""
    found = _PLOT.match(path)
    plot = None if found is None else Plot(found[1])
    token = _plot.set(plot)
    try:
        yield plot
    finally:
        _plot.reset(token)


class SampledStorage(StudyStorage):
    """Our studies for the dashboard: all trials but where a plot is made of them."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers, as many as the plot that is made shows."""
        found = super().get_all_trials(study_id, deepcopy, states)
        if (plot := _plot.get()) is None:
            return found
        most = most_trials(plot.kind, len({name for trial in found for name in trial.params}))
        kept = found if most is None else sample(plot.kind, found, most, self.get_study_directions(study_id))
        plot.shown, plot.trials = max(plot.shown, len(kept)), max(plot.trials, len(found))
        return kept


def sample(
    kind: str, trials: Sequence[FrozenTrial], most: int, directions: Sequence[StudyDirection]
) -> list[FrozenTrial]:
    """Return `most` of the trials by number, and what is on the front of several objectives; all where there are fewer.

    All trials must have values, but for the plot of times.
    """
    if len(trials) <= most:
        return list(trials)
    if kind == "timeline":
        return _spread(trials, most)
    first = 1 if directions[0] is StudyDirection.MINIMIZE else -1
    kept = _spread(sorted(trials, key=lambda trial: (first * trial.values[0], trial.number)), most)
    if kind == "pareto_front":
        known = {trial.number for trial in kept}
        kept += [trial for trial in _front(trials, directions) if trial.number not in known]
    return sorted(kept, key=lambda trial: trial.number)


def with_note(body: bytes, plot: Plot) -> bytes:
    """Return a plot whose title says which part of the study it shows."""
    if plot.shown >= plot.trials:
        return body
    figure: dict[str, Any] = json.loads(body)
    title = figure.setdefault("layout", {}).setdefault("title", {})
    title["text"] = f"{title.get('text', 'Plot')}: {plot.shown:,} of {plot.trials:,} trials, evenly spread"
    return json.dumps(figure, separators=(",", ":")).encode()


def _spread(trials: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """Return the first, the last, and others at even distances between them."""
    return [trials[math.floor(place)] for place in np.linspace(0, len(trials) - 1, most)]


def _front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return the feasible trials that no other feasible one dominates."""
    feasible = [trial for trial in trials if all(value <= 0 for value in trial.system_attrs.get(CONSTRAINTS_KEY, ()))]
    signs = np.array([1.0 if direction is StudyDirection.MINIMIZE else -1.0 for direction in directions])
    losses = np.array([trial.values for trial in feasible], dtype=float).reshape(-1, len(signs)) * signs
    front: list[int] = []
    for place in np.lexsort(losses.T[::-1]):  # nothing is dominated by what comes after it
        others = losses[front]
        if not np.any(np.all(others <= losses[place], axis=1) & np.any(others < losses[place], axis=1)):
            front.append(int(place))
    return [feasible[place] for place in front]
