"""Train one configuration, exactly resumable at every batch: the loop over batches and epochs, and its state.

One update is in `step`, optimizer and learning rate in `recipe`, what an epoch measures in `epoch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from data import Dataset
from hpo.spec import TrainingConfig

from ..checkpoints.contents import Identity
from ..errors import DivergedError, TimeLimitError
from .epoch import EpochResult, Stopwatch, curve_from_state, curve_to_state, epoch_metrics
from .inputs import Loaders
from .metrics import Sums
from .model import build_model
from .precision import choose_precision
from .recipe import Recipe
from .reproducibility import Runtime, prepare, random_state, restore_random_state, seed_everything
from .scoring import score
from .step import TrainingStep

_GPU_CHECK_BATCHES = 16
"""Batches from one check of the loss to the next on a GPU, where reading it waits for all that was started before."""


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
        self.precision = choose_precision(config, runtime)
        self.loaders = Loaders.of(dataset, config, runtime.device)
        self.model = build_model(config, num_classes=dataset.num_classes).to(runtime.device)
        self.recipe = Recipe(self.model, config, total_steps=epochs * len(self.loaders.train))
        self.identity = Identity(
            config=config, epochs=epochs, dataset_version=dataset.version, class_names=dataset.class_names
        )
        self.epoch = 0
        """Epochs done."""
        self.batch = 0
        """Batches done of the running epoch."""
        self.curve: list[EpochResult] = []
        self.training_step = TrainingStep(
            model=self.model, recipe=self.recipe, config=config, precision=self.precision, device=runtime.device
        )
        self._sums = Sums(runtime.device)
        self._stopwatch = Stopwatch()
        self._time_limit_seconds = time_limit_seconds

    def run(self, *, interrupted: Callable[[], bool], epoch_done: Callable[[EpochResult], None]) -> bool:
        """Train to the last epoch, or until `interrupted`, which is asked before every batch.

        Returns:
            Whether the last epoch is done.

        Raises:
            DivergedError: the loss became NaN or infinite.
            TimeLimitError: the run took longer than its time limit.
        """
        while self.epoch < self.epochs:
            self._stopwatch.start()
            if not self._train_epoch(interrupted):
                self._stopwatch.stop()
                return False
            epoch_done(self._close_epoch())
        return True

    def _train_epoch(self, interrupted: Callable[[], bool]) -> bool:
        """Train on the rest of the running epoch; return whether it is done."""
        self.model.train()
        with closing(self.loaders.train.batches(self.epoch, start_batch=self.batch)) as batches:  # type: ignore[type-var]  # generator
            for batch in batches:
                if interrupted():
                    return False
                loss, logits = self.training_step.update(
                    batch, number=self.epoch * len(self.loaders.train) + self.batch
                )
                self._sums.add(loss, logits, batch.labels)
                self.batch += 1
                self._check_limits()
        return True

    def _check_limits(self) -> None:
        if self.device.type == "cpu" or self.batch % _GPU_CHECK_BATCHES == 0:
            self._require_finite("training", self._sums.loss)
        limit = self._time_limit_seconds
        if limit is not None and self._seconds() > limit:
            raise TimeLimitError(
                f"the trial trained longer than its limit of {limit / 60:g} minutes; it had done {self.epoch} of "
                f"{self.epochs} epochs"
            )

    def _seconds(self) -> float:
        """Return the time spent on the run so far, by all processes that took part, without set-up."""
        return sum(result.seconds for result in self.curve) + self._stopwatch.seconds

    def _require_finite(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the {what} loss became {loss} in epoch {self.epoch + 1} at batch {self.batch} "
                f"(lr {self.config.lr:g}); a lower learning rate may help"
            )

    def _close_epoch(self) -> EpochResult:
        """Validate, add a point to the curve and stand at the beginning of the next epoch."""
        self._require_finite("training", self._sums.loss)
        training_seconds = self._stopwatch.seconds
        validation = score(self.model, self.loaders.validation, device=self.device, precision=self.precision)
        self._require_finite("validation", validation.loss)
        seconds = self._stopwatch.seconds
        metrics = epoch_metrics(
            self._sums,
            validation,
            model=self.model,
            device=self.device,
            training_seconds=training_seconds,
            epoch_seconds=seconds,
        )
        result = EpochResult(epoch=self.epoch + 1, metrics=metrics, seconds=seconds)
        self.curve.append(result)
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums = Sums(self.device)
        self._stopwatch = Stopwatch()
        return result

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state` needs, loadable with `weights_only=True`."""
        return {
            **self.identity.to_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "optimizer": self.recipe.optimizer.state_dict(),
            "random": random_state(self.device),
            "sums": self._sums.state(),
            "seconds": self._stopwatch.seconds,
            "curve": curve_to_state(self.curve),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from where :meth:`state` was taken, in this process or another."""
        self.model.load_state_dict(state["model"])
        self.recipe.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.curve = curve_from_state(state["curve"])
        self._sums = Sums.from_state(state["sums"], self.device)
        self._stopwatch = Stopwatch(state["seconds"])
        restore_random_state(state["random"], self.device)


def final_state(resume_state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a resume point goes into the final file: weights, configuration, curve."""
    return {key: value for key, value in resume_state.items() if key not in ("optimizer", "random", "sums")}
