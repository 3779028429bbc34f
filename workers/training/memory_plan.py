"""How a run fits into the memory of its device: which parts of a batch are computed at once, and what is kept for it.

The batch of an update stays what the configuration says. What does not fit is computed in micro-batches whose
gradients add up to those of the batch, then with activation checkpointing: see docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

FEWEST_CLIPS_OF_NORMS: Final = 8
"""Clips of a micro-batch, at least, before checkpointing is tried, where batch norms train: with fewer, the statistics
that they normalise by are too noisy (Wu and He, Group Normalization, ECCV 2018, figure 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How the clips of an update and of a validation are computed."""

    batch_size: int
    """Clips of an update."""
    micro_batch: int
    """Clips of one forward and backward pass, at most."""
    evaluation_batch: int
    """Clips of one forward pass without gradients, at most."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of being kept."""
    card: str = ""
    """The device that it was made for: name and memory of a GPU."""
    peak_bytes: int | None = None
    """The most memory that updates and validation took when they were tried; None where nothing was measured."""
    whole_batch_bytes: int | None = None
    """About what the whole batch would have taken at once; None where it was not split, or is not known."""
    since_update: int = 0
    """The update (from 0) from which the run is computed in these parts; before it, it was computed in others."""

    @classmethod
    def whole(cls, batch_size: int, *, evaluation_batch: int, card: str = "") -> Self:
        """Return the plan that splits nothing."""
        return cls(batch_size=batch_size, micro_batch=batch_size, evaluation_batch=evaluation_batch, card=card)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the plan that :meth:`to_state` wrote, in this release or a later one."""
        return cls(**{field.name: state[field.name] for field in fields(cls) if field.name in state})

    def to_state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @property
    def parts(self) -> tuple[int, bool]:
        """What the numbers of a run depend on: the clips of a part, and whether activations are computed again."""
        return self.micro_batch, self.checkpointing

    @property
    def is_split(self) -> bool:
        """Whether an update is computed in another way than all at once."""
        return self.checkpointing or self.micro_batch < self.batch_size

    def for_updates(self, fewest: int) -> Iterator[MemoryPlan]:
        """Yield this plan and those to try after it, until one fits: the last is a single clip with checkpointing.

        Args:
            fewest: clips of a micro-batch below which checkpointing comes before a smaller one.
        """
        if not self.checkpointing:
            for clips in _halved(self.micro_batch, fewest):
                yield replace(self, micro_batch=clips)
        for clips in _halved(self.micro_batch, 1):
            yield replace(self, micro_batch=clips, checkpointing=True)

    def smaller_updates(self, fewest: int) -> MemoryPlan | None:
        """Return the next plan whose updates take less memory; None after a single clip with checkpointing."""
        half = _half(self.micro_batch)
        if not self.checkpointing and (half < fewest or half == self.micro_batch):
            return replace(self, checkpointing=True)
        return replace(self, micro_batch=half) if half < self.micro_batch else None

    def for_evaluation(self) -> Iterator[MemoryPlan]:
        """Yield this plan and those of smaller passes without gradients, down to single clips."""
        for clips in _halved(self.evaluation_batch, 1):
            yield replace(self, evaluation_batch=clips)

    def smaller_evaluation(self) -> MemoryPlan | None:
        """Return the plan of smaller passes without gradients; None after single clips."""
        half = _half(self.evaluation_batch)
        return replace(self, evaluation_batch=half) if half < self.evaluation_batch else None

    def sentence(self) -> str:
        """Return a sentence for the log about a plan that splits an update."""
        how = f"{self.micro_batch} of {self.batch_size} clips at once" + (
            " and activation checkpointing" if self.checkpointing else ""
        )
        took = "" if self.peak_bytes is None else f", which takes {_gib(self.peak_bytes)}"
        whole = self.whole_batch_bytes
        instead = "" if whole is None else f"; the whole batch would take about {_gib(whole)}"
        return f"the batch does not fit into memory at once: training with {how}{took}{instead}"


def first_fitting(plans: Iterator[MemoryPlan], tried: Callable[[MemoryPlan], int | None]) -> MemoryPlan | None:
    """Return the first plan that fits, with the memory that it took; None if none does.

    Args:
        tried: returns the peak in bytes of some steps of a plan, None if they did not fit.
    """
    for plan in plans:
        peak = tried(plan)
        if peak is not None:
            return replace(plan, peak_bytes=max(peak, plan.peak_bytes or 0))
    return None


def _halved(clips: int, fewest: int) -> Iterator[int]:
    """Yield `clips`, then each time half of it, while that is not below `fewest`."""
    yield clips
    while (half := _half(clips)) >= fewest and half < clips:
        clips = half
        yield clips


def _half(clips: int) -> int:
    return (clips + 1) // 2


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
