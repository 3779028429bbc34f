"""Training: exact resume, divergence, limits and complete validation."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from data import Dataset
from hpo.spec import METRICS, TrainingConfig
from workers.errors import DivergedError, TimeLimitError
from workers.training import trainer as trainer_module
from workers.training.epoch import EpochResult
from workers.training.latency import LATENCY_METRICS, ONNX_LATENCY_METRICS, latency
from workers.training.precision import choose_precision
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer, final_state

from ..tiny import BASE, tiny_config, without_timing

EPOCHS = 2
BATCHES = 3  # 12 training videos, 4 a batch


def _trainer(dataset: Dataset, runtime: Runtime, *, epochs: int = EPOCHS, **changes: Any) -> Trainer:
    return Trainer(tiny_config(**changes), epochs=epochs, dataset=dataset, runtime=runtime)


def _run(trainer: Trainer, *, stop_at: int | None = None) -> bool:
    """Return whether the last epoch is done when `stop_at` updates are done or training ends."""

    def interrupted() -> bool:
        return trainer.epoch * BATCHES + trainer.batch == stop_at

    return trainer.run(interrupted=interrupted, epoch_done=lambda _: None)


def _stored(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _curve(trainer: Trainer) -> list[dict[str, float]]:
    return [without_timing(result.metrics) for result in trainer.curve]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    dataset: Dataset, runtime: Runtime, optimizer: str
) -> None:
    changes: dict[str, Any] = {
        "optimizer": optimizer,
        "label_smoothing": 0.1,
        "augment.jitter": 0.2,
        "augment.mixup_alpha": 0.8,
    }
    whole = _trainer(dataset, runtime, **changes)
    assert _run(whole)
    expected = whole.state()
    for cut in range(EPOCHS * BATCHES) if optimizer == "sgd" else (1, BATCHES):
        first = _trainer(dataset, runtime, **changes)
        assert not _run(first, stop_at=cut)
        state = _stored(first.state())
        torch.rand(99)  # whatever else draws in between must not matter
        second = _trainer(dataset, runtime, **changes)
        second.load_state(state)
        assert _run(second)
        resumed = second.state()
        assert all(torch.equal(resumed["model"][key], value) for key, value in expected["model"].items()), cut
        assert _curve(second) == _curve(whole), cut
        assert torch.equal(resumed["random"]["torch"], expected["random"]["torch"]), cut


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixed_batches_are_trained_towards_their_shares(dataset: Dataset, runtime: Runtime, mixing: str) -> None:
    trainer = _trainer(dataset, runtime, epochs=1, dropout=0.0, lr=1e-9, **{f"augment.{mixing}_alpha": 1.0})
    expected, right = 0.0, 0
    trainer.model.train()
    for batch in trainer.loaders.train.batches(0):
        logits = trainer.model(batch.clips).detach()
        assert batch.mixed is not None
        expected -= float((batch.mixed * logits.log_softmax(1)).sum())
        right += int((logits.argmax(1) == batch.mixed.argmax(1)).sum())
    assert _run(trainer)
    metrics = trainer.curve[0].metrics
    assert metrics["train_loss"] == pytest.approx(expected / 12, rel=1e-4)
    assert metrics["train_top1"] == pytest.approx(right / 12)


def test_an_epoch_reports_exactly_the_metrics_that_a_study_may_name(dataset: Dataset, runtime: Runtime) -> None:
    trainer = _trainer(dataset, runtime, epochs=1)
    results: list[EpochResult] = []
    assert trainer.run(interrupted=lambda: False, epoch_done=results.append)
    assert [result.epoch for result in results] == [1]
    assert set(results[0].metrics) == {name for name, metric in METRICS.items() if not metric.on_demand}
    assert all(math.isfinite(value) for value in results[0].metrics.values())
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert results[0].metrics["parameters_millions"] == parameters / 1e6


def test_latency_is_measured_where_somebody_asks_for_it_and_changes_nothing(dataset: Dataset, runtime: Runtime) -> None:
    measures = {*LATENCY_METRICS} - {*ONNX_LATENCY_METRICS}  # which a test of its own measures
    asked = Trainer(tiny_config(), epochs=2, dataset=dataset, runtime=runtime, measures=measures)
    _run(asked)
    drawn = asked.state()["random"]["torch"]
    plain = _trainer(dataset, runtime)
    _run(plain)
    found = [result.metrics for result in asked.curve]
    assert set(found[0]) == {*METRICS} - {*ONNX_LATENCY_METRICS}
    assert 0 < found[0]["latency_ms"] <= found[0]["latency_p95_ms"]
    assert 0 < found[0]["batch_latency_ms"] <= found[0]["batch_latency_p95_ms"]
    assert [found[1][name] for name in measures] == [found[0][name] for name in measures]
    assert _curve(asked) == _curve(plain)
    assert torch.equal(drawn, plain.state()["random"]["torch"])
    assert asked.model.training == plain.model.training


@pytest.mark.slow
def test_the_latency_as_onnx_is_that_of_the_evaluated_weights(dataset: Dataset, runtime: Runtime) -> None:
    shared = {name: value for name, value in BASE.items() if name not in ("model.alpha", "model.beta_inv")}
    config = TrainingConfig.from_flat({**shared, "model": "r3d_18", "ema": 0.5})
    asked = Trainer(config, epochs=1, dataset=dataset, runtime=runtime, measures=ONNX_LATENCY_METRICS)
    _run(asked)
    plain = Trainer(config, epochs=1, dataset=dataset, runtime=runtime)
    _run(plain)
    measured = {name: asked.curve[0].metrics[name] for name in ONNX_LATENCY_METRICS}
    assert 0 < measured["onnx_latency_ms"] <= measured["onnx_latency_p95_ms"]
    assert 0 < measured["onnx_batch_latency_ms"] <= measured["onnx_batch_latency_p95_ms"]
    assert {*METRICS} - {*asked.curve[0].metrics} == {*LATENCY_METRICS} - {*ONNX_LATENCY_METRICS}
    assert _curve(asked) == _curve(plain)


@pytest.mark.parametrize("seldom", [False, True], ids=["in an epoch", "at the end"])
def test_no_clock_of_a_run_sees_how_long_its_latency_is_measured(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seldom: bool
) -> None:
    now = time.perf_counter
    late: list[float] = [0.0]

    def slow(*arguments: Any, **options: Any) -> dict[str, float]:
        late[0] += 5000
        return latency(*arguments, **options)

    monkeypatch.setattr(time, "perf_counter", lambda: now() + late[0])
    monkeypatch.setattr(trainer_module, "latency", slow)
    asked = Trainer(
        tiny_config(validate_every=EPOCHS if seldom else 1),
        epochs=EPOCHS,
        dataset=dataset,
        runtime=runtime,
        time_limit_seconds=900,
        measures=["latency_ms"],
    )
    assert _run(asked, stop_at=BATCHES if seldom else None) is not seldom
    if seldom:
        asked.validate_last_epoch()
    assert late == [5000]
    assert all(result.seconds < 900 and result.metrics["validation_seconds"] < 900 for result in asked.curve)
    assert set(LATENCY_METRICS) & set(asked.curve[-1].metrics) == {"latency_ms"}


@pytest.mark.parametrize("same", [True, False], ids=["same device", "another"])
def test_a_resumed_run_measures_its_latency_again_on_another_device_only(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    def asked() -> Trainer:
        return Trainer(tiny_config(), epochs=EPOCHS, dataset=dataset, runtime=runtime, measures=["latency_ms"])

    first = asked()
    assert not _run(first, stop_at=BATCHES)
    state = _stored(first.state())
    assert "latency" not in final_state(state)
    if not same:
        state["latency"]["device"] = "another"
    monkeypatch.setattr(trainer_module, "latency", lambda *_, **__: {"latency_ms": -1.0})
    second = asked()
    second.load_state(state)
    assert _run(second)
    before, after = (result.metrics["latency_ms"] for result in second.curve)
    assert before > 0
    assert after == (before if same else -1)


def test_validation_counts_every_video_once_and_changes_nothing(dataset: Dataset, runtime: Runtime) -> None:
    trainer = _trainer(dataset, runtime, epochs=1)
    _run(trainer)
    metrics = trainer.curve[0].metrics
    trainer.model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for batch in trainer.loaders.validation:
            logits.append(trainer.model(batch.clips))
            labels.append(batch.labels)
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    assert len(all_labels) == trainer.loaders.validation.num_clips == 4
    assert metrics["val_top1"] == (all_logits.argmax(1) == all_labels).double().mean().item()
    assert metrics["val_loss"] == pytest.approx(F.cross_entropy(all_logits, all_labels).item(), rel=1e-6)


@pytest.mark.parametrize("clip", [None, 40.0])
def test_an_absurd_learning_rate_diverges(dataset: Dataset, runtime: Runtime, clip: float | None) -> None:
    trainer = _trainer(
        dataset,
        runtime,
        epochs=30,
        lr=100.0,
        momentum=0.99,
        warmup_fraction=0.0,
        grad_clip_norm=clip,
        weight_decay=10.0,
    )
    with pytest.raises(DivergedError, match=r"the (training|validation) loss became (nan|inf) in epoch \d+"):
        _run(trainer)


def test_a_trial_past_its_time_limit_says_so(dataset: Dataset, runtime: Runtime) -> None:
    trainer = Trainer(tiny_config(), epochs=50, dataset=dataset, runtime=runtime, time_limit_seconds=1e-6)
    with pytest.raises(TimeLimitError, match="longer than its limit"):
        _run(trainer)


def test_time_of_earlier_processes_counts_towards_the_limit(dataset: Dataset, runtime: Runtime) -> None:
    first = _trainer(dataset, runtime)
    _run(first, stop_at=4)
    state = _stored(first.state())
    state["curve"][0]["seconds"] = 1000.0
    second = Trainer(tiny_config(), epochs=EPOCHS, dataset=dataset, runtime=runtime, time_limit_seconds=900.0)
    second.load_state(state)
    with pytest.raises(TimeLimitError):
        _run(second)


def test_a_cpu_trains_in_fp32_even_if_bf16_is_requested(dataset: Dataset, runtime: Runtime) -> None:
    asked = _trainer(dataset, runtime, epochs=1, precision="bf16")
    assert asked.precision == "fp32"
    assert _run(asked)
    plain = _trainer(dataset, runtime, epochs=1)
    assert _run(plain)
    assert _curve(asked) == _curve(plain)


@pytest.mark.parametrize(
    ("wanted", "right", "used"),
    [
        ("auto", "bf16 fp16", "bf16"),
        ("auto", "fp16", "fp16"),
        ("auto", "", "fp32"),
        ("bf16", "bf16 fp16", "bf16"),
        ("bf16", "fp16", "fp32"),
        ("fp16", "bf16 fp16", "fp16"),
        ("fp16", "bf16", "fp32"),
        ("fp32", "bf16 fp16", "fp32"),
    ],
)
def test_a_gpu_trains_in_a_format_that_it_computes_right(wanted: str, right: str, used: str) -> None:
    gpu = Runtime(device=torch.device("cuda"), threads=1, bf16="bf16" in right, fp16="fp16" in right)
    assert choose_precision(tiny_config(precision=wanted), gpu) == used


def test_an_update_whose_gradients_overflow_in_fp16_changes_no_weights_and_is_over(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "choose_precision", lambda config, runtime: "fp16")
    trainer = _trainer(dataset, runtime, ema=0.9, momentum=0.9)
    trainer.training_step.scale.value = 2.0**120  # in fp16 a gradient is at most 65504
    before = _stored(trainer.state())
    assert not _run(trainer, stop_at=1)
    after = _stored(trainer.state())
    weights = [name for name, _ in trainer.model.named_parameters()]
    for kept in (before["model"], before["evaluated"]["average"]):
        now = after["model"] if kept is before["model"] else after["evaluated"]["average"]
        assert all(torch.equal(now[name], kept[name]) for name in weights)
    assert after["optimizer"]["state"] == {}
    assert (after["batch"], after["loss_scale"]) == (1, {"value": 2.0**119, "in_a_row": 0, "left_out": 1})
    resumed = _trainer(dataset, runtime, ema=0.9, momentum=0.9)
    resumed.load_state(after)
    assert resumed.training_step.scale.state() == after["loss_scale"]
    resumed.training_step.scale.value = 1024.0
    assert not _run(resumed, stop_at=2)
    assert not torch.equal(resumed.state()["model"][weights[0]], after["model"][weights[0]])
    del after["loss_scale"]  # as a run in float32 writes it
    resumed.load_state(after)


def test_the_process_is_set_up_for_equal_results(dataset: Dataset, runtime: Runtime) -> None:
    torch.set_num_threads(2)
    _trainer(dataset, runtime)
    assert torch.get_num_threads() == runtime.threads
    assert torch.are_deterministic_algorithms_enabled()


VALIDATED = ("val_top1", "val_top5", "val_loss", "val_clips")


def test_epochs_between_validations_measure_all_but_the_validation(dataset: Dataset, runtime: Runtime) -> None:
    always = _trainer(dataset, runtime, epochs=5, precise_bn=True, ema=0.5)
    assert _run(always)
    seldom = _trainer(dataset, runtime, epochs=5, precise_bn=True, ema=0.5, validate_every=2)
    assert _run(seldom)
    for epoch, (every, some) in enumerate(zip(_curve(always), _curve(seldom), strict=True), start=1):
        measured = set(every) if epoch in (2, 4, 5) else set(every) - set(VALIDATED)
        assert some == {name: every[name] for name in measured}, epoch
    assert [result.metrics["validation_seconds"] > 0.01 for result in seldom.curve] == [False, True, False, True, True]
    assert seldom.is_validated
    states = [trainer.state()["evaluated"]["statistics"] for trainer in (always, seldom)]
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_a_run_that_ends_between_validations_is_validated_as_if_it_always_was(
    dataset: Dataset, runtime: Runtime
) -> None:
    settings: dict[str, Any] = {"epochs": 5, "precise_bn": True, "ema": 0.5}
    always = _trainer(dataset, runtime, **settings)
    assert not _run(always, stop_at=3 * BATCHES)
    seldom = _trainer(dataset, runtime, **settings, validate_every=2)
    assert not _run(seldom, stop_at=3 * BATCHES)
    assert not seldom.is_validated
    state = _stored(seldom.state())
    assert state["evaluated"]["statistics"] == {}, "those of the second epoch are not of these weights"
    resumed = _trainer(dataset, runtime, **settings, validate_every=2)
    resumed.plan = seldom.plan
    resumed.load_state(state)
    for trainer in (seldom, resumed):
        trainer.validate_last_epoch()
        assert trainer.is_validated
        assert _curve(trainer)[-1] == _curve(always)[-1]
        found, expected = (one.state()["evaluated"]["statistics"] for one in (trainer, always))
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert trainer.curve[-1].seconds == trainer.curve[-1].metrics["epoch_seconds"]
