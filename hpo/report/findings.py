"""What the models say of a study: importances, slices and contours of what matters most, cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..optimizer.generator import GeneratorError
from ..optimizer.importance import Importance
from ..optimizer.insight import Contour, CrossValidation, Insight, Slice
from ..trial import Params
from .material import Material

SLICES: Final = 3
"""How many parameters of each objective are shown as slices: those that matter most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What the model of one objective says."""

    importances: Sequence[Importance]
    explained: float | None
    """The share of the variance of the objective that its model explains; None where it is the same in all trials."""
    slices: Mapping[str, Slice] = field(default_factory=dict)
    """By parameter, the most important first."""
    contour: tuple[tuple[str, str], Contour] | None = None
    """Over the two most important parameters; None if fewer than two vary in the best configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the models say, or why they say nothing."""

    effects: Mapping[str, Effects] = field(default_factory=dict)
    """By objective."""
    validations: Mapping[str, CrossValidation] = field(default_factory=dict)
    """By objective and constraint."""
    used: int = 0
    """How many trials the models are fitted to."""
    outcomes: int = 0
    """How many trials have an outcome."""
    missing: str | None = None
    """Why there is no model."""


def find(material: Material) -> Findings:
    """Fit the models of a study and return what they say. It imports torch and Ax and takes seconds."""
    try:
        insight = Insight(material.spec, material.records)
        around = material.best or material.ended[-1].params
        return Findings(
            effects={metric: _effects(insight, metric, around) for metric in material.objectives},
            validations=insight.cross_validation(),
            used=insight.used,
            outcomes=insight.outcomes,
        )
    except GeneratorError as error:
        return Findings(missing=str(error))


def _effects(insight: Insight, metric: str, around: Params) -> Effects:
    importances = insight.importances(metric)
    # A parameter that the best configuration does not have changes nothing around it.
    names = [row.parameter for row in importances if row.parameter in around][:SLICES]
    pair = (names[0], names[1]) if len(names) > 1 else None
    return Effects(
        importances=importances,
        explained=insight.explained(metric),
        slices={name: insight.slice(metric, name, around) for name in names},
        contour=None if pair is None else (pair, insight.contour(metric, *pair, around)),
    )
