"""`hpo export --format`: the model of an export as a file for other programs, with a card that says how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import SetupError
from ..trial import IMAGE
from .app import one_sentence_errors, out
from .exported import checkpoint_of, video_task_of

MODEL_FORMATS: Final = ("onnx", "torch-export", "safetensors")


def check_formats(formats: Sequence[str]) -> None:
    """Check the names of formats.

    Raises:
        SetupError: one is unknown.
    """
    for form in formats:
        if form not in MODEL_FORMATS:
            raise SetupError(f"there is no format {form!r}; choose among {', '.join(MODEL_FORMATS)}")


def write_model_files(file: Path, formats: Sequence[str]) -> None:
    """Write the model of an export file beside it in each format, compare what it says, and write its card.

    Raises:
        SetupError: the export names no checkpoint, or a library is missing.
        HpoError: the model cannot be written so.
    """
    from models import ModelError
    from workers.device.detection import cpu_device
    from workers.evaluation.formats import FORMATS, card_of, write_model
    from workers.evaluation.model import TrainedModel

    from ..results.export import load_export

    exported = load_export(file)
    dataset = video_task_of(file, exported).dataset
    about = {
        "study": exported.study,
        "trial": exported.trial,
        "metrics": exported.metrics,
        "epochs": exported.epochs_done,
        "refit": exported.refit,
        "weights": [f"{used.source} (SHA-256 {used.sha256})" for used in exported.weights],
    }
    with one_sentence_errors(ModelError):
        model = TrainedModel.open(checkpoint_of(file, exported), cpu_device(threads=None))
        for form in formats:
            path = file.with_suffix(FORMATS[form].suffix)
            written = write_model(model, form, path, of_images=exported.task.kind == IMAGE)
            out.print(
                f"wrote {written.path}: {written.path.stat().st_size / 1e6:.1f} MB, {written.batch}; its logits differ "
                f"from the model's by at most {written.difference:.1e} of the largest"
            )
            card = file.with_suffix(f"{FORMATS[form].suffix}.md")
            text = card_of(model, written, form=form, about=about, short_side=dataset.short_side)
            try:
                card.write_text(text, encoding="utf-8")
            except OSError as error:
                raise SetupError(f"{card} cannot be written ({error.strerror})") from error
            out.print(f"wrote {card}: how to use it")
