"""What an evaluation has measured: printed for people, and written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Column, Table

from ..errors import SetupError
from .app import err, out
from .exported import require_not_read

if TYPE_CHECKING:
    from workers.evaluation.views import Scores

OTHER_DATASET: Final = "the data set differs from the one used for training: files were added, changed or removed since"
_IMAGE: Final = "image"
_WORST: Final = 30
"""How many classes are printed at most: those that are recognised worst."""


def measuring(
    scores: Path | None, confusion: Path | None, *, read: Sequence[Path]
) -> Callable[[Scores], dict[str, Any]]:
    """Return the function that measures scores and writes the files; whether these can be written is known before.

    The measures are `chance`, those of `Measures.summary`, the seed trainings' `table`, and the `classes`.

    Args:
        read: the exports, which are not written over, nor are their checkpoints.

    Raises:
        SetupError: a file cannot be written.
    """
    require_not_read(filter(None, (scores, confusion)), [*read, *(path.with_suffix(".pt") for path in read)])
    if scores is not None and confusion is not None and scores.resolve() == confusion.resolve():
        raise SetupError(f"--scores and --confusion both write {scores}: name two files")
    for path in filter(None, (scores, confusion)):
        if not path.absolute().parent.is_dir():
            raise SetupError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
    if confusion is not None and confusion.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise SetupError(f"{confusion} is no picture's name: let it end in .png")

    def write(found: Scores) -> dict[str, Any]:
        from workers.evaluation.confusion_picture import draw_confusion, write_picture
        from workers.evaluation.measures import class_table, measure
        from workers.evaluation.views import frame_document

        measures = measure(found)
        summary = {"chance": 1 / len(found.class_names), **measures.summary()}
        details = {"table": measures.table(), "classes": class_table(measures)}
        if scores is not None:
            document = {**frame_document(found), "table": measures.table(), "confusion": measures.confusion.tolist()}
            _write(scores, json.dumps(document, indent=1).encode())
        if confusion is not None:
            picture = draw_confusion(measures.confusion, found.class_names)
            _write(confusion, write_picture(picture, confusion.suffix))
        return {**summary, **details}

    return write


def print_measures(part: str, score: Mapping[str, Any], *, word: str = "video") -> None:
    """Print the measures on a part of the data set; those that others kept may be any, or fewer.

    Args:
        word: what one item of the data set is called.
    """
    out.print(f"{part:<12}{'; '.join(_headline(part, score, word))}")
    if score.get("effective_videos", 0) < 0.9 * score.get("videos", 0) and {"effective_videos", "sources"} <= {*score}:
        out.print(
            f"            the {word}s come from {score['sources']} sources, so they say as much as "
            f"{score['effective_videos']:.0f} of different sources: hence the width of the interval"
        )
    if "mean_average_precision" in score:
        named = {"top-3": "top3", "top-5": "top5", "mean error": "mean_error", "mAP": "mean_average_precision"}
        named |= {"mean over classes": "mean_class_accuracy"}
        if word != _IMAGE:
            named |= {"single clips, top-1": "clip_top1"}
        out.print("            " + ", ".join(f"{name} {score[key]:.3f}" for name, key in named.items() if key in score))
    if score.get("classes"):
        _print_classes(score["classes"], word)
    if not score.get("same_dataset", True):
        err.print(OTHER_DATASET)


def _headline(part: str, score: Mapping[str, Any], word: str) -> Iterator[str]:
    """Yield top-1 with what it is of, and chance, as far as they are known."""
    text = f"top-1 {score['top1']:.3f}" if "top1" in score else "top-1 is not known"
    if "interval" in score:
        text += " (95 % interval {:.3f} to {:.3f})".format(*score["interval"])
    if "videos" in score:
        text += f" on {score['videos']} {'sealed ' * (part == 'Test')}{word}s"
    if "clips" in score:
        crops = score.get("crops", 1)
        views = f"{score['clips']} clips x {crops} crops"
        if word == _IMAGE:
            views = f"{crops} crop{'s' * (crops != 1)}"
        text += f", {views} each"
    yield text
    if "chance" in score:
        yield f"chance is {score['chance']:.3f}"


def _print_classes(classes: list[dict[str, Any]], word: str) -> None:
    known = [one for one in classes if one["videos"]]
    shown = sorted(known, key=lambda one: (one["recall"], one["name"]))[:_WORST]
    table = Table(
        "class",
        Column(f"{word}s", justify="right"),
        Column("recognised", justify="right"),
        Column("precision", justify="right"),
        Column("AP", justify="right"),
        "mostly mistaken for",
        title=None if len(shown) == len(known) else f"the {len(shown)} of {len(known)} classes recognised worst",
    )
    for one in shown:
        shares = [one[name] for name in ("recall", "precision", "average_precision")]
        texts = ("-" if share is None else f"{share:.3f}" for share in shares)
        table.add_row(one["name"], str(one["videos"]), *texts, one["mistaken_for"] or "")
    out.print(table)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror})") from error
    out.print(f"wrote {path}")
