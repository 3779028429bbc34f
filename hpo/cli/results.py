"""`hpo trials`, `best`, `export`: what a study has found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import yaml
from rich.table import Column, Table

from ..client.http import Client
from ..errors import NotFoundError, SetupError
from ..results.evidence import Evidence
from ..results.export import Export, dump_export
from ..spec import StudySpec, stored_spec
from ..trial import TrialState
from .app import app, err, out, settings_of
from .model_files import check_formats, write_model_files
from .studies import AsJson, Name, client_of, warn_if_degraded

if TYPE_CHECKING:
    from ..results.ranking import Result

EXPORT_SUFFIXES: Final = (".yaml", ".yml", ".json")


@app.command()
def trials(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """List the trials of a study, best first."""
    with client_of(settings_of(context)) as client:
        study, found = client.study(name), client.trials(name)
        answer = answer_of(client, name)
    if as_json:
        typer.echo(json.dumps(found))
        return
    out.print(leaderboard(found, study["spec"], answer))
    warn_if_degraded(study)


@app.command()
def best(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show the best configuration of a study and how sure that is; with several objectives the whole front."""
    with client_of(settings_of(context)) as client:
        found = client.best(name)
        if as_json:
            typer.echo(json.dumps(found))
            return
        study, answer = client.study(name), client.answer(name)
        front = [trial for trial in client.trials(name) if trial["number"] in answer["front"]]
    spec = study["spec"]
    metrics = ", ".join(f"{metric} {value:.4g}" for metric, value in found["metrics"].items())
    out.print(f"trial {found['number']}: {metrics}")
    for line in Evidence.model_validate(found["evidence"]).lines():
        out.print(line)
    if found["state"] == "stopped":
        done = f"{found['epochs_done']} of {spec['task']['epochs']}"
        out.print(f"it was stopped after {done} epochs and is believed to end best; `hpo train` trains all of them")
    out.print(yaml.safe_dump(dict(found["params"]), sort_keys=False), end="")
    if len(spec["objectives"]) > 1:
        out.print(
            f"It is the best by {spec['objectives'][0]['metric']}. No trial is better than these in one objective"
        )
        out.print(f"and as good in the others; `hpo export {name} --trial NUMBER` writes any of them.")
        out.print(leaderboard(front, spec, answer))
    warn_if_degraded(study)


@app.command()
def export(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Name of the study, or an export file.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("best.yaml"),
    trial: Annotated[int | None, typer.Option(help="Number of the trial; the best one without it.")] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Write the model too, as onnx, torch-export or safetensors.", show_default=False),
    ] = None,
) -> None:
    """Write the best configuration to a file, with its checkpoint beside it."""
    check_formats(formats or [])
    if formats and Path(name).suffix in EXPORT_SUFFIXES and Path(name).is_file():
        write_model_files(Path(name), formats)
        return
    settings = settings_of(context)
    with client_of(settings) as client:
        document, study = client.export(name, trial=trial), client.study(name)
    warn_if_degraded(study)
    if write_export(document, output, settings.checkpoint_roots) is not None and formats:
        write_model_files(output, formats)


def write_export(document: dict[str, Any], output: Path, roots: Sequence[Path]) -> Path | None:
    """Write an export and copy its checkpoint beside it; return the copy's path, None where it is out of reach.

    The checkpoint is looked for below `roots` alone, whatever a worker said, and checked before it is copied.

    Raises:
        SetupError: the folder cannot be written.
        HpoError: the checkpoint is damaged, or none of ours.
    """
    from workers.checkpoints import reference

    exported = Export.model_validate(document)
    source = reference.find(exported.checkpoint, roots) if exported.checkpoint else None
    target = output.with_suffix(".pt")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            reference.copy(source, target)
            exported = exported.model_copy(update={"checkpoint": target.name})
        output.write_text(dump_export(exported, form="json" if output.suffix == ".json" else "yaml"))
    except OSError as error:
        raise SetupError(f"{output} cannot be written ({error.strerror})") from error
    out.print(f"wrote {output}: trial {exported.trial} of {exported.study}")
    if source is not None:
        out.print(f"wrote {target}: its checkpoint")
        return target
    if exported.checkpoint is None:
        err.print("there is no checkpoint of it any more; `hpo train` makes one")
    else:
        places = " or ".join(map(str, roots))
        err.print(
            f"its checkpoint is not on this machine ({exported.checkpoint}), in {places}; copy it from the worker's, "
            "or name its folder of checkpoints with HPO_CHECKPOINT_ROOTS"
        )
    return None


def answer_of(client: Client, name: str) -> dict[str, Any] | None:
    """Return what is believed of the configurations of a study; None before any has a result."""
    try:
        return client.answer(name)
    except NotFoundError:
        return None


def leaderboard(
    found: Sequence[dict[str, Any]], spec: dict[str, Any], answer: Mapping[str, Any] | None = None
) -> Table:
    """Return a table of trials: those with a result that keeps the constraints first, in the order of the answer.

    `on new data` is what the first objective is expected to be there. The others follow: completed ones, then feasible
    ones, then better ones first. `expected` and `feasible` are what the model said before the trial ran.
    """
    study = stored_spec(spec)
    objectives = [objective.metric for objective in study.objectives]
    limits = [constraint for constraint in study.constraints if constraint.metric not in objectives]
    headings = dict.fromkeys([*objectives, *(limit.metric for limit in limits)])
    explains = any(trial.get("predicted_mean") is not None for trial in found)
    expectations = [*(["expected"] if explains else []), *(["feasible"] if explains and study.constraints else [])]
    columns = [Column(name, no_wrap=True) for name in expectations]
    believed = _believed(answer)
    new_data = [Column("on new data", no_wrap=True)] if believed else []
    table = Table("trial", "state", "epochs", *headings, *new_data, *spec["space"], "generator", *columns)
    for trial in _best_first(found, study, believed):
        metrics = _metrics(trial)
        table.add_row(
            str(trial["number"]),
            _state(trial),
            str(trial["epochs_done"]),
            *(_outcome(study, metrics, metric) for metric in headings),
            *([believed.get(trial["number"], "")] if believed else []),
            *(_short(trial["params"].get(name)) for name in spec["space"]),
            _origin(trial),
            *[_expectation(trial)[name] for name in expectations],
        )
    return table


def _believed(answer: Mapping[str, Any] | None) -> dict[int, str]:
    """Return what is expected on new data, by trial, in the order of the answer; the exported trial comes first."""
    found: dict[int, str] = {}
    if answer is None:
        return found
    for configuration in answer["configurations"]:
        estimate = configuration["estimates"][answer["metric"]]
        shown = f"{estimate['expected']:.3f} ± {estimate['expected_sd']:.2g}"
        found |= dict.fromkeys([configuration["chosen"], *configuration["trials"]], shown)
    return found


def _best_first(found: Sequence[dict[str, Any]], study: StudySpec, believed: Mapping[int, str]) -> list[dict[str, Any]]:
    from ..results.ranking import best_first

    by_number = {trial["number"]: trial for trial in found}
    others = _results([trial for trial in found if trial["number"] not in believed], study)
    order = [*(number for number in believed if number in by_number), *(other.number for other in best_first(others))]
    return [by_number[number] for number in order]


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


def _origin(trial: dict[str, Any]) -> str:
    """What proposed a trial, and which one it trains again."""
    first = trial.get("replicate_of")
    return (trial.get("generator") or "") + ("" if first is None else f" (trial {first} again)")


def _state(trial: dict[str, Any]) -> str:
    kind = trial.get("failure_kind")
    return f"{trial['state']} ({kind})" if kind else str(trial["state"])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
