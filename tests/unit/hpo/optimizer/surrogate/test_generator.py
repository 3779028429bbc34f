"""Suggestions by BoTorch, alone and through Ax's generation strategy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hpo.optimizer.ax_generator import AxGenerator
from hpo.optimizer.cube import decode, key_of
from hpo.optimizer.generator import Generator, GeneratorError
from hpo.optimizer.history import History
from hpo.spec import StudySpec
from hpo.trial import EarlierTrial, FailureKind, Params, TrialRecord, TrialState

from ...records import record_of, spec_with
from .alone import BoTorchGenerator

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "clip.stride": {"type": "int", "low": 1, "high": 6},
    "model": {"type": "categorical", "choices": ["a", "b", "c"]},
    "model.depth": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["b"]}},
}


def _score(params: Params) -> dict[str, float]:
    lr, dropout, stride = float(params["lr"]), float(params["dropout"]), int(params["clip.stride"])
    value = 0.9 - ((math.log10(lr) + 2) / 3) ** 2 - (dropout - 0.3) ** 2 - 0.01 * (stride - 3) ** 2
    value -= {"a": 0.1, "b": 0.2, "c": 0.3}[str(params["model"])]
    value += 0.2 - 0.5 * (float(params["model.depth"]) - 0.6) ** 2 if "model.depth" in params else 0.0
    return {"val_top1": value, "epoch_seconds": 1 + 5 * dropout}


def _records(spec: StudySpec, n: int) -> list[TrialRecord]:
    """Return completed trials; then one stopped, one failed, one paused and one running."""
    rng = np.random.default_rng(0)
    points = [decode(spec, rng.random(len(spec.space)).tolist()) for _ in range(n + 4)]
    found = [record_of(id, TrialState.COMPLETED, params=points[id], metrics=_score(points[id])) for id in range(n)]
    curve = {step: {name: value * step / 9 for name, value in _score(points[n]).items()} for step in (1, 2, 3)}
    found.append(replace(record_of(n, TrialState.STOPPED, params=points[n]), curve=curve, metrics=curve[3]))
    found.append(record_of(n + 1, TrialState.FAILED, params=points[n + 1], failure_kind=FailureKind.DIVERGED))
    found.append(replace(record_of(n + 2, TrialState.PAUSED, params=points[n + 2]), curve=curve))
    found.append(record_of(n + 3, TrialState.RUNNING, params=points[n + 3]))
    return found


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"constraints": ["epoch_seconds <= 3"]},
        {"objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}], "constraints": ["val_top1 >= 0.2"]},
    ],
    ids=["one objective", "a constraint", "two objectives"],
)
def test_ax_proposes_what_the_models_propose_alone(sections: dict[str, Any]) -> None:
    spec = spec_with(space=SPACE, **sections)
    history = History(spec, _records(spec, 14))
    through_ax = AxGenerator("botorch").propose(history, 2)
    alone = BoTorchGenerator("ax").propose(history, 1)
    assert through_ax[0] == alone[0]
    keys = {key_of(suggestion.params) for suggestion in through_ax}
    assert len(keys) == 2
    assert not keys & history.taken
    assert [suggestion.generator for suggestion in through_ax] == ["ax", "ax"]


def test_proposals_depend_on_the_history_alone() -> None:
    spec = spec_with(space=SPACE)
    records = _records(spec, 14)
    lived = AxGenerator("botorch")
    lived.propose(History(spec, records[:8]), 1)
    withdrawn = record_of(90, TrialState.SUGGESTED, params=lived.propose(History(spec, records[:9]), 1)[0].params)
    lived.propose(History(spec, [*records[:9], withdrawn]), 1)
    assert lived.propose(History(spec, records), 2) == AxGenerator("botorch").propose(
        History(spec, list(reversed(records))), 2
    )


def test_trials_of_an_earlier_study_are_learned_from() -> None:
    """Five results of this study say nothing about the peak; thirty of an earlier one show it."""
    spec = spec_with(space=SPACE)
    earlier = [
        EarlierTrial(study="before", params=record.params, metrics=record.metrics)
        for record in _records(spec, 30)
        if record.metrics and record.state is TrialState.COMPLETED
    ]
    (suggestion,) = AxGenerator("botorch").propose(History(spec, _records(spec, 3)[:3], earlier=earlier), 1)
    assert _score(suggestion.params)["val_top1"] > 0.75


@pytest.mark.parametrize("generator", [AxGenerator("botorch"), BoTorchGenerator()], ids=["ax", "alone"])
def test_a_completed_guess_has_its_values(generator: AxGenerator | BoTorchGenerator) -> None:
    spec = spec_with(space=SPACE)
    guess: Params = {"model": "a", "lr": 0.05}
    found = generator.complete(History(spec, _records(spec, 14)), guess).params
    assert guess.items() <= found.items()
    assert set(found) == {"lr", "dropout", "clip.stride", "model"}
    best = _score({**guess, "dropout": 0.3, "clip.stride": 3})["val_top1"]
    assert _score(found)["val_top1"] > best - 0.1


def test_the_peak_of_a_conditional_space_is_found() -> None:
    spec = spec_with(space=SPACE)
    records = _records(spec, 8)[:8]
    generator: Generator = BoTorchGenerator()
    for _ in range(16):
        (suggestion,) = generator.propose(History(spec, records), 1)
        metrics = _score(suggestion.params)
        records.append(record_of(len(records), TrialState.COMPLETED, params=suggestion.params, metrics=metrics))
    best = max(records, key=lambda record: (record.metrics or {})["val_top1"])
    assert (best.metrics or {})["val_top1"] > 0.88
    assert best.params["model"] == "b"


def test_a_small_space_is_used_up_without_repeats() -> None:
    spec = spec_with(space={"model": SPACE["model"]})
    records = [record_of(0, TrialState.COMPLETED, params={"model": "a"}, metrics={"val_top1": 0.5})]
    for generator in (AxGenerator("botorch"), BoTorchGenerator("ax")):
        found = generator.propose(History(spec, records), 5)
        assert sorted(str(suggestion.params["model"]) for suggestion in found) == ["b", "c"]
        with pytest.raises(GeneratorError, match="no new configuration"):
            generator.propose(History(spec, records).extended(found), 1)
