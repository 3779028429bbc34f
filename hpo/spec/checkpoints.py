"""Which weights of the trials of a study stay once the trials have ended."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from .parameters import Strict


class CheckpointPolicy(Strict):
    """Which weights of a trial stay after its end. What somebody still needs stays in any case.

    Weights of failed trials never stay.
    """

    last: StrictBool = True
    """The weights of the last epoch, which are the result of the trial."""
    best: StrictBool = False
    """The weights of the epoch with the highest `val_top1`, written beside those of the last."""
    every: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    """The weights after every validated epoch whose number is a multiple of this, beside those of the last."""
    stopped: StrictBool = True
    """Whether any weights of trials stay that were stopped early."""
    quota_gb: Annotated[float, Field(gt=0)] | None = None
    """The most that the study keeps in one folder of checkpoints, in gigabytes (10^9 bytes): the worst trials go first.
    What is needed stays even beyond it."""

    @property
    def quota_bytes(self) -> int | None:
        """The quota in bytes; None without one."""
        return None if self.quota_gb is None else int(self.quota_gb * 1e9)
