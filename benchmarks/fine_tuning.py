"""What it is worth to start from weights of another training, measured on videos of real people.

`python -m benchmarks.fine_tuning PEOPLE` pre-trains a SlowFast on generated videos whose classes differ in motion
alone, then trains it on the videos of people in the folder PEOPLE (one folder per action, names with groups as in
UCF101): from these weights, from these weights with all but the head frozen, and from scratch, for the same number of
epochs, with several learning rates and seeds. One core, in minutes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import torch

from data import DatasetSpec, open_dataset
from data.synthetic.dataset import make_demo_dataset
from data.synthetic.motion import MOTIONS
from hpo.spec import TrainingConfig
from workers.training.reproducibility import Runtime
from workers.training.starting_weights import WeightsFolders
from workers.training.trainer import Trainer

_MODEL: Final[Mapping[str, Any]] = {
    "model": "slowfast_r18",
    "model.width": 16,
    "model.alpha": 4,
    "model.beta_inv": 4,
    "nesterov": True,
    "dropout": 0.2,
    "precise_bn": True,
    "clip.frames": 8,
    "clip.stride": 2,
    "clip.size": 32,
}
PRETRAINING: Final[Mapping[str, Any]] = {**_MODEL, "lr": 0.1, "batch_size": 16, "augment.flip": 0.0}
TRAINING: Final[Mapping[str, Any]] = {**_MODEL, "batch_size": 8, "augment.scale_min": 0.8}
MOTION_FILE: Final = "motion.pth"
ARMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "from scratch": {},
    "from motion": {"weights": MOTION_FILE},
    "from motion, backbone frozen": {"weights": MOTION_FILE, "freeze": "backbone"},
}
RATES: Final = (0.02, 0.06, 0.18)
_PRETRAINING_EPOCHS: Final = 40
_RUNTIME: Final = Runtime(device=torch.device("cpu"), threads=1)


def pretrain(folder: Path, *, seed: int = 0) -> float:
    """Write the weights of the pre-training into `folder`, and return its validation top-1."""
    root = make_demo_dataset(
        folder / "motion",
        classes=tuple(MOTIONS),
        groups=8,
        clips_per_group=6,
        frames=(18, 24),
        size=(48, 40),
        seed=1,
    )
    spec = DatasetSpec(name="ucf101", root=str(root), short_side=36, store="raw")
    trainer = _trainer(spec, {**PRETRAINING, "seed": seed}, folder, epochs=_PRETRAINING_EPOCHS)
    _run(trainer)
    with trainer.evaluated_model():
        torch.save(trainer.model.state_dict(), folder / MOTION_FILE)
    return trainer.curve[-1].metrics["val_top1"]


def compare(
    people: Path,
    folder: Path,
    *,
    epochs: int,
    seeds: int,
    pretrainings: Sequence[int],
    arms: Sequence[str] = tuple(ARMS),
) -> Iterator[str]:
    """Yield for each seed of a pre-training a line on it, and one for each arm and learning rate."""
    for seed in pretrainings:
        yield f"pre-training {seed}: top-1 {pretrain(folder, seed=seed):.3f} of {len(MOTIONS)} classes"
        yield from _arms(people, folder, epochs=epochs, seeds=seeds, arms=arms)


def _arms(people: Path, folder: Path, *, epochs: int, seeds: int, arms: Sequence[str]) -> Iterator[str]:
    spec = DatasetSpec(name="class_folders", root=str(people), held_out="2of6", short_side=36, store="raw")
    for rate in RATES:
        for arm in arms:
            curves = []
            for seed in range(seeds):
                trainer = _trainer(spec, {**TRAINING, **ARMS[arm], "lr": rate, "seed": seed}, folder, epochs=epochs)
                _run(trainer)
                curves.append([result.metrics["val_top1"] for result in trainer.curve])
            last = [curve[-1] for curve in curves]
            means = " ".join(f"{fmean(values):.2f}" for values in zip(*curves, strict=True))
            yield f"lr {rate:g}, {arm}: {fmean(last):.3f} ± {stdev(last) / len(last) ** 0.5:.3f} ({means})"


def _trainer(spec: DatasetSpec, changes: Mapping[str, Any], folder: Path, *, epochs: int) -> Trainer:
    return Trainer(
        TrainingConfig.from_flat(changes),
        epochs=epochs,
        dataset=open_dataset(spec, cache_dir=folder / "cache"),
        runtime=_RUNTIME,
        weights=WeightsFolders(roots=(folder,)),
    )


def _run(trainer: Trainer) -> None:
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    parser.add_argument("people", type=Path, help="folder with one folder of videos per action")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("build/fine_tuning"), help="for videos, frames and weights")
    parser.add_argument(
        "--pretrainings", type=int, nargs="+", default=[0], metavar="SEED", help="seeds of pre-trainings"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=tuple(ARMS), help="arms to train (default: all)")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    lines = compare(
        asked.people.absolute(),
        asked.folder.absolute(),
        epochs=asked.epochs,
        seeds=asked.seeds,
        pretrainings=asked.pretrainings,
        arms=asked.arms,
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
