"""Which of the weights that a trial has kept a command means, and their scores side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Column, Table

from ..errors import SetupError
from ..settings import Settings
from .app import err, out
from .exported import checkpoint_of

if TYPE_CHECKING:
    from workers.checkpoints.snapshots import Snapshot

    from ..results.export import Export

LAST: Final = "last"
BEST: Final = "best"
ALL: Final = "all"
SnapshotOption = Annotated[
    str,
    typer.Option(
        "--snapshot", help="Weights of which epoch: last, best, a number, or all that were kept.", show_default=True
    ),
]
_COLUMNS: Final = {
    "top-1": "top1",
    "top-5": "top5",
    "single clips": "clip_top1",
    "mean over classes": "mean_class_accuracy",
    "mAP": "mean_average_precision",
}


def chosen_snapshots(file: Path, exported: Export, settings: Settings, wanted: str) -> list[Snapshot]:
    """Return the weights of an export's trial that are wanted, by epoch.

    Raises:
        SetupError: none of that kind were kept, or their folder is not on this machine.
        CheckpointError: the checkpoint of the export cannot be read.
    """
    from workers.checkpoints.snapshots import Snapshot, snapshots_of

    if wanted not in (LAST, BEST, ALL) and not (wanted.isascii() and wanted.isdigit()):
        raise SetupError(f"--snapshot {wanted} is none: write last, best, all or the number of an epoch")
    checkpoint = checkpoint_of(file, exported)
    if wanted == LAST:
        return [Snapshot(path=checkpoint, epoch=exported.epochs_done, is_last=True)]
    kept = snapshots_of(checkpoint, epochs_done=exported.epochs_done, roots=settings.checkpoint_roots)
    if wanted == ALL:
        if len(kept) == 1:
            err.print(f"no other weights of trial {exported.trial} were found below {_places(settings)}")
        return kept
    found = [one for one in kept if (one.is_best if wanted == BEST else one.epoch == int(wanted))]
    if not found:
        known = ", ".join(f"{one.name} ({one.epoch})" if one.is_best or one.is_last else one.name for one in kept)
        raise SetupError(
            f"there are no weights of {'the best epoch' if wanted == BEST else f'epoch {wanted}'} of trial "
            f"{exported.trial} of {exported.study}; there are: {known}. A study keeps others with `checkpoints` in the "
            f"folder of its worker, which is looked for in {_places(settings)} (HPO_CHECKPOINT_ROOTS names others)"
        )
    return found[-1:]


def _places(settings: Settings) -> str:
    return " or ".join(map(str, settings.checkpoint_roots))


def print_snapshots(scores: Sequence[tuple[Snapshot, Mapping[str, Any]]], *, word: str) -> None:
    """Print a row of measures for each snapshot, on items of the data set that are called `word`."""
    headings = ["epoch", "top-1", "95 % interval", *list(_COLUMNS)[1:]]
    table = Table("weights", *(Column(name, justify="right") for name in headings))
    for snapshot, score in scores:
        top1, *others = (f"{score[key]:.3f}" for key in _COLUMNS.values())
        interval = "{:.3f} to {:.3f}".format(*score["interval"])
        table.add_row(snapshot.name, str(snapshot.epoch), top1, interval, *others)
    out.print(table)
    last = scores[-1][1]
    out.print(
        f"on {last['videos']} validation {word}s of {last['sources']} sources, {last['clips']} clips x {last['crops']} "
        f"crops each; chance is {last['chance']:.3f}"
    )
