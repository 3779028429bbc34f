"""Loading a model's parameters from a file, safely and completely.

Supported are files of PyTorch (plain, or inside checkpoints), of PySlowFast, PyTorchVideo and the original programs of
the zoo's networks, Caffe2's pickles and MatConvNet's ``.mat``; the layout is detected. Weights of an image network can
be loaded into a video model that is made from it: kernels are repeated over frames, or over input channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ..errors import WeightsError
from ..video_model import VideoModel
from ..weights_report import WeightsReport
from .files import read_matconvnet, read_state
from .layout import AS_IT_IS, COMPUTED, Reading
from .recognise import recognise
from .shapes import MATCONVNET, fitted, matconvnet_reading, same_kind

_T = TypeVar("_T")
_MAX_NAMES_SHOWN = 5
# Names of the classifiers in image networks.
_CLASSIFIERS = ("fc.", "head.", "classifier.")


def load_weights(model: VideoModel, path: str | Path, *, stream: str | None = None) -> WeightsReport:
    """Load the tensors in the file at `path` into `model`, and return a report.

    With `stream`, the name of a submodule such as ``"spatial"``, the file is loaded into that part alone. A classifier
    with another number of classes is not loaded: the model keeps its own. If any other tensor is missing, unexpected or
    of another shape, if a tensor holds NaN or infinity, or if a classifier of the model's number of classes would be
    left out, a WeightsError says so and the model is not changed.

    A file of another function whose tensors all fit, such as one of TSM for TSN, is loaded; `notes` of the report
    say what differs.
    """
    path = Path(path)
    target = _Target(model, stream)
    beside: Mapping[str, Tensor] = {}
    if path.suffix == ".mat":
        layers = read_matconvnet(path)
        try:
            layout, reading = MATCONVNET, matconvnet_reading(layers, target.own)
        except WeightsError as error:
            raise WeightsError(f"{path} (MatConvNet) does not fit {target.name}: {error}") from error
    else:
        file = read_state(path)
        beside = file.beside
        layout, reading = recognise(file.tensors, path)
    if reading.refusal is not None:
        raise WeightsError(f"{path} does not fit {target.name}: {reading.refusal}")
    state = dict(reading.state)
    dropped = {name for name in state if name.startswith(target.optional) and name not in target.own}
    state = {name: tensor for name, tensor in state.items() if name not in dropped}
    plan = _plan_own(state, target, absent=reading.absent)
    of_image = False
    if plan.problems and target.image:
        image_plan = _plan_image(state, target)
        if not image_plan.problems:
            plan, of_image = image_plan, True
    if plan.problems:
        if beside:
            plan.problems.append(f"left aside, since they are outside of `model.`, {_listed(beside)}")
        raise WeightsError(f"{path} {_misfit(target, layout, reading)}: {'; '.join(plan.problems)}")
    _refuse_dropped_classes(path, {**{name: state[name] for name in plan.dropped}, **beside}, target, reading)
    model.load_state_dict({target.prefix + name: tensor for name, tensor in plan.tensors.items()}, strict=False)
    lost = {
        *reading.left_out,
        *beside,
        *(reading.names.get(name, name) for name in dropped | plan.dropped | plan.unused),
    }
    report = _report(plan, target, layout, sorted(lost))
    notes = (*reading.notes, *_differences(reading, target, of_image))
    model.weights_reports[stream] = replace(report, network=reading.network, notes=notes)
    return model.weights_reports[stream]


def takes_image_weights(model: VideoModel, state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors with our names are of the image network that `model` is made from.

    Shapes decide alone, so both may be on the ``meta`` device.
    """
    target = _Target(model, None)
    return bool(target.image) and not _plan_image(state, target).problems


def _misfit(target: _Target, layout: str, reading: Reading) -> str:
    """Return what a file of a known network does not do."""
    what = ""
    if layout != AS_IT_IS and reading.network:
        what = f"({layout}) " if reading.network in layout else f"({reading.network} of {layout}) "
    fitting = sorted({candidate.model for candidate in reading.candidates} - {target.info.name})
    hint = f" (it fits {', '.join(fitting)})" if fitting and what else ""
    return f"{what}does not fit {target.name}{hint}"


def _refuse_dropped_classes(path: Path, dropped: Mapping[str, Tensor], target: _Target, reading: Reading) -> None:
    """Raise WeightsError if a classifier of the model's number of classes would be left out."""
    lost = [
        name
        for name, tensor in dropped.items()
        if name.endswith(".weight") and tensor.ndim >= 2 and tensor.shape[0] == target.num_classes
    ]
    if lost:
        raise WeightsError(
            f"{path} does not fit {target.name}: its classifier {reading.names.get(lost[0], lost[0])} has the same "
            f"{target.num_classes} classes, but {target.name} cannot take it, so the file is of another network"
        )


def _differences(reading: Reading, target: _Target, of_image: bool) -> tuple[str, ...]:
    """Return sentences about how the model differs from the network that was recognised."""
    if not reading.candidates:
        return ()
    matching = [candidate for candidate in reading.candidates if candidate.model == target.info.name]
    if not matching:
        models = ", ".join(sorted({candidate.model for candidate in reading.candidates}))
        how = "its kernels were fitted to" if of_image else "its tensors all fit"
        return (f"the file is {reading.network}, the network of {models}; {how} {target.name}, another function",)
    gaps = []
    for candidate in matching:
        gap = {name: value for name, value in candidate.options.items() if target.options.get(name, value) != value}
        if not gap:
            return ()
        gaps.append(gap)
    wanted = ", ".join(f"{name} = {value}" for name, value in min(gaps, key=len).items())
    return (f"the file is {reading.network}, which {target.name} computes only with {wanted}",)


class _Target:
    """The part of a model that a file is loaded into; names are without the part's prefix."""

    def __init__(self, model: VideoModel, stream: str | None) -> None:
        self.prefix = f"{stream}." if stream else ""
        self.name = f"{stream} of {model.name}" if stream else model.name
        self.own = self._of(model.state_dict())
        if not self.own:
            raise WeightsError(f"{model.name} has no part {stream!r}: name one of its submodules")
        heads = {f"{name}.": name for name in model.classifier_names}
        self.heads = tuple(self._of(heads)) or _CLASSIFIERS
        self.image = self._of(model.image_names())
        self.from_image = model.from_image
        self.unused_image = model.unused_image_names
        self.optional: tuple[str, ...] = tuple(getattr(model, "optional_names", ()))
        self.seq_len = int(model.settings.hparams.get("seq_len", 1))
        self.info = model.info
        self.options = model.settings.hparams
        self.num_classes = model.num_classes

    def _of(self, names: Mapping[str, _T]) -> dict[str, _T]:
        prefix = self.prefix
        return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


@dataclass(kw_only=True, slots=True)
class _Plan:
    """The tensors to load, and the problems that prevent it."""

    tensors: dict[str, Tensor]
    adapted: set[str]
    reset: set[str]
    dropped: set[str]
    problems: list[str]
    unused: set[str] = field(default_factory=set)
    """Tensors of the image network for which the model has others of its own."""


def _plan_own(state: Mapping[str, Tensor], target: _Target, *, absent: tuple[str, ...] = ()) -> _Plan:
    """Return the plan for a file of the same model; what begins with `absent` stays new if the file has it not."""
    own = target.own
    shaped = {
        name: fitted(tensor, own[name], seq_len=target.seq_len) if name in own else tensor
        for name, tensor in state.items()
    }
    reset = _other_heads(shaped, target)
    reset |= {name for name in own.keys() - shaped.keys() if name.startswith(absent)}
    taken = {name: tensor for name, tensor in shaped.items() if name not in reset}
    return _Plan(
        tensors=taken,
        adapted=_adapted(taken, state),
        reset=reset & own.keys(),
        dropped=set(),
        problems=_problems(shaped, own, ignore=reset),
    )


def _plan_image(state: Mapping[str, Tensor], target: _Target) -> _Plan:
    """Return the plan for a file of the image network that the model is made from."""
    own = target.own
    unused = {name for name in state if name.endswith(target.unused_image)}
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    reset = _other_heads(state, target)
    # Tensors beyond the common image network, such as a bias or a matching classifier, keep their names.
    names = target.image | {name: name for name in state.keys() & own.keys() - target.image.keys() - reset}
    present = {ours: theirs for ours, theirs in names.items() if theirs in state}
    taken = {
        ours: fitted(target.from_image(target.prefix + ours, state[theirs]), own[ours], seq_len=target.seq_len)
        for ours, theirs in present.items()
    }
    missing = [theirs for theirs in names.values() if theirs not in state and not theirs.endswith(COMPUTED)]
    leftover = state.keys() - set(names.values()) - reset
    classifier = {name for name in leftover if name.startswith((*target.heads, *_CLASSIFIERS))}
    problems = _problems(taken, {ours: own[ours] for ours in present}, ignore=set())
    if missing or leftover - classifier:
        problems.append("it is not an image network of this model")
    return _Plan(
        tensors=taken,
        adapted={ours for ours, theirs in present.items() if taken[ours] is not state[theirs]},
        reset={name for name in own if name.startswith(target.heads) and name not in taken},
        dropped=classifier,
        problems=problems,
        unused={name for name in unused if not name.endswith(COMPUTED)},
    )


def _other_heads(state: Mapping[str, Tensor], target: _Target) -> set[str]:
    """Return the names of classifiers in the file that have another number of classes."""
    heads = (_classifier_of_other_classes(state, target.own, prefix=head) for head in target.heads)
    return set().union(*heads)


def _adapted(taken: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in taken.items() if tensor is not state[name]}


def _report(plan: _Plan, target: _Target, layout: str, dropped: list[str]) -> WeightsReport:
    def named(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(target.prefix + name for name in names)

    kept = {name for name in target.own.keys() - plan.tensors.keys() - plan.reset if not name.endswith(COMPUTED)}
    return WeightsReport(
        loaded=named(plan.tensors),
        reset=named(sorted(plan.reset)),
        layout=layout,
        adapted=named(sorted(plan.adapted)),
        kept=named(sorted(kept)),
        dropped=tuple(dropped),
    )


def _classifier_of_other_classes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, prefix: str) -> set[str]:
    """Return the names under `prefix` if the file's classifier differs only in the number of classes."""
    names = {name for name in own.keys() | state.keys() if name.startswith(prefix)}
    shared = names & own.keys() & state.keys()
    # The first axis counts classes; features that differ are a different body. A bias alone says nothing.
    same_features = all(state[name].shape[1:] == own[name].shape[1:] for name in shared)
    matrices = [name for name in shared if own[name].ndim > 1] or shared
    other_classes = any(state[name].shape[:1] != own[name].shape[:1] for name in matrices)
    return names if same_features and other_classes else set()


def _problems(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, ignore: set[str]) -> list[str]:
    missing = {name for name in own.keys() - state.keys() - ignore if not name.endswith(COMPUTED)}
    unexpected = state.keys() - own.keys() - ignore
    shapes = [
        f"{name} is {tuple(state[name].shape)} and must be {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys() - ignore)
        if state[name].shape != own[name].shape
    ]
    kinds = sorted(name for name in own.keys() & state.keys() - ignore if not same_kind(state[name], own[name]))
    problems = []
    if missing:
        problems.append(f"missing {_listed(sorted(missing))}")
    if unexpected:
        problems.append(f"unexpected {_listed(sorted(unexpected))}")
    if shapes:
        problems.append(f"of another shape {_listed(shapes)}")
    if kinds:
        problems.append(
            f"of {str(state[kinds[0]].dtype).removeprefix('torch.')}, not of real numbers, {_listed(kinds)}"
        )
    return problems


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
