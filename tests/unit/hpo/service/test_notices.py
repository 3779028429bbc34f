"""Looking at the data set of a new study does not keep it waiting."""

from __future__ import annotations

from threading import Event

from hpo.errors import DataNotSeenError
from hpo.service.notices import DataSeen, seen

from ..records import spec_with


def test_a_count_that_does_not_come_is_not_waited_for() -> None:
    answers = Event()

    def count(_: object) -> int:
        answers.wait()
        return 16

    try:
        assert seen(spec_with(), count, seconds=0.01) == DataSeen()
    finally:
        answers.set()


def test_the_count_is_returned_and_without_a_reader_nothing_is_known() -> None:
    epochs = spec_with().task.epochs
    assert seen(spec_with(), lambda spec: spec.task.epochs, seconds=60) == DataSeen(clips=epochs)
    assert seen(spec_with(), None, seconds=60) == DataSeen()


def test_a_data_set_that_cannot_be_read_is_a_problem_and_any_other_error_is_none() -> None:
    for error, found in (
        (DataNotSeenError("there is no folder /data"), DataSeen(problem="there is no folder /data")),
        (OSError("stale file handle"), DataSeen()),
    ):

        def count(_: object, error: Exception = error) -> int:
            raise error

        assert seen(spec_with(), count, seconds=60) == found
