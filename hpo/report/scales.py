"""Axes: where a value of a parameter is drawn, and what is written there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..spec import AnyParameter, CategoricalParameter, OrdinalParameter, StudySpec
from ..trial import CUSTOM, ParamValue

UNITS = {
    "epoch_seconds": "s per epoch",
    "validation_seconds": "s per validation",
    "val_loss": "nats",
    "train_loss": "nats",
    "clips_per_second": "clips/s",
    "peak_memory_gib": "GiB",
    "parameters_millions": "millions",
    "latency_ms": "ms",
    "latency_p95_ms": "ms",
    "batch_latency_ms": "ms",
    "batch_latency_p95_ms": "ms",
    "onnx_latency_ms": "ms",
    "onnx_latency_p95_ms": "ms",
    "onnx_batch_latency_ms": "ms",
    "onnx_batch_latency_p95_ms": "ms",
}
"""Units of the metrics that are not shares."""
_LONGEST_MEANING = 40
"""In characters, beside the name of a metric on an axis."""


def label(spec: StudySpec, metric: str) -> str:
    """Return the name of a metric with its unit."""
    unit = _unit(spec, metric)
    return metric if unit is None else f"{metric} ({unit})"


def _unit(spec: StudySpec, metric: str) -> str | None:
    known = spec.task.reported_metrics.get(metric)
    if spec.task.kind == CUSTOM:  # whose metrics may have the names of ours, and mean something else
        if known is not None and 0 < len(known.meaning) <= _LONGEST_MEANING:
            return known.meaning
        return "share" if known is not None and known.is_share else None
    return f"share of {spec.task.validated_on}" if known is not None and known.is_share else UNITS.get(metric)


def shown(value: object) -> str:
    """Return a value of a parameter in at most three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def is_choice(parameter: AnyParameter) -> bool:
    """Return whether the values are choices, which are drawn at equal distances."""
    return isinstance(parameter, CategoricalParameter | OrdinalParameter)


def is_log(parameter: AnyParameter) -> bool:
    """Return whether the axis of the parameter is logarithmic."""
    return not isinstance(parameter, CategoricalParameter | OrdinalParameter) and parameter.log


def drawn(parameter: AnyParameter, values: Sequence[ParamValue]) -> list[Any]:
    """Return where values are drawn on the axis of `axis_of`."""
    return [str(value) for value in values] if is_choice(parameter) else list(values)


def axis_of(name: str, parameter: AnyParameter) -> dict[str, Any]:
    """Return the axis of a parameter, as plotly takes it."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        order = [str(choice) for choice in parameter.choices]
        return {"title": {"text": name}, "type": "category", "categoryorder": "array", "categoryarray": order}
    if not parameter.log:
        return {"title": {"text": name}, "type": "linear"}
    return {
        "title": {"text": f"{name} (logarithmic)"},
        "type": "log",
        "exponentformat": "power",
        "dtick": "D2" if parameter.high / parameter.low < 50 else 1,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruler:
    """The axis of a parameter in a plot of parallel coordinates, where all axes are linear."""

    values: list[float]
    low: float
    high: float
    ticks: list[float]
    texts: list[str]


def ruler(parameter: AnyParameter, values: Sequence[ParamValue | None]) -> Ruler:
    """Return where values are drawn; None, an inactive parameter, is drawn below the others and says so."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        places = {choice: float(place) for place, choice in enumerate(parameter.choices)}
        low, high = 0.0, float(len(parameter.choices) - 1)
        ticks, texts = list(places.values()), [str(choice) for choice in parameter.choices]
        drawn_at = [None if value is None else places[value] for value in values]
    else:
        low, high = _place(parameter.low, log=parameter.log), _place(parameter.high, log=parameter.log)
        ticks = _decades(low, high) if parameter.log else [low + (high - low) * part / 4 for part in range(5)]
        texts = [f"{10**tick if parameter.log else tick:.3g}" for tick in ticks]
        drawn_at = [None if value is None else _place(float(value), log=parameter.log) for value in values]
    if None in drawn_at:
        inactive = low - max(high - low, 1.0 if is_choice(parameter) else 0.0) / 5
        low, ticks, texts = inactive, [inactive, *ticks], ["(inactive)", *texts]
    return Ruler(
        values=[low if place is None else place for place in drawn_at], low=low, high=high, ticks=ticks, texts=texts
    )


def _place(value: float, *, log: bool) -> float:
    return math.log10(value) if log else value


def _decades(low: float, high: float) -> list[float]:
    """Return whole powers of ten between the ends, with the ends."""
    inside = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    apart = (high - low) / 10
    return [low, *(power for power in inside if low + apart < power < high - apart), high]
