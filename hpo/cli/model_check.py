"""`hpo models check`: whether a model, such as one of your own, does everything that a trial asks of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .. import errors
from ..plain_text import plain
from .app import one_sentence_errors, out
from .models import group

if TYPE_CHECKING:
    from torch import Tensor

    from models import ModelInfo, Value, VideoModel

_CLASSES = 5
_CLIPS = 2


@group.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of the model.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", help="An option of the model, as NAME=VALUE; may be repeated.", show_default=False
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of the clip; default: the fewest.", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side of the clip; default: the fewest.", min=1)] = None,
) -> None:
    """Build a model and run it forward, backward, through a step, an export and a reload, on its smallest clip."""
    from models import ModelError, model_info, resolve_hparams

    with one_sentence_errors(ModelError):
        info = model_info(name)
        values = resolve_hparams(info, parsed_options(options or []))
        least_frames, least_size = smallest_clip(info, values)
    run = _Run(info, values, frames=frames or least_frames, size=size or least_size)
    table = Table("check", "result", title=f"{name} on {_CLIPS} clips of {run.frames} frames, {run.size} pixels")
    failed = None
    for title, step in run.steps():
        if failed is not None:
            table.add_row(title, "not run")
            continue
        try:
            table.add_row(title, f"passed: {step()}")
        except Exception as error:  # whatever a model of someone else raises is the result of the check
            failed = title
            table.add_row(title, Text.assemble(("failed", "red"), plain(f": {type(error).__name__}: {error}")))
    out.print(table)
    if failed is not None:
        raise errors.HpoError(f"{name} does not pass {failed!r}")


def smallest_clip(info: ModelInfo, values: Mapping[str, Value]) -> tuple[int, int]:
    """Return the fewest frames and pixels that a model takes with these options.

    Raises InvalidClipError if it takes no clip that is as long as its default one or shorter.
    """
    from models import InvalidClipError
    from models.catalogue import check_clip_of

    if set(info.clip_options) == {"frames", "size"}:
        return int(values["frames"]), int(values["size"])
    for frames in range(info.min_frames, info.clip.frames + 1):
        try:
            check_clip_of(info, values, frames=frames, size=info.min_size)
        except InvalidClipError:
            continue
        return frames, info.min_size
    check_clip_of(info, values, frames=info.clip.frames, size=info.min_size)
    return info.clip.frames, info.min_size


def parsed_options(options: list[str]) -> dict[str, object]:
    import yaml

    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise errors.HpoError(f"--option {option} must be NAME=VALUE, such as width=32")
        found[key] = yaml.safe_load(value)
    return found


class _Run:
    """The checks of one model, each of which stands on those before it."""

    def __init__(self, info: ModelInfo, values: Mapping[str, Value], *, frames: int, size: int) -> None:
        self.info = info
        self.values = values
        self.frames = frames
        self.size = size
        self._model: VideoModel | None = None
        self._loss: Tensor | None = None

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the checks in order: each returns what it found, or raises what is wrong."""
        return [
            ("build", self.build),
            ("forward", self.forward),
            ("backward", self.backward),
            ("step", self.step),
            ("export and reload", self.export),
        ]

    @property
    def model(self) -> VideoModel:
        """The model that was built."""
        assert self._model is not None  # noqa: S101 - building is the first check
        return self._model

    def clip(self) -> Any:
        """Return the same clips every time: one tensor, or one for each input of the model."""
        import torch

        channels = {"flow": int(self.values.get("flow_channels", 20))}
        generator = torch.Generator().manual_seed(0)
        clips = [
            torch.randn(_CLIPS, channels.get(kind, 3), self.frames, self.size, self.size, generator=generator)
            for kind in self.info.inputs
        ]
        return clips[0] if len(clips) == 1 else tuple(clips)

    def _new(self) -> VideoModel:
        from models import model_settings
        from models.video_model import build_model

        return build_model(model_settings(self.info.name, num_classes=_CLASSES, hparams=self.values))

    def build(self) -> str:
        """Build the model."""
        self._model = self._new()
        count = sum(parameter.numel() for parameter in self._model.parameters())
        return f"{count:,} parameters with {_CLASSES} classes"

    def forward(self) -> str:
        """Compute the loss and the logits."""
        import torch
        from torch.nn import functional as F

        targets = torch.arange(_CLIPS) % _CLASSES
        self._loss, logits = self.model.training_loss(self.clip(), targets, F.cross_entropy)
        if tuple(logits.shape) != (_CLIPS, _CLASSES):
            raise ValueError(f"the logits are {tuple(logits.shape)} and must be {(_CLIPS, _CLASSES)}")
        if not logits.isfinite().all():
            raise ValueError("not all logits are finite")
        return f"logits {tuple(logits.shape)}, loss {self._loss.item():.3f}"

    def backward(self) -> str:
        """Compute the gradients."""
        assert self._loss is not None  # noqa: S101 - the forward pass comes before
        self._loss.backward()
        named = dict(self.model.named_parameters())
        without = [key for key, parameter in named.items() if parameter.requires_grad and parameter.grad is None]
        if without:
            raise ValueError(f"no gradient reaches {', '.join(without[:3])}, which stops training on several GPUs")
        wrong = [
            key
            for key, parameter in named.items()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        if wrong:
            raise ValueError(f"the gradient of {', '.join(wrong[:3])} is not finite")
        return f"{len(named)} finite gradients"

    def step(self) -> str:
        """Take a step with the parameter groups of the model."""
        import torch

        groups = self.model.param_groups(weight_decay=1e-4, lr=1e-4)
        held = [id(parameter) for group in groups for parameter in group["params"]]
        if sorted(held) != sorted(id(parameter) for parameter in self.model.parameters()):
            raise ValueError("param_groups() does not hold every parameter exactly once")
        torch.optim.AdamW(groups).step()
        wrong = [key for key, parameter in self.model.named_parameters() if not parameter.isfinite().all()]
        if wrong:
            raise ValueError(f"{', '.join(wrong[:3])} is not finite after a step")
        return f"{len(groups)} groups of parameters"

    def export(self) -> str:
        """Write the final file, load it into a new model, and compare their logits."""
        import torch

        from models import load_weights
        from workers.checkpoints import contents
        from workers.checkpoints.folder import TrialFolder

        with tempfile.TemporaryDirectory() as folder:
            state = {"format": contents.FORMAT, "model": self.model.state_dict()}
            path = TrialFolder(Path(folder), attempt=1).write_final(contents.writer(state))
            contents.load(path)
            size = path.stat().st_size
            twin = self._new()
            load_weights(twin, path)
        with torch.no_grad():
            logits, again = self.model.eval()(self.clip()), twin.eval()(self.clip())
        if not torch.equal(logits, again):
            raise ValueError("the model that was loaded from the file gives other logits")
        return f"{size / 1e6:.1f} MB, the same logits"
