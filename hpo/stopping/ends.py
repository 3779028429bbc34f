"""Where the curves of trials end, from a model of all curves of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..trial import TrialState
from .curve_model import Curve, CurveModel, Prediction, rungs


def is_complete(state: TrialState, step: int, epochs: int) -> bool:
    """Return whether a trial will learn no more."""
    return state is TrialState.COMPLETED or step >= epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The predicted last values of curves."""

    by_place: Mapping[int, Prediction]
    """By index, of the curves that are long enough to say how noisy a value is."""
    noise_sd: float
    """Standard deviation of the value of one epoch; 0 where no curve says."""


def predicted_ends(
    curves: Sequence[Curve],
    complete: Sequence[bool],
    epochs: int,
    *,
    improves: bool,
    taught: int | None = None,
    on_these_clips: bool = False,
) -> Ends:
    """Return where curves end. More is better; a model learns from the first `taught` of them, from all if None.

    A complete curve of one value has no prediction: how noisy it is cannot be known.
    """
    shown = [place for place, curve in enumerate(curves) if len(curve) > complete[place]]
    if not shown:
        return Ends(by_place={}, noise_sd=0.0)
    training = [curve for curve in curves[:taught] if curve]
    model = CurveModel(training, rungs(1, epochs), improves=improves, on_these_clips=on_these_clips)
    found = model.predict_all([curves[place] for place in shown])
    return Ends(by_place=dict(zip(shown, found, strict=True)), noise_sd=model.noise_sd)
