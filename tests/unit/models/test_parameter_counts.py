"""Sizes known to the last parameter, and costs to 3 in a hundred."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import models

from .tiny import DEEP

SEED_000: dict[str, Any] = {"lateral_norm": False, "head_bias": False}
MMACTION: dict[str, Any] = {"midplanes": "paper", "stem_midplanes": "paper", "shortcut": "split"}
STUDY: dict[str, Any] = {"midplanes": "paper", "study_layout": True}


@pytest.mark.parametrize(
    ("name", "hparams", "at_400", "at_101"),
    [
        ("slowfast_r50_4x16", {}, 34_480_216, 33_791_021),
        ("slowfast_r50_4x16", SEED_000, 34_478_888, 33_789_992),
        ("slowfast_r50_8x8", {}, 34_566_488, 33_877_293),
        ("slowfast_r50_8x8", {"fusion_kernel": 5}, 34_480_216, 33_791_021),
        ("slowfast_r101", {}, 62_826_968, 62_137_773),
        ("slowfast_r101_8x8", {}, 62_826_968, 62_137_773),
        ("slowfast_16x8_r101_50_50", {}, 53_774_808, 53_085_613),
        ("slow_r50", {}, 32_454_096, 31_841_445),
        ("c2d_r50", {}, 24_327_632, 23_714_981),
        ("i3d_r50", {}, 28_043_472, 27_430_821),
        ("i3d_inception", {}, 12_697_264, 12_390_789),
        ("i3d_ibm", {}, 12_697_264, 12_390_789),
        ("c3d", {}, 79_634_576, 78_409_573),
        ("csn_r152", {}, 29_703_568, 29_090_917),
        ("csn_r152_ip", {}, 33_016_592, 32_403_941),
        ("csn_r101", {}, 22_213_776, 21_601_125),
        ("r2plus1d_r50", {}, 28_107_600, 27_494_949),
        ("x3d_xs", {}, 3_794_274, 3_181_623),
        ("x3d_s", {}, 3_794_274, 3_181_623),
        ("x3d_m", {}, 3_794_274, 3_181_623),
        ("x3d_l", {}, 6_153_384, 5_540_733),
        ("mvit_v1_b", {}, 36_610_672, 36_380_741),
        ("mvit_v1_b_32x3", {}, 36_611_440, 36_381_509),
        ("mvit_v2_b", {}, 51_230_128, 51_000_197),
        ("mvit_v2_s", {}, 34_537_744, 34_307_813),
        ("swin3d_t", {}, 28_158_070, 27_928_139),
        ("hiera_b", {}, 51_092_560, 50_862_629),
        ("hiera_l", {}, 213_091_600, 212_746_853),
        ("timesformer_b", {}, 121_566_352, 121_336_421),
        ("videomae_vit_s", {}, 22_033_936, 21_918_821),
        ("videomae_vit_b", {}, 86_534_800, 86_304_869),
        ("videomae_vit_l", {}, 304_270_736, 303_964_261),
        ("r3d_18", {}, 33_371_472, 33_218_085),
        ("r3d_34", {}, 63_681_104, 63_527_717),
        ("r3d_50", {}, 46_980_944, 46_368_293),
        ("r3d_101", {}, 86_027_088, 85_414_437),
        ("mc3_18", {}, 11_695_440, 11_542_053),
        ("r2plus1d_18", {"midplanes": "torchvision"}, 31_505_325, 31_351_938),
        ("r2plus1d_18", {"midplanes": "paper"}, 33_370_839, 33_217_452),
        # Of the paper's size, 83 channels for 45 inside the stem, and shortcuts in halves of 54, 109 and 219 channels.
        ("r2plus1d_34", MMACTION, 63_697_175 + 62_106, 63_543_788 + 62_106),
        ("r2plus1d_18", STUDY, 33_396_910, 33_243_523),
        ("r2plus1d_34", {"midplanes": "torchvision"}, 61_831_661, 61_678_274),
        ("r2plus1d_34", {"midplanes": "paper"}, 63_697_175, 63_543_788),
        # Torchvision's R3D-18 with a stem of 7 frames for 3: 4 * 3 * 49 * 64 weights more.
        ("r3d_18_hara", {}, 33_371_472 + 37_632, 33_218_085 + 37_632),
        ("r3d_34_hara", {}, 63_681_104 + 37_632, 63_527_717 + 37_632),
        ("r3d_50_hara", {}, 46_980_944 + 37_632, 46_368_293 + 37_632),
        ("r3d_101_hara", {}, 86_027_088 + 37_632, 85_414_437 + 37_632),
        # A stem of 110 channels between its halves in place of 45; otherwise the sizes of the paper.
        ("r2plus1d_18_hara", {}, 33_370_839 + 50_325, 33_217_452 + 50_325),
        ("r2plus1d_34_hara", {}, 63_697_175 + 50_325, 63_543_788 + 50_325),
        ("s3d", {}, 8_320_048, 8_013_573),
        ("s3d_ibm", {}, 8_313_328, 8_006_853),
        ("s3d_ibm", {"dw_t_conv": True}, 6_048_304, 5_741_829),
        ("s3d_g", {}, 9_085_744, 8_779_269),
        ("s3d_g", {"gating": "branches"}, 9_545_056, 9_238_581),
        ("s3d_resnet18", {}, 15_586_128, 15_432_741),
        ("s3d_resnet50", {}, 28_126_416, 27_513_765),
    ],
)
def test_parameter_count(name: str, hparams: dict[str, Any], at_400: int, at_101: int) -> None:
    model = built(name, tuple(hparams.items()))
    assert sum(parameter.numel() for parameter in model.parameters()) == at_400
    classifiers = [parameter for head in model.classifier_names for parameter in model.get_submodule(head).parameters()]
    assert at_400 - at_101 == sum(parameter[101:].numel() for parameter in classifiers)


def test_non_local_blocks_add_four_point_convolutions_and_a_norm_each() -> None:
    added = sum(4 * c * (c // 2) + 3 * (c // 2) + c + 2 * c for c in (512, 512, 1024, 1024, 1024))
    for name, options, plain in (
        ("i3d_r50", {"non_local": "softmax"}, 28_043_472),
        ("slowfast_r50_4x16", {"non_local": "dot_product"}, 34_480_216),
        ("tsm_resnet50", {"non_local": True, "non_local_form": "tsm"}, 24_327_632),
    ):
        with torch.device("meta"):
            model = models.create_model(name, num_classes=400, **options)
        assert sum(parameter.numel() for parameter in model.parameters()) == plain + added


def test_slow_index_and_initialisation_add_no_parameter() -> None:
    with torch.device("meta"):
        model = models.create_model("slowfast_r50_4x16", num_classes=400, slow_index="stride", zero_init=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 34_480_216


@cache
def built(name: str, hparams: tuple[tuple[str, Any], ...] = ()) -> models.VideoModel:
    """Return a model of 400 classes without numbers, the same one for all tests."""
    with torch.device("meta"):
        return models.create_model(name, num_classes=400, **dict(hparams)).eval()


COUNTED = [name for name in models.list_models() if models.model_info(name).gflops is not None]


def is_deep(name: str) -> bool:
    """Return whether a model differs from another one, which takes less to count, in its depth alone."""
    return name in DEEP - {"csn_r152_ip", "mvit_v2_b"} or name.endswith(("101", "152"))


@cache
def measured(name: str) -> tuple[int, float]:
    """Return parameters, and billions of multiply-adds for one default clip; nothing is computed."""
    clip = models.model_info(name).clip
    return counted(name, frames=clip.frames, size=clip.size)


def counted(name: str, *, frames: int, size: int, **hparams: Any) -> tuple[int, float]:
    """Return what `measured` returns, for a clip of any size."""
    info = models.model_info(name)
    channels = {"clip": 3, "rgb": 3, "flow": int(info.defaults().get("flow_channels", 0))}
    with torch.device("meta"), torch.no_grad():
        model = built(name, tuple(hparams.items()))
        with FlopCounterMode(display=False) as counter:
            given = [torch.empty(1, channels[kind], frames, size, size) for kind in info.inputs]
            model(given[0] if len(given) == 1 else tuple(given))
    # The counter takes a multiplication and an addition for two.
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if is_deep(name) else name for name in COUNTED]
)
def test_card_states_parameters_and_flops(name: str) -> None:
    info = models.model_info(name)
    parameters, gflops = measured(name)
    assert info.parameters == parameters
    assert info.gflops == pytest.approx(gflops, abs=1e-3)


def test_every_family_here_is_counted() -> None:
    families = {"C3D", "SlowFast", "Slow", "C2D", "CSN", "I3D", "R3D", "MC3", "R(2+1)D", "S3D", "S3D-G", "S3D-ResNet"}
    families |= {"X3D", "MViT", "MViT v2", "Video Swin", "VideoMAE", "TimeSformer", "Hiera"}
    for name in models.list_models():
        info = models.model_info(name)
        if info.family in families:
            assert name in COUNTED, name


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("slowfast_r50_4x16", 27.8),
        ("slowfast_r50_8x8", 50.6),
        ("slow_r50", 41.9),
        ("c2d_r50", 19.6),
        ("i3d_r50", 28.5),
        ("csn_r101", 57.0),
        # MMAction2's table of models.
        ("c3d", 38.5),
        ("r2plus1d_r50", 57.9),
        ("r3d_18", 40.7),
        ("mc3_18", 43.4),
        ("r2plus1d_18", 40.7),
        # R(2+1)D-34 of 32 frames in its paper's table 4; X3D in its paper's table 4.
        ("r2plus1d_34", 152),
        ("s3d", 72.3),
        ("x3d_xs", 0.60),
        ("x3d_s", 1.96),
        ("x3d_m", 4.73),
        ("x3d_l", 18.37),
        ("mvit_v2_s", 64.5),
        # The tables of models of PySlowFast: MViT-B, MViTv2-B.
        ("mvit_v1_b", 70.5),
        ("mvit_v1_b_32x3", 170),
        ("mvit_v2_b", 225),
        ("swin3d_t", 88.1),
        # Hiera's table of Kinetics-400.
        ("hiera_b", 102),
        ("hiera_l", 413),
        # TimeSformer's table of models says 0.59 T for three crops.
        ("timesformer_b", 590 / 3),
        # VideoMAE's table of Kinetics-400.
        ("videomae_vit_s", 57),
        ("videomae_vit_b", 180),
        ("videomae_vit_l", 597),
    ],
)
def test_cost_is_the_published_one(name: str, published: float) -> None:
    assert models.model_info(name).gflops == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(
    ("name", "at_256"),
    # pytorchvideo's table of models, whose clips have 256 pixels a side, and CSN's paper, too.
    [
        ("slowfast_r101_8x8", 127.20),
        ("slowfast_16x8_r101_50_50", 215.61),
        ("csn_r152", 96.7),
        ("csn_r152_ip", 108.8),
    ],
)
def test_cost_of_the_deep_networks_grows_with_the_image(name: str, at_256: float) -> None:
    gflops = models.model_info(name).gflops
    assert gflops is not None
    assert gflops * (256 / 224) ** 2 == pytest.approx(at_256, rel=0.03)


def test_i3d_is_the_authors_network() -> None:
    # OpenVINO's model zoo converted it and says 12.69 M and 278.981 GFLOPs, two per multiply-add, for 79 frames.
    parameters, gflops = counted("i3d_inception", frames=79, size=224)
    assert parameters == pytest.approx(12.69e6, rel=1e-3)
    assert 2 * gflops == pytest.approx(278.981, rel=0.03)
    # Xie et al., table 1, say 107.9 G for 64 frames, by a counter of their own.
    assert models.model_info("i3d_inception").gflops == pytest.approx(107.9, rel=0.035)


def test_the_slowfast_of_the_seed_costs_what_was_counted_there() -> None:
    assert counted("slowfast_r50_4x16", frames=32, size=112, **SEED_000)[1] == pytest.approx(7.3, rel=0.03)


def test_gates_add_a_square_layer_each() -> None:
    # In the paper's order: the stem, the second convolution, then 3x3 and second 3x3 of each module.
    widths = [64, 192, 128, 32, 192, 96, 208, 48, 224, 64, 256, 64, 288, 64, 320, 128, 320, 128, 384, 128]
    added = counted("s3d_g", frames=16, size=64)[0] - counted("s3d", frames=16, size=64)[0]
    assert added == sum(width * (width + 1) for width in widths)
