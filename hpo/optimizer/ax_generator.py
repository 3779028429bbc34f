"""Bayesian optimization in an Ax experiment, with candidates from a generation node of ours.

Ax keeps the experiment with its trials and data, the search space, the optimization config and the generation strategy.
The strategy's node is ours (`ax_model`), because the history tells more than an Ax experiment can hold: predicted final
values of stopped trials, conditional parameters, failures, trials of earlier studies. Its adapter has our models in
BoTorch, and Ax's own analyses (`ax_analyses`) read them. The start-up is ours too and comes before the strategy.

The experiment is a cache: it follows the history trial by trial, and is rebuilt when the past has changed.
Suggestions are a function of the history alone.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

with warnings.catch_warnings():
    # Ax imports its own deprecated modules, and linear_operator uses torch.jit.script.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    # ... and it announces its SQL storage, which is not used here, on the console.
    _disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    from ax.adapter.torch import TorchAdapter
    from ax.api.client import Client
    from ax.core.data import Data, DataRow
    from ax.core.experiment import Experiment
    from ax.core.observation import ObservationFeatures
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.utils.common.logger import set_ax_logger_levels

    from .ax_model import PlannedNode
    from .ax_space import AxSpace
    from .surrogate.plan import Plan, is_used_up
    from .surrogate.search import deterministic

    logging.disable(_disabled)

from ..spec import StudySpec
from ..trial import RESULT_STATES, Params, Suggestion, TrialRecord, TrialState
from .cube import ParamsKey, key_of
from .generator import GeneratorError
from .history import PENDING, History


class AxGenerator:
    """Proposes by expected improvement (hypervolume improvement for several objectives) under the constraints."""

    name = "ax"

    def __init__(self) -> None:
        # Ax warns about ordinary situations, such as a constraint metric that has not varied yet.
        set_ax_logger_levels(logging.ERROR)
        self._study: AxStudy | None = None

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` configurations, each planned with the ones before it pending."""
        return self._planned(history, n, {})

    def batch(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` configurations of one fit: the best, and those that are best in draws from the models."""
        return self._planned(history, 1, {}, drawn=n - 1)

    def complete(self, history: History, guess: Params) -> Suggestion:
        """Return the best new configuration that has the values of `guess`."""
        return self._planned(history, 1, guess)[0]

    def _planned(self, history: History, n: int, guess: Params, *, drawn: int = 0) -> list[Suggestion]:
        try:
            with known_warnings():
                return self.study(history).propose(history, n, guess, drawn=drawn)
        except GeneratorError:
            raise
        except Exception as error:
            # Ax raises a dozen unrelated classes; with any of them the study continues with a Sobol point.
            raise GeneratorError(f"Ax could not propose ({type(error).__name__}: {error})") from error

    def study(self, history: History) -> AxStudy:
        """Return the Ax experiment of `history`, updated, or rebuilt where the past has changed."""
        with known_warnings():
            if self._study is None or not self._study.follow(history):
                self._study = AxStudy(history.spec)
                self._study.follow(history)
        return self._study


class AxStudy:
    """One study as an Ax experiment with a generation strategy."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._space = AxSpace(spec)
        if not self._space.parameters:
            raise GeneratorError("no parameter of this space has more than one value")
        self._node = PlannedNode(AxGenerator.name)
        self._strategy = GenerationStrategy(nodes=[self._node], name=AxGenerator.name)
        self._client = Client(random_seed=spec.optimizer.seed)
        self._client.configure_experiment(parameters=self._space.parameters, name=spec.name)
        self._client.configure_optimization(objective=_objective(spec), outcome_constraints=_constraints(spec))
        self._client.set_generation_strategy(self._strategy)
        self._known: dict[int, _Known] = {}

    @property
    def experiment(self) -> Experiment:
        """The experiment, for Ax's own analyses."""
        return self._client._experiment

    @property
    def strategy(self) -> GenerationStrategy:
        """The generation strategy, for Ax's own analyses."""
        return self._strategy

    def follow(self, history: History) -> bool:
        """Return True after attaching new trials and results; False, with nothing changed, if the past has changed."""
        epochs = self._spec.task.epochs
        seen = {record.id: _Known(record, history.usable(record), epochs) for record in history.records}
        gone = {id for id, was in self._known.items() if id not in seen or not seen[id].continues(was)}
        if history.spec != self._spec or any(self._known[id].state not in PENDING for id in gone):
            return False
        for id in gone:
            # The suggestion was withdrawn or replaced.
            self._client.mark_trial_abandoned(self._known.pop(id).index)
        rows: list[DataRow] = []
        finished: list[tuple[int, TrialState]] = []
        for id, now in seen.items():
            was = self._known.get(id)
            now.index = was.index if was is not None else self._client.attach_trial(self._space.encode(now.params))
            if now.is_measured and (was is None or not was.is_measured):
                rows += _rows(self.experiment, now)
            if now.state not in PENDING and (was is None or was.state in PENDING):
                finished.append((now.index, now.state))
        if rows:
            # Attaching all rows at once is fifty times as fast as one `Client.attach_data` per row.
            self.experiment.attach_data(Data(data_rows=rows))
        for index, state in finished:
            self._finish(index, state)
        self._known = seen
        return True

    def propose(self, history: History, n: int, guess: Params, *, drawn: int = 0) -> list[Suggestion]:
        """Return up to `n` candidates of the generation strategy that have the values of `guess`.

        Up to `drawn` more of the same plan follow (`Plan.drawn`). `follow` adds them to the experiment when they run.

        Raises:
            GeneratorError: there is no candidate.
        """
        if is_used_up(history):
            raise GeneratorError("every configuration of this space has been tried")
        plan = _plan(history)
        self._node.prepare(plan)
        fixed = ObservationFeatures(parameters=dict(self._space.encode_only(guess))) if guess else None
        found: list[Suggestion] = []
        for _ in range(n):
            try:
                with deterministic(plan.seed):
                    ((run,),) = self._strategy.gen(experiment=self.experiment, fixed_features=fixed)
                    # The coordinates of a guess may differ from it in the last digit.
                    params = {**self._space.decode(run.arms[0].parameters), **guess}
                    found.append(plan.suggestion(params, AxGenerator.name))
            except GeneratorError:
                if not found:
                    raise
                break
        with deterministic(plan.seed):
            more = plan.drawn(drawn) if drawn else []
        return found + [plan.suggestion(plan.space.decode(row), AxGenerator.name) for row in more]

    def fit(self, history: History) -> TorchAdapter:
        """Return the adapter of the strategy, fitted to a history.

        Raises:
            GeneratorError: there is no outcome to fit a model to.
        """
        self._node.prepare(_plan(history))
        self._strategy.fit(experiment=self.experiment)
        return self._node.adapter

    def _finish(self, index: int, state: TrialState) -> None:
        if state is TrialState.STOPPED:
            self._client.mark_trial_early_stopped(index)
        elif state is TrialState.COMPLETED:
            self._client.complete_trial(index)
        else:
            self._client.mark_trial_failed(index)


def _plan(history: History) -> Plan:
    with deterministic(history.spec.optimizer.seed):
        return Plan(history)


class _Known:
    """A trial as it stands in the experiment."""

    def __init__(self, record: TrialRecord, metrics: Mapping[str, float], epochs: int) -> None:
        """View a record with those `metrics` that a model uses: all that are modelled, or none."""
        self.params: Params = record.params
        self.key: ParamsKey = key_of(record.params)
        self.state = record.state
        self.values: dict[str, float] = dict(metrics) if record.state in RESULT_STATES else {}
        # Ax would wait for a missing metric for ever.
        if not self.values and record.state not in PENDING:
            self.state = TrialState.FAILED
        self.step = record.last_step or epochs
        self.index = -1

    @property
    def is_measured(self) -> bool:
        return bool(self.values)

    def continues(self, earlier: _Known) -> bool:
        """Return whether the trial is unchanged since `earlier`, or has progressed from there."""
        if self.key != earlier.key:
            return False
        return earlier.state in PENDING or (self.state, self.values) == (earlier.state, earlier.values)


def _rows(experiment: Experiment, known: _Known) -> list[DataRow]:
    arm = experiment.trials[known.index].arms[0].name
    # An unknown standard error (NaN) lets a model learn the noise. Ax does not mix data with and without a step.
    return [
        DataRow(
            trial_index=known.index,
            arm_name=arm,
            metric_name=name,
            metric_signature=name,
            mean=value,
            se=math.nan,
            step=float(known.step),
        )
        for name, value in known.values.items()
    ]


def _objective(spec: StudySpec) -> str:
    """Return the objectives in Ax's syntax: Ax maximises each, so a minimised one has a minus sign."""
    signs = {"maximize": "", "minimize": "-"}
    return ", ".join(f"{signs[objective.direction]}{objective.metric}" for objective in spec.objectives)


def _constraints(spec: StudySpec) -> list[str]:
    """Return the constraints in Ax's syntax: none on an objective's metric, and the strictest of each direction."""
    objectives = {objective.metric for objective in spec.objectives}
    strictest: dict[tuple[str, str], float] = {}
    for constraint in spec.constraints:
        choose = min if constraint.relation == "<=" else max
        key = constraint.metric, constraint.relation
        strictest[key] = choose(constraint.bound, strictest.get(key, constraint.bound))
    return [
        f"{metric} {relation} {bound!r}" for (metric, relation), bound in strictest.items() if metric not in objectives
    ]


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence warnings of Ax about its own dependencies, about which a user can do nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(ax|botorch|gpytorch|linear_operator)\b")
        yield
