"""What a new study takes over from an earlier one: its completed trials, as configurations of the new space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..spec import StudySpec
from ..spec.parameters import matches
from ..trial import EarlierTrial, Metrics, ParamValue, TrialRecord, TrialState
from .outcome import MEMORY_METRIC, final_metrics, finite
from .ranking import best_first, result_of

MAX_TRIALS_OF_A_STUDY: Final = 100
"""The most trials that are taken over from an earlier study: half of them the best, the others spread over the rest."""
MAX_TRIALS_IN_ALL: Final = 150
"""Of several studies together, so that the trials of the new study soon have a say beside them."""


def taken_over(spec: StudySpec, earlier: StudySpec, records: Sequence[TrialRecord]) -> list[EarlierTrial]:
    """Return what the trials of `earlier`, a study that `spec` names, say about the space of `spec`, in order.

    A trial is left out when it has not completed with all metrics of `spec`, when a value lies outside the new space or
    is not known, and when it trained another model than the one that `spec` fixes; all are when the task is of another
    kind. A parameter that the earlier study did not vary has the value that it fixed; other settings that `spec` does
    not search are not looked at.
    """
    if earlier.task.kind != spec.task.kind:
        return []
    fixed = {**earlier.task.defaults(), **earlier.task.base}
    found = [
        EarlierTrial(
            study=earlier.name,
            params=params,
            metrics=metrics,
            weights={str(loaded["source"]): str(loaded["sha256"]) for loaded in record.weights},
        )
        for record in records
        if record.state is TrialState.COMPLETED
        and (metrics := _metrics(spec, record))
        and (params := _params(spec, {**fixed, **record.params}, earlier, record)) is not None
    ]
    most = min(MAX_TRIALS_OF_A_STUDY, MAX_TRIALS_IN_ALL // max(len(spec.optimizer.warm_start), 1))
    return [found[place] for place in _informative(spec, [trial.metrics for trial in found], most)]


def best_of(spec: StudySpec, earlier: Sequence[EarlierTrial]) -> list[EarlierTrial]:
    """Return the best trial of every earlier study, in the order of the studies."""
    found = []
    for name in dict.fromkeys(trial.study for trial in earlier):
        members = [trial for trial in earlier if trial.study == name]
        found.append(members[_ranked(spec, [trial.metrics for trial in members])[0]])
    return found


def _metrics(spec: StudySpec, record: TrialRecord) -> dict[str, float]:
    """Return the metrics that the new study asks for, and the memory where it is known; nothing if any is missing."""
    metrics = dict(final_metrics(record))
    if record.peak_memory_bytes is not None:
        metrics.setdefault(MEMORY_METRIC, record.peak_memory_bytes / 2**30)
    names = [*(objective.metric for objective in spec.objectives), *(limit.metric for limit in spec.constraints)]
    known = {name: value for name in (*names, MEMORY_METRIC) if (value := finite(metrics, name)) is not None}
    return known if all(name in known for name in names) else {}


def _params(
    spec: StudySpec, config: Mapping[str, Any], earlier: StudySpec, record: TrialRecord
) -> dict[str, ParamValue] | None:
    """Return the configuration of the new space that a trial was; None where it was none."""
    model = spec.task.architecture
    fixed = {**spec.task.defaults(), **spec.task.base}
    if model is not None and model not in spec.space and config.get(model) != fixed.get(model):
        return None
    params: dict[str, ParamValue] = {}
    for key in spec.parameter_order:
        parameter = spec.space[key]
        if not matches(parameter.when, params):
            continue
        was_inactive = key in earlier.space and key not in record.params
        if was_inactive or key not in config or not parameter.contains(config[key]):
            return None
        params[key] = config[key]
    return params


def _informative(spec: StudySpec, metrics: Sequence[Metrics], most: int) -> list[int]:
    """Return the places of at most `most` trials, in their order."""
    ranked = _ranked(spec, metrics)
    best, rest = ranked[: most // 2], ranked[most // 2 :]
    count = min(len(rest), most - most // 2)
    spread = [rest[round(step * (len(rest) - 1) / max(count - 1, 1))] for step in range(count)]
    return sorted({*best, *spread})


def _ranked(spec: StudySpec, metrics: Sequence[Metrics]) -> list[int]:
    """Return the places of trials, the best first, of equals the earlier one."""
    results = [
        result_of(spec, number=place, state=TrialState.COMPLETED, metrics=row) for place, row in enumerate(metrics)
    ]
    return [result.number for result in best_first(results)]
