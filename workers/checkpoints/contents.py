"""What a checkpoint holds, and reading it back without running code from it (`weights_only=True`).

A resume point holds the whole state of a run (model, optimizer, random states, position, partial sums, curve); the
final file holds the weights and what is needed to use them. Both carry the configuration.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpo.spec import TrainingConfig

from ..errors import CheckpointError
from .folder import Writable, Writer, verify

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a checkpoint and a run must have in common before the run continues from it."""

    config: TrainingConfig
    epochs: int
    """Planned length of the run: the schedule depends on it."""
    dataset_version: str
    class_names: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that the training started from, by its source."""
    refit: bool = False
    """Whether the validation videos train as well."""

    def to_state(self) -> dict[str, Any]:
        """Return it as plain values, without weights and `refit` where there are none: earlier releases knew none."""
        weights = {"weights": dict(self.weights)} if self.weights else {}
        refit = {"refit": True} if self.refit else {}
        return {
            **weights,
            **refit,
            "format": FORMAT,
            "config": self.config.to_flat(),
            "epochs": self.epochs,
            "dataset_version": self.dataset_version,
            "class_names": list(self.class_names),
        }

    def problem_with(self, state: Mapping[str, Any]) -> str | None:
        """Return why a run cannot continue from `state`; None if it can."""
        if bool(state.get("refit")) != self.refit:
            return "it is not of a refit" if self.refit else "it is of a refit, which sees the validation videos"
        for key, mine in self.to_state().items():
            if state.get(key) != mine:
                other = "from other weights" if key == "weights" else f"with another {key.replace('_', ' ')}"
                return f"it was made {other}"
        return None


def writer(state: Mapping[str, Any]) -> Writer:
    """Return the function that writes `state` into a :class:`~workers.checkpoints.folder.TrialFolder`."""

    def write(file: Writable) -> None:
        torch.save(dict(state), file)  # type: ignore[arg-type] # it uses `write` and `flush` only

    return write


def load(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, in main memory, whichever device it was made on.

    Raises:
        CheckpointError: it cannot be read, is damaged, or is not one of ours.
    """
    verify(path)
    if _is_packed(path):
        raise CheckpointError(f"the checkpoint {path} holds more than its size: it was not written by video-hpo")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that nobody of us wrote can make PyTorch fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "PytorchStreamReader" in reason:  # which advises programmers at length
            reason = "it is cut off or damaged, or no file of PyTorch"
        raise CheckpointError(f"the checkpoint {path} cannot be read ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of video-hpo")
    return state


def _is_packed(path: Path) -> bool:
    """Return whether a file says that it holds more bytes than it has: a small one could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # whether it can be read at all, PyTorch says


def newest_usable(paths: Iterable[Path], identity: Identity) -> tuple[Path, dict[str, Any]] | None:
    """Return the first of `paths` that is whole and belongs to this run, and its content.

    The log says why others are skipped.
    """
    for path in paths:
        try:
            state = load(path)
        except CheckpointError as error:
            _log.warning("%s; trying an older one", error)
            continue
        problem = identity.problem_with(state)
        if problem is None:
            return path, state
        _log.warning("the checkpoint %s is skipped: %s", path, problem)
    return None
