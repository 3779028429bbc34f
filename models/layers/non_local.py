"""Non-local blocks: attention from every position of a clip to all of its frames, added to the maps.

Source: Wang et al., Non-local Neural Networks, CVPR 2018, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def attend(theta: Tensor, phi: Tensor, g: Tensor, kind: str) -> Tensor:
    """Return for each row of `theta` (N, P, C) a weighted sum (N, P, C) of the rows of `g` (N, Q, C).

    Weights come from the products with the rows of `phi` (N, Q, C): ``"gaussian"``, their softmax; ``"softmax"``, that
    of the products divided by the root of C; ``"dot_product"``, the products themselves divided by Q.
    """
    if kind == "dot_product":
        # The sum over positions first, since (P, Q) may be large.
        return theta @ (phi.transpose(1, 2) @ g) / phi.shape[1]
    scale = 1.0 if kind == "gaussian" else theta.shape[2] ** -0.5
    return F.scaled_dot_product_attention(theta, phi, g, scale=scale)


class NonLocal3d(nn.Module):
    """Attention over a clip with half the channels inside, added to its input. It starts as the identity.

    Keys and values are taken at every second position in height and width, by a maximum ``"before"`` their
    convolutions, or ``"after"`` them. See :func:`attend` for `kind`.
    """

    def __init__(self, channels: int, *, kind: str, pool: str) -> None:
        super().__init__()
        self.kind = kind
        self.pool = pool
        inner = max(channels // 2, 1)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to the same shape."""
        if self.pool == "before":
            small = _halved(x)
            phi, g = self.phi(small), self.g(small)
        else:
            phi, g = _halved(self.phi(x)), _halved(self.g(x))
        rows = [maps.flatten(2).transpose(1, 2) for maps in (self.theta(x), phi, g)]
        mixed = attend(rows[0], rows[1], rows[2], self.kind).transpose(1, 2)
        y: Tensor = x + self.norm(self.out(mixed.unflatten(2, x.shape[2:])))
        return y


def _halved(x: Tensor) -> Tensor:
    # The last row or column of an odd number is left out, as in the authors' programs; a single one stays.
    return F.max_pool3d(x, (1, min(x.shape[3], 2), min(x.shape[4], 2)))
