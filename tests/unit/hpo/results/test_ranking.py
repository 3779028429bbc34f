"""Standings over several objectives and constraints, against Optuna's sorting and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study._multi_objective import _fast_non_domination_rank
from scipy.stats import rankdata

from hpo.results.ranking import scores
from hpo.spec import StudySpec

from ..records import spec_with

ROW = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))


def _spec(*constraints: str) -> StudySpec:
    objectives = [{"metric": "val_top1"}, {"metric": "val_loss"}]
    return spec_with(objectives=objectives, constraints=list(constraints))


def _rows(values: list[tuple[int, int, int]]) -> dict[int, dict[str, float]]:
    return {
        number: {"val_top1": float(a), "val_loss": float(b), "epoch_seconds": float(c)}
        for number, (a, b, c) in enumerate(values)
    }


@given(values=st.lists(ROW, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_better_fronts_stand_higher(values: list[tuple[int, int, int]]) -> None:
    found = scores(_spec(), _rows(values))
    ranks = _fast_non_domination_rank(np.array([[-a, b] for a, b, _ in values], dtype=float))
    for i in found:
        for j in found:
            if ranks[i] < ranks[j]:
                assert found[i] > found[j]
            if values[i][:2] == values[j][:2]:
                assert found[i] == found[j]
    assert max(found.values()) == 1.0
    assert min(found.values()) > 0


@given(values=st.lists(ROW, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_is_infeasible_stands_last_and_less_violation_higher(values: list[tuple[int, int, int]]) -> None:
    found = scores(_spec("epoch_seconds <= 1"), _rows(values))
    beyond = [max(c - 1, 0) for *_, c in values]
    for i in found:
        for j in found:
            if beyond[i] < beyond[j]:
                assert found[i] > found[j]


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_with_one_objective_a_score_is_the_share_of_trials_that_are_not_better(values: list[int]) -> None:
    spec = spec_with(objectives=[{"metric": "val_loss"}])
    found = scores(spec, {number: {"val_loss": float(value)} for number, value in enumerate(values)})
    shares = rankdata([-value for value in values], method="max") / len(values)
    assert found == {number: pytest.approx(share) for number, share in enumerate(shares)}


def test_a_cut_through_a_front_keeps_its_ends() -> None:
    front = [(5, 5, 0), (4, 4, 0), (3, 3, 0), (2, 2, 0), (1, 1, 0)]
    found = scores(_spec(), _rows(front))
    assert sorted(found, key=lambda trial: -found[trial])[:3] == [0, 4, 2]


def test_an_unknown_constraint_is_violated_and_an_unknown_objective_is_left_out() -> None:
    rows = {0: {"val_top1": 0.9, "val_loss": 0.1}, 1: {"val_top1": 0.1, "val_loss": 0.9, "epoch_seconds": 1.0}}
    assert scores(_spec("epoch_seconds <= 1"), rows) == {0: 0.5, 1: 1.0}
    assert scores(_spec(), {**rows, 2: {"val_top1": 0.5}}).keys() == {0, 1}
