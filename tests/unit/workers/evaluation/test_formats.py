"""Models for other programs say what ours say: every architecture at its smallest clip, by every format."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
import workers
from hpo.cli.model_check import smallest_clip
from hpo.errors import SetupError
from hpo.spec import TrainingConfig
from workers.errors import CheckpointError
from workers.evaluation import formats
from workers.evaluation.formats import FORMATS, TOLERANCE, Form, card_of, input_shapes, write_model
from workers.evaluation.model import TrainedModel
from workers.training.model import build_model
from workers.training.programs import _adaptive_average
from workers.training.reproducibility import Runtime

from ...models.tiny import _SMALL, _SPECIAL

QUICK = {
    "onnx": ("r3d_18",),
    "torch-export": ("slowfast_r18",),
    "safetensors": ("slowfast_r18", "tsm_resnet18", "r3d_18"),
}
"""In the normal suite; the others are slow."""
SLOWEST_SECONDS = 1800
"""For deep networks of attention, whose graphs ONNX's optimizer rewrites one node after another."""
SMALLEST_SIZE = 16
"""Of a study's clips; networks of windows take smaller ones."""
CPU = Runtime(device=torch.device("cpu"), threads=1)


def trained(name: str, **changes: Any) -> TrainedModel:
    """Return a small version of a model with random weights, for the smallest clip that it takes."""
    info = models.model_info(name)
    small = {key: value for key, value in {**_SMALL, **_SPECIAL.get(info.family, {})}.items() if key in info.defaults()}
    options = {f"model.{key}": value for key, value in small.items()}
    frames, size = smallest_clip(info, models.resolve_hparams(info, small))
    clip = {"clip.frames": frames, "clip.size": max(SMALLEST_SIZE, size), "clip.test_size": 0}
    config = TrainingConfig.from_flat({"model": name, **clip, **options, **changes})
    torch.manual_seed(0)
    return TrainedModel(
        module=build_model(config, num_classes=4).eval(),
        config=config,
        class_names=("Archery", "Biking", "Diving", "Juggling"),
        dataset_version="v1",
        most_clips=4,
        precision="fp32",
        runtime=CPU,
    )


def _all(form: str) -> list[Any]:
    names = [name for name in models.list_models() if name != "hf_video"]  # needs a library and a network of its own
    slow = [pytest.mark.slow, pytest.mark.timeout(SLOWEST_SECONDS)]
    return [name if name in QUICK[form] else pytest.param(name, marks=slow) for name in names]


@pytest.mark.parametrize(
    ("form", "name"),
    [
        pytest.param(form, *(one.values if hasattr(one, "values") else (one,)), marks=getattr(one, "marks", ()))
        for form in FORMATS
        for one in _all(form)
    ],
)
def test_every_model_says_the_same_in_every_format(form: str, name: str, tmp_path: Path) -> None:
    model = trained(name)
    written = write_model(model, form, tmp_path / f"model{FORMATS[form].suffix}")
    assert written.path.stat().st_size > 0
    assert written.difference <= TOLERANCE
    assert list(written.inputs) == list(input_shapes(model))


def test_the_program_runs_in_a_process_without_our_code(tmp_path: Path) -> None:
    model = trained("tsm_resnet18")
    write_model(model, "torch-export", tmp_path / "model.pt2")
    shape = next(iter(input_shapes(model).values()))
    clips = torch.randn(2, *shape, generator=torch.Generator().manual_seed(5))
    torch.save(clips, tmp_path / "clips.pt")
    ours = str(Path(workers.__file__).resolve().parents[1])
    code = (
        "import os, sys, torch\n"
        f"sys.path[:] = [path for path in sys.path if os.path.realpath(path) != {ours!r}]\n"
        "run = torch.export.load('model.pt2').module()\n"
        "torch.save(run(torch.load('clips.pt')), 'logits.pt')\n"
        "assert not any(name.split('.')[0] in ('models', 'workers', 'hpo') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=200)
    with torch.inference_mode():
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model.module(clips), rtol=1e-5, atol=1e-5)


def _wrong(_: Path, model: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    return lambda clips: model.module(*clips) + 0.01


@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 4, 4], [2, 3, 5]])
def test_adaptive_averages_are_those_of_pytorch(sizes: list[int]) -> None:
    maps = torch.randn(2, 3, 4, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.adaptive_avg_pool3d(maps, (sizes[0], sizes[1], sizes[2]))
    torch.testing.assert_close(_adaptive_average(maps, sizes), expected)


def test_a_file_that_says_something_else_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lying = Form(suffix=".x", write=lambda *arguments: arguments[2].touch() or None, read=_wrong)
    monkeypatch.setattr(formats, "FORMATS", {"lying": lying})
    with pytest.raises(CheckpointError, match=r"gives other logits, by .* nothing is written"):
        write_model(trained("r3d_18"), "lying", tmp_path / "model.x")
    assert list(tmp_path.iterdir()) == []


def _not_a_number(_: Path, model: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    return lambda clips: model.module(*clips) * (torch.nan if len(clips[0]) == 3 else 1.0)


def _one_class(_: Path, model: TrainedModel) -> Callable[[tuple[Tensor, ...]], Tensor]:
    return lambda clips: model.module(*clips)[:, :1]


@pytest.mark.parametrize("read", [_wrong, _not_a_number, _one_class])
def test_a_second_try_that_fails_leaves_the_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., Any]
) -> None:
    lying = Form(suffix=".x", write=lambda *arguments: arguments[2].touch() or None, read=read)
    monkeypatch.setattr(formats, "FORMATS", {"lying": lying})
    monkeypatch.setattr(formats, "_BATCHES", (2, 3))
    (tmp_path / "model.x").write_text("good")
    model = replace(trained("r3d_18"), module=_Constant())
    with pytest.raises(CheckpointError):
        write_model(model, "lying", tmp_path / "model.x")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.x", "good")]


class _Constant(nn.Module):
    """Says the same of every class, so that one may stand for all."""

    def forward(self, clip: Tensor) -> Tensor:
        return torch.ones(len(clip), 4)


class _Untraceable(nn.Module):
    """Looks at its values, which a traced program cannot."""

    def forward(self, clip: Tensor) -> Tensor:
        if float(clip.sum()) > 0:
            return clip.mean((2, 3, 4))
        return -clip.mean((2, 3, 4))


def test_a_model_that_cannot_be_traced_is_a_sentence(tmp_path: Path) -> None:
    model = replace(trained("r3d_18"), module=_Untraceable())
    with pytest.raises(CheckpointError, match="r3d_18 cannot be written as torch-export: ") as caught:
        write_model(model, "torch-export", tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_libraries_are_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'video-hpo\[onnx\]'"):
        write_model(trained("r3d_18"), "onnx", tmp_path / "model.onnx")


def test_the_card_says_how_to_use_the_model(tmp_path: Path) -> None:
    model = trained("slowfast_r18")
    written = write_model(model, "safetensors", tmp_path / "best.safetensors")
    about = {"study": "s", "trial": 7, "metrics": {"val_top1": 0.91}, "weights": ["k400.pth"], "epochs": 40}
    card = card_of(model, written, form="safetensors", about=about, short_side=128)
    shape = ", ".join(map(str, written.inputs["rgb"]))
    for words in (
        "slowfast_r18",
        "trial 7 of s",
        f"(N, {shape})",
        "k400.pth",
        "| val_top1 | 0.91 |",
        "3. Juggling",
        "short side is at most 128",
        "0.45, 0.45, 0.45",
        "video-classification",
    ):
        assert words in card
