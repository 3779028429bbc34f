"""Exports with real checkpoints of a tiny model on a tiny data set, for the commands that use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner, Result

from data import open_dataset
from hpo.cli.app import app
from hpo.results.export import Export, dump_export
from workers.checkpoints.contents import writer
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer, final_state

from ...workers.tiny import make_videos, tiny_config, tiny_task

NOBODY = "http://127.0.0.1:1"
"""An address at which no service answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A data directory with prepared frames, and folders for exports."""

    home: Path
    videos: Path

    @classmethod
    def make(cls, folder: Path) -> Bench:
        return cls(home=folder / "home", videos=make_videos(folder / "videos"))

    def export(
        self,
        file: Path,
        *,
        trial: int = 7,
        study: str = "tiny",
        weights: int = 0,
        split_seed: Any = None,
        flow: str = "none",
        trained_epochs: int = 0,
        **config: Any,
    ) -> Path:
        """Write an export and its checkpoint, whose weights are drawn from the seed `weights`, or trained."""
        settings = tiny_config(**config)
        where = {"root": str(self.videos), "short_side": 32, "split_seed": split_seed, "flow": flow}
        task = tiny_task(self.videos, dataset=where)
        dataset = open_dataset(task.dataset.of_trial(settings.seed), cache_dir=self.home / "cache")
        trainer = Trainer(
            settings,
            epochs=trained_epochs or 2,
            dataset=dataset,
            runtime=Runtime(device=torch.device("cpu"), threads=1),
        )
        draws = torch.Generator().manual_seed(weights)
        if trained_epochs:
            trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
        else:
            with torch.no_grad():
                head = trainer.model.get_classifier()
                head.weight.copy_(torch.randn(head.weight.shape, generator=draws))
        with file.with_suffix(".pt").open("wb") as target:
            writer(final_state(trainer.state()))(target)
        export = Export(
            study=study,
            trial=trial,
            state="completed",
            objectives={"val_top1": 0.5},
            metrics={"val_top1": 0.5},
            config=settings.to_flat(),
            task=task,
            epochs_done=2,
            seed=settings.seed,
            dataset_version=dataset.version,
            environment={"device": "cpu", "threads": 1},
            checkpoint=file.with_suffix(".pt").name,
        )
        file.write_text(dump_export(export, form="yaml"))
        return file

    def run(self, *arguments: str | Path, url: str = NOBODY) -> Result:
        """Run a command of `hpo` in the data directory."""
        return CliRunner().invoke(app, ["--home", str(self.home), "--url", url, *map(str, arguments)])
