"""Check the models that a spec names against the catalogue, before anything is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import SpecIssue
from ..spec import CategoricalParameter, OrdinalParameter, StudySpec, TrainingConfig


def check_models(spec: StudySpec) -> Sequence[SpecIssue]:
    """Find what no worker could build: unknown models, and options or values that a model does not take."""
    from models import ModelError, model_info

    known, issues = [], []
    path, names = _candidates(spec)
    for name in names:
        try:
            known.append(model_info(name).name)
        except ModelError as error:
            issues.append(SpecIssue(path=path, message=str(error)))
    for name in known:
        issues.extend(_option_issues(spec, name))
    return issues


def _candidates(spec: StudySpec) -> tuple[str, list[str]]:
    searched = spec.space.get("model")
    if isinstance(searched, CategoricalParameter | OrdinalParameter):
        return "space.model.choices", [str(choice) for choice in searched.choices]
    return "task.base.model", [str(spec.task.base.get("model", TrainingConfig().model))]


def _option_issues(spec: StudySpec, model: str) -> Iterator[SpecIssue]:
    from models import ModelError, model_info, resolve_hparams

    info = model_info(model)
    for path, option, values in _options(spec, model):
        for value in values:
            try:
                resolve_hparams(info, {option: value})
            except ModelError as error:
                yield SpecIssue(path=path, message=str(error))
                break


def _options(spec: StudySpec, model: str) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """Every option that a trial of `model` could be given: its path, its name, the values to try."""
    for key, value in spec.task.base.items():
        if key.startswith("model.") and key not in spec.space:
            yield f"task.base.{key}", key.removeprefix("model."), [value]
    for key, parameter in spec.space.items():
        applies = model in parameter.when.get("model", [model])
        if key.startswith("model.") and applies:
            yield f"space.{key}", key.removeprefix("model."), parameter.extremes
