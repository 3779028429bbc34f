"""How many trials the dashboard gets, for a plot and for the page of a study: all of them would be many megabytes.

Plots are made from what `get_all_trials` answers. While a plot is made, that is a sample: the best, the worst and an
even spread of values between them, so that the sample is distributed as the whole; the times of trials are spread over
the numbers. The whole front of several objectives stays. What a plot does not show of a study, its title says.

The page of a study asks for what comes after the trials that it has, by their count: what it got must stay the
beginning of what it would get later. So whether a trial is part follows from its number and from earlier trials alone.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from hpo.optuna_view.storage import StudySource, StudyStorage, StudyView
from hpo.optuna_view.trials import CONSTRAINTS_KEY
from hpo.optuna_view.trials import directions as directions_of

_PLOT: Final = re.compile(r"^/api/studies/\d+/plot/(\w+)/?$")
_PAGE: Final = re.compile(r"^/api/studies/\d+(/param_importances)?/?$")
"""What optuna-dashboard makes from one list of trials, which it keeps for seconds."""
ALL_UP_TO: Final = 500
"""The page of a study has all trials with smaller numbers."""
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
_is_page: ContextVar[bool] = ContextVar("is_page", default=False)


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
    tokens = _plot.set(plot), _is_page.set(_PAGE.match(path) is not None)
    try:
        yield plot
    finally:
        _plot.reset(tokens[0])
        _is_page.reset(tokens[1])


class Listed(Protocol):
    """What decides whether a trial is part of a page: an `Outcome`, and a `FrozenTrial` too."""

    @property
    def number(self) -> int:
        """Of the trial."""
        ...

    @property
    def state(self) -> OptunaState:
        """Of the trial."""
        ...

    @property
    def values(self) -> Sequence[float] | None:
        """Of the objectives; None where there are none."""
        ...

    @property
    def system_attrs(self) -> Mapping[str, Any]:
        """With what is violated of the constraints."""
        ...


AnyListed = TypeVar("AnyListed", bound=Listed)
Choice = Callable[[Sequence[Listed]], Sequence[Listed]]


class ChoosingSource(StudySource, Protocol):
    """A source that reads some of the trials."""

    def chosen_trials(self, study: StudyView, choose: Choice) -> Sequence[FrozenTrial]:
        """Return those trials of a study that `choose` leaves, as `frozen_trials` does."""
        ...


class SampledStorage(StudyStorage):
    """Our studies for the dashboard: all trials but for a plot, and for the page of a study."""

    def __init__(self, source: ChoosingSource) -> None:
        super().__init__(source)
        self._choosing = source

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers, as many as the plot that is made shows."""
        plot = _plot.get()
        if plot is None and _is_page.get():
            return self._page(study_id, deepcopy, states)
        found = super().get_all_trials(study_id, deepcopy, states)
        if plot is None:
            return found
        most = most_trials(plot.kind, len({name for trial in found for name in trial.params}))
        kept = found if most is None else sample(plot.kind, found, most, self.get_study_directions(study_id))
        plot.shown, plot.trials = max(plot.shown, len(kept)), max(plot.trials, len(found))
        return kept

    def _page(self, study_id: int, deepcopy: bool, states: Container[OptunaState] | None) -> list[FrozenTrial]:
        study = self._study(study_id)

        def choose(trials: Sequence[AnyListed]) -> list[AnyListed]:
            wanted = [one for one in trials if states is None or one.state in states]
            return part(wanted, directions_of(study.spec))

        found = list(self._choosing.chosen_trials(study, choose))
        return copy.deepcopy(found) if deepcopy else found

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best of all trials."""
        token = _is_page.set(False)
        try:
            return super().get_best_trial(study_id)
        finally:
            _is_page.reset(token)


def part(trials: Sequence[AnyListed], directions: Sequence[StudyDirection]) -> list[AnyListed]:
    """Return the trials by number that the page of a study shows: fewer and fewer of the later ones.

    All that have not ended are there, and each that no earlier one dominates, such as the best so far. Of
    `ALL_UP_TO * 2**n` trials there are about `ALL_UP_TO * (1 + n / 2)`.
    """
    if len(trials) <= ALL_UP_TO:
        return list(trials)
    signs = np.array([1.0 if direction is StudyDirection.MINIMIZE else -1.0 for direction in directions])
    front = np.empty((0, len(signs)))
    kept = []
    for trial in trials:
        is_kept = trial.number % _stride(trial.number) == 0 or not trial.state.is_finished()
        if trial.values is not None and _is_feasible(trial):
            loss = np.asarray(trial.values, dtype=float) * signs
            if not np.any(np.all(front <= loss, axis=1)):
                front = np.vstack([front[~np.all(loss <= front, axis=1)], loss])
                is_kept = True
        if is_kept:
            kept.append(trial)
    return kept


def sentence(trials: int) -> str | None:
    """Return which part of a study of so many trials its page shows; None where it is all of them."""
    if trials <= ALL_UP_TO:
        return None
    return (
        f"a part of the {trials:,} trials: all up to {ALL_UP_TO}, then every 2nd, from {2 * ALL_UP_TO:,} on every 4th "
        "and so on, all that run, and each that was the best so far. The CSV, `hpo trials` and the page of the study "
        "have all"
    )


def _stride(number: int) -> int:
    return 1 << (number // ALL_UP_TO).bit_length()


def _is_feasible(trial: Listed) -> bool:
    return all(value <= 0 for value in trial.system_attrs.get(CONSTRAINTS_KEY, ()))


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
    feasible = [trial for trial in trials if _is_feasible(trial)]
    signs = np.array([1.0 if direction is StudyDirection.MINIMIZE else -1.0 for direction in directions])
    losses = np.array([trial.values for trial in feasible], dtype=float).reshape(-1, len(signs)) * signs
    front: list[int] = []
    for place in np.lexsort(losses.T[::-1]):  # nothing is dominated by what comes after it
        others = losses[front]
        if not np.any(np.all(others <= losses[place], axis=1) & np.any(others < losses[place], axis=1)):
            front.append(int(place))
    return [feasible[place] for place in front]
