"""The figures of the simulated service: what is proposed, what is exported, and what is believed.

Truths are the mean outcomes of configurations, which no method sees. Predictions and beliefs are compared with the mean
of the last value that trainings of the configuration report: on the trained tables the truth was measured on other
clips, of other people, and nothing that a method is shown could tell it of the difference. `N` is the budget in
trainings' worth of epochs; proposals are those among the first N trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .bootstrap import of_means, over_problems, weights
from .figures import MIN_SEEDS, SEEDS_FOR_VERDICT, Figure
from .methods import BRIDGED, OURS, SIMPLE_RULES
from .problems import DEMOS, FAILING, TRAINED
from .protocols import TRAININGS
from .reference import reference_of
from .traces import MIN_REGRET, Results

RULES: Final = ("", *(f"+{rule}" for rule in SIMPLE_RULES))
PEERS: Final = tuple(f"{base}{rule}" for base in ("sobol", "random", "tpe", "gp") for rule in RULES)
"""The peers of which the best counts."""
OUR_RULES: Final = tuple(f"{OURS}{rule}" for rule in (*RULES, "+curves"))
PROPOSAL_BARS: Final = {12: 0.5, 20: 0.8, 40: 1.0}
EXPORT_BARS: Final = {12: 0.7, 20: 0.5, 40: 0.5}
GROUPS: Final = {"trained tables": TRAINED, "demo": DEMOS}
PREDICTED: Final = slice(3, 20)
"""The places of the trials 4 to 20."""
COVERAGE: Final = {1.0: (0.6, 0.78), 1.96: (0.9, 0.99)}
"""Half the width of an interval in sd, and the shares of truths that it should cover."""
FAILING_AFTER: Final = 10
"""Failures are counted from this place on; trials are numbered from 0."""


def service_figures(results: Results) -> list[Figure]:
    """Return all figures of the simulated service, for the trained tables and for the demo apart."""
    found: list[Figure] = []
    for group, problems in GROUPS.items():
        for count in TRAININGS:
            found.append(proposals_above_sobol(results, group, problems, count))
        for count in TRAININGS:
            found.append(exported_against_best(results, group, problems, count))
            found.append(exported_against_best(results, group, problems, count, by_value=True))
        for peer in BRIDGED:
            found += [exported_against(results, group, problems, count, peer) for count in TRAININGS]
        found.append(beyond_two_sd(results, group, problems))
        found += beliefs(results, group, problems)
    found.append(failures_late(results))
    return [figure for figure in found if figure.estimate is not None or not figure.name.startswith("demo")]


def proposals_above_sobol(results: Results, group: str, problems: Sequence[str], count: int) -> Figure:
    """Return the mean truth of the model's proposals among `count` trials minus Sobol's, in sd of Sobol's truths."""
    method, sobol = f"{OURS}+asha", "sobol+asha"
    tables, seen = [], []
    for problem in problems:
        seeds = results.seeds(f"service{count}", problem, method, sobol)
        if len(seeds) < MIN_SEEDS:
            continue
        sign = -reference_of(problem).sign
        pairs = [[_trials(results, count, problem, name, seed)[:count] for name in (method, sobol)] for seed in seeds]
        unit = float(np.std([trial[4] for _, theirs in pairs for trial in theirs]))
        tables.append(np.array([sign * (_proposed(ours) - _mean(theirs)) / unit for ours, theirs in pairs]))
        seen.append(problem)
    note = ", ".join(f"{problem} {runs.mean():+.2f}" for problem, runs in zip(seen, tables, strict=True))
    name = f"{group}, {count} trials, asha: proposals above Sobol's, in sd"
    return _of_means(name, PROPOSAL_BARS[count], tables, len(problems), better="more", note=note)


def exported_against_best(
    results: Results, group: str, problems: Sequence[str], count: int, *, by_value: bool = False
) -> Figure:
    """Return the regret of our exported trial under our best rule, relative to the best peer of each problem.

    With `by_value` it is the completed trial with the best observed value, as for the peers, in place of the one that
    our optimizer calls the best.
    """
    chosen = _best_rule(results, problems, count, by_value=by_value)
    logs, seeds, best = [], [], []
    for problem in problems:
        peers = {name: _exported(results, count, problem, name) for name in PEERS}
        peers = {name: regrets for name, regrets in peers.items() if len(regrets) >= MIN_SEEDS}
        ours = _exported(results, count, problem, chosen, by_value=by_value) if chosen else np.array([])
        if not peers or len(ours) < MIN_SEEDS:
            continue
        peer = min(peers, key=lambda name: float(peers[name].mean()))
        logs.append(_log_ratio(ours, peers[peer]))
        seeds += [len(ours), len(peers[peer])]
        best.append(peer)
    note = f"ours: {chosen}; best peers: {', '.join(best)}" if best else ""
    rule = "best observed" if by_value else "exported"
    name = f"{group}, {count} trainings' worth: regret of the {rule}, against the best peer"
    return _of_ratios(name, EXPORT_BARS[count], logs, seeds, whole=len(problems), note=note)


def exported_against(results: Results, group: str, problems: Sequence[str], count: int, peer: str) -> Figure:
    """Return the regret of our exported trial under our best rule, relative to one peer."""
    chosen = _best_rule(results, problems, count)
    logs, seeds = [], []
    for problem in problems:
        theirs = _exported(results, count, problem, peer)
        ours = _exported(results, count, problem, chosen) if chosen else np.array([])
        if min(len(ours), len(theirs)) >= MIN_SEEDS:
            logs.append(_log_ratio(ours, theirs))
            seeds += [len(ours), len(theirs)]
    name = f"{group}, {count} trainings' worth: regret of the exported, against {TITLES[peer]}"
    return _of_ratios(name, 1.0, logs, seeds, whole=len(problems), note=f"ours: {chosen}" if logs else "")


TITLES: Final = {"cqr": "Syne Tune (ASHA-CQR)", "smac": "SMAC3 (multi-fidelity)"}


def beyond_two_sd(results: Results, group: str, problems: Sequence[str]) -> Figure:
    """Return the share of predictions of the trials 4 to 20 that are more than two predicted sd from the end."""
    tables, shown = [], []
    for problem in problems:
        runs = []
        for seed in results.seeds("service20", problem, f"{OURS}+asha"):
            z = _scores(_trials(results, 20, problem, f"{OURS}+asha", seed)[PREDICTED])
            if len(z):
                runs.append(float(np.mean(np.abs(z) > 2)))
        if len(runs) >= MIN_SEEDS:
            tables.append(np.array(runs))
            shown.append(f"{problem} {np.mean(runs):.2f}")
    name = f"{group}: predictions of proposals (trials 4-20, asha) more than 2 sd off"
    return _of_means(name, 0.08, tables, len(problems), note=", ".join(shown))


def beliefs(results: Results, group: str, problems: Sequence[str]) -> list[Figure]:
    """Return how wide and how true the beliefs in the ends of stopped trials are, when a run of 20 trainings is over.

    The root mean square of the sd over that of the errors, pooled over the trials of each problem, and the shares of
    ends within 1 and within 1.96 sd.
    """
    ratios: list[NDArray[np.float64]] = []
    covered: dict[float, list[NDArray[np.float64]]] = {z: [] for z in COVERAGE}
    shown: list[str] = []
    seeds: list[int] = []
    for problem in problems:
        runs = [
            _believed(_trials(results, 20, problem, f"{OURS}+asha", seed))
            for seed in results.seeds("service20", problem, f"{OURS}+asha")
        ]
        runs = [run for run in runs if len(run)]
        if len(runs) < MIN_SEEDS:
            continue
        shares = weights(len(runs), seed=len(shown))
        squares = np.array([[np.sum(run[:, 1] ** 2), np.sum(run[:, 0] ** 2)] for run in runs])
        sums = shares @ squares
        ratios.append(0.5 * (np.log(sums[:, 0]) - np.log(sums[:, 1])))
        for z, tables in covered.items():
            tables.append(np.array([np.mean(np.abs(run[:, 0]) <= z * run[:, 1]) for run in runs]))
        shown.append(f"{problem} {np.exp(ratios[-1][0]):.2f}")
        seeds.append(len(runs))
    ratio = _of_ratios(
        f"{group}: believed sd of stopped trials' ends over their errors", 0.8, ratios, seeds, whole=len(problems),
        note=", ".join(shown), upper=1.5,
    )  # fmt: skip
    inside = [
        _of_means(
            f"{group}: ends of stopped trials within {z:g} believed sd", low, covered[z], len(problems), upper=high
        )
        for z, (low, high) in COVERAGE.items()
    ]
    return [ratio, *inside]


def failures_late(results: Results) -> Figure:
    """Return the failures among trials 10 to 29 where a third of the space fails, over the kinds of failure."""
    tables, shown = [], []
    for problem in FAILING:
        seeds = results.seeds("failing", problem, OURS)
        if len(seeds) >= MIN_SEEDS:
            rows = [results.row("failing", problem, OURS, seed).data["trials"][FAILING_AFTER:] for seed in seeds]
            tables.append(np.array([sum(trial[3] == "failed" for trial in trials) for trials in rows], dtype=float))
            shown.append(f"{problem.removeprefix('demo_')} {tables[-1].mean():.1f}")
    name = "failures among trials 10-29 where a third of the space fails"
    return _of_means(name, 3.0, tables, len(FAILING), note=", ".join(shown))


def exported_table(results: Results, problems: Sequence[str]) -> str:
    """Return the mean regret of the exported trial after 12, 20 and 40 trainings' worth, as a Markdown table."""
    names = [
        name
        for name in (*PEERS, *BRIDGED, *OUR_RULES)
        if any(len(_exported(results, count, problem, name)) for count in TRAININGS for problem in problems)
    ]
    seen = [p for p in problems if any(len(_exported(results, count, p, n)) for count in TRAININGS for n in names)]
    lines = ["| method | " + " | ".join(seen) + " |", "| --- |" + " --- |" * len(seen)]
    for name in names:
        cells = []
        for problem in seen:
            runs = [_exported(results, count, problem, name) for count in TRAININGS]
            count = max(map(len, runs))
            means = "/".join(f"{found.mean():.2f}" if len(found) else "-" for found in runs)
            cells.append(f"{means} ({count})" if count else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best_rule(results: Results, problems: Sequence[str], count: int, *, by_value: bool = False) -> str | None:
    """Return our method with the least mean regret, in the geometric mean over the problems that all have."""
    found = {}
    for name in OUR_RULES:
        runs = [_exported(results, count, problem, name, by_value=by_value) for problem in problems]
        runs = [regrets for regrets in runs if len(regrets) >= MIN_SEEDS]
        if runs:
            found[name] = (-len(runs), float(np.mean([np.log(regrets.mean()) for regrets in runs])))
    return min(found, key=lambda name: found[name], default=None)


def _exported(
    results: Results, count: int, problem: str, method: str, *, by_value: bool = False
) -> NDArray[np.float64]:
    """Return the regret of the exported trial of every seed; a run that exports none has the regret 1."""
    seeds = results.seeds(f"service{count}", problem, method)
    if not seeds:
        return np.array([])
    reference, found = reference_of(problem), []
    for seed in seeds:
        data = results.row(f"service{count}", problem, method, seed).data
        exported = _best_observed(data["trials"], reference.sign) if by_value else data["exported"]
        found.append(1.0 if exported is None else float(reference.regret([data["trials"][exported][4]])[0]))
    return np.maximum(np.array(found, dtype=np.float64), MIN_REGRET)


def _best_observed(trials: Sequence[Any], sign: float) -> int | None:
    """Return the place of the completed trial with the best last value."""
    completed = [place for place, trial in enumerate(trials) if trial[3] == "completed"]
    return min(completed, key=lambda place: sign * trials[place][5], default=None)


def _trials(results: Results, count: int, problem: str, method: str, seed: int) -> list[Any]:
    return list(results.row(f"service{count}", problem, method, seed).data["trials"])


def _proposed(trials: Sequence[Any]) -> float:
    """Return the mean truth of the trials that a model chose; of all where it chose none."""
    return _mean([trial for trial in trials if trial[1]] or trials)


def _mean(trials: Sequence[Any]) -> float:
    return float(np.mean([trial[4] for trial in trials]))


def _scores(trials: Sequence[Any]) -> NDArray[np.float64]:
    """Return (mean end - predicted mean) / predicted sd of the predicted trials that did not fail."""
    return np.array([(trial[12] - trial[6]) / trial[7] for trial in trials if trial[7] and trial[3] != "failed"])


def _believed(trials: Sequence[Any]) -> NDArray[np.float64]:
    """Return the error of the belief and its sd for each stopped trial with a belief, (trials, 2)."""
    found = [(trial[12] - trial[11][0], trial[11][1]) for trial in trials if trial[3] == "stopped" and trial[11]]
    return np.array(found, dtype=np.float64)


def _log_ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log ratio of mean regrets in every draw; the seeds of each side are drawn apart."""
    found = np.log(weights(len(ours), seed=1) @ ours) - np.log(weights(len(theirs), seed=2) @ theirs)
    return np.asarray(found)


def _of_means(
    name: str, bar: float, tables: Sequence[NDArray[np.float64]], whole: int, *, better: Any = "less", note: str = "",
    upper: float | None = None,
) -> Figure:  # fmt: skip
    counts = [len(runs) for runs in tables]
    partial = len(tables) < whole or min(counts, default=0) < SEEDS_FOR_VERDICT
    return Figure(
        name=name, bar=bar, better=better, upper=upper, estimate=of_means(tables) if tables else None,
        problems=len(tables), seeds=_range(counts), note=note, partial=partial,
    )  # fmt: skip


def _of_ratios(
    name: str, bar: float, logs: Sequence[NDArray[np.float64]], seeds: Sequence[int], *, whole: int, note: str,
    upper: float | None = None,
) -> Figure:  # fmt: skip
    partial = len(logs) < whole or min(seeds, default=0) < SEEDS_FOR_VERDICT
    return Figure(
        name=name, bar=bar, upper=upper, estimate=over_problems(logs) if logs else None, problems=len(logs),
        seeds=_range(seeds), note=note, partial=partial,
    )  # fmt: skip


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"  # noqa: RUF001  # a dash of ranges
