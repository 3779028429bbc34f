"""The reporter over a scripted API. Its loop runs in the test's own thread, and waits are steps of a script."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from hpo.errors import AuthenticationError, PermissionDeniedError, StaleLeaseError
from hpo.protocol import FinishRequest, Lease, Measurement, Progress, ReleaseRequest, ReportReply, ReportRequest
from hpo.trial import Decision
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.attempt_log import AttemptLog
from workers.lease.reporter import (
    LOG_SECONDS,
    MEASUREMENTS_PER_REPORT,
    Answer,
    Decided,
    Delivered,
    LeaseLost,
    Reporter,
    Unanswered,
)

from .fakes import HEARTBEAT_SECONDS, LEASE_ID, Clock, FakeApi, confusion, loaded_weights, make_lease, measurement

T = TypeVar("T")
FINISH = FinishRequest(attempt=1, lease_id=LEASE_ID, outcome="completed", metrics={"val_top1": 0.4})
RELEASE = ReleaseRequest(attempt=1, lease_id=LEASE_ID, reason="drained", checkpoint="/c/e2.pt")
AWAY = ApiUnavailableError("the API is away")


class ScriptOver(Exception):
    """The reporter waits, and nothing more is to happen."""


class ScriptedCondition(threading.Condition):
    """Where the reporter would wait, the next step of a script happens instead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.steps: list[Callable[[], None]] = []
        self.waits: list[tuple[float | None, bool]] = []
        """Of every wait: its longest time in seconds, and whether it ended before."""

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        ended = predicate()
        if not ended:
            if not self.steps:
                raise ScriptOver
            self.steps.pop(0)()
            ended = predicate()
            if not ended:
                self._clock.now += timeout or 0.0
        self.waits.append((timeout, bool(ended)))
        return ended


class Bench:
    """A reporter that is not started, and what it does when its loop runs."""

    def __init__(self, api: FakeApi, lease: Lease, log: Path | None = None) -> None:
        self.api = api
        self.answers: list[Answer] = []
        clock = Clock()
        self.condition = ScriptedCondition(clock)
        self.reporter = Reporter(
            api,
            lease,
            self.answers.append,
            log=None if log is None else AttemptLog(log),
            condition=self.condition,
            clock=clock,
        )

    def measured(self, *steps: int) -> Callable[[], None]:
        """Return the step that these epochs are reported."""
        measurements = [measurement(step) for step in steps]
        return lambda: self.reporter.report(measurements, checkpoint=f"/c/e{steps[-1]}.pt", peak=1000 + steps[-1])

    def deliver(self, last: FinishRequest | ReleaseRequest) -> Callable[[], None]:
        """Return the step that the last message is queued."""
        return lambda: self.reporter.deliver(last)

    def run(self, *steps: Callable[[], None]) -> None:
        """Let the loop run through these steps, one in each wait."""
        self.condition.steps = list(steps)
        try:
            self.reporter.run()
        except ScriptOver:
            return


def _bench(
    *,
    reports: Iterable[Decision | Exception] = (),
    endings: Iterable[Exception] = (),
    epochs_done: int = 0,
) -> Bench:
    return Bench(FakeApi(reports=reports, endings=endings), make_lease(attempt=2, epochs_done=epochs_done))


def _nothing() -> None:
    """Let the time of a wait run out."""


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


def test_a_heartbeat_is_sent_after_every_interval() -> None:
    bench = _bench(epochs_done=3)
    bench.run(_nothing, _nothing)
    heartbeat = ReportRequest(attempt=2, lease_id=LEASE_ID)
    assert bench.api.calls == [heartbeat, heartbeat]
    assert bench.api.trial_ids == {9}
    assert bench.condition.waits == [(HEARTBEAT_SECONDS, False)] * 2
    assert bench.answers == [Decided(decision=Decision.CONTINUE, epoch=3)] * 2


def test_a_measurement_is_sent_at_once_with_its_checkpoint() -> None:
    bench = _bench(reports=[Decision.STOP])
    bench.run(bench.measured(1))
    assert bench.condition.waits == [(HEARTBEAT_SECONDS, True)]
    assert bench.api.calls == [
        ReportRequest(
            attempt=2,
            lease_id=LEASE_ID,
            measurements=[measurement(1)],
            checkpoint="/c/e1.pt",
            peak_memory_bytes=1001,
        )
    ]
    assert bench.answers == [Decided(decision=Decision.STOP, epoch=1)]


def test_what_the_training_started_from_is_sent_at_once_and_once() -> None:
    bench = _bench(reports=[AWAY])
    bench.run(lambda: bench.reporter.report_start([loaded_weights()], "v1"), bench.measured(1), _nothing)
    first, again, last = bench.api.calls
    weights_alone = ReportRequest(attempt=2, lease_id=LEASE_ID, weights=[loaded_weights()], dataset_version="v1")
    measured = {"checkpoint": "/c/e1.pt", "peak_memory_bytes": 1001, "measurements": [measurement(1)]}
    assert bench.condition.waits[0] == (HEARTBEAT_SECONDS, True)
    assert first == weights_alone
    assert again == weights_alone.model_copy(update=measured)
    assert last == ReportRequest(attempt=2, lease_id=LEASE_ID, checkpoint="/c/e1.pt", peak_memory_bytes=1001), (
        "the third is a heartbeat"
    )


def test_the_log_says_what_the_api_knows_of_other_data(caplog: pytest.LogCaptureFixture) -> None:
    bench = _bench()
    bench.api.notice = "the data set is version v1 here, and another trial was trained on v0"
    bench.run(lambda: bench.reporter.report_start([], "v1"), bench.measured(1))
    assert [call.dataset_version for call in bench.api.calls if isinstance(call, ReportRequest)] == ["v1", None]
    assert caplog.text.count("trial 3: the data set is version v1 here, and another trial was trained on v0") == 1


def test_what_the_training_started_from_is_sent_before_the_result() -> None:
    bench = _bench()
    bench.reporter.report_start([loaded_weights()], "v1")
    bench.reporter.deliver(FINISH)
    bench.run()
    assert [type(call) for call in bench.api.calls] == [ReportRequest, FinishRequest]


def test_the_newest_progress_goes_with_the_next_report_and_seldom() -> None:
    bench = _bench(reports=[Decision.CONTINUE, AWAY])
    points = [Progress(stage="preparing", done=done, total=9) for done in range(5)]

    def seen(*which: int) -> None:
        for place in which:
            bench.reporter.show(points[place])

    def measured_soon() -> None:
        seen(3)
        bench.measured(1)()

    bench.run(lambda: seen(0, 1), lambda: seen(2), _nothing, measured_soon, lambda: seen(4), _nothing, _nothing)
    sent = [(call.progress, len(call.measurements)) for call in bench.api.calls if isinstance(call, ReportRequest)]
    # The second is lost and its progress sent again; the fourth comes too soon, and what follows it is newer.
    assert sent == [(points[1], 0), (points[2], 0), (points[2], 0), (None, 1), (points[4], 0), (None, 0), (None, 0)]
    assert bench.condition.waits[0] == (HEARTBEAT_SECONDS, False), "it does not hasten a report"


def test_the_newest_confusion_matrix_is_sent_once() -> None:
    bench = _bench(reports=[AWAY])

    def measured(step: int) -> None:
        bench.reporter.report([measurement(step)], checkpoint="/c", confusion=confusion(step))

    bench.run(lambda: measured(1), lambda: measured(2), bench.measured(3), _nothing)
    sent = [call.confusion for call in bench.api.calls if isinstance(call, ReportRequest)]
    assert sent == [confusion(1), confusion(2), None, None]
    assert '"confusion"' not in bench.api.calls[-1].to_json(), "releases before refuse what they do not know"


def test_what_was_sent_is_not_sent_again_and_heartbeats_keep_naming_the_newest_checkpoint() -> None:
    bench = _bench()
    bench.run(bench.measured(1, 2), bench.measured(3), _nothing)
    assert bench.api.steps == [[1, 2], [3], []]
    heartbeat = bench.api.calls[-1]
    assert isinstance(heartbeat, ReportRequest)
    assert (heartbeat.checkpoint, heartbeat.peak_memory_bytes) == ("/c/e3.pt", 1003)
    assert [answer.epoch for answer in bench.answers if isinstance(answer, Decided)] == [2, 3, 3]


def test_what_is_queued_during_a_send_is_sent_next() -> None:
    bench = _bench()
    bench.api.during_report = bench.measured(2, 3)
    bench.run(bench.measured(1))
    assert bench.api.steps == [[1], [2, 3]]
    assert [answer.epoch for answer in bench.answers if isinstance(answer, Decided)] == [1, 3]


def test_the_last_message_that_is_queued_during_a_send_follows_it() -> None:
    bench = _bench()
    bench.api.during_report = bench.deliver(FINISH)
    bench.run(bench.measured(1))
    assert bench.api.steps == [[1]]
    assert bench.api.calls[-1] == FINISH


@pytest.mark.parametrize("last", [FINISH, RELEASE])
def test_the_last_message_goes_after_all_measurements_and_ends_the_reporter(
    last: FinishRequest | ReleaseRequest,
) -> None:
    bench = _bench()

    def all_at_once() -> None:
        bench.deliver(last)()
        bench.measured(1)()
        bench.measured(2)()

    bench.run(all_at_once, _nothing)
    assert bench.api.steps == [[1, 2]]
    assert bench.api.calls[1:] == [last]
    assert bench.answers == [Decided(decision=Decision.CONTINUE, epoch=2), Delivered()]
    assert bench.condition.steps == [_nothing], "it does not wait again"


def test_many_measurements_are_sent_in_several_reports_in_order() -> None:
    bench = _bench()
    steps = list(range(1, 2 * MEASUREMENTS_PER_REPORT + 2))
    bench.run(bench.measured(*steps))
    assert [len(sent) for sent in bench.api.steps] == [MEASUREMENTS_PER_REPORT, MEASUREMENTS_PER_REPORT, 1]
    assert [step for sent in bench.api.steps for step in sent] == steps


def test_during_an_outage_measurements_are_kept_and_then_sent_in_order_before_the_last_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    bench = _bench(reports=[Decision.CONTINUE, AWAY, AWAY, AWAY])
    bench.run(
        bench.measured(1), bench.measured(2), bench.measured(3), bench.measured(4), bench.deliver(FINISH), _nothing
    )
    assert bench.api.steps == [[1], [2], [2, 3], [2, 3, 4], [2, 3, 4]]
    assert bench.api.calls[-1] == FINISH
    assert bench.answers == [
        Decided(decision=Decision.CONTINUE, epoch=1),
        Unanswered(),
        Unanswered(),
        Unanswered(),
        Decided(decision=Decision.CONTINUE, epoch=4),
        Delivered(),
    ]
    assert caplog.messages[0] == "the API is away; training continues, and its reports are sent later"
    assert [message.startswith("the API answers again after") for message in caplog.messages] == [False, True]


def test_a_report_that_a_lost_reply_hides_is_repeated_as_it_was() -> None:
    bench = _bench(reports=[AWAY])
    bench.run(bench.measured(1), _nothing)
    first, second = bench.api.calls
    assert first == second


@pytest.mark.parametrize("last", [FINISH, RELEASE])
def test_a_last_message_that_fails_is_repeated_until_it_is_accepted(last: FinishRequest | ReleaseRequest) -> None:
    bench = _bench(endings=[AWAY, AWAY])
    bench.run(bench.deliver(last), _nothing, _nothing, _nothing)
    assert bench.api.calls == [last] * 3
    assert bench.answers == [Unanswered(), Unanswered(), Delivered()]


@pytest.mark.usefixtures("no_jitter")
def test_waits_grow_while_the_api_is_away_and_new_messages_do_not_shorten_them() -> None:
    bench = _bench(reports=[AWAY] * 7)
    bench.run(*[bench.measured(step) for step in range(1, 9)])
    assert bench.condition.waits[0] == (HEARTBEAT_SECONDS, True)
    assert bench.condition.waits[1:] == [(seconds, False) for seconds in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)]


@pytest.mark.usefixtures("no_jitter")
def test_the_first_success_resets_the_backoff() -> None:
    bench = _bench(reports=[AWAY, AWAY, Decision.CONTINUE, AWAY])
    bench.run(bench.measured(1), _nothing, _nothing, bench.measured(2), _nothing)
    assert bench.condition.waits == [
        (HEARTBEAT_SECONDS, True),
        (0.5, False),
        (1.0, False),
        (HEARTBEAT_SECONDS, True),
        (0.5, False),
    ]


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (0.1, 0.5), (3600.0, HEARTBEAT_SECONDS)])
def test_a_wait_that_the_api_asks_for_is_kept_but_the_lease_is_not_risked(asked: float, waited: float) -> None:
    bench = _bench(reports=[ApiUnavailableError("busy", retry_after=asked)])
    bench.run(bench.measured(1), _nothing)
    assert bench.condition.waits[1] == (waited, False)


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (StaleLeaseError("trial 9 belongs to another worker"), False),
        (ApiRefusedError("the API refused the report"), False),
        (AuthenticationError("the token is not known"), True),
        (PermissionDeniedError("the scope is missing"), True),
    ],
)
@pytest.mark.parametrize("where", ["report", "finish"])
def test_a_refusal_ends_the_reporter_and_a_refused_token_is_fatal(where: str, error: Exception, fatal: bool) -> None:
    bench = _bench(reports=[error]) if where == "report" else _bench(endings=[error])
    bench.run(bench.measured(1) if where == "report" else bench.deliver(FINISH), _nothing)
    assert len(bench.api.calls) == 1
    assert bench.answers == [LeaseLost(reason=str(error), fatal=error if fatal else None)]  # type: ignore[arg-type] # the fatal ones are HpoErrors
    assert bench.condition.steps == [_nothing], "it does not wait again"


def test_a_bug_ends_the_reporter_with_an_answer_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = _bench(reports=[ZeroDivisionError("division by zero")])
    bench.run(_nothing, _nothing)
    assert bench.answers == [LeaseLost(reason="ZeroDivisionError: division by zero")]
    assert "Traceback" in caplog.text


class BlockingApi(FakeApi):
    """Hands every report to the test, which decides when it is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: queue.Queue[ReportRequest] = queue.Queue()
        self.answer = threading.Event()

    def report(self, trial_id: int, request: ReportRequest) -> ReportReply:
        self.sent.put(request)
        assert self.answer.wait(30)
        return super().report(trial_id, request)


def test_the_thread_is_woken_by_a_measurement_and_closing_waits_for_the_call_under_way() -> None:
    api, answers = BlockingApi(), queue.Queue[Answer]()
    reporter = Reporter(api, make_lease(heartbeat_seconds=3600.0), answers.put)
    reporter.start()
    reporter.report([measurement(1)], checkpoint=None)
    assert api.sent.get(timeout=30).measurements == [measurement(1)]
    closing = threading.Thread(target=reporter.close)
    closing.start()
    assert answers.empty()
    api.answer.set()
    closing.join(30)
    assert not closing.is_alive()
    assert answers.get_nowait() == Decided(decision=Decision.CONTINUE, epoch=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "reporter-9"]


def test_a_reporter_that_is_closed_sends_nothing_more() -> None:
    api = FakeApi()
    reporter = Reporter(api, make_lease(heartbeat_seconds=3600.0), lambda _: None)
    reporter.start()
    reporter.close()
    late: list[Measurement] = [measurement(1)]
    reporter.report(late, checkpoint=None)
    assert api.calls == []


# ---------------------------------------------------------------- the log of the attempt


class Printed:
    """A log that grows."""

    def __init__(self, folder: Path, *, answers: Iterable[Exception | None] = ()) -> None:
        self.path = folder / "log"
        api = FakeApi()
        api.log_answers.extend(answers)
        self.bench = Bench(api, make_lease(attempt=2), self.path)

    def line(self) -> None:
        """Print a line of 4 bytes."""
        with self.path.open("a") as file:
            file.write("abc\n")

    @property
    def sent(self) -> list[tuple[int, int]]:
        """Where the parts begin and end."""
        return [(part.start, part.stop) for part in self.bench.api.parts]


def test_the_log_is_sent_with_heartbeats_every_half_minute_and_its_rest_before_the_result(tmp_path: Path) -> None:
    printed = Printed(tmp_path)
    bench = printed.bench
    assert LOG_SECONDS == 2 * HEARTBEAT_SECONDS
    seen: list[list[tuple[int, int]]] = []

    def step() -> None:
        seen.append(printed.sent)
        printed.line()

    bench.run(step, step, step, step, step, bench.deliver(FINISH))
    # The log is looked at after 30 and 60 s.
    assert seen == [[], [], [(0, 8)], [(0, 8)], [(0, 8), (8, 16)]]
    assert printed.sent == [(0, 8), (8, 16), (16, 20)]
    assert {(part.attempt, part.lease_id) for part in bench.api.parts} == {(2, LEASE_ID)}
    assert bench.api.calls[-1] == FINISH
    assert bench.answers[-1] == Delivered()


@pytest.mark.parametrize("refusal", [ApiRefusedError("404 Not Found"), StaleLeaseError("not yours")])
def test_an_api_that_takes_no_logs_is_asked_once(tmp_path: Path, refusal: Exception) -> None:
    printed = Printed(tmp_path, answers=[refusal])
    printed.bench.run(printed.line, _nothing, _nothing, _nothing, printed.bench.deliver(RELEASE))
    assert printed.sent == [(0, 4)]
    assert printed.bench.api.calls[-1] == RELEASE
    assert printed.bench.answers == [*[Decided(decision=Decision.CONTINUE, epoch=0)] * 4, Delivered()]


def test_a_log_that_could_not_be_sent_while_training_is_sent_later(tmp_path: Path) -> None:
    printed = Printed(tmp_path, answers=[AWAY])
    printed.bench.run(printed.line, _nothing, _nothing, _nothing)
    assert printed.sent == [(0, 4), (0, 4)]
    assert printed.bench.answers == [Decided(decision=Decision.CONTINUE, epoch=0)] * 4


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize(("failures", "sent"), [(1, 2), (2, 3), (3, 3), (9, 3)])
def test_the_end_of_a_log_is_sent_three_times_at_most_and_then_the_result(
    tmp_path: Path, failures: int, sent: int
) -> None:
    printed = Printed(tmp_path, answers=[AWAY] * failures)
    printed.line()
    printed.bench.run(printed.bench.deliver(FINISH), _nothing, _nothing)
    assert printed.sent == [(0, 4)] * sent
    assert printed.bench.api.calls == [FINISH]
    assert printed.bench.answers == [*[Unanswered()] * min(failures, 2), Delivered()]
