"""`hpo fuse`: late fusion of separately trained models, such as an RGB and a flow stream."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from ..errors import SetupError
from ..settings import Settings
from .app import app, one_sentence_errors, out, settings_of
from .datasets import progress_bar
from .evaluate import AgainOption, Clips, ConfusionFile, Crops, ScoresFile
from .exported import Cpu, Devices, Gpu, Threads, checkpoint_of, dataset_of, devices_of, require_held_out
from .measured import measuring, print_measures
from .seal import Seal

if TYPE_CHECKING:
    from workers.device.detection import Device
    from workers.evaluation.sealed_test import Evaluation, Views
    from workers.evaluation.views import Scores

    from ..results.export import Export


@app.command()
def fuse(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="A B...", help="Export files.", show_default=False)],
    *,
    weights: Annotated[
        str | None,
        typer.Option(
            help="How much each counts, such as 1,1.5 (default: chosen on the validation list).", show_default=False
        ),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="Score the fusion on the sealed test list.")] = False,
    again: AgainOption = False,
    clips: Clips = 10,
    crops: Crops = 1,
    scores: ScoresFile = None,
    confusion: ConfusionFile = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    devices: Devices = None,
    threads: Threads = None,
) -> None:
    """Average the probabilities of models of the same classes, by weights that only validation videos decide."""
    from data import DatasetError
    from models import ModelError
    from workers.errors import CheckpointError
    from workers.evaluation.sealed_test import Views

    from ..results.export import load_export

    if len(files) < 2:
        raise SetupError("a fusion needs two exports or more")
    given = None if weights is None else _read_weights(weights, len(files))
    exports = [load_export(file) for file in files]
    used = devices_of(exports[0], devices=devices, gpu=gpu, cpu=cpu, threads=threads)
    measured = measuring(scores, confusion, read=files)
    fusion = _Fusion(files=files, exports=exports, settings=settings_of(context), views=Views(clips=clips, crops=crops))
    if given is None or not final:
        for file, exported in zip(files, exports, strict=True):
            require_held_out(file, exported)
    with one_sentence_errors(DatasetError, ModelError, CheckpointError):
        parts = fusion.prepared(used)
        fused = fusion.score(parts, given, final=final, again=again)
    part, same = "Test" if final else "Validation", all(one.same_dataset for one in parts)
    fusion.keep({**measured(fused), "clips": clips, "crops": crops, "same_dataset": same}, part)


@dataclass(kw_only=True)
class _Fusion:
    """What is fused, and how its videos are seen."""

    files: Sequence[Path]
    exports: Sequence[Export]
    settings: Settings
    views: Views
    sealed: tuple[Seal, Any] | None = None
    """The seal that was broken, and the record of it."""

    def prepared(self, devices: Sequence[Device]) -> list[Evaluation]:
        """Return every model with its data set."""
        from workers.evaluation.sealed_test import Evaluation

        return [
            Evaluation.prepare(
                checkpoint_of(file, exported),
                dataset_of(file, exported),
                cache_dir=self.settings.cache_dir,
                device=devices,
            )
            for file, exported in zip(self.files, self.exports, strict=True)
        ]

    def score(self, parts: Sequence[Evaluation], given: Sequence[float] | None, *, final: bool, again: bool) -> Scores:
        """Print what each model does alone, and return the fused scores."""
        from workers.evaluation.fusion import choose_weights, fuse

        if final:
            self._require_one_list(parts)
            self._seal(parts, again=again)  # before anything is computed
        weights = given
        if weights is None or not final:  # weights that are given need no validation, and streams no common one then
            validated = self._validated(parts)
            weights = given or choose_weights(validated).values
            fused = fuse(validated, weights)
            self._print_alone("Validation", validated, fused, weights)
            if not final:
                return fused
        tested = self._test(parts, weights, again=again)
        fused = fuse(tested, weights)
        self._print_alone("Test", tested, fused, weights)
        return fused

    def _validated(self, parts: Sequence[Evaluation]) -> list[Scores]:
        with progress_bar() as bar:
            return [
                part.validation(self.views, progress=lambda done, total: bar("validation videos", done, total))
                for part in parts
            ]

    def keep(self, score: dict[str, Any], part: str) -> None:
        """Print the measures of the fusion, and record them where the seal was broken."""
        if self.sealed is not None:
            seal, opened = self.sealed
            kept = {name: value for name, value in score.items() if name not in ("classes", "table")}
            seal.keep_score(opened, kept)
        print_measures(part, score)

    def _digest(self) -> str:
        """Return the identity of the fused checkpoints."""
        from workers.checkpoints.reference import sha256_of

        files = zip(self.files, self.exports, strict=True)
        return hashlib.sha256(" ".join(sha256_of(checkpoint_of(*one)) for one in files).encode()).hexdigest()

    def _require_one_list(self, parts: Sequence[Evaluation]) -> None:
        for file, part in zip(self.files, parts, strict=True):
            if not part.dataset.has_test_clips_of(parts[0].dataset):
                raise SetupError(
                    f"{file} has other test videos than {self.files[0]}: a fusion is scored on one list, so that the "
                    "models need the same split of the same videos"
                )

    def _seal(self, parts: Sequence[Evaluation], *, again: bool) -> Seal:
        """Return the seal of the one list, as it is now.

        Raises:
            ConflictError: it is broken, and `again` is not set.
        """
        seal = Seal(parts[0].dataset, self.settings)
        if not again:
            seal.require_whole(self._digest())
        return seal

    def _test(self, parts: Sequence[Evaluation], weights: Sequence[float], *, again: bool) -> list[Scores]:
        from workers.evaluation.sealed_test import Opening

        seal = self._seal(parts, again=again)  # others may have opened it while the validation was scored
        named = " and ".join(f"trial {one.trial} of study {one.study}" for one in self.exports)
        reason = f"fusion of {named} by {', '.join(f'{weight:.3g}' for weight in weights)}"
        opened = seal.opening(reason=reason[:1000], checkpoint=self._digest(), host=socket.gethostname())
        self.sealed = (seal, opened)
        about = {"id": str(opened.id), "checkpoint": opened.checkpoint, "host": opened.host}
        with progress_bar() as bar:
            return [
                part.test(
                    Opening(reason=opened.reason, about=about),
                    self.views,
                    progress=lambda done, total: bar("test videos", done, total),
                )
                for part in parts
            ]

    def _print_alone(self, part: str, scores: Sequence[Scores], fused: Scores, weights: Sequence[float]) -> None:
        from workers.evaluation.measures import measure

        table = Table(part, Column("weight", justify="right"), Column("top-1", justify="right"), "top-5")
        for file, one, weight in zip(self.files, scores, weights, strict=True):
            found = measure(one)
            table.add_row(str(file), f"{weight / sum(weights):.2f}", f"{found.top1:.3f}", f"{found.top5:.3f}")
        found = measure(fused)
        table.add_row("fused", "", f"{found.top1:.3f}", f"{found.top5:.3f}")
        out.print(table)


def _read_weights(text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(0 <= value < float("inf") for value in values) or sum(values) == 0:
        raise SetupError(f"--weights {text} is not {count} numbers from 0 with commas between them, such as 1,1.5")
    return values
