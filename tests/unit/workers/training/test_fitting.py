"""Plans of memory: what is chosen at each limit, that trying changes nothing, and what a smaller plan computes."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from data import Dataset
from workers.errors import OutOfMemoryError
from workers.training.checkpointing import set_checkpointing
from workers.training.memory_plan import MemoryPlan
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import tiny_config, without_timing
from .limited import LimitedMemory

SIX: dict[str, Any] = {"batch_size": 6, "precise_bn": True}
"""Half of the training videos are one batch."""
NO_NORMS: dict[str, Any] = {
    "model": "timesformer_b",
    "model.width": 16,
    "model.head_width": 8,
    "model.table_size": 32,
}
"""A network without batch norms."""


def _trainer(
    dataset: Dataset, runtime: Runtime, memory: LimitedMemory | None, *, epochs: int = 2, **changes: Any
) -> Trainer:
    plan = changes.pop("plan", None)
    config = tiny_config(**changes)
    if "model" in changes:
        config = config.model_copy(
            update={"hparams": {k.removeprefix("model."): v for k, v in changes.items() if k.startswith("model.")}}
        )
    return Trainer(config, epochs=epochs, dataset=dataset, runtime=runtime, memory=memory, plan=plan)


def _run(trainer: Trainer, *, stop_at: int | None = None) -> bool:
    def interrupted() -> bool:
        return trainer.epoch * len(trainer.loaders.train) + trainer.batch == stop_at

    memory = trainer.memory
    if not isinstance(memory, LimitedMemory):
        return trainer.run(interrupted=interrupted, epoch_done=lambda _: None)
    with memory.of(trainer.model):
        return trainer.run(interrupted=interrupted, epoch_done=lambda _: None)


def _curve(trainer: Trainer) -> list[dict[str, float]]:
    return [without_timing(result.metrics) for result in trainer.curve]


def _assert_equal_runs(found: Trainer, expected: Trainer) -> None:
    ours, theirs = found.state(), expected.state()
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert torch.equal(ours["random"]["torch"], theirs["random"]["torch"])
    assert _curve(found) == _curve(expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_trying_a_plan_changes_nothing(dataset: Dataset, runtime: Runtime, optimizer: str) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "ema": 0.9, "precise_bn": True, "augment.mixup_alpha": 0.8}
    plain = _trainer(dataset, runtime, None, **changes)
    assert _run(plain)
    memory = LimitedMemory()
    planned = _trainer(dataset, runtime, memory, **changes)
    assert _run(planned)
    assert memory.tries == 2
    assert planned.plan is not None
    assert not planned.plan.is_split
    assert planned.plan.peak_bytes
    _assert_equal_runs(planned, plain)


def _peaks(dataset: Dataset, runtime: Runtime) -> dict[tuple[int, bool], int]:
    """Return the peak of the updates of every plan, from the largest on."""
    memory = LimitedMemory()
    trainer = _trainer(dataset, runtime, memory, **SIX)
    trainer.model.train()
    found: dict[tuple[int, bool], int] = {}
    for clips, checkpointing in [(6, False), (6, True), (3, True), (2, True), (1, True)]:
        set_checkpointing(trainer.model, checkpointing)
        memory.clear()
        with memory.of(trainer.model):
            trainer.training_step.update(next(iter(trainer.loaders.train)), number=0, micro_batch=clips)
        found[clips, checkpointing] = memory.peak_bytes()
    return found


def test_a_plan_fits_beside_the_state_of_the_optimizer(dataset: Dataset, runtime: Runtime) -> None:
    """The optimizer allocates it in the first update; what is short of memory in the second is known before the run."""
    trainer = _trainer(dataset, runtime, LimitedMemory())

    def refuse(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and trainer.recipe.optimizer.state and len(arguments[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.model.register_forward_pre_hook(refuse)
    assert _run(trainer)
    assert trainer.plan is not None
    assert (trainer.plan.micro_batch, trainer.plan.since_update) == (2, 0)


class Watched:
    """What a model sees at each call: the shape of its clips, and whether a parameter has a gradient."""

    def __init__(self, trainer: Trainer) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {"training": [], "validation": []}
        self.with_gradients: list[bool] = []
        self._model = trainer.model
        trainer.model.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.shapes["training" if torch.is_grad_enabled() else "validation"].append(tuple(arguments[0].shape))
        self.with_gradients.append(any(parameter.grad is not None for parameter in self._model.parameters()))


def test_no_gradient_takes_memory_beside_the_activations(dataset: Dataset, runtime: Runtime) -> None:
    """Neither those of the update before, nor any during a validation."""
    trainer = _trainer(dataset, runtime, None)
    watched = Watched(trainer)
    assert _run(trainer)
    assert len(watched.shapes["training"]) == 2 * 3
    assert watched.shapes["validation"]
    assert not any(watched.with_gradients)


def test_the_batches_of_a_run_have_one_shape_however_clips_are_cut(dataset: Dataset, runtime: Runtime) -> None:
    """So that no batch needs more memory than those that were tried."""
    changes: dict[str, Any] = {"mixup_alpha": 0.8, "erase": 0.5, "repeats": 2, "crop": "random_resized"}
    trainer = _trainer(dataset, runtime, None, **{f"augment.{name}": value for name, value in changes.items()})
    watched = Watched(trainer)
    assert _run(trainer)
    assert set(watched.shapes["training"]) == {(4, 3, 8, 24, 24)}
    assert len({shape[1:] for shape in watched.shapes["validation"]}) == 1


def test_at_each_limit_the_first_plan_that_fits_is_chosen(dataset: Dataset, runtime: Runtime) -> None:
    peaks = _peaks(dataset, runtime)
    assert list(peaks.values()) == sorted(set(peaks.values()), reverse=True)
    most, least = max(peaks.values()), min(peaks.values())
    limits = [2 * most, *(peak / 0.969 for peak in peaks.values()), peaks[6, False] / 0.971, least / 0.971]
    for limit in limits:
        expected = next((plan for plan, peak in peaks.items() if peak <= 0.97 * limit), None)
        trainer = _trainer(dataset, runtime, LimitedMemory(limit), **SIX)
        if expected is None:
            with pytest.raises(OutOfMemoryError, match=r"a single clip needs more than the memory of the 0\.0 GiB"):
                _run(trainer, stop_at=0)
            continue
        assert not _run(trainer, stop_at=0)
        assert trainer.plan is not None
        assert (trainer.plan.micro_batch, trainer.plan.checkpointing) == expected
        assert trainer.plan.peak_bytes == pytest.approx(peaks[expected], rel=0.01)


def test_a_resumed_run_keeps_its_plan_and_equals_one_that_was_not_interrupted(
    dataset: Dataset, runtime: Runtime
) -> None:
    limit = LimitedMemory(_limit_of(dataset, runtime, (2, True)))
    whole = _trainer(dataset, runtime, limit)
    assert _run(whole)
    assert whole.plan is not None
    assert (whole.plan.micro_batch, whole.plan.checkpointing) == (2, True)
    for cut in (1, 4):
        first = _trainer(dataset, runtime, LimitedMemory(limit.limit))
        assert not _run(first, stop_at=cut)
        state = _stored(first.state())
        again = LimitedMemory(limit.limit)
        second = _trainer(dataset, runtime, again)
        second.load_state(state)
        assert _run(second)
        assert again.tries == 0
        assert second.plan == whole.plan
        _assert_equal_runs(second, whole)


@pytest.mark.parametrize("cut", [0, 4])
def test_on_a_smaller_card_the_rest_is_computed_in_smaller_parts(dataset: Dataset, runtime: Runtime, cut: int) -> None:
    first = _trainer(dataset, runtime, LimitedMemory(card="large"))
    assert not _run(first, stop_at=cut)
    state = first.state()
    small = LimitedMemory(_limit_of(dataset, runtime, (2, True)), card="small")
    second = _trainer(dataset, runtime, small)
    second.load_state(_stored(state))
    assert _run(second)
    plan = second.plan
    assert plan is not None
    assert (plan.card, plan.parts, plan.since_update) == ("small", (2, True), cut)
    expected = _trainer(dataset, runtime, None)
    expected.load_state(_stored(state))
    expected.plan = plan
    assert _run(expected)
    _assert_equal_runs(second, expected)
    third = _trainer(dataset, runtime, LimitedMemory(small.limit, card="as small"))
    third.load_state(_stored({**state, "memory_plan": plan.to_state()}))
    assert not _run(third, stop_at=cut)
    assert third.plan is not None
    assert (third.plan.card, third.plan.parts, third.plan.since_update) == ("as small", (2, True), cut)


def test_on_another_card_a_plan_is_made_anew(dataset: Dataset, runtime: Runtime) -> None:
    first = _trainer(dataset, runtime, LimitedMemory(_limit_of(dataset, runtime, (2, True))))
    assert not _run(first, stop_at=1)
    larger = LimitedMemory(card="larger card")
    second = _trainer(dataset, runtime, larger)
    second.load_state(_stored(first.state()))
    assert _run(second, stop_at=2) is False
    assert larger.tries == 2
    assert second.plan is not None
    assert (second.plan.card, second.plan.is_split, second.plan.since_update) == ("larger card", False, 1)


def test_a_run_on_another_card_is_validated_at_the_end_of_an_epoch_of_the_first_one(
    dataset: Dataset, runtime: Runtime
) -> None:
    first = _trainer(dataset, runtime, LimitedMemory(), epochs=3, validate_every=3)
    assert not _run(first, stop_at=3)
    state = _stored(first.state())
    second = _trainer(dataset, runtime, LimitedMemory(card="other card"), epochs=3, validate_every=3)
    second.load_state(state)
    assert not _run(second, stop_at=4)
    second.load_state(state)  # as a job does that is stopped within the next epoch
    second.validate_last_epoch()
    assert second.is_validated
    assert second.plan is not None
    assert second.plan.card == "other card"


def test_a_run_that_is_repeated_follows_the_plan_that_it_had(
    dataset: Dataset, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    first = _trainer(dataset, runtime, LimitedMemory(_limit_of(dataset, runtime, (2, True))))
    assert _run(first)
    assert first.plan is not None
    caplog.clear()
    for memory in (LimitedMemory(), None):  # there is more memory now; or it is not measured
        again = _trainer(dataset, runtime, memory, plan=MemoryPlan.from_state(first.plan.to_state()))
        assert _run(again)
        _assert_equal_runs(again, first)
    smaller = _trainer(dataset, runtime, LimitedMemory(first.plan.peak_bytes or 0), plan=first.plan)
    _run(smaller, stop_at=0)
    assert smaller.plan is not None
    assert (smaller.plan.micro_batch, smaller.plan.checkpointing) == (1, True)
    assert "computed in other parts than in the run to repeat" in caplog.text


def test_a_split_plan_says_what_the_whole_batch_would_take(dataset: Dataset, runtime: Runtime) -> None:
    changes: dict[str, Any] = {"batch_size": 12, "clip.size": 32, **NO_NORMS}
    free = LimitedMemory()
    whole = _trainer(dataset, runtime, free, **changes)
    _run(whole, stop_at=0)
    assert whole.plan is not None
    split = _trainer(dataset, runtime, LimitedMemory((whole.plan.peak_bytes or 0) / 2), **changes)
    _run(split, stop_at=0)
    assert split.plan is not None
    assert (split.plan.micro_batch, split.plan.checkpointing) == (3, False)
    assert split.plan.whole_batch_bytes == pytest.approx(whole.plan.peak_bytes, rel=0.05)


def _limit_of(dataset: Dataset, runtime: Runtime, plan: tuple[int, bool]) -> float:
    """Return the limit at which the updates of a plan just fit, of batches of four."""
    memory = LimitedMemory()
    trainer = _trainer(dataset, runtime, memory)
    trainer.model.train()
    set_checkpointing(trainer.model, plan[1])
    with memory.of(trainer.model):
        trainer.training_step.update(next(iter(trainer.loaders.train)), number=0, micro_batch=plan[0])
    return memory.peak_bytes() / 0.969


def _stored(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
