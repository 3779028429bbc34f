"""What a cleanup removes from a real folder, by what the service says; it never takes what somebody needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.answer import answer
from hpo.answer.keeping import needed, verdicts, worst_first
from hpo.protocol import FilesReply, FilesRequest, Keep, RemovalsRequest, TrialFiles
from hpo.spec import StudySpec
from hpo.trial import TrialRecord, TrialState
from tests.unit.hpo.answer.test_keeping import POLICIES, any_trials
from tests.unit.hpo.records import spec_with
from tests.unit.workers.checkpoints.test_stored import DIGEST, STUDY, put
from workers.checkpoints.stored import remove_files
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.cleanup import EVERY_SECONDS, StudyReport, WorkerCleanup, clean

from .fakes import Clock

FINAL, BEST, NTH = (f"{name}-{DIGEST}.pt" for name in ("final-a0002", "best-e0001-a0002", "epoch-e0002-a0002"))
RESUME, OLD = (f"a000{attempt}-e0003-b0000000-{DIGEST}.pt" for attempt in (2, 1))
PARTIAL, OLD_PARTIAL = (f".a000{attempt}-e0004-b0000000.99.tmp" for attempt in (2, 1))
LOG = "attempt-0002.log"
EVERYTHING = (FINAL, BEST, NTH, RESUME, OLD, PARTIAL, OLD_PARTIAL, LOG)


def verdict(trial_id: int, keep: Keep, *, last: str | None = FINAL, attempt: int = 2) -> TrialFiles:
    """Return what stays of a trial."""
    return TrialFiles(trial_id=trial_id, number=trial_id, attempt=attempt, keep=keep, reason="why", last=last)


class Service:
    """Answers with one plan, and agrees to every removal but those of `refused` trials."""

    def __init__(self, *trials: TrialFiles, refused: tuple[int, ...] = (), **plan: Any) -> None:
        given: dict[str, Any] = {"study": STUDY, "name": "demo", "state": "exists", "trials": list(trials)}
        self._plan = FilesReply(**{**given, **plan})
        self._refused = refused
        self.asked: list[RemovalsRequest] = []
        self.before_answer: Callable[[], None] = lambda: None
        """Called between the list of the files and the answer."""

    def plan_files(self, request: FilesRequest) -> FilesReply:
        self.before_answer()
        return self._plan

    def give_up_files(self, request: RemovalsRequest) -> list[int]:
        self.asked.append(request)
        return [trial_id for trial_id in request.trials if trial_id not in self._refused]


def left(root: Path, trial: int = 7) -> set[str]:
    """Return the names of the files in the folder of a trial."""
    return {path.name for path in (root / str(STUDY) / str(trial)).iterdir()}


def cleaned(root: Path, service: Service, **options: Any) -> StudyReport:
    """Return the report of the one study."""
    (report,) = clean(root, service, **options)
    return report


@pytest.mark.parametrize(
    ("keep", "last", "gone"),
    [
        (Keep.ALL, RESUME, {OLD_PARTIAL}),
        (Keep.WEIGHTS, FINAL, {RESUME, OLD, PARTIAL, OLD_PARTIAL}),
        (Keep.WEIGHTS, RESUME, {OLD, PARTIAL, OLD_PARTIAL}),
        (Keep.FURTHER, FINAL, {FINAL, RESUME, OLD, PARTIAL, OLD_PARTIAL}),
        (Keep.FURTHER, RESUME, {FINAL, RESUME, OLD, PARTIAL, OLD_PARTIAL}),
        (Keep.NOTHING, FINAL, {*EVERYTHING} - {LOG}),
    ],
)
def test_what_goes_of_a_trial(tmp_path: Path, keep: Keep, last: str, gone: set[str]) -> None:
    for name in EVERYTHING:
        put(tmp_path, name)
    service = Service(verdict(7, keep, last=last))
    planned = cleaned(tmp_path, service, dry_run=True)
    assert left(tmp_path) == {*EVERYTHING}, "a dry run removes nothing"
    assert (planned.files, sum(planned.going.values()), planned.removed_bytes) == (len(gone), 5 * len(gone), 0)
    assert service.asked == []
    report = cleaned(tmp_path, service)
    assert left(tmp_path) == {*EVERYTHING} - gone
    assert (report.removed_bytes, report.left) == (5 * len(gone), [])
    assert sum(report.kept.values()) == 5 * (len(EVERYTHING) - len(gone))
    assert cleaned(tmp_path, service).files == 0, "a second time nothing is left to do"


def test_weights_go_after_the_service_has_agreed_and_it_learns_whose_last_ones_go(tmp_path: Path) -> None:
    for trial in (7, 8, 9):
        put(tmp_path, FINAL, trial=trial)
        put(tmp_path, RESUME, trial=trial)
    put(tmp_path, BEST, trial=10)
    verdicts = [verdict(trial, Keep.NOTHING) for trial in (7, 8, 10)]
    service = Service(*verdicts, verdict(9, Keep.WEIGHTS), refused=(8,))
    cleaned(tmp_path, service)
    (asked,) = service.asked
    assert (asked.study, asked.trials, asked.last) == (STUDY, [7, 8, 10], [7, 8])
    assert [left(tmp_path, trial) for trial in (7, 8, 9, 10)] == [set(), {FINAL}, {FINAL}, set()]


def test_a_quota_removes_the_worst_until_the_rest_fits_and_nothing_that_is_needed(tmp_path: Path) -> None:
    for trial in (1, 2, 3, 4):
        put(tmp_path, FINAL, trial=trial, content=bytes(100))
        put(tmp_path, LOG, trial=trial, content=bytes(10))
    judged = [verdict(trial, Keep.WEIGHTS) for trial in (1, 2, 3, 4)]
    few = cleaned(tmp_path, Service(*judged, quota_bytes=340, worst_first=[3, 1, 2]))
    assert [left(tmp_path, trial) for trial in (1, 2, 3, 4)] == [{FINAL, LOG}, {FINAL, LOG}, {LOG}, {FINAL, LOG}]
    assert (few.going, few.over_quota_bytes) == ({"weights: the quota": 100}, 0)
    all_of_them = cleaned(tmp_path, Service(*judged, quota_bytes=1, worst_first=[3, 1, 2]))
    assert [left(tmp_path, trial) for trial in (1, 2, 3, 4)] == [{LOG}, {LOG}, {LOG}, {FINAL, LOG}]
    assert all_of_them.over_quota_bytes == 139


def test_files_of_a_trial_that_the_service_does_not_know_stay(tmp_path: Path) -> None:
    """It may come back with the database that is restored."""
    put(tmp_path, FINAL)
    report = cleaned(tmp_path, Service(quota_bytes=1))
    assert left(tmp_path) == {FINAL}
    assert report.kept == {"the service does not know the trial": 5}


@pytest.mark.parametrize(
    ("state", "forget", "stays"),
    [("deleted", (), False), ("unknown", (), True), ("unknown", (UUID(int=9),), True), ("unknown", (STUDY,), False)],
)
def test_only_studies_that_were_deleted_or_given_up_go_whole(
    tmp_path: Path, state: str, forget: tuple[UUID, ...], stays: bool
) -> None:
    put(tmp_path, FINAL)
    put(tmp_path, LOG)
    service = Service(state=state, name="demo" if state == "deleted" else None)
    cleaned(tmp_path, service, forget=forget, dry_run=True)
    assert left(tmp_path) == {FINAL, LOG}
    report = cleaned(tmp_path, service, forget=forget)
    assert (tmp_path / str(STUDY)).exists() is stays
    assert report.removed_bytes == (0 if stays else 10)


def test_a_study_of_another_name_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, RESUME)
    assert list(clean(tmp_path, Service(verdict(7, Keep.NOTHING)), study="other")) == []
    assert left(tmp_path) == {RESUME}


def test_what_is_written_after_the_list_was_made_stays(tmp_path: Path) -> None:
    """Such as that of a trial which was claimed meanwhile, and the next partial file of one that runs."""
    put(tmp_path, FINAL)
    service = Service(verdict(7, Keep.NOTHING), verdict(8, Keep.NOTHING))

    def claimed_meanwhile() -> None:
        put(tmp_path, RESUME)
        put(tmp_path, RESUME, trial=8)

    service.before_answer = claimed_meanwhile
    cleaned(tmp_path, service)
    assert (left(tmp_path), left(tmp_path, 8)) == ({RESUME}, {RESUME})


def test_a_cleanup_that_was_interrupted_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.lease import cleanup

    for name in (FINAL, BEST):
        put(tmp_path, name)
        put(tmp_path, name, trial=8)
    service = Service(verdict(7, Keep.NOTHING), verdict(8, Keep.NOTHING))

    def killed(root: Path, study: UUID, trial_id: int, names: list[str]) -> object:
        if trial_id == 8:
            raise KeyboardInterrupt
        return remove_files(root, study, trial_id, names[:1])

    with monkeypatch.context() as patched:
        patched.setattr(cleanup, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            cleaned(tmp_path, service)
    assert [len(left(tmp_path, trial)) for trial in (7, 8)] == [1, 2]
    cleaned(tmp_path, service)
    assert [left(tmp_path, trial) for trial in (7, 8)] == [set(), set()]


class Judge(Service):
    """A service that judges real records, as the real one does."""

    def __init__(self, spec: StudySpec, records: list[TrialRecord], exported: set[int]) -> None:
        found = answer(spec, records)
        judged = verdicts(spec, records, needed(found, records, finalists=None, exported=exported))
        policy = spec.checkpoints
        quota = None if policy is None or policy.quota_gb is None else 20
        super().__init__(
            *(verdict(one.trial.id, one.keep, last=_last(one.trial)) for one in judged),
            quota_bytes=quota,
            worst_first=worst_first(found, judged),
        )


def _last(record: TrialRecord) -> str:
    return FINAL if record.state.is_terminal else RESUME


@settings(max_examples=25)
@given(any_trials(), POLICIES, st.sets(st.integers(0, 9)))
def test_for_any_trials_and_policy_the_files_that_are_needed_survive(
    records: list[TrialRecord], policy: dict[str, Any] | None, exported: set[int]
) -> None:
    spec = spec_with(checkpoints=policy) if policy is not None else spec_with()
    found = answer(spec, records)
    best = set() if found is None else {*found.winner.trials, found.luckiest}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for record in records:
            for name in EVERYTHING:
                put(root, name, trial=record.id)
        list(clean(root, Judge(spec, records, exported)))
        for record in records:
            stays = left(root, record.id)
            assert LOG in stays
            if not record.state.is_terminal:
                assert stays == {*EVERYTHING} - {OLD_PARTIAL}
            elif record.state in (TrialState.FAILED, TrialState.WITHDRAWN):
                assert stays == {LOG}
            elif record.number in best or record.number in exported or record.replicate_of is not None:
                assert {FINAL, BEST, NTH} <= stays
            else:
                assert stays <= {FINAL, BEST, NTH, LOG}
                assert policy is not None or stays == {FINAL, BEST, NTH, LOG}


def test_a_worker_cleans_up_at_once_and_then_not_too_often(tmp_path: Path) -> None:
    clock = Clock()
    service = Service(verdict(7, Keep.NOTHING))
    clean_up = WorkerCleanup(tmp_path, service, clock=clock)
    put(tmp_path, FINAL)
    log = tmp_path / ".standby-4711-1-locked.log"
    log.touch()
    os.utime(log, (0, 0))
    clean_up()
    assert left(tmp_path) == set()
    assert not log.exists()
    put(tmp_path, FINAL)
    clock.now += EVERY_SECONDS - 1
    clean_up()
    assert left(tmp_path) == {FINAL}
    clock.now += 1
    clean_up()
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    "error", [ApiUnavailableError("away"), ApiRefusedError("of an earlier release"), OSError(5, "Input/output error")]
)
def test_no_cleanup_ends_a_worker(tmp_path: Path, error: Exception) -> None:
    put(tmp_path, FINAL)
    service = Service(verdict(7, Keep.NOTHING))

    def fail() -> None:
        raise error

    service.before_answer = fail
    WorkerCleanup(tmp_path, service, clock=Clock())()
    assert left(tmp_path) == {FINAL}
