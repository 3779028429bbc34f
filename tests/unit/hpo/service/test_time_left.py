"""How long a study will still take."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from hpo.service.time_left import seconds_left
from hpo.spec import parse_spec
from hpo.store.study_row import StudyRow
from hpo.trial import StudyState, TrialState
from tests.integration.api.service import spec


def _study(*, budget: dict[str, Any], completed: int = 4, wall: float = 400.0, gpu: float = 200.0) -> StudyRow:
    return StudyRow(
        id=1,
        uuid=UUID(int=1),
        name="demo",
        spec=parse_spec(spec(budget=budget)),
        state=StudyState.ACTIVE,
        state_reason=None,
        created_at=datetime.now(UTC),
        finished_at=None,
        budget_reached_at=None,
        too_many_failed=False,
        gpu_seconds_spent=gpu,
        gpu_seconds_trained=gpu,
        gpu_seconds_failed=0.0,
        gpu_seconds_saved=0.0,
        wall_seconds_spent=wall,
        counts={TrialState.COMPLETED: completed, TrialState.WITHDRAWN: 9, TrialState.RUNNING: 2},
    )


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"trials": 10}, 100.0),  # 5 trials more (two are half done) of 40 device seconds each, two at a time
        ({"trials": 4}, 0.0),
        ({"gpu_hours": 0.1}, 80.0),  # 160 device seconds more, two at a time
        ({"wall_hours": 0.125}, 50.0),
        ({"trials": 10, "gpu_hours": 0.1, "wall_hours": 0.125}, 50.0),  # what is used up first ends it
    ],
)
def test_the_budget_ends_at_the_pace_so_far(budget: dict[str, Any], expected: float) -> None:
    assert seconds_left(_study(budget=budget)) == pytest.approx(expected)


def test_what_trains_again_does_not_count_and_without_a_running_trial_nobody_knows() -> None:
    study = _study(budget={"trials": 10}, completed=8)
    # Of 8 that are over, 4 were finalists: as many are left as above, each of 200 / 9 device seconds.
    again = dataclasses.replace(study, replicates=4)
    assert seconds_left(again) == pytest.approx(5 * 200 / 9 / 2)
    idle = dataclasses.replace(study, counts={TrialState.COMPLETED: 8})
    assert seconds_left(idle) is None


def test_too_few_trials_tell_no_pace() -> None:
    assert seconds_left(_study(budget={"trials": 10}, completed=2)) is None
    assert seconds_left(_study(budget={"trials": 10}, completed=3)) is not None
