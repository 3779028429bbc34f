"""What makes the score of a configuration quieter, measured on trainings of this library.

`python -m benchmarks.validation statistics` compares batch-norm statistics before validation: running ones, computed
again (`precise_bn`), and those of the validation clips themselves. `... scatter` compares the scatter of the validation
top-1 over the last epochs of trainings on real people. Both train on the videos of `benchmarks.optimizer.trained`, on
one core, in minutes; every variant sees the same weights.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
import torch

from data import ClipBatch, Dataset, DatasetSpec, open_dataset
from data.seeding import generator
from data.synthetic.dataset import write_video
from hpo.results.outcome import means
from hpo.spec import TrainingConfig
from workers.training.batch_norm import reestimated
from workers.training.evaluated import EvaluatedModel
from workers.training.reproducibility import Runtime
from workers.training.scoring import Score, score
from workers.training.trainer import Trainer

from .optimizer.trained.definitions import DEFINITIONS

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "running": {},
    "precise_bn": {"precise_bn": True},
    "ema": {"ema": 0.95},
    "both": {"precise_bn": True, "ema": 0.95},
}
"""What a configuration says; the average has a memory of 20 updates, two epochs of the smallest set here."""
LAST: Final = 5
"""Epochs at the end whose scatter is measured."""
MEAN: Final = 4
"""`last_epochs` of the mean that is compared with single epochs."""
SLOW: Final = (("s3d", 0.001), ("s3d_g", 0.001), ("i3d_inception", 0.01))
"""Models with the momentum of batch norm in their authors' programs; the default here is 0.1."""
_FAINT: Final = ((150, 110, 110), (110, 150, 110), (110, 110, 150), (130, 130, 110))
_RUNTIME: Final = Runtime(device=torch.device("cpu"), threads=1)


class Watched:
    """One training, validated after each epoch in every variant."""

    def __init__(self, dataset: Dataset, config: TrainingConfig, epochs: int, variants: Sequence[str]) -> None:
        self.trainer = Trainer(config, epochs=epochs, dataset=dataset, runtime=_RUNTIME)
        self.scores: dict[str, list[Score]] = {name: [] for name in variants}
        self._evaluated = {name: self._of(dataset, VARIANTS[name]) for name in variants}
        self._updates = 0

    def run(self) -> None:
        """Train to the end."""
        self.trainer.run(interrupted=self._between, epoch_done=lambda _: self._validate())

    def with_own_statistics(self) -> Score:
        """Score with batch-norm statistics of the validation clips themselves, all in one batch."""
        trainer = self.trainer
        clips, labels = [], []
        for batch in trainer.loaders.validation:
            clips.append(torch.as_tensor(batch.clips).clone())  # the loader uses its memory again
            labels.append(batch.labels)
        whole = ClipBatch(clips=torch.cat(clips), labels=torch.cat(labels), ids=("",) * sum(map(len, labels)))
        found = reestimated(trainer.model, [whole], device=trainer.device, precision=trainer.precision)
        kept = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.model.load_state_dict({**kept, **found})
        result = score(trainer.model, [whole], device=trainer.device, precision=trainer.precision)
        trainer.model.load_state_dict(kept)
        return result

    def _of(self, dataset: Dataset, changes: Mapping[str, Any]) -> EvaluatedModel:
        trainer = self.trainer
        config = trainer.config.model_copy(update=dict(changes))
        return EvaluatedModel(
            trainer.model, config, dataset=dataset, device=trainer.device, precision=trainer.precision
        )

    def _between(self) -> bool:
        done = self.trainer.epoch * len(self.trainer.loaders.train) + self.trainer.batch
        if done > self._updates:
            for evaluated in self._evaluated.values():
                evaluated.update(self._updates)
            self._updates = done
        return False

    def _validate(self) -> None:
        self._between()
        trainer = self.trainer
        for name, evaluated in self._evaluated.items():
            evaluated.prepare(trainer.epoch - 1, is_last=trainer.epoch == trainer.epochs)
            with evaluated.in_place():
                found = score(
                    trainer.model, trainer.loaders.validation, device=trainer.device, precision=trainer.precision
                )
            self.scores[name].append(found)


def statistics(videos: Path, seeds: int) -> Iterator[str]:
    """Yield a line for each training: losses after each epoch, then the last top-1 of each kind of statistics."""
    motion, base = _opened("motion", videos)
    base = {key: value for key, value in base.items() if not key.startswith("model")}
    spec = DatasetSpec(name="class_folders", root=_colours(videos), held_out="2of6", short_side=40, store="raw")
    colours = open_dataset(spec, cache_dir=videos / "cache")
    cases = [(motion, 6, {**base, "model": "r2plus1d_18", "model.width": 8, "lr": 0.15})]
    slow = {"model.width": 16, "clip.frames": 8, "clip.stride": 1, "clip.size": 32, "lr": 0.05, "dropout": 0.0}
    for model, published in SLOW:
        cases += [(colours, 8, {**slow, "model": model, "model.norm_momentum": share}) for share in (published, 0.1)]
    for dataset, epochs, changes in cases:
        for seed in range(seeds):
            config = TrainingConfig.from_flat({**changes, "seed": seed})
            watched = Watched(dataset, config, epochs, ("running", "precise_bn"))
            watched.run()
            losses = {name: " ".join(f"{s.loss:.2g}" for s in found) for name, found in watched.scores.items()}
            last = {name: f"{found[-1].top1:.3f}" for name, found in watched.scores.items()}
            own = f"{watched.with_own_statistics().top1:.3f}"
            name = f"{changes['model']} {changes.get('model.norm_momentum', '')}"
            yield f"{name} {seed}: losses {losses}, last top-1 {last}, by the validation clips' own {own}"


def scatter(videos: Path, seeds: int) -> Iterator[str]:
    """Yield a line for each training, and at last the mean scatter of each variant and of means over its epochs."""
    dataset, base = _opened("people", videos)
    single: dict[str, list[float]] = {name: [] for name in VARIANTS}
    averaged: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for rate in (0.02, 0.05, 0.1):
        for seed in range(seeds):
            config = TrainingConfig.from_flat({**base, "lr": rate, "batch_size": 8, "dropout": 0.2, "seed": seed})
            watched = Watched(dataset, config, DEFINITIONS["people"].epochs, tuple(VARIANTS))
            watched.run()
            for name, found in watched.scores.items():
                values = [each.top1 for each in found]
                single[name].append(stdev(values[-LAST:]))
                averaged[name].append(stdev(_trailing(values)[-LAST:]))
            sds = ", ".join(f"{name} {single[name][-1]:.3f} / {averaged[name][-1]:.3f}" for name in VARIANTS)
            yield f"lr {rate:g}, seed {seed}: {sds}"
    plain = fmean(single["running"])
    for name in VARIANTS:
        one, mean = fmean(single[name]), fmean(averaged[name])
        yield f"{name}: {one:.3f} ({one / plain:.2f} x), mean of {MEAN} epochs {mean:.3f} ({mean / plain:.2f} x)"


def _colours(folder: Path) -> Path:
    """Return the root of a set of four faint colours under noise, which a network learns in a few epochs."""
    root = folder / "colours"
    if root.is_dir():
        return root
    aside = folder / "colours.tmp"
    for label, colour in enumerate(_FAINT):
        (aside / "videos" / f"C{label}").mkdir(parents=True, exist_ok=True)
        for group, number in product(range(1, 7), range(1, 7)):
            rng = generator("colours", label, group, number)
            shade = np.array(colour) + rng.normal(0, 12)
            frames = shade + rng.normal(0, 40, (10, 40, 40, 1)) + rng.normal(0, 10, (10, 40, 40, 3))
            path = aside / "videos" / f"C{label}" / f"v_C{label}_g{group:02d}_c{number:02d}.avi"
            write_video(path, np.clip(frames, 0, 255).astype(np.uint8))
    aside.rename(root)
    return root


def _trailing(values: Sequence[float]) -> list[float]:
    curve = {step: {"value": value} for step, value in enumerate(values, start=1)}
    return [means({at: curve[at] for at in range(1, end + 1)}, {"value": MEAN})["value"] for end in curve]


def _opened(table: str, videos: Path) -> tuple[Dataset, dict[str, Any]]:
    task = DEFINITIONS[table].task(DEFINITIONS[table].videos(videos))
    return open_dataset(task.dataset, cache_dir=videos / "cache"), dict(task.base)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation", description=__doc__)
    parser.add_argument("what", choices=["statistics", "scatter"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--videos", type=Path, default=Path("build/trained"), help="folder of videos and frames")
    asked = parser.parse_args()
    measured = statistics if asked.what == "statistics" else scatter
    for line in measured(asked.videos, asked.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
