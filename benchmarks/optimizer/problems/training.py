"""What one simulated training reports, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.trial import FailureKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The reports of one training: the first objective and the duration of every epoch, and how it ends."""

    values: tuple[float, ...]
    """The first objective after each epoch that ends, with its noise."""
    seconds: tuple[float, ...]
    """The seconds of each epoch; with a failure there is one more, the time until it fails."""
    failure: FailureKind | None = None
    """Why the training fails after `values`; None for a training that reaches its last epoch."""

    def __post_init__(self) -> None:
        if len(self.seconds) != len(self.values) + (self.failure is not None):
            raise ValueError("a training has the seconds of every epoch, and of its failure")
