"""Why a configuration is proposed, in words."""

from __future__ import annotations

from typing import Any

import pytest

from api.pages.proposals import why
from hpo.answer import Answer, answer
from hpo.trial import TrialState
from tests.unit.hpo.records import record_of, spec_with

OF_MODEL: dict[str, Any] = {"generator": "ax", "predicted_sd": 0.02}


def _found(direction: str = "maximize") -> tuple[Any, Answer]:
    spec = spec_with(objectives=[{"metric": "val_top1", "direction": direction}], epochs=3)
    ended = record_of(1, TrialState.COMPLETED, values=[0.5, 0.6, 0.7], metrics={"val_top1": 0.7})
    found = answer(spec, [ended])
    assert found is not None
    return spec.objectives[0], found


@pytest.mark.parametrize(("sds", "said"), [(0.0, "50%"), (2.0, "98%"), (-1.0, "16%"), (-5.0, "less than 1%")])
def test_the_chance_to_beat_the_best_is_that_of_the_prediction(sds: float, said: str) -> None:
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        objective, found = _found(direction)
        mean = found.winner.first.believed + sign * sds * 0.02
        record = record_of(2, TrialState.SUGGESTED, predicted_mean=mean, predicted_feasibility=0.8, **OF_MODEL)
        words = why(record, objective, found)
        assert words.startswith("ax: better than the best (0.")
        assert words.endswith(f") with a probability of {said}, keeps the constraints with 80%")


def test_what_no_model_proposed() -> None:
    objective, found = _found()

    def said(**fields: Any) -> str:
        return why(record_of(2, TrialState.SUGGESTED, **fields), objective, found)

    assert said(generator="enqueued", predicted_mean=0.5, predicted_sd=0.1) == "a person asked for it"
    assert said(generator="finalists", replicate_of=1) == "trains trial 1 again with another seed"
    assert said(generator="sobol (fallback)") == "sobol (fallback): spread evenly over the space, without a model"
    assert said(generator="tpe") == "tpe: no prediction was made"
