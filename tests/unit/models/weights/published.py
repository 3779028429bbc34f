"""Files with the names and shapes of networks of other programs, filled with numbers that are the same everywhere.

The lists are in ``names/``, one network each. A list starts with comments: ``source``, the program that was run to get
it; ``clip``, the shape of an input; ``logits``, what that program's own network returned in float64 for the filled
tensors and clip of this module. Then follow lines of a name and a shape, in which ``[0-2]`` or ``[1,3]`` stand for
several numbers and ``{norm}`` for the five tensors of a batch norm.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "names"
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A network of another program."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    comments: dict[str, str] = field(default_factory=dict)

    def state(self, *, is_off: bool = False) -> dict[str, Tensor]:
        """Return the filled tensors, in float32."""
        return {name: filled(name, shape, is_off=is_off) for name, shape in self.shapes.items()}

    def clip(self, *, is_off: bool = False) -> Tensor:
        """Return the clip (N, C, T, H, W) of the list, in float64."""
        shape = [int(size) for size in self.comments["clip"].split("x")]
        return waves(math.prod(shape), 0.7, is_off=is_off).reshape(shape)

    def logits(self) -> Tensor:
        """Return what the other program computed for the clip, (N, classes) in float64."""
        return torch.tensor([[float(value) for value in self.comments["logits"].split()]], dtype=torch.float64)


def read_published(name: str) -> Published:
    """Return the network of a list in ``names/``."""
    comments: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            comments[key.strip()] = value.strip()
            continue
        pattern, size = line.split()
        shape = () if size == "scalar" else tuple(int(part) for part in size.split("x"))
        for each in _expanded(pattern):
            if each.endswith("{norm}"):
                prefix = each.removesuffix("{norm}")
                shapes |= {prefix + part: shape for part in _NORM} | {f"{prefix}num_batches_tracked": ()}
            else:
                shapes[each] = shape
    return Published(name=name, shapes=shapes, comments=comments)


def filled(name: str, shape: tuple[int, ...], *, is_off: bool = False) -> Tensor:
    """Return a tensor for a name: scales and variances around one, means and biases around zero, kernels by fan-in."""
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(shape, dtype=torch.int64)
    step = 0.1 + sum(ord(letter) * (place % 7 + 1) for place, letter in enumerate(name)) % 997 / 500
    values = waves(math.prod(shape), step, is_off=is_off)
    if name.endswith(("running_var", "weight")) and len(shape) == 1:
        values = 1 + 0.4 * values
    elif len(shape) > 1:
        values = values * math.sqrt(3 / math.prod(shape[1:]))
    else:
        values = 0.2 * values
    return values.reshape(shape).float()


def waves(count: int, step: float, *, is_off: bool = False) -> Tensor:
    """Return `count` numbers from -1 to 1 without a visible pattern, in float64.

    The other programs computed with square roots of PyTorch. Some are off by one unit in the last place, not the
    same ones on every processor, which the sine of such large numbers shows in its 8th digit. With `is_off` all are.
    """
    places = np.arange(1, count + 1, dtype=np.float64)
    roots = np.sqrt(places)
    return torch.from_numpy(np.sin(places * (np.nextafter(roots, np.inf) if is_off else roots) * step))


def _expanded(pattern: str) -> list[str]:
    found = re.search(r"\[([\d,-]+)\]", pattern)
    if found is None:
        return [pattern]
    first, _, last = found[1].partition("-")
    numbers = range(int(first), int(last) + 1) if last else map(int, found[1].split(","))
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [name for number in numbers for name in _expanded(f"{before}{number}{after}")]
