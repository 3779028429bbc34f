"""VideoMAE's transformer is that of the `transformers` library, to rounding, and takes clips of any size."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

import models
from models.architectures.video_vit import resized_positions, sine_positions

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

_RENAMED = [
    (r"^videomae\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^videomae\.encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.query\.bias", ".attn.q_bias"),
    (r"\.attention\.attention\.value\.bias", ".attn.v_bias"),
    (r"^classifier\.", "head."),
]


def oracle(frames: int, size: int) -> nn.Module:
    config = VideoMAEConfig(
        image_size=size,
        num_frames=frames,
        hidden_size=24,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=96,
        use_mean_pooling=True,
        num_labels=5,
        layer_norm_eps=1e-6,
    )
    net: nn.Module = VideoMAEForVideoClassification(config)
    # The authors' norm; the library keeps PyTorch's default here.
    net.get_submodule("fc_norm").eps = 1e-6  # type: ignore[assignment]  # modules hold any attribute
    return net


def ours_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the oracle under our names; queries, keys and values are one matrix here."""
    found = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"videomae\.encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.weight", name)
        if match is None:
            renamed = name
            for pattern, replacement in _RENAMED:
                renamed = re.sub(pattern, replacement, renamed)
            found[renamed] = tensor
        elif match[2] == "query":
            parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
            found[f"blocks.{match[1]}.attn.qkv.weight"] = torch.cat(parts)
    return found


def small(**options: Any) -> models.VideoModel:
    sizes: dict[str, Any] = {"width": 24, "head_width": 8, "table_frames": 4, "table_size": 48}
    return models.create_model("videomae_vit_s", num_classes=5, **{**sizes, **options})


def test_videomae_computes_the_same() -> None:
    theirs = oracle(4, 48)
    randomise(theirs, seed=1)
    ours = small(stochastic_depth=0.0)
    ours.load_state_dict(ours_of(theirs.state_dict()), strict=True)
    theirs.double()
    ours.double()
    clip = random_clip(2, 3, 4, 48, 48)
    logits, expected = ours(clip), theirs(clip.transpose(1, 2)).logits
    assert relative_gap(logits, expected) < TOLERANCE
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = ours_of({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert relative_gap(parameter.grad, gradients[name]) < TOLERANCE, name


def test_attention_without_its_fast_form_is_the_same() -> None:
    model = small().double().eval()
    attention = model.get_submodule("blocks.3.attn")
    randomise(attention, seed=2)
    nn.init.normal_(attention.get_parameter("q_bias"))
    x = random_clip(2, 6, 24)
    weights = attention.get_parameter("qkv.weight").view(3, 3, 8, 24)
    bias = [attention.get_parameter("q_bias"), torch.zeros(24).double(), attention.get_parameter("v_bias")]
    mixed = []
    for head in range(3):
        query, key, value = (x @ weights[part, head].T + bias[part].view(3, 8)[head].double() for part in range(3))
        mixed.append(F.softmax(query @ key.transpose(1, 2) / math.sqrt(8), dim=-1) @ value)
    projection = attention.get_submodule("proj")
    torch.testing.assert_close(attention(x), projection(torch.cat(mixed, -1)), rtol=1e-10, atol=1e-12)


def test_positions_of_other_clips_are_between_those_of_the_table() -> None:
    table = sine_positions(6, (2, 2, 2))
    assert table[0, 0, 1, 0, 1] == pytest.approx(math.sin(5))
    assert table[0, 3, 1, 1, 0] == pytest.approx(math.cos(6 / 10000 ** (2 / 6)))
    wider = resized_positions(table, (2, 2, 4))
    # Four places for two: the outer ones are those of the table, the inner ones a quarter of the way.
    torch.testing.assert_close(wider[..., 0], table[..., 0])
    torch.testing.assert_close(wider[..., 1], 0.75 * table[..., 0] + 0.25 * table[..., 1])
    model = small().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 9, 33, 70)).shape == (1, 5)


def test_drop_path_grows_over_the_blocks() -> None:
    model = small(stochastic_depth=0.22)
    rates = [model.get_submodule(f"blocks.{index}.drop_path").p for index in range(12)]
    assert rates == pytest.approx([0.02 * index for index in range(12)])


def test_the_table_is_no_part_of_a_file() -> None:
    assert not [name for name in small().state_dict() if "positions" in name]
