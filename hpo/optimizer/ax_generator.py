"""Bayesian optimization by Ax and BoTorch, from the records alone.

Ax is a calculator here, not a keeper of state: every proposal builds a fresh `Client` from the history (about 2 ms a
trial), so that replay, re-planning and restart are the ordinary case, and none of Ax's traps with state can be met:

- start-up is ours; Ax begins with its model (an initialization budget of 0, which may be exceeded);
- every row has a progression (epochs done), so that stepped and step-less data never mix;
- a trial without all metrics, or with one that is not finite, is given as pending or not at all;
- failures of a configuration are given as the worst outcome seen, since Ax does not see failed trials;
- the seed is given each time, and torch is pinned to one thread (many are slower for matrices this small).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..spec import StudySpec
from ..trial import Suggestion, TrialState
from .cube import key_of, size
from .generator import GeneratorError
from .history import History, Observation

with warnings.catch_warnings():
    # Ax imports its own deprecated modules, and linear_operator uses torch.jit.script.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    # ... and it announces its SQL storage, which is not used here, on the console.
    _disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    from ax.api.client import Client
    from ax.core.data import Data, DataRow
    from ax.utils.common.logger import set_ax_logger_levels

    from .ax_space import AxSpace

    logging.disable(_disabled)

_ATTEMPTS = 5
"""How often Ax is asked again when its proposal is a configuration that is known already."""


_FEW = 2000
"""Spaces up to this size are counted."""


class AxGenerator:
    """Proposes by expected improvement (hypervolume improvement for several objectives) under the constraints."""

    name = "ax"

    def __init__(self) -> None:
        torch.set_num_threads(1)
        # Ax warns of what is ordinary here, such as a constraint metric that has not varied yet.
        set_ax_logger_levels(logging.ERROR)

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Give up to `n` configurations, each planned with the earlier ones pending."""
        space = AxSpace(history.spec)
        if not space.parameters:
            raise GeneratorError("nothing varies in this space")
        # Ax takes half a minute to find out that a space is used up.
        count = size(history.spec, limit=_FEW)
        left = n if count is None else count - len(history.taken)
        if left <= 0:
            raise GeneratorError("every configuration of this space has been tried")
        try:
            with _known_warnings():
                client = _client(history, space)
                return _distinct(client, history, space, min(n, left))
        except Exception as error:
            # Ax, BoTorch and torch raise a dozen unrelated classes when a fit or a space is degenerate.
            raise GeneratorError(f"Ax could not propose ({type(error).__name__}: {error})") from error


def _distinct(client: Client, history: History, space: AxSpace, n: int) -> list[Suggestion]:
    taken = set(history.taken)
    found: list[Suggestion] = []
    for _ in range(n + _ATTEMPTS):
        if len(found) == n:
            break
        # A known configuration stays pending in the client, so that the next proposal is another one.
        (values,) = client.get_next_trials(1).values()
        params = space.decode(values)
        if key_of(params) in taken:
            continue
        taken.add(key_of(params))
        mean, sd = _prediction(client, history.spec, values)
        found.append(Suggestion(params=params, generator="ax", predicted_mean=mean, predicted_sd=sd))
    if not found:
        raise GeneratorError(f"Ax proposed nothing new in {_ATTEMPTS} attempts")
    return found


def _prediction(client: Client, spec: StudySpec, values: Any) -> tuple[float | None, float | None]:
    """Give what the model expects of the first objective: mean and standard deviation."""
    mean, sd = client.predict([values])[0][spec.objectives[0].metric]
    return (float(mean), float(sd)) if math.isfinite(mean) and math.isfinite(sd) else (None, None)


def _client(history: History, space: AxSpace) -> Client:
    spec = history.spec
    client = Client(random_seed=spec.optimizer.seed)
    client.configure_experiment(parameters=space.parameters, name=spec.name)
    client.configure_optimization(objective=_objective(spec), outcome_constraints=_constraints(spec))
    client.configure_generation_strategy(
        method="fast",
        initialization_budget=0,
        initialize_with_center=False,
        allow_exceeding_initialization_budget=True,
    )
    _attach(client, history, space)
    return client


def _attach(client: Client, history: History, space: AxSpace) -> None:
    """Give every observation to Ax: all rows at once, which is fifty times as fast as `Client.attach_data` of each."""
    rows: list[DataRow] = []
    finished: list[tuple[int, Observation]] = []
    for seen in history.observations:
        index = client.attach_trial(space.encode(seen.params))
        rows += _rows(client, index, seen)
        if seen.state in (TrialState.COMPLETED, TrialState.STOPPED):
            finished.append((index, seen))
    if rows:
        client._experiment.attach_data(Data(data_rows=rows))
    for index, seen in finished:
        if seen.state is TrialState.STOPPED:
            client.mark_trial_early_stopped(index)
        else:
            client.complete_trial(index)


def _rows(client: Client, index: int, seen: Observation) -> list[DataRow]:
    arm = client._experiment.trials[index].arms[0].name
    # An unknown standard error (NaN) lets the model learn the noise.
    return [
        DataRow(
            trial_index=index,
            arm_name=arm,
            metric_name=name,
            metric_signature=name,
            mean=value,
            se=math.nan,
            step=float(seen.step),
        )
        for name, value in seen.metrics.items()
    ]


def _objective(spec: StudySpec) -> str:
    """Write the objectives as Ax reads them: all are maximised as written."""
    signs = {"maximize": "", "minimize": "-"}
    return ", ".join(f"{signs[objective.direction]}{objective.metric}" for objective in spec.objectives)


def _constraints(spec: StudySpec) -> list[str]:
    """Write the constraints; Ax takes none on the metric of an objective, which is driven that way in any case."""
    objectives = {objective.metric for objective in spec.objectives}
    return [
        f"{constraint.metric} {constraint.relation} {constraint.bound!r}"
        for constraint in spec.constraints
        if constraint.metric not in objectives
    ]


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Silence what Ax and BoTorch say about their own parts and a person can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(ax|botorch|gpytorch|linear_operator)\b")
        yield
