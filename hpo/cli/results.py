"""`hpo trials`, `best`, `export`, `workers`, `logs`: what a study has found."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Column, Table

from ..errors import SetupError
from ..results.export import Export, dump_export
from ..spec import StudySpec, stored_spec
from ..trial import TrialState
from .app import app, err, out, settings_of
from .studies import AsJson, Name, client_of

if TYPE_CHECKING:
    from ..results.ranking import Result

FOLLOW_SECONDS = 1.0


@app.command()
def trials(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """List the trials of a study, best first."""
    with client_of(settings_of(context)) as client:
        study, found = client.study(name), client.trials(name)
    if as_json:
        typer.echo(json.dumps(found))
        return
    out.print(leaderboard(found, study["spec"]))


@app.command()
def best(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show the best trial of a study, and with several objectives every trial that no other one dominates."""
    with client_of(settings_of(context)) as client:
        found = client.best(name)
        if as_json:
            typer.echo(json.dumps(found))
            return
        spec = client.study(name)["spec"]
        front = front_of(client.trials(name), spec) if len(spec["objectives"]) > 1 else []
    metrics = ", ".join(f"{metric} {value:.4g}" for metric, value in found["metrics"].items())
    out.print(f"trial {found['number']}: {metrics}")
    out.print(yaml.safe_dump(dict(found["params"]), sort_keys=False), end="", markup=False)
    if front:
        out.print(
            f"It is the best by {spec['objectives'][0]['metric']}. No trial is better than these in one objective"
        )
        out.print(f"and as good in the others; `hpo export {name} --trial NUMBER` writes any of them.")
        out.print(leaderboard(front, spec))


@app.command()
def export(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("best.yaml"),
    trial: Annotated[int | None, typer.Option(help="Number of the trial; the best one without it.")] = None,
) -> None:
    """Write the best configuration to a file, with its checkpoint beside it."""
    with client_of(settings_of(context)) as client:
        document = client.export(name, trial=trial)
    write_export(document, output)


def write_export(document: dict[str, Any], output: Path) -> Path | None:
    """Write an export and copy its checkpoint beside it; return the copy's path, None where it is out of reach.

    Raises:
        SetupError: the folder cannot be written.
    """
    exported = Export.model_validate(document)
    source = Path(exported.checkpoint) if exported.checkpoint else None
    copy = output.with_suffix(".pt")
    is_here = source is not None and source.is_file()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if source is not None and is_here:
            shutil.copyfile(source, copy)
            exported = exported.model_copy(update={"checkpoint": copy.name})
        output.write_text(dump_export(exported, form="json" if output.suffix == ".json" else "yaml"))
    except OSError as error:
        raise SetupError(f"{output} cannot be written ({error.strerror})") from error
    out.print(f"wrote {output}: trial {exported.trial} of {exported.study}")
    if is_here:
        out.print(f"wrote {copy}: its checkpoint")
        return copy
    err.print(f"its checkpoint is not on this machine ({source}); copy it from the worker's")
    return None


@app.command()
def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the workers and when each was last heard."""
    with client_of(settings_of(context)) as client:
        found = client.workers()
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("worker", "host", "device", "last seen")
    for worker in found:
        device = worker.get("gpu_name") or worker["device"]
        table.add_row(worker["name"], worker["host"], device, str(worker["last_seen"]))
    out.print(table)


@app.command()
def logs(
    context: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until interrupted.")] = False,
) -> None:
    """Print what happened in a study, oldest first."""
    last = 0
    with client_of(settings_of(context)) as client:
        while True:
            events = client.events(name, after=last)
            for event in events:
                last = event["id"]
                out.print(event_line(event), markup=False)
            if not events:
                if not follow:
                    return
                time.sleep(FOLLOW_SECONDS)


def event_line(event: dict[str, Any]) -> str:
    """One event as a line: when, which trial, what, who, and the details."""
    trial = f"trial {event['trial_number']}" if event.get("trial_number") is not None else "study"
    detail = " ".join(f"{key}={value}" for key, value in (event.get("detail") or {}).items() if value is not None)
    return f"{str(event['at'])[:19]} {trial:<9} {event['kind']:<12} {event.get('actor') or '':<16} {detail}"


def leaderboard(found: Sequence[dict[str, Any]], spec: dict[str, Any]) -> Table:
    """A table of trials: completed ones first, what keeps the constraints before what does not, better before worse.

    Several objectives rank as everywhere: front by front. `expected` and `feasible` are what the model said before the
    trial ran.
    """
    study = stored_spec(spec)
    objectives = [objective.metric for objective in study.objectives]
    limits = [constraint for constraint in study.constraints if constraint.metric not in objectives]
    headings = dict.fromkeys([*objectives, *(limit.metric for limit in limits)])
    explains = any(trial.get("predicted_mean") is not None for trial in found)
    expectations = [*(["expected"] if explains else []), *(["feasible"] if explains and study.constraints else [])]
    columns = [Column(name, no_wrap=True) for name in expectations]
    table = Table("trial", "state", "epochs", *headings, *spec["space"], "generator", *columns)
    for trial in _best_first(found, study):
        metrics = _metrics(trial)
        table.add_row(
            str(trial["number"]),
            _state(trial),
            str(trial["epochs_done"]),
            *(_outcome(study, metrics, metric) for metric in headings),
            *(_short(trial["params"].get(name)) for name in spec["space"]),
            trial.get("generator") or "",
            *[_expectation(trial)[name] for name in expectations],
        )
    return table


def front_of(found: Sequence[dict[str, Any]], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the trials that `hpo best` chooses from and no other of them dominates."""
    from ..results.ranking import front

    kept = {result.number for result in front(_results(found, stored_spec(spec)))}
    return [trial for trial in found if trial["number"] in kept]


def _best_first(found: Sequence[dict[str, Any]], study: StudySpec) -> list[dict[str, Any]]:
    from ..results.ranking import best_first

    by_number = {trial["number"]: trial for trial in found}
    return [by_number[result.number] for result in best_first(_results(found, study))]


def _results(found: Sequence[dict[str, Any]], study: StudySpec) -> list[Result]:
    from ..results.ranking import result_of

    return [
        result_of(study, number=trial["number"], state=TrialState(trial["state"]), metrics=_metrics(trial))
        for trial in found
    ]


def _metrics(trial: dict[str, Any]) -> dict[str, float]:
    """The final values of a trial, else its last reported ones."""
    return trial.get("metrics") or trial.get("last_metrics") or {}


def _outcome(study: StudySpec, metrics: Mapping[str, float], metric: str) -> str:
    """A value, with the bound that it breaks."""
    if metric not in metrics:
        return ""
    value = f"{metrics[metric]:.3f}"
    broken = [c for c in study.constraints if c.metric == metric and c.violation(metrics[metric]) > 0]
    return " ".join([value, *(f"{'>' if c.relation == '<=' else '<'} {c.bound:g}" for c in broken)])


def _expectation(trial: dict[str, Any]) -> dict[str, str]:
    """What the model said of the first objective, and how probable it took it that the constraints hold."""
    mean, sd, feasible = (trial.get(f"predicted_{name}") for name in ("mean", "sd", "feasibility"))
    return {
        "expected": "" if mean is None or sd is None else f"{mean:.3f} ± {sd:.2g}",
        "feasible": "" if feasible is None else f"{feasible:.0%}",
    }


def _state(trial: dict[str, Any]) -> str:
    kind = trial.get("failure_kind")
    return f"{trial['state']} ({kind})" if kind else str(trial["state"])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
