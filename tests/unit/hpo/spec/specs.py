"""A valid spec to vary, and random valid spaces."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

VALID: dict[str, Any] = {
    "name": "slowfast-ucf101",
    "objectives": [{"metric": "val_top1", "direction": "maximize"}],
    "constraints": ["epoch_seconds <= 40"],
    "task": {
        "dataset": {"name": "ucf101", "root": "/data/ucf101", "split": 1, "validation": "groups"},
        "epochs": 40,
        "base": {"batch_size": 32, "clip": {"frames": 32, "stride": 2, "size": 112}},
    },
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 5e-3, "log": True},
        "model": {"type": "categorical", "choices": ["slowfast_r50_4x16", "r2plus1d_18"]},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r50_4x16"]}},
    },
    "early_stopping": {"name": "asha", "min_epochs": 3, "reduction": 3},
    "budget": {"trials": 60, "gpu_hours": 48, "wall_hours": 24, "target": {"val_top1": 0.9}},
    "retry": {"attempts": 3},
}


def with_change(path: str, value: object) -> dict[str, Any]:
    """Return the valid spec with `value` at one path, such as `space/model.alpha/type`."""
    raw: dict[str, Any] = _copy(VALID)
    *parents, last = path.split("/")
    place: Any = raw
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    place[last] = value
    return raw


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _has_room(ends: tuple[float, float]) -> bool:
    """Return whether enough numbers lie between the ends for a sequence of different points."""
    return abs(ends[0] - ends[1]) > 1e-12


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Return a random valid space over settings of the training run, with conditions on `model`."""
    space: dict[str, Any] = {"model": {"type": "categorical", "choices": ["a", "b", "c"]}}
    for key, low, high in (("lr", 1e-5, 1.0), ("weight_decay", 1e-7, 0.1), ("dropout", 0.0, 0.9)):
        if draw(st.booleans()):
            ends = sorted(draw(st.tuples(st.floats(low, high), st.floats(low, high)).filter(_has_room)))
            log = key != "dropout" and draw(st.booleans())
            space[key] = {"type": "float", "low": ends[0], "high": ends[1], "log": log}
    if draw(st.booleans()):
        step = draw(st.integers(1, 3))
        space["clip.stride"] = {"type": "int", "low": 1, "high": 1 + step * draw(st.integers(1, 5)), "step": step}
    if draw(st.booleans()):
        space["batch_size"] = {"type": "int", "low": 1, "high": draw(st.integers(2, 64)), "log": draw(st.booleans())}
    if draw(st.booleans()):
        choices = sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=4)))
        space["model.alpha"] = {"type": "ordinal", "choices": choices, "when": {"model": ["a", "b"]}}
        if draw(st.booleans()):
            flags = {"type": "categorical", "choices": [True, False], "when": {"model.alpha": choices[:1]}}
            space["model.gate"] = flags
    return space
