"""MViT v2 that widens its channels in the MLP, as MaskFeat does, written a second time by plain functions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import models

from ..oracles import random_clip, randomise, relative_gap

State = dict[str, Tensor]
Size = tuple[int, int, int]

_WIDTH = 8
# Of 16 layers, the first of each further stage, which has twice the heads and a quarter of the places.
_STARTS = (1, 3, 14)


def test_network_widens_the_channels_after_the_last_layer_of_a_stage() -> None:
    options: dict[str, Any] = {"width": _WIDTH, "table_frames": 4, "table_size": 64}
    model = models.create_model("mvit_v2_s", num_classes=5, widen="mlp", **options)
    randomise(model, seed=3)
    model.double().eval()
    clip = random_clip(2, 3, 4, 64, 64)
    with torch.no_grad():
        assert relative_gap(model(clip), program(model.state_dict(), clip)) < 1e-10


def program(state: State, clip: Tensor) -> Tensor:
    """Return the logits (N, classes) of the network, in evaluation mode."""
    maps = F.conv3d(clip, state["conv_proj.weight"], state["conv_proj.bias"], (2, 4, 4), (1, 3, 3))
    size: Size = (maps.shape[2], maps.shape[3], maps.shape[4])
    token = state["pos_encoding.class_token"].expand(len(clip), 1, -1)
    x = torch.cat((token, maps.flatten(2).transpose(1, 2)), 1)
    heads, pooled = 1, 8
    for number in range(16):
        stride = 1
        if number in _STARTS:
            heads, pooled, stride = 2 * heads, pooled // 2, 2
        x, size = layer(state, f"blocks.{number}.", x, size, (heads, stride, pooled))
    token = norm(state, "norm", x)[:, 0]
    return linear(state, "head.1", token)


def layer(state: State, prefix: str, x: Tensor, size: Size, form: tuple[int, int, int]) -> tuple[Tensor, Size]:
    """Return the tokens after one layer of this many heads and these strides, and their new size."""
    _, stride, _ = form
    branch, smaller = attention(state, f"{prefix}attn.", norm(state, f"{prefix}norm1", x), size, form)
    if stride > 1:
        places = x[:, 1:].transpose(1, 2).unflatten(2, size)
        places = F.max_pool3d(places, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = torch.cat((x[:, :1], places.flatten(2).transpose(1, 2)), 1)
    x = x + branch
    normed = norm(state, f"{prefix}norm2", x)
    hidden = F.gelu(linear(state, f"{prefix}mlp.0", normed))
    wide = linear(state, f"{prefix}project", normed) if f"{prefix}project.weight" in state else x
    return wide + linear(state, f"{prefix}mlp.3", hidden), smaller


def attention(state: State, prefix: str, x: Tensor, size: Size, form: tuple[int, int, int]) -> tuple[Tensor, Size]:
    """Return what the tokens see, and the size of the pooled queries."""
    heads, stride, pooled = form
    parts = linear(state, f"{prefix}qkv", x).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    queries, new = convolved(state, f"{prefix}pool_q", parts[0], size, stride)
    keys, of_keys = convolved(state, f"{prefix}pool_k", parts[1], size, pooled)
    values, _ = convolved(state, f"{prefix}pool_v", parts[2], size, pooled)
    scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
    scores[:, :, 1:, 1:] += positions(state, prefix, queries[:, :, 1:], new, of_keys)
    seen = scores.softmax(-1) @ values
    seen[:, :, 1:] += queries[:, :, 1:]
    return linear(state, f"{prefix}project.0", seen.transpose(1, 2).flatten(2)), new


def positions(state: State, prefix: str, queries: Tensor, size: Size, of_keys: Size) -> Tensor:
    """Return (N, heads, queries, keys): products of each query with the entries of the distances to each key."""
    total = torch.zeros(())
    grid = queries.unflatten(2, size)
    for axis, name in enumerate("thw"):
        table, q, k = state[f"{prefix}rel_pos_{name}"], size[axis], of_keys[axis]
        unit = max(q, k)
        # Places of the coarser side are further apart.
        rows = [[i * unit // q - j * unit // k + (k - 1) * unit // k for j in range(k)] for i in range(q)]
        products = torch.einsum(f"nhxyzc,{'xyz'[axis]}kc->nhxyzk", grid, table[torch.tensor(rows)])
        shape = [1, 1, 1]
        shape[axis] = k
        total = total + products.unflatten(-1, shape)
    return total.flatten(5).flatten(2, 4)


def convolved(state: State, prefix: str, x: Tensor, size: Size, stride: int) -> tuple[Tensor, Size]:
    """Return the tokens (N, heads, P, C) after a convolution of each channel and a norm; the first is left alone."""
    n, heads, _, channels = x.shape
    maps = x[:, :, 1:].transpose(2, 3).unflatten(3, size).flatten(0, 1)
    maps = F.conv3d(maps, state[f"{prefix}.pool.weight"], None, (1, stride, stride), 1, groups=channels)
    new: Size = (maps.shape[2], maps.shape[3], maps.shape[4])
    places = maps.flatten(2).transpose(1, 2).unflatten(0, (n, heads))
    return norm(state, f"{prefix}.norm_act.0", torch.cat((x[:, :, :1], places), 2)), new


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """Return the tokens normalised over their channels."""
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """Return x after a linear layer."""
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
