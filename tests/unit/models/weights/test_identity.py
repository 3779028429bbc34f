"""What a weights file is: layout, network, classes, the models and options that it fits exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import models

from .test_formats import slowfast_name


def save(path: Path, model: models.VideoModel, rename: Any = str) -> Path:
    torch.save({"model_state": {rename(name): tensor for name, tensor in model.state_dict().items()}}, path)
    return path


def test_a_pyslowfast_file_names_model_options_and_classes(tmp_path: Path) -> None:
    source = models.create_model(
        "slowfast_r18", num_classes=7, width=16, beta_inv=4, fusion_kernel=3, lateral_norm=False
    )
    identity = models.identify_weights(save(tmp_path / "a.pyth", source, slowfast_name))
    assert (identity.layout, identity.network, identity.num_classes) == ("PySlowFast", "SlowFast", 7)
    (fit,) = identity.fits
    assert fit.model == "slowfast_r18"
    assert fit.options == {"width": 16, "beta_inv": 4, "fusion_kernel": 3, "lateral_norm": False}
    assert fit.reset == ("head.bias", "head.weight")
    assert (fit.in_channels, fit.stream, identity.left_over) == (3, None, ())
    assert identity.tensors == len(source.state_dict())
    # The options are enough to load it.
    options: dict[str, Any] = dict(fit.options)
    models.create_model(fit.model, num_classes=7, weights=tmp_path / "a.pyth", **options)


@pytest.mark.parametrize(
    ("name", "options", "channels", "fits"),
    [
        ("tam_resnet18", {"width": 8, "blend_frames": 5}, 3, {"tam_resnet18"}),
        ("resnet18", {"width": 8}, 10, {"resnet18", "tsn_resnet18", "tsm_resnet18"}),
        ("s3d_resnet18", {"width": 8, "dw_t_conv": True}, 3, {"s3d_resnet18"}),
        ("r2plus1d_18", {"width": 8, "midplanes": "paper"}, 3, {"r2plus1d_18"}),
        ("r2plus1d_18", {"width": 8, "study_layout": True}, 3, {"r2plus1d_18"}),
        ("x3d_s", {"width": 8, "head_width": 32}, 3, {"x3d_xs", "x3d_s", "x3d_m"}),
        # No tensor shows the padding, in which the two forms differ.
        ("i3d_inception", {"width": 8}, 2, {"i3d_inception", "i3d_ibm"}),
        ("blvnet_tam_50", {"width": 8, "alpha": 4}, 3, {"blvnet_tam_50"}),
        ("c3d", {"width": 8, "hidden_width": 16}, 3, {"c3d"}),
        ("tanet_resnet50", {"width": 8, "segments": 4}, 3, {"tanet_resnet50"}),
        ("trn_resnet18", {"width": 8, "segments": 3}, 3, {"trn_resnet18"}),
        ("mvit_v1_b", {"width": 8, "table_frames": 4, "table_size": 32}, 3, {"mvit_v1_b", "mvit_v1_b_32x3"}),
    ],
)
def test_our_own_file_is_found_again(
    name: str, options: dict[str, Any], channels: int, fits: set[str], tmp_path: Path
) -> None:
    path = save(tmp_path / "a.pth", models.create_model(name, num_classes=5, in_channels=channels, **options))
    identity = models.identify_weights(path)
    assert identity.num_classes == 5
    assert {fit.model for fit in identity.fits} == fits
    fit = next(fit for fit in identity.fits if fit.model == name)
    assert fit.in_channels == channels
    needed: dict[str, Any] = dict(fit.options)
    models.create_model(name, num_classes=5, in_channels=channels, weights=path, **needed)


def test_a_file_that_no_model_fits_has_no_fits(tmp_path: Path) -> None:
    torch.save({"embedding.weight": torch.zeros(3, 4), "out.bias": torch.zeros(3)}, tmp_path / "a.pth")
    identity = models.identify_weights(tmp_path / "a.pth")
    assert (identity.layout, identity.fits, identity.num_classes) == ("as it is", (), None)
    assert (identity.tensors, identity.parameters) == (2, 15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_its_tensor(bad: float, tmp_path: Path) -> None:
    source = models.create_model("resnet18", num_classes=2, width=8)
    source.state_dict()["layer2.0.conv1.weight"][0, 0, 0, 0] = bad
    path = save(tmp_path / "a.pth", source)
    with pytest.raises(models.WeightsError, match=r"a\.pth .*layer2\.0\.conv1\.weight holds NaN or infinity"):
        models.identify_weights(path)
    with pytest.raises(models.WeightsError, match=r"layer2\.0\.conv1\.weight holds NaN or infinity"):
        models.create_model("resnet18", num_classes=2, width=8, weights=path)


def test_a_classifier_of_the_same_classes_is_never_left_out(tmp_path: Path) -> None:
    image = models.create_model("resnet50", num_classes=4)
    path = save(tmp_path / "a.pth", image)
    with pytest.raises(models.WeightsError, match=r"its classifier fc\.weight has the same 4 classes"):
        models.create_model("i3d_r50", num_classes=4, weights=path)
    report = models.load_weights(models.create_model("i3d_r50", num_classes=5), path)
    assert set(report.dropped) == {"fc.weight", "fc.bias"}


def test_a_file_of_another_function_is_loaded_with_a_note(tmp_path: Path) -> None:
    source = models.create_model("slow_r50", num_classes=4, width=8)
    state = {slowfast_name(name): tensor for name, tensor in source.state_dict().items()}
    torch.save(state, tmp_path / "a.pyth")
    report = models.load_weights(models.create_model("slow_r50", num_classes=4, width=8), tmp_path / "a.pyth")
    assert report.notes == ()
    assert report.network == "ResNet of one path"
