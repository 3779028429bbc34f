"""Layers of the backbone, as freezing and `layer_decay` count them, against the order in which a forward pass runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import models

from . import test_every_image_model as image_models
from .tiny import IMAGE_BASED, clips, every, tiny


def _model(name: str) -> models.VideoModel:
    model = image_models.build(name) if name in IMAGE_BASED else tiny(name)
    return model.eval()


def _order_of_calls(model: models.VideoModel, name: str) -> list[str]:
    """Return the names of all modules with parameters of their own, by their first call."""
    called: list[str] = []

    def note(key: str) -> Any:
        return lambda *_: called.append(key)

    for key, module in model.named_modules():
        if key and any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(note(key))
    with torch.no_grad():
        model(image_models.inputs(name, count=1) if name in IMAGE_BASED else clips(count=1))
    return list(dict.fromkeys(called))


@pytest.mark.parametrize("name", [*every(), *image_models.NAMES])
def test_layers_are_numbered_as_a_forward_pass_reaches_them(name: str) -> None:
    model = _model(name)
    assert all(layer for layer in model.layer_names)
    streams = ("spatial.", "temporal.", "rgb.", "flow.") if len(model.info.inputs) == 2 else ("",)
    calls = _order_of_calls(model, name)
    for stream in streams:  # each is computed from its clip to its head
        indices = [model.layer_index(key) for key in calls if key.startswith(stream)]
        assert indices == sorted(indices), [key for key in calls if key.startswith(stream)]
    assert {model.layer_index(key) for key in calls} == set(range(model.num_layers + 1))
    # The head is the classifiers and, in transformers, the last norm.
    of_head = {key for key, _ in model.named_parameters() if model.layer_index(key) == model.num_layers}
    submodules = {head: model.get_submodule(head) for head in model.classifier_names}
    heads = {f"{head}.{key}" for head, module in submodules.items() for key, _ in module.named_parameters()}
    norms = {"norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias"}
    assert heads <= of_head <= heads | norms
    groups = model.param_groups(weight_decay=0.1, head_lr_mult=7.0)
    faster = {id(parameter) for group in groups if group["lr_mult"] == 7 for parameter in group["params"]}
    assert faster == {id(model.get_parameter(key)) for key in heads}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("slowfast_r18", 5),
        ("r3d_18", 5),
        ("tsm_resnet18", 5),
        ("stmulnet_r18", 5),
        ("x3d_s", 7),  # with the two convolutions after the stages
        ("inception_v3", 4),
        ("i3d_inception", 4),
        ("s3d", 4),
        ("vgg16", 6),
        ("swin3d_t", 13),  # blocks of 2, 2, 6 and 2 after the patches
        ("mvit_v2_s", 17),
    ],
)
def test_a_layer_is_a_stage_or_a_block(name: str, layers: int) -> None:
    assert _model(name).num_layers == layers


class Own(models.VideoModel):
    """What somebody else's model may consist of."""

    classifier_name = "head.last"

    def __init__(self, settings: models.ModelSettings) -> None:
        super().__init__(settings)
        self.start = nn.Linear(1, 1)
        self.act = nn.ReLU()
        self.blocks = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
        self.end = nn.Linear(1, 1)
        self.head = nn.Sequential(OrderedDict(last=nn.Linear(1, 1)))

    def forward_features(self, clip: Tensor) -> Tensor:
        return clip.mean((2, 3, 4))


def test_by_default_children_are_layers_and_rows_of_them_count_one_by_one() -> None:
    own = Own(models.model_settings("r3d_18", num_classes=1))
    assert own.layer_names == (("start",), ("blocks.0",), ("blocks.1",), ("end",))


@pytest.mark.parametrize("name", ["slowfast_r18", "swin3d_t", "stmulnet_r18"])
def test_layer_decay_is_that_of_a_plain_loop(name: str) -> None:
    model = _model(name)
    rates: dict[str, float] = {}
    rate = 1.0
    for layer in [()] + [tuple(parts) for parts in reversed(model.layer_names)]:
        for key, _ in model.named_parameters():
            if key not in rates and (not layer and model.layer_index(key) == model.num_layers):
                rates[key] = 3.0 if key.rpartition(".")[0] in model.classifier_names else 1.0
            elif any(key.startswith(f"{part}.") for part in layer):
                rates[key] = rate
        rate *= 0.5
    groups = model.param_groups(weight_decay=0.1, head_lr_mult=3.0, layer_decay=0.5)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = {names[id(parameter)]: group["lr_mult"] for group in groups for parameter in group["params"]}
    assert found == rates
    assert len({names[id(p)] for group in groups for p in group["params"]}) == sum(len(g["params"]) for g in groups)
    whole = {g["name"]: g["lr_mult"] for g in model.param_groups(weight_decay=0.1, by_layer=True)}
    assert set(whole.values()) == {1.0}
    assert {key.partition(".")[0] for key in whole} >= {f"layer{i}" for i in range(model.num_layers)} | {"head"}


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("swin3d_t", {"relative_position_bias_table"}),
        ("mvit_v2_s", {"rel_pos_h", "rel_pos_w", "rel_pos_t"}),
        ("mvit_v1_b", {"spatial_pos", "temporal_pos"}),
        ("hiera_b", {"pos_embed_spatial", "pos_embed_temporal"}),
        ("timesformer_b", {"cls_token", "pos_embed", "time_embed"}),
        ("slowfast_r18", set()),
    ],
)
def test_tables_of_positions_decay_only_if_asked(name: str, tables: set[str]) -> None:
    model = _model(name)
    names = {id(parameter): key.rpartition(".")[2] for key, parameter in model.named_parameters()}

    def decayed(**options: bool) -> set[str]:
        groups = model.param_groups(weight_decay=0.1, **options)
        return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}

    assert decayed() - decayed(decay_tables=False) == tables
    assert "weight" in decayed(decay_tables=False)


@pytest.mark.parametrize("name", ["swin3d_t", "mvit_v1_b", "hiera_b", "timesformer_b", "videomae_vit_s"])
def test_branches_are_left_out_more_often_from_block_to_block(name: str) -> None:
    model = tiny(name, stochastic_depth=0.3)
    rates = [module.p for module in model.modules() if isinstance(module, StochasticDepth)]
    blocks = list(dict.fromkeys(rates))
    assert len(blocks) == model.num_layers - 1
    assert blocks == pytest.approx([0.3 * index / (len(blocks) - 1) for index in range(len(blocks))])
