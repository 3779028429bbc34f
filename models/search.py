"""What is worth searching in a model, as a fragment of a study's search space; no torch is needed."""

from __future__ import annotations

from .card import SearchParameter, SearchRange
from .catalogue import model_info

# From scratch and fine-tuned runs of the literature, for batches of 8 to 64 and SGD.
_TRAINING: tuple[SearchParameter, ...] = (
    SearchRange(name="lr", low=1e-4, high=0.3, log=True),
    SearchRange(name="weight_decay", low=1e-6, high=5e-3, log=True),
    # Above .98 a run of few epochs does not settle; 1.0 diverges.
    SearchRange(name="momentum", low=0.8, high=0.98),
    SearchRange(name="dropout", low=0.2, high=0.9),
    SearchRange(name="label_smoothing", low=0.0, high=0.2),
    SearchRange(name="warmup_fraction", low=0.0, high=0.2),
)


def search_space(name: str) -> dict[str, dict[str, object]]:
    """Return the parameters worth searching with a model, by their flat names in a study spec.

    Training's own come first (``lr``, ``weight_decay``, ...), then the model's (``model.alpha``); a
    card's range replaces the common one of the same name. Values are those that a spec's ``space``
    takes: ``{"type": "float", "low": ..., "high": ..., "log": True}``, or ``choices``, or ``when``.

    Raises UnknownModelError.
    """
    chosen = {parameter.name: parameter for parameter in (*_TRAINING, *model_info(name).search)}
    return {name: parameter.as_spec() for name, parameter in chosen.items()}
