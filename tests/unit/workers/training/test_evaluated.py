"""The evaluated model: what of it differs from the training one, what it is made of, and that it comes back."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch

from data import ClipLoader, Dataset
from hpo.spec import TrainingConfig
from models import VideoModel
from workers.training import evaluated as evaluated_module
from workers.training.batch_norm import reestimated
from workers.training.evaluated import EvaluatedModel, statistics_batches
from workers.training.inputs import clip_spec
from workers.training.model import build_model
from workers.training.reproducibility import Runtime
from workers.training.scoring import score
from workers.training.trainer import Trainer, final_state

from ..tiny import tiny_config, without_timing

EPOCHS = 2
BATCHES = 3  # 12 training videos, 4 a batch


@pytest.fixture
def made(dataset: Dataset, runtime: Runtime) -> Callable[..., Trainer]:
    def make(**changes: Any) -> Trainer:
        return Trainer(tiny_config(**changes), epochs=EPOCHS, dataset=dataset, runtime=runtime)

    return make


def _train(trainer: Trainer, *, stop_at: int | None = None) -> None:
    def interrupted() -> bool:
        return trainer.epoch * BATCHES + trainer.batch == stop_at

    trainer.run(interrupted=interrupted, epoch_done=lambda _: None)


def _stored(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def _validated(trainer: Trainer, model: VideoModel) -> dict[str, float]:
    found = score(model, trainer.loaders.validation, device=trainer.device, precision=trainer.precision)
    return {"val_top1": found.top1, "val_top5": found.top5, "val_loss": found.loss}


def test_precise_batch_norm_changes_what_is_validated_and_not_what_is_trained(made: Callable[..., Trainer]) -> None:
    plain = made()
    _train(plain)
    precise = made(precise_bn=True)
    _train(precise)
    assert plain.model.state_dict().keys() == precise.model.state_dict().keys()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, precise.model.state_dict()[name]), name
    losses = [[result.metrics["train_loss"] for result in trainer.curve] for trainer in (plain, precise)]
    assert losses[0] == losses[1]
    for before, after in zip(plain.curve, precise.curve, strict=True):
        assert before.metrics["val_loss"] != after.metrics["val_loss"]


def test_the_statistics_are_those_of_training_clips_as_a_validation_sees_them(
    made: Callable[..., Trainer], dataset: Dataset
) -> None:
    trainer = made(precise_bn=True)
    _train(trainer, stop_at=BATCHES)
    loader = dataset.statistics_loader(clip=clip_spec(trainer.config), batch_size=16, seed=0, most_batches=9)
    trainer.model.train()
    expected = reestimated(trainer.model, loader.batches(0), device=trainer.device, precision=trainer.precision)
    found = trainer.state()["evaluated"]["statistics"]
    assert found.keys() == expected.keys() != set()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


QUIETER: list[dict[str, Any]] = [{"precise_bn": True}, {"ema": 0.6}, {"precise_bn": True, "ema": 0.6}]


def test_the_average_is_that_of_a_plain_loop_and_training_does_not_see_it(made: Callable[..., Trainer]) -> None:
    plain = made()
    average = {name: value.double() for name, value in plain.model.state_dict().items() if value.is_floating_point()}
    for number in range(EPOCHS * BATCHES):
        _train(plain, stop_at=number + 1)
        kept = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.4][number]
        for name, value in average.items():
            average[name] = kept * value + (1 - kept) * plain.model.state_dict()[name].double()
    averaged = made(ema=0.4)
    _train(averaged)
    assert all(
        torch.equal(value, plain.model.state_dict()[name]) for name, value in averaged.model.state_dict().items()
    )
    found = averaged.state()["evaluated"]["average"]
    assert found.keys() == average.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-4, atol=1e-5)


def test_the_average_has_statistics_of_its_own(made: Callable[..., Trainer], dataset: Dataset) -> None:
    trainer = made(precise_bn=True, ema=0.6)
    _train(trainer)
    state = trainer.state()
    model = build_model(trainer.config, num_classes=dataset.num_classes)
    model.load_state_dict({**state["model"], **state["evaluated"]["average"]})
    loader = dataset.statistics_loader(clip=clip_spec(trainer.config), batch_size=16, seed=0, most_batches=9)
    model.train()
    expected = reestimated(model, loader.batches(EPOCHS - 1), device=trainer.device, precision=trainer.precision)
    found = state["evaluated"]["statistics"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("changes", QUIETER, ids=str)
def test_the_final_file_scores_what_the_last_validation_did(
    made: Callable[..., Trainer], dataset: Dataset, changes: dict[str, Any]
) -> None:
    trainer = made(**changes)
    _train(trainer)
    state = final_state(_stored(trainer.state()))
    assert "evaluated" not in state
    again = build_model(trainer.config, num_classes=dataset.num_classes)
    again.load_state_dict(state["model"])
    last = trainer.curve[-1].metrics
    assert _validated(trainer, again) == {name: last[name] for name in ("val_top1", "val_top5", "val_loss")}
    with trainer.evaluated_model():
        assert _validated(trainer, trainer.model)["val_loss"] == last["val_loss"]
    assert _validated(trainer, trainer.model)["val_loss"] != last["val_loss"], "the training one is back"


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(made: Callable[..., Trainer]) -> None:
    changes = {"precise_bn": True, "ema": 0.6}
    whole = made(**changes)
    _train(whole)
    expected = final_state(whole.state())
    for cut in (1, BATCHES, BATCHES + 1):
        first = made(**changes)
        _train(first, stop_at=cut)
        state = _stored(first.state())
        second = made(**changes)
        second.load_state(state)
        if cut == BATCHES:  # between two epochs: a trial that is stopped here exports this
            at_once = final_state(second.state())["model"]
            assert all(torch.equal(at_once[name], value) for name, value in final_state(state)["model"].items())
        _train(second)
        resumed = final_state(second.state())
        assert all(torch.equal(resumed["model"][name], value) for name, value in expected["model"].items()), cut
        curves = [[without_timing(result.metrics) for result in trainer.curve] for trainer in (whole, second)]
        assert curves[0] == curves[1], cut


def test_a_resume_point_of_an_earlier_release_is_continued(made: Callable[..., Trainer]) -> None:
    first, second = made(), made()
    _train(first, stop_at=1)
    state = _stored(first.state())
    del state["evaluated"]
    second.load_state(state)
    _train(second)
    assert second.epoch == EPOCHS
    earlier = {key: value for key, value in second.state().items() if key != "evaluated"}
    assert final_state(earlier)["model"].keys() == second.model.state_dict().keys()


def test_a_model_without_batch_norm_reads_no_clips_for_it(dataset: Dataset, runtime: Runtime) -> None:
    config = TrainingConfig.from_flat({"model": "vgg16", "model.width": 4, "clip.size": 32, "precise_bn": True})
    evaluated = EvaluatedModel(
        build_model(config, num_classes=2), config, dataset=dataset, device=runtime.device, precision="fp32"
    )
    read: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipLoader, "batches", lambda *arguments: read.append(arguments))
        evaluated.prepare(0, is_last=True)
    assert read == []
    assert evaluated.state() == {"average": {}, "statistics": {}}


@pytest.mark.parametrize(
    ("videos", "batch_size", "batches"),
    [(10, 4, 16), (280, 32, 2), (400, 10, 10), (2000, 32, 16), (10**6, 32, 16), (10**6, 4096, 1)],
)
def test_a_quarter_of_the_videos_is_enough_between_bounds(videos: int, batch_size: int, batches: int) -> None:
    assert statistics_batches(videos, batch_size) == batches


def test_after_the_last_epoch_all_videos_count(dataset: Dataset, runtime: Runtime) -> None:
    config = tiny_config(precise_bn=True, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluated_module, "FEWEST_VIDEOS", 4)
        trainer = Trainer(config, epochs=EPOCHS, dataset=dataset, runtime=runtime)
    loader = dataset.statistics_loader(clip=clip_spec(config), batch_size=8, seed=0, most_batches=9)
    assert len(loader) == 2, "12 videos in batches of four times the size"
    for epoch, batches in ((0, 1), (1, 2)):
        trainer.run(interrupted=partial(_has_done, trainer, epoch + 1), epoch_done=lambda _: None)
        trainer.model.train()
        some = islice(loader.batches(epoch), batches)
        expected = reestimated(trainer.model, some, device=trainer.device, precision=trainer.precision)
        found = trainer.state()["evaluated"]["statistics"]
        assert all(torch.equal(found[name], value) for name, value in expected.items()), epoch


def _has_done(trainer: Trainer, epochs: int) -> bool:
    return trainer.epoch == epochs
