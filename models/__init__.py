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
    Value,
)
from .catalogue import check_clip, list_models, model_info, model_settings, resolve_hparams
from .errors import (
    InvalidClipError,
    InvalidModelError,
    ModelError,
    UnknownModelError,
    WeightsError,
)
from .search import search_space

if TYPE_CHECKING:
    from .factory import create_model
    from .video_model import VideoModel
    from .weights.inflation import inflate_kernel, load_inflated
    from .weights.load import load_weights
    from .weights.report import WeightsReport

_NEEDS_TORCH = {
    "VideoModel": ".video_model",
    "WeightsReport": ".weights.report",
    "create_model": ".factory",
    "inflate_kernel": ".weights.inflation",
    "load_inflated": ".weights.inflation",
    "load_weights": ".weights.load",
}

__all__ = [
    "Choice",
    "Clip",
    "Divides",
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
    "UnknownModelError",
    "Value",
    "VideoModel",
    "WeightsError",
    "WeightsReport",
    "check_clip",
    "create_model",
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
