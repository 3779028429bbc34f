"""Saying what a weights file is, without loading it into a model: layout, network, classes, and the models it fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..card import ModelInfo, Value
from ..catalogue import list_models, model_info, model_settings
from ..errors import ModelError, WeightsError
from ..video_model import VideoModel, build_model
from .files import MatLayer, read_matconvnet, read_state
from .layout import COMPUTED, Candidate, Reading, State, resnet_depth
from .load import takes_image_weights
from .recognise import recognise
from .shapes import MATCONVNET, matconvnet_reading, same_kind
from .shown_options import shown_options

# Architectures that load another library, which takes seconds; all of their names begin with "net.".
_OF_OTHER_LIBRARIES = ("models.architectures.image_backbone:", "models.architectures.hf_video:")
# Fixed options that decide over the names of an architecture's tensors.
_NAMING = ("layout", "backbone")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFit:
    """A model that a file fits: same names and shapes, but for the number of classes."""

    model: str
    options: Mapping[str, Value]
    """The options to set, because they differ from the card's defaults."""
    in_channels: int
    """Channels of the clip (of flow, in a stream of flow)."""
    stream: str | None
    """The part of a two-stream model that the file belongs to; None for the whole model."""
    input: str | None
    """The input of that part, ``"rgb"`` or ``"flow"``, as a study names it."""
    reset: tuple[str, ...]
    """The model's names of the tensors that stay new with another number of classes."""
    new: tuple[str, ...]
    """The model's names of the tensors that stay new in any case, because the file lacks them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsIdentity:
    """What a weights file is."""

    path: Path
    layout: str
    """The program with the names of the file; ``"as it is"`` for our own names and torchvision's."""
    network: str
    """The network in its author's words; empty if the layout is not known."""
    num_classes: int | None
    """Number of classes of the file's classifier; None if no model fits, or if the file has none."""
    tensors: int
    """Number of tensors in the file."""
    parameters: int
    """Number of values in all tensors of the file."""
    fits: tuple[WeightsFit, ...]
    """The models that the file fits exactly. Several if names and shapes do not tell them apart."""
    left_over: tuple[str, ...]
    """The file's names that the first of `fits` does not take, such as auxiliary heads; empty without fits."""
    of_images: bool
    """Whether all of the file's kernels are of images, and of real numbers."""
    inflates: tuple[str, ...]
    """Further models, made from this network of images: its kernels are repeated over their frames."""
    notes: tuple[str, ...]
    """Sentences for a person, such as which program reads a file that no model here takes."""


def identify_weights(path: str | Path) -> WeightsIdentity:
    """Return what the file at `path` is; raise WeightsError for a file that cannot be read.

    The models are compared by names and shapes alone: no weights are made and no forward pass is run.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return _identify_matconvnet(path)
    file = read_state(path)
    state = file.tensors
    layout, reading = recognise(state, path)
    found = [fit for candidate in _candidates(reading) if (fit := _fit(candidate, reading))]
    taken = {reading.names[name] for name in found[0].taken} | set(reading.joined) if found else set(state)
    beside = set(file.beside) if found else set()
    notes = (*reading.notes, *((reading.refusal,) if reading.refusal else ()))
    return WeightsIdentity(
        path=path,
        layout=layout,
        network=reading.network,
        num_classes=found[0].num_classes if found else None,
        tensors=len(state),
        parameters=sum(tensor.numel() for tensor in state.values()),
        fits=tuple(one.fit for one in found),
        left_over=tuple(sorted(name for name in (state.keys() - taken) | beside if not name.endswith(COMPUTED))),
        of_images=_of_images(reading.state),
        inflates=tuple(_inflated(reading, {one.fit.model for one in found})),
        notes=notes,
    )


def _identify_matconvnet(path: Path) -> WeightsIdentity:
    """Return what a file of MatConvNet is: a residual network of images, which may be a stream of a multiplier one."""
    layers = read_matconvnet(path)
    readings = list(_matconvnet_readings(layers))
    found = [fit for candidate, reading in readings if (fit := _fit(candidate, reading))]
    arrays = [array for layer in layers for array in layer.arrays]
    return WeightsIdentity(
        path=path,
        layout=MATCONVNET,
        network="ResNet" if found else "",
        num_classes=found[0].num_classes if found else None,
        tensors=len(arrays),
        parameters=sum(array.size for array in arrays),
        fits=tuple(one.fit for one in found),
        left_over=(),
        of_images=True,
        inflates=(),
        notes=readings[0][1].notes if readings else ("no residual network here has these layers in this order",),
    )


def _matconvnet_readings(layers: list[MatLayer]) -> Iterator[tuple[Candidate, Reading]]:
    """Yield the image networks with these layers, and the streams of multiplier networks, each with its reading."""
    first = layers[0].arrays
    # (H, W, I, O), without axes of length one.
    channels = first[0].shape[2] if first[0].ndim == 4 else 1
    stream = "spatial" if channels == 3 else "temporal"
    options: dict[str, Value] = {"stem_bias": len(first) > 1}
    if stream == "temporal":
        options["flow_channels"] = channels
    for depth in (18, 34, 50, 101, 152):
        try:
            image = matconvnet_reading(layers, build(f"resnet{depth}", {}, channels).state_dict())
        except WeightsError:
            continue
        yield Candidate(model=f"resnet{depth}"), image
        model, prefix = f"stmulnet_r{depth}", f"{stream}."
        whole = build(model, options, 3).state_dict()
        own = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
        added = tuple(name for name in own if ".temporal_conv." in name)
        reading = replace(matconvnet_reading(layers, own), absent=added)
        yield Candidate(model=model, options=options, stream=stream), reading


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    fit: WeightsFit
    num_classes: int | None
    taken: frozenset[str]


def _candidates(reading: Reading) -> list[Candidate]:
    """Return the candidates of a reading; if it names none, all models of the architectures that have its names."""
    if reading.candidates or reading.refusal:
        known = list_models()
        return [candidate for candidate in reading.candidates if candidate.model in known]
    found = []
    depth = resnet_depth(reading.state, r"layer{}\.(\d+)\.")
    of_others = any(name.startswith("net.") for name in reading.state)
    for infos in _by_architecture():
        if infos[0].builder.startswith(_OF_OTHER_LIBRARIES) and not of_others:
            continue
        if _first_name(_smallest(infos)) in reading.state:
            found += [info for info in infos if depth in (0, dict(info.fixed).get("depth", depth))]
    return [Candidate(model=info.name) for info in found]


def _of_images(state: State) -> bool:
    kernels = [tensor for tensor in state.values() if tensor.ndim > 3]
    return {tensor.ndim for tensor in kernels} == {4} and all(tensor.is_floating_point() for tensor in kernels)


def _inflated(reading: Reading, fitting: set[str]) -> Iterator[str]:
    """Yield the models that are made from a network of images and have other tensors than that."""
    if not _of_images(reading.state):
        return
    state = {name: tensor.to("meta") for name, tensor in reading.state.items()}
    depth = resnet_depth(state, r"layer{}\.(\d+)\.")
    for infos in _by_architecture():
        if infos[0].builder.startswith(_OF_OTHER_LIBRARIES):
            continue
        if _first_image_name(_smallest(infos)) not in state:
            continue
        for info in infos:
            if info.name not in fitting and dict(info.fixed).get("depth", depth) == depth:
                try:
                    model = build(info.name, {}, 3)
                except ModelError:
                    continue
                if takes_image_weights(model, state):
                    yield info.name


def _smallest(infos: Iterable[ModelInfo]) -> str:
    """Return the model that is made fastest; the networks of one architecture begin alike."""
    return min(infos, key=lambda info: info.parameters or math.inf).name


@cache
def _first_image_name(model: str) -> str | None:
    """Return the image network's name of the first tensor that a model takes from it; None if it has no such network.

    None as well if the model needs a package that is not installed.
    """
    try:
        return next(iter(build(model, {}, 3).image_names().values()), None)
    except ModelError:
        return None


def _by_architecture() -> Iterable[list[ModelInfo]]:
    """Yield groups of models whose tensors have the same names, as far as depths allow."""
    groups: dict[tuple[Value, ...], list[ModelInfo]] = {}
    for name in list_models():
        info = model_info(name)
        fixed = dict(info.fixed)
        groups.setdefault((info.builder, *(fixed.get(kind, "") for kind in _NAMING)), []).append(info)
    return groups.values()


@cache
def _first_name(model: str) -> str | None:
    """Return the name of a model's first tensor, or None if it needs a package that is not installed."""
    try:
        return next(iter(build(model, {}, 3).state_dict()))
    except ModelError:
        return None


def build(name: str, options: Mapping[str, Value], in_channels: int) -> VideoModel:
    """Return a model without weights (on the ``meta`` device), for its names and shapes; raise ModelError."""
    settings = model_settings(name, num_classes=2, in_channels=in_channels, hparams=options)
    with torch.device("meta"):
        return build_model(settings)


def _fit(candidate: Candidate, reading: Reading) -> _Found | None:
    """Return how the file fits a candidate, or None if a tensor is missing or has another shape."""
    info = model_info(candidate.model)
    prefix = f"{candidate.stream}." if candidate.stream else ""
    prefixed = {prefix + name: tensor for name, tensor in reading.state.items()}
    options = {**shown_options(info, prefixed), **candidate.options}
    try:
        model = build(candidate.model, options, 3)
        channels = _channels(model, prefixed, prefix)
        if channels != 3:
            model = build(candidate.model, options, channels)
    except ModelError:
        # The options that the shapes suggest are none that this model accepts.
        return None
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    more = prefixed.keys() - own.keys()
    if not all(name.removeprefix(prefix).startswith(getattr(model, "optional_names", ())) for name in more):
        return None
    heads = [f"{name}." for name in model.classifier_names if name.startswith(prefix)]
    absent = tuple(prefix + name for name in reading.absent)
    if not _same(own, prefixed, tuple(heads), absent):
        return None
    classifier = prefixed.get(f"{heads[0]}weight")
    defaults = info.defaults()
    fit = WeightsFit(
        model=candidate.model,
        options={name: value for name, value in options.items() if defaults[name] != value},
        in_channels=channels,
        stream=candidate.stream,
        input=next((name for name, part in model.input_parts.items() if part == candidate.stream), None),
        reset=tuple(sorted(name for name in own if name.startswith(tuple(heads)) and not name.startswith(absent))),
        new=tuple(sorted(name for name in own if name.startswith(absent))),
    )
    taken = frozenset(name.removeprefix(prefix) for name in prefixed.keys() & own.keys())
    return _Found(fit=fit, num_classes=None if classifier is None else int(classifier.shape[0]), taken=taken)


def _channels(model: VideoModel, state: State, prefix: str) -> int:
    """Return the channels of the file's first convolution, or 3 if it does not have it."""
    first = next((name for name in model.state_dict() if name.startswith(prefix)), "")
    kernel = state.get(first)
    return int(kernel.shape[1]) if kernel is not None and kernel.ndim >= 4 else 3


def _same(own: Mapping[str, Tensor], state: State, heads: tuple[str, ...], absent: tuple[str, ...]) -> bool:
    """Return whether the file has all of the model's tensors in their shapes and kinds; classes may differ.

    It may lack what begins with `absent`.
    """
    for name, tensor in own.items():
        theirs = state.get(name)
        if theirs is None:
            if name.endswith(COMPUTED) or name.startswith(absent):
                continue
            return False
        start = 1 if name.startswith(heads) else 0
        if _plain(theirs.shape[start:]) != _plain(tensor.shape[start:]) or not same_kind(theirs, tensor):
            return False
    return True


def _plain(shape: torch.Size) -> list[int]:
    """Return a shape without axes of length one, which programs write in different ways."""
    return [size for size in shape if size != 1]
