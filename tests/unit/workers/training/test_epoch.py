"""What an epoch measures: its time, by a clock that the test moves, and its point of the learning curve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data import Dataset
from workers.errors import TimeLimitError
from workers.training import epoch
from workers.training.epoch import EpochResult, Stopwatch, curve_from_state, curve_to_state, epoch_metrics, is_best
from workers.training.metrics import Sums
from workers.training.reproducibility import Runtime
from workers.training.scoring import Score
from workers.training.trainer import Trainer

from ..tiny import tiny_config

CPU = torch.device("cpu")
BATCHES = 3  # 12 training videos, 4 a batch
BATCH_SECONDS = 10.0


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(epoch, "time", SimpleNamespace(perf_counter=made))
    return made


def test_a_stopwatch_counts_while_it_runs(clock: Clock) -> None:
    watch = Stopwatch(5.0)
    clock.now += 100
    assert watch.seconds == 5
    watch.start()
    clock.now += 7
    assert watch.seconds == 12
    watch.start()  # runs on
    clock.now += 1
    watch.stop()
    clock.now += 100
    assert watch.seconds == 13


class Timed:
    """A trainer that takes BATCH_SECONDS for a batch, and no time for anything else."""

    def __init__(self, clock: Clock, dataset: Dataset, runtime: Runtime, *, limit: float | None = None) -> None:
        self.clock = clock
        self.trainer = Trainer(tiny_config(), epochs=2, dataset=dataset, runtime=runtime, time_limit_seconds=limit)

    def run(self, *, until: int | None = None) -> bool:
        """Return whether the last epoch is done when `until` updates are done or training ends; reports take 500 s."""

        def interrupted() -> bool:
            if self.trainer.epoch * BATCHES + self.trainer.batch == until:
                return True
            self.clock.now += BATCH_SECONDS
            return False

        def epoch_done(_: EpochResult) -> None:
            self.clock.now += 500

        return self.trainer.run(interrupted=interrupted, epoch_done=epoch_done)


def test_the_time_of_an_epoch_sums_its_batches_over_trainers(clock: Clock, dataset: Dataset, runtime: Runtime) -> None:
    first = Timed(clock, dataset, runtime)
    clock.now += 1000  # set-up is not part of an epoch
    assert not first.run(until=4)
    clock.now += 1000
    state = first.trainer.state()
    assert state["seconds"] == BATCH_SECONDS
    second = Timed(clock, dataset, runtime)
    second.trainer.load_state(state)
    clock.now += 1000
    assert second.run()
    assert [result.seconds for result in second.trainer.curve] == [30, 30]
    for result in second.trainer.curve:
        assert result.metrics["epoch_seconds"] == 30
        assert result.metrics["clips_per_second"] == 12 / 30


@pytest.mark.parametrize(("limit", "epochs"), [(25.0, 0), (45.0, 1)])
def test_the_time_limit_counts_all_batches_so_far(
    clock: Clock, dataset: Dataset, runtime: Runtime, limit: float, epochs: int
) -> None:
    timed = Timed(clock, dataset, runtime, limit=limit)
    with pytest.raises(TimeLimitError, match=rf"longer than its limit .* it had done {epochs} of 2 epochs"):
        timed.run()
    assert timed.trainer.epoch * BATCHES + timed.trainer.batch == limit // BATCH_SECONDS + 1


def test_validation_counts_towards_the_epoch_but_not_towards_the_training_rate(
    clock: Clock, dataset: Dataset, runtime: Runtime
) -> None:
    timed = Timed(clock, dataset, runtime)

    def validate(module: nn.Module, *_: object) -> None:
        if not module.training:
            clock.now += 4

    timed.trainer.model.register_forward_pre_hook(validate)
    timed.run(until=BATCHES)
    (result,) = timed.trainer.curve
    assert (result.seconds, result.metrics["epoch_seconds"]) == (34, 34)
    assert result.metrics["clips_per_second"] == 12 / 30


def test_each_metric_is_what_its_name_says() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    training = Sums(CPU)
    training.add(F.cross_entropy(logits, labels), logits, labels)
    found = epoch_metrics(
        training,
        Score(top1=0.25, top5=0.75, loss=1.5, videos=4),
        model=nn.Linear(999, 1001),
        peak_bytes=3 * 2**29,
        training_seconds=2.0,
        epoch_seconds=5.0,
    )
    assert found.pop("train_loss") == pytest.approx(F.cross_entropy(logits, labels).item())
    assert found == {
        "val_top1": 0.25,
        "val_top5": 0.75,
        "val_loss": 1.5,
        "val_clips": 4.0,
        "train_top1": 2 / 3,
        "peak_memory_gib": 1.5,
        "parameters_millions": 1.001,
        "epoch_seconds": 5.0,
        "validation_seconds": 3.0,
        "clips_per_second": 1.5,
    }


def test_a_curve_comes_back_from_plain_values() -> None:
    curve = [
        EpochResult(epoch=1, metrics={"val_loss": 2.0}, seconds=3.0),
        EpochResult(epoch=2, metrics={}, seconds=4.0),
    ]
    assert curve_from_state(curve_to_state(curve)) == curve


@pytest.mark.parametrize(
    ("values", "best"), [([0.1], True), ([0.1, 0.3, 0.2], False), ([0.1, 0.3, 0.3], False), ([0.3, None, 0.4], True)]
)
def test_the_best_epoch_is_the_first_of_the_highest_share(values: list[float | None], best: bool) -> None:
    rows = [{} if value is None else {"val_top1": value} for value in values]
    curve = [EpochResult(epoch=n, metrics=row, seconds=1.0) for n, row in enumerate(rows, start=1)]
    assert is_best(curve) == best
    assert not is_best([*curve, EpochResult(epoch=9, metrics={"train_loss": 1.0}, seconds=1.0)])
