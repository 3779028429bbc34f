"""Train one configuration, exactly resumable at every batch: the loop over batches and epochs, and its state.

One update is in `step`, optimizer and learning rate in `recipe`, what an epoch measures in `epoch`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from data import ClipBatch, Dataset
from hpo.spec import TrainingConfig

from ..checkpoints.contents import Identity
from ..errors import DivergedError, TimeLimitError, TornUpdateError
from .compiled import CompiledBlocks
from .epoch import (
    Classified,
    EpochResult,
    Stopwatch,
    curve_from_state,
    curve_to_state,
    epoch_metrics,
    validation_metrics,
)
from .evaluated import EvaluatedModel, evaluated_weights
from .failure import ran_out_of_memory
from .fitting import Fitting
from .freezing import Freezing
from .inputs import Loaders, input_shapes
from .joint_norm import with_joint_norms
from .latency import RunLatency, latency
from .memory import DeviceMemory, memory_of
from .memory_plan import MemoryPlan
from .metrics import Sums
from .model import build_model
from .parallel import ALONE, World, gradients_of, seed_of_rank
from .precision import choose_precision
from .progress import ProgressMeter, TrainingProgress
from .recipe import Recipe
from .reproducibility import CompileMode, Runtime, prepare, random_state, restore_random_state, seed_everything
from .scoring import Score, score
from .starting_weights import WeightsFolders, load_starting_weights
from .step import TrainingStep
from .undo import Undo, whole_or_torn

_R = TypeVar("_R")
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
        weights: WeightsFolders | None = None,
        plan: MemoryPlan | None = None,
        memory: DeviceMemory | None = None,
        measures: Collection[str] = (),
        world: World = ALONE,
    ) -> None:
        """Build everything for a fresh start; seeds every global generator.

        Args:
            weights: where files of weights are.
            plan: how an earlier run of this configuration fitted into memory; this one does the same if it fits.
            memory: that of the device; a test may limit it.
            measures: metrics to measure that are not measured otherwise.
            world: the ranks of the run. What is called of this trainer, all of them call, in the same order.

        Raises:
            models.ModelError: the model cannot be built, nor its weights loaded, or it lacks what is to be frozen.
            SetupError: this machine lacks a library that one of the `measures` needs.
        """
        prepare(runtime)
        seed_everything(config.seed)
        self.config = config
        self.epochs = epochs
        self._runtime = runtime
        self.device = runtime.device
        self.precision = choose_precision(config, runtime)
        self._world = world
        self.loaders = Loaders.of(dataset, config, runtime.device, world, readers=runtime.readers)
        model = build_model(config, num_classes=dataset.num_classes)
        self.weights = load_starting_weights(model, config, weights or WeightsFolders())
        """What the model was given before its training."""
        self.model = model.to(runtime.device)
        if world.size > 1:
            self.model = with_joint_norms(self.model, self.device)
        self._freezing = Freezing(self.model, config)
        self.recipe = Recipe(self.model, config, total_steps=epochs * len(self.loaders.train))
        self.identity = Identity(
            config=config,
            epochs=epochs,
            dataset_version=dataset.version,
            class_names=dataset.class_names,
            weights={loaded.source: loaded.sha256 for loaded in self.weights},
            refit=dataset.trains_validation,
        )
        self.epoch = 0
        """Epochs done."""
        self.batch = 0
        """Batches done of the running epoch."""
        self.steps = 0
        """Batches begun in this process, of training, of validation and of trying a plan; it only grows."""
        self.curve: list[EpochResult] = []
        self.classified: Classified | None = None
        """How the newest validation classified its videos."""
        self.training_step = TrainingStep(
            model=self.model,
            recipe=self.recipe,
            config=config,
            precision=self.precision,
            device=runtime.device,
            gradients=gradients_of(self.model, world),
            compiled=CompiledBlocks.of(self.model, runtime, each=self._count_run),
        )
        self._evaluated = EvaluatedModel(
            self.model, config, dataset=dataset, device=runtime.device, precision=self.precision, world=world
        )
        self.memory = memory or memory_of(runtime)
        self._fitting = Fitting(
            step=self.training_step,
            loaders=self.loaders,
            evaluated=self._evaluated,
            memory=self.memory,
            begun=self._count,
            repeated=plan,
            world=world,
        )
        self._undo = Undo(self.model, runtime.device)
        self._sums = Sums(runtime.device)
        self._stopwatch = Stopwatch()
        self._meter = ProgressMeter(epochs=epochs)
        self._time_limit_seconds = time_limit_seconds
        self._latency = RunLatency(measures, runtime, self.precision)
        if not world.is_first:  # whose generators stand where those of a run of one rank do
            seed_everything(seed_of_rank(config.seed, world.rank))

    def run(self, *, interrupted: Callable[[], bool], epoch_done: Callable[[EpochResult], None]) -> bool:
        """Train to the last epoch, or until `interrupted`, which is asked before every batch.

        Returns:
            Whether the last epoch is done.

        Raises:
            DivergedError: the loss became NaN or infinite.
            TimeLimitError: the run took longer than its time limit.
            OutOfMemoryError: a single clip does not fit into memory.
            TornUpdateError: memory ran out while weights were changed, or on one of several ranks, which cannot repeat
                what they compute together; a checkpoint can be continued from.
        """
        self._fitting.begin(update=self._updates, rehearsal=self._rehearsal)
        while self.epoch < self.epochs:
            self._stopwatch.start()
            if not self._train_epoch(interrupted):
                self._stopwatch.stop()
                return False
            epoch_done(self._close_epoch())
        return True

    @property
    def plan(self) -> MemoryPlan | None:
        """How the run fits into memory; known once it runs."""
        return self._fitting.plan

    @plan.setter
    def plan(self, plan: MemoryPlan | None) -> None:
        self._fitting.plan = plan

    @property
    def compiled(self) -> CompileMode | None:
        """How the blocks of the model are compiled for updates; None where they are not."""
        blocks = self.training_step.compiled
        return None if blocks is None else blocks.in_force

    def hurry(self) -> None:
        """Leave a compiler, if the run is in one: it is to end. Any thread may call this."""
        blocks = self.training_step.compiled
        if blocks is not None:
            blocks.hurry()

    @contextmanager
    def _rehearsal(self) -> Iterator[None]:
        """Let a block make updates and validations, as those of the last epoch, and put the state of the run back."""
        kept = _on_host(self.state())
        self._set_modes(self.epochs - 1)  # the last epoch trains as many layers as any
        try:
            yield
        finally:
            self.load_state(kept)

    def _set_modes(self, epoch: int) -> None:
        """Put every layer into its mode of `epoch` (from 0)."""
        self.model.train()
        self._freezing.apply(epoch)
        self.training_step.renew()

    def _train_epoch(self, interrupted: Callable[[], bool]) -> bool:
        """Train on the rest of the running epoch; return whether it is done."""
        self._set_modes(self.epoch)
        while True:
            try:
                return self._train_batches(interrupted)
            except Exception as error:  # of many classes, when memory runs out; all others are raised again
                if not ran_out_of_memory(error, self.device):
                    raise
                if self._world.size > 1:
                    raise TornUpdateError(f"memory ran out on rank {self._world.rank}: {error}") from error
                problem = str(error)
            # Only here, when the exception and all that its traceback refers to is gone, is their memory free.
            if not self._fitting.without_graphs(problem, update=self._updates):
                self._fitting.follow(self.smaller_plan(problem))

    def _train_batches(self, interrupted: Callable[[], bool]) -> bool:
        with closing(self.loaders.train.batches(self.epoch, start_batch=self.batch)) as batches:  # type: ignore[type-var]  # generator
            for batch in self._meter.start_epoch(batches, first=self.batch):
                if self._world.agreed(interrupted):
                    return False
                self._count(batch)
                with self._undo.on_error():
                    loss, logits = self.training_step.differentiate(
                        batch, micro_batch=self._fitting.followed.micro_batch
                    )
                with whole_or_torn(self.device):
                    if self.training_step.apply(number=self._updates):
                        self._evaluated.update(self._updates)
                    self._sums.add(loss, logits, batch.labels)
                self.batch += 1
                self._check_limits()
        return True

    @property
    def _updates(self) -> int:
        """Updates done so far."""
        return self.epoch * len(self.loaders.train) + self.batch

    def smaller_plan(self, problem: str) -> MemoryPlan:
        """Return the plan to continue with after `problem`, and free memory for it.

        Raises:
            OutOfMemoryError: there is none: single clips are computed already.
        """
        return self._fitting.smaller_updates(problem, update=self._updates)

    def _count(self, _: ClipBatch) -> None:
        self.steps += 1

    def _count_validated(self, batch: ClipBatch, before: int) -> None:
        done = min((self.steps - before) * self._world.size, len(self.loaders.validation))
        self._meter.validate(batch=done, batches=len(self.loaders.validation))
        self._count(batch)

    def _check_limits(self) -> None:
        if self.device.type == "cpu" or self.batch % _GPU_CHECK_BATCHES == 0 or self._meter.may_read():
            loss = self._sums.loss
            self._require_finite("training", loss)
            if self._meter.is_due():
                self._measure_progress(loss)
        limit = self._time_limit_seconds
        if limit is not None and self._world.is_first and self._seconds() > limit:
            raise TimeLimitError(
                f"the trial trained longer than its limit of {limit / 60:g} minutes; it had done {self.epoch} of "
                f"{self.epochs} epochs"
            )

    @property
    def progress(self) -> TrainingProgress | None:
        """How far the running epoch is; any thread may ask. None before the first batch."""
        return self._meter.latest

    def _measure_progress(self, loss: float) -> None:
        self._meter.measure(
            batch=self.batch,
            batches=len(self.loaders.train),
            clips_per_batch=self.loaders.train.batch_size,
            loss=loss,
            learning_rate=self.recipe.learning_rate(self._updates - 1),
            memory_bytes=self.memory.peak_bytes(),
            curve=self.curve,
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
        """Validate if it is time, add a point to the curve and stand at the beginning of the next epoch."""
        sums = self._summed()
        self._require_finite("training", sums.loss)
        training_seconds = self._stopwatch.seconds
        if self.epoch + 1 < self.epochs:
            self.loaders.train.read_ahead(self.epoch + 1)
        is_due = (self.epoch + 1) % self.config.validate_every == 0 or self.epoch + 1 == self.epochs
        validation = self._validate(self.epoch) if is_due else None
        if validation is None:
            self._evaluated.forget_statistics()
        seconds = self._stopwatch.seconds
        metrics = epoch_metrics(
            sums,
            validation,
            model=self.model,
            peak_bytes=max(self._world.gathered(self.memory.peak_bytes())),
            training_seconds=training_seconds,
            epoch_seconds=seconds,
        ) | ({} if validation is None else self._measured_latency())
        result = self._of_first(EpochResult(epoch=self.epoch + 1, metrics=metrics, seconds=seconds))
        self.curve.append(result)
        self.epoch, self.batch = self.epoch + 1, 0
        self._sums = Sums(self.device)
        self._stopwatch = Stopwatch()
        return result

    def _summed(self) -> Sums:
        """Return loss and hits of the running epoch over all ranks."""
        if self._world.size == 1:
            return self._sums
        return Sums.joined(self._world.gathered(self._sums.state()), self.device)

    @property
    def is_validated(self) -> bool:
        """Whether the model was validated after the last whole epoch, as it is not after every one."""
        return bool(self.curve) and "val_loss" in self.curve[-1].metrics

    def validate_last_epoch(self) -> None:
        """Validate the model at the end of the last whole epoch, where the run stands, for its point of the curve.

        For a run that ends before its planned end.
        """
        last = self.curve[-1]
        watch = Stopwatch()
        watch.start()
        self._set_modes(last.epoch - 1)
        metrics = {**last.metrics, **validation_metrics(self._validate(last.epoch - 1))}
        metrics["validation_seconds"] = watch.seconds
        metrics["epoch_seconds"] = seconds = last.seconds + watch.seconds
        metrics |= self._measured_latency()
        self.curve[-1] = self._of_first(EpochResult(epoch=last.epoch, metrics=metrics, seconds=seconds))

    def _of_first(self, result: EpochResult) -> EpochResult:
        """Return what the first rank has measured: clocks differ."""
        metrics, seconds = self._world.of_first(lambda: (result.metrics, result.seconds))
        return EpochResult(epoch=result.epoch, metrics=metrics, seconds=seconds)

    def _validate(self, epoch: int) -> Score:
        """Return the score of the evaluated model after `epoch`."""
        self.training_step.forget()
        if self._world.size > 1:
            # What ranks tell each other ends each part: one that runs out of memory repeats what it computes alone.
            self._in_parts(partial(self._prepare, epoch), "in validation")
            found = self._in_parts(self._score, "in validation")
        else:
            found = self._in_parts(partial(self._prepared_score, epoch), "in validation")
        self._require_finite("validation", found.loss)
        self.classified = Classified(epoch=epoch + 1, counts=found.confusion)
        return found

    def _in_parts(self, compute: Callable[[int], _R], doing: str) -> _R:
        """Return what is computed from so many clips at once, and from fewer as long as memory runs out."""
        while True:
            try:
                return compute(self._fitting.followed.evaluation_batch)
            except Exception as error:  # of many classes, when memory runs out; all others are raised again
                if not ran_out_of_memory(error, self.device):
                    raise
                problem = str(error)
            # Only here, when the exception and all that its traceback refers to is gone, is their memory free.
            self._fitting.follow(self._fitting.smaller_evaluation(problem, doing))

    def _prepared_score(self, epoch: int, most: int) -> Score:
        self._prepare(epoch, most)
        return self._score(most)

    def _prepare(self, epoch: int, most: int) -> None:
        self._meter.validate(batch=0, batches=len(self.loaders.validation))
        self._evaluated.prepare(epoch, is_last=epoch + 1 == self.epochs, most_clips=most)

    def _score(self, most: int) -> Score:
        before = self.steps
        with self.evaluated_model():
            return score(
                self.model,
                self.loaders.validation.batches(0, self._world.rank, step=self._world.size),
                device=self.device,
                precision=self.precision,
                most_clips=most,
                each=lambda batch: self._count_validated(batch, before),
                world=self._world,
            )

    def _measured_latency(self) -> dict[str, float]:
        """Return what is wanted of the latency of the model that was just validated; no clock of the run sees it."""
        if self._latency.is_due:
            self._latency.values = self._world.of_first(
                lambda: self._in_parts(self._timed, "when the latency was measured")
            )
        return self._latency.values

    def _timed(self, most: int) -> dict[str, float]:
        with self.evaluated_model():
            return latency(
                self.model,
                input_shapes(self.config),
                wanted=self._latency.wanted,
                batch_size=self.config.batch_size,
                most_clips=most,
                runtime=self._runtime,
                precision=self.precision,
                each=self._count_run,
            )

    def _count_run(self) -> None:
        self.steps += 1

    def evaluated_model(self) -> AbstractContextManager[None]:
        """Have `model` hold the weights and statistics of the last validation and of the export during the block."""
        return self._evaluated.in_place()

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state` needs, loadable with `weights_only=True`; of all ranks together."""
        random, *of_others = self._world.gathered(random_state(self.device))
        return {
            **self.identity.to_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "evaluated": self._evaluated.state(),
            "optimizer": self.recipe.optimizer.state_dict(),
            **({"loss_scale": self.training_step.scale.state()} if self.precision == "fp16" else {}),
            "random": random,
            **({"random_of_others": of_others} if of_others else {}),
            "memory_plan": None if self.plan is None else self.plan.to_state(),
            "sums": self._summed().state(),
            "seconds": self._stopwatch.seconds,
            "curve": curve_to_state(self.curve),
            "latency": self._latency.state(),
            "classified": None if self.classified is None else self.classified.to_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from where :meth:`state` was taken, in this process or another."""
        self.model.load_state_dict(state["model"])
        if "evaluated" in state:  # releases up to 0.2.0 wrote none
            self._evaluated.load_state(state["evaluated"])
        self.recipe.optimizer.load_state_dict(state["optimizer"])
        if "loss_scale" in state:  # of a run in fp16
            self.training_step.scale.load(state["loss_scale"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.curve = curve_from_state(state["curve"])
        # What all ranks have summed so far goes on in the first.
        self._sums = Sums.from_state(state["sums"], self.device) if self._world.is_first else Sums(self.device)
        self._stopwatch = Stopwatch(state["seconds"])
        self._fitting.load(state.get("memory_plan"))
        if "latency" in state:  # earlier releases measured none
            self._latency.load(state["latency"])
        classified = state.get("classified")  # earlier releases kept none
        self.classified = None if classified is None else Classified.from_state(classified)
        self._restore_random([state["random"], *state.get("random_of_others", ())])

    def _restore_random(self, states: list[dict[str, Any]]) -> None:
        """Take the generators of this rank from those of all, or seed them where there were fewer ranks."""
        if self._world.rank < len(states):
            restore_random_state(states[self._world.rank], self.device)
        else:
            seed_everything(seed_of_rank(self.config.seed, self._world.rank, update=self._updates))


def _on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a state in main memory."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    copied: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return copied


def final_state(resume_state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a resume point goes into the final file: the evaluated weights, configuration, curve."""
    dropped = ("evaluated", "optimizer", "loss_scale", "random", "random_of_others", "sums", "latency", "classified")
    kept = {key: value for key, value in resume_state.items() if key not in dropped}
    if "evaluated" in resume_state:
        kept["model"] = evaluated_weights(resume_state["model"], resume_state["evaluated"])
    return kept
