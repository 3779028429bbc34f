"""Video models in plain PyTorch, created by name.

Names, cards and checks do not need torch; it is imported when :func:`create_model`,
:class:`VideoModel` or :func:`load_weights` is first used.

A new architecture is two files: its cards in ``models/cards/`` and its modules in ``models/architectures/``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .card import (
    Choice,
    Clip,
    Divides,
    HParam,
    Integer,
    ModelInfo,
    ModelSettings,
    Number,
    SearchChoice,
    SearchParameter,
    SearchRange,
    Text,
    Value,
)
from .catalogue import check_clip, list_models, model_info, model_settings, resolve_hparams
from .errors import (
    InvalidClipError,
    InvalidModelError,
    ModelError,
    UnknownModelError,
    WeightsError,
    WeightsUnavailableError,
)
from .search import search_space
from .weights.sources import check_source, find_weights

if TYPE_CHECKING:
    from .factory import create_model
    from .video_model import FullyConvolutionalModel, VideoModel
    from .weights.identity import WeightsFit, WeightsIdentity, identify_weights
    from .weights.inflation import inflate_kernel, load_inflated
    from .weights.load import load_weights
    from .weights_report import WeightsReport

_NEEDS_TORCH = {
    "FullyConvolutionalModel": ".video_model",
    "VideoModel": ".video_model",
    "WeightsFit": ".weights.identity",
    "WeightsIdentity": ".weights.identity",
    "WeightsReport": ".weights_report",
    "create_model": ".factory",
    "identify_weights": ".weights.identity",
    "inflate_kernel": ".weights.inflation",
    "load_inflated": ".weights.inflation",
    "load_weights": ".weights.load",
}

__all__ = [
    "Choice",
    "Clip",
    "Divides",
    "FullyConvolutionalModel",
    "HParam",
    "Integer",
    "InvalidClipError",
    "InvalidModelError",
    "ModelError",
    "ModelInfo",
    "ModelSettings",
    "Number",
    "SearchChoice",
    "SearchParameter",
    "SearchRange",
    "Text",
    "UnknownModelError",
    "Value",
    "VideoModel",
    "WeightsError",
    "WeightsFit",
    "WeightsIdentity",
    "WeightsReport",
    "WeightsUnavailableError",
    "check_clip",
    "check_source",
    "create_model",
    "find_weights",
    "identify_weights",
    "inflate_kernel",
    "list_models",
    "load_inflated",
    "load_weights",
    "model_info",
    "model_settings",
    "resolve_hparams",
    "search_space",
]


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
