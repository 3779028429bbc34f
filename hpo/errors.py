"""Errors of the service; the docstring of a class is its default message.

    HpoError
    ├── SpecError               the study spec is wrong; carries one SpecIssue per offending field
    │   └── GuessError          a configuration that a person asks for is not in the space, or breaks a rule
    ├── UnusableStudyError      a stored study cannot be used by this release
    ├── ReportError             a worker reports what its trial cannot have measured
    ├── NotFoundError           no such study, trial or worker
    ├── ConflictError           the request does not fit the present state
    │   ├── StudyExistsError    a study of that name exists already
    │   └── StaleLeaseError     the lease was lost: another worker may have the trial now
    ├── AuthenticationError     no token, or an unknown one
    ├── PermissionDeniedError   the token lacks the scope
    ├── StoreUnavailableError   Postgres cannot be reached; callers should try again later
    ├── SetupError              this machine or its settings cannot do what was asked
    └── DataNotSeenError        this machine does not find, or cannot read, the data set of a study

Nothing below `api/` knows of HTTP: the API maps these classes to problem+json, the command line to exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HpoError(Exception):
    """The request failed for a reason that the user can act on."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecIssue:
    """One error in a spec: the path of the field (`space.lr.low`), and a sentence that says what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(HpoError):
    """The study spec is not valid."""

    def __init__(self, issues: Sequence[SpecIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__("; ".join(str(issue) for issue in self.issues) or None)


class GuessError(SpecError):
    """A guess does not fit the space or the rules of the study."""


class UnusableStudyError(HpoError):
    """A stored study cannot be used by this release."""

    def __init__(self, message: str | None = None, *, study_id: int = 0) -> None:
        self.study_id = study_id
        super().__init__(message)


class ReportError(HpoError):
    """The trial cannot have measured this."""


class NotFoundError(HpoError):
    """There is nothing of that name."""


class ConflictError(HpoError):
    """The request does not fit the present state."""


class StudyExistsError(ConflictError):
    """A study of that name exists already."""


class StaleLeaseError(ConflictError):
    """The lease on this trial was lost; drop the trial and claim another."""


class AuthenticationError(HpoError):
    """A valid token is needed: send it as `Authorization: Bearer TOKEN` (`hpo token show` prints it)."""


class PermissionDeniedError(HpoError):
    """The token does not have the scope that this needs."""


class StoreUnavailableError(HpoError):
    """The database cannot be reached at the moment; nothing was changed, try again shortly."""


class SetupError(HpoError):
    """This machine or its settings cannot do what was asked."""


class DataNotSeenError(HpoError):
    """This machine does not find the data set of a study, or cannot read it."""
