"""Write a trained model for other programs, read it back there, and compare what it says.

| format | file | read by |
| --- | --- | --- |
| `onnx` | `.onnx`, of opset 18 or later | ONNX Runtime, TensorRT, OpenVINO |
| `torch-export` | `.pt2` | `torch.export.load`, without our code; AOTInductor |
| `safetensors` | `.safetensors`, weights alone | safetensors, in any language |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import model_info

from ..errors import CheckpointError
from ..training import inputs
from ..training.inputs import clip_spec
from ..training.model import build_model
from ..training.programs import OnnxProgram, quiet_exporters, random_arguments, reason, require_onnx, traced, write_onnx
from .model import TrainedModel

TOLERANCE: Final = 1e-5
"""How far logits of the written model may be from those of ours, as a share of their largest value or of 1."""
_BATCHES: Final = (1, 3)
"""Batch sizes that are compared; the model is traced with another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file of a model for other programs."""

    path: Path
    inputs: dict[str, tuple[int, ...]]
    """Shape of each input of one clip, (C, T, H, W), or of an image, (C, H, W)."""
    any_batch: bool
    """Whether it takes any number of clips; else one at a time."""
    difference: float
    """The largest difference of its logits from ours, as a share of the largest logit or of 1."""

    @property
    def batch(self) -> str:
        """How many it takes at once, in words."""
        one = "image" if any(len(shape) == 3 for shape in self.inputs.values()) else "clip"
        return f"any number of {one}s" if self.any_batch else f"one {one} at a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One format."""

    suffix: str
    write: Callable[[nn.Module, tuple[Any, ...], Path, bool], None]
    """(module, example arguments, path, any batch)"""
    read: Callable[[Path, TrainedModel], Callable[[tuple[Tensor, ...]], Tensor]]


class _OfImages(nn.Module):
    """A model of clips for images (N, C, H, W), each of which is a clip of one frame."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        logits: Tensor = self.module(images.unsqueeze(2))
        return logits


def write_model(model: TrainedModel, form: str, path: Path, *, of_images: bool = False) -> Written:
    """Write a model that is on the CPU, read the file back and compare the logits of random clips.

    Args:
        of_images: whether a program takes images (N, C, H, W) in the place of clips of one frame. Weights alone have
            the names that they have in the model of clips.

    Raises:
        SetupError: a library is missing.
        CheckpointError: the model cannot be written so, or the file says something else than the model.
    """
    chosen = FORMATS[form]
    if form == "onnx":
        require_onnx()
    shapes = input_shapes(model)
    if of_images and form != "safetensors":
        model = replace(model, module=_OfImages(model.module))
        shapes = {name: (channels, *size) for name, (channels, _, *size) in shapes.items()}
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
        raise CheckpointError(f"{model.config.model} cannot be written as {form}: {reason(error)}") from error
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
    with quiet_exporters():
        form.write(model.module, random_arguments(shapes, 2 if any_batch else 1), path, any_batch)
        run = form.read(path, model)
        found = [_difference(model, run, shapes, count) for count in (_BATCHES if any_batch else (1,))]
    return Written(path=path, inputs=shapes, any_batch=any_batch, difference=float(np.max(found)))


def input_shapes(model: TrainedModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input of one clip, as the model is scored on."""
    return inputs.input_shapes(model.config)


def _difference(
    model: TrainedModel,
    run: Callable[[tuple[Tensor, ...]], Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    count: int,
) -> float:
    arguments = random_arguments(shapes, count, seed=count)
    with torch.inference_mode():
        expected = model.module(*arguments)
        found = run(arguments if isinstance(arguments[0], Tensor) else arguments[0])
    if found.shape != expected.shape:  # the subtraction would repeat what is missing
        raise CheckpointError(f"its logits are {tuple(found.shape)} and not {tuple(expected.shape)}")
    largest = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) / largest


def _write_program(module: nn.Module, arguments: tuple[Any, ...], path: Path, any_batch: bool) -> None:
    torch.export.save(traced(module, arguments, any_batch=any_batch), path)


def _read_program(path: Path, _: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    module = torch.export.load(path).module()
    return lambda clips: module(*clips) if len(clips) == 1 else module(clips)


def _read_onnx(path: Path, model: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    return OnnxProgram(path, device=model.runtime.device)


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
        "onnx": Form(suffix=".onnx", write=write_onnx, read=_read_onnx),
        "torch-export": Form(suffix=".pt2", write=_write_program, read=_read_program),
        "safetensors": Form(suffix=".safetensors", write=_write_tensors, read=_read_tensors),
    }
)


def preprocessing(model: TrainedModel, *, short_side: int, of_images: bool = False) -> str:
    """Return how pictures become the input, as a sentence per step."""
    clip = clip_spec(model.config).for_evaluation()
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (clip.mean, clip.std))
    frames = (
        f"{clip.frames} frames, {clip.stride} apart"
        if clip.sampling == "dense"
        else f"{clip.frames} frames, one from the middle of each of {clip.images} equal parts of the video"
    )
    whole, axes = (
        ("an image so that its", "(images, channels, height, width)")
        if of_images
        else ("frames so that their", "(clips, channels, frames, height, width)")
    )
    taken = "" if of_images else f" Take {frames}."
    return (
        f"Scale {whole} short side is at most {short_side}.{taken} Cut the centre square of "
        f"{clip.crop_fraction:.3g} of the short side and resize it to {clip.size} x {clip.size}, bilinear with "
        f"antialiasing. Divide by 255, subtract the mean ({mean}) and divide by the deviation ({std}) of each channel, "
        f"red first. Order the axes as {axes}."
    )


def card_of(model: TrainedModel, written: Written, *, form: str, about: Mapping[str, Any], short_side: int) -> str:
    """Return the model card, in Markdown with the front matter of Hugging Face."""
    info = model_info(model.config.model)
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    shapes = ", ".join(f"`{name}` (N, {', '.join(map(str, shape))})" for name, shape in written.inputs.items())
    is_rgb = list(written.inputs) == ["rgb"]
    of_images = is_rgb and len(written.inputs["rgb"]) == 3
    task = "image" if of_images else "video"
    steps = preprocessing(model, short_side=short_side, of_images=of_images)
    fields = {
        "name": model.config.model,
        "file": written.path.name,
        "form": form,
        "family": info.family,
        "millions": f"{parameters / 1e6:.2f}",
        "shapes": shapes,
        "batch": written.batch,
        "task": task,
        "inputs": "images" if of_images else "clips",
        "count": len(model.class_names),
        "steps": steps if is_rgb else "Flow is prepared by `hpo data prepare`.",
        "difference": f"{written.difference:.1e}",
        "origin": "; ".join(about["weights"]) or "random weights",
        "dataset": model.dataset_version,
        "metrics": "\n".join(f"| {name} | {value:.4g} |" for name, value in about["metrics"].items()),
        "measured": (_REFIT if model.refit or about.get("refit") else _HELD_OUT).format(task=task),
        "classes": "\n".join(f"{number}. {name}" for number, name in enumerate(model.class_names)),
        **{name: about[name] for name in ("study", "trial", "epochs")},
    }
    return _CARD.format_map(fields)


_HELD_OUT: Final = """Measured on validation {task}s,
whose sources are not in training; the configuration was chosen among others by such values:"""
_REFIT: Final = """These weights are
a refit: they were trained on the validation {task}s as well, so that no validation score of them says anything. These
values are of a training of the same configuration without these {task}s, which was chosen among others by them:"""
_CARD: Final = """---
pipeline_tag: {task}-classification
library_name: video-hpo
---
# {name}: trial {trial} of {study}

`{file}` ({form}) is {family}, {millions} million parameters, trained with video-hpo.

## Input and output

{shapes}, float32, {batch}. The output is (N, {count}): logits; softmax makes them probabilities.

{steps}

The logits differ from those of the trained model by at most {difference} of the largest (random {inputs}, on a CPU).

## Training

Started from {origin}, {epochs} epochs on the data set with the fingerprint `{dataset}`. {measured}

| metric | value |
| --- | --- |
{metrics}

## Classes

{classes}
"""
