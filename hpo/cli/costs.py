"""What trainings of some configurations would take, for `hpo study create --check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import DataNotSeenError
from .spec_check import clips_of_sides

if TYPE_CHECKING:
    from ..spec import StudySpec
    from ..trial import Params

_CLASSES: Final = 101
"""Of the classifier, which is small beside the rest."""
_BYTES: Final = {"GiB": 2.0**30, "MiB": 2.0**20}
_FLOP: Final = {"EFLOP": 1e18, "PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9}


def costs(spec: StudySpec, configurations: Sequence[Params]) -> Iterator[str]:
    """Yield lines on the memory and the computation of trainings; none for a task whose trainings are not ours."""
    from models import ModelError
    from workers.training.size import update_size

    from ..spec import TrainingConfig, VideoTask

    if not isinstance(spec.task, VideoTask):
        return
    try:
        configs = [TrainingConfig.from_flat(spec.task.config(params, seed=0)) for params in configurations]
        sizes = [update_size(config, num_classes=_CLASSES) for config in configs]
    except (ModelError, NotImplementedError) as error:
        # A network of another package may do what tensors without contents cannot.
        yield f"memory: not counted ({str(error).splitlines()[0]})"
        return
    memory = _range([size.bytes for size in sizes], _BYTES)
    yield f"memory: {memory} for an update of these in float32 (counted; what does not fit is computed in parts)"
    fit = _training_clips(spec)
    flops = [size.flops_of_clip for size in sizes]
    if fit is None:
        yield f"computation: {_range(flops, _FLOP)} for a clip, forward and backward"
    else:
        whole = _range([one * fit * spec.task.epochs for one in flops], _FLOP)
        yield f"computation: {whole} for a whole training on {fit} clips"


def _training_clips(spec: StudySpec) -> int | None:
    try:
        sides = clips_of_sides(spec)
    except DataNotSeenError:
        return None
    return None if sides is None else sides[0]


def _range(values: Sequence[float], units: Mapping[str, float]) -> str:
    """Return the least and the largest value in the largest unit that leaves one before the point."""
    unit = next((unit for unit, size in units.items() if max(values) >= size), list(units)[-1])
    least, most = (f"{value / units[unit]:.3g}" for value in (min(values), max(values)))
    return f"{least} {unit}" if least == most else f"{least} to {most} {unit}"
