"""Writing the table of figures and the plots from the rows on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .bootstrap import Estimate, interval, weights
from .figures import Figure, all_figures
from .methods import METHODS
from .problems import DEMOS, LCBENCH, SINGLE, TRAINED
from .rows import Rows, newest
from .service_figures import exported_table, service_figures
from .traces import Results, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN_AT: Final = (25, 50, 100)
_COLOURS: Final = {"random": "0.6", "tpe": "tab:orange", "gp": "tab:green", "ax": "tab:purple", "ours": "tab:blue"}
_STYLES: Final = {"asha": "--", "hyperband": ":", "median": "-.", "curves": (0, (5, 1)), "curves+pause": (0, (1, 1))}


def write_report(rows: Rows, folder: Path, *, scramble: int | None = None, score: Score = "tried") -> str:
    """Return the report, after writing it as `report.md` into `folder` together with the plots."""
    kept = {run: row for run, row in newest(rows.read()).items() if run.scramble == scramble}
    results = Results(rows=kept, scramble=scramble, score=score)
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        [
            "# Our optimizer against its peers",
            "",
            _versions(results),
            "",
            figure_table(all_figures(results)),
            "",
            "Mean regret (0 = optimum, 1 = median random configuration) after 25 / 50 / 100 trials in sequence:",
            "",
            regret_table(results),
            "",
            "## The simulated service",
            "",
            figure_table(service_figures(results)),
            "",
            "Mean regret of the exported configuration after 12/20/40 trainings' worth of epochs (seeds):",
            "",
            exported_table(results, (*TRAINED, *DEMOS)),
            "",
        ]
    )
    (folder / "report.md").write_text(text)
    plot_trials(results, folder / "trials.png")
    plot_epochs(results, folder / "epochs.png")
    return text


def figure_table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table, with their bars and verdicts."""
    lines = [
        "| figure | bar | measured | 95 % over seeds | 95 % over problems too | problems | seeds | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for figure in figures:
        found = figure.estimate
        name = figure.name + (f" ({figure.note})" if figure.note else "")
        cells = [name, _bar(figure)]
        if found is None:
            cells += ["not measured", "", "", "", ""]
        else:
            cells += [_number(found.value), _ends(found.low, found.high), _ends(found.wide_low, found.wide_high)]
            cells += [str(figure.problems), figure.seeds]
        verdict = _verdict(figure) + (", on part of the rows" if figure.partial and found is not None else "")
        lines.append("| " + " | ".join([*cells, verdict]) + " |")
    return "\n".join(lines)


def regret_table(results: Results) -> str:
    """Return the mean regret of every method on every problem, as a Markdown table."""
    methods = [name for name in METHODS if any(results.seeds("sequential", problem, name) for problem in SINGLE)]
    lines = ["| problem | " + " | ".join(methods) + " |", "| --- |" + " --- |" * len(methods)]
    for problem in SINGLE:
        cells = [_regrets(results, problem, name) for name in methods]
        if any(cells):
            lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot_trials(results: Results, path: Path) -> None:
    """Draw the regret over trials of every problem, one panel each."""
    figure, axes = _panels(SINGLE)
    for problem, axis in zip(SINGLE, axes, strict=True):
        for method in METHODS:
            seeds = results.seeds("sequential", problem, method)
            if seeds:
                _draw(axis, results.traces("sequential", problem, method, seeds), method, len(seeds))
        _finish(axis, problem, "trials")
    _save(figure, path)


def plot_epochs(results: Results, path: Path) -> None:
    """Draw the regret over epochs of every task with learning curves."""
    figure, axes = _panels(LCBENCH)
    for problem, axis in zip(LCBENCH, axes, strict=True):
        for method in METHODS:
            seeds = results.seeds("fidelity", problem, method)
            if seeds:
                traces = np.where(np.isinf(traces := results.epoch_traces(problem, method, seeds)), np.nan, traces)
                _draw(axis, traces, method, len(seeds))
        _finish(axis, problem, "epochs")
    _save(figure, path)


def _panels(problems: Sequence[str]) -> tuple[Any, list[Axes]]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(problems))
    lines = math.ceil(len(problems) / columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(4.2 * columns, 3 * lines), squeeze=False)
    for axis in axes.flat[len(problems) :]:
        axis.remove()
    return figure, list(axes.flat[: len(problems)])


def _draw(axis: Axes, traces: np.ndarray[Any, np.dtype[np.float64]], method: str, seeds: int) -> None:
    base, _, rule = method.partition("+")
    steps = np.arange(1, traces.shape[1] + 1)
    # A seed has no regret before its first completed trial: the mean begins when all seeds have one.
    mean = traces.mean(axis=0)
    drawn = np.array([interval(column[1:]) for column in (weights(len(traces), draws=200) @ traces).T])
    style, colour = _STYLES.get(rule, "-"), _COLOURS.get(base, "tab:red")
    axis.plot(steps, mean, linestyle=style, color=colour, label=f"{method} ({seeds})", linewidth=1.2)
    axis.fill_between(steps, drawn[:, 0], drawn[:, 1], color=colour, alpha=0.15, linewidth=0)


def _finish(axis: Axes, problem: str, unit: str) -> None:
    axis.set_title(problem, fontsize=9)
    axis.set_yscale("log")
    axis.set_xlabel(unit, fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6, frameon=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _versions(results: Results) -> str:
    found = ", ".join(f"{method}: {version}" for method, version in sorted(results.versions().items()))
    scramble = (
        "" if results.scramble is None else f" Choices relabelled and dimensions reflected by {results.scramble}."
    )
    return f"Versions: {found or 'no rows yet'}.{scramble} Regret is of the {_scored(results.score)}."


def _scored(score: Score) -> str:
    return "best mean tried so far" if score == "tried" else "configuration with the best observed value"


def _regrets(results: Results, problem: str, method: str) -> str:
    seeds = results.seeds("sequential", problem, method)
    if not seeds:
        return ""
    means = results.traces("sequential", problem, method, seeds).mean(axis=0)
    return "/".join(f"{means[at - 1]:.3f}"[1:] if at <= len(means) else "-" for at in _SHOWN_AT) + f" ({len(seeds)})"


def _verdict(figure: Figure) -> str:
    if figure.passes is None or figure.estimate is None:
        return "not measured"
    if figure.passes:
        return "pass"
    value = figure.estimate.value
    if figure.upper is not None:
        return "miss (the bounds; the value clears them)" if figure.bar <= value <= figure.upper else "miss"
    near = value <= figure.bar if figure.better == "less" else value >= figure.bar
    return "miss (the bound; the value clears it)" if near else f"miss {_distance(figure, figure.estimate)}"


def _distance(figure: Figure, found: Estimate) -> str:
    if found.value * figure.bar <= 0:
        return f"(by {_number(abs(found.value - figure.bar))})"
    factor = found.value / figure.bar
    return f"({_number(factor if factor >= 1 else 1 / factor)} x the bar)"


def _bar(figure: Figure) -> str:
    if figure.upper is not None:
        return _ends(figure.bar, figure.upper)
    return f"{'≤' if figure.better == 'less' else '≥'} {_number(figure.bar)}"


def _ends(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:.3g}"
