"""Training an export, with a training process that follows a script."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hpo.protocol import Measurement
from hpo.trial import FailureKind, Fault
from workers import retrain
from workers.checkpoints.contents import writer
from workers.checkpoints.folder import TrialFolder
from workers.device.detection import Device
from workers.errors import TrainingFailedError
from workers.process.child import ProcessExited
from workers.process.messages import Command, EpochDone, Event, Failed, Finished, Interrupted, Job, Note, WorkerFault
from workers.retrain import TrainingResult, train_export

from .tiny import tiny_config, tiny_task

DEVICE = Device(kind="cuda", label="cuda:2", threads=3, bf16=True, fp16=True, deterministic=True)


class ScriptedChild:
    """Stands in for the training process: delivers `script` as soon as it has its job."""

    script: ClassVar[list[Event | ProcessExited]] = []
    started: ClassVar[list[ScriptedChild]] = []

    def __init__(self, device: Device) -> None:
        self.device = device
        self.jobs: list[Job] = []
        self.logs: list[Path] = []
        self.commands: list[Command] = []
        self.ends: list[float] = []

    @classmethod
    def start(cls, device: Device, folder: Path) -> ScriptedChild:
        cls.started.append(cls(device))
        return cls.started[-1]

    def assign(self, job: Job, log: Path, deliver: Callable[[Event | ProcessExited], None]) -> None:
        self.jobs.append(job)
        self.logs.append(log)
        for event in self.script:
            deliver(event)

    def send(self, command: Command) -> None:
        self.commands.append(command)

    def end(self, *, patience_seconds: float = 0.0) -> None:
        self.ends.append(patience_seconds)

    def log_tail(self) -> str:
        return "Segmentation fault"


def epoch(number: int) -> EpochDone:
    measurement = Measurement(step=number, metrics={"val_top1": 0.1 * number}, wall_seconds=1.0, gpu_seconds=1.0)
    return EpochDone(measurement=measurement, checkpoint="x", peak_memory_bytes=1)


def finished(checkpoint: Path | None) -> Finished:
    return Finished(
        outcome="completed",
        metrics={"val_top1": 0.5},
        checkpoint=None if checkpoint is None else str(checkpoint),
        dataset_version="v7",
        environment={"threads": 3},
    )


class Retraining:
    """Calls `train_export` against a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def child(self) -> ScriptedChild:
        (child,) = ScriptedChild.started
        return child

    def __call__(self, *script: Event | ProcessExited, **options: Any) -> TrainingResult:
        ScriptedChild.script = list(script)
        return train_export(
            tiny_config(lr=0.07).to_flat(),
            tiny_task(self.folder / "videos", epochs=9),
            device=DEVICE,
            folder=self.folder / "run",
            cache_dir=self.folder / "cache",
            **options,
        )


@pytest.fixture
def retraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Retraining:
    monkeypatch.setattr(retrain, "Child", ScriptedChild)
    monkeypatch.setattr(ScriptedChild, "started", [])
    return Retraining(tmp_path)


def test_the_result_is_that_of_the_last_event(retraining: Retraining, tmp_path: Path) -> None:
    weights = tmp_path / "run" / "final.pt"
    result = retraining(epoch(1), epoch(2), finished(weights))
    assert result == TrainingResult(
        metrics={"val_top1": 0.5},
        curve={step: epoch(step).measurement.metrics for step in (1, 2)},
        checkpoint=weights,
        dataset_version="v7",
        environment={"threads": 3},
    )
    assert retraining.child.ends == [0.0]


def test_the_job_has_the_configuration_and_the_device(retraining: Retraining, tmp_path: Path) -> None:
    retraining(
        finished(tmp_path / "final.pt"), stop_after=4, resume=True, memory_plan={"micro_batch": 2}, compiled="blocks"
    )
    (job,) = retraining.child.jobs
    assert job.config == tiny_config(lr=0.07).to_flat()
    assert (job.task.epochs, job.stop_after, job.resume, job.attempt) == (9, 4, True, 1)
    assert (job.device, job.threads, job.bf16, job.fp16, job.deterministic) == ("cuda", 3, True, True, True)
    assert (job.memory_plan, job.compile) == ({"micro_batch": 2}, "blocks")
    assert (job.folder, job.cache_dir) == (tmp_path / "run", tmp_path / "cache")
    assert retraining.child.device is DEVICE
    assert retraining.child.logs == [tmp_path / "run" / "attempt-0001.log"]


def test_without_a_wish_it_starts_afresh_and_trains_to_the_end(retraining: Retraining, tmp_path: Path) -> None:
    retraining(finished(tmp_path / "final.pt"))
    (job,) = retraining.child.jobs
    assert (job.stop_after, job.resume, job.memory_plan) == (None, False, None)


def test_every_epoch_is_answered_and_every_event_is_shown(retraining: Retraining, tmp_path: Path) -> None:
    script = (Note(text="preparing"), epoch(1), epoch(2), finished(tmp_path / "final.pt"))
    shown: list[Event] = []
    retraining(*script, progress=shown.append)
    assert shown == list(script)
    assert retraining.child.commands == [Command(action="continue", epoch=number) for number in (1, 2)]


def test_resume_points_are_removed_when_it_is_done(retraining: Retraining, tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "run", attempt=1)
    save = writer({"weights": torch.zeros(1)})
    folder.write_resume_point(save, epoch=1, batch=0)
    final = folder.write_final(save)
    retraining(finished(final))
    assert list(folder.path.iterdir()) == [final]


def test_it_resumes_the_run_that_wrote_last_and_else_begins_one_of_its_own(retraining: Retraining) -> None:
    path = retraining.folder / "run"
    save = writer({"weights": torch.zeros(1)})
    points = [
        TrialFolder(path, attempt=1, run=run).write_resume_point(save, epoch=epoch, batch=0)
        for run, epoch in (("aaaaaaaaaaaa", 8), ("bbbbbbbbbbbb", 2))
    ]
    for age, point in zip((100, 50), points, strict=True):
        os.utime(point, (1_000_000 - age,) * 2)
    last = finished(path / "final.pt")
    for resume in (True, False, False):
        retraining(last, resume=resume)
    jobs = [child.jobs[0] for child in ScriptedChild.started]
    assert [job.checkpoint for job in jobs] == [str(points[1]), None, None]
    assert len({job.run for job in jobs}) == 3
    assert all(point.exists() for point in points)


@pytest.mark.parametrize(
    ("last", "message", "kind"),
    [
        (Failed(failure_kind=FailureKind.DIVERGED, message="the loss became nan"), "^the loss became nan$", "diverged"),
        (WorkerFault(fault=Fault.STORAGE, message="the disk is full"), "^the disk is full$", None),
        (ProcessExited(returncode=-11), "it printed: Segmentation fault$", None),
        (finished(None), "ended before its first epoch was done", None),
        (Interrupted(checkpoint="x"), "ended before its first epoch was done", None),
    ],
    ids=["failed", "fault", "exited", "no checkpoint", "interrupted"],
)
def test_an_end_without_a_result_is_an_error(
    retraining: Retraining, last: Event | ProcessExited, message: str, kind: str | None
) -> None:
    with pytest.raises(TrainingFailedError, match=message) as caught:
        retraining(last)
    assert caught.value.kind == (None if kind is None else FailureKind(kind))
    assert retraining.child.ends == [0.0]


def test_ctrl_c_waits_for_a_checkpoint(retraining: Retraining) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retraining(epoch(1), progress=interrupt)
    assert retraining.child.commands == [Command(action="drain")]
    assert retraining.child.ends[0] >= 10  # seconds for the checkpoint, before the process is killed
