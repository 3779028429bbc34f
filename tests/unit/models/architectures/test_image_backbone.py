"""Classifiers of other libraries over frames: equal to theirs, and to our TSM and TAM where those are the same."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import models
from models.architectures.image_backbone import ImageBackbone

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap


def build(name: str, **options: Any) -> models.VideoModel:
    model = models.create_model(name, num_classes=5, **options)
    randomise(model, seed=1)
    return model.double().eval()


@pytest.mark.parametrize(
    ("ours", "kind"), [("tsm_resnet18", "shift"), ("tam_resnet18", "aggregation"), ("tsn_resnet18", "none")]
)
def test_temporal_modules_stand_where_they_do_in_our_own_networks(ours: str, kind: str) -> None:
    own = build(ours)
    generic = build("torchvision_frames", backbone="resnet18", temporal_module=kind)
    blocks = iter(range(8))
    names = {key: key for key in own.state_dict()}
    for key in own.state_dict():
        if ".tam.prev_se." in key:
            names[key.partition("tam.")[0]] = f"temporal.{next(blocks)}."
    state = {}
    for key, tensor in own.state_dict().items():
        block, inside, rest = key.partition("tam.")
        state[f"{names[block]}{rest}" if inside else key if key.startswith("fc.") else f"net.{key}"] = tensor
    generic.load_state_dict(state, strict=True)
    clip = random_clip(2, 3, 4, 40, 40)
    with torch.no_grad():
        assert relative_gap(generic(clip), own(clip)) < TOLERANCE


@pytest.mark.parametrize(
    ("backbone", "file"),
    [("resnet18", "fc.weight"), ("mobilenet_v3_small", "classifier.3.weight"), ("swin_t", "head.weight")],
)
def test_torchvisions_network_computes_the_same_for_each_frame(backbone: str, file: str, tmp_path: Path) -> None:
    theirs = torchvision.models.get_model(backbone, weights=None, num_classes=5)
    randomise(theirs, seed=2)
    torch.save(theirs.state_dict(), tmp_path / "image.pth")
    assert file in theirs.state_dict()
    model = models.create_model("torchvision_frames", num_classes=5, backbone=backbone)
    report = models.load_weights(model, tmp_path / "image.pth")
    assert all(f"net.{name}" in report.loaded for name in theirs.state_dict() if not name.startswith(file[:-6]))
    clip = random_clip(1, 3, 2, 64, 64)
    own_head = theirs.get_submodule(file.removesuffix(".weight"))
    model.fc.load_state_dict(own_head.state_dict())  # type: ignore[union-attr]  # a linear layer, as theirs is
    with torch.no_grad():
        expected = theirs.double().eval()(clip[0].transpose(0, 1)).mean(0, keepdim=True)
        assert relative_gap(model.double().eval()(clip), expected) < TOLERANCE


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_timms_network_computes_the_same_for_each_frame(backbone: str, tmp_path: Path) -> None:
    theirs = timm.create_model(backbone, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "image.pth")
    model = models.create_model("timm_frames", num_classes=7, backbone=backbone)
    report = models.load_weights(model, tmp_path / "image.pth")
    assert {name for name in report.reset if name.startswith("fc.")} == {"fc.weight", "fc.bias"}
    size = theirs.default_cfg["input_size"][1]
    clip = random_clip(1, 3, 2, size, size)
    with torch.no_grad():
        images = clip[0].transpose(0, 1)
        theirs = theirs.double().eval()
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True).mean(0, keepdim=True)
        assert relative_gap(model.double().eval().forward_features(clip), expected) < TOLERANCE
        if backbone == "test_vit":
            # Its positions are interpolated for other sizes.
            assert model(clip[..., :96, :96]).shape == (1, 7)


def test_a_copy_has_temporal_modules_of_its_own() -> None:
    model = build("timm_frames", backbone="test_resnet", temporal_module="aggregation")
    assert isinstance(model, ImageBackbone)
    clip = random_clip(1, 3, 4, 64, 64)
    with torch.no_grad():
        before = model(clip)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 -- our own bytes
            assert torch.equal(twin(clip), before)
            for parameter in twin.temporal.parameters():
                parameter.zero_()
            assert relative_gap(twin(clip), before) > 1e-3
            assert torch.equal(model(clip), before)


def test_layers_hold_the_temporal_modules_before_their_branches() -> None:
    model = build("torchvision_frames", backbone="resnet18", temporal_module="aggregation")
    assert model.layer_index("temporal.0.curr_se.fc1.weight") == model.layer_index("net.layer1.0.conv1.weight")
    assert model.layer_index("temporal.7.curr_se.fc1.weight") == model.layer_index("net.layer4.1.conv1.weight")
    assert model.layer_index("net.conv1.weight") == 0
    in_features = build("torchvision_frames", backbone="mobilenet_v3_small")
    assert in_features.layer_index("net.features.3.block.0.0.weight") == 3


def test_dropout_is_ours_alone() -> None:
    model = models.create_model("torchvision_frames", num_classes=5, backbone="efficientnet_b0", dropout=0.0)
    theirs = [part for part in model.get_submodule("net").modules() if isinstance(part, nn.Dropout)]
    assert [part.p for part in theirs] == [0.0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision_frames", {"backbone": "resnet81"}, "no classifier 'resnet81'; did you mean 'resnet18'"),
        ("torchvision_frames", {"backbone": "googlenet"}, "no classifier 'googlenet'"),
        ("torchvision_frames", {"backbone": "fcn_resnet50"}, "no classifier 'fcn_resnet50'"),
        ("torchvision_frames", {"backbone": "squeezenet1_0"}, "the classifier of squeezenet1_0 is not a linear layer"),
        (
            "torchvision_frames",
            {"backbone": "../x"},
            "must be a name of torchvision, such as convnext_tiny",
        ),
        ("torchvision_frames", {"backbone": "swin_t", "temporal_module": "shift"}, "swin_t has no residual blocks"),
        ("timm_frames", {"backbone": "convnext_tinny"}, "no model 'convnext_tinny'; did you mean 'convnext_tiny'"),
    ],
)
def test_wrong_backbones_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(models.InvalidModelError, match=message.replace("(", r"\(").replace("..", r"\.\.")):
        models.create_model(name, num_classes=5, **options)


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(models.InvalidModelError, match=r"needs timm: pip install 'video-hpo\[timm\]'"):
        models.create_model("timm_frames", num_classes=5)
