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


def _choices(*choices: str, **when: list[str]) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(choices), "when": when}


PAIR = {"type": "categorical", "choices": ["r3d_18", "two_stream_resnet18"]}


@pytest.mark.parametrize(
    ("base", "space"),
    [
        ({"weights": "r50/k400.pth"}, {}),
        ({"weights": "none"}, {}),
        ({"weights": "torchvision:R3D_18_Weights.KINETICS400_V1"}, {}),
        ({}, {"weights": _choices("a.pth", "torchvision:r3d_18", "hf:owner/net/model.safetensors", "none")}),
        ({"model": "two_stream_resnet18", "weights": {"rgb": "a.pth", "flow": "b.pth"}}, {}),
        (
            {},
            {
                "model": PAIR,
                "weights": _choices("a.pth", "none", model=["r3d_18"]),
                "weights.flow": _choices("b.pth", "c.pth", model=["two_stream_resnet18"]),
            },
        ),
    ],
)
def test_weights_that_a_worker_may_have_pass(base: dict[str, Any], space: dict[str, Any]) -> None:
    assert _found(base, space, flow="dis") == {}


@pytest.mark.parametrize(
    ("base", "space", "path", "words"),
    [
        ({"weights": "/data/a.pth"}, {}, "task.base.weights", "relative to a folder of weights"),
        ({}, {"weights": _choices("a.pth", "../b.pth")}, "space.weights.choices", "'../b.pth' would lie outside"),
        ({"weights": "torchvision:r3d"}, {}, "task.base.weights", "publishes no weights 'r3d'"),
        ({"weights": "timm:r3d"}, {}, "task.base.weights", "is not a source of weights"),
        ({"weights": "None"}, {}, "task.base.weights", "write none to train from scratch"),
        ({"weights": "a\nb.pth"}, {}, "task.base.weights", "without line breaks"),
        ({}, {"weights": _choices("a.pth", "b\x1b.pth")}, "space.weights.choices", "without line breaks"),
        ({"model": "r3d_18", "weights.rgb": "a.pth"}, {}, "task.base.weights.rgb", "r3d_18 has one stream"),
        (
            {},
            {"model": PAIR, "weights.flow": _choices("a.pth", "b.pth")},
            "space.weights.flow.choices",
            "r3d_18 has one stream: name its weights as `weights`; limit it to the models",
        ),
        (
            {"model": "two_stream_resnet18", "weights": "a.pth"},
            {"weights.rgb": _choices("a.pth", "none")},
            "task.base.weights",
            "of the whole model and of its streams",
        ),
    ],
)
def test_weights_that_no_worker_could_load_are_refused(
    base: dict[str, Any], space: dict[str, Any], path: str, words: str
) -> None:
    found = _found(base, space, flow="dis")
    assert list(found) == [path]
    assert words in found[path]


POOLING = _choices("global", "fully_convolutional")


@pytest.mark.parametrize(
    ("base", "space"),
    [
        ({"model": "slowfast_r18", "test_pooling": "fully_convolutional"}, {}),
        ({"model": "x3d_s"}, {"test_pooling": POOLING}),
        ({"model": "r3d_18", "test_pooling": "global"}, {}),
        ({}, {"model": BOTH, "test_pooling": {**POOLING, "when": {"model": ["slowfast_r18"]}}}),
    ],
)
def test_positions_can_be_scored_where_that_is_published(base: dict[str, Any], space: dict[str, Any]) -> None:
    assert _found(base, space) == {}


@pytest.mark.parametrize(
    ("base", "space", "path", "words"),
    [
        ({"model": "r3d_18", "test_pooling": "fully_convolutional"}, {}, "task.base.test_pooling", "r3d_18 pools its"),
        ({"model": "tsm_resnet50"}, {"test_pooling": POOLING}, "space.test_pooling.choices", "x3d_s, x3d_xs are"),
        ({}, {"model": BOTH, "test_pooling": POOLING}, "space.test_pooling.choices", "limit it to the models"),
    ],
)
def test_positions_of_models_that_pool_their_whole_maps_are_refused(
    base: dict[str, Any], space: dict[str, Any], path: str, words: str
) -> None:
    found = _found(base, space)
    assert list(found) == [path]
    assert words in found[path]
