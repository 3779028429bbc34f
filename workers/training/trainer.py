"""Train one configuration, exactly resumable at every batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch, Dataset
from hpo.spec.training import TrainingConfig

from ..checkpoints.contents import Identity
from ..errors import DivergedError, TimeLimitError
from .inputs import Loaders, build_model
from .metrics import Sums
from .optimizer import make_optimizer
from .precision import autocast, resolve
from .reproducibility import Runtime, peak_memory_bytes, prepare, random_state, restore_random_state, seed_everything
from .schedule import learning_rate
from .scoring import Score, score

_GPU_CHECK_BATCHES = 16
"""Reading a loss from a GPU waits for it, so that a NaN is looked for only every so many batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """An epoch that is over: `epoch` counts from 1, `seconds` is its wall time, validation included."""

    epoch: int
    metrics: dict[str, float]
    seconds: float


class Trainer:
    """One run: model, optimizer, position.

    On the same machine with the same thread count a run that was interrupted and resumed, any number of times,
    equals one that was not, bit for bit on a CPU.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        epochs: int,
        dataset: Dataset,
        runtime: Runtime,
        time_limit_seconds: float | None = None,
    ) -> None:
        """Build everything for a fresh start; seeds every global generator.

        Raises:
            models.ModelError: the model cannot be built.
        """
        prepare(runtime)
        seed_everything(config.seed)
        self.config = config
        self.epochs = epochs
        self.device = runtime.device
        self.precision = resolve(config, runtime)
        self.loaders = Loaders.of(dataset, config, runtime.device)
        self.model = build_model(config, num_classes=dataset.num_classes).to(runtime.device)
        self.optimizer = make_optimizer(
            self.model.param_groups(
                weight_decay=config.weight_decay,
                head_lr_mult=config.head_lr_multiplier,
                bias_lr_mult=config.bias_lr_multiplier,
            ),
            config,
        )
        self.identity = Identity(
            config=config, epochs=epochs, dataset_version=dataset.version, class_names=dataset.class_names
        )
        self.epoch = 0
        """Epochs done."""
        self.batch = 0
        """Batches done of the running epoch."""
        self.curve: list[EpochResult] = []
        self._sums = Sums(runtime.device)
        self._seconds_before = 0.0
        self._entered = time.perf_counter()
        self._time_limit_seconds = time_limit_seconds

    @property
    def training_seconds(self) -> float:
        """Time spent on the run so far, by all processes that took part, without set-up."""
        return sum(result.seconds for result in self.curve) + self._epoch_seconds()

    def run(self, *, interrupted: Callable[[], bool], epoch_done: Callable[[EpochResult], None]) -> bool:
        """Train to the last epoch, or until `interrupted`, which is asked before every batch.

        Returns:
            Whether the last epoch is done.

        Raises:
            DivergedError: the loss became NaN or infinite.
            TimeLimitError: the time limit is over.
        """
        self._entered = time.perf_counter()
        while self.epoch < self.epochs:
            if not self._train_epoch(interrupted):
                self._pause_clock()
                return False
            epoch_done(self._close_epoch())
            self._entered = time.perf_counter()
        return True

    def _train_epoch(self, interrupted: Callable[[], bool]) -> bool:
        self.model.train()
        with closing(self.loaders.train.batches(self.epoch, start_batch=self.batch)) as batches:  # type: ignore[type-var]  # generator
            for batch in batches:
                if interrupted():
                    return False
                self._update(batch)
                self.batch += 1
                self._check_limits()
        return True

    def _update(self, batch: ClipBatch) -> None:
        config = self.config
        step = self.epoch * len(self.loaders.train) + self.batch
        rate = learning_rate(config, step=step, total_steps=self.epochs * len(self.loaders.train))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        with autocast(self.precision, self.device):
            # A model of two clips takes the pair, which its base class does not promise.
            loss, logits = self.model.training_loss(batch.clips, batch.targets, self._criterion)  # type: ignore[arg-type]  # a model takes what its card says
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch's gap
        if config.grad_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip_norm)
        self.optimizer.step()
        self._sums.add(loss, logits.float(), batch.labels)

    def _criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)

    def _check_limits(self) -> None:
        if self.device.type == "cpu" or self.batch % _GPU_CHECK_BATCHES == 0:
            self._require_finite("training", self._sums.loss)
        limit = self._time_limit_seconds
        if limit is not None and self.training_seconds > limit:
            raise TimeLimitError(
                f"the trial trained longer than its limit of {limit / 60:g} minutes; it had done {self.epoch} of "
                f"{self.epochs} epochs"
            )

    def _require_finite(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the {what} loss became {loss} in epoch {self.epoch + 1} at batch {self.batch} "
                f"(lr {self.config.lr:g}); a lower learning rate may help"
            )

    def _close_epoch(self) -> EpochResult:
        sums = self._sums
        self._require_finite("training", sums.loss)
        training_seconds = self._epoch_seconds()
        validation = score(self.model, self.loaders.validation, device=self.device, precision=self.precision)
        self._require_finite("validation", validation.loss)
        seconds = self._epoch_seconds()
        metrics = self._metrics(sums, validation) | {
            "epoch_seconds": seconds,
            "clips_per_second": sums.samples / training_seconds,
        }
        result = EpochResult(epoch=self.epoch + 1, metrics=metrics, seconds=seconds)
        self.curve.append(result)
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums = Sums(self.device)
        self._seconds_before = 0.0
        self._entered = time.perf_counter()
        return result

    def _metrics(self, sums: Sums, validation: Score) -> dict[str, float]:
        return {
            "val_top1": validation.top1,
            "val_top5": validation.top5,
            "val_loss": validation.loss,
            "train_top1": sums.top1,
            "train_loss": sums.loss,
            "peak_memory_gib": peak_memory_bytes(self.device) / 2**30,
            "parameters_millions": sum(parameter.numel() for parameter in self.model.parameters()) / 1e6,
        }

    def _epoch_seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._entered

    def _pause_clock(self) -> None:
        self._seconds_before = self._epoch_seconds()
        self._entered = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`load_state` needs, loadable with `weights_only=True`."""
        return {
            **self.identity.to_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self.device),
            "sums": self._sums.state(),
            "seconds": self._epoch_seconds(),
            "curve": curve_to_state(self.curve),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was taken, in this process or another."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.curve = curve_from_state(state["curve"])
        self._sums = Sums.from_state(state["sums"], self.device)
        self._seconds_before = state["seconds"]
        self._entered = time.perf_counter()
        restore_random_state(state["random"], self.device)


def final_state(resume_state: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a resume point to the final file: weights, configuration, curve."""
    return {key: value for key, value in resume_state.items() if key not in ("optimizer", "random", "sums")}


def curve_to_state(curve: list[EpochResult]) -> list[dict[str, Any]]:
    """Write a learning curve as plain values."""
    return [{"epoch": r.epoch, "metrics": dict(r.metrics), "seconds": r.seconds} for r in curve]


def curve_from_state(state: list[dict[str, Any]]) -> list[EpochResult]:
    """Read what :func:`curve_to_state` wrote."""
    return [EpochResult(epoch=r["epoch"], metrics=dict(r["metrics"]), seconds=r["seconds"]) for r in state]
