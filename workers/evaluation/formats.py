"""Write a trained model for other programs, read it back there, and compare what it says.

| format | file | read by |
| --- | --- | --- |
| `onnx` | `.onnx`, of opset 18 or later | ONNX Runtime, TensorRT, OpenVINO |
| `torch-export` | `.pt2` | `torch.export.load`, without our code; AOTInductor |
| `safetensors` | `.safetensors`, weights alone | safetensors, in any language |
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.errors import SetupError
from models import model_info

from ..errors import CheckpointError
from ..training import inputs
from ..training.inputs import clip_spec
from ..training.model import build_model
from .model import TrainedModel

TOLERANCE: Final = 1e-5
"""How far logits of the written model may be from those of ours, as a share of their largest value or of 1."""
_BATCHES: Final = (1, 3)
"""Batch sizes that are compared; the model is traced with another one."""
_NEEDED: Final = ("onnx", "onnxruntime", "onnxscript")
_OPSET: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file of a model for other programs."""

    path: Path
    inputs: dict[str, tuple[int, ...]]
    """Shape of each input of one clip, (C, T, H, W)."""
    any_batch: bool
    """Whether it takes any number of clips; else one at a time."""
    difference: float
    """The largest difference of its logits from ours, as a share of the largest logit or of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One format."""

    suffix: str
    write: Callable[[nn.Module, tuple[Any, ...], Path, bool], None]
    """(module, example arguments, path, any batch)"""
    read: Callable[[Path, TrainedModel], Callable[[tuple[Tensor, ...]], Tensor]]


def write_model(model: TrainedModel, form: str, path: Path) -> Written:
    """Write a model that is on the CPU, read the file back and compare the logits of random clips.

    Raises:
        SetupError: a library is missing.
        CheckpointError: the model cannot be written so, or the file says something else than the model.
    """
    chosen = FORMATS[form]
    _require_libraries(form)
    shapes = input_shapes(model)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # what was at `path` stays until this is right
    try:
        written = _compared(model, form, chosen, partial, shapes)
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return replace(written, path=path)


def _compared(model: TrainedModel, form: str, chosen: Form, path: Path, shapes: dict[str, tuple[int, ...]]) -> Written:
    try:
        written = _written(model, chosen, path, shapes)
    except Exception as error:  # tracing layers of anybody's can fail in any way
        raise CheckpointError(f"{model.config.model} cannot be written as {form}: {_reason(error)}") from error
    if not written.difference <= TOLERANCE:
        raise CheckpointError(
            f"{model.config.model} written as {form} gives other logits, by {written.difference:.1e} of the largest: "
            "nothing is written"
        )
    return written


def _written(model: TrainedModel, form: Form, path: Path, shapes: dict[str, tuple[int, ...]]) -> Written:
    """Return the file for any number of clips, or where that cannot be traced for one at a time."""
    try:
        return _try(model, form, path, shapes, any_batch=True)
    except Exception:  # the second try says what is wrong, if it is not the number of clips
        return _try(model, form, path, shapes, any_batch=False)


def _try(
    model: TrainedModel, form: Form, path: Path, shapes: dict[str, tuple[int, ...]], *, any_batch: bool
) -> Written:
    with _quietly():
        form.write(model.module, _arguments(shapes, 2 if any_batch else 1), path, any_batch)
        run = form.read(path, model)
        found = [_difference(model, run, shapes, count) for count in (_BATCHES if any_batch else (1,))]
    return Written(path=path, inputs=shapes, any_batch=any_batch, difference=float(np.max(found)))


def _reason(error: BaseException) -> str:
    """Return the first line of what the deepest cause says: those above it are advice to programmers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def input_shapes(model: TrainedModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input of one clip, as the model is scored on."""
    return inputs.input_shapes(model.config)


def _arguments(shapes: Mapping[str, tuple[int, ...]], count: int, *, seed: int = 0) -> tuple[Any, ...]:
    """Return the arguments of a forward pass: one tensor, or a pair of them."""
    draws = torch.Generator().manual_seed(seed)
    clips = tuple(torch.randn(count, *shape, generator=draws) for shape in shapes.values())
    return clips if len(clips) == 1 else (clips,)


def _difference(
    model: TrainedModel,
    run: Callable[[tuple[Tensor, ...]], Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    count: int,
) -> float:
    arguments = _arguments(shapes, count, seed=count)
    with torch.inference_mode():
        expected = model.module(*arguments)
        found = run(arguments if isinstance(arguments[0], Tensor) else arguments[0])
    if found.shape != expected.shape:  # the subtraction would repeat what is missing
        raise CheckpointError(f"its logits are {tuple(found.shape)} and not {tuple(expected.shape)}")
    largest = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) / largest


def _batch_shapes(arguments: tuple[Any, ...], any_batch: bool) -> Any:
    if not any_batch:
        return None
    batch = torch.export.Dim("batch", min=1, max=1024)
    return tuple({0: batch} if isinstance(one, Tensor) else tuple({0: batch} for _ in one) for one in arguments)


def _write_program(module: nn.Module, arguments: tuple[Any, ...], path: Path, any_batch: bool) -> None:
    program = torch.export.export(module, arguments, dynamic_shapes=_batch_shapes(arguments, any_batch))
    torch.export.save(program, path)


def _read_program(path: Path, _: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    module = torch.export.load(path).module()
    return lambda clips: module(*clips) if len(clips) == 1 else module(clips)


def _write_onnx(module: nn.Module, arguments: tuple[Any, ...], path: Path, any_batch: bool) -> None:
    names = ["clips"] if isinstance(arguments[0], Tensor) else ["rgb", "flow"]
    program = torch.export.export(module, arguments, dynamic_shapes=_batch_shapes(arguments, any_batch))
    table = torch.export.default_decompositions()
    table[torch.ops.aten._adaptive_avg_pool3d.default] = _adaptive_average
    torch.onnx.export(
        program.run_decompositions(table),
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


def _read_onnx(path: Path, _: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(clips: tuple[Tensor, ...]) -> Tensor:
        feed = {name: clip.numpy() for name, clip in zip(names, clips, strict=True)}
        return torch.from_numpy(session.run(["logits"], feed)[0])

    return run


def _write_tensors(module: nn.Module, _: tuple[Any, ...], path: Path, __: bool) -> None:
    # Tensors that share memory are refused, so each gets its own.
    save_file({name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}, path)


def _read_tensors(path: Path, model: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    twin = build_model(model.config, num_classes=len(model.class_names))
    twin.load_state_dict(load_file(path))
    twin.eval()
    return lambda clips: twin(*clips) if len(clips) == 1 else twin(clips)


FORMATS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "onnx": Form(suffix=".onnx", write=_write_onnx, read=_read_onnx),
        "torch-export": Form(suffix=".pt2", write=_write_program, read=_read_program),
        "safetensors": Form(suffix=".safetensors", write=_write_tensors, read=_read_tensors),
    }
)


def _require_libraries(form: str) -> None:
    missing = [name for name in _NEEDED if form == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"writing ONNX needs {' and '.join(missing)}: install them with `pip install 'video-hpo[onnx]'`"
        )


@contextmanager
def _quietly() -> Any:
    """Keep the remarks of exporters on their own work from a person."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def preprocessing(model: TrainedModel, *, short_side: int) -> str:
    """Return how pictures become the input, as a sentence per step."""
    clip = clip_spec(model.config).for_evaluation()
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (clip.mean, clip.std))
    frames = (
        f"{clip.frames} frames, {clip.stride} apart"
        if clip.sampling == "dense"
        else f"{clip.frames} frames, one from the middle of each of {clip.images} equal parts of the video"
    )
    return (
        f"Scale frames so that their short side is at most {short_side}. Take {frames}. Cut the centre square of "
        f"{clip.crop_fraction:.3g} of the short side and resize it to {clip.size} x {clip.size}, bilinear with "
        f"antialiasing. Divide by 255, subtract the mean ({mean}) and divide by the deviation ({std}) of each channel, "
        "red first. Order the axes as (clips, channels, frames, height, width)."
    )


def card_of(model: TrainedModel, written: Written, *, form: str, about: Mapping[str, Any], short_side: int) -> str:
    """Return the model card, in Markdown with the front matter of Hugging Face."""
    info = model_info(model.config.model)
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    shapes = ", ".join(f"`{name}` (N, {', '.join(map(str, shape))})" for name, shape in written.inputs.items())
    is_rgb = list(written.inputs) == ["rgb"]
    fields = {
        "name": model.config.model,
        "file": written.path.name,
        "form": form,
        "family": info.family,
        "millions": f"{parameters / 1e6:.2f}",
        "shapes": shapes,
        "batch": "any number of clips" if written.any_batch else "one clip at a time",
        "count": len(model.class_names),
        "steps": preprocessing(model, short_side=short_side) if is_rgb else "Flow is prepared by `hpo data prepare`.",
        "difference": f"{written.difference:.1e}",
        "origin": "; ".join(about["weights"]) or "random weights",
        "dataset": model.dataset_version,
        "metrics": "\n".join(f"| {name} | {value:.4g} |" for name, value in about["metrics"].items()),
        "measured": _REFIT if model.refit or about.get("refit") else _HELD_OUT,
        "classes": "\n".join(f"{number}. {name}" for number, name in enumerate(model.class_names)),
        **{name: about[name] for name in ("study", "trial", "epochs")},
    }
    return _CARD.format_map(fields)


_HELD_OUT: Final = """Measured on validation videos,
whose sources are not in training; the configuration was chosen among others by such values:"""
_REFIT: Final = """These weights are
a refit: they were trained on the validation videos as well, so that no validation score of them says anything. These
values are of a training of the same configuration without these videos, which was chosen among others by them:"""
_CARD: Final = """---
pipeline_tag: video-classification
library_name: video-hpo
---
# {name}: trial {trial} of {study}

`{file}` ({form}) is {family}, {millions} million parameters, trained with video-hpo.

## Input and output

{shapes}, float32, {batch}. The output is (N, {count}): logits; softmax makes them probabilities.

{steps}

The logits differ from those of the trained model by at most {difference} of the largest (random clips, on a CPU).

## Training

Started from {origin}, {epochs} epochs on the data set with the fingerprint `{dataset}`. {measured}

| metric | value |
| --- | --- |
{metrics}

## Classes

{classes}
"""
