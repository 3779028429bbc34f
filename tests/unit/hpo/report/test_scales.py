"""What an axis says of a metric: its unit, which a function of a person's own names itself."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.report.scales import label
from hpo.spec import parse_spec
from tests.integration.api.service import spec


@pytest.mark.parametrize(
    ("metric", "about", "expected"),
    [
        ("score", {"direction": "maximize", "share": True, "meaning": "share of games won"}, "share of games won"),
        ("score", {"direction": "maximize", "share": True}, "share"),
        ("score", {"direction": "maximize", "meaning": "x" * 41}, None),
        ("val_loss", "minimize", None),
    ],
)
def test_a_metric_of_a_function_has_no_unit_of_ours(metric: str, about: Any, expected: str | None) -> None:
    task = {"kind": "custom", "metrics": {metric: about}}
    found = label(parse_spec(spec(task=task, objectives=[{"metric": metric}])), metric)
    assert found == (metric if expected is None else f"{metric} ({expected})")


def test_metrics_of_videos_have_their_units() -> None:
    videos = parse_spec(spec())
    assert label(videos, "val_top1") == "val_top1 (share of clips)"
    assert label(videos, "val_loss") == "val_loss (nats)"
