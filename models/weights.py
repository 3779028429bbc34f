"""Load a model's parameters from a file, safely and completely."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .errors import WeightsError
from .video_model import VideoModel

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsReport:
    """What a weights file gave to a model."""

    loaded: tuple[str, ...]
    """Names of the tensors taken from the file, bit for bit where the dtype is the same."""
    reset: tuple[str, ...]
    """Names of the classifier's tensors, left as they were: the file has other classes."""


def load_weights(model: VideoModel, path: str | Path) -> WeightsReport:
    """Fill `model` with the state dict in `path`.

    A classifier of another number of classes is not taken: the model keeps its own. Anything else
    that is missing, left over or of another shape is a WeightsError that names it, and the model is
    left untouched.
    """
    state = _read(Path(path))
    own = model.state_dict()
    reset = _classifier_of_other_classes(state, own, prefix=f"{model.classifier_name}.")
    problems = _problems(state, own, ignore=reset)
    if problems:
        raise WeightsError(f"{path} does not fit {model.name}: {'; '.join(problems)}")
    taken = {name: tensor for name, tensor in state.items() if name not in reset}
    model.load_state_dict(taken, strict=False)
    return WeightsReport(loaded=tuple(taken), reset=tuple(sorted(reset & own.keys())))


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"the weights file {path} does not exist") from None
    except Exception as error:
        # A damaged file makes the unpickler fail in whatever way its bytes happen to lead to.
        raise WeightsError(
            f"{path} cannot be read as a state dict of tensors ({type(error).__name__}); "
            "save one with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no plain state dict (names to tensors)")
    return state


def _classifier_of_other_classes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, prefix: str) -> set[str]:
    """Return the names under `prefix` if the file's classifier differs in classes alone."""
    names = {name for name in own.keys() | state.keys() if name.startswith(prefix)}
    shared = names & own.keys() & state.keys()
    # The first axis counts classes; features that differ are a different body.
    same_features = all(state[name].shape[1:] == own[name].shape[1:] for name in shared)
    other_classes = any(state[name].shape[:1] != own[name].shape[:1] for name in shared)
    return names if same_features and other_classes else set()


def _problems(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, ignore: set[str]) -> list[str]:
    missing = own.keys() - state.keys() - ignore
    unexpected = state.keys() - own.keys() - ignore
    shapes = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys() - ignore)
        if state[name].shape != own[name].shape
    ]
    problems = []
    if missing:
        problems.append(f"missing {_listed(sorted(missing))}")
    if unexpected:
        problems.append(f"unexpected {_listed(sorted(unexpected))}")
    if shapes:
        problems.append(f"of another shape {_listed(shapes)}")
    return problems


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
