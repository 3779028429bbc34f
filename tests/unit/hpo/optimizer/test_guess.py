"""Guesses of a person are tried first, once, and completed where they leave parameters open."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.optimizer import Fleet, Optimizer, create_optimizer
from hpo.optimizer.guess import completed
from hpo.optimizer.history import History
from hpo.optimizer.memory import GIB
from hpo.spec import parse_spec
from hpo.trial import ENQUEUED, FailureKind, Params, TrialState

from ..records import PARAMS, record_of, spec_with
from ..spec.specs import VALID, spaces

ALPHA: Params = {"model": "slowfast_r50_4x16", "model.alpha": 8}


def _guessing(*guesses: Params, **optimizer: object) -> Optimizer:
    return create_optimizer(spec_with(optimizer={"name": "sobol", "enqueue": list(guesses), **optimizer}))


def _holds(guess: Params, params: Params) -> bool:
    return guess.items() <= dict(params).items()


def test_guesses_come_first_in_their_order_and_complete() -> None:
    guesses = [PARAMS, ALPHA, {"lr": 0.2}]
    found = _guessing(*guesses).ask(5)
    assert [suggestion.generator for suggestion in found] == [ENQUEUED] * 3 + ["sobol"] * 2
    assert found[0].params == PARAMS
    for guess, suggestion in zip(guesses, found, strict=False):
        spec_with().check_params(suggestion.params)
        assert _holds(guess, suggestion.params)
    assert [s.params for s in found[3:]] == [s.params for s in _guessing().ask(2)]


def test_a_guess_is_tried_once_whether_it_fails_or_not() -> None:
    optimizer = _guessing({"lr": 0.2}, {"lr": 0.1}, {"lr": 0.05})
    for number in range(2):
        optimizer.register(number, optimizer.ask()[0])
    optimizer.fail(0, FailureKind.DIVERGED)
    optimizer.tell(1, {"val_top1": 0.5})
    again = _guessing({"lr": 0.2}, {"lr": 0.1}, {"lr": 0.05})
    again.replay([record_of(0, TrialState.WITHDRAWN, generator=ENQUEUED), record_of(1, generator=ENQUEUED)])
    for known in (optimizer, again):
        (suggestion,) = known.enqueued(5)
        assert suggestion.params["lr"] == 0.05


def test_guesses_count_towards_the_start_up() -> None:
    guesses = [{"lr": 0.1 * place} for place in (1, 2)]
    optimizer = create_optimizer(spec_with(optimizer={"startup_trials": 3, "enqueue": guesses}))
    found = optimizer.ask(3)
    for number, suggestion in enumerate(found):
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": 0.1 * number})
    assert [suggestion.generator for suggestion in found] == [ENQUEUED, ENQUEUED, "sobol"]
    assert optimizer.uses_model


def test_equal_partial_guesses_become_different_trials() -> None:
    space = {
        "dropout": {"type": "categorical", "choices": [0.1, 0.2]},
        "batch_size": {"type": "int", "low": 1, "high": 3},
    }
    spec = spec_with(space=space)
    taken = [
        record_of(0, params={"dropout": 0.1, "batch_size": 2}),
        record_of(1, params={"dropout": 0.1, "batch_size": 3}),
    ]
    suggestion = completed(History(spec, taken), {"dropout": 0.1})
    assert suggestion.params == {"dropout": 0.1, "batch_size": 1}
    full = completed(History(spec, taken), {"dropout": 0.1, "batch_size": 3})
    assert full.params == {"dropout": 0.1, "batch_size": 3}, "what is asked for in full is tried, known or not"


@given(space=spaces(), data=st.data())
def test_any_part_of_a_configuration_can_be_completed(space: Mapping[str, object], data: st.DataObject) -> None:
    spec = parse_spec({**VALID, "space": space, "task": {"dataset": VALID["task"]["dataset"]}})
    (whole,) = create_optimizer(spec).quick()
    kept = {key for key in whole.params if data.draw(st.booleans())}
    for key in list(kept):
        kept |= spec._ancestors(key)
    guess = {key: value for key, value in whole.params.items() if key in kept}
    found = completed(History(spec, []), guess)
    spec.check_params(found.params)
    assert _holds(guess, found.params)


@pytest.mark.parametrize(("frames", "required"), [(8, True), (64, False)])
def test_a_guess_that_fits_no_device_is_tried_anyway(frames: int, required: bool) -> None:
    space = {"clip.frames": {"type": "int", "low": 1, "high": 64}, "lr": {"type": "float", "low": 0.1, "high": 0.2}}
    guess = {"clip.frames": frames, "lr": 0.15}
    spec = spec_with(space=space, optimizer={"name": "sobol", "enqueue": [guess]})
    optimizer = create_optimizer(spec, fleet=Fleet(largest_bytes=round(24 * GIB)))
    optimizer.replay(
        record_of(
            count,
            TrialState.COMPLETED,
            metrics={"val_top1": 0.5},
            params={"clip.frames": count, "lr": 0.1},
            peak_memory_bytes=round(count * GIB),
        )
        for count in range(4, 20)
    )
    (suggestion,) = optimizer.ask()
    assert (suggestion.params, suggestion.generator) == (guess, ENQUEUED)
    assert (suggestion.required_memory_bytes is not None) == required
