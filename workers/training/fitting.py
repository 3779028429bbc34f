"""How a run fits into memory: its plan is made before the first update, and a smaller one when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any

from data import ClipBatch

from ..errors import OutOfMemoryError
from .batch_norm import has_statistics
from .checkpointing import set_checkpointing
from .evaluated import EvaluatedModel
from .inputs import Loaders
from .memory import DeviceMemory
from .memory_plan import FEWEST_CLIPS_OF_NORMS, MemoryPlan
from .parallel import ALONE, World
from .rehearsal import Rehearsal
from .step import TrainingStep

_log = logging.getLogger(__name__)


class Fitting:
    """The plan of a run, as it is now."""

    def __init__(
        self,
        *,
        step: TrainingStep,
        loaders: Loaders,
        evaluated: EvaluatedModel,
        memory: DeviceMemory,
        begun: Callable[[ClipBatch], None],
        repeated: MemoryPlan | None = None,
        world: World = ALONE,
    ) -> None:
        """Prepare; nothing is tried yet.

        Args:
            begun: called before every update that is tried.
            repeated: the plan of an earlier run of this configuration; this one does the same if it fits.
            world: the ranks of the run, each of which computes its share of a batch.
        """
        self._step = step
        self._loaders = loaders
        self._evaluated = evaluated
        self._memory = memory
        self._begun = begun
        self._world = world
        batch_size = step.config.batch_size // world.size
        at_once = max(loaders.validation.batch_size, evaluated.batch_size)
        self._start = MemoryPlan.whole(batch_size, evaluation_batch=at_once)
        if repeated is not None and repeated.batch_size == batch_size:
            self._start = repeated
        self.plan: MemoryPlan | None = None
        """None before the run begins, unless it continues one on a device like this."""
        self._earlier: MemoryPlan | None = None
        """The plan of the part of the run that another device has trained."""

    @property
    def followed(self) -> MemoryPlan:
        """The plan of a run that has begun."""
        assert self.plan is not None  # noqa: S101 - `begin` made it
        return self.plan

    def follow(self, plan: MemoryPlan) -> None:
        """Compute by `plan` from now on."""
        self.plan = plan
        set_checkpointing(self._step.model, plan.checkpointing)
        blocks = self._step.compiled
        if blocks is not None and blocks.in_force == "graphs" and (hinder := self._graphs_hinder()) is not None:
            self._step.forget()
            blocks.leave_graphs(hinder)

    def begin(self, *, update: int, rehearsal: Callable[[], AbstractContextManager[None]]) -> None:
        """Follow the plan of the run; where there is none, try which fits if memory can be measured. Then compile.

        What is to be compiled is compiled by updates that leave no trace, so that their time is not that of an epoch.

        Args:
            update: updates done so far.
            rehearsal: makes a context in which updates may be tried, and that puts the state of the run back.

        Raises:
            OutOfMemoryError: a single clip does not fit into memory.
        """
        self.follow(self.plan or self._made(update, rehearsal))
        if self._step.compiled is not None:
            with rehearsal():
                self._step.compiled.begin(self._tried_update, graphs_hinder=self._graphs_hinder())
            self._memory.clear()

    def _tried_update(self) -> int:
        """Compute the gradients of a whole batch, by this rank alone, and return its clips."""
        step = self._step
        with closing(self._loaders.train.batches(0)) as batches, step.gradients.apart():  # type: ignore[type-var]  # generator
            batch = next(iter(batches))
            self._begun(batch)
            try:
                step.differentiate(batch, micro_batch=self.followed.micro_batch)
            finally:
                step.forget()
        return len(batch.ids)

    def _graphs_hinder(self) -> str | None:
        """Return why updates cannot be computed by CUDA graphs, if so: these keep their gradients in one place."""
        if self._world.size > 1:
            return "several GPUs train together"
        return "the batch is computed in parts" if self.followed.is_split else None

    def _made(self, update: int, rehearsal: Callable[[], AbstractContextManager[None]]) -> MemoryPlan:
        start = replace(self._start, card=self._memory.card, since_update=0)
        plan = self._tried(start, rehearsal) if self._memory.is_measured else start
        before = self._earlier or MemoryPlan.whole(plan.batch_size, evaluation_batch=plan.evaluation_batch)
        return replace(plan, since_update=before.since_update if plan.parts == before.parts else update)

    def _tried(self, start: MemoryPlan, rehearsal: Callable[[], AbstractContextManager[None]]) -> MemoryPlan:
        """Return the first plan from `start` on that fits."""
        free = self._memory.free_bytes()
        if start.peak_bytes is not None and free is not None and free < start.peak_bytes:
            _log.warning(
                "the run to repeat took %.1f GiB of memory, and %.1f GiB are free here",
                start.peak_bytes / 2**30,
                free / 2**30,
            )
        try:
            with rehearsal():
                plan = Rehearsal(
                    step=self._step,
                    loaders=self._loaders,
                    evaluated=self._evaluated,
                    memory=self._memory,
                    fewest_clips=self._fewest_clips,
                    begun=self._begun,
                    world=self._world,
                ).fitting(start)
        finally:
            self._memory.clear()
        if plan.is_split and plan.parts != start.parts:
            repeated = "; it is computed in other parts than in the run to repeat" if start.is_split else ""
            _log.warning("%s%s", plan.sentence(), repeated)
        return plan

    @property
    def _fewest_clips(self) -> int:
        return FEWEST_CLIPS_OF_NORMS if has_statistics(self._step.model) else 1

    def without_graphs(self, problem: str, *, update: int) -> bool:
        """Leave CUDA graphs after memory ran out in update `update` (from 0); return whether there were any.

        They keep memory of their own, and the plan was found to fit without them: the batch stays whole.
        """
        blocks = self._step.compiled
        if blocks is None or blocks.in_force != "graphs":
            return False
        self._step.forget()
        blocks.leave_graphs(f"out of memory at update {update} ({problem.partition(chr(10))[0]})")
        self._memory.clear()
        return True

    def smaller_updates(self, problem: str, *, update: int) -> MemoryPlan:
        """Return the plan to continue with after `problem` in update `update` (from 0), and free memory for it.

        Raises:
            OutOfMemoryError: there is none: single clips are computed already.
        """
        first_line = problem.partition("\n")[0]
        self._step.forget()
        self._memory.clear()
        plan = self.followed.smaller_updates(self._fewest_clips)
        if plan is None:
            raise OutOfMemoryError(f"a single clip does not fit, with activation checkpointing too: {first_line}")
        plan = replace(plan, since_update=update, peak_bytes=None)
        _log.warning("out of memory at update %d (%s); %s", update, first_line, plan.sentence())
        return plan

    def smaller_evaluation(self, problem: str, doing: str) -> MemoryPlan:
        """Return the plan to continue with after `problem` without gradients, and free memory for it.

        Args:
            doing: when that was, for messages: "in validation".

        Raises:
            OutOfMemoryError: there is none: single clips are computed already.
        """
        first_line = problem.partition("\n")[0]
        self._memory.clear()
        plan = self.followed.smaller_evaluation()
        if plan is None:
            raise OutOfMemoryError(f"a single clip does not fit {doing}: {first_line}")
        _log.warning("out of memory %s (%s); %d clips at once", doing, first_line, plan.evaluation_batch)
        return plan

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Take the plan of a run on a device like this one; on another one the run keeps its own, or makes one."""
        if state is None:  # releases up to 0.2.0 wrote none: they computed every batch at once
            return
        plan = MemoryPlan.from_state(state)
        # Of a run of another number of ranks, each of which computed another share of a batch.
        if plan.batch_size != self._start.batch_size:
            return
        if plan.card == self._memory.card:
            self.plan = plan
        else:
            self._earlier = plan
