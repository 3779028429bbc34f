"""The figures of the report, one function each: an estimate with its interval, and the bar that it must clear.

A ratio compares our optimizer with a peer on each problem, over the seeds that both have; the figure is the geometric
mean over problems. A figure passes when the worse end of its 95 % bootstrap interval over seeds clears the bar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Estimate, of_means, over_problems, weights
from .hypervolume import hypervolume
from .methods import OURS, PRUNERS
from .problems import FRONTS, LCBENCH, SINGLE
from .protocols import MEMORY_START, NOISES, WORKERS
from .reference import reference_of
from .traces import Results

MIN_SEEDS: Final = 2
SEEDS_FOR_VERDICT: Final = 6
NOT_REACHED: Final = 2.0
"""The value of a regret that was never reached, in units of the peer's budget."""
TOP_SHARE: Final = 0.05
_LATENCY: Final = "mixed10@{count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the report."""

    name: str
    bar: float
    better: Literal["less", "more"] = "less"
    upper: float | None = None
    """If given, the interval must lie from `bar` to this, whatever `better` says."""
    estimate: Estimate | None = None
    """None if there are no rows to compute it from."""
    problems: int = 0
    seeds: str = ""
    note: str = ""
    partial: bool = False
    """Whether problems are missing or there are fewer seeds than `SEEDS_FOR_VERDICT`: the verdict is preliminary."""

    @property
    def passes(self) -> bool | None:
        """Whether the bound clears the bar; None while unmeasured."""
        if self.estimate is None:
            return None
        if self.upper is not None:
            return self.bar <= self.estimate.low and self.estimate.high <= self.upper
        return self.estimate.high <= self.bar if self.better == "less" else self.estimate.low >= self.bar


Logs = NDArray[np.float64]


def trials_to_reach(results: Results, peer: str, at: int, bar: float) -> Figure:
    """Return the trials until our mean regret is the peer's at `at` trials, as a share of `at`."""
    logs: list[Logs] = []
    seeds, missed = [], 0
    for problem in SINGLE:
        common = results.seeds("sequential", problem, OURS, peer)
        if len(common) < MIN_SEEDS:
            continue
        ours, theirs = (results.traces("sequential", problem, name, common) for name in (OURS, peer))
        shares = weights(len(common), seed=len(logs))
        ratio = first_at_or_below(shares @ ours, (shares @ theirs)[:, at - 1], at)
        logs.append(np.log(ratio))
        seeds.append(len(common))
        missed += bool(ratio[0] >= NOT_REACHED)
    note = f"not reached on {missed} of {len(logs)} problems" if missed else ""
    return _figure(f"trials to reach {_title(peer)}'s regret at {at}", bar, logs, seeds, note=note, whole=len(SINGLE))


def asynchronous_regret(results: Results, peer: str, at: int, bar: float) -> Figure:
    """Return the regret after `at` finished trials with eight asynchronous workers, relative to the peer's."""
    logs: list[Logs] = []
    seeds = []
    for problem in SINGLE:
        common = results.seeds("asynchronous", problem, OURS, peer)
        if len(common) < MIN_SEEDS:
            continue
        ours, theirs = (results.traces("asynchronous", problem, name, common) for name in (OURS, peer))
        shares = weights(len(common), seed=len(logs))
        logs.append(np.log(shares @ ours[:, at - 1]) - np.log(shares @ theirs[:, at - 1]))
        seeds.append(len(common))
    return _figure(
        f"regret at {at} with {WORKERS} asynchronous workers, against {_title(peer)}",
        bar,
        logs,
        seeds,
        whole=len(SINGLE),
    )


def epochs_against_full(results: Results, method: str, bar: float, protocol: str = "fidelity") -> Figure:
    """Return the epochs until our mean regret is full-length TPE's final one, as a share of its budget."""
    logs: list[Logs] = []
    seeds, missed = [], 0
    for problem in LCBENCH:
        common = results.seeds(protocol, problem, method, "tpe")
        if len(common) < MIN_SEEDS:
            continue
        ours, full = (results.epoch_traces(problem, name, common, protocol) for name in (method, "tpe"))
        shares = weights(len(common), seed=len(logs))
        ratio = first_at_or_below(_means(shares, ours), _means(shares, full)[:, -1], full.shape[1])
        logs.append(np.log(ratio))
        seeds.append(len(common))
        missed += bool(ratio[0] >= NOT_REACHED)
    note = f"not reached on {missed} of {len(logs)} tasks" if missed else ""
    noise = f" with noise {NOISES[protocol]:g}" if protocol in NOISES else ""
    return _figure(
        f"epochs to full-length TPE's final regret{noise}, {method}", bar, logs, seeds, note=note, whole=len(LCBENCH)
    )


def epochs_against_pruner(results: Results, method: str, bar: float) -> Figure:
    """Return the epochs until full-length TPE's final regret, relative to the Optuna pruner that reaches it first.

    A pruner that never reaches it counts with its whole budget.
    """
    pruned = [f"tpe+{pruner}" for pruner in PRUNERS]
    logs: list[Logs] = []
    seeds, best = [], []
    for problem in LCBENCH:
        common = results.seeds("fidelity", problem, method, "tpe", *pruned)
        if len(common) < MIN_SEEDS:
            continue
        ours, full, *theirs = (results.epoch_traces(problem, name, common) for name in (method, "tpe", *pruned))
        shares = weights(len(common), seed=len(logs))
        target, budget = _means(shares, full)[:, -1], full.shape[1]
        each = [np.minimum(first_at_or_below(_means(shares, found), target, budget), 1.0) for found in theirs]
        chosen = int(np.argmin([found[0] for found in each]))
        logs.append(np.log(first_at_or_below(_means(shares, ours), target, budget)) - np.log(each[chosen]))
        seeds.append(len(common))
        best.append(PRUNERS[chosen])
    note = "best: " + ", ".join(best) if best else ""
    return _figure(
        f"the same against the best Optuna pruner of each task, {method}",
        bar,
        logs,
        seeds,
        note=note,
        whole=len(LCBENCH),
    )


def epochs_to_pruner(results: Results, method: str, bar: float) -> Figure:
    """Return the epochs until the final regret of the best Optuna pruner on the task, as a share of its budget."""
    pruned = [f"tpe+{pruner}" for pruner in PRUNERS]
    logs: list[Logs] = []
    seeds = []
    for problem in LCBENCH:
        common = results.seeds("fidelity", problem, method, *pruned)
        if len(common) < MIN_SEEDS:
            continue
        ours, *theirs = (results.epoch_traces(problem, name, common) for name in (method, *pruned))
        shares = weights(len(common), seed=len(logs))
        finals = [_means(shares, found)[:, -1] for found in theirs]
        target = finals[int(np.argmin([final[0] for final in finals]))]
        logs.append(np.log(first_at_or_below(_means(shares, ours), target, ours.shape[1])))
        seeds.append(len(common))
    return _figure(
        f"epochs to the final regret of the best Optuna pruner, {method}", bar, logs, seeds, whole=len(LCBENCH)
    )


def good_ones_stopped(results: Results, method: str, bar: float) -> Figure:
    """Return the share of configurations in the true top 5 % of a run that were stopped before their last epoch."""
    runs, tables = [], []
    for problem in LCBENCH:
        found = []
        for seed in results.seeds("fidelity", problem, method):
            # The last trial may have been ended by the budget and not by the rule.
            trials = _ended(results.row("fidelity", problem, method, seed).data["trials"][:-1])
            count = max(1, round(TOP_SHARE * len(trials)))
            top = sorted(trials, key=lambda trial: -trial[0])[:count]
            found.append(sum(not completed for _, completed in top) / count)
        if len(found) >= MIN_SEEDS:
            tables.append(np.array(found))
            runs.append(len(found))
    estimate = of_means(tables) if tables else None
    return Figure(
        name=f"configurations in the true top 5 % that were stopped, {method}",
        bar=bar, estimate=estimate, problems=len(tables), seeds=_range(runs),
    )  # fmt: skip


def _ended(entries: Sequence[Sequence[Any]]) -> list[tuple[float, bool]]:
    """Return the true final value of each trial, and whether it was completed in the end."""
    found: list[tuple[float, bool]] = []
    for _, truth, completed, *resumed in entries:
        if resumed:
            found[resumed[0]] = (truth, completed)
        else:
            found.append((truth, completed))
    return found


def lost_to_memory(results: Results, bar: float) -> Figure:
    """Return the number of trials out of memory among those that our optimizer proposed after the start."""
    seeds = results.seeds("memory", "memory", OURS)
    counts = np.array([results.row("memory", "memory", OURS, seed).data["oom_after_start"] for seed in seeds], float)
    estimate = of_means([counts]) if len(seeds) >= MIN_SEEDS else None
    name = "trials lost to OOM in the memory-limited space, of 32"
    return Figure(
        name=name, bar=bar, estimate=estimate, problems=1, seeds=str(len(seeds)), partial=len(seeds) < SEEDS_FOR_VERDICT
    )


def best_within_memory(results: Results, peers: Sequence[str]) -> Figure:
    """Return our best value in the memory-limited space minus that of the best peer."""
    seeds = results.seeds("memory", "memory", OURS, *peers)
    name = "best value there, minus that of the best peer"
    if len(seeds) < MIN_SEEDS:
        return Figure(name=name, bar=0.0, better="more")
    best = {
        method: np.array([_best(results.row("memory", "memory", method, seed).data["truths"]) for seed in seeds])
        for method in (OURS, *peers)
    }
    peer = max(peers, key=lambda method: float(best[method].mean()))
    return Figure(
        name=name, bar=0.0, better="more", estimate=of_means([best[OURS] - best[peer]]), problems=1,
        seeds=str(len(seeds)), partial=len(seeds) < SEEDS_FOR_VERDICT, note=f"best peer: {_title(peer)}",
    )  # fmt: skip


def time_against(results: Results, peer: str, count: int, bar: float) -> Figure:
    """Return the CPU time of ask and tell with `count` finished trials, relative to the peer's in the same process."""
    name = f"ask+tell CPU at {count} trials, against {_title(peer)}"
    ours, theirs = (_seconds(results, method, count) for method in (OURS, peer))
    if ours is None or theirs is None:
        return Figure(name=name, bar=bar)
    shares = weights(min(len(ours), len(theirs)))
    turns = shares.shape[1]
    logs = np.log(shares @ ours[:turns]) - np.log(shares @ theirs[:turns])
    note = f"{ours.mean():.3f} s against {theirs.mean():.3f} s"
    return _figure(name, bar, [logs], [turns], note=note, unit="turns")


def time_at(results: Results, count: int, bar: float) -> Figure:
    """Return the CPU seconds of ask and tell with `count` finished trials."""
    ours = _seconds(results, OURS, count)
    estimate = None if ours is None else of_means([ours])
    name = f"ask+tell CPU seconds at {count} trials"
    return Figure(name=name, bar=bar, estimate=estimate, problems=1, seeds="" if ours is None else f"{len(ours)} turns")


def hypervolume_against(results: Results, peer: str) -> Figure:
    """Return the mean hypervolume after the last trial, relative to the peer's."""
    logs: list[Logs] = []
    seeds = []
    for problem in FRONTS:
        common = results.seeds("hypervolume", problem, OURS, peer)
        if len(common) < MIN_SEEDS:
            continue
        corner = reference_of(problem).corner or ()
        found = [
            np.array([hypervolume(results.row("hypervolume", problem, name, s).data["losses"], corner) for s in common])
            for name in (OURS, peer)
        ]
        shares = weights(len(common), seed=len(logs))
        logs.append(np.log(shares @ found[0]) - np.log(shares @ found[1]))
        seeds.append(len(common))
    return _figure(
        f"hypervolume at 60 trials, against {_title(peer)}", 1.0, logs, seeds, better="more", whole=len(FRONTS)
    )


def all_figures(results: Results) -> list[Figure]:
    """Return all figures of the report, in order."""
    rules = sorted({run.method for run in results.rows if run.method.startswith(f"{OURS}+")})
    fidelity: list[Callable[[str], Figure]] = [
        lambda method: epochs_against_full(results, method, 0.15),
        lambda method: epochs_against_pruner(results, method, 0.35),
        lambda method: epochs_to_pruner(results, method, 0.35),
        lambda method: good_ones_stopped(results, method, 0.03),
    ]
    peers = [name for name in ("random", "tpe", "gp", "ax") if results.seeds("memory", "memory", name)]
    return [
        trials_to_reach(results, "tpe", 100, 0.25),
        trials_to_reach(results, "gp", 100, 0.8),
        trials_to_reach(results, "ax", 50, 0.7),
        asynchronous_regret(results, "tpe", 50, 0.35),
        asynchronous_regret(results, "gp", 50, 0.8),
        *(figure(method) for figure in fidelity for method in rules or [f"{OURS}+asha"]),
        *(epochs_against_full(results, f"{OURS}+curves", 0.35, protocol) for protocol in NOISES),
        lost_to_memory(results, 3.0),
        best_within_memory(results, peers),
        time_against(results, "ax", 100, 1 / 20),
        time_against(results, "gp", 100, 1 / 3),
        time_at(results, 1000, 1.0),
        time_against(results, "gp", 1000, 1 / 5),
        *(hypervolume_against(results, peer) for peer in ("gp", "nsga2", "ax", "tpe", "random")),
    ]


def first_at_or_below(traces: NDArray[np.float64], targets: NDArray[np.float64], budget: int) -> Logs:
    """Return where each trace (draws, steps) first is at its target or below, as a share of `budget`."""
    # Means of equal runs may differ in their last digits.
    reached = traces <= targets[:, None] * (1 + 1e-9)
    steps = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, NOT_REACHED * budget)
    return np.asarray(steps / budget, dtype=np.float64)


def _means(shares: NDArray[np.float64], traces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means of traces that may begin infinite; runs of weight 0 are ignored instead of giving 0 x infinity."""
    large = 1e9
    means: NDArray[np.float64] = shares @ np.minimum(traces, large)
    return np.where(means >= large / 1e4, np.inf, means)


def _seconds(results: Results, method: str, count: int) -> NDArray[np.float64] | None:
    problem = _LATENCY.format(count=count)
    seeds = results.seeds("latency", problem, method)
    return np.array(results.row("latency", problem, method, seeds[0]).data["seconds"]) if seeds else None


def _best(truths: Sequence[float | None]) -> float:
    """Return the best value that fitted into memory, including those of the start."""
    found = [truth for truth in truths if truth is not None]
    return max(found) if len(truths) > MEMORY_START and found else 0.0


def _figure(
    name: str,
    bar: float,
    logs: Sequence[Logs],
    seeds: Sequence[int],
    *,
    better: Literal["less", "more"] = "less",
    note: str = "",
    unit: str = "",
    whole: int = 1,
) -> Figure:
    estimate = over_problems(logs) if logs else None
    shown = f"{_range(seeds)} {unit}".strip()
    partial = not unit and (len(logs) < whole or min(seeds, default=0) < SEEDS_FOR_VERDICT)
    return Figure(
        name=name,
        bar=bar,
        better=better,
        estimate=estimate,
        problems=len(logs),
        seeds=shown,
        note=note,
        partial=partial,
    )


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"  # noqa: RUF001  # a dash of ranges


def _title(method: str) -> str:
    return {"tpe": "TPE", "gp": "GPSampler", "ax": "the Ax Client", "nsga2": "NSGA-II"}.get(method, method)
