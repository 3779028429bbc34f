"""The weights that a training starts from: found on this machine, checked against what is expected, loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from hpo.spec import TrainingConfig
from models import VideoModel, WeightsError, WeightsReport, WeightsUnavailableError, load_weights
from models.weights.digest import sha256_of
from models.weights.sources import NO_WEIGHTS, find_weights

Stream = Literal["rgb", "flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFolders:
    """Where this machine keeps weights, and what their files must hold."""

    roots: tuple[Path, ...] = ()
    """Folders of weights files, searched in their order."""
    downloads: Path | None = None
    """Folder of what torchvision and Hugging Face publish, which all workers of a machine share."""
    expected: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """SHA-256 by source, where others have trained from it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingWeights:
    """Weights that a model was given before its training."""

    source: str
    """As the configuration names them."""
    stream: Stream | None
    """The stream that got them; None for the whole model."""
    sha256: str
    report: WeightsReport

    def log_lines(self) -> list[str]:
        """Return what was loaded and what was not, every tensor by its name."""
        report, of_stream = self.report, f" ({self.stream})" if self.stream else ""
        groups = {
            "adapted in shape": report.adapted,
            "drawn anew, for other classes": report.reset,
            "drawn anew, not in the file": report.kept,
            "of the file, not needed": report.dropped,
        }
        return [
            f"weights{of_stream}: {self.source}, SHA-256 {self.sha256}, layout: {report.layout}",
            f"  {len(report.loaded)} tensors loaded",
            *(f"  {len(names)} {words}: {', '.join(names)}" for words, names in groups.items() if names),
            *(f"  {note}" for note in report.notes),
        ]


def load_starting_weights(
    model: VideoModel, config: TrainingConfig, folders: WeightsFolders
) -> tuple[StartingWeights, ...]:
    """Load the weights that the configuration names into the model, and return what they were.

    Raises:
        models.WeightsUnavailableError: a file is not on this machine, or has other bytes than are expected.
        models.WeightsError: a file cannot be read, or does not fit.
    """
    return tuple(_load(model, source, stream, part, folders) for source, stream, part in _wanted(model, config))


def _wanted(model: VideoModel, config: TrainingConfig) -> Iterator[tuple[str, Stream | None, str | None]]:
    """Yield each source with its stream and the part of the model that stands for it."""
    if config.weights != NO_WEIGHTS:
        yield config.weights, None, None
    for stream, source in config.stream_weights.items():
        if source != NO_WEIGHTS:
            yield source, stream, _part(model, stream)


def _part(model: VideoModel, stream: Stream) -> str:
    if stream not in model.input_parts:
        raise WeightsError(f"{model.name} has one stream: name its weights as `weights`, not `weights.{stream}`")
    return model.input_parts[stream]


def _load(
    model: VideoModel, source: str, stream: Stream | None, part: str | None, folders: WeightsFolders
) -> StartingWeights:
    path = find_weights(source, folders.roots, downloads=folders.downloads)
    before = path.stat()
    digest = sha256_of(path)
    expected = folders.expected.get(source, digest)
    if digest != expected:
        raise WeightsUnavailableError(
            f"the weights file {path} of this machine has the SHA-256 {digest}, but the training is of {source} with "
            f"{expected}: put that file there"
        )
    report = load_weights(model, path, stream=part)
    after = path.stat()
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise WeightsUnavailableError(f"the weights file {path} was changed while it was read")
    return StartingWeights(source=source, stream=stream, sha256=digest, report=report)
