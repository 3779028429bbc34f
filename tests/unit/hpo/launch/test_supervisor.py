"""When a worker is started again, and when not: real processes, and a clock that the test turns."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from hpo.launch.supervisor import MOST_FAILURES, MOST_WAIT_SECONDS, WELL_SECONDS, Change, Slot, exit_status
from hpo.launch.worker import WorkerCommand


class _Program(WorkerCommand):
    """A worker whose end is known."""

    def __init__(self, code: str) -> None:
        super().__init__(name="cpu-0", options=[code])

    def arguments(self) -> list[str]:
        return [sys.executable, "-S", "-E", "-c", *self.options]


def _slot(tmp_path: Path, code: str) -> Slot:
    return Slot(_Program(code), log=tmp_path / "cpu-0.log", environment={})


def _run(slot: Slot, now: float) -> Change:
    """Start the process of a slot, and return what the slot says of its end."""
    started = slot.step(now)
    assert started is not None
    assert slot.pid is not None
    os.waitid(os.P_PID, slot.pid, os.WEXITED | os.WNOWAIT)
    change = slot.step(now)
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [(0, "ended", "ended"), (2, "given up", "its options are wrong"), (5, "given up", "the token is refused"),
     (7, "given up", "the machine cannot train"), (1, "waiting", "status 1 (no \\x1bfile); started again in 1 s;")],
)  # fmt: skip
def test_what_becomes_of_a_worker_is_said_by_its_exit_status(
    tmp_path: Path, status: int, state: str, said: str
) -> None:
    slot = _slot(tmp_path, f"print('no \\x1bfile'); raise SystemExit({status})")
    change = _run(slot, 0.0)
    assert slot.state == state
    assert said in change.sentence
    assert change.is_fault == (status != 0)
    assert exit_status([slot]) == (status if state == "given up" else 0)


def test_waits_double_up_to_a_limit_and_a_worker_that_never_runs_for_long_is_given_up(tmp_path: Path) -> None:
    slot = _slot(tmp_path, "import os; print(1, flush=True); os.kill(os.getpid(), 9)")
    now, waits = 0.0, []
    while slot.state == "waiting":
        change = _run(slot, now)
        start = now
        while slot.state == "waiting" and slot.pid is None and now < slot.starts_at:
            now += 0.25
        waits.append(now - start)
    assert "the signal SIGKILL, 8 times in a row, and is given up" in change.sentence
    assert len(waits) == MOST_FAILURES
    for failures, wait in enumerate(waits[:-1]):
        longest = min(MOST_WAIT_SECONDS, 2.0**failures)
        assert 0.75 * longest <= wait <= longest + 0.25
    assert slot.restarts == MOST_FAILURES - 1
    assert slot.log.read_text() == "1\n" * MOST_FAILURES, "the log has what each process said"
    assert exit_status([slot]) == 1


def test_after_a_worker_has_run_for_long_the_waits_begin_anew(tmp_path: Path) -> None:
    slot = _slot(tmp_path, "raise SystemExit(1)")
    for now in (0.0, 100.0, 200.0):
        _run(slot, now)
    assert slot.starts_at >= 203.0
    slot.step(300.0)
    assert slot.pid is not None
    os.waitid(os.P_PID, slot.pid, os.WEXITED | os.WNOWAIT)
    slot.step(300.0 + WELL_SECONDS)
    assert slot.starts_at <= 301.0 + WELL_SECONDS


def test_a_drained_slot_starts_nothing_whatever_its_worker_ends_with(tmp_path: Path) -> None:
    waiting = _slot(tmp_path, "raise SystemExit(1)")
    _run(waiting, 0.0)
    waiting.drain()
    assert waiting.step(1e6) is None
    running = _slot(tmp_path, "import signal; signal.pause()")
    running.step(0.0)
    running.drain()
    assert running.pid is not None
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    change = running.step(0.0)
    assert change is not None
    assert not change.is_fault
    assert running.status == -signal.SIGTERM
    assert [waiting.state, running.state] == ["ended", "ended"]
