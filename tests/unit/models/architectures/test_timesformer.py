"""TimeSformer is that of the `transformers` library, to rounding, and starts as a network of images."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerForVideoClassification

import models

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

_RENAMED = [
    (r"^timesformer\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^timesformer\.embeddings\.cls_token", "cls_token"),
    (r"^timesformer\.embeddings\.position_embeddings", "pos_embed"),
    (r"^timesformer\.embeddings\.time_embeddings", "time_embed"),
    (r"^timesformer\.encoder\.layer\.", "blocks."),
    (r"^timesformer\.layernorm\.", "norm."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.temporal_dense\.", ".temporal_fc."),
    (r"\.temporal_attention\.(attention|output)\.", r".temporal_attn.\1."),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.temporal_attn\.attention\.qkv\.", ".temporal_attn.qkv."),
    (r"\.temporal_attn\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^classifier\.", "head."),
]


def ours_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the oracle under our names; the convolution of patches covers one frame here."""
    found = {}
    for name, tensor in state.items():
        renamed = name
        for pattern, replacement in _RENAMED:
            renamed = re.sub(pattern, replacement, renamed)
        found[renamed] = tensor.unsqueeze(2) if renamed == "patch_embed.proj.weight" else tensor
    return found


def small(**options: Any) -> models.VideoModel:
    sizes: dict[str, Any] = {"width": 24, "head_width": 8, "table_frames": 3, "table_size": 32, "stochastic_depth": 0.0}
    return models.create_model("timesformer_b", num_classes=5, **{**sizes, **options})


def oracle() -> nn.Module:
    config = TimesformerConfig(
        image_size=32,
        num_frames=3,
        hidden_size=24,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=96,
        drop_path_rate=0,
        num_labels=5,
    )
    net: nn.Module = TimesformerForVideoClassification(config)
    randomise(net, seed=1)
    return net


def test_timesformer_computes_the_same() -> None:
    theirs, ours = oracle(), small()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "embeddings" in name and "projection" not in name:
                parameter.normal_()
    ours.load_state_dict(ours_of(theirs.state_dict()), strict=True)
    theirs.double()
    ours.double()
    clip = random_clip(2, 3, 3, 32, 32)
    logits, expected = ours(clip), theirs(clip.transpose(1, 2)).logits
    assert relative_gap(logits, expected) < TOLERANCE
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = ours_of({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert relative_gap(parameter.grad, gradients[name]) < TOLERANCE, name


def test_positions_of_other_clips_are_the_nearest_of_the_table() -> None:
    theirs, ours = oracle(), small()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "embeddings" in name and "projection" not in name:
                parameter.normal_()
    ours.load_state_dict(ours_of(theirs.state_dict()), strict=True)
    # The library's blocks take clips of the configured size alone; its embeddings take any.
    clip = random_clip(2, 3, 5, 48, 80)
    expected = theirs.double().get_submodule("timesformer.embeddings")(clip.transpose(1, 2))
    seen: list[Tensor] = []
    ours.get_submodule("blocks.0").register_forward_pre_hook(lambda module, given: seen.extend(given))
    ours.double()(clip)
    token, patches = seen[0], seen[1]
    assert relative_gap(token, expected[:, :1]) < TOLERANCE
    assert relative_gap(patches.flatten(1, 2), expected[:, 1:]) < TOLERANCE


def test_at_the_start_the_order_of_frames_means_nothing() -> None:
    model = small().double().eval()
    clip = random_clip(2, 3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clip.flip(2)), model(clip), rtol=1e-10, atol=1e-12)
        nn.init.normal_(model.get_parameter("time_embed"))
        assert relative_gap(model(clip.flip(2)), model(clip)) > 1e-6


def test_layers_are_the_blocks() -> None:
    names = small().layer_names
    assert len(names) == 13
    assert names[0] == ("patch_embed", "cls_token", "pos_embed", "time_embed")
    assert names[12] == ("blocks.11",)
