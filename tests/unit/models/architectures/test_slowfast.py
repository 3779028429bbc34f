"""SlowFast beyond its oracle: the R18, the frames of the slow path, the combinations."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from models.architectures.slowfast import SlowFast, slow_frames

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap


def numbered_clip(frames: int) -> Tensor:
    """Return a clip whose pixels say which frame they are in."""
    return torch.arange(frames).view(1, 1, frames, 1, 1).expand(1, 2, frames, 3, 3)


@pytest.mark.parametrize("alpha", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("count", range(1, 9))
def test_slow_frames_follow_the_formula(alpha: int, count: int) -> None:
    frames = alpha * count
    taken = slow_frames(numbered_clip(frames), alpha, "linspace")
    assert taken.shape == (1, 2, count, 3, 3)
    assert taken[0, 1, :, 2, 2].tolist() == torch.linspace(0, frames - 1, count).long().tolist()
    taken = slow_frames(numbered_clip(frames), alpha, "stride")
    assert taken[0, 1, :, 2, 2].tolist() == list(range(0, frames, alpha))


def test_slow_frames_of_the_published_settings() -> None:
    def indices(alpha: int, rule: str) -> list[int]:
        return slow_frames(numbered_clip(32), alpha, rule)[0, 0, :, 0, 0].tolist()

    assert indices(8, "linspace") == [0, 10, 20, 31]
    assert indices(8, "stride") == [0, 8, 16, 24]
    assert indices(4, "linspace") == [0, 4, 8, 13, 17, 22, 26, 31]


def reference_r18(state: dict[str, Tensor], clip: Tensor, *, alpha: int) -> Tensor:
    """Return slowfast_r18's logits in evaluation mode from its weights alone, by the paper's table."""

    def conv(name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        return F.conv3d(x, weight, stride=stride, padding=padding)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
        shape = (1, -1, 1, 1, 1)
        return (x - mean.view(shape)) * scale.view(shape) + state[f"{name}.bias"].view(shape)

    def block(name: str, x: Tensor, stride: int) -> Tensor:
        y = conv(f"{name}.branch.conv_a", x, stride=(1, stride, stride))
        y = norm(f"{name}.branch.norm_a", y).relu()
        y = norm(f"{name}.branch.norm_b", conv(f"{name}.branch.conv_b", y))
        if f"{name}.shortcut.0.weight" in state:
            x = conv(f"{name}.shortcut.0", x, stride=(1, stride, stride))
            x = norm(f"{name}.shortcut.1", x)
        return (x + y).relu()

    frames = clip.shape[2]
    paths = {
        "slow": clip[:, :, torch.linspace(0, frames - 1, frames // alpha).long()],
        "fast": clip,
    }
    for path, x in paths.items():
        y = norm(f"{path}.stem.norm", conv(f"{path}.stem.conv", x, stride=(1, 2, 2))).relu()
        paths[path] = F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage in range(4):
        lateral = conv(f"laterals.{stage}.conv", paths["fast"], stride=(alpha, 1, 1))
        lateral = norm(f"laterals.{stage}.norm", lateral).relu()
        paths["slow"] = torch.cat((paths["slow"], lateral), dim=1)
        for path, number in itertools.product(paths, range(2)):
            stride = 2 if stage > 0 and number == 0 else 1
            paths[path] = block(f"{path}.stages.{stage}.{number}", paths[path], stride)
    features = torch.cat([x.mean((2, 3, 4)) for x in paths.values()], dim=1)
    return F.linear(features, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize(
    "hparams",
    [{"alpha": 4, "width": 16}, {"alpha": 8, "width": 8, "beta_inv": 4, "fusion_kernel": 7}],
    ids=str,
)
def test_r18_is_the_formula(hparams: dict[str, Any]) -> None:
    model = models.create_model("slowfast_r18", num_classes=3, **hparams)
    randomise(model, seed=4)
    model.double().eval()
    clip = random_clip(2, 3, 16, 48, 40)
    with torch.no_grad():
        expected = reference_r18(dict(model.state_dict()), clip, alpha=int(hparams["alpha"]))
        assert relative_gap(model(clip), expected) < TOLERANCE


def test_r18_temporal_kernels_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        state = models.create_model("slowfast_r18", num_classes=2, width=16).state_dict()
    kernels = {
        path: [state[f"{path}.stages.{i}.0.branch.conv_a.weight"].shape[2] for i in range(4)]
        for path in ("slow", "fast")
    }
    assert kernels == {"slow": [1, 1, 3, 3], "fast": [3, 3, 3, 3]}
    assert state["slow.stem.conv.weight"].shape == (16, 3, 1, 7, 7)
    assert state["fast.stem.conv.weight"].shape == (2, 3, 5, 7, 7)


@pytest.mark.parametrize("alpha", [2, 4, 8])
@pytest.mark.parametrize("beta_inv", [1, 4, 8])
@pytest.mark.parametrize(("kernel", "ratio"), [(1, 1), (5, 2), (9, 3)])
def test_shape_matrix(alpha: int, beta_inv: int, kernel: int, ratio: int) -> None:
    model = models.create_model(
        "slowfast_r18",
        num_classes=3,
        width=8,
        alpha=alpha,
        beta_inv=beta_inv,
        fusion_kernel=kernel,
        fusion_ratio=ratio,
    )
    assert isinstance(model, SlowFast)
    fast = 8 // beta_inv
    laterals = [module for name, module in model.named_modules() if name.endswith(".conv") and "laterals" in name]
    assert [lateral.out_channels for lateral in laterals] == [fast * width * ratio for width in (1, 1, 2, 4)]
    assert model.num_features == (8 + fast) * 8
    for frames in (alpha, 2 * alpha, 3 * alpha):
        assert model(torch.randn(2, 3, frames, 16, 24)).shape == (2, 3)
    for frames in (alpha - 1, alpha + 1, 2 * alpha + 1):
        message = f"alpha = {alpha} does not divide frames = {frames}"
        with pytest.raises(models.InvalidClipError, match=re.escape(message)):
            model(torch.randn(2, 3, frames, 16, 24))


@pytest.mark.parametrize(("width", "beta_inv"), [(8, 16), (12, 8), (64, 7), (4, 8)])
def test_width_that_beta_does_not_divide_is_refused(width: int, beta_inv: int) -> None:
    with pytest.raises(models.InvalidModelError, match="does not divide width"):
        models.create_model("slowfast_r18", num_classes=2, width=width, beta_inv=beta_inv)


def test_bare_laterals_and_bare_head() -> None:
    model = models.create_model("slowfast_r18", num_classes=3, width=8, lateral_norm=False, head_bias=False)
    assert {key for key in model.state_dict() if key.startswith("laterals")} == {
        f"laterals.{index}.conv.weight" for index in range(4)
    }
    assert model.get_classifier().bias is None
    model.reset_classifier(5)
    assert model.get_classifier().bias is None
    assert model(torch.randn(2, 3, 8, 16, 16)).shape == (2, 5)


def test_zero_init_starts_residual_branches_at_zero() -> None:
    model = models.create_model("slowfast_r50_4x16", num_classes=2, width=8)
    scales = {k: v for k, v in model.state_dict().items() if k.endswith("norm_c.weight")}
    assert len(scales) == 2 * 16
    assert all(not scale.any() for scale in scales.values())
    model = models.create_model("slowfast_r50_4x16", num_classes=2, width=8, zero_init=False)
    assert all((model.state_dict()[key] == 1).all() for key in scales)


def test_both_paths_and_every_lateral_reach_the_logits() -> None:
    model = models.create_model("slowfast_r18", num_classes=2, width=8)
    randomise(model, seed=5)
    model.eval()
    clip = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(clip)
        seen_by_fast_only = clip.clone()
        seen_by_fast_only[:, :, 7] += 1  # The slow path takes frames 0 and 15.
        assert not torch.equal(before, model(seen_by_fast_only))
        norms = {f"laterals.{index}.norm" for index in range(4)}
        for bias in [module.bias for name, module in model.named_modules() if name in norms]:
            assert isinstance(bias, nn.Parameter)
            kept = bias.clone()
            bias.add_(1)
            assert not torch.equal(before, model(clip))
            bias.copy_(kept)
        assert torch.equal(before, model(clip))
