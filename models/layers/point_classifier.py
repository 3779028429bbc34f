"""A linear classifier with the weight shape of a 1x1x1 convolution, as in published fully convolutional networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PointClassifier(nn.Linear):
    """A linear layer with a weight of shape (classes, features, 1, 1, 1)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, 1, 1, 1))
        nn.init.normal_(self.weight, std=0.01)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, in_features) to logits (N, out_features)."""
        return F.linear(x, self.weight.flatten(1), self.bias)
