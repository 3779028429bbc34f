"""Trials as a table that fits the terminal, sorted, filtered, or as a file for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..plain_text import spreadsheet_cell
from ..trial import TrialState
from .boards import Board, Fitted
from .trial_values import VERSION_DIGITS, metrics_of

if TYPE_CHECKING:
    from ..results.ranking import Result
    from ..spec import StudySpec

Trial = Mapping[str, Any]
_MOST_REASONS: Final = 10
_MOST_NAMED: Final = 8
"""Trials of one reason that are named."""
_FIXED: Final = ("number", "state", "attempt", "epochs_done")
_DETAILS: Final = (
    "generator",
    "replicate_of",
    "predicted_mean",
    "predicted_sd",
    "predicted_feasibility",
    "worker",
    "dataset_version",
    "gpu_seconds",
    "peak_memory_bytes",
    "failure_kind",
    "failure_message",
    "created_at",
    "started_at",
    "finished_at",
)


def leaderboard(
    found: Sequence[Trial], spec: dict[str, Any], answer: Mapping[str, Any] | None = None, *, is_sorted: bool = False
) -> Board:
    """Return a table of trials: those with a result that keeps the constraints first, in the order of the answer.

    `data` is the version of the data that a trial was trained on, where there are several: their values are not
    comparable. `on new data` is what the first objective is expected to be there. The others follow: completed ones,
    then feasible ones, then better ones first. `expected` and `feasible` are what the model said before the trial ran.

    Args:
        is_sorted: the trials are in the order in which they are to be shown.
    """
    from ..spec import stored_spec

    study = stored_spec(spec)
    first, *others = (objective.metric for objective in study.objectives)
    limits = [limit.metric for limit in study.constraints if limit.metric not in (first, *others)]
    believed = _believed(answer)
    rows = list(found) if is_sorted else _best_first(found, study, believed)
    columns = [
        Fitted(name="trial", cells=[str(trial["number"]) for trial in rows], rank=0),
        Fitted(name="state", cells=[_state(trial) for trial in rows], rank=0),
        Fitted(name="epochs", cells=[str(trial["epochs_done"]) for trial in rows], rank=2),
        Fitted(name=first, cells=_outcomes(study, rows, first), rank=0),
        *(
            Fitted(name=metric, cells=_outcomes(study, rows, metric), rank=3)
            for metric in dict.fromkeys([*others, *limits])
        ),
    ]
    versions = [(trial.get("dataset_version") or "")[:VERSION_DIGITS] for trial in rows]
    if len({*versions} - {""}) > 1:
        columns.append(Fitted(name="data", cells=versions, rank=0))
    if any(believed.values()):
        columns.append(Fitted(name="on new data", cells=[believed.get(trial["number"], "") for trial in rows], rank=1))
    for name in spec["space"]:
        cells = [_short(trial["params"].get(name)) for trial in rows]
        # What is the same in all trials tells none from another.
        columns.append(Fitted(name=name, cells=cells, rank=4 if len(set(cells)) > 1 or len(rows) < 2 else 6))
    columns.append(Fitted(name="generator", cells=[_origin(trial) for trial in rows], rank=5))
    if any(trial.get("predicted_mean") is not None for trial in rows):
        names = ["expected", *(["feasible"] if study.constraints else [])]
        columns += [Fitted(name=name, cells=[_expectation(trial)[name] for trial in rows], rank=7) for name in names]
    return Board(columns=columns)


def reasons(found: Sequence[Trial]) -> Iterator[str]:
    """Yield a line for each reason for which trials failed, with their numbers; the most frequent first."""
    groups: dict[str, list[int]] = {}
    for trial in found:
        if trial.get("failure_kind"):
            message = str(trial.get("failure_message") or "").strip().partition("\n")[0]
            reason = f"{trial['failure_kind']}{f': {message}' if message else ''}"
            groups.setdefault(reason, []).append(trial["number"])
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[1]))
    for reason, numbers in ordered[:_MOST_REASONS]:
        named = ", ".join(map(str, sorted(numbers)[:_MOST_NAMED]))
        more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
        yield f"trial{'s' if len(numbers) > 1 else ''} {named}{more} failed: {reason}"
    if len(ordered) > _MOST_REASONS:
        yield f"and {len(ordered) - _MOST_REASONS} other reasons (`hpo trials NAME --state failed --csv` has all)"


def csv_table(found: Sequence[Trial], spec: Mapping[str, Any]) -> str:
    """Return trials as a CSV file, a line each: metrics are in columns `metrics.NAME`, parameters in `params.NAME`.

    Numbers have all digits. A text that a spreadsheet would take for a formula is behind an apostrophe.
    """
    metrics = sorted({name for trial in found for name in metrics_of(trial)})
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    headings = [*(f"metrics.{name}" for name in metrics), *(f"params.{name}" for name in spec["space"])]
    writer.writerow([spreadsheet_cell(name) for name in (*_FIXED, *headings, *_DETAILS)])
    for trial in found:
        values = [trial[name] for name in _FIXED]
        values += [metrics_of(trial).get(name) for name in metrics]
        values += [trial["params"].get(name) for name in spec["space"]]
        values += [trial.get(name) for name in _DETAILS]
        writer.writerow(["" if value is None else spreadsheet_cell(str(value)) for value in values])
    return written.getvalue()


def _believed(answer: Mapping[str, Any] | None) -> dict[int, str]:
    """Return what is expected on new data, by trial, in the order of the answer; the exported trial comes first."""
    from ..results.evidence import spread_is_known

    found: dict[int, str] = {}
    if answer is None:
        return found
    for configuration in answer["configurations"]:
        estimate = configuration["estimates"][answer["metric"]]
        is_known = spread_is_known(estimate["expected"], estimate["expected_sd"])
        shown = f"{estimate['expected']:.3f} ± {estimate['expected_sd']:.2g}" if is_known else ""
        found |= dict.fromkeys([configuration["chosen"], *configuration["trials"]], shown)
    return found


def _best_first(found: Sequence[Trial], study: StudySpec, believed: Mapping[int, str]) -> list[Trial]:
    from ..results.ranking import best_first

    by_number = {trial["number"]: trial for trial in found}
    others = _results([trial for trial in found if trial["number"] not in believed], study)
    order = [*(number for number in believed if number in by_number), *(other.number for other in best_first(others))]
    return [by_number[number] for number in order]


def _results(found: Sequence[Trial], study: StudySpec) -> list[Result]:
    from ..results.ranking import result_of

    return [
        result_of(study, number=trial["number"], state=TrialState(trial["state"]), metrics=metrics_of(trial))
        for trial in found
    ]


def _outcomes(study: StudySpec, rows: Sequence[Trial], metric: str) -> list[str]:
    """Return the value of each trial, with the bound that it breaks."""
    return [_outcome(study, metrics_of(trial), metric) for trial in rows]


def _outcome(study: StudySpec, metrics: Mapping[str, float], metric: str) -> str:
    if metric not in metrics:
        return ""
    value = f"{metrics[metric]:.3f}"
    broken = [c for c in study.constraints if c.metric == metric and c.violation(metrics[metric]) > 0]
    return " ".join([value, *(f"{'>' if c.relation == '<=' else '<'} {c.bound:g}" for c in broken)])


def _expectation(trial: Trial) -> dict[str, str]:
    """Return what the model said of the first objective, and how probable it took it that the constraints hold."""
    mean, sd, feasible = (trial.get(f"predicted_{name}") for name in ("mean", "sd", "feasibility"))
    return {
        "expected": "" if mean is None or sd is None else f"{mean:.3f} ± {sd:.2g}",
        "feasible": "" if feasible is None else f"{feasible:.0%}",
    }


def _origin(trial: Trial) -> str:
    """Return what proposed a trial, and which one it trains again."""
    first = trial.get("replicate_of")
    return (trial.get("generator") or "") + ("" if first is None else f" (trial {first} again)")


def _state(trial: Trial) -> str:
    kind = trial.get("failure_kind")
    return f"{trial['state']} ({kind})" if kind else str(trial["state"])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
