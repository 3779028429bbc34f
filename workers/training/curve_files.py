"""The learning curve as files for other tools: JSON lines, and event files of TensorBoard.

Both are written anew from the curve whenever a run starts, so that a run that was resumed, here or on another machine,
has every epoch once. In between they only grow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..checkpoints.shared import make_folder
from .epoch import EpochResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_NAME: Final = "metrics.jsonl"
TENSORBOARD_NAME: Final = "tensorboard"
_log = logging.getLogger(__name__)


class CurveFiles:
    """The files of one run: `metrics.jsonl`, and on request event files in `tensorboard/`."""

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        """Nothing is written before :meth:`restart`."""
        self._folder = folder
        self._events = _EventFiles(folder / TENSORBOARD_NAME) if tensorboard else None

    def restart(self, curve: Sequence[EpochResult]) -> None:
        """Make the files hold `curve` and nothing else.

        Raises:
            OSError: the folder cannot be written.
        """
        make_folder(self._folder)
        aside = self._folder / f".{METRICS_NAME}.tmp"
        aside.unlink(missing_ok=True)  # another user's, who was killed while writing it
        aside.write_text("".join(map(_line, curve)), encoding="utf-8")
        aside.replace(self._folder / METRICS_NAME)
        if self._events is not None:
            self._events.restart(curve)

    def add(self, result: EpochResult) -> None:
        """Add the epoch that is over.

        Raises:
            OSError: the folder cannot be written.
        """
        with (self._folder / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(_line(result))
        if self._events is not None:
            self._events.add([result])


class _EventFiles:
    """Writes scalars for TensorBoard, if it is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def restart(self, curve: Sequence[EpochResult]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:  # what a person may look at is no reason to lose a trial
            _log.warning("no files for TensorBoard are written: %s", error)
            return
        if self._writer is not None:
            self._writer.close()
        for path in self._folder.glob("events.out.tfevents.*"):
            path.unlink(missing_ok=True)
        self._writer = SummaryWriter(str(self._folder))
        self.add(curve)

    def add(self, results: Sequence[EpochResult]) -> None:
        if self._writer is None:
            return
        for result in results:
            for name, value in result.metrics.items():
                self._writer.add_scalar(name, value, result.epoch)
        self._writer.flush()


def _line(result: EpochResult) -> str:
    return json.dumps({"epoch": result.epoch, "seconds": result.seconds, **result.metrics}) + "\n"
