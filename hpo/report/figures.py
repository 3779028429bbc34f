"""The figures of a report, as plotly takes them: plain objects with `data` and `layout`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np

from ..answer.estimates import is_share
from ..arrays import Array
from ..optimizer.importance import Importance
from ..optimizer.insight import Contour, CrossValidation, Slice
from ..protocol import Confusion
from ..results.outcome import final_metrics, metric_curve
from ..trial import TrialRecord, TrialState
from .material import Material
from .scales import axis_of, drawn, is_choice, label, ruler

Figure = dict[str, Any]

MOST_CURVES: Final = 60
MOST_LINES: Final = 300
"""Trials that a plot of curves, or of parallel lines, shows: the best half of so many, the others evenly thinned."""
MOST_POINTS: Final = 500
MOST_NAMES: Final = 26
MOST_LETTERS: Final = 20
"""Classes that a confusion matrix names along an axis, and letters of a name there."""

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
"""Colours that people with any colour vision tell apart (Okabe and Ito, 2008)."""
SHADE: Final = "rgba(0, 114, 178, 0.15)"
SCALE: Final = "Viridis"


def importance(metric: str, found: Sequence[Importance]) -> Figure:
    """Return bars of the importances for a metric, the most important at the top."""
    rows = list(reversed(found))
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [100 * row.share for row in rows],
        "y": [row.parameter for row in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * ((row.share if row.high is None else row.high) - row.share) for row in rows],
            "arrayminus": [100 * (row.share - (row.share if row.low is None else row.low)) for row in rows],
            "color": GREY,
        },
        "hovertext": [row.direction(metric) for row in rows],
        "marker": {"color": BLUE},
        "showlegend": False,
    }
    ends = [100 * max(row.share, row.high or 0.0) for row in rows]
    # Behind the ends of the intervals, which would run through what stands at the ends of the bars.
    labels = {
        "type": "scatter",
        "mode": "text",
        "x": ends,
        "y": [row.parameter for row in rows],
        "text": [f" {row.share:.0%}" + (f" ({row.interval})" if row.interval else "") for row in rows],
        "textposition": "middle right",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    top = max(ends, default=1.0)
    x = {"title": {"text": f"share of the variance of {metric} (%)"}, "range": [0, 1.3 * top]}
    return _figure([bars, labels], xaxis=x, yaxis={"automargin": True}, height=120 + 26 * len(rows))


def slice_of(material: Material, metric: str, name: str, found: Slice) -> Figure:
    """Return the predictions along one parameter, with the trials as points."""
    parameter = material.spec.space[name]
    x, means = drawn(parameter, found.values), found.means
    lower, upper = _interval(material, metric, means, found.sds)
    if is_choice(parameter):
        bars = {
            "type": "data",
            "array": (upper - means).tolist(),
            "arrayminus": (means - lower).tolist(),
            "color": BLUE,
        }
        data = [_dots(x, means.tolist(), name="predicted, ± 2 sd", color=BLUE, size=10, error_y=bars)]
    else:
        around, edges = [*x, *reversed(x)], [*upper.tolist(), *reversed(lower.tolist())]
        data = [
            _line(around, edges, name="± 2 sd", width=0.0, fill="toself", fillcolor=SHADE, hoverinfo="skip"),
            _line(x, means.tolist(), name="predicted", color=BLUE),
        ]
    points = [record for record in _thinned(material, material.ended, MOST_POINTS) if name in record.params]
    places = drawn(parameter, [record.params[name] for record in points])
    data.append(_dots(places, _values(points, metric), name="trials", color=GREY, size=6, text=_names(points)))
    y = {"title": {"text": label(material.spec, metric)}}
    return _figure(data, xaxis=axis_of(name, parameter), yaxis=y, height=360)


def _interval(material: Material, metric: str, means: Array, sds: Array) -> tuple[Array, Array]:
    """Return two standard deviations below and above predictions; a share stays between 0 and 1."""
    lower, upper = means - 2 * sds, means + 2 * sds
    if not is_share(material.spec, metric):
        return lower, upper
    return np.minimum(np.maximum(lower, 0.0), means), np.maximum(np.minimum(upper, 1.0), means)


def contour_of(material: Material, metric: str, names: tuple[str, str], found: Contour) -> Figure:
    """Return the predictions over two parameters, with the trials as points."""
    left, right = (material.spec.space[name] for name in names)
    heights = {
        "type": "heatmap" if is_choice(left) or is_choice(right) else "contour",
        "x": drawn(left, found.left),
        "y": drawn(right, found.right),
        "z": found.means.tolist(),
        "colorscale": SCALE,
        "colorbar": {"title": {"text": metric, "side": "right"}, "thickness": 14},
        "name": "predicted",
    }
    points = [r for r in _thinned(material, material.ended, MOST_POINTS) if all(name in r.params for name in names)]
    x, y = (drawn(material.spec.space[name], [record.params[name] for record in points]) for name in names)
    dots = _dots(x, y, name="trials", color="white", size=6, text=_names(points), hoverinfo="text", showlegend=False)
    dots["marker"]["line"] = {"color": "black", "width": 1}
    return _figure([heights, dots], xaxis=axis_of(names[0], left), yaxis=axis_of(names[1], right), height=360)


def cross_validation(material: Material, metric: str, found: CrossValidation) -> Figure:
    """Return what the model predicts of each outcome without it, over the outcome."""
    lower, upper = _interval(material, metric, found.predicted, found.predicted_sds)
    bars = {
        "type": "data",
        "array": (upper - found.predicted).tolist(),
        "arrayminus": (found.predicted - lower).tolist(),
        "color": "rgba(0, 114, 178, 0.35)",
    }
    observed, predicted = found.observed.tolist(), found.predicted.tolist()
    ends = [min(observed + predicted), max(observed + predicted)]
    data = [
        _line(ends, ends, name="perfect prediction", color=GREY, dash="dash"),
        _dots(observed, predicted, name="trials, ± 2 sd", color=BLUE, error_y=bars),
    ]
    x = {"title": {"text": f"{label(material.spec, metric)}, measured"}}
    return _figure(data, xaxis=x, yaxis={"title": {"text": "predicted without it"}}, height=420)


def progress(material: Material) -> Figure:
    """Return the last value of each trial by number, and the best observed one so far."""
    better = max if material.spec.objectives[0].direction == "maximize" else min
    data = []
    for state, color, name in (
        (TrialState.COMPLETED, BLUE, "completed"),
        (TrialState.STOPPED, ORANGE, "stopped early"),
    ):
        points = [record for record in _thinned(material, material.ended, MOST_POINTS) if record.state is state]
        text = [f"{record.generator}, {record.epochs_done} epochs" for record in points]
        numbers = [record.number for record in points]
        data.append(_dots(numbers, _values(points, material.metric), name=name, color=color, text=text))
    best = list(accumulate(_values(material.ended, material.metric), better))
    numbers = [record.number for record in material.ended]
    data.append(_line(numbers, best, name="best observed so far", color=GREEN, shape="hv"))
    y = {"title": {"text": label(material.spec, material.metric)}}
    return _figure(data, xaxis={"title": {"text": "trial"}}, yaxis=y, height=380)


def learning_curves(material: Material) -> Figure:
    """Return the first objective of the trials over the epochs, the best configuration's in colour."""
    with_curve = [r for r in material.records if len(metric_curve(r.curve, material.metric)) > 1]
    leaders = set(material.answer["configurations"][0]["trials"]) if material.answer else set()
    chosen = _thinned(material, with_curve, MOST_CURVES)
    data = []
    for record in sorted(chosen, key=lambda record: record.number in leaders):
        steps, values = zip(*sorted(metric_curve(record.curve, material.metric).items()), strict=True)
        is_best = record.number in leaders
        look = {"color": GREEN, "width": 3.0} if is_best else {"color": "rgba(100, 100, 100, 0.35)", "width": 1.2}
        name = f"trial {record.number} ({record.state})"
        data.append(_line(list(steps), list(values), name=name, showlegend=is_best, **look))
    y = {"title": {"text": label(material.spec, material.metric)}}
    return _figure(data, xaxis={"title": {"text": "epochs"}}, yaxis=y, height=380)


def trade_off(material: Material) -> Figure:
    """Return the first objective over the second, with the front."""
    first, second = material.objectives[:2]
    front = set(material.answer["front"]) if material.answer else set()
    data = []
    for is_front, color, name in ((False, GREY, "other trials"), (True, GREEN, "front")):
        points = [record for record in material.ended if (record.number in front) == is_front]
        x, y = _values(points, second), _values(points, first)
        data.append(_dots(x, y, name=name, color=color, size=11 if is_front else 7, text=_names(points)))
    axes = [{"title": {"text": label(material.spec, name)}} for name in (second, first)]
    return _figure(data, xaxis=axes[0], yaxis=axes[1], height=400)


def parallel(material: Material) -> Figure:
    """Return a line per trial through the values of its parameters, coloured by the first objective."""
    records = _thinned(material, material.ended, MOST_LINES)
    outcomes = [final_metrics(record)[material.metric] for record in records]
    dimensions = []
    for name, parameter in material.spec.space.items():
        found = ruler(parameter, [record.params.get(name) for record in records])
        dimensions.append(
            {
                "label": name,
                "values": found.values,
                "range": [found.low, found.high],
                "tickvals": found.ticks,
                "ticktext": found.texts,
            }
        )
    dimensions.append({"label": material.metric, "values": outcomes})
    is_less_better = material.spec.objectives[0].direction == "minimize"
    line = {
        "color": outcomes,
        "colorscale": SCALE,
        "reversescale": is_less_better,
        "showscale": True,
        "colorbar": {"thickness": 14},
    }
    figure = _figure([{"type": "parcoords", "line": line, "dimensions": dimensions}], height=440)
    figure["layout"]["margin"] = {"l": 90, "r": 30, "t": 60, "b": 30}
    return figure


def confusion(found: Confusion) -> Figure:
    """Return the shares of the videos of each class that were taken for each class."""
    size = len(found.class_names)
    shares = np.zeros((size, size))
    for true, said, count in found.cells:
        shares[true, said] = count / max(found.videos[true], 1)
    names = [f"{name[:MOST_LETTERS]}" for name in found.class_names]
    heights = {
        "type": "heatmap",
        "z": shares.round(4).tolist(),
        "x": list(range(size)),
        "y": list(range(size)),
        "zmin": 0.0,
        "zmax": 1.0,
        "colorscale": "Blues",
        "reversescale": True,
        "colorbar": {"title": {"text": "share of the class", "side": "right"}, "thickness": 14},
        "hovertemplate": "%{z:.1%}<extra></extra>",
    }
    # With more classes than there is room for names, some of them stand for all.
    every = max(1, math.ceil(size / MOST_NAMES))
    ticks = {"tickvals": list(range(0, size, every)), "ticktext": names[::every], "showgrid": False}
    x = {"title": {"text": "taken for"}, "tickangle": -60, **ticks}
    y = {"title": {"text": "class"}, "autorange": "reversed", **ticks}
    return _figure([heights], xaxis=x, yaxis=y, height=min(900, 260 + 24 * min(size, MOST_NAMES)))


def _thinned(material: Material, records: Sequence[TrialRecord], most: int) -> list[TrialRecord]:
    """Return at most so many trials: those of the best configurations, and of the others an even selection."""
    if len(records) <= most:
        return list(records)
    ranked = [
        number for one in (material.answer or {"configurations": []})["configurations"] for number in one["trials"]
    ]
    best = set(ranked[: most // 2])
    others = [record for record in records if record.number not in best]
    every = math.ceil(len(others) / (most - most // 2))
    kept = best | {record.number for record in others[::every]}
    return [record for record in records if record.number in kept]


def _values(records: Sequence[TrialRecord], metric: str) -> list[float]:
    return [final_metrics(record)[metric] for record in records]


def _names(records: Sequence[TrialRecord]) -> list[str]:
    return [f"trial {record.number}" for record in records]


def _dots(x: Sequence[Any], y: Sequence[Any], *, name: str, color: str, size: int = 7, **more: Any) -> Figure:
    look = {"color": color, "size": size}
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": name, "marker": look, **more}


def _line(x: Sequence[Any], y: Sequence[Any], *, name: str, **more: Any) -> Figure:
    look = {key: more.pop(key) for key in ("color", "width", "dash", "shape") if key in more}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": look, **more}


def _figure(data: Sequence[Figure], *, height: int, **axes: Any) -> Figure:
    layout = {
        "template": "none",
        "height": height,
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 70, "r": 20, "t": 60, "b": 55},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    grid = {"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True}
    return {"data": list(data), "layout": layout | {name: {**grid, **axis} for name, axis in axes.items()}}
