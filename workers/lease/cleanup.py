"""Remove checkpoint files that nobody needs any more: what the service says of them, by study and trial.

Files that are there are listed first, then the service says what stays: a trial that is claimed later has no file in
the list. What may go for good, such as leftovers of attempts that are over, goes at once. Weights that the policy of a
study gives up go after the service has confirmed it, since their trial may have become the best, or been exported.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from hpo.errors import HpoError
from hpo.protocol import FilesReply, FilesRequest, Keep, RemovalsRequest, TrialFiles

from ..checkpoints.folder import FileKind
from ..checkpoints.standby_logs import remove_abandoned_logs
from ..checkpoints.stored import (
    Removed,
    StoredFile,
    StoredStudy,
    StoredTrial,
    remove_files,
    remove_study,
    stored_studies,
)
from ..errors import ApiUnavailableError

EVERY_SECONDS: Final = 600.0
"""How long a worker waits between two cleanups, at least."""
_WEIGHTS: Final = frozenset({FileKind.FINAL, FileKind.BEST, FileKind.NTH})
_log = logging.getLogger(__name__)


class Service(Protocol):
    """Who knows what is still needed; `ApiClient` is one."""

    def plan_files(self, request: FilesRequest) -> FilesReply:
        """Return what stays of the trials of a study."""

    def give_up_files(self, request: RemovalsRequest) -> list[int]:
        """Return those of the trials whose weights may go now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A file of a trial that may go, and why."""

    trial_id: int
    file: StoredFile
    reason: str
    confirm: bool
    """Whether the service must be asked once more: they are weights that somebody may have come to need."""


@dataclass(slots=True, kw_only=True)
class StudyReport:
    """What a cleanup found of one study in one folder, and did."""

    root: Path
    study: UUID
    name: str | None
    state: str
    """`exists`, `deleted` or `unknown`."""
    trials: int
    """How many have files."""
    found_bytes: int
    kept: dict[str, int] = field(default_factory=dict)
    """Bytes that stay, by the reason."""
    going: dict[str, int] = field(default_factory=dict)
    """Bytes that go, by the reason."""
    files: int = 0
    """How many files go, or went."""
    removed_bytes: int = 0
    """What was removed: nothing in a dry run."""
    over_quota_bytes: int = 0
    """How far what stays is above the quota, since it is needed."""
    left: list[str] = field(default_factory=list)
    """A sentence for each file that should have gone and did not."""


def clean(
    root: Path,
    service: Service,
    *,
    study: str | None = None,
    forget: Collection[UUID] = (),
    dry_run: bool = False,
) -> Iterator[StudyReport]:
    """Yield a report for each study that has files in `root`, after what is not needed of it was removed.

    Args:
        root: a folder of checkpoints.
        service: says what stays.
        study: only the study of this name.
        forget: UUIDs of studies that the service does not know and that are to go nevertheless.
        dry_run: remove nothing.

    Raises:
        HpoError: the service does not answer, or refuses.
        OSError: `root` cannot be read.
    """
    for stored in stored_studies(root):
        plan = service.plan_files(FilesRequest(study=stored.uuid, trials=[trial.trial_id for trial in stored.trials]))
        if study is not None and plan.name != study:
            continue
        yield _cleaned(root, stored, plan, service, forget=stored.uuid in forget, dry_run=dry_run)


def removals(stored: StoredStudy, plan: FilesReply) -> list[Removal]:
    """Return the files of an existing study that may go: by its trials, then by its quota."""
    verdicts = {verdict.trial_id: verdict for verdict in plan.trials}
    found: list[Removal] = []
    for trial in stored.trials:
        verdict = verdicts.get(trial.trial_id)
        if verdict is not None:  # else the trial was lost with a part of the database, and may be restored with it
            found += _of_trial(trial, verdict)
    return found + _over_quota(stored, plan, verdicts, found)


def _of_trial(trial: StoredTrial, verdict: TrialFiles) -> Iterator[Removal]:
    for file in trial.files:
        is_last = file.name == verdict.last
        reason: str | None = None
        confirm = False
        if file.kind is FileKind.PARTIAL:
            is_over = verdict.keep is not Keep.ALL or (file.attempt or 0) < verdict.attempt
            reason = "partial files of attempts that are over" if is_over else None
        elif file.kind is FileKind.RECORD or verdict.keep is Keep.ALL:
            continue
        elif file.kind is FileKind.RESUME and not is_last:
            reason = "what ended trials do not continue from any more"
        elif verdict.keep is Keep.NOTHING or (
            verdict.keep is Keep.FURTHER and (is_last or file.kind is FileKind.FINAL)
        ):
            reason, confirm = f"weights: {verdict.reason}", True
        if reason is not None:
            yield Removal(trial_id=trial.trial_id, file=file, reason=reason, confirm=confirm)


def _over_quota(
    stored: StoredStudy, plan: FilesReply, verdicts: dict[int, TrialFiles], before: list[Removal]
) -> list[Removal]:
    """Return what goes beyond `before` so that what stays is within the quota: the weights of the worst trials."""
    if plan.quota_bytes is None:
        return []
    gone = {(removal.trial_id, removal.file.name) for removal in before}
    by_id = {trial.trial_id: trial for trial in stored.trials}
    excess = stored.bytes - sum(removal.file.bytes for removal in before) - plan.quota_bytes
    found: list[Removal] = []
    for trial_id in plan.worst_first:
        if excess <= 0:
            break
        trial, verdict = by_id.get(trial_id), verdicts.get(trial_id)
        if trial is None or verdict is None:
            continue
        for file in trial.files:
            is_weights = file.kind in _WEIGHTS or file.name == verdict.last
            if is_weights and (trial_id, file.name) not in gone:
                found.append(Removal(trial_id=trial_id, file=file, reason="weights: the quota", confirm=True))
                excess -= file.bytes
    return found


def _cleaned(
    root: Path, stored: StoredStudy, plan: FilesReply, service: Service, *, forget: bool, dry_run: bool
) -> StudyReport:
    report = StudyReport(
        root=root,
        study=stored.uuid,
        name=plan.name,
        state=plan.state,
        trials=len(stored.trials),
        found_bytes=stored.bytes,
    )
    if plan.state == "exists":
        found = removals(stored, plan)
        if not dry_run:
            found = _confirmed(stored, plan, found, service)
        _note(report, stored, plan, found)
        if not dry_run:
            for trial_id in dict.fromkeys(removal.trial_id for removal in found):
                names = [removal.file.name for removal in found if removal.trial_id == trial_id]
                _add(report, remove_files(root, stored.uuid, trial_id, names))
    elif plan.state == "deleted" or forget:
        report.going["the study was deleted" if plan.state == "deleted" else "you gave it up"] = stored.bytes
        report.files = sum(len(trial.files) for trial in stored.trials)
        if not dry_run:
            _add(report, remove_study(root, stored.uuid))
    else:
        report.kept["this service does not know the study"] = stored.bytes
    return report


def _confirmed(stored: StoredStudy, plan: FilesReply, found: list[Removal], service: Service) -> list[Removal]:
    """Return the removals that the service still agrees with."""
    asked = sorted({removal.trial_id for removal in found if removal.confirm})
    if not asked:
        return found
    names = {verdict.trial_id: verdict.last for verdict in plan.trials}
    last = {removal.trial_id for removal in found if removal.file.name == names.get(removal.trial_id)}
    request = RemovalsRequest(study=stored.uuid, trials=asked, last=sorted(last.intersection(asked)))
    agreed = set(service.give_up_files(request))
    return [removal for removal in found if not removal.confirm or removal.trial_id in agreed]


def _note(report: StudyReport, stored: StoredStudy, plan: FilesReply, found: list[Removal]) -> None:
    """Add up what stays and what goes."""
    gone = {(removal.trial_id, removal.file.name): removal.reason for removal in found}
    reasons = {verdict.trial_id: verdict.reason for verdict in plan.trials}
    kept: Counter[str] = Counter()
    going: Counter[str] = Counter()
    for trial in stored.trials:
        for file in trial.files:
            reason = gone.get((trial.trial_id, file.name))
            if reason is not None:
                going[reason] += file.bytes
            elif file.kind is FileKind.RECORD:
                kept["logs and curves"] += file.bytes
            else:
                kept[reasons.get(trial.trial_id, "the service does not know the trial")] += file.bytes
    report.kept, report.going, report.files = dict(kept), dict(going), len(found)
    if plan.quota_bytes is not None:
        report.over_quota_bytes = max(0, sum(kept.values()) - plan.quota_bytes)


def _add(report: StudyReport, removed: Removed) -> None:
    report.removed_bytes += removed.bytes
    report.left += removed.left


class WorkerCleanup:
    """Cleans the folder of a worker when it is called, but not too often. What fails is logged and tried again."""

    def __init__(self, root: Path, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._root = root
        self._service = service
        self._clock = clock
        self._next = clock()

    def __call__(self) -> None:
        """Clean up if the last time is long enough ago."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_SECONDS
        remove_abandoned_logs(self._root)
        try:
            for report in clean(self._root, self._service):
                if report.removed_bytes:
                    name = report.name or str(report.study)
                    _log.info(
                        "removed %.1f MB of study %s: %s", report.removed_bytes / 1e6, name, ", ".join(report.going)
                    )
                for sentence in report.left:
                    _log.warning("%s", sentence)
        except ApiUnavailableError as error:
            _log.info("files are not cleaned up now: %s", error)
        except (
            HpoError,
            OSError,
        ) as error:  # such as an API of an earlier release; a trial matters more than its files
            _log.debug("files are not cleaned up: %s", error)
