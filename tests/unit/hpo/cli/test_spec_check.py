"""Models and options of a spec are checked against the catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.cli.spec_check import check_models
from hpo.spec import parse_spec

BOTH = {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]}


def _found(base: dict[str, Any], space: dict[str, Any], *, flow: str = "none") -> dict[str, str]:
    spec = {
        "name": "s",
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/videos", "flow": flow}, "base": base},
        "space": {"lr": {"type": "float", "low": 0.1, "high": 0.2}, **space},
        "budget": {"trials": 1},
    }
    return {issue.path: issue.message for issue in check_models(parse_spec(spec))}


@pytest.mark.parametrize(
    ("base", "space"),
    [
        ({}, {"model": BOTH}),
        ({"model": "slowfast_r18", "model.width": 4, "model.beta_inv": 4}, {}),
        ({"model.width": 16}, {"model": BOTH, "model.alpha": {"type": "ordinal", "choices": [2, 4]}} | {}),
        ({"model": "slowfast_r18"}, {"model.width": {"type": "ordinal", "choices": [4, 8]}}),
    ],
)
def test_a_spec_that_a_worker_can_build_passes(base: dict[str, Any], space: dict[str, Any]) -> None:
    if "model.alpha" in space:
        space["model.alpha"]["when"] = {"model": ["slowfast_r18"]}
    assert _found(base, space) == {}


@pytest.mark.parametrize(
    ("base", "space", "path", "words"),
    [
        ({"model": "slowfst_r18"}, {}, "task.base.model", "did you mean"),
        ({}, {"model": {"type": "categorical", "choices": ["slowfast_r18", "x"]}}, "space.model.choices", "'x'"),
        ({"model": "slowfast_r18", "model.colour": 1}, {}, "task.base.model.colour", "no option 'colour'"),
        (
            {"model": "slowfast_r18", "model.width": 3.5},
            {},
            "task.base.model.width",
            "3.5 is not a valid width of slowfast_r18: it must be",
        ),
        ({}, {"model": BOTH, "model.alpha": {"type": "ordinal", "choices": [2]}}, "space.model.alpha", "`when:"),
        ({"model": "slowfast_r18", "model.width": 4, "model.beta_inv": 8}, {}, "task.base.model.width", "divide"),
        ({"model": "stmulnet_r50"}, {}, "task.base.model", "takes rgb and flow"),
        ({"model": "slowfast_r18", "model.alpha": 8, "clip.frames": 4}, {}, "task.base.clip", "slowfast_r18"),
    ],
)
def test_unbuildable_specs_are_refused_with_the_path(
    base: dict[str, Any], space: dict[str, Any], path: str, words: str
) -> None:
    found = _found(base, space)
    assert words in found[path]


FLOW_ONLY = {"type": "categorical", "choices": ["rgb", "flow"]}


@pytest.mark.parametrize(
    ("base", "space", "path"),
    [
        ({"model": "stmulnet_r18"}, {}, "task.base.model"),
        ({}, {"model": {"type": "categorical", "choices": ["r3d_18", "two_stream_resnet18"]}}, "space.model.choices"),
        ({"model": "resnet18", "clip.modality": "flow"}, {}, "task.base.clip.modality"),
        ({"model": "resnet18"}, {"clip.modality": FLOW_ONLY}, "space.clip.modality"),
    ],
)
def test_flow_must_be_prepared_if_it_is_needed(base: dict[str, Any], space: dict[str, Any], path: str) -> None:
    found = _found(base, space)
    assert list(found) == [path]
    assert "task.dataset.flow is none: set it to dis" in found[path]
    assert _found(base, space, flow="dis") == {}


def test_flow_channels_come_in_pairs() -> None:
    odd = {"type": "ordinal", "choices": [9, 10]}
    found = _found({"model": "stmulnet_r18"}, {"model.flow_channels": odd}, flow="dis")
    assert "flow_channels = 9 is odd" in found["space.model.flow_channels"]
    found = _found({"model": "stmulnet_r18", "model.flow_channels": 3}, {}, flow="dis")
    assert "flow_channels = 3 is odd" in found["task.base.model.flow_channels"]
