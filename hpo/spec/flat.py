"""Settings are written nested or flat, with dots: `clip: {frames: 8}` is `clip.frames`. Inside, they are flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with dotted keys; `model: {name: X, alpha: 8}` becomes `model` and `model.alpha`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            flat[key] = value
            continue
        for inner, inner_value in flatten(value).items():
            flat[key if (key, inner) == ("model", "name") else f"{key}.{inner}"] = inner_value
    return flat
