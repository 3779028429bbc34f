"""I3D is TensorFlow's "SAME" padding applied to Inception-v1, written here a second time by plain functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
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
