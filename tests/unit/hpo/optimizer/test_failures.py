"""Proposals keep away from where trials fail, whatever proposes and whatever the kind of failure."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from hpo.optimizer import Optimizer, create_generator, create_optimizer
from hpo.optimizer.bayes.curves import outcomes
from hpo.optimizer.bayes.runnability import runnability
from hpo.optimizer.cube import key_of
from hpo.optimizer.history import History
from hpo.spec import StudySpec
from hpo.trial import FailureKind, Params, Suggestion, TrialState

from ..records import record_of, spec_with

SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.6},
}
LIMIT = 0.046
"""A third of the range of `lr`, in its logarithm, lies above."""


def _spec(name: str, **optimizer: object) -> StudySpec:
    return spec_with(space=SPACE, optimizer={"name": name, **optimizer}, budget={"trials": 30})


def _crashes(params: Params) -> bool:
    return float(params["lr"]) > LIMIT


def _run(optimizer: Optimizer, trials: int, fails: Callable[[Params], bool], kind: FailureKind) -> list[bool]:
    """Return which trials failed; the best rate, 0.03, is next to the limit."""
    found = []
    for id in range(trials):
        (suggestion,) = optimizer.ask()
        optimizer.register(id, suggestion)
        found.append(fails(suggestion.params))
        if found[-1]:
            optimizer.fail(id, kind)
        else:
            optimizer.tell(id, {"val_top1": 0.7 - 0.1 * math.log10(float(suggestion.params["lr"]) / 0.03) ** 2})
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("ax", "lost"), *(("tpe", kind) for kind in FailureKind)], ids=str)
def test_few_proposals_fail_although_the_best_is_next_to_failure(name: str, kind: str) -> None:
    failed = _run(create_optimizer(_spec(name, seed=1)), 20, _crashes, FailureKind(kind))
    assert sum(failed[10:]) <= 1


def test_the_start_up_keeps_away_from_failure_and_the_baseline_does_not() -> None:
    startup = _run(create_optimizer(_spec("ax", startup_trials=40)), 24, _crashes, FailureKind.INVALID)
    baseline = _run(create_optimizer(_spec("sobol")), 24, _crashes, FailureKind.INVALID)
    assert sum(startup[12:]) <= 1
    assert sum(baseline[12:]) >= 3


def test_the_fallback_keeps_away_from_failure() -> None:
    optimizer = create_optimizer(_spec("ax", startup_trials=40))
    _run(optimizer, 24, _crashes, FailureKind.INVALID)
    assert sum(_crashes(suggestion.params) for suggestion in optimizer.quick(12)) == 0


def test_what_a_guess_leaves_open_keeps_away_from_failure_and_what_it_fixes_is_tried() -> None:
    guesses: list[Params] = [{"dropout": 0.01 * place} for place in range(8)]
    optimizer = Optimizer(_spec("tpe", seed=4), Stubborn, guesses=[*guesses, {"lr": 0.5}])
    assert all(_crashes(suggestion.params) for suggestion in optimizer.enqueued(8))  # nothing is known yet
    for id, params in enumerate(suggestion.params for suggestion in create_optimizer(_spec("sobol")).ask(24)):
        optimizer.register(id, params)
        if _crashes(params):
            optimizer.fail(id, FailureKind.ERROR)
        else:
            optimizer.tell(id, {"val_top1": 0.01 * id})
    *completed, asked = optimizer.enqueued(9)
    assert not any(_crashes(suggestion.params) for suggestion in completed)
    assert asked.params["lr"] == 0.5


class Stubborn:
    """A generator that proposes a sequence of configurations, whatever happens."""

    name = "stubborn"

    def __init__(self, *answers: Params) -> None:
        self.answers = list(answers)
        self.histories: list[History] = []

    def propose(self, history: History, n: int) -> list[Suggestion]:
        self.histories.append(history)
        return [Suggestion(params=self.answers.pop(0), generator=self.name)]


def _past_start_up(generator: Stubborn) -> Optimizer:
    optimizer = Optimizer(_spec("tpe", startup_trials=16), lambda: generator)
    for id, suggestion in enumerate(create_optimizer(_spec("sobol")).ask(30)):
        optimizer.register(id, suggestion)
        if _crashes(suggestion.params):
            optimizer.fail(id, FailureKind.ERROR)
        else:
            optimizer.tell(id, {"val_top1": 0.01 * id})
    return optimizer


def test_the_search_of_a_model_knows_where_trials_fail() -> None:
    optimizer = create_optimizer(_spec("ax"))
    for id, suggestion in enumerate(create_optimizer(_spec("sobol")).ask(24)):
        optimizer.register(id, suggestion)
        if _crashes(suggestion.params):
            optimizer.fail(id, FailureKind.ERROR)
        else:
            optimizer.tell(id, {"val_top1": 0.5 + 0.1 * math.log10(float(suggestion.params["lr"]))})
    found = create_generator(optimizer.spec).propose(optimizer.history(), 2)
    assert not any(_crashes(suggestion.params) for suggestion in found)


def test_a_proposal_that_clearly_fails_is_drawn_again() -> None:
    bad, good = {"lr": 0.5, "dropout": 0.1}, {"lr": 0.001, "dropout": 0.1}
    stubborn = Stubborn(bad, good)
    optimizer = _past_start_up(stubborn)
    (suggestion,) = optimizer.ask()
    assert suggestion.params == good
    first, second = stubborn.histories
    assert key_of(bad) in second.taken
    assert second.runnability is first.runnability  # a proposal is no evidence
    (imputed,) = [seen for seen in second.observations if seen.params == bad]
    assert imputed.metrics["val_top1"] == min(seen.metrics["val_top1"] for seen in first.observations if seen.metrics)


def test_after_some_draws_a_sobol_point_that_may_run_is_taken() -> None:
    stubborn = Stubborn(*({"lr": 0.1 + 0.01 * place, "dropout": 0.1} for place in range(10)))
    optimizer = _past_start_up(stubborn)
    (suggestion,) = optimizer.ask()
    assert suggestion.generator == "sobol (instead of tpe)"
    assert not _crashes(suggestion.params)


@pytest.mark.parametrize("name", ["ax", "tpe"])
def test_where_everything_fails_proposals_stay_diverse(name: str) -> None:
    optimizer = create_optimizer(_spec(name))
    _run(optimizer, 16, lambda params: True, FailureKind.ERROR)
    tried = [record.params for record in optimizer.history().records]
    assert len({key_of(params) for params in tried}) == 16
    for key, (low, high) in {"lr": (1e-3, 0.1), "dropout": (0.15, 0.45)}.items():
        values = [float(params[key]) for params in tried[8:]]
        assert min(values) < low
        assert max(values) > high


# ---------------------------------------------------------------- what generators without the probability read


def test_failures_of_a_region_count_as_the_worst_value_whatever_their_kind() -> None:
    ran = [
        record_of(id, TrialState.COMPLETED, params={"lr": 1e-4 * 2**id, "dropout": 0.1}, metrics={"val_top1": 0.3 + id})
        for id in range(8)
    ]
    failed = [
        record_of(id, TrialState.FAILED, params={"lr": 0.02 * id, "dropout": 0.1}, failure_kind=kind)
        for id, kind in enumerate([FailureKind.ERROR, FailureKind.LOST, FailureKind.INVALID, FailureKind.TIMEOUT], 8)
    ]
    history = History(_spec("tpe"), [*ran, *failed], runnability=runnability(_spec("tpe"), [*ran, *failed]))
    imputed = [seen for seen in history.observations if seen.imputed]
    assert [seen.params for seen in imputed] == [record.params for record in failed]
    assert all(seen.metrics == {"val_top1": 0.3} for seen in imputed)
    assert len(outcomes(history)) == len(ran)  # our models know the probability instead


def test_a_failure_of_a_broken_machine_counts_for_nothing() -> None:
    records = [
        record_of(
            id,
            TrialState.FAILED if id % 2 else TrialState.COMPLETED,
            params={"lr": 1e-4 * 1.5**id, "dropout": 0.03 * id},
            failure_kind=FailureKind.LOST if id % 2 else None,
            metrics=None if id % 2 else {"val_top1": 0.4},
            worker="broken" if id % 2 else "sound",
        )
        for id in range(16)
    ]
    runs = runnability(_spec("tpe"), records)
    history = History(_spec("tpe"), records, runnability=runs)
    assert [seen for seen in history.observations if seen.imputed] == []
    assert runs is not None
    assert runs.of(records[9].params) > 0.8
