"""Memory that runs out amid a run, at every place where it may: the run goes on in smaller parts, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data import Dataset
from workers.errors import OutOfMemoryError, TornUpdateError
from workers.training import trainer as trainer_module
from workers.training.latency import latency
from workers.training.memory_plan import MemoryPlan
from workers.training.reproducibility import Runtime
from workers.training.scoring import Score, score
from workers.training.trainer import Trainer

from ..tiny import tiny_config, without_timing

UPDATE = 2
"""The update (from 0) in which memory runs out; three make an epoch."""


class Once:
    """Runs out of memory in one call of many: the `at`-th from 0."""

    def __init__(self, at: int) -> None:
        self.calls = 0
        self._at = at

    @property
    def is_next(self) -> bool:
        """Whether the next call fails."""
        return self.calls == self._at

    def __call__(self, *_: object, **__: object) -> None:
        is_next, self.calls = self.is_next, self.calls + 1
        if is_next:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore about it")


def _trainer(dataset: Dataset, runtime: Runtime, **changes: Any) -> Trainer:
    settings = {"precise_bn": True, "ema": 0.9, "grad_clip_norm": 0.5, "augment.mixup_alpha": 0.8, **changes}
    return Trainer(tiny_config(**settings), epochs=2, dataset=dataset, runtime=runtime)


def _run(trainer: Trainer, *, stop_at: int | None = None) -> bool:
    return trainer.run(interrupted=lambda: trainer.epoch * 3 + trainer.batch == stop_at, epoch_done=lambda _: None)


def _in_forward(trainer: Trainer, once: Once, _: pytest.MonkeyPatch) -> None:
    """Fail when the norms of the first stages have seen the batch already."""
    trainer.model.get_submodule("slow.stages.2").register_forward_pre_hook(partial(_if_training, once))


def _if_training(once: Once, module: nn.Module, _: object) -> None:
    if torch.is_grad_enabled():
        once()


def _in_backward(trainer: Trainer, once: Once, _: pytest.MonkeyPatch) -> None:
    """Fail when the last layers have gradients already."""

    def after(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(once)

    trainer.model.get_submodule("slow.stages.2").register_forward_hook(after)


def _in_clipping(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when some gradients are scaled already."""
    clip = nn.utils.clip_grad_norm_

    def half(parameters: Any, norm: float) -> None:
        mine = list(parameters)
        if once.is_next:
            clip(mine[:9], norm / 1000)
        once()
        clip(mine, norm)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", half)


def _in_reading(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a batch is changed on the device."""
    tensors = trainer.loaders.train._tensors

    def failing(host: Any) -> Any:
        once()
        return tensors(host)

    monkeypatch.setattr(trainer.loaders.train, "_tensors", failing)


@pytest.mark.parametrize("fails", [_in_forward, _in_backward, _in_clipping, _in_reading])
def test_an_update_is_made_again_in_smaller_parts_as_if_nothing_had_happened(
    dataset: Dataset,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: Callable[..., None],
) -> None:
    expected = _trainer(dataset, runtime)
    assert not _run(expected, stop_at=UPDATE)
    plan = MemoryPlan(batch_size=4, micro_batch=4, evaluation_batch=16, checkpointing=True)
    expected.plan = plan
    assert _run(expected)
    trainer = _trainer(dataset, runtime)
    once = Once(UPDATE)
    fails(trainer, once, monkeypatch)
    assert _run(trainer)
    assert once.calls > UPDATE
    assert trainer.plan == replace(plan, since_update=UPDATE)
    _assert_equal(trainer, expected)
    assert (
        "out of memory at update 2 (CUDA out of memory. Tried to allocate 2.00 GiB); the batch does not" in caplog.text
    )


def _in_statistics(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when statistics are computed for the evaluated model."""
    trainer.model.get_submodule("slow.stages.2").register_forward_pre_hook(partial(_if_collecting, once))


def _if_collecting(once: Once, module: nn.Module, _: object) -> None:
    if not torch.is_grad_enabled() and any(found.training for found in module.modules()):
        once()


def _in_validation(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.model.get_submodule("slow.stages.2").register_forward_pre_hook(partial(_if_validating, once))


def _if_validating(once: Once, module: nn.Module, _: object) -> None:
    if not any(found.training for found in module.modules()):
        once()


@pytest.mark.parametrize("fails", [_in_statistics, _in_validation])
def test_a_validation_is_made_again_in_smaller_parts(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., None]
) -> None:
    plan = MemoryPlan(batch_size=4, micro_batch=4, evaluation_batch=8)
    expected = _trainer(dataset, runtime)
    expected.plan = plan
    assert _run(expected)
    trainer = _trainer(dataset, runtime)
    once = Once(0)
    fails(trainer, once, monkeypatch)
    assert _run(trainer)
    assert once.calls > 1
    assert trainer.plan == plan
    _assert_equal(trainer, expected)


@pytest.mark.parametrize("always", [False, True])
def test_a_latency_is_measured_again_in_smaller_parts_without_another_validation(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    seen: list[int] = []
    validations: list[int] = []

    def failing(*arguments: Any, most_clips: int, **options: Any) -> dict[str, float]:
        seen.append(most_clips)
        if always or len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return latency(*arguments, most_clips=most_clips, **options)

    def scoring(*arguments: Any, **options: Any) -> Score:
        validations.append(1)
        return score(*arguments, **options)

    monkeypatch.setattr(trainer_module, "latency", failing)
    monkeypatch.setattr(trainer_module, "score", scoring)
    trainer = Trainer(tiny_config(), epochs=1, dataset=dataset, runtime=runtime, measures=["batch_latency_ms"])
    if always:
        with pytest.raises(OutOfMemoryError, match="a single clip does not fit when the latency was measured: CUDA"):
            _run(trainer)
        assert seen[-1] == 1
    else:
        assert _run(trainer)
        assert seen[1] == -(-seen[0] // 2)
        assert trainer.curve[0].metrics["batch_latency_ms"] > 0
    assert len(validations) == 1


def _in_step(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when some weights are changed already."""
    step = trainer.recipe.optimizer.step

    def half() -> None:
        if once.is_next:
            with torch.no_grad():
                next(trainer.model.parameters()).add_(1.0)
        once()
        step()

    monkeypatch.setattr(trainer.recipe.optimizer, "step", half)


def _in_average(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer._evaluated, "update", once)


def _in_sums(trainer: Trainer, once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    add = trainer._sums.add

    def failing(*arguments: Any) -> None:
        once()
        add(*arguments)

    monkeypatch.setattr(trainer._sums, "add", failing)


@pytest.mark.parametrize("fails", [_in_step, _in_average, _in_sums])
def test_weights_that_may_be_changed_by_half_are_not_trained_further(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., None]
) -> None:
    trainer = _trainer(dataset, runtime)
    fails(trainer, Once(UPDATE), monkeypatch)
    with pytest.raises(TornUpdateError, match="memory ran out in the optimizer: CUDA out of memory"):
        _run(trainer)


def test_where_single_clips_do_not_fit_the_run_ends(dataset: Dataset, runtime: Runtime) -> None:
    trainer = _trainer(dataset, runtime)

    def always(module: nn.Module, _: object) -> None:
        if module.training:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = trainer.model.register_forward_pre_hook(always)
    with pytest.raises(OutOfMemoryError, match=r"a single clip does not fit, .* too: CUDA out of memory"):
        _run(trainer)
    handle.remove()
    again = _trainer(dataset, runtime)

    def in_validation(module: nn.Module, _: object) -> None:
        if not module.training and not any(found.training for found in module.modules()):
            raise torch.OutOfMemoryError("CUDA out of memory")

    again.model.register_forward_pre_hook(in_validation)
    with pytest.raises(OutOfMemoryError, match="a single clip does not fit in validation: CUDA out of memory"):
        _run(again)


def test_another_error_is_not_taken_for_one_of_memory(dataset: Dataset, runtime: Runtime) -> None:
    trainer = _trainer(dataset, runtime)

    def wrong(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    trainer.model.register_forward_pre_hook(wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _run(trainer)


def _assert_equal(found: Trainer, expected: Trainer) -> None:
    ours, theirs = found.state(), expected.state()
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert torch.equal(ours["random"]["torch"], theirs["random"]["torch"])
    assert [without_timing(one.metrics) for one in found.curve] == [
        without_timing(one.metrics) for one in expected.curve
    ]
