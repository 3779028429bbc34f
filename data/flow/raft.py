"""Optical flow by RAFT (Teed and Deng, ECCV 2020) on a GPU, with weights that the user provides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..errors import FlowError
from .method import widened

if TYPE_CHECKING:
    from ..arrays import ByteArray, FloatArray
    from .method import FlowMethod

_MIN_SIDE = 128
"""Smaller frames are padded, because the network compares features at four scales from one eighth on."""
_UPDATES = 12
_lock = Lock()


@cache
def raft_method(weights: Path) -> FlowMethod:
    """Return RAFT, large or small depending on the weights, on the first GPU; several threads may share it.

    Raises:
        FlowError: the weights are not RAFT's, or there is no GPU.
    """
    if not torch.cuda.is_available():
        raise FlowError("raft needs a GPU that torch can use, and there is none; choose dis, which is made for CPUs")
    return on_device(load_raft(weights), torch.device("cuda"))


def load_raft(weights: Path) -> nn.Module:
    """Return the network with the weights of torchvision in a file.

    Raises:
        FlowError: the file cannot be read, or belongs to another network.
    """
    from torchvision.models.optical_flow import raft_large, raft_small

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, UnpicklingError) as error:
        reason = type(error).__name__  # torch's own message is a page long
        raise FlowError(f"{weights} cannot be read as weights of RAFT ({reason}); give another file") from error
    for make in (raft_large, raft_small):
        network: nn.Module = make(weights=None, progress=False)
        if isinstance(state, Mapping) and _fits(network, state):
            network.load_state_dict(dict(state))
            return network.eval()
    raise FlowError(f"{weights} holds the weights of another network; give torchvision's raft_large or raft_small")


def on_device(network: nn.Module, device: torch.device) -> FlowMethod:
    """Return a method that runs the network on `device`, one pair at a time."""
    network = network.to(device)

    def fields(first: ByteArray, second: ByteArray) -> FloatArray:
        height, width, _ = first.shape
        pair = np.stack([widened(frame, _MIN_SIDE, multiple=8) for frame in (first, second)])
        with _lock, torch.inference_mode():
            images = torch.from_numpy(pair).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            field = network(images[:1], images[1:], num_flow_updates=_UPDATES)[-1][0]
        cut: FloatArray = field[:, :height, :width].permute(1, 2, 0).cpu().numpy()
        return cut

    return fields


def _fits(network: nn.Module, state: Mapping[str, Any]) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(own[name].shape == state[name].shape for name in own)
