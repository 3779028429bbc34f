"""A plot of a study of any size is bounded, and what it shows is distributed as the whole."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from api.dashboard import sampling
from hpo.optuna_view.storage import StudyStorage
from hpo.optuna_view.trials import CONSTRAINTS_KEY

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
DIRECTIONS = st.sampled_from([UP, DOWN])


def trials_of(
    values: Sequence[Sequence[float]], violated: Sequence[bool] = (), parameters: int = 1
) -> list[FrozenTrial]:
    """Return completed trials with these values."""
    found = []
    drawn = random.Random(0)  # noqa: S311 - no secret
    names = [f"a_parameter_{number}" for number in range(parameters)]
    for number, row in enumerate(values):
        trial = create_trial(
            values=row,
            params={name: drawn.random() for name in names},
            distributions={name: FloatDistribution(0, 1) for name in names},
            system_attrs={CONSTRAINTS_KEY: [1.0 if violated and violated[number] else -1.0]},
        )
        trial.number = number
        found.append(trial)
    return found


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=60), most=st.integers(2, 12), direction=DIRECTIONS)
def test_a_sample_has_the_best_and_every_part_of_the_distribution(
    values: list[int], most: int, direction: StudyDirection
) -> None:
    trials = trials_of([[value] for value in values])
    kept = sampling.sample("rank", trials, most, [direction])
    numbers = [trial.number for trial in kept]
    assert numbers == sorted(set(numbers))
    assert len(kept) == min(most, len(trials))
    assert kept == sampling.sample("rank", trials, most, [direction]), "the same every time"
    shown = sorted(trial.values[0] for trial in kept)
    assert {min(values), max(values)} <= set(shown)
    for bar in range(10):
        share = sum(value <= bar for value in values) / len(values)
        assert abs(sum(value <= bar for value in shown) / len(shown) - share) <= 1.5 / min(most, len(values))


def test_the_times_of_a_study_are_spread_over_its_numbers() -> None:
    trials = trials_of([[0.5]] * 101)
    assert [trial.number for trial in sampling.sample("timeline", trials, 5, [UP])] == [0, 25, 50, 75, 100]


@given(data=st.data(), directions=st.lists(DIRECTIONS, min_size=2, max_size=3))
def test_the_front_stays(data: st.DataObject, directions: list[StudyDirection]) -> None:
    row = st.tuples(*(st.integers(0, 4) for _ in directions))
    values = data.draw(st.lists(row, min_size=3, max_size=30))
    violated = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    signs = [1 if direction is DOWN else -1 for direction in directions]
    losses = [[sign * value for sign, value in zip(signs, each, strict=True)] for each in values]

    def beats(first: Sequence[float], second: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(first, second, strict=True)) and first != second

    front = {
        number
        for number, own in enumerate(losses)
        if not violated[number]
        and not any(beats(other, own) for other, is_out in zip(losses, violated, strict=True) if not is_out)
    }
    kept = sampling.sample("pareto_front", trials_of(values, violated), 2, directions)
    assert front <= {trial.number for trial in kept}
    assert len(kept) <= len(front) + 2


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("contour", 12), ("rank", 6), ("parallel_coordinate", 6), ("timeline", 6)],
)
def test_no_plot_is_large(kind: str, parameters: int) -> None:
    """As many trials as `most_trials` allows; with all of 3,000 a rank plot of six parameters had 43 MB."""
    most = sampling.most_trials(kind, parameters)
    assert most is not None
    drawn = random.Random(1)  # noqa: S311 - no secret
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials_of([[drawn.random()] for _ in range(most)], parameters=parameters))
    figure = getattr(optuna.visualization, f"plot_{kind}")(study)
    assert len(figure.to_json()) < 4_000_000


def test_a_title_says_what_is_shown_only_where_something_is_not() -> None:
    plot = sampling.Plot("rank", shown=277, trials=3000)
    body = json.dumps({"data": [], "layout": {"title": {"text": "Rank"}}}).encode()
    title = json.loads(sampling.with_note(body, plot))["layout"]["title"]["text"]
    assert title == "Rank: 277 of 3,000 trials, evenly spread"
    assert sampling.with_note(body, sampling.Plot("rank", shown=3000, trials=3000)) == body
    assert "2 of 3 trials" in sampling.with_note(b'{"data": []}', sampling.Plot("rank", shown=2, trials=3)).decode()


@given(
    values=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=90),
    until=st.integers(0, 90),
    directions=st.one_of(st.tuples(DIRECTIONS), st.tuples(DIRECTIONS, DIRECTIONS)),
)
def test_the_page_of_a_study_only_grows_and_has_what_is_not_dominated(
    values: list[tuple[int, int]], until: int, directions: tuple[StudyDirection, ...]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "ALL_UP_TO", 8)
        trials = trials_of([row[: len(directions)] for row in values])
        kept = sampling.part(trials, directions)
        assert kept[: len(sampling.part(trials[:until], directions))] == sampling.part(trials[:until], directions)
        front = {tuple(trial.values) for trial in sampling._front(trials, directions)}
        assert front <= {tuple(trial.values) for trial in kept}
        assert [trial.number for trial in kept[:8]] == list(range(min(8, len(trials))))


def test_the_page_of_a_large_study_is_bounded_and_has_what_runs() -> None:
    trials = trials_of([[0.0]] * 10_000)
    trials[9_999].state = TrialState.RUNNING
    numbers = [trial.number for trial in sampling.part(trials, [UP])]
    assert len(numbers) < 1_600
    assert numbers[-1] == 9_999
    assert "a part of the 10,000 trials" in str(sampling.sentence(10_000))
    assert sampling.sentence(500) is None


def test_the_best_of_a_study_is_the_best_of_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def best(storage: sampling.SampledStorage, study_id: int) -> None:
        asked.append(sampling._is_page.get())

    monkeypatch.setattr(StudyStorage, "get_best_trial", best)
    with sampling.plot_of("/api/studies/1"):
        sampling.SampledStorage.get_best_trial(object.__new__(sampling.SampledStorage), 1)
        assert sampling._is_page.get()
    assert asked == [False]
