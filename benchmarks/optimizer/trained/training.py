"""One training after the other in this process, by the workers' library, as a worker's child trains one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data import ClipBatch, ClipSpec, open_dataset
from hpo.spec import TrainingConfig, VideoTask
from hpo.trial import Params
from workers.training.epoch import EpochResult
from workers.training.failure import classify
from workers.training.inputs import clip_spec
from workers.training.reproducibility import Runtime
from workers.training.scoring import Score, score
from workers.training.trainer import Trainer

_RUNTIME = Runtime(device=torch.device("cpu"), threads=1)
_REASON = "the truth of a benchmark's table"
_FINAL_BATCH = 32
"""Clips that a model sees at once at the end."""


class Trainings:
    """The trainings of one table, on a data set that is opened once and then read from memory."""

    def __init__(self, task: VideoTask, *, cache: Path, final_views: int) -> None:
        """Open the data set; prepare it first unless that is done."""
        self.task = task
        self.dataset = open_dataset(task.dataset, cache_dir=cache)
        self._views = final_views

    def counts(self) -> dict[str, Any]:
        """Return how many clips stand behind each figure, and the top-1 of guessing."""
        validation = self.dataset.validation_loader(clip=ClipSpec(), batch_size=1).num_clips
        classes = self.dataset.num_classes
        return {
            "chance": 1 / classes,
            "classes": classes,
            "validation_clips": validation,
            "final_clips": len(self.dataset.unseal_test(reason=_REASON)) * self._views,
            "dataset_version": self.dataset.version,
        }

    def train(self, params: Params, seed: int) -> dict[str, Any]:
        """Return the row of one training; a failure is a row too."""
        row: dict[str, Any] = {"params": dict(params), "seed": seed, "hits": [], "loss": [], "seconds": []}
        try:
            return {**row, **self._finished(params, seed, row)}
        except Exception as error:  # the boundary: whatever fails becomes a row
            failure = classify(error)
            epoch = len(row["hits"]) + 1
            return {**row, "failure": {"kind": failure.kind.value, "epoch": epoch, "message": failure.message[:200]}}

    def _finished(self, params: Params, seed: int, row: Mapping[str, Any]) -> dict[str, Any]:
        config = TrainingConfig.from_flat(self.task.config(params, seed=seed))
        trainer = Trainer(config, epochs=self.task.epochs, dataset=self.dataset, runtime=_RUNTIME)
        clips = trainer.loaders.validation.num_clips
        before = time.process_time()

        def epoch_done(result: EpochResult) -> None:
            nonlocal before
            now = time.process_time()
            row["hits"].append(round(result.metrics["val_top1"] * clips))
            row["loss"].append(_short(result.metrics["val_loss"]))
            row["seconds"].append(round(now - before, 3))
            before = time.process_time()

        trainer.run(interrupted=lambda: False, epoch_done=epoch_done)
        final = self._final(trainer)
        return {"final_hits": round(final.top1 * final.videos), "final_loss": _short(final.loss)}

    def _final(self, trainer: Trainer) -> Score:
        """Return the score on single clips of the sealed videos, several of each."""
        loader = self.dataset.test_loader(
            reason=_REASON,
            clip=clip_spec(trainer.config),
            batch_size=_FINAL_BATCH,
            views=self._views,
        )
        with trainer.evaluated_model():
            return score(trainer.model, map(_single, loader), device=trainer.device, precision=trainer.precision)


def _single(batch: ClipBatch) -> ClipBatch:
    """Return a batch whose clips count one by one, not as views of a video."""
    labels = batch.labels.repeat_interleave(batch.views)
    ids = tuple(id_ for id_ in batch.ids for _ in range(batch.views))
    return replace(batch, labels=labels, ids=ids, views=1)


def _short(value: float) -> float:
    return round(value, 4)
