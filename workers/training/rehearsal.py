"""Trying plans before training: updates and validations of full shape, on the device itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from data import ClipBatch

from ..errors import OutOfMemoryError
from .checkpointing import set_checkpointing
from .evaluated import EvaluatedModel
from .failure import ran_out_of_memory
from .inputs import Loaders
from .memory import DeviceMemory
from .memory_plan import MemoryPlan, first_fitting
from .parallel import ALONE, World
from .scoring import score
from .step import TrainingStep

UPDATES: Final = 2
"""The first update allocates the optimizer's state, and the second has it beside its activations."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Finds the plan of a run. It changes weights, buffers and random states: the caller puts them back."""

    step: TrainingStep
    loaders: Loaders
    evaluated: EvaluatedModel
    memory: DeviceMemory
    fewest_clips: int
    """Of a micro-batch, before checkpointing is tried."""
    begun: Callable[[ClipBatch], None]
    """Called before every update: trying takes time, and shows that the process lives."""
    world: World = ALONE
    """The ranks of the run: each tries by itself, and what fits must fit into the memory of all."""

    def fitting(self, start: MemoryPlan) -> MemoryPlan:
        """Return the first plan from `start` on that fits into the memory that is free.

        Raises:
            OutOfMemoryError: a single clip does not fit, with activation checkpointing.
        """
        plan = first_fitting(start.for_updates(self.fewest_clips), self._updates)
        if plan is not None:
            plan = first_fitting(self._with_whole(plan).for_evaluation(), self._evaluation)
        if plan is None:
            raise OutOfMemoryError(self._too_large())
        return plan

    def _with_whole(self, plan: MemoryPlan) -> MemoryPlan:
        """Return a split plan with what the whole batch would take, on the line through two sizes of parts."""
        half = plan.micro_batch // 2
        if plan.checkpointing or plan.micro_batch == plan.batch_size or plan.peak_bytes is None or half == 0:
            return plan
        less = self._updates(replace(plan, micro_batch=half))
        if less is None or less >= plan.peak_bytes:
            return plan
        per_clip = (plan.peak_bytes - less) / (plan.micro_batch - half)
        whole = plan.peak_bytes + per_clip * (plan.batch_size - plan.micro_batch)
        return replace(plan, whole_batch_bytes=round(whole))

    def _updates(self, plan: MemoryPlan) -> int | None:
        set_checkpointing(self.step.model, plan.checkpointing)
        return self._tried(lambda: self._make_updates(plan))

    def _make_updates(self, plan: MemoryPlan) -> None:
        for number in range(UPDATES):
            with closing(self.loaders.train.batches(0)) as batches:  # type: ignore[type-var]  # generator
                batch = next(iter(batches))
                self.begun(batch)
                # Within the block: on a GPU the batch after this one is there already, as it is when a run trains.
                self.step.update(batch, number=number, micro_batch=plan.micro_batch)
                self.evaluated.update(number)
            if number + 1 < UPDATES:
                self.memory.clear()  # of the search for the fastest convolutions, which comes but once

    def _evaluation(self, plan: MemoryPlan) -> int | None:
        return self._tried(lambda: self._evaluate(plan))

    def _evaluate(self, plan: MemoryPlan) -> None:
        self.evaluated.rehearse(most_clips=plan.evaluation_batch)
        with closing(self.loaders.validation.batches(0)) as batches:  # type: ignore[type-var]  # generator
            score(
                self.step.model,
                islice(batches, 1),
                device=self.step.device,
                precision=self.step.precision,
                most_clips=plan.evaluation_batch,
            )

    def _tried(self, run: Callable[[], None]) -> int | None:
        """Return the peak in bytes of `run`; None if it ran out of memory."""
        peaks = self.world.gathered(self._peak_of(run))
        known = [peak for peak in peaks if peak is not None]
        return max(known) if len(known) == len(peaks) else None

    def _peak_of(self, run: Callable[[], None]) -> int | None:
        """Return the same of this rank alone."""
        self.step.forget()
        self.memory.clear()
        try:
            with self.memory.margin(), self.step.gradients.apart():
                run()
        except Exception as error:  # of many classes, when memory runs out; all others are raised again
            if not ran_out_of_memory(error, self.step.device):
                raise
            return None
        finally:
            self.step.forget()
        return self.memory.peak_bytes()

    def _too_large(self) -> str:
        free = self.memory.free_bytes()
        there = "" if free is None else f" of the {free / 2**30:.1f} GiB that are free"
        return f"a single clip needs more than the memory{there}, with activation checkpointing too"
