"""The parts of a vision transformer: attention, its feed-forward layer, and the residual block of both.

Sources: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021, section 3.1; Bao et al., BEiT, ICLR 2022, for
attention with biases of queries and values alone. Names of parameters are those of VideoMAE and timm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth


class Attention(nn.Module):
    """Attention of every position to all positions of a sequence (N, L, C), with several heads.

    With ``bias="qkv"``, queries, keys and values have biases; with ``"qv"``, only queries and values have. `dropout` is
    the probability of leaving out a weight of attention.
    """

    def __init__(self, channels: int, heads: int, *, bias: str = "qkv", dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = dropout
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias == "qkv")
        if bias == "qv":
            self.q_bias = nn.Parameter(torch.zeros(channels))
            self.v_bias = nn.Parameter(torch.zeros(channels))
        self.split_bias = bias == "qv"
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, C) to (N, L, C)."""
        bias: Tensor | None = self.qkv.bias
        if self.split_bias:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        count, length, channels = x.shape
        joint = F.linear(x, self.qkv.weight, bias).view(count, length, 3, self.heads, channels // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, length, channels))
        return y


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them; the first has `ratio` times the channels."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TransformerBlock(nn.Module):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``; training leaves out each branch with probability `drop`."""

    def __init__(
        self, channels: int, heads: int, *, bias: str = "qkv", drop: float = 0.0, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads, bias=bias, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels)
        self.drop_path = StochasticDepth(drop, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, C) to (N, L, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def drop_rates(last: float, depth: int) -> list[float]:
    """Return the probabilities of leaving out the branches of `depth` blocks, from 0 linearly to `last`."""
    return [last * index / max(depth - 1, 1) for index in range(depth)]


def init_linear(model: nn.Module) -> None:
    """Draw the weights of all linear layers from a normal distribution of deviation 0.02; biases are zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
