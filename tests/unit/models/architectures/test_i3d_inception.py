"""I3D is TensorFlow's "SAME" padding applied to Inception-v1, written here a second time by plain functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import googlenet

import models
from models.architectures.i3d_inception import I3DInception, SamePad, average_as_published, same_padding

from ..oracles import random_clip, randomise, relative_gap
from ..tiny import tiny


@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 3))
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    positions = (size + before + after - kernel) // stride + 1
    assert positions == -(-size // stride)
    assert 0 <= after - before <= 1
    if before + after:
        # One zero less, and the last position would be lost.
        assert (size + before + after - 1 - kernel) // stride + 1 < positions


def test_padding_goes_to_the_axis_it_is_for() -> None:
    padded = SamePad((1, 3, 7), (1, 2, 2))(torch.ones(1, 1, 4, 8, 8))
    assert padded.shape == (1, 1, 4, 9, 13)
    assert padded[0, 0, 0].sum() == 64
    # What an odd total leaves over goes to the end.
    assert (padded[0, 0, 0, 0] != 0).sum() == 8
    assert not padded[0, 0, 0, -1].any()
    assert padded[0, 0, 0, 0].tolist() == [0.0] * 2 + [1.0] * 8 + [0.0] * 3


@pytest.mark.parametrize(("frames", "size"), [(16, 32), (9, 47)])
def test_network_is_the_figure_of_the_paper(frames: int, size: int) -> None:
    model = tiny("i3d_inception", width=16)
    randomise(model, seed=6)
    model.double().eval()
    clip = random_clip(2, 3, frames, size, size)
    with torch.no_grad():
        assert relative_gap(model(clip), figure_3(model.state_dict(), clip)) < 1e-10


def figure_3(state: dict[str, Tensor], clip: Tensor) -> Tensor:
    """Return I3D's logits in evaluation mode."""

    def pad(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        sides: list[int] = []
        for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
            sides = [total // 2, total - total // 2, *sides]
        return F.pad(x, sides)

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        k = weight.shape[2]
        x = F.conv3d(pad(x, (k, k, k), (stride,) * 3), weight, stride=stride)
        mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], eps=1e-3))

    def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return F.max_pool3d(pad(x, kernel, stride), kernel, stride)

    def mixed(x: Tensor, letter: str) -> Tensor:
        name = f"Mixed_{letter}"
        three = unit(unit(x, f"{name}.b1a"), f"{name}.b1b")
        five = unit(unit(x, f"{name}.b2a"), f"{name}.b2b")
        pooled = unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")
        return torch.cat([unit(x, f"{name}.b0"), three, five, pooled], 1)

    x = pool(unit(clip, "Conv3d_1a_7x7", stride=2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    x = pool(mixed(mixed(x, "3b"), "3c"), (3, 3, 3), (2, 2, 2))
    for letter in ("4b", "4c", "4d", "4e", "4f"):
        x = mixed(x, letter)
    x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "5b"), "5c")
    x = F.avg_pool3d(x, (min(x.shape[2], 2), x.shape[3], x.shape[4]), stride=1)
    return F.conv3d(x, state["logits.conv3d.weight"], state["logits.conv3d.bias"]).mean((2, 3, 4))


@pytest.mark.parametrize(
    "options", [{}, {"without_t_stride": True}, {"pooling": "avg"}], ids=["strided", "all_frames", "avg"]
)
def test_ibms_form_is_the_program_of_the_study(options: dict[str, Any]) -> None:
    model = tiny("i3d_ibm", width=16, **options)
    randomise(model, seed=6)
    model.double().eval()
    clip = random_clip(2, 3, 9, 47, 47)
    with torch.no_grad():
        assert relative_gap(model(clip), ibm_program(model, clip, **options)) < 1e-10


def ibm_program(
    model: models.VideoModel, clip: Tensor, *, without_t_stride: bool = False, pooling: str = "max"
) -> Tensor:
    """Return the logits that IBM's I3D computes of weights under its names, those of GoogLeNet."""
    ours, names = model.state_dict(), model.image_names()
    state = {theirs: ours[name] for name, theirs in names.items()}
    weight, bias = ours["logits.conv3d.weight"].flatten(1), ours["logits.conv3d.bias"]
    t = 1 if without_t_stride else 2
    pool = F.avg_pool3d if pooling == "avg" else F.max_pool3d

    def unit(x: Tensor, name: str, padding: int = 0, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        x = F.conv3d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        norm = [state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, norm[0], norm[1], norm[2], norm[3], eps=1e-3))

    def mixed(x: Tensor, letter: str) -> Tensor:
        name = f"inception{letter}"
        three = unit(unit(x, f"{name}.branch2.0"), f"{name}.branch2.1", 1)
        five = unit(unit(x, f"{name}.branch3.0"), f"{name}.branch3.1", 1)
        pooled = unit(F.max_pool3d(x, 3, 1, 1, ceil_mode=True), f"{name}.branch4.1")
        return torch.cat([unit(x, f"{name}.branch1"), three, five, pooled], 1)

    x = pool(unit(clip, "conv1", 3, (1, 2, 2)), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = unit(unit(x, "conv2"), "conv3", 1)
    for letters in (("3a", "3b"), ("4a", "4b", "4c", "4d", "4e"), ("5a", "5b")):
        x = pool(x, 3, (t, 2, 2), 1)
        for letter in letters:
            x = mixed(x, letter)
    return F.linear(x.mean((3, 4)).transpose(1, 2), weight, bias).mean(1)


@pytest.mark.parametrize("name", ["i3d_inception", "i3d_ibm", "s3d", "s3d_g", "s3d_ibm"])
def test_running_statistics_take_in_the_share_that_is_asked_for(name: str) -> None:
    for options, share in (({}, 0.1), ({"norm_momentum": 0.25}, 0.25)):
        model = tiny(name, **options)
        norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm3d))
        seen: list[Tensor] = []
        norm.register_forward_hook(lambda *call, seen=seen: seen.append(call[1][0]))
        with torch.no_grad():
            model(random_clip(2, 3, 8, 32, 32).float())
        assert isinstance(norm.running_mean, Tensor)
        torch.testing.assert_close(norm.running_mean, share * seen[0].mean((0, 2, 3, 4)))


def test_frames_at_the_ends_weigh_half() -> None:
    maps = torch.zeros(1, 1, 8, 7, 7)
    maps[:, :, 0] = 1
    assert average_as_published(maps).item() == pytest.approx(1 / 14)
    maps = torch.zeros(1, 1, 8, 7, 7)
    maps[:, :, 3] = 1
    assert average_as_published(maps).item() == pytest.approx(2 / 14)
    assert average_as_published(torch.ones(2, 3, 1, 4, 9)).tolist() == [[1.0] * 3] * 2


def test_flow_has_two_channels_and_the_papers_widths() -> None:
    model = models.create_model("i3d_inception", num_classes=101, in_channels=2)
    assert isinstance(model, I3DInception)
    assert model.get_parameter("Conv3d_1a_7x7.conv3d.weight").shape == (64, 2, 7, 7, 7)
    assert model.get_classifier().weight.shape == (101, 1024, 1, 1, 1)
    assert model.num_features == 1024


def test_all_but_the_classifier_comes_from_googlenet() -> None:
    image_net = googlenet(weights=None, aux_logits=False, init_weights=False, num_classes=3)
    randomise(image_net, seed=1)
    model = models.create_model("i3d_inception", num_classes=3)
    report = models.load_inflated(model, image_net.state_dict())
    assert report.reset == ("logits.conv3d.bias", "logits.conv3d.weight")
    assert set(report.loaded) == model.state_dict().keys() - set(report.reset)
    # One module by itself, in the middle of a clip that stands still.
    image = torch.randn(1, 480, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    ours = model.get_submodule("Mixed_4b").eval()(image.expand(-1, -1, 5, -1, -1))
    theirs = image_net.inception4a.eval()(image[:, :, 0])
    torch.testing.assert_close(ours[:, :, 2], theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours[:, :, 0], theirs, rtol=1e-2, atol=1e-2)
