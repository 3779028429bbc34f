"""The worker's side of a training process, with a process that is only made up."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO

import pytest

from hpo.trial import Fault
from workers.device.detection import cpu_device
from workers.device.main_memory import MemoryWatch, Shortage
from workers.errors import MachineError
from workers.process.child import KILL_SECONDS, Child, ProcessExited, StandbyProcess
from workers.process.messages import Command, Event, Job, Note

from ..tiny import tiny_task

PATIENCE_SECONDS = 30.0


class ClosedPipe(io.StringIO):
    """Where nothing arrives any more."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


class FakeProcess(subprocess.Popen[str]):
    """A process that ends when it is killed, or has ended already with `returncode`."""

    def __init__(self, *, returncode: int | None = None, stdin: IO[str] | None = None) -> None:
        self.returncode = returncode
        self.stdin = stdin or io.StringIO()
        self.pid = 4711
        self.timeouts: list[float | None] = []

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.timeouts.append(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("child", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        self.returncode = -9

    def __del__(self, *_: object) -> None:
        """There is nothing to warn of."""


def _job(folder: Path) -> Job:
    return Job(
        config={},
        task=tiny_task(Path("/videos")),
        folder=folder,
        attempt=1,
        resume=False,
        cache_dir=folder,
        device="cpu",
        threads=1,
    )


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "the training process ended with status 0 without a result"),
        (-9, "the training process was killed by SIGKILL"),
        (-15, "the training process was killed by SIGTERM"),
    ],
)
def test_the_end_of_a_process_is_described(returncode: int, text: str) -> None:
    assert str(ProcessExited(returncode=returncode)) == text


@pytest.mark.parametrize(
    ("shortage", "fault", "words"),
    [
        (Shortage.OTHERS, Fault.SYSTEM, "was full; other processes of this machine held more of it than this one"),
        (Shortage.ITSELF, Fault.PROCESS, "was full, most of it of this process"),
        (Shortage.UNKNOWN, Fault.PROCESS, "main memory was full"),
    ],
)
def test_a_process_that_the_kernel_ended_is_a_fault_of_the_machine_if_others_held_the_memory(
    shortage: Shortage, fault: Fault, words: str
) -> None:
    exited = ProcessExited(returncode=-9, shortage=shortage)
    assert (exited.fault, str(exited).endswith(words)) == (fault, True)


@pytest.mark.parametrize("returncode", [-9, -11])
def test_a_killed_process_is_asked_about_memory_only_after_sigkill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returncode: int
) -> None:
    monkeypatch.setattr(MemoryWatch, "shortage", lambda _: Shortage.OTHERS)
    (tmp_path / "standby.log").touch()
    child = Child(FakeProcess(returncode=returncode), io.StringIO(), tmp_path / "standby.log")
    delivered: queue.Queue[Event | ProcessExited] = queue.Queue()
    child.assign(_job(tmp_path), tmp_path / "attempt-0001.log", delivered.put)
    shortage = Shortage.OTHERS if returncode == -9 else None
    assert delivered.get(timeout=PATIENCE_SECONDS) == ProcessExited(returncode=returncode, shortage=shortage)


def test_events_are_delivered_in_order_half_a_line_as_a_warning_and_the_end_last(tmp_path: Path) -> None:
    read, write = os.pipe()
    standby_log = tmp_path / "standby.log"
    standby_log.write_text("imported\n")
    process = FakeProcess(returncode=-9)
    child = Child(process, os.fdopen(read, encoding="utf-8"), standby_log)
    delivered: queue.Queue[Event | ProcessExited] = queue.Queue()
    log = tmp_path / "trial" / "attempt-0001.log"
    child.assign(_job(tmp_path), log, delivered.put)
    assert not standby_log.exists()
    assert child.log_tail() == "imported", "the log moves to the trial"
    assert isinstance(process.stdin, io.StringIO)
    assert Job.model_validate_json(process.stdin.getvalue()) == _job(tmp_path)
    with os.fdopen(write, "w", encoding="utf-8") as events:
        events.write(Note(text="first").model_dump_json() + "\n" + '{"kind": "note", "te')
    received = [delivered.get(timeout=PATIENCE_SECONDS) for _ in range(3)]
    assert received[0] == Note(text="first")
    assert isinstance(received[1], Note)
    assert (received[1].warning, '{"kind": "note", "te' in received[1].text) == (True, True)
    assert received[2] == ProcessExited(returncode=-9)
    for thread in [thread for thread in threading.enumerate() if thread.name == "events"]:
        thread.join(PATIENCE_SECONDS)


def test_a_command_to_a_process_that_has_ended_is_dropped(tmp_path: Path) -> None:
    child = Child(FakeProcess(returncode=0, stdin=ClosedPipe()), io.StringIO(), tmp_path / "log")
    child.send(Command(action="drain"))
    child.end()


def test_a_process_that_cannot_be_started_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the place of the folder")
    standby = StandbyProcess(cpu_device(threads=1), tmp_path / "file")
    with pytest.raises(MachineError, match=r"^no training process can be started .* check the disk of "):
        standby.prepare()


def test_a_process_that_cannot_be_killed_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It waits for a disk that is gone."""

    class Undying(FakeProcess):
        def kill(self) -> None:
            pass

    (tmp_path / "log").touch()
    process = Undying()
    Child(process, io.StringIO(), tmp_path / "log").end()
    assert process.timeouts == [0.0, KILL_SECONDS]
    assert "does not end although it was killed" in caplog.text


@pytest.mark.parametrize(
    ("status", "fault"), [(-signal.SIGBUS, Fault.STORAGE), (-9, Fault.PROCESS), (1, Fault.PROCESS)]
)
def test_a_process_that_could_not_read_a_mapped_file_died_of_its_disk(status: int, fault: Fault) -> None:
    assert ProcessExited(returncode=status).fault is fault


def test_a_process_is_killed_when_patience_is_over(tmp_path: Path) -> None:
    process = FakeProcess()
    log = tmp_path / "log"
    log.touch()
    child = Child(process, io.StringIO(), log)
    was_alive = child.alive
    child.end(patience_seconds=7.0)
    assert (was_alive, child.alive) == (True, False)
    assert process.timeouts == [7.0, KILL_SECONDS]
    assert process.returncode == -9
    assert not log.exists(), "without a job there is nothing to read in it"


def test_a_process_that_ends_in_time_is_not_killed(tmp_path: Path) -> None:
    process = FakeProcess(returncode=0)
    Child(process, io.StringIO(), tmp_path / "log").end(patience_seconds=7.0)
    assert process.returncode == 0
    assert process.timeouts == [7.0]


def test_only_the_end_of_a_long_log_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child(FakeProcess(returncode=0), io.StringIO(), log)
    assert child.log_tail() == "", "there is none"
    log.write_bytes(b"a" * 5000 + b"\xff the end\n")
    tail = child.log_tail()
    assert len(tail) < 2001
    assert tail.endswith("a\ufffd the end")
