"""What a person's own function is given: its parameters, and how it speaks to the study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, SupportsFloat

from ..errors import HpoError
from ..trial import ParamValue

Request = Literal["stop", "pause", "drain"]
LARGEST: Final = 1e100
"""Numbers beyond this are no metrics, as in `hpo.protocol`."""


class FunctionError(HpoError):
    """A function does not do what its study needs; the message says what to change."""


class NotFiniteError(FunctionError):
    """A metric is NaN or infinite: the trial diverged."""


class TrialInterrupted(BaseException):
    """The trial ends here: the study stopped it, or it continues later from its last checkpoint.

    Not an `Exception`, so that `except Exception` in a function does not keep it running.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a trial is to do."""

    study: str
    number: int
    attempt: int
    seed: int
    params: Mapping[str, ParamValue]
    metrics: tuple[str, ...]
    """What the study knows; others cannot be reported."""
    epochs: int
    device: Literal["cpu", "cuda"] = "cpu"


class Service(Protocol):
    """The study, as far as a running trial needs it."""

    def request(self) -> Request | None:
        """Return what the trial is asked to do, None while it may go on."""

    def resume(self) -> Resumed | None:
        """Return where an earlier attempt came to; None where there is nothing to continue from."""

    def report(self, step: int, metrics: Mapping[str, float], checkpoint: object) -> None:
        """Deliver what was measured after `step` epochs, and wait a moment for the decision about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where an earlier attempt of a trial came to."""

    epoch: int
    """Epochs done."""
    checkpoint: object
    """What was reported as `checkpoint` then."""


class Trial:
    """One run of a function with one configuration. The service makes it and calls the function with it."""

    def __init__(self, plan: Plan, service: Service) -> None:
        self._plan = plan
        self._params = dict(plan.params)
        self._service = service
        self._values: dict[str, float] = {}
        self._step = 0
        self._epoch: int | None = None
        """The running epoch, where the function iterates over `epochs`."""
        self._asked: Request | None = None
        """The request that the function has heard of."""

    def __repr__(self) -> str:
        return f"<Trial {self.number} of {self._plan.study}: {dict(self.params)}>"

    @property
    def params(self) -> dict[str, ParamValue]:
        """The values of this trial: those of the space that its conditions make active, and those of `task.base`.

        A dict of its own, which JSON and checkpoints take: a change in it changes no record.
        """
        return self._params

    @property
    def number(self) -> int:
        """The number of the trial in its study, from 0."""
        return self._plan.number

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: a trial whose worker died is run again."""
        return self._plan.attempt

    @property
    def study(self) -> str:
        """The name of the study."""
        return self._plan.study

    @property
    def seed(self) -> int:
        """A seed of its own, the same in every attempt; `random`, NumPy and PyTorch are seeded with it already."""
        return self._plan.seed

    @property
    def max_epochs(self) -> int:
        """How many epochs the study plans: the most times that a trial reports."""
        return self._plan.epochs

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The kind of device of the worker, in the words of PyTorch."""
        return self._plan.device

    @property
    def should_stop(self) -> bool:
        """Whether the function is to return: the study stopped the trial, or it is to continue at another time."""
        request = self._service.request()
        if request is not None:
            self._asked = request
        return request is not None

    def epochs(self, *, resume: Callable[[Any], object] | None = None) -> Iterator[int]:
        """Iterate over the numbers of the epochs to train, from 1, for as long as the study wants the trial to go on.

        Args:
            resume: called with the last checkpoint where an earlier attempt has reported one; the iteration then
                begins with the epoch after it. Without it, each attempt begins with epoch 1.

        Raises:
            FunctionError: it is called a second time, or after a report.
        """
        if self._epoch is not None or self._step:
            raise FunctionError("trial.epochs() was called twice, or after trial.report(): iterate over it once")
        self._epoch = 0
        found = None if resume is None else self._service.resume()
        if resume is not None and found is not None:
            resume(found.checkpoint)
            self._epoch = self._step = found.epoch
        return self._iterate(self._epoch + 1)

    def _iterate(self, first: int) -> Iterator[int]:
        for epoch in range(first, self.max_epochs + 1):
            if self._obeys():
                return
            self._epoch = epoch
            yield epoch

    def _obeys(self) -> bool:
        """Return whether the study has stopped the trial.

        Raises:
            TrialInterrupted: it continues later, so that what comes after its epochs is of no use now.
        """
        request = self._asked = self._service.request()
        if request in ("pause", "drain"):
            raise TrialInterrupted
        return request == "stop"

    def report(self, *, checkpoint: object = None, **metrics: SupportsFloat) -> None:
        """Deliver the metrics of an epoch, and what to continue from.

        Args:
            checkpoint: bytes, a path of a file or a folder, or a state dict; `epochs(resume=...)` of a later attempt
                gives back the same. None keeps the one before.
            metrics: by name, as the study names them. NaN or infinity ends the trial as diverged.

        Raises:
            FunctionError: the study does not know a metric, or the report comes twice for one epoch.
            TrialInterrupted: the study has asked the trial to end, and the function goes on.
        """
        if self._asked is not None:
            raise TrialInterrupted
        if not metrics:
            raise FunctionError(f"trial.report() was called without a metric; the study knows {self._known()}")
        step = self._next_step()
        values = {name: self._number(name, value) for name, value in metrics.items()}
        self._step = step
        self._values |= values
        self._service.report(step, values, checkpoint)
        if self._epoch is None and step < self.max_epochs:
            self._obeys()

    def log(self, *values: object) -> None:
        """Print into the log of the trial, as `print` does."""
        print(*values, flush=True)

    def returned(self, value: object) -> dict[str, float]:
        """Return the final metrics, those that the function returned among them.

        Raises:
            FunctionError: what it returned is no metric, or a metric of the study was never given.
        """
        found = {**self._values, **self._metrics_of(value)}
        missing = [name for name in self._plan.metrics if name not in found]
        if missing:
            raise FunctionError(
                f"the function ended without {', '.join(missing)}, which the study names in task.metrics: pass "
                "it to trial.report, or return it"
            )
        return found

    @property
    def reported_step(self) -> int:
        """The last epoch that was reported; 0 before the first."""
        return self._step

    @property
    def heard(self) -> Request | None:
        """What the function was asked to do and has heard of."""
        return self._asked

    def _metrics_of(self, value: object) -> dict[str, float]:
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return {str(name): self._number(str(name), one) for name, one in value.items()}
        if len(self._plan.metrics) > 1:
            raise FunctionError(
                f"the function returned {_shown(value)}, but the study has several metrics: return a dict with "
                f"{self._known()}"
            )
        return {self._plan.metrics[0]: self._number(self._plan.metrics[0], value)}

    def _next_step(self) -> int:
        step = self._step + 1 if self._epoch is None else self._epoch
        if self._epoch is not None and step <= self._step:
            raise FunctionError(f"trial.report was called twice in epoch {step}: call it once, with all metrics")
        if step > self.max_epochs:
            raise FunctionError(
                f"this is report {step}, but trials of the study have {self.max_epochs} (task.epochs): report once "
                "for each epoch, or plan more"
            )
        return step

    def _number(self, name: str, value: Any) -> float:
        if name not in self._plan.metrics:
            raise FunctionError(f"the study does not know the metric {name!r}; it knows {self._known()} (task.metrics)")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise FunctionError(f"the metric {name} must be a number, but it is {_shown(value)}") from error
        if not math.isfinite(number) or abs(number) > LARGEST:
            where = "" if self._epoch is None else f" in epoch {self._epoch}"
            raise NotFiniteError(f"{name} is {number:g}{where}")
        return number

    def _known(self) -> str:
        return ", ".join(self._plan.metrics)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:80]}"
