"""The weights that a trial has kept: of its last epoch, of its best one, and of every n-th."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .folder import FileKind, content_digest, parse_name, run_in

_KINDS: Final = (FileKind.BEST, FileKind.NTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Weights of one trial."""

    path: Path
    epoch: int
    """Epochs done."""
    is_best: bool = False
    """Whether they are kept as those of the best epoch."""
    is_last: bool = False
    """Whether they are the result of the trial."""

    @property
    def name(self) -> str:
        """What people call it."""
        return "last" if self.is_last else "best" if self.is_best else f"epoch {self.epoch}"


def snapshots_of(checkpoint: Path, *, epochs_done: int, roots: Sequence[Path]) -> list[Snapshot]:
    """Return the weights that the trial of a checkpoint has kept, by epoch, the checkpoint itself last.

    They lie in the folder of the trial: the checkpoint's own, or the one below `roots` that has a file of the same
    content. A copy that `hpo export` wrote is known by its content alone.

    Args:
        epochs_done: how many epochs the checkpoint is of.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    last = Snapshot(path=checkpoint, epoch=epochs_done, is_last=True)
    return [*sorted(_kept(checkpoint, roots), key=lambda one: (one.epoch, one.is_best)), last]


def _kept(checkpoint: Path, roots: Sequence[Path]) -> Iterator[Snapshot]:
    found = _own(checkpoint, roots)
    if found is None:
        return
    run = run_in(found.name)
    for path in found.parent.iterdir():
        name = parse_name(path.name)
        if name is None or name.epoch is None or name.kind not in _KINDS or name.run != run:
            continue
        if path.is_file() and not path.is_symlink():
            yield Snapshot(path=path, epoch=name.epoch, is_best=name.kind is FileKind.BEST)


def _own(checkpoint: Path, roots: Sequence[Path]) -> Path | None:
    """Return the checkpoint in the folder of its trial; None where that folder is not on this machine."""
    if run_in(checkpoint.name) is not None:
        return checkpoint
    same = f"*/*/*-{content_digest(checkpoint)}.pt"
    paths = (path for root in roots for path in sorted(root.glob(same)))
    return next((path for path in paths if run_in(path.name) is not None and not path.is_symlink()), None)
