"""What `hpo study create --check` says of a spec before anything is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import DataNotSeenError
from .costs import costs
from .files import counted
from .spec_check import few_clips_of, validation_clips

if TYPE_CHECKING:
    from ..spec import StudySpec
    from ..trial import Params

_SHOWN = 3
"""How many of the first configurations are shown."""


def preview(spec: StudySpec, *, with_costs: bool = False) -> Iterator[str]:
    """Yield lines about a spec that was checked: its size, its data set, and what it would try first.

    `with_costs` adds what a training of these would take, which needs PyTorch.
    """
    yield f"{spec.name}: the spec is right; nothing was stored"
    yield f"space: {counted(len(spec.space), 'parameter')}{_size(spec)}"
    yield f"budget: {_cost(spec)}"
    yield from _data(spec)
    first = _first(spec)
    for place, params in enumerate(first):
        values = ", ".join(f"{name} {_short(value)}" for name, value in params.items())
        yield f"{'first trials:' if place == 0 else '':13} {values}"
    if with_costs:
        yield from costs(spec, first)


def _size(spec: StudySpec) -> str:
    from ..spec.configurations import count_configurations

    count = count_configurations(spec)
    return "" if count is None else f", {counted(count, 'configuration')}"


def _cost(spec: StudySpec) -> str:
    budget, epochs = spec.budget, spec.task.epochs
    limits = [f"{budget.gpu_hours:g} GPU hours"] if budget.gpu_hours is not None else []
    limits += [f"{budget.wall_hours:g} hours"] if budget.wall_hours is not None else []
    if budget.trials is None:
        return f"{' or '.join(limits)}, for trials of {counted(epochs, 'epoch')}"
    most = counted(budget.trials * epochs, "epoch")
    words = f"{counted(budget.trials, 'trial')} of {counted(epochs, 'epoch')}, {most} without early stopping"
    return ", or ".join([words, *limits])


def _data(spec: StudySpec) -> Iterator[str]:
    try:
        clips = validation_clips(spec)
    except DataNotSeenError as error:
        yield f"data set: not on this machine ({error}); a worker needs it"
        return
    if clips is not None:
        yield f"data set: {counted(clips, 'validation clip')}"
    if (sentence := few_clips_of(spec, clips)) is not None:
        yield f"note: {sentence}"


def _first(spec: StudySpec) -> list[Params]:
    from ..optimizer import create_optimizer

    optimizer = create_optimizer(spec)
    # Without a start-up the model chooses, which takes long to load and knows nothing yet.
    found = optimizer.ask(_SHOWN) if optimizer.startup_left >= _SHOWN else optimizer.quick(_SHOWN)
    return [suggestion.params for suggestion in found]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
