"""Parts that torchvision's S3D lacks: gates, other temporal convolutions, and the study's layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import models
from models.architectures.s3d import Gate

from ..oracles import random_clip, randomise, relative_gap
from ..tiny import clips, tiny


def test_gate_is_the_formula_of_the_paper() -> None:
    gate = Gate(6)
    randomise(gate, seed=1)
    gate.double()
    x = random_clip(2, 6, 3, 4, 5)
    average = x.sum((2, 3, 4)) / 60
    scale = 1 / (1 + torch.exp(-(average @ gate.weigh.weight.T + gate.weigh.bias)))
    assert relative_gap(gate(x), torch.einsum("ncthw,nc->ncthw", x, scale)) < 1e-12


@pytest.mark.parametrize(("gating", "gates"), [("none", 0), ("temporal", 20), ("branches", 37)])
def test_gates_stand_where_they_should(gating: str, gates: int) -> None:
    # 9 modules of two separable convolutions, a second convolution, and the stem; or 9 modules of four branches.
    model = tiny("s3d", gating=gating)
    assert sum(isinstance(module, Gate) for module in model.modules()) == gates
    assert models.model_info("s3d_g").defaults()["gating"] == "temporal"


def test_open_gates_leave_s3d() -> None:
    plain, gated = tiny("s3d").eval(), tiny("s3d_g").eval()
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".weigh." in name for name in missing)
    for module in gated.modules():
        if isinstance(module, Gate):
            nn.init.zeros_(module.weigh.weight)
            nn.init.constant_(module.weigh.bias, 40.0)
    with torch.no_grad():
        torch.testing.assert_close(gated(clips()), plain(clips()))


def test_depthwise_temporal_convolutions_see_one_channel_each() -> None:
    model = tiny("s3d", dw_t_conv=True)
    temporal = [
        module for module in model.modules() if isinstance(module, nn.Conv3d) and module.kernel_size[1:] == (1, 1)
    ]
    temporal = [module for module in temporal if module.kernel_size[0] > 1]
    assert len(temporal) == 20
    assert all(module.groups == module.in_channels == module.out_channels for module in temporal)


@pytest.mark.parametrize(
    ("name", "options", "positions"),
    [
        ("s3d", {}, 2),
        ("s3d", {"without_t_stride": True}, 15),
        ("s3d_ibm", {}, 2),
        ("s3d_ibm", {"without_t_stride": True, "pooling": "avg"}, 15),
        ("s3d_resnet18", {}, 2),
        ("s3d_resnet18", {"without_t_stride": True}, 16),
    ],
)
def test_time_is_halved_three_times_or_kept(name: str, options: dict[str, object], positions: int) -> None:
    model = tiny(name, **options).eval()
    shapes = []
    last = "layer4" if "resnet" in name else "features"
    model.get_submodule(last).register_forward_hook(lambda *call: shapes.append(call[2].shape))
    model(clips(frames=16))
    # Without strides the last pool, over 2 frames, loses one.
    assert shapes[0][2] == positions
    assert shapes[0][3:] == (1, 1)


def test_pooling_by_averages_is_another_network() -> None:
    largest = tiny("s3d_ibm").eval()
    average = tiny("s3d_ibm", pooling="avg").eval()
    average.load_state_dict(largest.state_dict(), strict=True)
    with torch.no_grad():
        assert not torch.allclose(largest(clips()), average(clips()))
