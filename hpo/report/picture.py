"""A report as one picture: its figures, drawn by matplotlib, under the answer in words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

import numpy as np

from ..errors import SetupError
from . import figures, words
from .figures import Figure
from .findings import Findings
from .material import Material

MOST_PANELS: Final = 8
_COLUMNS: Final = 2
_WIDTH: Final = 12.0
"""Inches, as the heights below."""
_PANEL_HEIGHT: Final = 3.6
_HEAD_HEIGHT: Final = 1.6
_DPI: Final = 150
_LINE_CHARACTERS: Final = 130
_RGBA: Final = re.compile(r"rgba\((\d+), (\d+), (\d+), ([\d.]+)\)")
_DASHES: Final = {"dash": "--", "dot": ":", "dashdot": "-."}
_SCALES: Final = {"Viridis": "viridis", "Blues": "Blues"}


def draw(material: Material, findings: Findings) -> bytes:
    """Return a PNG with the answer and the most important figures of a report.

    Raises:
        SetupError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise SetupError("a picture needs matplotlib: install it with `pip install 'video-hpo[png]'`") from error
    chosen = list(panels(material, findings))[:MOST_PANELS]
    rows = max(1, -(-len(chosen) // _COLUMNS))
    height = _HEAD_HEIGHT + rows * _PANEL_HEIGHT
    canvas = Canvas(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.set_facecolor("white")
    parts: Any = canvas.subfigures(2, 1, height_ratios=[_HEAD_HEIGHT, rows * _PANEL_HEIGHT])
    head, body = parts
    _write_head(head, material)
    for place, (title, drawing) in enumerate(chosen):
        axes = body.add_subplot(rows, _COLUMNS, place + 1)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        draw_figure(axes, drawing)
    file = BytesIO()
    # Without the version of the program and the time, the same study is the same file.
    canvas.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def panels(material: Material, findings: Findings) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of a picture with their titles, the most important first."""
    if material.ended:
        yield "Trials in their order", figures.progress(material)
    curves = figures.learning_curves(material)
    if curves["data"]:
        yield "Learning curves; the best configuration is green", curves
    if len(material.objectives) > 1 and material.ended:
        yield "Objectives against each other", figures.trade_off(material)
    metric = material.metric
    effects = findings.effects.get(metric)
    if effects is not None and effects.explained is not None:
        yield f"What matters for {metric}", figures.importance(metric, effects.importances)
        for name, found in list(effects.slices.items())[:2]:
            yield f"{metric} over {name}, all else as in the best", figures.slice_of(material, metric, name, found)
        if effects.contour is not None:
            names, surface = effects.contour
            yield f"{metric} over {names[0]} and {names[1]}", figures.contour_of(material, metric, names, surface)
    if material.confusion is not None:
        yield "Confusion of the best trial", figures.confusion(material.confusion)
    if metric in findings.validations:
        yield "Predictions of unseen outcomes", figures.cross_validation(material, metric, findings.validations[metric])


def _write_head(head: Any, material: Material) -> None:
    evidence = material.evidence
    answer = "No trial has a result that keeps the constraints yet." if evidence is None else evidence.lines()[0]
    head.text(0.01, 0.92, f"Study {material.name}", fontsize=17, fontweight="bold", va="top", parse_math=False)
    head.text(0.01, 0.62, _wrapped(answer), fontsize=11, fontweight="bold", va="top", parse_math=False)
    head.text(0.01, 0.36, _wrapped(words.study(material)), fontsize=9, color="#444444", va="top", parse_math=False)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _LINE_CHARACTERS))


def draw_figure(axes: Any, drawing: Figure) -> None:
    """Draw a figure of a report, which plotly would take, on axes of matplotlib."""
    layout = drawing["layout"]
    for name in ("x", "y"):
        order = layout.get(f"{name}axis", {}).get("categoryarray")
        if order:
            getattr(axes, f"{name}axis").update_units(order)
    for trace in drawing["data"]:
        match trace["type"]:
            case "bar":
                _bars(axes, trace)
            case "heatmap" | "contour":
                _surface(axes, trace)
            case _:
                _scatter(axes, trace)
    for name in ("x", "y"):
        _axis(axes, name, layout.get(f"{name}axis", {}))
    shown = [trace for trace in drawing["data"] if trace.get("showlegend", True) and trace["type"] == "scatter"]
    if len(shown) > 1:
        axes.legend(fontsize=7, frameon=False, loc="best")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if not any(trace["type"] in ("heatmap", "contour") for trace in drawing["data"]):
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)


def _axis(axes: Any, name: str, axis: Figure) -> None:
    own = getattr(axes, f"{name}axis")
    own.set_label_text(_plain(axis.get("title", {}).get("text", "")), fontsize=8)
    if axis.get("type") == "log":
        getattr(axes, f"set_{name}scale")("log")
    if "tickvals" in axis:
        places: list[Any] = axis["tickvals"]
        texts = [_plain(text) for text in axis.get("ticktext") or places]
        getattr(axes, f"set_{name}ticks")(places, texts)
        if len(axis["tickvals"]) > 8:
            axes.tick_params(axis=name, labelsize=6, labelrotation=90 if name == "x" else 0)
    if axis.get("autorange") == "reversed":
        own.set_inverted(True)
    elif "range" in axis and axis.get("type") != "log":
        getattr(axes, f"set_{name}lim")(*axis["range"])


def _bars(axes: Any, trace: Figure) -> None:
    places = list(range(len(trace["y"])))
    error = trace["error_x"]
    reach = [error["arrayminus"], error["array"]]
    axes.barh(places, trace["x"], color=_colour(trace["marker"]["color"]), height=0.65)
    axes.errorbar(
        trace["x"], places, xerr=np.maximum(reach, 0.0), fmt="none", ecolor="#777777", elinewidth=1, capsize=2
    )
    axes.set_yticks(places, [_plain(name) for name in trace["y"]])


def _surface(axes: Any, trace: Figure) -> None:
    heights = np.array(trace["z"], dtype=float)
    colours = _SCALES.get(str(trace["colorscale"]), "viridis")
    if trace["type"] == "contour":
        drawn = axes.contourf(trace["x"], trace["y"], heights, levels=14, cmap=colours)
    else:
        ends = {"vmin": trace.get("zmin"), "vmax": trace.get("zmax")}
        drawn = axes.pcolormesh(trace["x"], trace["y"], heights, cmap=colours, shading="nearest", **ends)
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(_plain(trace["colorbar"]["title"]["text"]), fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _scatter(axes: Any, trace: Figure) -> None:
    x, y, label = trace["x"], trace["y"], trace.get("name")
    if not x:
        return  # nothing to name in the legend
    if trace["mode"] == "text":
        for place, (right, words) in enumerate(zip(x, trace["text"], strict=True)):
            axes.text(right, place, words, fontsize=7, va="center", parse_math=False)
        return
    if trace.get("fill") == "toself":
        axes.fill(x, y, color=_colour(trace["fillcolor"]), linewidth=0, label=label)
        return
    label = label if trace.get("showlegend", True) else None
    if trace["mode"] == "markers":
        look = trace["marker"]
        edge = {"edgecolors": "black", "linewidths": 0.5} if "line" in look else {"linewidths": 0}
        axes.scatter(x, y, s=(look["size"] * 0.75) ** 2, color=_colour(look["color"]), label=label, zorder=3, **edge)
    else:
        look = trace["line"]
        style = {"linewidth": look.get("width", 2.0) * 0.75, "linestyle": _DASHES.get(look.get("dash", ""), "-")}
        steps = {"drawstyle": "steps-post"} if look.get("shape") == "hv" else {}
        axes.plot(x, y, color=_colour(look.get("color", figures.BLUE)), label=label, **style, **steps)
    if "error_y" in trace:
        bars = trace["error_y"]
        reach = np.maximum([bars["arrayminus"], bars["array"]], 0.0)
        axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=_colour(bars.get("color", figures.GREY)), elinewidth=1)


def _colour(colour: str) -> Any:
    """Return a colour as matplotlib takes it."""
    found = _RGBA.fullmatch(colour)
    if found is None:
        return colour
    return int(found[1]) / 255, int(found[2]) / 255, int(found[3]) / 255, float(found[4])


def _plain(text: Any) -> str:
    """Return text that is not read as a formula."""
    return str(text).replace("$", r"\$")
