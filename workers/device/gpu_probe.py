"""What a short-lived process reports about a GPU: its name and memory, and whether its 3-D convolutions are right.

Mixed-precision 3-D convolution has had wrong results in released versions (pytorch#163539: bf16 with cuDNN 9.10.2), so
its results are compared with float64 on the CPU.
"""

from __future__ import annotations

import json
import sys

import torch
from torch.nn import functional as F

FP32_TOLERANCE = 5e-3
"""Relative error that TF32 convolutions stay well below."""
BF16_TOLERANCE = 3e-2
"""bf16 has 8 bits: about 4e-3 per rounding."""
_CLIPS_AND_KERNELS = (((2, 3, 8, 32, 32), (16, 3, 1, 7, 7)), ((2, 32, 4, 16, 16), (32, 32, 3, 3, 3)))


def main() -> None:
    """Print one line of JSON: the GPUs' names after `list`, else a report on the first GPU."""
    if sys.argv[1:] == ["list"]:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        print(json.dumps({"names": names}))
        return
    print(json.dumps(_report()))


def _report() -> dict[str, object]:
    if not torch.cuda.is_available():
        return {"problem": "PyTorch cannot use it"}
    device = torch.device("cuda", 0)
    properties = torch.cuda.get_device_properties(device)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "problem": None,
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "has_bf16": has_bf16,
        "fp32_right": convolution_error(device, torch.float32) < FP32_TOLERANCE,
        "bf16_right": has_bf16 and convolution_error(device, torch.bfloat16) < BF16_TOLERANCE,
    }


def convolution_error(device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest relative error of conv3d, forward and backward, against float64 on the CPU."""
    worst = 0.0
    for shape, kernel in _CLIPS_AND_KERNELS:
        generator = torch.Generator().manual_seed(0)
        clip = torch.randn(shape, generator=generator, dtype=torch.float64)
        weight = torch.randn(kernel, generator=generator, dtype=torch.float64)
        expected = _outputs(clip, weight)
        actual = _outputs(clip.to(device, dtype), weight.to(device, dtype))
        for right, found in zip(expected, actual, strict=True):
            error = (found.cpu().double() - right).norm() / right.norm()
            # NaN compares as false with everything; as infinity it is an error.
            worst = max(worst, float(error) if torch.isfinite(error) else float("inf"))
    return worst


def _outputs(clip: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    clip, weight = clip.requires_grad_(), weight.requires_grad_()
    padding = tuple(size // 2 for size in weight.shape[2:])
    output = F.conv3d(clip, weight, padding=padding)
    gradients = torch.autograd.grad(output.square().mean(), (clip, weight))
    return output.detach(), *gradients
