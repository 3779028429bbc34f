"""`hpo evaluate`: score an exported checkpoint on the sealed test list."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError
from ..results.export import Export, load_export
from ..settings import Settings
from ..spec import VideoTask
from .app import app, err, one_sentence_errors, out, settings_of
from .datasets import progress_bar
from .exported import Cpu, File, Gpu, Threads, device_of
from .seal import Seal

if TYPE_CHECKING:
    from workers.device.detection import Device


@app.command()
def evaluate(
    context: typer.Context,
    file: File,
    *,
    final: Annotated[bool, typer.Option("--final", help="Open the sealed test list.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Open it although it was opened before.")] = False,
    clips: Annotated[int, typer.Option(help="Clips per video, evenly spaced.", min=1)] = 10,
    crops: Annotated[int, typer.Option(help="Crops of each clip: 1, 3, 5 or 10 (see docs/clips.md).")] = 1,
    gpu: Gpu = None,
    cpu: Cpu = False,
    threads: Threads = None,
) -> None:
    """Score an exported checkpoint on the test list, which no trial of the study has seen."""
    if not final:
        raise SetupError(
            "the test list is sealed for the final evaluation of one configuration: add --final to open it "
            "(`hpo export` shows the validation score)"
        )
    exported = load_export(file)
    device = device_of(exported, gpu=gpu, cpu=cpu, threads=threads)
    print_evaluation(file, settings_of(context), device=device, views=(clips, crops), again=again)


def print_evaluation(
    file: Path,
    settings: Settings,
    *,
    device: Device | None = None,
    views: tuple[int, int] = (10, 1),
    again: bool = False,
) -> None:
    """Score the checkpoint of an export on the sealed test list, once, and keep the score beside the file.

    `views` are the number of clips per video and of crops per clip.

    Raises:
        ConflictError: the list was opened before, and `again` is not set.
        HpoError: the checkpoint or the data set cannot be used.
    """
    from workers.checkpoints.reference import sha256_of

    exported = load_export(file)
    checkpoint = _checkpoint_of(file, exported)
    digest = sha256_of(checkpoint)
    record = file.with_suffix(".final.json")
    score = None if again else _kept(record, digest)
    if score is None:
        score, is_new = _score(exported, checkpoint, digest, settings, device=device, views=views, again=again)
        record.write_text(json.dumps(score, indent=2) + "\n")
    else:
        is_new = False
    if not is_new:
        out.print(f"The test list was opened on {score['at']}; score it once more with --again.")
    low, high = score["interval"]
    out.print(
        f"Test        top-1 {score['top1']:.3f} (95 % interval {low:.3f} to {high:.3f}) on {score['videos']} sealed "
        f"videos, {score['clips']} clips x {score.get('crops', 1)} crops each; chance is {score['chance']:.3f}"
    )
    if not score["same_dataset"]:
        err.print("the data set differs from the one used for training: files were added, changed or removed since")


def _checkpoint_of(file: Path, exported: Export) -> Path:
    if not isinstance(exported.task, VideoTask):
        raise SetupError(f"{file} is of a task of the kind {exported.task.kind!r}; only video models can be scored")
    if exported.checkpoint is None:
        raise SetupError(f"{file} does not name a checkpoint: make one with `hpo train {file}`")
    return file.parent / exported.checkpoint


def _kept(record: Path, checkpoint: str) -> dict[str, Any] | None:
    """Return the score of a checkpoint that is kept beside the export; None if it is that of another one."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{record} is not the record of an evaluation ({error}); move it away") from error
    return kept if isinstance(kept, dict) and kept.get("checkpoint") == checkpoint else None


def _score(
    exported: Export,
    checkpoint: Path,
    digest: str,
    settings: Settings,
    *,
    device: Device | None,
    views: tuple[int, int],
    again: bool,
) -> tuple[dict[str, Any], bool]:
    """Return a score and whether it is new: it is an earlier one where the same checkpoint was scored before."""
    from data import DatasetError
    from models import ModelError
    from workers.evaluation.sealed_test import FinalTest, Opening

    assert isinstance(exported.task, VideoTask)  # noqa: S101 - `_checkpoint_of` refuses others
    which = {"study": exported.study, "trial": exported.trial, "checkpoint": digest}
    with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
        test = FinalTest.prepare(
            checkpoint, exported.task.dataset, cache_dir=settings.cache_dir, device=device or device_of(exported)
        )
        seal = Seal(test.dataset, settings)
        known = None if again else seal.score_of(digest)
        if known is not None and known.score is not None:
            return {"at": known.opened_at.isoformat(timespec="seconds"), **which, **known.score}, False
        if not again:
            seal.require_whole(digest)
        reason = f"final evaluation of trial {exported.trial} of study {exported.study}"
        opened = seal.opening(reason=reason, checkpoint=digest, host=socket.gethostname())
        about = {"id": str(opened.id), "checkpoint": digest, "host": opened.host}
        opening = Opening(reason=reason, clips=views[0], crops=views[1], about=about)
        score = asdict(test.score(opening, progress=_on(bar, "test videos")))
        seal.keep_score(opened, score)
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), **which, **score}, True


def _on(bar: Callable[[str, int, int], None], stage: str) -> Callable[[int, int], None]:
    return lambda done, total: bar(stage, done, total)
