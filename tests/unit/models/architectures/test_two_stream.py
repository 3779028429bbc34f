"""Late fusion: two networks of images whose answers meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models
from models.architectures.two_stream import LateFusion

from ..oracles import random_clip, randomise, relative_gap

NAMES = [name for name in models.list_models() if name.startswith("two_stream_")]


def make(name: str = "two_stream_resnet18", **options: Any) -> LateFusion:
    model = models.create_model(name, **{"num_classes": 5, "width": 8, "dropout": 0.0, "flow_channels": 4, **options})
    assert isinstance(model, LateFusion)
    randomise(model, 0)
    return model.double().eval()


def pair() -> tuple[Tensor, Tensor]:
    return random_clip(2, 3, 3, 32, 32), random_clip(2, 4, 3, 32, 32, seed=1)


def test_every_frame_network_of_the_table_is_fused() -> None:
    expected = {"resnet50", "resnet101", "inception_v3", "vgg16", "vgg16_reducedfc"}
    assert {f"two_stream_{name}" for name in expected} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_two_networks(name: str) -> None:
    def count(model: str, **options: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in models.create_model(model, num_classes=101, **options).parameters())

    backbone = name.removeprefix("two_stream_")
    assert count(name, flow_channels=10) == count(backbone) + count(backbone, in_channels=10)


@pytest.mark.parametrize("weight", [0.5, 1.0, 1.5])
def test_softmax_of_the_logits_is_the_weighted_mean_of_softmaxes(weight: float) -> None:
    model = make(flow_weight=weight)
    with torch.no_grad():
        rgb, flow = model.rgb(pair()[0]), model.flow(pair()[1])
        expected = (rgb.softmax(1) + weight * flow.softmax(1)) / (1 + weight)
        assert relative_gap(model(pair()).softmax(1), expected) < 1e-12
        # The probabilities themselves, so that a further softmax changes nothing.
        assert relative_gap(model(pair()).exp(), expected) < 1e-12


def test_logits_may_be_averaged_instead() -> None:
    model = make(fusion="logit", flow_weight=2.0)
    with torch.no_grad():
        expected = (model.rgb(pair()[0]) + 2 * model.flow(pair()[1])) / 3
        assert relative_gap(model(pair()), expected) < 1e-12


def test_each_network_trains_as_if_alone() -> None:
    model = make()
    targets = torch.tensor([4, 2])
    loss, logits = model.training_loss(pair(), targets, F.cross_entropy)
    assert relative_gap(logits, model(pair())) < 1e-12
    loss.backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    F.cross_entropy(model.rgb(pair()[0]), targets).backward()
    F.cross_entropy(model.flow(pair()[1]), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert relative_gap(together[name], parameter.grad) < 1e-12, name


def test_hyperparameters_reach_both_networks() -> None:
    model = make(consensus="max", seq_len=3)
    assert model.rgb.consensus == model.flow.consensus == "max"
    assert model.rgb.image_channels == 9
    assert model.flow.image_channels == 12
    with pytest.raises(models.InvalidClipError, match="two_stream_resnet18: seq_len = 3 does not divide frames = 4"):
        model((random_clip(1, 3, 4, 32, 32), random_clip(1, 4, 4, 32, 32)))


def test_features_and_classifiers_are_both_networks() -> None:
    model = make()
    assert model.num_features == 128
    assert model.forward_features(pair()).shape == (2, 128)
    assert model.classifier_names == ("rgb.fc", "flow.fc")
    assert make("two_stream_inception_v3", aux=True, width=4).classifier_names == (
        "rgb.fc",
        "flow.fc",
        "rgb.AuxLogits.fc",
        "flow.AuxLogits.fc",
    )
    model.reset_classifier(9)
    assert model(pair()).shape == (2, 9)
    assert model.num_classes == model.rgb.num_classes == 9
