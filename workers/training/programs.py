"""Write a model as a program that other software runs: traced by `torch.export`, or as ONNX from that."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from hpo.errors import SetupError

_NEEDED: Final = ("onnx", "onnxruntime", "onnxscript")
_OPSET: Final = 18


def require_onnx(what: str = "writing ONNX") -> None:
    """Check that the libraries are there that write and run ONNX.

    Raises:
        SetupError: one is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f"{what} needs {' and '.join(missing)}: install them with `pip install 'video-hpo[onnx]'`")


def random_arguments(shapes: Mapping[str, tuple[int, ...]], count: int, *, seed: int = 0) -> tuple[Any, ...]:
    """Return the arguments of a forward pass of `count` random clips: one tensor, or a pair of them.

    Args:
        shapes: of each input of one clip, (C, T, H, W), or of an image, (C, H, W).
    """
    draws = torch.Generator().manual_seed(seed)
    clips = tuple(torch.randn(count, *shape, generator=draws) for shape in shapes.values())
    return clips if len(clips) == 1 else (clips,)


def traced(module: nn.Module, arguments: tuple[Any, ...], *, any_batch: bool) -> torch.export.ExportedProgram:
    """Return the program of a module, for any number of clips or for that of `arguments`."""
    shapes = _batch_shapes(arguments) if any_batch else None
    return torch.export.export(module, arguments, dynamic_shapes=shapes)


def _batch_shapes(arguments: tuple[Any, ...]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=1024)
    return tuple({0: batch} if isinstance(one, Tensor) else tuple({0: batch} for _ in one) for one in arguments)


def write_onnx(module: nn.Module, arguments: tuple[Any, ...], path: Path, any_batch: bool) -> None:
    """Write a module on the CPU as ONNX, with the input `clips` or `images`, or `rgb` and `flow`."""
    names = ["rgb", "flow"]
    if isinstance(arguments[0], Tensor):
        names = ["images" if arguments[0].ndim == 4 else "clips"]
    table = torch.export.default_decompositions()
    table[torch.ops.aten._adaptive_avg_pool3d.default] = _adaptive_average
    torch.onnx.export(
        traced(module, arguments, any_batch=any_batch).run_decompositions(table),
        (),
        path,
        dynamo=True,
        opset_version=_OPSET,
        input_names=names,
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )


def _adaptive_average(maps: Tensor, sizes: list[int]) -> Tensor:
    """Return adaptive average pooling of (N, C, T, H, W) as slices and means, which ONNX has."""
    for axis, size in enumerate(sizes, start=2):
        length = maps.shape[axis]
        bounds = [(place * length // size, -(-(place + 1) * length // size)) for place in range(size)]
        parts = [maps.narrow(axis, low, high - low).mean(axis, keepdim=True) for low, high in bounds]
        maps = torch.cat(parts, axis)
    return maps


class OnnxProgram:
    """A file of :func:`write_onnx`, ready to run on a device where its clips are."""

    def __init__(self, path: Path, *, device: torch.device, threads: int | None = None) -> None:
        """Read the file.

        Args:
            threads: of the CPU; None for as many as ONNX Runtime chooses.

        Raises:
            SetupError: this ONNX Runtime cannot use the GPU.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._device = device
        self._session = onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
        self._names = [entry.name for entry in self._session.get_inputs()]

    def __call__(self, clips: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (N, classes) of float32 clips (N, C, T, H, W), one tensor for each input."""
        binding = self._session.io_binding()
        place = (self._device.type, self._device.index or 0)
        held = [clip.contiguous() for clip in clips]
        for name, clip in zip(self._names, held, strict=True):
            binding.bind_input(name, *place, np.float32, tuple(clip.shape), clip.data_ptr())
        binding.bind_output("logits", *place)
        self._session.run_with_iobinding(binding)
        return torch.from_numpy(binding.copy_outputs_to_cpu()[0])


def _providers(device: torch.device) -> list[Any]:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    require_onnx_on(device)
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]


def require_onnx_on(device: torch.device) -> None:
    """Check that ONNX can be written here, and run on a device.

    Raises:
        SetupError: a library is missing, or has no part for a GPU.
    """
    require_onnx("a metric of the model as ONNX")
    import onnxruntime

    if device.type != "cpu" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise SetupError(
            "a metric of the model as ONNX is measured on the device of the worker, and this onnxruntime is one for "
            "CPUs: install onnxruntime-gpu in its place, or train on a CPU"
        )


def reason(error: BaseException) -> str:
    """Return the first line of what the deepest cause says: those above it are advice to programmers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep the remarks of exporters on their own work from a person."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
