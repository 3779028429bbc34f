"""The catalogue of models by name, and checks of configurations, without importing torch."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from numbers import Integral, Real
from types import MappingProxyType

from . import cards
from .card import ModelInfo, ModelSettings, Value
from .errors import InvalidClipError, InvalidModelError, UnknownModelError, suggest

ENTRY_POINTS = "video_hpo.models"
"""The group of entry points by which an installed package adds its own models."""


def list_models() -> list[str]:
    """Return the names of all models, sorted."""
    return sorted(_catalogue())


def model_info(name: str) -> ModelInfo:
    """Return the card of a model; raise UnknownModelError, which suggests similar names, if there is none."""
    try:
        return _catalogue()[name]
    except KeyError:
        hint = suggest(name, _catalogue()) or "; models.list_models() names all"
        raise UnknownModelError(f"there is no model {name!r}{hint}") from None


def model_settings(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    dropout: float | None = None,
    hparams: Mapping[str, object] | None = None,
) -> ModelSettings:
    """Return a checked configuration with all defaults filled in.

    Raises UnknownModelError or InvalidModelError. Creating a model checks nothing more, so a configuration that
    passes here can be built.
    """
    info = model_info(name)
    return ModelSettings(
        info=info,
        num_classes=_count("num_classes", num_classes),
        in_channels=_count("in_channels", in_channels),
        dropout=_probability(info.dropout if dropout is None else dropout),
        hparams=resolve_hparams(info, hparams or {}),
    )


def resolve_hparams(info: ModelInfo, given: Mapping[str, object]) -> dict[str, Value]:
    """Return all hyperparameters of a model: the `given` ones and defaults; raise InvalidModelError for wrong ones."""
    known = {hparam.name: hparam for hparam in info.hparams}
    values = info.defaults()
    for name, value in given.items():
        if name not in known:
            hint = suggest(name, known) or f"; it has {', '.join(known) or 'none'}"
            raise InvalidModelError(f"{info.name} has no hyperparameter {name!r}{hint}")
        accepted = known[name].accepts.normalize(value)
        if accepted is None:
            raise InvalidModelError(f"{info.name}: {name} must be {known[name].accepts}, not {value!r}")
        values[name] = accepted
    for rule in info.rules:
        problem = rule.broken_by(values)
        if problem:
            raise InvalidModelError(f"{info.name}: {problem}")
    return values


def check_clip(name: str, *, frames: int, size: int, hparams: Mapping[str, object] | None = None) -> None:
    """Raise InvalidClipError if the model, built with `hparams`, cannot take such a clip.

    `frames` is the number of frames in the clip, `size` its shorter side in pixels.
    """
    info = model_info(name)
    check_clip_of(info, resolve_hparams(info, hparams or {}), frames=frames, size=size)


def check_clip_of(info: ModelInfo, hparams: Mapping[str, Value], *, frames: int, size: int) -> None:
    """Check a clip as :func:`check_clip` does, for a card and hyperparameters that are already resolved."""
    if frames < info.min_frames:
        raise InvalidClipError(f"{info.name} needs at least {info.min_frames} frames, the clip has {frames}")
    if size < info.min_size:
        raise InvalidClipError(f"{info.name} needs at least {info.min_size} pixels a side, the clip has {size}")
    for option, given, unit in (("frames", frames, "frames"), ("size", size, "pixels a side")):
        if option in info.clip_options and hparams[option] != given:
            raise InvalidClipError(
                f"{info.name} takes clips of {hparams[option]} {unit} with these options, the clip has {given}: "
                f"set model.{option} to clip.{option}"
            )
    for rule in info.rules:
        problem = rule.broken_by({**hparams, "frames": frames})
        if problem:
            raise InvalidClipError(f"{info.name}: {problem}")


def _count(label: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InvalidModelError(f"{label} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _probability(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise InvalidModelError(f"dropout must be a number from 0 to below 1, not {value!r}")
    return float(value)


@cache
def _catalogue() -> Mapping[str, ModelInfo]:
    found: dict[str, ModelInfo] = {}
    for module in pkgutil.iter_modules(cards.__path__):
        for card in importlib.import_module(f"{cards.__name__}.{module.name}").CARDS:
            if card.name in found:
                raise RuntimeError(f"two cards are called {card.name!r}")
            found[card.name] = card
    for card, origin in _installed_cards():
        if card.name in found:
            raise InvalidModelError(f"{origin} adds a model called {card.name!r}, which exists already: rename it")
        found[card.name] = card
    return MappingProxyType(found)


def _installed_cards() -> Iterator[tuple[ModelInfo, str]]:
    """Yield the cards of installed packages, each with a text that names its origin.

    An entry point of the group ``video_hpo.models`` names a card or a tuple of cards.
    """
    for point in metadata.entry_points(group=ENTRY_POINTS):
        package = f" of the package {point.dist.name}" if point.dist else ""
        origin = f"the entry point {point.name} = {point.value}{package}"
        try:
            value = point.load()
        except Exception as error:
            # A foreign module may raise anything when imported; the message must name the package.
            raise InvalidModelError(f"{origin} cannot be imported ({type(error).__name__}: {error})") from error
        for card in value if isinstance(value, tuple | list) else (value,):
            if not isinstance(card, ModelInfo):
                raise InvalidModelError(f"{origin} is not a models.ModelInfo: it must be one, or a tuple of them")
            yield card, origin
