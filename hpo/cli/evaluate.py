"""`hpo evaluate`: score an exported checkpoint on the sealed test list, or on the validation list."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError
from ..results.export import Export, load_export
from ..settings import Settings
from .app import app, err, one_sentence_errors, out, settings_of
from .datasets import progress_bar
from .exported import Cpu, File, Gpu, Threads, checkpoint_of, dataset_of, device_of, require_held_out
from .measured import measuring, print_measures
from .seal import Seal

if TYPE_CHECKING:
    from workers.device.detection import Device
    from workers.evaluation.sealed_test import Views

Clips = Annotated[int, typer.Option(help="Clips per video, evenly spaced.", min=1)]
Crops = Annotated[int, typer.Option(help="Crops of each clip: 1, 3, 5 or 10 (see docs/clips.md).")]
AgainOption = Annotated[bool, typer.Option("--again", help="Open it although it was opened before.")]
ScoresFile = Annotated[
    Path | None,
    typer.Option("--scores", help="Write the scores of every clip and video to this JSON file.", show_default=False),
]
ConfusionFile = Annotated[
    Path | None, typer.Option("--confusion", help="Draw the confusion matrix into this PNG file.", show_default=False)
]


@app.command()
def evaluate(
    context: typer.Context,
    file: File,
    *,
    final: Annotated[bool, typer.Option("--final", help="Open the sealed test list.")] = False,
    validation: Annotated[bool, typer.Option("--validation", help="Score the validation list instead.")] = False,
    again: AgainOption = False,
    clips: Clips = 10,
    crops: Crops = 1,
    scores: ScoresFile = None,
    confusion: ConfusionFile = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    threads: Threads = None,
) -> None:
    """Score an exported checkpoint on the test list, which no trial of the study has seen."""
    if final == validation:
        raise SetupError(
            "the test list is sealed for the final evaluation of one configuration: add --final to open it, or "
            "--validation to score the validation list"
        )
    exported = load_export(file)
    evaluation = _Evaluation(
        file=file,
        exported=exported,
        settings=settings_of(context),
        device=device_of(exported, gpu=gpu, cpu=cpu, threads=threads),
        clips=clips,
        crops=crops,
        scores=scores,
        confusion=confusion,
    )
    if validation:
        evaluation.validate()
    else:
        evaluation.test(again=again)


def print_evaluation(file: Path, settings: Settings, *, again: bool = False) -> None:
    """Score the checkpoint of an export on the sealed test list, once, and keep the score beside the file.

    Raises:
        ConflictError: the list was opened before, and `again` is not set.
        HpoError: the checkpoint or the data set cannot be used.
    """
    exported = load_export(file)
    _Evaluation(file=file, exported=exported, settings=settings, device=device_of(exported)).test(again=again)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluation:
    """What is scored, how, and what is written."""

    file: Path
    exported: Export
    settings: Settings
    device: Device
    clips: int = 10
    crops: int = 1
    scores: Path | None = None
    confusion: Path | None = None

    def __post_init__(self) -> None:
        """Check the views, before a seal is touched for them."""
        _ = self.views

    @property
    def views(self) -> Views:
        from workers.evaluation.sealed_test import Views

        return Views(clips=self.clips, crops=self.crops)

    def validate(self) -> None:
        """Print the measures on the validation list."""
        from data import DatasetError
        from models import ModelError
        from workers.evaluation.sealed_test import Evaluation

        require_held_out(self.file, self.exported)
        checkpoint, dataset = checkpoint_of(self.file, self.exported), dataset_of(self.file, self.exported)
        measured = measuring(self.scores, self.confusion)
        with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
            opened = Evaluation.prepare(checkpoint, dataset, cache_dir=self.settings.cache_dir, device=self.device)
            scores = opened.validation(self.views, progress=lambda done, total: bar("validation videos", done, total))
        print_measures("Validation", {**measured(scores), **self._about(opened.same_dataset)})

    def test(self, *, again: bool) -> None:
        """Print the measures on the test list: those known of this checkpoint, or new ones."""
        from workers.checkpoints.reference import sha256_of

        checkpoint = checkpoint_of(self.file, self.exported)
        digest = sha256_of(checkpoint)
        record = self.file.with_suffix(".final.json")
        score, is_new = (None if again else _kept(record, digest)), False
        if score is None:
            score, is_new = self._score(checkpoint, digest, again=again)
            _write(record, score)
        if not is_new:
            out.print(f"The test list was opened on {score['at']}; score it once more with --again.")
            if self.scores or self.confusion:
                err.print("no file was written: only the score is kept, not what it is made of")
        print_measures("Test", score)

    def _score(self, checkpoint: Path, digest: str, *, again: bool) -> tuple[dict[str, Any], bool]:
        """Return a score and whether it is new: it is an earlier one where the same checkpoint was scored before."""
        from data import DatasetError
        from models import ModelError
        from workers.evaluation.sealed_test import Evaluation, Opening

        trial, study = self.exported.trial, self.exported.study
        which = {"study": study, "trial": trial, "checkpoint": digest}
        dataset = dataset_of(self.file, self.exported)
        measured = measuring(self.scores, self.confusion)
        with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
            test = Evaluation.prepare(checkpoint, dataset, cache_dir=self.settings.cache_dir, device=self.device)
            test.dataset.require_test_clips()
            seal = Seal(test.dataset, self.settings)
            known = None if again else seal.score_of(digest)
            if known is not None and known.score is not None:
                return {"at": _time(known.opened_at), **which, **known.score}, False
            if not again:
                seal.require_whole(digest)
            reason = f"final evaluation of trial {trial} of study {study}"
            opened = seal.opening(reason=reason, checkpoint=digest, host=socket.gethostname())
            about = {"id": str(opened.id), "checkpoint": digest, "host": opened.host}
            opening = Opening(reason=reason, about=about)
            scores = test.test(opening, self.views, progress=lambda done, total: bar("test videos", done, total))
        found = {**measured(scores), **self._about(test.same_dataset), "dataset_version": test.dataset.version}
        seal.keep_score(opened, {name: value for name, value in found.items() if name not in ("classes", "table")})
        return {"at": _time(datetime.now(UTC)), **which, **found}, True

    def _about(self, same_dataset: bool) -> dict[str, Any]:
        return {"clips": self.clips, "crops": self.crops, "same_dataset": same_dataset}


def _write(record: Path, score: Mapping[str, Any]) -> None:
    try:
        record.write_text(json.dumps(score, indent=2) + "\n")
    except OSError as error:
        err.print(f"{record} cannot be written ({error.strerror}): the score is in the record of the openings alone")


def _kept(record: Path, checkpoint: str) -> Mapping[str, Any] | None:
    """Return the score of a checkpoint that is kept beside the export; None if it is that of another one."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{record} is not the record of an evaluation ({error}); move it away") from error
    return kept if isinstance(kept, dict) and kept.get("checkpoint") == checkpoint else None


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
