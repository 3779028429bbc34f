"""How long a study will still take."""

from __future__ import annotations

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
        ({"trials": 10}, 600.0),  # 6 trials more, one in 100 seconds
        ({"trials": 4}, 0.0),
        ({"gpu_hours": 0.1}, 320.0),  # 160 device seconds more, one in 2 seconds
        ({"wall_hours": 0.125}, 50.0),
        ({"trials": 10, "gpu_hours": 0.1, "wall_hours": 0.125}, 50.0),  # what is used up first ends it
    ],
)
def test_the_budget_ends_at_the_pace_so_far(budget: dict[str, Any], expected: float) -> None:
    assert seconds_left(_study(budget=budget)) == pytest.approx(expected)


def test_too_few_trials_tell_no_pace() -> None:
    assert seconds_left(_study(budget={"trials": 10}, completed=2)) is None
    assert seconds_left(_study(budget={"trials": 10}, completed=3)) is not None
