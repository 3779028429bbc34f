"""Which configuration is the best, and what is believed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.answer import answer
from hpo.answer.evidence import evidence_of, evidence_of_winner
from hpo.answer.lessons import as_expected
from hpo.spec import StudySpec
from hpo.stopping.clip_count import sampling_variance
from hpo.trial import Metrics, TrialRecord, TrialState

from ..records import PARAMS, record_of, spec_with

COMPLETED, STOPPED = TrialState.COMPLETED, TrialState.STOPPED
TWO = [{"metric": "val_top1"}, {"metric": "val_loss"}]


def _trial(number: int, metrics: Metrics, state: TrialState = COMPLETED, *, same_as: int | None = None) -> TrialRecord:
    lr = 0.001 * (1 + (number if same_as is None else same_as))
    return record_of(number, state, metrics=metrics, params={**PARAMS, "lr": lr})


def _trials(values: Sequence[float]) -> list[TrialRecord]:
    return [_trial(number, {"val_top1": value}) for number, value in enumerate(values)]


def _curve(number: int, values: Sequence[float], state: TrialState = COMPLETED) -> TrialRecord:
    params = {**PARAMS, "lr": 0.001 * (number + 1)}
    return record_of(number, state, values=list(values), metrics={"val_top1": values[-1]}, params=params)


def _curves(levels: Sequence[float], *, noise: float = 0.02, seed: int = 0) -> list[TrialRecord]:
    """Return trials of nine epochs that saturate at `levels`."""
    rng = np.random.default_rng(seed)
    rise = 1 - np.exp(-np.arange(1, 10) / 2)
    return [_curve(at, (level * rise + noise * rng.standard_normal(9)).tolist()) for at, level in enumerate(levels)]


def test_without_a_result_there_is_no_answer() -> None:
    records = [_trial(0, {"val_top1": 0.5}, TrialState.RUNNING), record_of(1, TrialState.FAILED)]
    assert answer(spec_with(), records) is None
    assert answer(spec_with(), [_trial(0, {"val_top1": float("nan")})]) is None
    assert answer(spec_with(constraints=["epoch_seconds <= 1"]), _trials([0.5])) is None, "it was never measured"


@pytest.mark.parametrize(("direction", "order"), [("maximize", [1, 2, 0]), ("minimize", [0, 2, 1])])
def test_the_best_comes_first_and_is_expected_to_be_worse_than_it_looks(direction: str, order: list[int]) -> None:
    spec = spec_with(objectives=[{"metric": "val_top1", "direction": direction}])
    found = answer(spec, _trials([0.5, 0.7, 0.6]))
    assert found is not None
    assert [candidate.chosen for candidate in found.candidates] == order
    best = found.winner.first
    assert best.observed == best.believed == (0.7 if direction == "maximize" else 0.5)
    assert (best.expected < best.believed) is (direction == "maximize")
    assert (found.luckiest, found.luckiest_value) == (order[0], best.observed)
    assert found.front == (found.winner,)


def test_the_lucky_last_epoch_is_not_the_best() -> None:
    records = _curves([0.7, 0.6, 0.4, 0.3])
    lucky = records[1]
    last = {9: {"val_top1": 0.73}}
    records[1] = replace(lucky, curve={**lucky.curve, **last}, metrics=last[9])
    found = answer(spec_with(), records)
    assert found is not None
    assert (found.winner.chosen, found.luckiest, found.luckiest_value) == (0, 1, 0.73)


def test_a_stopped_trial_is_the_best_only_if_it_is_believed_to_end_best() -> None:
    full = _curves([0.6, 0.55, 0.5])
    rise = 1 - np.exp(-np.arange(1, 4) / 2)
    for level, best in ((0.9, 3), (0.4, 0)):
        stopped = _curve(3, (level * rise).tolist(), STOPPED)
        found = answer(spec_with(), [*full, stopped])
        assert found is not None
        assert found.winner.chosen == best
        assert found.winner.completed == (best == 0)


def test_replicates_are_combined_by_the_inverse_of_their_variances() -> None:
    """Without curves every trial is as sure as the others, so the mean counts and the variance is halved."""
    single = answer(spec_with(), _trials([0.5, 0.7, 0.6]))
    twice = answer(spec_with(), [*_trials([0.5, 0.7, 0.6]), _trial(3, {"val_top1": 0.68}, same_as=1)])
    assert single is not None
    assert twice is not None
    assert twice.winner.trials == (1, 3)
    assert twice.winner.chosen == 1
    assert twice.winner.first.believed == pytest.approx(0.69)
    assert twice.winner.first.observed == pytest.approx(0.69)
    assert twice.winner.first.sd == pytest.approx(twice.seed_sd / np.sqrt(2))
    assert twice.winner.first.sd < single.winner.first.sd
    assert (single.trials, twice.trials) == (3, 4)


def test_the_spread_of_seeds_is_learned_from_replicates() -> None:
    """The prior of four degrees of freedom around 0.03, and the squares of what was seen with one.

    Nearly: the mixture of the configurations says something too, even of a single one.
    """
    pair = [_trial(0, {"val_top1": 0.4}), _trial(1, {"val_top1": 0.6}, same_as=0)]
    found = answer(spec_with(), pair)
    assert found is not None
    assert found.seed_sd == pytest.approx(np.sqrt((4 * 0.03**2 + 2 * 0.1**2) / 5), rel=0.02)


def test_a_stated_noise_counts_more_than_a_pair_of_trials() -> None:
    spec = spec_with(objectives=[{"metric": "val_top1", "noise_sd": 0.01}])
    pair = [_trial(0, {"val_top1": 0.5}), _trial(1, {"val_top1": 0.54}, same_as=0)]
    alone, both = answer(spec, pair[:1]), answer(spec, pair)
    assert alone is not None
    assert both is not None
    assert alone.seed_sd == pytest.approx(0.01)
    assert both.seed_sd == pytest.approx(np.sqrt((40 * 0.01**2 + 2 * 0.02**2) / 41), rel=0.005)


def test_seeds_are_believed_to_differ_as_epochs_do() -> None:
    for noise in (0.01, 0.04):
        found = answer(spec_with(), _curves(np.linspace(0.3, 0.7, 12).tolist(), noise=noise))
        assert found is not None
        assert 0.4 * noise < found.seed_sd < 1.3 * noise


def test_few_clips_make_a_value_uncertain_and_replicates_do_not_help_against_it() -> None:
    reported = {"val_clips": 30.0}
    records = [_trial(0, {"val_top1": 0.5, **reported}), _trial(1, {"val_top1": 0.4, **reported})]
    few = answer(spec_with(), records)
    known = answer(spec_with(), _trials([0.5, 0.4]), clips=30)
    many = answer(spec_with(), _trials([0.5, 0.4]), clips=10_000)
    assert few is not None
    assert known is not None
    assert many is not None
    assert (few.clips, many.clips) == (30, 10_000)
    assert few.winner.first.sd == known.winner.first.sd
    assert few.winner.first.sd == pytest.approx(np.sqrt(few.seed_sd**2 + sampling_variance(0.5, 30)))
    assert many.winner.first.sd == pytest.approx(many.seed_sd, rel=0.02)
    repeated = [_trial(number, {"val_top1": 0.5}, same_as=0) for number in range(50)]
    often = answer(spec_with(), repeated, clips=30)
    assert often is not None
    assert often.winner.first.sd == pytest.approx(np.sqrt(sampling_variance(0.5, 30)), rel=0.02)


def test_few_clips_make_the_leader_less_clear_and_a_part_of_their_error_is_common_to_all() -> None:
    few, many = answer(spec_with(), _trials([0.6, 0.5, 0.4]), clips=30), answer(spec_with(), _trials([0.6, 0.5, 0.4]))
    assert few is not None
    assert many is not None
    assert few.winner.probability < many.winner.probability - 0.1
    assert few.winner.first.expected < many.winner.first.expected - 0.01
    alone = answer(spec_with(), _trials([0.6]), clips=30)
    assert alone is not None
    assert alone.winner.first.expected_sd == pytest.approx(alone.winner.first.sd, rel=0.06)


def test_where_every_trial_draws_its_clips_replicates_help_against_few_of_them() -> None:
    task = {"dataset": {"root": "/data/ucf101", "split_seed": "trial"}, "epochs": 9}
    records = [_trial(number, {"val_top1": 0.5}, same_as=0) for number in range(16)]
    once, often = answer(spec_with(task=task), records[:1], clips=30), answer(spec_with(task=task), records, clips=30)
    assert once is not None
    assert often is not None
    assert once.winner.first.sd == pytest.approx(np.sqrt(once.seed_sd**2 + sampling_variance(0.5, 30)))
    each = often.seed_sd**2 + sampling_variance(0.5, 30)
    assert often.winner.first.sd == pytest.approx(np.sqrt(each / 16))


def test_losses_have_no_clips() -> None:
    records = [_trial(0, {"val_loss": 0.5, "val_clips": 30.0}), _trial(1, {"val_loss": 0.7, "val_clips": 30.0})]
    found = answer(spec_with(objectives=[{"metric": "val_loss"}]), records)
    assert found is not None
    assert (found.winner.chosen, found.clips) == (0, None)


def test_a_constraint_must_hold_more_probably_than_not() -> None:
    spec = spec_with(constraints=["epoch_seconds <= 10"])
    seconds = [(0.9, 10.5), (0.8, 10.0), (0.7, 5.0)]
    records = [_trial(n, {"val_top1": top, "epoch_seconds": s}) for n, (top, s) in enumerate(seconds)]
    found = answer(spec, records)
    assert found is not None
    assert [candidate.chosen for candidate in found.candidates] == [1, 2]
    assert found.luckiest == 1
    again = _trial(3, {"val_top1": 0.9, "epoch_seconds": 7.0}, same_as=0)
    found = answer(spec, [*records, again])
    assert found is not None
    assert found.winner.trials == (0, 3), "its mean of 8.75 keeps the limit"


def test_of_several_objectives_ties_do_not_give_a_dominated_trial() -> None:
    points = [(0.9, 0.8), (0.9, 0.5), (0.4, 0.1), (0.3, 0.2)]
    records = [_trial(n, {"val_top1": top, "val_loss": loss}) for n, (top, loss) in enumerate(points)]
    found = answer(spec_with(objectives=TWO), records)
    assert found is not None
    assert found.winner.chosen == 1
    assert {candidate.chosen for candidate in found.front} == {1, 2}
    assert {candidate.chosen for candidate in found.candidates[:2]} == {1, 2}, "the front comes first"


LEVELS = st.integers(0, 6).map(lambda level: level / 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=10))
def test_the_answer_is_never_dominated(points: list[tuple[float, float]]) -> None:
    records = [_trial(n, {"val_top1": top, "val_loss": loss}) for n, (top, loss) in enumerate(points)]
    found = answer(spec_with(objectives=TWO), records)
    assert found is not None
    top, loss = points[found.winner.chosen]
    assert not any(t >= top and x <= loss and (t, x) != (top, loss) for t, x in points)
    assert top == max(t for t, _ in points)


@settings(max_examples=25, deadline=None)
@given(st.lists(LEVELS, min_size=2, max_size=8), st.integers(0, 1000))
def test_the_order_of_the_records_and_the_ids_do_not_matter(values: list[float], seed: int) -> None:
    spec, records = spec_with(), _curves(values, seed=seed)
    rng = np.random.default_rng(seed)
    moved = [replace(records[place], id=100 + place) for place in rng.permutation(len(records))]
    assert answer(spec, moved) == answer(spec, records)


@settings(max_examples=25, deadline=None)
@given(st.lists(LEVELS, min_size=2, max_size=8), st.integers(0, 7))
def test_a_higher_value_never_ranks_lower(values: list[float], place: int) -> None:
    place %= len(values)
    higher = [value + (0.125 if at == place else 0) for at, value in enumerate(values)]
    assert _rank(spec_with(), _trials(higher), place) <= _rank(spec_with(), _trials(values), place)


def _rank(spec: StudySpec, records: list[TrialRecord], number: int) -> int:
    found = answer(spec, records)
    assert found is not None
    return [candidate.chosen for candidate in found.candidates].index(number)


def test_what_is_expected_is_right_on_average_where_the_best_value_is_not() -> None:
    """Twelve configurations that are nearly as good; epochs differ by 0.03, and seeds by 0.024."""
    rng = np.random.default_rng(5)
    shown, told = [], []
    for seed in range(25):
        levels = 0.6 + 0.02 * rng.standard_normal(12)
        trained = levels + 0.024 * rng.standard_normal(12)
        found = answer(spec_with(), _curves(trained.tolist(), noise=0.03, seed=seed))
        assert found is not None
        shown.append(found.luckiest_value - levels[found.luckiest])
        told.append(found.winner.first.expected - levels[found.winner.chosen])
    assert np.mean(shown) > 0.04
    assert abs(float(np.mean(told))) < 0.015


def test_the_evidence_says_what_the_answer_knows() -> None:
    found = answer(spec_with(), [*_trials([0.5, 0.9, 0.2]), _trial(3, {"val_top1": 0.88}, same_as=1)], clips=48)
    assert found is not None
    evidence = evidence_of_winner(found)
    assert (evidence.rank, evidence.trials, evidence.configurations, evidence.clips) == (1, [1, 3], 3, 48)
    assert evidence.is_clear
    assert evidence_of(found, 3) == evidence
    second = evidence_of(found, 0)
    assert second is not None
    assert (second.rank, second.is_clear, second.highest_trial, second.highest_observed) == (2, False, 1, 0.9)
    assert evidence_of(found, 99) is None
    said = "on 48 validation clips, from 2 trainings of this configuration; the best of 3 configurations"
    assert evidence.lines()[0].endswith(said)
    assert evidence.lines()[2].endswith("it is clearly the best")
    assert second.lines()[2].endswith("which of them is the best is not clear")


def test_what_is_taken_over_is_what_is_expected() -> None:
    """Replicates count once; the best counts as completed although it was stopped, another stopped one does not."""
    spec = spec_with()
    values: list[tuple[float, Any]] = [(0.5, COMPLETED), (0.9, STOPPED), (0.3, STOPPED)]
    records = [_trial(n, {"val_top1": value, "val_loss": 1.0}, state) for n, (value, state) in enumerate(values)]
    records += [_trial(3, {"val_top1": 0.54, "val_loss": 2.0}, same_as=0), _trial(4, {"val_loss": 1.0})]
    found = as_expected(spec, spec, records)
    best = answer(spec, records)
    assert best is not None
    assert [(record.number, record.state) for record in found] == [
        (1, COMPLETED), (2, STOPPED), (3, COMPLETED), (4, COMPLETED),
    ]  # fmt: skip
    assert found[0].metrics == {"val_top1": best.winner.first.expected, "val_loss": 1.0}
    assert found[2].metrics == {"val_top1": best.candidates[1].first.expected, "val_loss": 2.0}
    assert found[3] == records[4]
    assert as_expected(spec_with(objectives=[{"metric": "train_loss"}]), spec, records) == records


@pytest.mark.parametrize("diverged", [1e6, 1e12, 3e38])
def test_a_diverged_loss_leaves_the_answer_as_it_is(diverged: float) -> None:
    """The greatest number that a model computes in single precision is 3.4e38."""
    losses = [0.6, 0.5, 0.7, diverged]
    trials = [_trial(number, {"val_loss": loss}) for number, loss in enumerate(losses)]
    found = answer(spec_with(objectives=[{"metric": "val_loss"}]), trials)
    assert found is not None
    assert [candidate.trials[0] for candidate in found.candidates] == [1, 0, 2, 3]
    assert found.winner.first.expected == pytest.approx(0.5)
    assert found.is_clear


@pytest.mark.parametrize("diverged", [1e3, 1e9, 3e38])
def test_a_curve_that_diverged_teaches_nothing_about_the_others(diverged: float) -> None:
    rng = np.random.default_rng(0)
    fall = 2 * np.exp(-np.arange(1, 10) / 2)
    curves = [(level + fall + 0.01 * rng.standard_normal(9)).tolist() for level in np.linspace(0.5, 1, 12)]
    spec = spec_with(objectives=[{"metric": "val_loss"}])

    def found(values: list[list[float]]) -> tuple[tuple[int, ...], float, float]:
        records = [
            replace(
                _trial(number, {"val_loss": curve[-1]}),
                curve={step: {"val_loss": value} for step, value in enumerate(curve, start=1)},
                epochs_done=9,
            )
            for number, curve in enumerate(values)
        ]
        best = answer(spec, records)
        assert best is not None
        return best.winner.trials, best.winner.first.believed, best.seed_sd

    alone, beside = found(curves), found([*curves, [2, 1.5, 1.2, 1.1, *[diverged] * 5]])
    assert beside[0] == alone[0] == (0,)
    assert beside[1:] == pytest.approx(alone[1:], rel=0.01)
