"""Trainings elsewhere as trials of a study: which parameter is which, what fits into its space, and what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SetupError
from ..protocol import LARGEST_METRIC, MOST_IMPORTED, ImportedTrial, Origin
from ..spec import AnyParameter, FloatParameter, IntParameter, StudySpec
from ..spec.parameters import matches
from ..trial import ParamValue
from .found import OBJECTIVE, FoundTrial, Results

_YES: Final = {"true": True, "yes": True, "false": False, "no": False}
_MOST_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a person says about names."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Names of this study to those of the file."""
    skip: frozenset[str] = frozenset()
    """Parameters of the file that are not looked at."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Values of parameters that the file does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What becomes of the results of a file."""

    trials: Sequence[ImportedTrial]
    left_out: Mapping[str, int]
    """Why others are no trials of the study, and how many."""
    notes: Sequence[str]
    """What a person should know, a sentence each."""


class _Unfit(Exception):
    """A training is no trial of the study."""


def fit(spec: StudySpec, results: Results, wishes: Wishes) -> Fitted:
    """Return the results as trials of a study.

    Raises:
        SetupError: a wish names what there is not, objectives have other directions, or there are too many trials.
    """
    _check(spec, results, wishes)
    first = min((step for trial in results.trials for step in trial.curve), default=1)
    fitter = _Fitter(spec, results, wishes, shift=int(first == 0))
    trials, left_out, cut = [], Counter[str](), 0
    for found in results.trials:
        try:
            fitted = fitter.trial(found)
        except _Unfit as unfit:
            left_out[str(unfit)] += 1
            continue
        cut += bool(found.curve) and not fitted.curve
        trials.append(fitted)
    if results.open:
        left_out["it has not ended"] = results.open
    if len(trials) > MOST_IMPORTED:
        most = f"at most {MOST_IMPORTED:,} are imported at once"
        raise SetupError(f"{len(trials)} trials fit, and {most}; use a part of them")
    notes = []
    if fitter.shift:
        notes.append("its steps begin at 0: step 0 is taken for the first epoch")
    if cut:
        notes.append(f"{cut} curves are left out: they have more steps than a trial has epochs ({spec.task.epochs})")
    return Fitted(trials=trials, left_out=dict(left_out.most_common()), notes=notes)


class _Fitter:
    def __init__(self, spec: StudySpec, results: Results, wishes: Wishes, *, shift: int) -> None:
        self.spec = spec
        self.shift = shift
        self._results = results
        self._wishes = wishes
        self._fixed = {**spec.task.defaults(), **spec.task.base}
        objectives = [objective.metric for objective in spec.objectives]
        self._needed = [*objectives, *(limit.metric for limit in spec.constraints)]
        self._metrics = {OBJECTIVE.format(place): name for place, name in enumerate(objectives)}
        self._metrics |= {theirs: ours for ours, theirs in wishes.names.items() if ours not in spec.space}
        self._known = set(spec.task.reported_metrics) | set(self._needed)

    def trial(self, found: FoundTrial) -> ImportedTrial:
        metrics = self._renamed(found.metrics)
        missing = [name for name in self._needed if name not in metrics]
        state = found.state or "completed"
        if state == "completed" and missing:
            raise _Unfit(f"it has no value of {missing[0]}")
        curve = {step + self.shift: row for step, point in found.curve.items() if (row := self._renamed(point))}
        if max(curve, default=0) > self.spec.task.epochs:
            curve = {}
        if state == "failed" or (state == "stopped" and not curve):
            metrics = {}  # without its epoch, what a stopped one had reached says nothing
        return ImportedTrial(
            origin=Origin(source=self._results.source, trial=found.name, key=found.key()),
            params=self._params(found.params),
            state=state,
            metrics=metrics,
            curve=curve,
            failure_message=(found.message[:_MOST_MESSAGE] or "it failed there") if state == "failed" else None,
        )

    def _renamed(self, metrics: Mapping[str, float]) -> dict[str, float]:
        named = {self._metrics.get(name, name): value for name, value in metrics.items()}
        return {name: value for name, value in named.items() if name in self._known and abs(value) <= LARGEST_METRIC}

    def _params(self, theirs: Mapping[str, Any]) -> dict[str, ParamValue]:
        params: dict[str, ParamValue] = {}
        names = self._wishes.names
        for key in self.spec.parameter_order:
            parameter = self.spec.space[key]
            if not matches(parameter.when, params):
                continue
            raw = theirs.get(names.get(key, key), self._wishes.given.get(key))
            if raw is None:
                raise _Unfit(
                    f"it has no value of {key}; name its column with --map {key}=NAME, or give --set {key}=VALUE"
                )
            value = coerced(parameter, raw)
            if value is None or not parameter.contains(value):
                raise _Unfit(f"its {key} is outside of the space")
            params[key] = value
        self._require_same_elsewhere(theirs)
        if not self.spec.allows(params):
            raise _Unfit("it breaks a rule of the study")
        return params

    def _require_same_elsewhere(self, theirs: Mapping[str, Any]) -> None:
        """Raise where a setting that the study fixes had another value there, or a parameter is not one of ours."""
        mapped = {self._wishes.names.get(key, key) for key in self.spec.space}
        for name, value in theirs.items():
            if name in mapped or name in self._wishes.skip or name in self._wishes.names.values():
                continue
            if name in self._fixed:
                fixed = self._fixed[name]
                if value != fixed and str(value) != str(fixed) and _number(value) != fixed:
                    raise _Unfit(f"its {name} is not {fixed}, which this study fixes; --skip {name} overlooks it")
            elif not self._results.may_hold_more:
                raise _Unfit(f"its parameter {name} is none of this study; --skip {name} overlooks it")


def coerced(parameter: AnyParameter, raw: Any) -> ParamValue | None:
    """Return a value as the parameter has them; None where it is none of its kind."""
    if isinstance(parameter, FloatParameter | IntParameter):
        number = _number(raw)
        if number is None or isinstance(parameter, FloatParameter):
            return number
        return int(number) if number == int(number) else None
    exact = [choice for choice in parameter.choices if type(choice) is type(raw) and choice == raw]
    return next(iter([*exact, *(choice for choice in parameter.choices if _is_meant(choice, raw))]), None)


def _is_meant(choice: ParamValue, raw: Any) -> bool:
    """Return whether a value, which may be text, is a choice of the study."""
    if isinstance(choice, bool):
        return _YES.get(str(raw).lower()) is choice
    if isinstance(choice, int | float):
        return _number(raw) == choice
    return str(raw) == choice


def _number(raw: Any) -> float | None:
    if isinstance(raw, bool):
        return None
    try:
        return float(raw)
    except (TypeError, ValueError):
        return None


def _check(spec: StudySpec, results: Results, wishes: Wishes) -> None:
    there = {name for trial in results.trials for name in (*trial.params, *trial.metrics)}
    known = {*spec.space, *spec.task.reported_metrics, *(objective.metric for objective in spec.objectives)}
    for ours, theirs in wishes.names.items():
        if ours not in known:
            raise SetupError(f"--map {ours}={theirs}: this study has no parameter or metric {ours!r}")
        if theirs not in there and results.trials:
            shown = ", ".join(sorted(there)[:20])
            raise SetupError(f"--map {ours}={theirs}: {results.source} has no {theirs!r}; it has {shown}")
    for name in wishes.given:
        if name not in spec.space:
            raise SetupError(f"--set {name}: this study has no parameter {name!r}; it has {', '.join(spec.space)}")
    ours_directions = [objective.direction for objective in spec.objectives]
    if results.directions and list(results.directions) != ours_directions and not set(wishes.names) & _objectives(spec):
        raise SetupError(
            f"{results.source} has the objectives {', '.join(results.directions)}, and this study "
            f"{', '.join(ours_directions)}; where a metric of its user attributes is meant, say --map METRIC=NAME"
        )


def _objectives(spec: StudySpec) -> set[str]:
    return {objective.metric for objective in spec.objectives}
