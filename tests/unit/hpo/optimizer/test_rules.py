"""Every way in which a configuration comes about keeps the rules of the study, however little they allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.cube import ParamsKey, key_of, size
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.history import History
from hpo.optimizer.keeping import nearest_allowed
from hpo.optimizer.surrogate.candidates import every_row
from hpo.spec import StudySpec
from hpo.trial import ENQUEUED, EarlierTrial, Params, Suggestion

from ..records import spec_with

SPACE: dict[str, Any] = {
    "model.alpha": {"type": "ordinal", "choices": [2, 4, 8]},
    "clip.frames": {"type": "int", "low": 4, "high": 32},
    "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
}
TENTH = ["model.alpha divides clip.frames", "clip.frames * batch_size <= 192", "lr >= weight_decay * 10"]
"""They allow 13 % of the space."""
RARE = ["lr * 10 >= weight_decay * 1000", "lr * 10 <= weight_decay * 1001", "model.alpha divides clip.frames"]
"""A band that one in several thousand points meets."""
GENERATORS = ("sobol", "random", "tpe", "gp", "nsga2", "ax")


def _score(params: Params) -> float:
    return 0.5 + 0.01 * float(params["clip.frames"]) - 0.05 * abs(math.log10(float(params["lr"])) + 2)


def _spec(name: str, rules: list[str], **sections: Any) -> StudySpec:
    return spec_with(space=SPACE, rules=rules, optimizer={"name": name, **sections.pop("optimizer", {})}, **sections)


def _run(optimizer: Optimizer, trials: int) -> list[Suggestion]:
    found = []
    for number in range(trials):
        (suggestion,) = optimizer.ask()
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": _score(suggestion.params)})
        found.append(suggestion)
    return found


@pytest.mark.parametrize("rules", [TENTH, RARE], ids=["tenth", "rare"])
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.usefixtures("short_search")
def test_every_generator_keeps_the_rules(name: str, rules: list[str]) -> None:
    spec = _spec(name, rules, optimizer={"startup_trials": 3})
    found = _run(create_optimizer(spec), 6)
    assert all(spec.allows(suggestion.params) for suggestion in found)
    assert len({key_of(suggestion.params) for suggestion in found}) == 6
    assert found[-1].generator == name


def test_the_points_of_the_sequence_that_keep_the_rules_come_in_its_order() -> None:
    free = create_optimizer(_spec("sobol", [])).ask(256)
    spec = _spec("sobol", TENTH)
    kept = [suggestion.params for suggestion in free if spec.allows(suggestion.params)]
    assert 20 <= len(kept) <= 50
    assert [suggestion.params for suggestion in create_optimizer(spec).ask(20)] == kept[:20]


def test_where_the_sequence_has_too_few_points_the_others_are_moved_and_still_spread() -> None:
    spec = _spec("sobol", RARE)
    optimizer = create_optimizer(spec)
    found = [suggestion.params for suggestion in optimizer.ask(30)]
    assert all(map(spec.allows, found))
    assert len({key_of(params) for params in found}) == 30
    lrs = np.log10([float(params["lr"]) for params in found])
    assert np.histogram(lrs, bins=3, range=(-3, -1))[0].min() >= 4  # lr is 100 times weight_decay
    for number, params in enumerate(found[:29]):
        optimizer.register(number, params)
    assert optimizer.quick()[0].params == found[29]


def test_the_start_up_with_a_prior_and_quick_proposals_keep_the_rules() -> None:
    prior = {"center": 0.1, "confidence": "high"}
    spec = spec_with(space={**SPACE, "lr": {**SPACE["lr"], "prior": prior}}, rules=["lr <= 0.05", *TENTH])
    optimizer = create_optimizer(spec)
    found = optimizer.ask(5) + optimizer.quick(5)
    assert {suggestion.generator for suggestion in found} == {"sobol (with prior)", "sobol (instead of ax)"}
    assert all(spec.allows(suggestion.params) for suggestion in found)


GUESSES: list[dict[str, Any]] = [{"clip.frames": 20}, {"model.alpha": 8, "lr": 0.002}, {"weight_decay": 0.005}]


@pytest.mark.parametrize("name", ["ax", "tpe"])
@pytest.mark.parametrize("trials", [0, 6])
@pytest.mark.usefixtures("short_search")
def test_what_a_guess_leaves_open_keeps_the_rules(name: str, trials: int) -> None:
    spec = _spec(name, TENTH)
    before = create_optimizer(spec)
    _run(before, trials)
    optimizer = create_optimizer(spec, guesses=GUESSES)
    optimizer.replay(before.history().records)
    for found in (optimizer.enqueued(3), optimizer.enqueued(3, with_model=False)):
        for guess, suggestion in zip(GUESSES, found, strict=True):
            assert guess.items() <= suggestion.params.items()
            assert suggestion.generator == ENQUEUED
            spec.check_params(suggestion.params)


def test_a_guess_is_completed_where_no_point_of_the_sequence_would_do() -> None:
    spec = _spec("sobol", RARE)
    (found,) = create_optimizer(spec, guesses=[{"lr": 0.02, "model.alpha": 8}]).enqueued()
    spec.check_params(found.params)
    assert (found.params["lr"], found.params["model.alpha"]) == (0.02, 8)


class _Reckless:
    """A generator that knows no rules."""

    name = "reckless"

    def propose(self, history: History, n: int) -> list[Suggestion]:
        params = {"model.alpha": 8, "clip.frames": 9, "lr": 0.01, "weight_decay": 1e-4}
        return [Suggestion(params=params, generator=self.name, predicted_mean=0.9)] * n


def test_what_a_generator_proposes_against_a_rule_is_moved_to_the_nearest_configuration() -> None:
    spec = _spec("ax", ["model.alpha divides clip.frames"], optimizer={"startup_trials": 1})
    optimizer = Optimizer(spec, _Reckless)
    for number, suggestion in enumerate(optimizer.ask(2)):
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": 0.5})
    first, second = optimizer.ask(2)
    assert first.params == {"model.alpha": 8, "clip.frames": 8, "lr": 0.01, "weight_decay": 1e-4}
    assert (first.generator, first.predicted_mean) == ("reckless", None), "the prediction was for another one"
    assert spec.allows(second.params)
    assert second.params != first.params


def test_the_best_of_an_earlier_study_is_not_tried_where_it_breaks_a_rule() -> None:
    params = {"model.alpha": 8, "clip.frames": 9, "lr": 0.01, "weight_decay": 1e-4}
    earlier = [EarlierTrial(study="before", params=params, metrics={"val_top1": 0.9})]
    for rules, origin in ([], "best of before"), (TENTH, "sobol"):
        assert create_optimizer(_spec("ax", rules), earlier=earlier).ask()[0].generator == origin


def test_a_finite_space_is_used_up_within_the_rules() -> None:
    space = {"model.alpha": SPACE["model.alpha"], "clip.frames": {"type": "int", "low": 4, "high": 12}}
    spec = spec_with(space=space, rules=["model.alpha divides clip.frames"])
    multiples = 5 + 3 + 1  # of 2, 4 and 8 from 4 to 12
    assert size(spec, 100) == multiples
    assert len(every_row(Space(spec))) == multiples
    optimizer = create_optimizer(spec)
    found = []
    for number in range(multiples):
        (suggestion,) = optimizer.ask(2)[:1]
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": 0.1 * number % 0.7})
        found.append(suggestion)
    assert all(spec.allows(suggestion.params) for suggestion in found)
    assert len({key_of(suggestion.params) for suggestion in found}) == multiples
    assert found[-1].generator == "ax"
    assert optimizer.ask() == []


def test_the_nearest_configuration_is_new_where_there_is_a_new_one() -> None:
    spec = spec_with(space={"clip.frames": SPACE["clip.frames"]}, rules=["8 divides clip.frames"])
    taken: list[ParamsKey] = []
    for wanted in (16, 8, 24, 32):
        moved = nearest_allowed(spec, {"clip.frames": 15}, taken)
        assert moved == {"clip.frames": wanted}
        taken.append(key_of(moved))
    assert nearest_allowed(spec, {"clip.frames": 15}, taken) == {"clip.frames": 16}


def test_a_study_without_any_allowed_configuration_says_so() -> None:
    spec = _spec("sobol", []).model_copy(update={"rules": ["lr > 1"]})
    with pytest.raises(GeneratorError, match="no configuration was found that keeps all rules"):
        create_optimizer(spec).ask()


def test_a_rule_about_base_alone_leaves_the_search_as_it_is() -> None:
    raw: dict[str, Any] = {"lr": {"type": "float", "low": 0.001, "high": 0.1, "log": True}}
    rows = np.array([[0.1], [0.9]])
    assert Space(spec_with(space=raw, rules=["batch_size <= 4096"])).allows(rows).tolist() == [True, True]
