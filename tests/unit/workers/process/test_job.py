"""One job of the training process, with a trainer that computes nothing: resuming, saving, events, and every end."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from data import DatasetError, DatasetNotFoundError, DatasetSpec
from hpo.protocol import Confusion
from hpo.spec import TrainingConfig
from hpo.spec.checkpoints import CheckpointPolicy
from hpo.trial import FailureKind, Fault
from models import ModelError
from workers.checkpoints.contents import Identity, load, writer
from workers.checkpoints.folder import TrialFolder, Writer, run_in
from workers.errors import CheckpointError, CheckpointWriteError, DivergedError, TimeLimitError, TornUpdateError
from workers.process import beside
from workers.process import job as job_module
from workers.process.job import ANSWER_SECONDS, run_job, run_rank
from workers.process.messages import (
    Alive,
    Command,
    EpochDone,
    Event,
    Failed,
    Finished,
    Interrupted,
    Job,
    LastEvent,
    Note,
    Preparation,
    Started,
    WorkerFault,
)
from workers.process.pipes import LOST_OTHERS, EventPipe, Mailbox
from workers.process.pulse import Pulse
from workers.training.curve_files import METRICS_NAME, CurveFiles
from workers.training.epoch import Classified, EpochResult
from workers.training.meeting import Meeting
from workers.training.memory_plan import MemoryPlan
from workers.training.parallel import World
from workers.training.starting_weights import WeightsFolders

from ..tiny import tiny_config, tiny_task

EPOCHS = 4
BATCHES = 3
PEAK_BYTES = 5000
LAST = (Finished, Failed, Interrupted, WorkerFault)


class FakeTrainer:
    """Counts batches and epochs as the trainer does; `before_batch` is called with the position before each batch."""

    before_batch: Callable[[int, int], None]
    steps = 0
    progress = None
    is_validated = True
    hurried: ClassVar[list[int]] = []
    """For each time that it was told to leave its compiler, the batches that it had begun."""

    def __init__(
        self,
        config: TrainingConfig,
        *,
        epochs: int,
        dataset: Any,
        runtime: Any,
        time_limit_seconds: float | None,
        weights: WeightsFolders,
        plan: MemoryPlan | None,
        measures: list[str],
        world: World,
    ) -> None:
        self.plan = plan or MemoryPlan.whole(4, evaluation_batch=4)
        self.epochs = epochs
        self.precision = "fp32"
        self.compiled = runtime.compile and f"{runtime.compile}, kept in {runtime.compile_cache}"
        self.weights = ()
        self.identity = Identity(config=config, epochs=epochs, dataset_version=dataset.version, class_names=("a", "b"))
        self.epoch = self.batch = self.steps = 0
        self.curve: list[EpochResult] = []
        self.classified: Classified | None = None

    def run(self, *, interrupted: Callable[[], bool], epoch_done: Callable[[EpochResult], None]) -> bool:
        while self.epoch < self.epochs:
            while self.batch < BATCHES:
                if interrupted():
                    return False
                type(self).before_batch(self.epoch, self.batch)
                self.tried(self.epoch, self.batch)
                self.batch += 1
            self.curve.append(_result(self.epoch + 1))
            self.classified = _classified(self.epoch + 1)
            self.epoch, self.batch = self.epoch + 1, 0
            epoch_done(self.curve[-1])
        return True

    def smaller_plan(self, problem: str) -> MemoryPlan:
        return replace(self.plan, micro_batch=self.plan.micro_batch // 2)

    def hurry(self) -> None:
        self.hurried.append(self.steps)

    def tried(self, epoch: int, batch: int) -> None:
        """Be replaced by a test that looks at the plan of a batch."""

    def validate_last_epoch(self) -> None:
        assert (self.batch, self.is_validated) == (0, False)
        self.curve[-1] = EpochResult(epoch=self.epoch, metrics={"val_top1": 0.99}, seconds=2.0)

    def state(self) -> dict[str, Any]:
        return _state(self.identity, epoch=self.epoch, batch=self.batch)

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.curve = [_result(epoch) for epoch in range(1, self.epoch + 1)]
        self.classified = _classified(self.epoch) if self.epoch else None


class FakeEvents(EventPipe):
    """Keeps the events."""

    def __init__(self) -> None:
        self.sent: list[Event] = []

    def send(self, event: Event) -> None:
        self.sent.append(event)


class FakeMailbox(Mailbox):
    """Answers every report at once; `requests` are the commands that come with the answers, by epoch."""

    begins_with: Command | None = None

    def __init__(self, requests: Mapping[int, Command]) -> None:
        self._requests = requests
        self.request = self.begins_with
        self.waits: list[tuple[int, float]] = []

    def wait_for_answer(self, epoch: int, seconds: float) -> None:
        self.waits.append((epoch, seconds))
        self.request = self._requests.get(epoch, self.request)


def _result(epoch: int) -> EpochResult:
    return EpochResult(epoch=epoch, metrics={"val_top1": epoch / 10}, seconds=2.0)


def _classified(epoch: int) -> Classified:
    return Classified(epoch=epoch, counts={(0, 0): epoch, (0, 1): 5 - epoch, (1, 0): 4})


def _confusion(epoch: int) -> Confusion:
    return Confusion(
        step=epoch, class_names=["a", "b"], videos=[5, 4], cells=[(0, 0, epoch), (0, 1, 5 - epoch), (1, 0, 4)]
    )


def _state(identity: Identity, *, epoch: int, batch: int) -> dict[str, Any]:
    curve = [{"epoch": n, "metrics": {"val_top1": n / 10}, "seconds": 2.0} for n in range(1, epoch + 1)]
    training_only = {"optimizer": 1, "random": 2, "sums": 3}
    return {**identity.to_state(), "epoch": epoch, "batch": batch, "curve": curve, "model": 4, **training_only}


class Bench:
    """A folder, and jobs that are run in it."""

    def __init__(self, folder: Path, dataset: SimpleNamespace) -> None:
        self.folder = folder
        self.dataset = dataset
        self.job = Job(
            config=tiny_config().to_flat(),
            task=tiny_task(Path("/videos"), epochs=EPOCHS),
            folder=folder,
            attempt=1,
            resume=False,
            cache_dir=folder.parent / "cache",
            device="cpu",
            threads=1,
        )
        self.mailbox = FakeMailbox({})
        self.events: list[Event] = []

    @property
    def identity(self) -> Identity:
        """Of the checkpoints that the job can resume from."""
        return Identity(config=tiny_config(), epochs=EPOCHS, dataset_version="v1", class_names=("a", "b"))

    def point(
        self, *, attempt: int, epoch: int, batch: int = 0, folder: Path | None = None, identity: Identity | None = None
    ) -> Path:
        """Return the path of a new resume point."""
        state = _state(identity or self.identity, epoch=epoch, batch=batch)
        return TrialFolder(folder or self.folder, attempt=attempt).write_resume_point(
            writer(state), epoch=epoch, batch=batch
        )

    def run(self, requests: Mapping[int, Command] | None = None, **changes: Any) -> LastEvent:
        """Return the last event of the job; the others stay in `events`."""
        events = FakeEvents()
        self.mailbox = FakeMailbox(requests or {})
        run_job(self.job.model_copy(update=changes), events=events, mailbox=self.mailbox)
        *self.events, last = events.sent
        assert isinstance(last, LAST)
        assert not any(isinstance(event, LAST) for event in self.events), "there is exactly one last event"
        return last

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path / "trial", SimpleNamespace(version="v1", problems=[], num_fit=6, validation_clips=(1, 2)))
    monkeypatch.setattr(job_module, "Trainer", FakeTrainer)
    monkeypatch.setattr(job_module, "open_dataset", lambda *_, **__: made.dataset)
    monkeypatch.setattr(job_module, "peak_memory_bytes", lambda _: PEAK_BYTES)
    monkeypatch.setattr(FakeTrainer, "before_batch", lambda *_: None, raising=False)
    return made


def _raising(error: BaseException, at: tuple[int, int] = (0, 0)) -> Callable[[int, int], None]:
    def before_batch(epoch: int, batch: int) -> None:
        if (epoch, batch) == at:
            raise error

    return before_batch


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---------------------------------------------------------------- the usual course


def test_a_job_reports_every_epoch_with_its_checkpoint_and_ends_with_the_final_weights(bench: Bench) -> None:
    last = bench.run()
    started = Started(epoch=0, batch=0, epochs=EPOCHS, checkpoint=None, measurements=[], dataset_version="v1")
    assert bench.of(Started) == [started]
    done = bench.of(EpochDone)
    assert [event.measurement.step for event in done] == [1, 2, 3, 4]
    assert [event.measurement.metrics for event in done] == [{"val_top1": n / 10} for n in (1, 2, 3, 4)]
    assert {(event.measurement.wall_seconds, event.measurement.gpu_seconds) for event in done} == {(2.0, 2.0)}
    assert {event.peak_memory_bytes for event in done} == {PEAK_BYTES}
    assert [event.confusion for event in done] == [_confusion(epoch) for epoch in (1, 2, 3, 4)]
    points = TrialFolder(bench.folder, attempt=1).resume_points()
    assert [(point.attempt, point.epoch, point.batch) for point in points] == [(1, 4, 0), (1, 3, 0)]
    assert [event.checkpoint for event in done][2:] == [str(points[1].path), str(points[0].path)]
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics) == ("completed", {"val_top1": 0.4})
    assert last.confusion == _confusion(4)
    assert (last.dataset_version, last.peak_memory_bytes) == ("v1", PEAK_BYTES)
    assert (last.environment["threads"], last.environment["precision"]) == (1, "fp32")
    assert last.checkpoint is not None
    final = load(Path(last.checkpoint))
    assert (final["epoch"], final["model"]) == (4, 4)
    assert not {"optimizer", "random", "sums"} & set(final)


def test_an_epoch_waits_a_little_for_the_decision_about_it_but_the_last_one_has_none(bench: Bench) -> None:
    bench.run()
    assert bench.mailbox.waits == [(epoch, ANSWER_SECONDS) for epoch in (1, 2, 3)]


def test_videos_that_are_left_out_are_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    damaged = (("a.avi", "no frames"), ("b.avi", "x"))
    bench.dataset.problems = [SimpleNamespace(path=path, note=note, status="corrupt") for path, note in damaged]
    last = bench.run()
    assert caplog.messages == ["2 videos are left out, such as a.avi (no frames)"]
    assert isinstance(last, Finished)
    assert last.environment["dataset"]["left_out"] == 2
    assert last.environment["dataset"]["reasons"] == {"corrupt": 2}
    assert last.environment["dataset"]["examples"][0] == {"path": "a.avi", "note": "no frames"}


def test_memory_that_is_not_known_is_not_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "peak_memory_bytes", lambda _: 0)
    last = bench.run()
    assert isinstance(last, Finished)
    assert last.peak_memory_bytes is None


def test_the_plan_of_memory_is_recorded_and_that_of_the_run_to_repeat_is_followed(bench: Bench) -> None:
    plan = MemoryPlan(batch_size=4, micro_batch=2, evaluation_batch=4, checkpointing=True, peak_bytes=9)
    first = bench.run()
    assert isinstance(first, Finished)
    assert first.environment["memory_plan"]["micro_batch"] == 4
    again = bench.run(memory_plan={**plan.to_state(), "of_a_later_release": 1})
    assert isinstance(again, Finished)
    assert MemoryPlan.from_state(again.environment["memory_plan"]) == plan


def test_how_blocks_were_compiled_is_recorded(bench: Bench) -> None:
    plain, compiled = bench.run(), bench.run(compile="blocks")
    assert isinstance(plain, Finished)
    assert isinstance(compiled, Finished)
    assert plain.environment["compiled"] is None
    assert compiled.environment["compiled"] == f"blocks, kept in {bench.job.cache_dir / 'compiled'}"


@pytest.mark.parametrize(("at", "epoch"), [((0, 1), 0), ((2, 1), 2)])
def test_after_a_torn_update_a_run_continues_from_its_newest_checkpoint_in_smaller_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], epoch: int
) -> None:
    left = iter([TornUpdateError("memory ran out in the optimizer")])
    plans: list[int] = []

    def before_batch(trainer: FakeTrainer, where: int, batch: int) -> None:
        plans.append(trainer.plan.micro_batch)
        if (where, batch) == at and (error := next(left, None)) is not None:
            raise error

    monkeypatch.setattr(FakeTrainer, "tried", before_batch, raising=False)
    last = bench.run()
    assert isinstance(last, Finished)
    assert [(started.epoch, started.batch) for started in bench.of(Started)] == [(0, 0), (epoch, 0)]
    assert [event.measurement.step for event in bench.of(EpochDone)] == [1, 2, 3, 4]
    torn = plans.index(2)
    assert set(plans[:torn]) == {4}
    assert set(plans[torn:]) == {2}
    assert last.environment["memory_plan"]["micro_batch"] == 2


def _epochs_of(folder: Path) -> list[tuple[int, float]]:
    """Return the epochs of the file of metrics, and the accuracy of each."""
    lines = map(json.loads, (folder / METRICS_NAME).read_text().splitlines())
    return [(line["epoch"], line["val_top1"]) for line in lines]


def test_the_curve_is_kept_as_lines_and_a_resumed_run_repeats_none(bench: Bench) -> None:
    bench.run({3: Command(action="drain")})
    assert _epochs_of(bench.folder) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    newest = TrialFolder(bench.folder, attempt=1).resume_points()[0]
    _damage(newest.path)  # so that it resumes from the second epoch
    bench.run({3: Command(action="drain")}, resume=True, attempt=2)
    assert bench.of(Started)[0].epoch == 2
    assert _epochs_of(bench.folder) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_the_last_line_is_the_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTrainer, "is_validated", False)
    last = bench.run({2: Command(action="stop")})
    assert isinstance(last, Finished)
    assert _epochs_of(bench.folder) == [(1, 0.1), (2, 0.99)]
    assert last.metrics == {"val_top1": 0.99}


@pytest.mark.parametrize("asked", [True, False])
def test_event_files_are_written_where_they_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    wanted: list[bool] = []

    class Asked(CurveFiles):
        def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
            wanted.append(tensorboard)
            super().__init__(folder)

    monkeypatch.setattr(job_module, "CurveFiles", Asked)
    bench.run(tensorboard=asked)
    assert wanted == [asked]


# ---------------------------------------------------------------- resuming


def test_the_first_attempt_neither_resumes_from_nor_removes_what_another_run_left(bench: Bench) -> None:
    points = [bench.point(attempt=1, epoch=2), bench.point(attempt=3, epoch=3)]
    final = TrialFolder(bench.folder, attempt=1).write_final(writer(_state(bench.identity, epoch=4, batch=0)))
    log = bench.folder / "attempt-0001.log"
    log.write_text("printed by this process")
    exported = bench.folder / "best.pt"
    exported.write_bytes(b"the winner of a study")
    bench.run({1: Command(action="drain")}, resume=False, run="0123456789ab")
    [started] = bench.of(Started)
    assert (started.epoch, started.batch, started.checkpoint, started.measurements) == (0, 0, None, [])
    assert all(path.exists() for path in [*points, final, exported, log])


def test_a_reference_of_the_api_leads_only_to_folders_of_checkpoints(bench: Bench, tmp_path: Path) -> None:
    study = "5f0c7a3e-9d1b-4c55-8a52-0123456789ab"
    points = [bench.point(attempt=1, epoch=1, folder=tmp_path / root / study / "7") for root in ("ours", "theirs")]
    named = f"/on/another/worker/{study}/7/{points[0].name}"
    for roots, epoch in (([tmp_path / "ours"], 1), ([], 0), ([tmp_path / "absent"], 0)):
        bench.run(resume=True, attempt=2, checkpoint=named, checkpoint_roots=roots, run="0123456789ab")
        assert [started.epoch for started in bench.of(Started)] == [epoch]
        for path in bench.folder.iterdir():
            path.unlink()
    bench.run(resume=True, attempt=2, checkpoint=str(points[1]), checkpoint_roots=[tmp_path / "ours" / "none"])
    assert [started.epoch for started in bench.of(Started)] == [0], "it is there, but nobody named that folder"


def test_a_run_that_is_resumed_in_its_own_folder_goes_on_under_its_name(bench: Bench) -> None:
    old = TrialFolder(bench.folder, attempt=1, run="aaaaaaaaaaaa")
    state = writer(_state(bench.identity, epoch=1, batch=0))
    path = old.write_resume_point(state, epoch=1, batch=0)
    stranger = TrialFolder(bench.folder, attempt=1, run="bbbbbbbbbbbb").write_resume_point(state, epoch=2, batch=0)
    bench.run(resume=True, checkpoint=str(path), run="cccccccccccc")
    [started] = bench.of(Started)
    assert (started.epoch, started.checkpoint) == (1, str(path))
    names = [path.name for path in bench.folder.iterdir() if path.suffix == ".pt" and path != stranger]
    assert {run_in(name) for name in names} == {"aaaaaaaaaaaa"}
    assert stranger.exists()


def test_a_later_attempt_resumes_from_the_newest_point(bench: Bench) -> None:
    bench.point(attempt=1, epoch=2)
    newest = bench.point(attempt=1, epoch=2, batch=1)
    bench.run(resume=True, attempt=2)
    [started] = bench.of(Started)
    assert (started.epoch, started.batch, started.checkpoint) == (2, 1, str(newest))
    assert [event.measurement.step for event in bench.of(EpochDone)] == [3, 4]


def test_a_point_of_a_later_attempt_is_newer_even_with_fewer_epochs(bench: Bench) -> None:
    bench.point(attempt=1, epoch=3)
    newer = bench.point(attempt=2, epoch=1)
    bench.run(resume=True, attempt=3)
    assert bench.of(Started)[0].checkpoint == str(newer)


@pytest.mark.parametrize(("reported", "steps"), [(0, [1, 2, 3]), (1, [2, 3]), (3, []), (4, [])])
def test_epochs_that_were_never_reported_come_with_the_start(bench: Bench, reported: int, steps: list[int]) -> None:
    bench.point(attempt=1, epoch=3)
    bench.run(resume=True, attempt=2, epochs_reported=reported)
    measurements = bench.of(Started)[0].measurements
    assert [each.step for each in measurements] == steps
    assert [each.metrics for each in measurements] == [{"val_top1": step / 10} for step in steps]


def test_a_damaged_point_is_passed_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    older = bench.point(attempt=1, epoch=1)
    _damage(bench.point(attempt=1, epoch=2))
    bench.run(resume=True, attempt=2)
    assert bench.of(Started)[0].checkpoint == str(older)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("other", [{"epochs": EPOCHS + 1}, {"dataset_version": "v2"}, {"class_names": ("a", "c")}])
def test_a_point_of_another_run_is_passed_over(
    bench: Bench, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    identity = Identity(
        **{
            "config": tiny_config(),
            "epochs": EPOCHS,
            "dataset_version": "v1",
            "class_names": ("a", "b"),
            **other,
        }
    )
    bench.point(attempt=1, epoch=2, identity=identity)
    bench.run(resume=True, attempt=2)
    assert bench.of(Started)[0].epoch == 0
    assert next(iter(other)).replace("_", " ") in caplog.text


def test_the_point_that_the_api_names_may_lie_in_another_folder(bench: Bench, tmp_path: Path) -> None:
    elsewhere = bench.point(attempt=1, epoch=3, folder=tmp_path / "shared" / "9")
    bench.point(attempt=1, epoch=1)
    bench.run(resume=True, attempt=2, checkpoint=str(elsewhere))
    assert bench.of(Started)[0].checkpoint == str(elsewhere)


def test_beside_the_point_that_the_api_names_a_newer_one_is_taken(bench: Bench, tmp_path: Path) -> None:
    known = bench.point(attempt=1, epoch=2, folder=tmp_path / "shared")
    newer = bench.point(attempt=1, epoch=3, folder=tmp_path / "shared")
    bench.run(resume=True, attempt=2, checkpoint=str(known))
    assert bench.of(Started)[0].checkpoint == str(newer)


def test_without_a_usable_point_the_trial_starts_from_the_beginning_and_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.run(resume=True, attempt=2, checkpoint="/not/here/a0001-e0002-b0000000-0123456789abcdef.pt")
    assert bench.of(Started)[0].epoch == 0
    assert "cannot be used here; the trial starts from the beginning" in caplog.text
    caplog.clear()
    bench.run(resume=True, attempt=2)
    assert caplog.messages == [], "no checkpoint was promised"


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("action", ["pause", "drain"])
def test_a_request_with_the_decision_ends_the_training_at_the_end_of_the_epoch(bench: Bench, action: str) -> None:
    last = bench.run({2: Command.model_validate({"action": action})})
    assert isinstance(last, Interrupted)
    newest = TrialFolder(bench.folder, attempt=1).resume_points()[0]
    assert (newest.epoch, newest.batch, str(newest.path)) == (2, 0, last.checkpoint)
    assert (last.dataset_version, last.environment["threads"]) == ("v1", 1)


def test_a_request_within_an_epoch_saves_the_batch_and_the_next_attempt_continues_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drain_in_the_third_epoch(epoch: int, batch: int) -> None:
        if (epoch, batch) == (2, 1):
            bench.mailbox.request = Command(action="drain")

    monkeypatch.setattr(FakeTrainer, "before_batch", drain_in_the_third_epoch)
    last = bench.run()
    assert isinstance(last, Interrupted)
    monkeypatch.setattr(FakeTrainer, "before_batch", lambda *_: None)
    bench.run(resume=True, attempt=2, epochs_reported=2)
    [started] = bench.of(Started)
    assert (started.epoch, started.batch, started.checkpoint) == (2, 2, last.checkpoint)


def test_a_trainer_leaves_its_compiler_for_a_request_that_came_before_it_or_comes_while_it_trains(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTrainer, "hurried", [])
    monkeypatch.setattr(FakeTrainer, "before_batch", lambda *_: bench.mailbox.on_request())
    bench.run({1: Command(action="drain")})
    assert len(FakeTrainer.hurried) == BATCHES
    FakeTrainer.hurried.clear()
    monkeypatch.setattr(FakeMailbox, "begins_with", Command(action="drain"))
    bench.run()
    assert len(FakeTrainer.hurried) == 1


def test_a_stop_after_an_epoch_ends_with_its_metrics_and_weights(bench: Bench) -> None:
    last = bench.run({2: Command(action="stop")})
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics) == ("stopped", {"val_top1": 0.2})
    assert last.checkpoint is not None
    assert load(Path(last.checkpoint))["epoch"] == 2


def _stop_at(bench: Bench, position: tuple[int, int], then: Callable[[], None] = lambda: None) -> Any:
    def before_batch(epoch: int, batch: int) -> None:
        if (epoch, batch) == position:
            bench.mailbox.request = Command(action="stop")
            then()

    return before_batch


def test_a_stop_within_an_epoch_ends_with_the_weights_of_the_last_whole_epoch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTrainer, "before_batch", _stop_at(bench, (2, 1)))
    last = bench.run()
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics) == ("stopped", {"val_top1": 0.2})
    assert last.checkpoint is not None
    state = load(Path(last.checkpoint))
    assert (state["epoch"], state["batch"]) == (2, 0)


@pytest.mark.parametrize("keep", [False, True])
def test_the_weights_of_the_best_epoch_are_kept_beside_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    monkeypatch.setattr(job_module, "is_best", lambda curve: len(curve) in (1, 3))
    last = bench.run(config=tiny_config(keep_best_epoch=keep).to_flat())
    assert isinstance(last, Finished)
    assert last.checkpoint is not None
    assert load(Path(last.checkpoint))["epoch"] == EPOCHS
    best = sorted(bench.folder.glob("best-*"))
    assert [path.name[:16] for path in best] == (["best-e0003-a0001"] if keep else [])
    for path in best:
        assert load(path)["epoch"] == 3
        assert "optimizer" not in load(path)
        _damage(path)
        with pytest.raises(CheckpointError, match="damaged"):
            load(path)


@pytest.mark.parametrize(("validated", "kept"), [(True, [2, 4]), (False, [])])
def test_the_weights_that_the_study_wants_are_kept_beside_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, validated: bool, kept: list[int]
) -> None:
    monkeypatch.setattr(job_module, "is_best", lambda curve: len(curve) == 3)
    monkeypatch.setattr(FakeTrainer, "is_validated", validated)
    assert EPOCHS == 4
    last = bench.run(checkpoints=CheckpointPolicy(best=True, every=2))
    assert isinstance(last, Finished)
    assert [path.name[:16] for path in bench.folder.glob("best-*")] == ["best-e0003-a0001"]
    nth = sorted(bench.folder.glob("epoch-*"))
    assert [load(path)["epoch"] for path in nth] == kept
    bench.run(checkpoints=CheckpointPolicy(every=2), attempt=2, resume=False)
    assert [int(path.name[7:11]) for path in sorted(bench.folder.glob("epoch-*"))] == kept
    for path in nth:
        assert not path.exists() or "optimizer" not in load(path)


def test_the_best_epoch_is_kept_before_the_point_that_a_later_attempt_continues_from(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = TrialFolder.write_best

    def full(folder: TrialFolder, write: Writer, *, epoch: int) -> Path:
        if epoch == 2 and folder.attempt == 1:
            raise CheckpointWriteError("no space left")
        return written(folder, write, epoch=epoch)

    monkeypatch.setattr(job_module, "is_best", lambda curve: len(curve) == 2)
    monkeypatch.setattr(TrialFolder, "write_best", full)
    config = tiny_config(keep_best_epoch=True).to_flat()
    assert isinstance(bench.run(config=config), WorkerFault)
    assert isinstance(bench.run(config=config, attempt=2, resume=True), Finished)
    assert [path.name[:16] for path in bench.folder.glob("best-*")] == ["best-e0002-a0002"]


def test_a_validation_after_a_stop_may_find_the_best_epoch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTrainer, "is_validated", False)
    monkeypatch.setattr(FakeTrainer, "before_batch", _stop_at(bench, (2, 1)))
    monkeypatch.setattr(job_module, "is_best", lambda curve: curve[-1].metrics["val_top1"] == 0.99)
    bench.run(config=tiny_config(keep_best_epoch=True).to_flat())
    assert [path.name[:16] for path in bench.folder.glob("best-*")] == ["best-e0002-a0001"]


@pytest.mark.parametrize("position", [(2, 0), (2, 1)])
def test_a_stop_where_the_last_epoch_was_not_validated_ends_with_a_validation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, position: tuple[int, int]
) -> None:
    monkeypatch.setattr(FakeTrainer, "is_validated", False)
    monkeypatch.setattr(FakeTrainer, "before_batch", _stop_at(bench, position))
    last = bench.run()
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics) == ("stopped", {"val_top1": 0.99})
    assert last.checkpoint is not None
    assert (load(Path(last.checkpoint))["epoch"], load(Path(last.checkpoint))["batch"]) == (2, 0)


def test_a_stop_within_an_epoch_whose_start_point_is_damaged_keeps_only_the_metrics(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage() -> None:
        for point in TrialFolder(bench.folder, attempt=1).resume_points():
            _damage(point.path)

    monkeypatch.setattr(FakeTrainer, "before_batch", _stop_at(bench, (2, 1), damage))
    last = bench.run()
    assert isinstance(last, Finished)
    assert (last.metrics, last.checkpoint) == ({"val_top1": 0.2}, None)


def test_a_stop_within_the_first_epoch_has_neither_metrics_nor_weights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTrainer, "before_batch", _stop_at(bench, (0, 1)))
    last = bench.run()
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics, last.checkpoint) == ("stopped", {}, None)


def test_a_request_that_comes_with_the_last_epoch_does_not_undo_the_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drain_at_the_last_batch(epoch: int, batch: int) -> None:
        if (epoch, batch) == (EPOCHS - 1, BATCHES - 1):
            bench.mailbox.request = Command(action="drain")

    monkeypatch.setattr(FakeTrainer, "before_batch", drain_at_the_last_batch)
    last = bench.run()
    assert isinstance(last, Finished)
    assert last.outcome == "completed"


def test_a_job_may_end_after_a_number_of_the_planned_epochs(bench: Bench) -> None:
    last = bench.run(stop_after=2)
    assert isinstance(last, Finished)
    assert (last.outcome, last.metrics) == ("stopped", {"val_top1": 0.2})
    assert bench.of(Started)[0].epochs == EPOCHS


# ---------------------------------------------------------------- several ranks


class _TwoMachines(World):
    """The first rank of two, each on its machine; `version` is that of the other one's data set."""

    version = "v1"

    def gathered(self, value: Any) -> list[Any]:
        return [value, ("other", self.version) if isinstance(value, tuple) else value]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_machines_of_a_group_train_on_the_same_data_set_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(_TwoMachines, "version", version)
    monkeypatch.setattr(job_module, "join", lambda *_: _TwoMachines())
    events = FakeEvents()
    job = bench.job.model_copy(update={"ranks": 2, "nodes": 2})
    run_rank(job, rank=0, meeting=Meeting(port=1), events=events, mailbox=FakeMailbox({}))
    last = events.sent[-1]
    if version == "v1":
        assert isinstance(last, Finished)
        return
    assert isinstance(last, WorkerFault)
    assert last.fault is Fault.FILES
    assert last.message == (
        f"the machines of the group read different data sets: {socket.gethostname()} has version v1, other version v2; "
        "give all of them the same files"
    )
    assert not any(isinstance(event, Started) for event in events.sent)


def test_a_rank_that_does_not_meet_the_others_says_what_may_keep_them_apart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    def wait_for_ever(*_: Any) -> World:
        assert ended.wait(60)
        raise SystemExit

    monkeypatch.setattr(job_module, "MEETING_SECONDS", 0.0)
    monkeypatch.setattr(job_module, "join", wait_for_ever)
    monkeypatch.setattr(os, "_exit", end)
    events = FakeEvents()
    job = bench.job.model_copy(update={"ranks": 2, "nodes": 2})
    with pytest.raises(SystemExit):
        run_rank(job, rank=1, meeting=Meeting(port=123), events=events, mailbox=FakeMailbox({}))
    faults = [event for event in events.sent if isinstance(event, WorkerFault)]
    assert [fault.fault for fault in faults] == [Fault.SYSTEM]
    assert faults[0].message.startswith("rank 1 of 2 has not met the others in 0 minutes: the machines of a group must")
    assert "port 123 of the leader" in faults[0].message
    assert statuses == [LOST_OTHERS]


# ---------------------------------------------------------------- large checkpoints


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LARGE_BYTES", 0)


@pytest.mark.usefixtures("large")
def test_the_next_epoch_trains_while_a_large_checkpoint_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains, seen = threading.Event(), []
    write = TrialFolder.write_resume_point

    def slow(folder: TrialFolder, writer: Writer, *, epoch: int, batch: int) -> Path:
        if epoch == 1:
            assert trains.wait(60), "the second epoch waits for the checkpoint of the first"
        return write(folder, writer, epoch=epoch, batch=batch)

    monkeypatch.setattr(TrialFolder, "write_resume_point", slow)
    monkeypatch.setattr(FakeTrainer, "before_batch", lambda epoch, batch: trains.set() if epoch == 1 else None)
    send = FakeEvents.send

    def sent(events: FakeEvents, event: Event) -> None:
        if isinstance(event, EpochDone):
            assert event.checkpoint is not None
            seen.append((event.measurement.step, Path(event.checkpoint).exists()))
        send(events, event)

    monkeypatch.setattr(FakeEvents, "send", sent)
    last = bench.run(checkpoints=CheckpointPolicy(best=True))
    assert seen == [(1, True), (2, True), (3, True), (4, True)]
    assert isinstance(last, Finished)
    points = TrialFolder(bench.folder, attempt=1).resume_points()
    assert [(point.epoch, load(point.path)["epoch"]) for point in points] == [(4, 4), (3, 3)]
    assert [path.name[:10] for path in bench.folder.glob("best-*")] == ["best-e0004"]
    assert bench.mailbox.waits == []  # a decision comes when it comes


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("action", ["drain", "stop"])
def test_an_end_within_an_epoch_waits_for_the_large_checkpoint_of_the_last_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, action: Any
) -> None:
    def ask_in_the_second_epoch(epoch: int, batch: int) -> None:
        if (epoch, batch) == (1, 0):
            bench.mailbox.request = Command(action=action)

    monkeypatch.setattr(FakeTrainer, "before_batch", ask_in_the_second_epoch)
    last = bench.run()
    assert [event.measurement.step for event in bench.of(EpochDone)] == [1]
    assert isinstance(last, Interrupted if action == "drain" else Finished)
    assert last.checkpoint is not None
    state = load(Path(last.checkpoint))
    assert (state["epoch"], state["batch"]) == ((1, 1) if action == "drain" else (1, 0))


@pytest.mark.usefixtures("large")
def test_a_large_checkpoint_that_cannot_be_written_ends_the_training_in_the_next_epoch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: TrialFolder, writer: Writer, *, epoch: int, batch: int) -> Path:
        raise CheckpointWriteError("no space left; free some space")

    monkeypatch.setattr(TrialFolder, "write_resume_point", full)
    last = bench.run()
    assert (bench.of(EpochDone), isinstance(last, WorkerFault) and last.fault) == ([], Fault.STORAGE)


def test_a_copy_of_a_state_is_equal_and_of_its_own() -> None:
    weights = torch.arange(6.0).view(2, 3)
    state = {"model": {"a": weights, "tied": weights.view(2, 3), "b": weights[1]}, "optimizer": {0: [weights, 3, "x"]}}
    copy = beside.on_host(state)
    weights.zero_()
    expected = torch.arange(6.0).view(2, 3)
    assert torch.equal(copy["model"]["a"], expected)
    assert copy["model"]["a"] is copy["model"]["tied"] is copy["optimizer"][0][0]
    assert torch.equal(copy["model"]["b"], expected[1])
    assert copy["optimizer"][0][1:] == [3, "x"]
    assert not beside.is_large(state)
    assert beside.is_large({"model": [torch.empty(beside.LARGE_BYTES, dtype=torch.uint8)]})


# ---------------------------------------------------------------- failures


def test_a_checkpoint_that_cannot_be_written_is_the_machines_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_a_file_in_the_place_of_the_folder(epoch: int, batch: int) -> None:
        if (epoch, batch) == (0, 0):
            shutil.rmtree(bench.folder)
            bench.folder.write_text("not a folder")

    monkeypatch.setattr(FakeTrainer, "before_batch", put_a_file_in_the_place_of_the_folder)
    last = bench.run()
    assert isinstance(last, WorkerFault)
    assert last.fault is Fault.STORAGE
    assert "cannot be written" in last.message


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DivergedError("the loss became nan"), FailureKind.DIVERGED, "the loss became nan"),
        (TimeLimitError("longer than its limit"), FailureKind.TIMEOUT, "longer than its limit"),
        (MemoryError("17 GiB"), FailureKind.OOM, "the trial did not fit into memory: 17 GiB"),
        (ModelError("there is no such model"), FailureKind.INVALID, "there is no such model"),
    ],
)
def test_an_exception_is_a_failure_of_its_kind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: FailureKind, message: str
) -> None:
    monkeypatch.setattr(FakeTrainer, "before_batch", _raising(error, at=(1, 2)))
    last = bench.run()
    assert isinstance(last, Failed)
    assert (last.failure_kind, last.message) == (kind, message)
    assert (last.dataset_version, last.peak_memory_bytes) == ("v1", PEAK_BYTES)
    assert last.environment["threads"] == 1
    assert [event.measurement.step for event in bench.of(EpochDone)] == [1]


def test_a_bug_is_a_failure_with_its_traceback(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTrainer, "before_batch", _raising(ZeroDivisionError("division by zero")))
    last = bench.run()
    assert isinstance(last, Failed)
    assert last.failure_kind is FailureKind.ERROR
    assert last.message.startswith("ZeroDivisionError: division by zero\n")
    assert "Traceback" in last.message


def test_a_configuration_that_cannot_be_read_is_not_valid(bench: Bench) -> None:
    last = bench.run(config={"lr": "fast"})
    assert isinstance(last, Failed)
    assert last.failure_kind is FailureKind.INVALID
    assert "lr" in last.message
    assert (last.dataset_version, last.environment, bench.events) == (None, {}, [])


def test_a_data_set_that_is_not_as_the_study_says_is_not_valid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_dataset(*_: Any, **__: Any) -> None:
        raise DatasetError("the list names a class twice")

    monkeypatch.setattr(job_module, "open_dataset", open_dataset)
    last = bench.run()
    assert isinstance(last, Failed)
    assert (last.failure_kind, last.message) == (FailureKind.INVALID, "the list names a class twice")
    assert last.dataset_version is None


def test_a_data_set_that_is_not_there_is_the_machines_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_dataset(*_: Any, **__: Any) -> None:
        raise DatasetNotFoundError("there is no folder /videos")

    monkeypatch.setattr(job_module, "open_dataset", open_dataset)
    assert bench.run() == WorkerFault(fault=Fault.FILES, message="there is no folder /videos")


@pytest.mark.parametrize("place", ["the log", "the files of the curve"])
def test_a_disk_that_is_full_anywhere_is_the_machines_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also where nothing about it can be printed any more, since the log is on that disk."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target, name = (job_module, "_print") if place == "the log" else (CurveFiles, "add")
    monkeypatch.setattr(target, name, full)
    message = "this machine failed, not the trial (OSError: [Errno 28] No space left on device)"
    assert bench.run() == WorkerFault(fault=Fault.STORAGE, message=message)


@pytest.mark.parametrize("short", [True, False])
def test_an_error_that_may_be_one_of_memory_is_decided_by_the_memory_of_the_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    asked: list[torch.device] = []

    def memory_was_short(device: torch.device) -> bool:
        asked.append(device)
        return short

    monkeypatch.setattr(job_module, "memory_was_short", memory_was_short)
    error = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR")
    monkeypatch.setattr(FakeTrainer, "before_batch", _raising(error))
    last = bench.run()
    assert asked == [torch.device("cpu")]
    if short:
        assert isinstance(last, Failed)
        assert last.failure_kind is FailureKind.OOM
    else:
        assert isinstance(last, WorkerFault)
        assert last.fault is Fault.KERNEL


def test_a_model_that_cannot_be_built_is_not_valid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise ModelError("beta_inv = 3 does not divide width = 8")

    monkeypatch.setattr(job_module, "Trainer", build)
    last = bench.run()
    assert isinstance(last, Failed)
    assert last.failure_kind is FailureKind.INVALID
    assert (last.dataset_version, last.environment) == ("v1", {})


@pytest.mark.parametrize(("minutes", "seconds"), [(None, None), (0.5, 30.0)])
def test_the_time_limit_reaches_the_trainer_in_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, minutes: float | None, seconds: float | None
) -> None:
    given: list[float | None] = []

    class Limited(FakeTrainer):
        def __init__(self, *arguments: Any, time_limit_seconds: float | None, **rest: Any) -> None:
            given.append(time_limit_seconds)
            super().__init__(*arguments, time_limit_seconds=time_limit_seconds, **rest)

    monkeypatch.setattr(job_module, "Trainer", Limited)
    bench.run(task=tiny_task(Path("/videos"), epochs=EPOCHS, timeout_minutes=minutes))
    assert given == [seconds]


# ---------------------------------------------------------------- notes


@contextmanager
def _bare_logging() -> Iterator[None]:
    """Take away the handlers of pytest, so that `run_job` installs its own as in a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_warnings_of_any_library_reach_the_worker_as_notes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def log(epoch: int, batch: int) -> None:
        if (epoch, batch) == (0, 0):
            logging.getLogger("some.library").warning("the %s is slow", "disk")
            logging.getLogger("some.library").info("of no interest")

    monkeypatch.setattr(FakeTrainer, "before_batch", log)
    with _bare_logging():
        bench.run()
    assert bench.of(Note) == [Note(text="the disk is slow", warning=True)]
    assert "the disk is slow" in capsys.readouterr().err, "it stands in the log of the trial too"


def test_signs_of_life_follow_the_preparation_and_then_the_trainer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Alive] = []
    pulses: list[Pulse] = []

    class StillPulse(Pulse):
        """Sends nothing by itself."""

        def __init__(self, events: EventPipe, *, seconds: float) -> None:
            super().__init__(events, seconds=3600.0)
            pulses.append(self)

    def open_dataset(*_: Any, progress: Callable[[str, int, int], None], **__: Any) -> SimpleNamespace:
        progress("decoding", 3, 12)
        alive.append(pulses[0]._alive())
        return bench.dataset

    def before_batch(trainer: FakeTrainer, epoch: int, batch: int) -> None:
        if (epoch, batch) == (0, 1):
            trainer.steps = 2
            alive.append(pulses[0]._alive())

    monkeypatch.setattr(job_module, "Pulse", StillPulse)
    monkeypatch.setattr(job_module, "open_dataset", open_dataset)
    monkeypatch.setattr(FakeTrainer, "tried", before_batch)
    bench.run()
    assert alive == [
        Alive(
            is_training=False,
            steps=1,
            progress=Preparation(stage="decoding", done=3, total=12, seconds_left=None),
        ),
        Alive(is_training=True, steps=2),
    ]


@pytest.mark.parametrize(("said", "opened"), [("trial", [3, 4, 3]), (7, [7, 7, 7]), (None, [None, None, None])])
def test_the_seed_of_a_trial_draws_its_held_out_groups_where_the_study_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: object, opened: list[object]
) -> None:
    seen: list[object] = []

    def open_dataset(spec: DatasetSpec, **_: object) -> SimpleNamespace:
        seen.append(spec.split_seed)
        return bench.dataset

    monkeypatch.setattr(job_module, "open_dataset", open_dataset)
    dataset = {"root": "/videos", "short_side": 32, "split_seed": said}
    task = tiny_task(Path("/videos"), epochs=EPOCHS, dataset=dataset)
    for seed in (3, 4, 3):
        bench.run(config=tiny_config(seed=seed).to_flat(), task=task)
    assert seen == opened
