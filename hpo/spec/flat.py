"""Settings are written nested or flat, with dots: `clip: {frames: 8}` is `clip.frames`. Inside, they are flat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with dotted keys; `model: {name: X, alpha: 8}` becomes `model` and `model.alpha`.

    Raises ValueError, with a sentence, for what would not be in the result: an empty mapping, and a setting that is
    written twice, nested and flat.
    """
    flat: dict[str, Any] = {}
    for name, leaf in _leaves(tree):
        if name in flat:
            raise ValueError(f"{name} is set twice, once nested and once with a dot: write it once")
        flat[name] = leaf
    return flat


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else key
        if not isinstance(value, Mapping):
            yield (above if name == "model.name" and above else name), value
        elif value:
            yield from _leaves(value, name)
        else:
            raise ValueError(f"`{name}: {{}}` holds no settings: write some into it, or leave it out")
