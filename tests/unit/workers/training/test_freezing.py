"""Fine-tuning against a loop of plain PyTorch: what is frozen, for how long, with which rates, and that it resumes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import Dataset
from hpo.spec import TrainingConfig
from models import InvalidModelError, VideoModel, create_model
from workers.training import evaluated as evaluated_module
from workers.training.batch_norm import reestimated
from workers.training.freezing import Freezing
from workers.training.inputs import clip_spec
from workers.training.model import build_model
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import BASE, tiny_config, without_timing

EPOCHS = 3
BATCHES = 3  # 12 training videos, 4 a batch
LR, MOMENTUM, DECAY = 0.05, 0.9, 0.01
SETTINGS: dict[str, Any] = {
    "lr": LR,
    "momentum": MOMENTUM,
    "weight_decay": DECAY,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "grad_clip_norm": None,
}
STEM = ("fast.stem.", "slow.stem.", "laterals.0.")
STAGES = [(f"fast.stages.{i}.", f"slow.stages.{i}.", f"laterals.{i + 1}.") for i in range(4)]
LAYERS = [STEM, *STAGES]


@dataclass
class Case:
    """Settings, and what they mean for the loop."""

    settings: dict[str, Any]
    frozen: Callable[[int], int] = lambda epoch: 0
    """How many of LAYERS are frozen in an epoch."""
    norms: slice | None = None
    """Which batch norms are frozen, of all in the order of their definition."""
    rates: list[float] = field(default_factory=lambda: [1.0] * 6)
    """By which the rate of each layer, then of the head, is multiplied."""
    ema: float = 0.0


CASES = {
    "stem": Case({"freeze": "stem"}, lambda epoch: 1),
    "two": Case({"freeze": 2}, lambda epoch: 3),
    "backbone": Case({"freeze": "backbone"}, lambda epoch: 5),
    "gradual": Case({"freeze": 3, "unfreeze_every": 1}, lambda epoch: 4 - epoch),
    "norms": Case({"batch_norm": "freeze"}, norms=slice(0, None)),
    "partial": Case({"batch_norm": "freeze_all_but_first"}, norms=slice(1, None)),
    "rates": Case({"layer_decay": 0.5, "head_lr_multiplier": 3.0}, rates=[0.5**5, 0.5**4, 0.5**3, 0.25, 0.5, 3.0]),
    "all": Case(
        {"freeze": 1, "unfreeze_every": 2, "batch_norm": "freeze_all_but_first", "layer_decay": 0.5, "ema": 0.6},
        lambda epoch: 2 - epoch // 2,
        norms=slice(1, None),
        rates=[0.5**5, 0.5**4, 0.5**3, 0.25, 0.5, 1.0],
        ema=0.6,
    ),
}


def _layer(name: str) -> int:
    return next((index for index, parts in enumerate(LAYERS) if name.startswith(parts)), len(LAYERS))


@dataclass
class Plain:
    """The loop's model, its momenta and its average of the weights."""

    model: VideoModel
    averaged: dict[str, Tensor]
    trained: list[set[str]]
    """Names of the parameters that were updated, in each epoch."""

    @classmethod
    def train(cls, case: Case, trainer: Trainer) -> Plain:
        torch.manual_seed(0)
        model = create_model("slowfast_r18", num_classes=2, dropout=BASE["dropout"], alpha=4, width=8, beta_inv=4)
        plain = cls(model, {key: value.double() for key, value in model.state_dict().items()}, [])
        momenta: dict[str, Tensor] = {}
        number = 0
        for epoch in range(EPOCHS):
            trained = plain._trained(case, epoch)
            plain.trained.append(trained)
            for batch in trainer.loaders.train.batches(epoch):
                loss = F.cross_entropy(model(batch.clips), batch.targets)
                names = sorted(trained)
                gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
                for name, gradient in zip(names, gradients, strict=True):
                    plain._update(name, gradient, momenta, case)
                kept = min(case.ema, (2 + number) / (11 + number))
                for name, value in model.state_dict().items():
                    plain.averaged[name] = kept * plain.averaged[name] + (1 - kept) * value.double()
                number += 1
        return plain

    def _trained(self, case: Case, epoch: int) -> set[str]:
        """Set the modes of all layers, and return the names of the parameters to be updated."""
        self.model.train()
        frozen = tuple(part for parts in LAYERS[: max(0, case.frozen(epoch))] for part in parts)
        norms = [(name, m) for name, m in self.model.named_modules() if isinstance(m, nn.BatchNorm3d)]
        still = norms[case.norms] if case.norms is not None else []
        for name, norm in norms:
            norm.train(not name.startswith(frozen) and not any(norm is other for _, other in still))
        frozen += tuple(f"{name}." for name, _ in still)
        return {name for name, _ in self.model.named_parameters() if not name.startswith(frozen)}

    def _update(self, name: str, gradient: Tensor, momenta: dict[str, Tensor], case: Case) -> None:
        parameter = self.model.get_parameter(name)
        with torch.no_grad():
            gradient = gradient + (DECAY if parameter.ndim > 1 else 0.0) * parameter
            momenta[name] = MOMENTUM * momenta[name] + gradient if name in momenta else gradient
            parameter.sub_(LR * case.rates[_layer(name)] * momenta[name])


@pytest.fixture
def made(dataset: Dataset, runtime: Runtime) -> Callable[..., Trainer]:
    def make(settings: dict[str, Any]) -> Trainer:
        return Trainer(tiny_config(**{**SETTINGS, **settings}), epochs=EPOCHS, dataset=dataset, runtime=runtime)

    return make


def _train(trainer: Trainer, *, updates: int | None = None) -> None:
    def interrupted() -> bool:
        return trainer.epoch * BATCHES + trainer.batch == updates

    trainer.run(interrupted=interrupted, epoch_done=lambda _: None)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_statistics_are_those_of_a_plain_loop(name: str, made: Callable[..., Trainer]) -> None:
    case = CASES[name]
    trainer = made(case.settings)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    _train(trainer)
    plain = Plain.train(case, trainer)
    state, expected = trainer.model.state_dict(), plain.model.state_dict()
    for key, value in state.items():
        torch.testing.assert_close(value, expected[key], rtol=2e-4, atol=2e-5)
    never = set(state) - set().union(*plain.trained) - {key for key, _ in trainer.model.named_buffers()}
    assert all(torch.equal(state[key], before[key]) for key in never)
    assert bool(never) == (name in ("stem", "two", "backbone", "gradual", "norms", "partial", "all"))
    if case.ema:
        averaged = trainer.state()["evaluated"]["average"]
        for key, value in averaged.items():
            torch.testing.assert_close(value.double(), plain.averaged[key], rtol=2e-4, atol=2e-5)
        assert all(torch.equal(averaged[key], before[key]) for key in never)


def test_what_is_frozen_has_no_gradient_and_no_momentum(made: Callable[..., Trainer]) -> None:
    trainer = made({"freeze": "backbone"})
    _train(trainer, updates=2)
    with_gradient = {name for name, parameter in trainer.model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"head.weight", "head.bias"}
    assert len(trainer.recipe.optimizer.state) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze": 4, "unfreeze_every": 1, "precise_bn": True, "ema": 0.5},
        {"batch_norm": "freeze_all_but_first", "precise_bn": True, "layer_decay": 0.7},
        {"freeze": 2, "unfreeze_every": 1, "optimizer": "adamw", "batch_norm": "freeze"},
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    settings: dict[str, Any], made: Callable[..., Trainer]
) -> None:
    whole = made(settings)
    _train(whole)
    for cut in (1, BATCHES, BATCHES + 2):
        first, second = made(settings), made(settings)
        _train(first, updates=cut)
        file = io.BytesIO()
        torch.save(first.state(), file)
        file.seek(0)
        second.load_state(torch.load(file, weights_only=True))
        _train(second)
        for key, value in whole.model.state_dict().items():
            assert torch.equal(second.model.state_dict()[key], value), (cut, key)
        curves = [[without_timing(result.metrics) for result in trainer.curve] for trainer in (whole, second)]
        assert curves[0] == curves[1], cut


def test_precise_batch_norm_leaves_frozen_statistics_alone(made: Callable[..., Trainer], dataset: Dataset) -> None:
    trainer = made({"freeze": 2, "precise_bn": True})
    _train(trainer, updates=BATCHES)
    found = trainer.state()["evaluated"]["statistics"]
    moving = {name for name, module in trainer.model.named_modules() if isinstance(module, nn.BatchNorm3d)}
    moving = {name for name in moving if _layer(name) > 2}
    assert set(found) == {f"{name}.running_{kind}" for name in moving for kind in ("mean", "var")}
    model = build_model(trainer.config, num_classes=dataset.num_classes)
    model.load_state_dict(trainer.model.state_dict())
    for name, module in model.train().named_modules():
        if isinstance(module, nn.BatchNorm3d):
            module.train(name in moving)
    loader = dataset.statistics_loader(clip=clip_spec(trainer.config), batch_size=16, seed=0, most_batches=9)
    expected = reestimated(model, loader.batches(0), device=trainer.device, precision=trainer.precision)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_precise_batch_norm_reads_no_clips_where_all_is_frozen(
    made: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluated_module, "reestimated", lambda *_, **__: pytest.fail("it was computed"))
        trainer = made({"batch_norm": "freeze", "precise_bn": True})
        _train(trainer, updates=BATCHES)
    assert trainer.state()["evaluated"]["statistics"] == {}
    gradual = made({"freeze": "backbone", "unfreeze_every": 1, "precise_bn": True})
    found = []
    for epoch in (1, 2):
        gradual.run(interrupted=partial(_has_done, gradual, epoch), epoch_done=lambda _: None)
        found.append({_layer(name) for name in gradual.state()["evaluated"]["statistics"]})
    assert found == [set(), {4}], "in the second epoch the last stage trains"


def _has_done(trainer: Trainer, epochs: int) -> bool:
    return trainer.epoch == epochs


FIRST_NORMS = {
    "r3d_18": ["stem.1"],
    "s3d": ["features.0.0.1"],
    "tsm_resnet18": ["bn1"],
    "slowfast_r18": ["fast.stem.norm"],
    "stmulnet_r18": ["spatial.bn1", "temporal.bn1"],
    "swin3d_t": [],
}


@pytest.mark.parametrize("name", FIRST_NORMS)
def test_partial_batch_norm_leaves_the_first_of_each_stream(name: str) -> None:
    model = create_model(name, num_classes=2, width=32 if name == "swin3d_t" else 8)
    config = TrainingConfig.from_flat({"model": name, "batch_norm": "freeze_all_but_first"})
    Freezing(model, config).apply(0)
    norms = [key for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert [key for key in norms if model.get_submodule(key).training] == FIRST_NORMS[name]
    trained = {key.rpartition(".")[0] for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert [key for key in norms if key in trained] == FIRST_NORMS[name]
    others = {key.rpartition(".")[0] for key, _ in model.named_parameters()} - set(norms)
    assert others <= trained


def test_nothing_is_dropped_in_a_frozen_block() -> None:
    model = create_model("swin3d_t", num_classes=2, width=32)
    Freezing(model, TrainingConfig.from_flat({"model": "swin3d_t", "freeze": 3})).apply(0)
    drops = {key: module.training for key, module in model.named_modules() if key.endswith("stochastic_depth")}
    assert {key for key, training in drops.items() if not training} == {
        f"features.{stage}.{block}.stochastic_depth" for stage, block in ((0, 0), (0, 1), (2, 0))
    }
    assert model.dropout.training


@pytest.mark.parametrize(("name", "most"), [("slowfast_r18", 4), ("inception_v3", 3)])
def test_more_layers_than_there_are_is_refused(name: str, most: int) -> None:
    model = create_model(name, num_classes=2, width=8)
    Freezing(model, TrainingConfig.from_flat({"model": name, "freeze": most}))
    with pytest.raises(InvalidModelError, match=f"{name} has a stem and {most} layers after it"):
        Freezing(model, TrainingConfig.from_flat({"model": name, "freeze": most + 1}))
