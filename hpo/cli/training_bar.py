"""The bar of `hpo train`: how far the preparation, the epoch and the whole run are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import progress as bars

from ..activity import measured, step_of, time_left
from ..plain_text import plain
from .app import err, out

if TYPE_CHECKING:
    from workers.process.messages import EpochDone, Event

    from ..protocol import Progress


@contextmanager
def training_bar(*, with_validation: bool = True) -> Iterator[Callable[[Event], None]]:
    """Show a bar on standard error, and yield the function that takes the events of a training process.

    Epochs are printed to standard output, notes to standard error, both above the bar. Without a terminal there is no
    bar.

    Args:
        with_validation: whether the scores of validations are shown, which say nothing of videos that are trained on.
    """
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rest]}", markup=False),
    )
    with bars.Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield _Shown(bar, with_validation=with_validation).take


class _Shown:
    """What the bar shows of one training."""

    def __init__(self, bar: bars.Progress, *, with_validation: bool) -> None:
        self._bar = bar
        self._metrics = ("train_loss", *(("val_loss", "val_top1") if with_validation else ()))
        self._task = bar.add_task("starting", total=None, rest="")
        # What is printed past the bar would tear it.
        self._out = bar.console if out.is_terminal else out

    def take(self, event: Event) -> None:
        """Show an event."""
        from workers.lease.log_lines import progress_of
        from workers.process.messages import Alive, EpochDone, Note

        match event:
            case Note():
                self._bar.console.print(event.text, markup=False)
            case EpochDone():
                self._out.print(_epoch(event, self._metrics), markup=False)
            case Alive() if event.progress is not None:
                self._show(progress_of(event.progress))

    def _show(self, progress: Progress) -> None:
        if progress.stage == "preparing":
            title = f"data set: {step_of(progress)}"
        else:
            title = f"epoch {progress.epoch}/{progress.epochs}{' validation' * (progress.stage == 'validation')}"
        rest = ", ".join(filter(None, (measured(progress), time_left(progress))))
        self._bar.update(self._task, description=plain(title), completed=progress.done, total=progress.total, rest=rest)


def _epoch(done: EpochDone, names: Sequence[str]) -> str:
    metrics = done.measurement.metrics
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in names if name in metrics)
    return f"epoch {done.measurement.step}: {shown} ({done.measurement.wall_seconds:.1f} s)"
