"""The recommended search space of a model, as a fragment of a study spec, without torch."""

from __future__ import annotations

from .card import SearchParameter, SearchRange
from .catalogue import model_info

# Ranges that cover training from scratch and fine-tuning in the literature, for SGD with batches of 8 to 64.
_TRAINING: tuple[SearchParameter, ...] = (
    SearchRange(name="lr", low=1e-4, high=0.3, log=True),
    SearchRange(name="weight_decay", low=1e-6, high=5e-3, log=True),
    # Above 0.98 a run of few epochs does not converge, and 1.0 diverges.
    SearchRange(name="momentum", low=0.8, high=0.98),
    SearchRange(name="dropout", low=0.2, high=0.9),
    SearchRange(name="label_smoothing", low=0.0, high=0.2),
    SearchRange(name="warmup_fraction", low=0.0, high=0.2),
)


def search_space(name: str) -> dict[str, dict[str, object]]:
    """Return the recommended search parameters of a model, by their flat names in a study spec.

    Those of training come first (``lr``, ``weight_decay``, ...), then the model's (``model.alpha``). A
    card's range replaces the common one of the same name. Values are written as in the ``space`` of a
    spec: ``{"type": "float", "low": ..., "high": ..., "log": True}``, or with ``choices`` or ``when``.

    Raises UnknownModelError.
    """
    chosen = {parameter.name: parameter for parameter in (*_TRAINING, *model_info(name).search)}
    return {name: parameter.as_spec() for name, parameter in chosen.items()}
