"""Errors of the worker.

HpoError
└── WorkerError
    ├── DivergedError            the loss became NaN or infinite
    ├── TimeLimitError           the trial trained longer than `task.timeout_minutes`
    ├── OutOfMemoryError         a single clip does not fit into the memory of the device
    ├── NotExportableError       the model cannot be written in a form in which the study measures it
    ├── TornUpdateError          memory ran out while the weights were changed: the run continues from a checkpoint
    ├── TrainingFailedError      a run outside a study has no result; carries the kind of failure
    ├── CheckpointError          a checkpoint cannot be read
    │   └── CheckpointWriteError a checkpoint cannot be written: the machine's fault, not the configuration's
    ├── EvaluationError          a process that scores a part of an evaluation has ended without scores
    ├── MachineError             this machine cannot train any more
    ├── ApiUnavailableError      the API does not answer, or answers 5xx: trying again later is right
    └── ApiRefusedError          the API understood the request and refused it: trying again is useless
"""

from __future__ import annotations

from hpo.errors import HpoError
from hpo.trial import FailureKind


class WorkerError(HpoError):
    """The worker cannot do what it was asked to."""


class DivergedError(WorkerError):
    """The loss became NaN or infinite."""


class TimeLimitError(WorkerError):
    """The trial trained longer than its time limit."""


class OutOfMemoryError(WorkerError):
    """A single clip does not fit into the memory of the device."""


class NotExportableError(WorkerError):
    """The model cannot be written in a form in which the study measures it."""


class TornUpdateError(WorkerError):
    """Memory ran out when some weights were changed and others were not: this state is of no use."""


class TrainingFailedError(WorkerError):
    """The training failed.

    `kind` is that of a failed trial, None when the machine was at fault.
    """

    def __init__(self, message: str, *, kind: FailureKind | None = None) -> None:
        super().__init__(message)
        self.kind = kind


class CheckpointError(WorkerError):
    """The checkpoint cannot be read."""


class CheckpointWriteError(CheckpointError):
    """The checkpoint cannot be written."""


class EvaluationError(WorkerError):
    """A process that scores a part of the videos has ended without their scores."""


class MachineError(WorkerError):
    """This machine cannot train: its GPU failed and failed its check too, or no process can be started."""


class ApiUnavailableError(WorkerError):
    """The API cannot be reached at the moment.

    `retry_after` is the wait in seconds that the API asked for, None if it did not.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiRefusedError(WorkerError):
    """The API refused a request."""
