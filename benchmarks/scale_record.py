"""What the runs of `benchmarks.scale` have done: a file for each, written anew while it runs.

So a run that is cut short counts too, and the result of all runs can be said at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run so far."""

    began: float
    """Unix time."""
    seconds: float
    workers: int
    processes: int
    optimizers: int
    load: float
    """Programs of the machine that wanted a core, on average over the last minute, those of this benchmark included."""
    calls: Mapping[str, int]
    waited: Mapping[str, tuple[float, float]]
    """The median and the 99th percentile of the seconds that calls took, by kind."""
    cpu: Mapping[str, float]
    """CPU seconds, by part."""

    @property
    def finished(self) -> int:
        """Trials that have ended."""
        return self.calls.get("finish", 0)


def percentiles(waited: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Return median and 99th percentile of each."""
    found = {}
    for kind, seconds in waited.items():
        ordered = sorted(seconds)
        found[kind] = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return found


def write(folder: Path, record: RunRecord) -> None:
    """Write a run in place of what was known of it before."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    aside = runs / "new"
    aside.write_text(json.dumps(asdict(record)))
    aside.replace(runs / f"{record.began:.0f}.json")


def read(folder: Path) -> list[RunRecord]:
    """Return all runs, the first one first."""
    files = sorted((folder / "runs").glob("*.json"), key=lambda file: float(file.stem))
    return [RunRecord(**json.loads(file.read_text())) for file in files]


def result(records: Sequence[RunRecord], *, ended: int, trials: int) -> str:
    """Return what the runs say together, as Markdown.

    Args:
        ended: trials in the database that have ended, those that SQL made included.
        trials: that the whole is to have.
    """
    lines = [f"{ended:,} of {trials:,} trials have ended ({ended / trials:.0%}).", ""]
    if not records:
        return "\n".join([*lines, "No run has begun."])
    lines += ["| run of | workers | processes, optimizers | load | trials | calls a second |", "| --- " * 6 + "|"]
    for one in records:
        made = sum(one.calls.values())
        lines.append(
            f"| {one.seconds:,.0f} s | {one.workers:,} | {one.processes}, {one.optimizers} | {one.load:.0f} "
            f"| {one.finished:,} | {made / max(one.seconds, 1e-9):.0f} |"
        )
    calls = sum((Counter(one.calls) for one in records), Counter[str]())
    cpu = sum((Counter(one.cpu) for one in records), Counter[str]())
    seconds, finished = sum(one.seconds for one in records), sum(one.finished for one in records)
    lines += ["", "| CPU of | ms a call | ms a trial |", "| --- " * 3 + "|"]
    lines += [
        f"| {name} | {1000 * used / max(calls.total(), 1):.2f} | {1000 * used / max(finished, 1):.1f} |"
        for name, used in sorted(cpu.items())
    ]
    lines += ["", "| call | times | median s | 99 % within s |", "| --- " * 4 + "|"]
    last = records[-1]
    lines += [
        f"| {kind} | {count:,} | {last.waited[kind][0]:.3f} | {last.waited[kind][1]:.3f} |"
        for kind, count in sorted(calls.items())
        if kind in last.waited
    ]
    lines += ["", "The times of calls are those of the last run."]
    if finished > 0 and ended < trials:
        left = (trials - ended) * seconds / finished / 3600
        lines.append(f"At this pace the other {trials - ended:,} trials take {left:.1f} hours.")
    return "\n".join(lines)
