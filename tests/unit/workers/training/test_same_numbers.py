"""A run equals a loop of plain PyTorch over the same batches to the last bit, also when it is resumed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import Dataset
from models import create_model
from workers.training.inputs import Loaders
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import BASE, tiny_config

EPOCHS = 3
BATCHES = 3  # 12 training videos, 4 a batch
STEPS = EPOCHS * BATCHES
DROPOUT = BASE["dropout"]


@dataclass
class Plain:
    """The same run in PyTorch's own words."""

    settings: dict[str, Any]
    """What the trainer is given."""
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    rate: Callable[[int], float]
    """Learning rate of an update."""
    smoothing: float = 0.0
    clip_norm: float | None = None
    losses: list[dict[str, float]] = field(default_factory=list)

    def train(self, loaders: Loaders) -> nn.Module:
        """Return a fresh model after training; the losses of each epoch are kept."""
        torch.manual_seed(0)
        model = create_model("slowfast_r18", num_classes=2, dropout=DROPOUT, alpha=4, width=8, beta_inv=4)
        optimizer = self.optimizer(model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, self.rate
        )  # every group has an initial rate of its own
        for epoch in range(EPOCHS):
            model.train()
            train_loss, n = 0.0, 0
            for batch in loaders.train.batches(epoch):
                targets = batch.labels if batch.mixed is None else batch.mixed
                loss = F.cross_entropy(model(batch.clips), targets, label_smoothing=self.smoothing)
                optimizer.zero_grad()
                loss.backward()
                if self.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
                optimizer.step()
                scheduler.step()
                train_loss, n = train_loss + loss.item() * len(batch.labels), n + len(batch.labels)
            self.losses.append({"train_loss": train_loss / n, "val_loss": _validation_loss(model, loaders)})
        return model


def _validation_loss(model: nn.Module, loaders: Loaders) -> float:
    model.eval()
    total, n = 0.0, 0
    with torch.no_grad():
        for batch in loaders.validation.batches(0):
            total += F.cross_entropy(model(batch.clips), batch.labels).item() * len(batch.labels)
            n += len(batch.labels)
    return total / n


def _weights(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def _others(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 1]


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": _weights(model), "weight_decay": 1e-3}, {"params": _others(model), "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, fused=True)


def _cosine(step: int) -> float:
    """Return the learning rate of an update: two updates of warm-up, then half a cosine from 0.1."""
    return 0.1 * (step + 1) / 3 if step < 2 else 0.05 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2)))


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    mine = {id(head.weight), id(head.bias)}
    groups = [
        {"params": [p for p in _weights(model) if id(p) not in mine], "lr": 1.0, "weight_decay": 0.05},
        {"params": [p for p in _others(model) if id(p) not in mine], "lr": 1.0, "weight_decay": 0.0},
        {"params": [head.weight], "lr": 4.0, "weight_decay": 0.05},
        {"params": [head.bias], "lr": 8.0, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.8, 0.999), fused=True)


@pytest.fixture(params=["sgd", "adamw"])
def plain(request: pytest.FixtureRequest) -> Plain:
    if request.param == "sgd":
        settings: dict[str, Any] = {"lr": 0.1, "nesterov": True, "warmup_fraction": 2 / STEPS, "weight_decay": 1e-3}
        settings |= {"label_smoothing": 0.1, "grad_clip_norm": 0.25}
        return Plain(settings, _sgd, _cosine, smoothing=0.1, clip_norm=0.25)
    settings = {"optimizer": "adamw", "lr": 0.003, "momentum": 0.8, "weight_decay": 0.05, "schedule": "constant"}
    settings |= {
        "warmup_fraction": 0.0,
        "grad_clip_norm": None,
        "augment.mixup_alpha": 0.8,
        "augment.cutmix_alpha": 1.0,
    }
    settings |= {"head_lr_multiplier": 4.0, "bias_lr_multiplier": 2.0}
    return Plain(settings, _adamw, lambda step: 0.003)


def _trained_in_pieces(dataset: Dataset, runtime: Runtime, settings: dict[str, Any]) -> Trainer:
    """Return a trainer after two interruptions, amid an epoch and at an epoch's end, each resumed by a new trainer."""
    cuts: Iterator[int | None] = iter((BATCHES + 1, 2 * BATCHES, None))
    state: dict[str, Any] | None = None
    for cut in cuts:
        trainer = Trainer(tiny_config(**settings), epochs=EPOCHS, dataset=dataset, runtime=runtime)
        if state is not None:
            trainer.load_state(state)
        done = trainer.run(interrupted=partial(_has_done, trainer, cut), epoch_done=lambda _: None)
        assert done == (cut is None)
        file = io.BytesIO()
        torch.save(trainer.state(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    return trainer


def _has_done(trainer: Trainer, updates: int | None) -> bool:
    return trainer.epoch * BATCHES + trainer.batch == updates


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "resumed"])
def test_losses_and_weights_are_those_of_a_plain_loop(
    dataset: Dataset, runtime: Runtime, plain: Plain, pieces: bool
) -> None:
    if pieces:
        ours = _trained_in_pieces(dataset, runtime, plain.settings)
    else:
        ours = Trainer(tiny_config(**plain.settings), epochs=EPOCHS, dataset=dataset, runtime=runtime)
        assert ours.run(interrupted=lambda: False, epoch_done=lambda _: None)
    expected = plain.train(Loaders.of(dataset, ours.config, runtime.device))
    found = [{name: result.metrics[name] for name in ("train_loss", "val_loss")} for result in ours.curve]
    assert found == plain.losses
    weights = ours.model.state_dict()
    assert list(weights) == list(expected.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in expected.state_dict().items())
