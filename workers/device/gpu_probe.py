"""What a short-lived process reports about a GPU: what it is, whether this PyTorch has kernels for it, and whether its
3-D convolutions are right.

Mixed-precision 3-D convolution has had wrong results in released versions (pytorch#163539: bf16 with cuDNN 9.10.2), so
its results are compared with float64 on the CPU.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional as F

FP32_TOLERANCE = 5e-3
"""Relative error that TF32 convolutions stay well below."""
BF16_TOLERANCE = 3e-2
"""bf16 has 8 bits: about 4e-3 per rounding."""
FP16_TOLERANCE = 5e-3
"""fp16 has 11 bits: about 5e-4 per rounding."""
_FP16_CAPABILITY: Final = (7, 0)
"""The first GPUs that multiply matrices in fp16 faster than in float32."""
_GRADIENT_SCALE: Final = 256.0
"""Keeps the gradients of a mean within what fp16 holds with all its bits."""
TOO_OLD: Final = "is too old for"
"""A driver that is, is so for every GPU of the machine."""
_NO_MEMORY: Final = "out of memory"
_ARCHITECTURE: Final = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
_DRIVER: Final = re.compile(r"found version (\d+)")
"""The newest CUDA that a driver supports, as 1000 * major + 10 * minor."""
_CLIPS_AND_KERNELS = (((2, 3, 8, 32, 32), (16, 3, 1, 7, 7)), ((2, 32, 4, 16, 16), (32, 32, 3, 3, 3)))


def main() -> None:
    """Print one line of JSON: all GPUs that PyTorch sees after `list`, else a report on the first one."""
    print(json.dumps(_gpus() if sys.argv[1:] == ["list"] else _report()))


def _gpus() -> dict[str, object]:
    problem = _driver_problem()
    indices = range(torch.cuda.device_count()) if problem is None else ()
    return {"problem": problem, "gpus": [_facts(torch.device("cuda", index)) for index in indices]}


def _report() -> dict[str, object]:
    """Return what `_checked` does; of a GPU whose memory is full, that it `is_full` and was not checked."""
    try:
        found = _checked()
    except RuntimeError as error:
        if _NO_MEMORY not in str(error).lower():
            raise
        found = {"problem": f"PyTorch cannot use it ({str(error).splitlines()[0]})", "name_others": True}
    problem = str(found["problem"])
    if _NO_MEMORY not in problem.lower():
        return found
    return {**found, "problem": f"{problem}: end what holds its memory, see nvidia-smi", "is_full": True}


def _checked() -> dict[str, object]:
    problem = _driver_problem()
    if problem is not None:
        return {"problem": problem, "name_others": TOO_OLD not in problem}
    device = torch.device("cuda", 0)
    facts = _facts(device)
    if facts["problem"] is not None:
        return facts
    properties = torch.cuda.get_device_properties(device)
    has_fp16 = (properties.major, properties.minor) >= _FP16_CAPABILITY
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        **facts,
        "has_bf16": has_bf16,
        "fp32_right": convolution_error(device, torch.float32) < FP32_TOLERANCE,
        "bf16_right": has_bf16 and convolution_error(device, torch.bfloat16) < BF16_TOLERANCE,
        "fp16_right": has_fp16 and convolution_error(device, torch.float16) < FP16_TOLERANCE,
    }


def _driver_problem() -> str | None:
    """Return why PyTorch cannot use any GPU, in words for a person; None if it can."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no reason is given"])[0]
    else:
        return None
    if "driver on your system is too old" in reason:
        found = _DRIVER.search(reason)
        supports = f", which supports CUDA up to {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}," if found else ""
        return (
            f"the NVIDIA driver{supports} {TOO_OLD} PyTorch {torch.__version__} with CUDA {torch.version.cuda}: "
            "update the driver, or install a PyTorch for an older CUDA"
        )
    return f"PyTorch cannot use it ({reason})"


def _facts(device: torch.device) -> dict[str, object]:
    properties = torch.cuda.get_device_properties(device)
    capability = properties.major, properties.minor
    built_for = torch.cuda.get_arch_list()
    problem = None
    if not has_kernels(capability, built_for):
        problem = (
            f"PyTorch {torch.__version__} has no kernels for the {properties.name} "
            f"(sm_{capability[0]}{capability[1]}), only for {', '.join(built_for)}: install a PyTorch that has them"
        )
    return {
        "problem": problem,
        "name_others": True,
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "uuid": gpu_uuid(device),
    }


def gpu_uuid(device: torch.device | int) -> str:
    """Return the UUID of a GPU as nvidia-smi shows it: `GPU-` and 32 digits."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Return whether a PyTorch `built_for` architectures runs on a GPU of a compute capability.

    Binary code (`sm_86`) runs on its own major version from its minor version on, and PTX (`compute_90`) on every later
    GPU; with the suffix `a` (`sm_90a`) either runs on exactly that GPU, with `f` on its own major version. Source: CUDA
    C++ Programming Guide, "Compute Capabilities".
    """
    for name in built_for:
        found = _ARCHITECTURE.fullmatch(name)
        if found is None:
            continue
        target = int(found[2]), int(found[3])
        match found[1], found[4]:
            case _, "a":
                runs = capability == target
            case "compute", "":
                runs = capability >= target
            case _:
                runs = capability[0] == target[0] and capability[1] >= target[1]
        if runs:
            return True
    return False


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
    loss = output.square().mean()
    gradients = torch.autograd.grad(loss, (clip, weight), grad_outputs=torch.full_like(loss, _GRADIENT_SCALE))
    return output.detach(), *gradients
