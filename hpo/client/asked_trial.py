"""A trial that this program runs, under a lease as that of a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from ..errors import StaleLeaseError
from ..trial import Decision
from . import leases
from .leases import Lease
from .replies import Value
from .steps import Call

T = TypeVar("T")


class Holder(Protocol):
    """The study that a trial is of, as far as the trial needs it."""

    def carry_out(self, call: Call[T], *, trial: AskedTrial | None = None) -> T:
        """Return the answer to a call about `trial`."""
        ...

    def named(self, value: float | Mapping[str, float]) -> dict[str, float]:
        """Return finite metrics by name."""
        ...


class AskedTrial:
    """A trial that this program runs. `Study.ask` makes it."""

    def __init__(self, study: Holder, lease: Lease, slot: int) -> None:
        self._study = study
        self._lease = lease
        self._slot = slot
        self._began = time.monotonic()
        self._metrics: dict[str, float] = {}
        self._checkpoint = lease["checkpoint"]
        self._decision = Decision.CONTINUE
        self._lost: StaleLeaseError | None = None

    def __repr__(self) -> str:
        return f"<AskedTrial {self.number} of {self._lease['study']}: {self.params}>"

    @property
    def number(self) -> int:
        """The number of the trial in its study, from 0."""
        return self._lease["number"]

    @property
    def params(self) -> dict[str, Value]:
        """The values of this trial: those of the space whose conditions hold."""
        return dict(self._lease["params"])

    @property
    def config(self) -> dict[str, Any]:
        """The values with those of `task.base` and the `seed` of this trial."""
        return dict(self._lease["config"])

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: a trial whose program died is given out again."""
        return self._lease["attempt"]

    @property
    def checkpoint(self) -> str | None:
        """The last checkpoint that was reported, in an earlier attempt too; None where there is nothing to continue."""
        return self._checkpoint

    @property
    def steps_done(self) -> int:
        """The last step that the service knew when this attempt began; 0 in a first attempt."""
        return self._lease["epochs_done"]

    @property
    def metrics(self) -> dict[str, float]:
        """What was reported last."""
        return dict(self._metrics)

    @property
    def decision(self) -> Decision:
        """What the study last said: in the answer to a report, or to the heartbeats in between."""
        return self._decision

    @property
    def should_stop(self) -> bool:
        """Whether the study wants the trial to end here: stopped early, paused or cancelled."""
        return self._decision is not Decision.CONTINUE

    def report(self, step: int, value: float | Mapping[str, float], *, checkpoint: str | None = None) -> Decision:
        """Deliver what was measured after `step` (from 1), and return what to do: continue, stop, pause or abandon.

        The same step again changes nothing. While the service is away this waits, for up to five minutes.

        Args:
            value: of the objective, or of several metrics by name.
            checkpoint: names what a later attempt can continue from, such as the path of a file.

        Raises:
            StaleLeaseError: the trial is not this program's any more; drop it and ask for another.
            ReportError: the trial cannot have measured this, such as a step after the last.
            ConflictError: a value is NaN or infinite; tell the trial as failed.
        """
        self.require_lease()
        metrics = self._study.named(value)
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        measured = {"step": step, "metrics": metrics, "wall_seconds": seconds, "gpu_seconds": seconds}
        call = leases.report(self._lease, measurements=[measured], checkpoint=checkpoint)
        answer = self._study.carry_out(call, trial=self)
        self._metrics = metrics
        self._checkpoint = checkpoint or self._checkpoint
        self.note(Decision(answer))
        return self._decision

    # ---------------------------------------------------------------- for the study

    @property
    def lease(self) -> Lease:
        """What the claim gave."""
        return self._lease

    @property
    def slot(self) -> int:
        """Which of the names of this program it was claimed under."""
        return self._slot

    def note(self, decision: Decision) -> None:
        """Keep a decision; one that ends the trial stands."""
        if self._decision is Decision.CONTINUE or decision is Decision.ABANDON:
            self._decision = decision

    def lose(self, error: StaleLeaseError) -> None:
        """Note that the lease is gone."""
        self._lost = error

    def require_lease(self) -> None:
        """Raise the error with which the lease was lost, if it was."""
        if self._lost is not None:
            raise self._lost
