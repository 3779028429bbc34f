"""`hpo trials`, `best`, `export`: what a study has found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import NotFoundError, SetupError
from .app import app, err, out, settings_of
from .boards import Board
from .files import counted
from .leaderboard import csv_table, leaderboard, reasons
from .model_files import check_formats, write_model_files
from .optuna_export import write_optuna
from .studies import AsJson, Name, client_of, warn_if_degraded
from .trial_values import sorted_by, states_of, where

if TYPE_CHECKING:
    from ..client.http import Client

EXPORT_SUFFIXES: Final = (".yaml", ".yml", ".json")


@app.command()
def trials(
    context: typer.Context,
    name: Name,
    *,
    state: Annotated[
        list[str] | None, typer.Option(help="Only trials in this state; of several, any.", show_default=False)
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="NAME<VALUE",
            help="Only trials with such a parameter, metric or field: --where 'lr<0.01'; of several, all.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By this parameter, metric or field; the best first without it."),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="With --sort: the greatest first.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print all columns with all digits, for a spreadsheet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the trials of a study, best first; on a narrow terminal with fewer columns."""
    wanted = states_of(state or [])
    with client_of(settings_of(context)) as client:
        study, found = client.study(name), client.trials(name, states=wanted)
        answer = None if as_json or as_csv else answer_of(client, name)
    spec = study["spec"]
    known = [*spec["space"], *(objective["metric"] for objective in spec["objectives"])]
    shown: Sequence[Mapping[str, Any]] = where(found, condition or [], known)
    if sort is not None:
        shown = sorted_by(shown, sort, known, is_reversed=reverse)
    if as_json:
        typer.echo(json.dumps(shown))
    elif as_csv:
        typer.echo(csv_table(shown, spec), nl=False)
    else:
        _print_board(leaderboard(shown, spec, answer, is_sorted=sort is not None))
        for line in reasons(shown):
            out.print(line)
        if len(shown) < sum(study["trial_counts"].values()):
            out.print(f"{len(shown)} of {counted(sum(study['trial_counts'].values()), 'trial')}")
        warn_if_degraded(study)


def _print_board(board: Board) -> None:
    """Print a table as wide as the terminal is, and name what does not fit."""
    out.print(board.table(out.width))
    if left := board.left_out(out.width):
        out.print(f"not shown in {out.width} columns: {', '.join(left)} (--csv has all)")


@app.command()
def best(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show the best configuration of a study and how sure that is; with several objectives the whole front."""
    import yaml

    from ..results.evidence import Evidence

    with client_of(settings_of(context)) as client:
        found = client.best(name)
        if as_json:
            typer.echo(json.dumps(found))
            return
        study, answer = client.study(name), client.answer(name)
        front = [trial for trial in client.trials(name) if trial["number"] in answer["front"]]
    spec = study["spec"]
    metrics = ", ".join(f"{metric} {value:.4g}" for metric, value in (found["metrics"] or {}).items())
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
        _print_board(leaderboard(front, spec, answer))
    warn_if_degraded(study)


@app.command()
def export(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Name of the study, or an export file.", show_default=False)
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; best.yaml without it.", show_default=False),
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Number of the trial; the best one without it.")] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Write the model too, as onnx, torch-export or safetensors.", show_default=False),
    ] = None,
    to_optuna: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Write all ended trials into an Optuna database instead. A password may come from PGPASSWORD.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the best configuration to a file, with its checkpoint beside it; or all trials for Optuna."""
    check_formats(formats or [])
    if to_optuna is not None:
        if output is not None or trial is not None or formats:
            raise SetupError("--to-optuna writes all trials into a database: leave --output, --trial and --format out")
        with client_of(settings_of(context)) as client:
            from ..report.material import read

            write_optuna(read(client, name), to_optuna)
        return
    if (file := _export_file(name)) is not None:
        if output is not None or trial is not None or not formats:
            raise SetupError(
                f"{name} is an export file, whose model is written beside it: name a --format, and leave --output and "
                "--trial out"
            )
        write_model_files(file, formats)
        return
    settings = settings_of(context)
    with client_of(settings) as client:
        document, study = client.export(name, trial=trial), client.study(name)
    warn_if_degraded(study)
    output = output or Path("best.yaml")
    if write_export(document, output, settings.checkpoint_roots) is not None and formats:
        write_model_files(output, formats)


def _export_file(name: str) -> Path | None:
    """Return the export file that is meant; None where it is the name of a study.

    Raises:
        SetupError: it is a path, and no file is there.
    """
    path = Path(name)
    if path.is_file() and path.suffix in EXPORT_SUFFIXES:
        return path
    if len(path.parts) > 1:
        raise SetupError(f"there is no export file {name}; name a study, or a {', '.join(EXPORT_SUFFIXES)} file")
    return None


def write_export(document: dict[str, Any], output: Path, roots: Sequence[Path]) -> Path | None:
    """Write an export and copy its checkpoint beside it; return the copy's path, None where it is out of reach.

    The checkpoint is looked for below `roots` alone, whatever a worker said, and checked before it is copied.

    Raises:
        SetupError: the folder cannot be written.
        HpoError: the checkpoint is damaged, or none of ours.
    """
    from workers.checkpoints import reference

    from ..results.export import Export, dump_export

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


def answer_of(client: Client, name: str) -> Mapping[str, Any] | None:
    """Return what is believed of the configurations of a study; None before any has a result."""
    try:
        return client.answer(name)
    except NotFoundError:
        return None
