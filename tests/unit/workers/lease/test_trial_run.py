"""One trial over scripted messages: what the training process is asked for, and what the API is told at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest

from hpo.errors import AuthenticationError
from hpo.protocol import FinishRequest, Lease, ReleaseRequest
from hpo.trial import Decision, FailureKind, Fault
from workers.checkpoints.folder import TrialFolder, Writable
from workers.device.main_memory import Shortage
from workers.lease.inbox import Message, Shutdown
from workers.lease.log_lines import progress_of
from workers.lease.reporter import Decided, Delivered, LeaseLost, Unanswered
from workers.lease.trial_run import DRAIN_SECONDS, EXIT_SECONDS, HAND_IN_SECONDS, TIME_LIMIT_GRACE_SECONDS, TrialRun
from workers.process.child import ProcessExited
from workers.process.messages import Alive, Command, Failed, Interrupted, Job, Note, Preparation, WorkerFault

from ..tiny import PROGRESS
from .fakes import (
    LEASE_ID,
    Clock,
    FakeChild,
    FakeReporter,
    ScriptedInbox,
    confusion,
    epoch_done,
    finished,
    loaded_weights,
    make_lease,
    measurement,
    started,
)

CONTINUE = Decided(decision=Decision.CONTINUE, epoch=1)
STOP = Decided(decision=Decision.STOP, epoch=1)
PAUSE = Decided(decision=Decision.PAUSE, epoch=1)
ABANDON = Decided(decision=Decision.ABANDON, epoch=1)
INTERRUPTED = Interrupted(checkpoint="/c/interrupted.pt")
EXITED = ProcessExited(returncode=0)


class Played:
    """A run that is over, and everything around it."""

    def __init__(
        self,
        script: tuple[Message | float, ...],
        *,
        lease: Lease,
        folder: Path,
        printed: str,
        unavailable: bool,
        device: Literal["cpu", "cuda"],
    ) -> None:
        self.clock = Clock()
        self._began = self.clock.now
        self.inbox = ScriptedInbox(self.clock, script)
        self.child = FakeChild(printed=printed)
        self.folder = TrialFolder(folder, attempt=lease.attempt)
        self.reporter = FakeReporter(self.inbox.put, unavailable=unavailable)
        self.job = Job(
            config={},
            task=lease.task,
            folder=folder,
            attempt=lease.attempt,
            resume=False,
            cache_dir=folder,
            device=device,
            threads=1,
        )
        self.run = TrialRun(
            lease,
            job=self.job,
            child=self.child,
            folder=self.folder,
            reporter=self.reporter,
            inbox=self.inbox,
            clock=self.clock,
        )
        self.run.run()

    @property
    def seconds(self) -> float:
        """How long it took, by the clock."""
        return self.clock.now - self._began

    @property
    def finish(self) -> FinishRequest:
        """The one last message, a result."""
        [last] = self.reporter.last
        assert isinstance(last, FinishRequest)
        return last

    @property
    def release(self) -> ReleaseRequest:
        """The one last message, a release."""
        [last] = self.reporter.last
        assert isinstance(last, ReleaseRequest)
        return last


Play = Callable[..., Played]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run one trial over messages; a float among them is a time in seconds in which none arrives."""

    def run(
        *script: Message | float,
        lease: Lease | None = None,
        printed: str = "",
        unavailable: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> Played:
        return Played(
            script,
            lease=lease or make_lease(),
            folder=tmp_path / "trial",
            printed=printed,
            unavailable=unavailable,
            device=device,
        )

    return run


def _write(file: Writable) -> None:
    file.write(b"weights")


# ---------------------------------------------------------------- the usual course


def test_progress_is_logged_every_half_minute(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    preparation = Preparation(stage="decoding", done=3, total=12, seconds_left=None)
    preparing: list[Message | float] = [20.0, Alive(is_training=False, steps=3, progress=preparation)]
    line = "trial 3 of demo: data set: decoding [#####---------------] 3/12 videos"
    play(*preparing * 4, started(), finished(), EXITED)  # after 40 s and after 80 s
    steady = [message for message in caplog.messages if "data set" in message]
    caplog.clear()
    # After 40 s; after 80 s an epoch was over 20 s ago.
    play(*preparing * 3, started(), epoch_done(1), CONTINUE, *preparing, finished(), EXITED)
    interrupted = [message for message in caplog.messages if "data set" in message]
    assert (steady, interrupted) == ([line] * 2, [line])


def test_every_sign_of_progress_is_there_for_the_next_heartbeat(play: Play) -> None:
    preparation = Preparation(stage="decoding", done=3, total=12, seconds_left=None)
    preparing = Alive(is_training=False, steps=3, progress=preparation)
    training = Alive(is_training=True, steps=4, progress=PROGRESS)
    played = play(preparing, started(), Alive(is_training=True, steps=3), training, finished(), EXITED)
    assert played.reporter.progress == [progress_of(preparation), progress_of(PROGRESS)]
    assert played.reporter.progress[1].clips_per_second == PROGRESS.clips_per_second


def test_a_trial_is_trained_reported_and_finished(play: Play) -> None:
    last = finished(confusion=confusion(2))
    played = play(started(), epoch_done(1), CONTINUE, epoch_done(2), CONTINUE, last, EXITED)
    assert played.child.job == played.job
    assert played.reporter.confusions == [confusion(1), confusion(2)]
    assert played.child.log == played.folder.log
    assert played.reporter.reports == [([1], "/c/e1.pt", 1001), ([2], "/c/e2.pt", 1002)]
    assert played.child.actions == ["continue", "continue"]
    assert played.finish == FinishRequest(
        attempt=1,
        lease_id=LEASE_ID,
        outcome="completed",
        metrics={"val_top1": 0.4},
        checkpoint="/c/final.pt",
        dataset_version="v1",
        environment={"threads": 1},
        peak_memory_bytes=2000,
        confusion=confusion(2),
    )
    assert played.reporter.calls == ["start", "close"]
    assert played.child.patience == [EXIT_SECONDS, 0.0]
    assert played.run.fatal is None


def test_what_a_trial_starts_from_is_reported_and_logged(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    note = "the file is of TSM, which tsn computes only with shift = true"
    played = play(started(weights=[loaded_weights(notes=[note])]), finished())
    assert played.reporter.weights == [loaded_weights(notes=[note])]
    said = "starts from k400.pth (SHA-256 111111111111): 318 tensors loaded, 2 reset; " + note
    assert f"trial 3 of demo: {said}" in caplog.messages
    assert play(started(), finished()).reporter.weights is None


def test_the_run_takes_messages_of_its_own_lease_and_lets_the_process_send_under_it(play: Play) -> None:
    played = play(finished())
    assert played.inbox.leases_asked_for == {LEASE_ID}
    assert played.child.deliver is not None
    played.child.deliver(Note(text="late"))
    assert played.inbox.put_with[-1] == (Note(text="late"), LEASE_ID)


def test_each_report_is_answered_with_the_epoch_that_the_api_knows(play: Play) -> None:
    known = Decided(decision=Decision.CONTINUE, epoch=2)
    played = play(started(), epoch_done(1), epoch_done(2), epoch_done(3), known, finished())
    assert played.child.commands == [Command(action="continue", epoch=2)]


def test_while_the_api_does_not_answer_training_continues_with_the_newest_epoch(play: Play) -> None:
    played = play(started(), epoch_done(1), epoch_done(2), Unanswered(), finished())
    assert played.child.commands == [Command(action="continue", epoch=2)]


def test_before_the_first_epoch_the_newest_one_is_that_of_the_lease(play: Play) -> None:
    played = play(Unanswered(), finished(), lease=make_lease(attempt=2, epochs_done=3))
    assert played.child.commands == [Command(action="continue", epoch=3)]


def test_a_resumed_trial_reports_what_was_never_reported(play: Play) -> None:
    begun = started(epoch=2, batch=1, checkpoint="/c/a1-e2.pt", measurements=[measurement(1), measurement(2)])
    played = play(begun, Unanswered(), finished(), lease=make_lease(attempt=2, checkpoint="/c/old.pt"))
    assert played.reporter.reports == [([1, 2], "/c/a1-e2.pt", None)]
    assert played.child.commands == [Command(action="continue", epoch=2)]


def test_a_resumed_trial_without_news_reports_nothing_and_keeps_its_checkpoint(play: Play) -> None:
    begun = started(epoch=2, checkpoint="/c/a1-e2.pt")
    played = play(begun, ProcessExited(returncode=1), lease=make_lease(attempt=2, checkpoint="/c/old.pt"))
    assert played.reporter.reports == []
    assert played.release.checkpoint == "/c/a1-e2.pt"


def test_the_log_names_trial_epochs_and_result(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play(
        started(epoch=1, batch=2, checkpoint="/c/e1.pt"),
        Note(text="data set: 3 of 4 videos"),
        Note(text="2 videos are left out", warning=True),
        epoch_done(2),
        finished(),
        lease=make_lease(attempt=2),
    )
    assert caplog.messages == [
        "trial 3 of demo: claimed, attempt 2; lr 0.01",
        "trial 3 of demo: resumes after epoch 1, batch 2",
        "trial 3 of demo: data set: 3 of 4 videos",
        "trial 3 of demo: 2 videos are left out",
        "trial 3 of demo: epoch 2/4  val_top1 0.2000  val_loss 0.5000  2.0 s",
        "trial 3 of demo: completed, val_top1 0.4000",
    ]
    assert [record.levelname for record in caplog.records if "videos" in record.message] == ["INFO", "WARNING"]


# ---------------------------------------------------------------- what ends a trial


@pytest.mark.parametrize("outcome", ["stopped", "completed"])
def test_a_result_is_handed_in_and_the_resume_points_are_removed(play: Play, tmp_path: Path, outcome: str) -> None:
    folder = TrialFolder(tmp_path / "trial", attempt=1)
    point = folder.write_resume_point(_write, epoch=1, batch=0)
    final = folder.write_final(_write)
    assert play(finished(outcome)).finish.outcome == outcome
    assert not point.exists()
    assert final.exists()


@pytest.mark.parametrize(
    "last",
    [
        INTERRUPTED,
        WorkerFault(fault=Fault.STORAGE, message="the disk is full"),
        Failed(failure_kind=FailureKind.OOM, message="did not fit"),  # a larger GPU may continue it
    ],
)
def test_a_trial_that_may_go_on_elsewhere_keeps_its_resume_points(play: Play, tmp_path: Path, last: Any) -> None:
    folder = TrialFolder(tmp_path / "trial", attempt=1)
    point = folder.write_resume_point(_write, epoch=1, batch=0)
    play(last)
    assert point.exists()


def test_a_stop_is_asked_for_once_and_ends_with_a_result(play: Play) -> None:
    played = play(started(), epoch_done(1), STOP, STOP, PAUSE, finished("stopped"), STOP)
    assert played.child.actions == ["stop"]
    assert (played.finish.outcome, played.finish.metrics) == ("stopped", {"val_top1": 0.4})


def test_a_stop_before_the_first_epoch_has_no_result_to_keep(play: Play) -> None:
    played = play(started(), STOP, finished("stopped", metrics={}, checkpoint=None))
    assert (played.release.reason, played.release.message) == ("drained", "stopped within the first epoch")


def test_a_pause_gives_the_trial_back_with_its_checkpoint(play: Play) -> None:
    played = play(started(), epoch_done(1), PAUSE, INTERRUPTED)
    assert played.child.actions == ["pause"]
    assert (played.release.reason, played.release.checkpoint) == ("paused", "/c/interrupted.pt")
    assert (played.release.attempt, played.release.lease_id) == (1, LEASE_ID)


def test_a_cancelled_trial_ends_at_once_and_is_given_back(play: Play) -> None:
    played = play(started(), epoch_done(1), ABANDON, EXITED)
    assert played.child.actions == []
    assert played.child.patience[0] == 0.0
    assert (played.release.reason, played.release.message) == ("drained", "cancelled")


def test_a_result_that_comes_after_the_trial_was_cancelled_is_dropped(play: Play) -> None:
    played = play(started(), epoch_done(1), ABANDON, finished(), EXITED)
    assert played.release.reason == "drained"


def test_a_failure_of_the_trial_is_its_result(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    failed = Failed(
        failure_kind=FailureKind.OOM,
        message="it did not fit\nTraceback ...",
        dataset_version="v1",
        environment={"threads": 1},
        peak_memory_bytes=3000,
    )
    played = play(started(), failed, EXITED)
    assert played.finish == FinishRequest(
        attempt=1,
        lease_id=LEASE_ID,
        outcome="failed",
        failure_kind=FailureKind.OOM,
        failure_message="it did not fit\nTraceback ...",
        dataset_version="v1",
        environment={"threads": 1},
        peak_memory_bytes=3000,
    )
    assert caplog.messages == ["trial 3 of demo: failed (oom): it did not fit"]


def test_a_failure_without_a_message_is_a_result_too(play: Play) -> None:
    played = play(Failed(failure_kind=FailureKind.ERROR, message=""))
    assert played.finish.failure_kind is FailureKind.ERROR


def test_a_fault_of_the_machine_gives_the_trial_back_as_crashed(play: Play) -> None:
    played = play(started(), epoch_done(1), WorkerFault(fault=Fault.STORAGE, message="the disk is full"))
    release = played.release
    assert (release.reason, release.message, release.checkpoint) == ("crashed", "the disk is full", "/c/e1.pt")
    assert release.fault is Fault.STORAGE


@pytest.mark.parametrize(
    ("returncode", "printed", "message"),
    [
        (-9, "", "the training process was killed by SIGKILL"),
        (-11, "Fatal", "the training process was killed by SIGSEGV\nFatal"),
        (3, "", "the training process ended with status 3 without a result"),
    ],
)
def test_a_process_that_ends_without_a_result_crashed_and_its_last_words_are_kept(
    play: Play, returncode: int, printed: str, message: str
) -> None:
    played = play(started(), epoch_done(1), ProcessExited(returncode=returncode), printed=printed)
    release = played.release
    assert (release.reason, release.message, release.checkpoint) == ("crashed", message, "/c/e1.pt")


FULL = ProcessExited(returncode=-9, shortage=Shortage.ITSELF, peak_bytes=7_000)


def test_a_process_that_took_all_main_memory_did_not_fit(play: Play) -> None:
    played = play(started(), epoch_done(1), FULL, printed="Killed")
    assert (played.finish.outcome, played.finish.failure_kind) == ("failed", FailureKind.OOM)
    assert played.finish.peak_memory_bytes == 7_000
    assert played.finish.failure_message == f"{FULL}\nKilled"
    assert played.run.fault is None


def test_beside_a_gpu_the_optimizer_does_not_learn_of_main_memory(play: Play) -> None:
    played = play(started(), epoch_done(1), FULL, device="cuda")
    assert (played.release.reason, played.release.fault) == ("crashed", Fault.PROCESS)


def test_a_process_that_the_kernel_ended_for_others_is_given_back_without_a_retry(play: Play) -> None:
    played = play(started(), epoch_done(1), ProcessExited(returncode=-9, shortage=Shortage.OTHERS))
    assert (played.release.reason, played.release.fault) == ("crashed", Fault.SYSTEM)


@pytest.mark.parametrize("fatal", [None, AuthenticationError("the token is not known")])
def test_a_lost_lease_ends_the_training_and_nothing_is_reported(play: Play, fatal: AuthenticationError | None) -> None:
    played = play(started(), epoch_done(1), LeaseLost(reason="another worker owns it", fatal=fatal))
    assert played.reporter.last == []
    assert played.child.patience[0] == 0.0
    assert played.run.fatal is fatal
    assert played.reporter.calls == ["start", "close"]


def test_decisions_after_the_end_of_training_change_nothing(play: Play) -> None:
    played = play(started(), epoch_done(1), finished(), CONTINUE, STOP, PAUSE, ABANDON, EXITED)
    assert played.child.actions == []
    assert played.finish.outcome == "completed"


def test_an_error_of_the_run_leaves_neither_process_nor_thread_behind(play: Play, tmp_path: Path) -> None:
    clock = Clock()

    class BrokenInbox(ScriptedInbox):
        def get(self, *, lease_id: UUID | None, timeout_seconds: float | None) -> Message | None:
            raise ZeroDivisionError

    inbox = BrokenInbox(clock, [])
    child, reporter = FakeChild(), FakeReporter(inbox.put)
    lease = make_lease()
    folder = TrialFolder(tmp_path, attempt=1)
    job = play(finished()).job
    run = TrialRun(lease, job=job, child=child, folder=folder, reporter=reporter, inbox=inbox, clock=clock)
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert child.patience == [0.0]
    assert reporter.calls == ["start", "close"]


# ---------------------------------------------------------------- signals


def test_a_signal_drains_the_trial(play: Play) -> None:
    played = play(started(), epoch_done(1), CONTINUE, Shutdown(), INTERRUPTED)
    assert played.child.actions == ["continue", "drain"]
    assert (played.release.reason, played.release.checkpoint) == ("drained", "/c/interrupted.pt")


def test_a_signal_does_not_turn_a_stop_into_a_release(play: Play) -> None:
    played = play(started(), epoch_done(1), STOP, Shutdown(), finished("stopped"))
    assert played.child.actions == ["stop"]
    assert (played.finish.outcome, played.finish.metrics) == ("stopped", {"val_top1": 0.4})


def test_a_signal_turns_a_pause_into_a_drain(play: Play) -> None:
    played = play(started(), epoch_done(1), PAUSE, Shutdown(), INTERRUPTED)
    assert played.child.actions == ["pause", "drain"]
    assert played.release.reason == "drained"


@pytest.mark.parametrize("decision", [STOP, PAUSE])
def test_a_trial_that_drains_takes_no_other_request(play: Play, decision: Decided) -> None:
    played = play(started(), epoch_done(1), Shutdown(), decision, INTERRUPTED)
    assert played.child.actions == ["drain"]
    assert played.release.reason == "drained"


def test_a_trial_that_is_cancelled_while_it_drains_ends_at_once(play: Play) -> None:
    played = play(started(), Shutdown(), ABANDON)
    assert played.release.message == "cancelled"
    assert played.seconds == 0.0


def test_a_result_that_comes_while_the_trial_drains_is_handed_in(play: Play) -> None:
    assert play(started(), epoch_done(4), Shutdown(), finished()).finish.outcome == "completed"


@pytest.mark.parametrize("decision", [CONTINUE, STOP])
def test_a_process_that_does_not_react_to_the_signal_is_killed_in_time(play: Play, decision: Decided) -> None:
    played = play(started(), epoch_done(1), decision, Shutdown(), 10.0, Unanswered())
    assert played.seconds == DRAIN_SECONDS
    assert played.child.patience[0] == 0.0
    release = played.release
    assert (release.reason, release.message) == ("drained", "no checkpoint was written in the time for draining")
    assert release.checkpoint == "/c/e1.pt"


def test_what_a_process_sent_before_it_was_killed_does_not_replace_the_release(play: Play) -> None:
    played = play(started(), epoch_done(1), Shutdown(), DRAIN_SECONDS, finished(), EXITED)
    assert played.release.reason == "drained"


def test_after_a_signal_the_worker_does_not_wait_for_ever_for_the_api(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    played = play(started(), Shutdown(), 3.0, INTERRUPTED, unavailable=True)
    assert played.release.reason == "drained"
    assert played.seconds == DRAIN_SECONDS + HAND_IN_SECONDS < 30
    assert "the lease will expire" in caplog.text
    assert played.reporter.calls == ["start", "close"]


def test_without_a_signal_the_worker_waits_for_the_api_as_long_as_it_takes(play: Play) -> None:
    played = play(started(), finished(), 1e6, Unanswered(), 1e6, Delivered(), unavailable=True)
    assert played.seconds == 2e6
    assert played.finish.outcome == "completed"


def test_a_signal_while_the_result_waits_for_the_api_limits_the_wait_and_keeps_the_result(play: Play) -> None:
    played = play(started(), finished(), 50.0, Shutdown(), unavailable=True)
    assert played.finish.outcome == "completed"
    assert played.seconds == 50.0 + DRAIN_SECONDS + HAND_IN_SECONDS
    assert played.child.actions == []


# ---------------------------------------------------------------- the time limit


def test_a_process_that_passes_its_time_limit_and_hangs_is_killed_and_failed(play: Play) -> None:
    lease = make_lease(timeout_minutes=2.0)
    played = play(100.0, started(), lease=lease)
    assert played.seconds == 100.0 + 120.0 + TIME_LIMIT_GRACE_SECONDS
    assert (played.finish.outcome, played.finish.failure_kind) == ("failed", FailureKind.TIMEOUT)
    assert played.child.patience[0] == 0.0


def test_a_process_that_keeps_its_time_limit_is_left_alone(play: Play) -> None:
    played = play(started(), 179.0, finished(), 1e6, Delivered(), lease=make_lease(timeout_minutes=2.0))
    assert played.finish.outcome == "completed"


def test_the_time_limit_does_not_lengthen_a_drain(play: Play) -> None:
    played = play(Shutdown(), 1.0, started(), lease=make_lease(timeout_minutes=2.0))
    assert played.seconds == DRAIN_SECONDS
    assert played.release.reason == "drained"


def test_without_a_time_limit_an_epoch_may_last_for_ever(play: Play) -> None:
    batches: list[Message | float] = []
    for steps in range(100):
        batches += [Alive(is_training=True, steps=steps), 290.0, Alive(is_training=True, steps=steps), 290.0]
    played = play(started(), *batches, epoch_done(1), finished())
    assert played.finish.outcome == "completed"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([1e9], "gave no sign of life for"),
        ([started(), Alive(is_training=True, steps=1), 1e9], "gave no sign of life for"),
        ([started(), *[Alive(is_training=True, steps=1), 250.0] * 6], "no batch was trained for"),
        ([started(), *[Alive(is_training=True, steps=1), 5.0] * 300], "no batch was trained for"),
        ([*[Alive(is_training=False, steps=1), 250.0] * 200], "the preparation of the data set stood still for"),
    ],
)
def test_a_process_that_hangs_is_killed_and_the_trial_given_back(
    play: Play, script: list[Message | float], said: str
) -> None:
    played = play(*script)
    assert (played.release.reason, played.release.fault) == ("crashed", Fault.HANG)
    assert said in (played.release.message or "")
    assert played.child.patience[0] == 0.0
    assert played.run.fault is Fault.HANG


def test_a_result_that_waits_for_the_api_is_no_hang(play: Play) -> None:
    played = play(started(), finished(), 1e6, Delivered(), unavailable=True)
    assert [type(last) for last in played.reporter.last] == [FinishRequest]
    assert played.run.fault is None


def test_a_folder_that_has_gone_after_the_result_costs_nothing(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: TrialFolder) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(TrialFolder, "remove_resume_points", refuse)
    assert play(finished("completed")).finish.outcome == "completed"
    assert "its last checkpoints stay" in caplog.text
