"""Every setting of a training run reaches what it is meant to change: one entry of CHECKS for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data import ClipBatch, ClipLoader, Dataset, DatasetSpec, open_dataset
from hpo.spec import TrainingConfig
from models import WeightsUnavailableError
from workers.training import trainer as trainer_module
from workers.training.inputs import clip_spec
from workers.training.precision import choose_precision
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import BASE

LR = 0.02
PLAIN: dict[str, Any] = {
    **BASE,
    "lr": LR,
    "dropout": 0.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "warmup_fraction": 0.0,
    "grad_clip_norm": None,
}
IMAGES: dict[str, Any] = {"model": "resnet18", "model.width": 8}
"""A network of single frames, which takes any number of them and any number of channels."""
FLOW: dict[str, Any] = {**IMAGES, "clip.modality": "flow"}
ANY_OPTION = "model.*"


@dataclass(frozen=True)
class Runs:
    """Makes trainers that differ in a few settings."""

    rgb: Dataset
    flow: Dataset
    runtime: Runtime

    def config(self, **changes: Any) -> TrainingConfig:
        """Return PLAIN with changes; a change of the model drops the options of the other one."""
        kept = {key: value for key, value in PLAIN.items() if "model" not in changes or not key.startswith("model")}
        return TrainingConfig.from_flat({**kept, **changes})

    def trainer(self, *, epochs: int = 2, **changes: Any) -> Trainer:
        """Return a fresh trainer."""
        config = self.config(**changes)
        return Trainer(config, epochs=epochs, dataset=self.dataset(config), runtime=self.runtime)

    def dataset(self, config: TrainingConfig) -> Dataset:
        """Return the data set that a configuration needs."""
        return self.flow if config.clip.modality == "flow" else self.rgb


@pytest.fixture(scope="module")
def flowing(videos: Path, cache_dir: Path) -> Dataset:
    return open_dataset(DatasetSpec(root=str(videos), short_side=32, flow="dis"), cache_dir=cache_dir)


@pytest.fixture
def runs(dataset: Dataset, flowing: Dataset, runtime: Runtime) -> Runs:
    return Runs(dataset, flowing, runtime)


CHECKS: dict[str, Callable[[Runs], None]] = {}
"""By the dotted name of the setting."""


def reaches(setting: str) -> Callable[[Callable[[Runs], None]], Callable[[Runs], None]]:
    """Return a decorator that registers a check."""

    def register(check: Callable[[Runs], None]) -> Callable[[Runs], None]:
        CHECKS[setting] = check
        return check

    return register


@dataclass(frozen=True)
class Update:
    """One update of a fresh trainer."""

    trainer: Trainer
    batch: ClipBatch
    loss: float
    logits: Tensor
    before: dict[str, Tensor]

    def moved(self, name: str) -> Tensor:
        """Return the change of a parameter."""
        return self.trainer.model.get_parameter(name).detach() - self.before[name]

    def length(self) -> float:
        """Return the Euclidean length of the change of all parameters."""
        return math.sqrt(sum(float(self.moved(name).double().square().sum()) for name in self.before))


def update(runs: Runs, *, number: int = 0, **changes: Any) -> Update:
    """Return update `number` of a fresh trainer on its first batch."""
    trainer = runs.trainer(**changes)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    batch = first(trainer.loaders.train.batches(0))
    loss, logits = trainer.training_step.update(batch, number=number)
    return Update(trainer, batch, float(loss), logits, before)


def first(batches: Iterable[ClipBatch]) -> ClipBatch:
    return next(iter(batches))


def group_of(trainer: Trainer, parameter: Tensor) -> dict[str, Any]:
    """Return the optimizer's group that holds a parameter."""
    (found,) = (g for g in trainer.recipe.optimizer.param_groups if any(p is parameter for p in g["params"]))
    return found


@reaches("model")
def _model(runs: Runs) -> None:
    assert [runs.trainer(model=name).model.name for name in ("r3d_18", "resnet18")] == ["r3d_18", "resnet18"]


@reaches(ANY_OPTION)
def _options_of_the_model(runs: Runs) -> None:
    narrow, wide = (runs.trainer(**{**IMAGES, "model.width": width}).model.num_features for width in (8, 16))
    assert wide == 2 * narrow


@reaches("dropout")
def _dropout(runs: Runs) -> None:
    assert runs.trainer(dropout=0.7).model.dropout.p == 0.7
    assert update(runs, dropout=0.7).loss != update(runs, dropout=0.0).loss
    cards = {name: runs.trainer(model=name, dropout="card").model.dropout.p for name in ("slowfast_r18", "r3d_18")}
    assert cards == {"slowfast_r18": 0.5, "r3d_18": 0.0}


@reaches("batch_size")
def _batch_size(runs: Runs) -> None:
    loaders = runs.trainer(batch_size=3).loaders
    assert len(first(loaders.train.batches(0)).labels) == 3
    assert len(first(loaders.validation).labels) == 3


@reaches("optimizer")
def _optimizer(runs: Runs) -> None:
    kinds = {name: type(runs.trainer(optimizer=name).recipe.optimizer) for name in ("sgd", "adamw")}
    assert kinds == {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


@reaches("lr")
def _lr(runs: Runs) -> None:
    assert update(runs, lr=2 * LR).length() == pytest.approx(2 * update(runs).length(), rel=1e-4)


@reaches("momentum")
def _momentum(runs: Runs) -> None:
    (sgd,) = {group["momentum"] for group in runs.trainer(momentum=0.6).recipe.optimizer.param_groups}
    (adamw,) = {g["betas"] for g in runs.trainer(momentum=0.6, optimizer="adamw").recipe.optimizer.param_groups}
    assert (sgd, adamw[0]) == (0.6, 0.6)


@reaches("nesterov")
def _nesterov(runs: Runs) -> None:
    # The first step of Nesterov's momentum m is (1 + m) times that of the plain one.
    plain, ahead = (update(runs, momentum=0.5, nesterov=nesterov).length() for nesterov in (False, True))
    assert ahead == pytest.approx(1.5 * plain, rel=1e-4)


@reaches("weight_decay")
def _weight_decay(runs: Runs) -> None:
    plain, decayed = update(runs), update(runs, weight_decay=5.0)
    shrunk = decayed.moved("head.weight") - plain.moved("head.weight")
    torch.testing.assert_close(shrunk, -LR * 5.0 * plain.before["head.weight"], rtol=1e-3, atol=1e-7)


@reaches("schedule")
def _schedule(runs: Runs) -> None:
    # Half a cosine is at half its height in the middle: update 3 of 6.
    halfway = {name: update(runs, number=3, schedule=name).length() for name in ("constant", "cosine")}
    assert halfway["cosine"] == pytest.approx(halfway["constant"] / 2, rel=1e-4)


@reaches("warmup_fraction")
def _warmup_fraction(runs: Runs) -> None:
    # Two updates of six: the first has a third of the full rate.
    assert update(runs, warmup_fraction=1 / 3).length() == pytest.approx(update(runs).length() / 3, rel=1e-4)


@reaches("warmup_start_share")
def _warmup_start_share(runs: Runs) -> None:
    settings: dict[str, Any] = {"warmup_fraction": 1 / 3, "warmup_start_share": 0.5}
    assert update(runs, **settings).length() == pytest.approx(update(runs).length() * 2 / 3, rel=1e-4)


@reaches("min_lr_share")
def _min_lr_share(runs: Runs) -> None:
    # Update 3 of 6 is in the middle between the highest rate and the lowest.
    found = update(runs, number=3, min_lr_share=0.5).length()
    assert found == pytest.approx(0.75 * update(runs).length(), rel=1e-4)


@reaches("lr_gamma")
def _lr_gamma(runs: Runs) -> None:
    found = update(runs, number=4, schedule="step", lr_gamma=0.5).length()
    assert found == pytest.approx(update(runs).length() / 4, rel=1e-4), "a step at updates 2 and 4"


@reaches("lr_step")
def _lr_step(runs: Runs) -> None:
    found = update(runs, number=4, schedule="step", lr_gamma=0.5, lr_step=0.5).length()
    assert found == pytest.approx(update(runs).length() / 2, rel=1e-4), "a step at update 3"


@reaches("lr_milestones")
def _lr_milestones(runs: Runs) -> None:
    settings: dict[str, Any] = {"schedule": "multistep", "lr_gamma": 0.5}
    halves = {text: update(runs, number=3, lr_milestones=text, **settings).length() for text in ("0.4, 0.5", "0.6")}
    assert halves["0.4, 0.5"] == pytest.approx(update(runs).length() / 4, rel=1e-4)
    assert halves["0.6"] == pytest.approx(update(runs).length(), rel=1e-4)


@reaches("lr_scaling")
def _lr_scaling(runs: Runs) -> None:
    linear = update(runs, lr_scaling="linear").length()
    assert linear == pytest.approx(update(runs).length() * runs.config().batch_size / 64, rel=1e-4)


@reaches("lr_batch_size")
def _lr_batch_size(runs: Runs) -> None:
    linear = update(runs, lr_scaling="linear", lr_batch_size=2).length()
    assert linear == pytest.approx(update(runs).length() * runs.config().batch_size / 2, rel=1e-4)


@reaches("decay_tables")
def _decay_tables(runs: Runs) -> None:
    options: dict[str, Any] = {"model": "swin3d_t", "model.width": 32, "weight_decay": 5.0}
    for value in (True, False):
        trainer = runs.trainer(decay_tables=value, **options)
        (table, *_) = (p for n, p in trainer.model.named_parameters() if n.endswith("relative_position_bias_table"))
        assert group_of(trainer, table)["weight_decay"] == (5.0 if value else 0.0)


def _trained(runs: Runs, *, epochs: int = 1, **changes: Any) -> set[str]:
    """Return the names of the parameters that a run has changed."""
    trainer = runs.trainer(epochs=epochs, **changes)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    return {name for name, value in before.items() if not torch.equal(value, trainer.model.get_parameter(name))}


@reaches("freeze")
def _freeze(runs: Runs) -> None:
    assert _trained(runs, freeze="backbone") == {"head.weight", "head.bias"}


@reaches("unfreeze_every")
def _unfreeze_every(runs: Runs) -> None:
    names = _trained(runs, epochs=2, freeze="backbone", unfreeze_every=1)
    assert {name.rpartition("stages.")[2][:1] for name in names} == {"h", "3"}, "the head and the last stage"


@reaches("batch_norm")
def _batch_norm(runs: Runs) -> None:
    assert {name for name in _trained(runs) if "norm" in name}
    assert not {name for name in _trained(runs, batch_norm="freeze") if "norm" in name}


@reaches("layer_decay")
def _layer_decay(runs: Runs) -> None:
    plain, slower = update(runs), update(runs, layer_decay=0.5)
    for name, depth in (("head.weight", 0), ("slow.stages.3.1.branch.conv_b.weight", 1), ("slow.stem.conv.weight", 5)):
        torch.testing.assert_close(slower.moved(name), 0.5**depth * plain.moved(name), rtol=1e-3, atol=1e-6)


@reaches("label_smoothing")
def _label_smoothing(runs: Runs) -> None:
    found = update(runs, label_smoothing=0.4)
    logs = found.logits.double().log_softmax(1)
    right = logs.gather(1, found.batch.labels[:, None]).mean()
    assert found.loss == pytest.approx(float(-0.6 * right - 0.4 * logs.mean()), rel=1e-5)


@reaches("grad_clip_norm")
def _grad_clip_norm(runs: Runs) -> None:
    free = update(runs).length()
    assert update(runs, grad_clip_norm=0.5 * free / LR).length() == pytest.approx(0.5 * free, rel=1e-3)
    assert update(runs, grad_clip_norm=2 * free / LR).length() == pytest.approx(free, rel=1e-6)


@reaches("head_lr_multiplier")
def _head_lr_multiplier(runs: Runs) -> None:
    plain, fast = update(runs), update(runs, head_lr_multiplier=7.0)
    for name in plain.before:
        factor = 7.0 if name.startswith("head.") else 1.0
        torch.testing.assert_close(fast.moved(name), factor * plain.moved(name), rtol=1e-3, atol=1e-6)


@reaches("bias_lr_multiplier")
def _bias_lr_multiplier(runs: Runs) -> None:
    found = update(runs, bias_lr_multiplier=3.0)
    head = found.trainer.model.get_classifier()
    assert group_of(found.trainer, head.bias)["lr"] == pytest.approx(3 * LR)
    assert group_of(found.trainer, head.weight)["lr"] == LR


@reaches("ema")
def _ema(runs: Runs) -> None:
    found = {}
    for value in (0.0, 0.5):
        trainer = runs.trainer(epochs=1, ema=value)
        trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
        found[value] = trainer.state()["evaluated"]["average"]
    assert not found[0.0]
    assert not torch.equal(found[0.5]["head.weight"], trainer.model.get_classifier().weight)


@reaches("precise_bn")
def _precise_bn(runs: Runs) -> None:
    found = {}
    for value in (False, True):
        trainer = runs.trainer(epochs=1, precise_bn=value)
        trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
        found[value] = trainer.state()["evaluated"]["statistics"]
    assert not found[False]
    assert all(not torch.equal(value, trainer.model.get_buffer(name)) for name, value in found[True].items())


@reaches("weights")
def _weights(runs: Runs) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"no weights file 'start\.pth'"):
        runs.trainer(weights="start.pth")


@reaches("validate_every")
def _validate_every(runs: Runs) -> None:
    trainer = runs.trainer(epochs=3, validate_every=2)
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    assert ["val_top1" in result.metrics for result in trainer.curve] == [False, True, True]


@reaches("keep_best_epoch")
def _keep_best_epoch(runs: Runs) -> None:
    # The job that runs a trainer reads it there: tests/unit/workers/process/test_job.py.
    assert runs.trainer(keep_best_epoch=True).identity.config.keep_best_epoch


@reaches("precision")
def _precision(runs: Runs) -> None:
    gpu = Runtime(device=torch.device("cuda"), threads=1, bf16=True, fp16=True)
    chosen = {name: choose_precision(runs.config(precision=name), gpu) for name in ("auto", "fp32", "bf16", "fp16")}
    assert chosen == {"auto": "bf16", "fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "choose_precision", lambda config, runtime: choose_precision(config, gpu))
        for wanted, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            # Not a network of space and time: see `choose_precision`.
            found = _dtypes_of_logits(runs.trainer(epochs=1, precision=wanted, **IMAGES))
            assert found == {"train": dtype, "eval": dtype}


def _dtypes_of_logits(trainer: Trainer) -> dict[str, torch.dtype]:
    found: dict[str, torch.dtype] = {}

    def see(module: nn.Module, _: Any, output: Tensor) -> None:
        found["train" if module.training else "eval"] = output.dtype

    trainer.model.get_classifier().register_forward_hook(see)
    trainer.run(interrupted=lambda: trainer.batch == 1, epoch_done=lambda _: None)
    trainer.batch = len(trainer.loaders.train)  # the epoch is over: what is left of it is validation
    trainer.run(interrupted=lambda: trainer.epoch == 1, epoch_done=lambda _: None)
    return found


@reaches("seed")
def _seed(runs: Runs) -> None:
    trainers = [runs.trainer(seed=seed) for seed in (1, 1, 2)]
    orders = [[id_ for batch in trainer.loaders.train.batches(0) for id_ in batch.ids] for trainer in trainers]
    weights = [trainer.model.get_classifier().weight for trainer in trainers]
    assert orders[0] == orders[1] != orders[2]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def _tensors(batches: Iterable[ClipBatch]) -> Iterator[Tensor]:
    for batch in batches:
        assert isinstance(batch.clips, Tensor)
        yield batch.clips.clone()  # the loader may use its memory again
        yield batch.targets


def _same(mine: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(list(mine), list(other), strict=True))


def _train(loader: ClipLoader) -> list[Tensor]:
    return list(_tensors(loader.batches(0)))


def _clip_setting(runs: Runs, *, setting: str, value: Any, given: dict[str, Any], changes: dict[str, Any]) -> None:
    """Compare both loaders with those of the clips that are meant, and with those of the setting's default."""
    before, after = runs.trainer(**given), runs.trainer(**given, **{setting: value})
    clip, dataset = clip_spec(before.config).model_copy(update=changes), runs.dataset(after.config)
    size, seed = after.config.batch_size, after.config.seed
    train = dataset.train_loader(clip=clip, augment=before.config.augment, batch_size=size, seed=seed)
    validation = dataset.validation_loader(clip=clip, batch_size=size)
    assert _same(_train(after.loaders.train), _train(train))
    assert _same(_tensors(after.loaders.validation), _tensors(validation))
    assert not _same(_train(after.loaders.train), _train(before.loaders.train))
    assert not _same(_tensors(after.loaders.validation), _tensors(before.loaders.validation))
    assert math.isfinite(float(after.training_step.update(first(after.loaders.train), number=0)[0]))


def _clip(setting: str, value: Any, *, given: dict[str, Any] | None = None, changes: dict[str, Any]) -> None:
    check = partial(_clip_setting, setting=setting, value=value, given=given or {}, changes=changes)
    CHECKS[setting] = check


_clip("clip.frames", 16, changes={"frames": 16})
_clip("clip.stride", 2, given={"clip.frames": 4}, changes={"stride": 2})
_clip("clip.size", 32, changes={"size": 32})


@reaches("clip.test_size")
def _test_size(runs: Runs) -> None:
    plain, larger = runs.trainer(), runs.trainer(**{"clip.test_size": 32})
    assert _same(_train(plain.loaders.train), _train(larger.loaders.train))
    assert {clips.shape[-1] for clips in _tensors(larger.loaders.validation) if clips.ndim == 5} == {32}
    larger.run(interrupted=lambda: larger.epoch == 1, epoch_done=lambda _: None)
    assert math.isfinite(larger.curve[0].metrics["val_loss"])


@reaches("test_pooling")
def _test_pooling(runs: Runs) -> None:
    sizes = {"clip.size": 32, "clip.test_size": 96}
    whole, positions = (runs.trainer(**sizes, test_pooling=name) for name in ("global", "fully_convolutional"))
    clip = torch.randn(1, 3, 8, 96, 96)
    with torch.no_grad():
        whole_map = whole.model.eval()(clip).softmax(1)
        positions_of_32 = positions.model.eval()(clip).softmax(1)
        whole.model.score_positions(32)
        assert torch.equal(positions_of_32, whole.model(clip).softmax(1))
    assert not torch.equal(positions_of_32, whole_map)


_clip("clip.sampling", "segments", given={"clip.frames": 4}, changes={"sampling": "segments"})
_clip("clip.gap", 3, given={**IMAGES, "model.seq_len": 2, "clip.frames": 4}, changes={"gap": 3})
_clip("clip.padding", "last", given={"clip.frames": 16}, changes={"padding": "last"})
_clip("clip.modality", "flow", given=IMAGES, changes={"inputs": ("flow",)})
_clip("clip.flow_pairs", 2, given=FLOW, changes={"flow_pairs": 2})
_clip("clip.flow_centring", "mean", given=FLOW, changes={"flow_centring": "mean"})


def _augment_setting(runs: Runs, *, name: str, value: Any, given: dict[str, Any]) -> None:
    """Compare the training clips with those of the changes that are meant, and with those of the default."""
    needed = {f"augment.{key}": other for key, other in given.items()}
    before, after = runs.trainer(**needed), runs.trainer(**needed, **{f"augment.{name}": value})
    meant = runs.rgb.train_loader(
        clip=clip_spec(before.config),
        augment=before.config.augment.model_copy(update={name: value}),
        batch_size=after.config.batch_size,
        seed=after.config.seed,
    )
    assert _same(_train(after.loaders.train), _train(meant))
    assert not _same(_train(after.loaders.train), _train(before.loaders.train))
    assert _same(_tensors(after.loaders.validation), _tensors(before.loaders.validation))


def _augment(name: str, value: Any, *, given: dict[str, Any] | None = None) -> None:
    CHECKS[f"augment.{name}"] = partial(_augment_setting, name=name, value=value, given=given or {})


BOTH_MIXES = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}
_augment("crop", "corner")
_augment("scale_min", 1.0)
_augment("ratio_max", 1.0)
_augment("short_side_max", 3.0, given={"crop": "short_side"})
_augment("flip", 0.0)
_augment("jitter", 0.5)
_augment("saturation", 0.5)
_augment("hue", 0.5)
_augment("randaugment_n", 3)
_augment("randaugment_m", 2.0, given={"randaugment_n": 3})
_augment("randaugment_noise", 3.0, given={"randaugment_n": 3})
_augment("randaugment_interpolation", "bicubic", given={"randaugment_n": 3})
_augment("erase", 1.0)
_augment("repeats", 2)
_augment("mixup_alpha", 1.0)
_augment("cutmix_alpha", 1.0)
_augment("mixup_prob", 0.0, given=BOTH_MIXES)
_augment("mixup_switch_prob", 0.0, given=BOTH_MIXES)


@pytest.mark.parametrize("setting", CHECKS)
def test_it_reaches_the_run(setting: str, runs: Runs) -> None:
    CHECKS[setting](runs)


def test_no_setting_is_without_a_check() -> None:
    assert set(CHECKS) == {*TrainingConfig.all_defaults(), ANY_OPTION}
