"""`hpo evaluate`: score an exported checkpoint on the sealed test list, or on the validation list."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import SetupError
from ..settings import Settings
from ..trial import IMAGE
from .app import app, err, one_sentence_errors, out, settings_of
from .datasets import progress_bar
from .exported import Cpu, Devices, File, Gpu, Threads, dataset_of, device_of, devices_of, require_held_out
from .measured import OTHER_DATASET, measuring, print_measures
from .seal import Seal
from .snapshots import ALL, LAST, SnapshotOption, chosen_snapshots, print_snapshots

if TYPE_CHECKING:
    from workers.checkpoints.snapshots import Snapshot
    from workers.device.detection import Device
    from workers.evaluation.sealed_test import Evaluation, Views

    from ..results.export import Export

_CLIPS: Final = 10
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
    snapshot: SnapshotOption = LAST,
    clips: Clips = _CLIPS,
    crops: Crops = 1,
    scores: ScoresFile = None,
    confusion: ConfusionFile = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    devices: Devices = None,
    threads: Threads = None,
) -> None:
    """Score an exported checkpoint on the test list, which no trial of the study has seen."""
    from ..results.export import load_export

    if final == validation:
        raise SetupError(
            "the test list is sealed for the final evaluation of one configuration: add --final to open it, or "
            "--validation to score the validation list"
        )
    if snapshot == ALL and final:
        raise SetupError(
            "the test list is opened for the weights of one epoch: choose them with --validation --snapshot all, and "
            "name them with --snapshot NUMBER"
        )
    if snapshot == ALL and (scores or confusion):
        raise SetupError("--scores and --confusion write files of the weights of one epoch: name it with --snapshot")
    exported = load_export(file)
    evaluation = _Evaluation(
        file=file,
        exported=exported,
        settings=settings_of(context),
        devices=devices_of(exported, devices=devices, gpu=gpu, cpu=cpu, threads=threads),
        snapshot=snapshot,
        clips=_clips_of(exported, clips),
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
    from ..results.export import load_export

    exported = load_export(file)
    devices, clips = (device_of(exported),), _clips_of(exported, _CLIPS)
    _Evaluation(file=file, exported=exported, settings=settings, devices=devices, clips=clips).test(again=again)


def _clips_of(exported: Export, wanted: int) -> int:
    """Return how many clips are scored: of an image one, which others would only repeat."""
    return 1 if exported.task.kind == IMAGE else wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluation:
    """What is scored, how, and what is written."""

    file: Path
    exported: Export
    settings: Settings
    devices: tuple[Device, ...]
    snapshot: str = LAST
    clips: int = _CLIPS
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

    @property
    def _word(self) -> str:
        return self.exported.task.clip_word

    def validate(self) -> None:
        """Print the measures on the validation list: of one snapshot, or of all side by side."""
        require_held_out(self.file, self.exported)
        snapshots = self._snapshots()
        if self.snapshot != ALL:
            print_measures("Validation", self._validated(snapshots[0]), word=self._word)
            return
        scored = [(snapshot, self._validated(snapshot)) for snapshot in snapshots]
        print_snapshots(scored, word=self._word)
        if not scored[-1][1]["same_dataset"]:
            err.print(OTHER_DATASET)

    def _validated(self, snapshot: Snapshot) -> dict[str, Any]:
        from data import DatasetError
        from models import ModelError

        measured = measuring(self.scores, self.confusion, read=[self.file])
        name = f"validation {self._word}s" + ("" if self.snapshot != ALL else f", {snapshot.name}")
        with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
            opened = self._prepared(snapshot)
            scores = opened.validation(self.views, progress=lambda done, total: bar(name, done, total))
        return {**self._counted(measured(scores)), **self._about(opened.same_dataset)}

    def test(self, *, again: bool) -> None:
        """Print the measures on the test list: those known of this checkpoint, or new ones."""
        from workers.checkpoints.reference import sha256_of

        (snapshot,) = self._snapshots()
        digest = sha256_of(snapshot.path)
        record = self.file.with_suffix(".final.json" if snapshot.is_last else f".epoch-{snapshot.epoch}.final.json")
        score, is_new = (None if again else _kept(record, digest)), False
        if score is None:
            score, is_new = self._score(snapshot, digest, again=again)
            _write(record, score)
        if not is_new:
            when = _shown(score["at"])
            out.print(f"The test list was opened on {when}: this is the score of then. --again scores once more.")
            if self.scores or self.confusion:
                err.print("no file was written: only the score is kept, not what it is made of")
        print_measures("Test", score, word=self._word)

    def _score(self, snapshot: Snapshot, digest: str, *, again: bool) -> tuple[dict[str, Any], bool]:
        """Return a score and whether it is new: it is an earlier one where the same checkpoint was scored before."""
        from data import DatasetError
        from models import ModelError
        from workers.evaluation.sealed_test import Opening

        trial, study = self.exported.trial, self.exported.study
        which = {"study": study, "trial": trial, "checkpoint": digest}
        which |= {} if snapshot.is_last else {"epoch": snapshot.epoch}
        measured = measuring(self.scores, self.confusion, read=[self.file])
        with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
            test = self._prepared(snapshot)
            test.dataset.require_test_clips()
            seal = Seal(test.dataset, self.settings)
            known = None if again else seal.score_of(digest)
            if known is not None and known.score is not None:
                return {"at": _time(known.opened_at), **which, **known.score}, False
            if not again:
                seal.require_whole(digest)
            reason = f"final evaluation of trial {trial} of study {study}"
            reason += ", refit" if self.exported.refit else ""
            reason += "" if snapshot.is_last else f", epoch {snapshot.epoch}"
            opened = seal.opening(reason=reason, checkpoint=digest, host=socket.gethostname())
            about = {"id": str(opened.id), "checkpoint": digest, "host": opened.host}
            opening = Opening(reason=reason, about=about)
            scores = test.test(opening, self.views, progress=partial(bar, f"test {self._word}s"))
        found = {**self._counted(measured(scores)), **self._about(test.same_dataset)}
        found["dataset_version"] = test.dataset.version
        seal.keep_score(opened, {name: value for name, value in found.items() if name not in ("classes", "table")})
        return {"at": _time(datetime.now(UTC)), **which, **found}, True

    def _snapshots(self) -> list[Snapshot]:
        return chosen_snapshots(self.file, self.exported, self.settings, self.snapshot)

    def _prepared(self, snapshot: Snapshot) -> Evaluation:
        from workers.evaluation.sealed_test import Evaluation

        dataset = dataset_of(self.file, self.exported)
        return Evaluation.prepare(snapshot.path, dataset, cache_dir=self.settings.cache_dir, device=self.devices)

    def _counted(self, measures: dict[str, Any]) -> dict[str, Any]:
        """Return measures that say of images how many they are by that name too, beside the one of videos."""
        return {**measures, "images": measures["videos"]} if self._word == IMAGE else measures

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


def _shown(at: str) -> str:
    """Return a time as people write it; what is none as it is."""
    with suppress(ValueError):
        return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return at


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
