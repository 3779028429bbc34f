"""`hpo data`: make and look through data sets; see `preparing` for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from .app import app, err, out, told

if TYPE_CHECKING:
    from data.report import CheckReport

group = typer.Typer(no_args_is_help=True, help="Make, check and prepare data sets.")
app.add_typer(group, name="data")

Root = Annotated[Path, typer.Argument(help="Folder of the data set, in the UCF101 layout.", show_default=False)]
Report = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Show a bar on standard error; give the function that moves it: (stage, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


@group.command("make-demo")
def make_demo(
    root: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    groups: Annotated[int, typer.Option(help="Groups per class.")] = 10,
    clips_per_group: Annotated[int, typer.Option(help="Clips per class and group.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed gives other videos.")] = 0,
) -> None:
    """Make a small set of real video files in which motion alone tells the classes apart."""
    from data import DatasetError
    from data.synthetic import make_demo_dataset

    with told(DatasetError), progress_bar() as report:
        make_demo_dataset(root, groups=groups, clips_per_group=clips_per_group, seed=seed, progress=report)
    out.print(f"{root} is ready; `hpo data check {root}` looks through it")


@group.command()
def check(
    root: Root,
    name: Annotated[str, typer.Option(help="Layout of the folder.")] = "ucf101",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decode every video once and tell what is there and what is wrong; exits with 1 if anything is."""
    from data import DatasetError
    from data.report import check as look_over
    from data.report import scan

    with told(DatasetError), progress_bar() as bar:
        report = look_over(scan(root, name=name, progress=bar))
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _print_report(report)
    raise typer.Exit(0 if report.sound else 1)


def _print_report(report: CheckReport) -> None:
    out.print(f"{report.n_clips} clips, {report.n_frames} frames, version {report.version[:12]}")
    splits = Table("split", "fit", "validation", "test (sealed)", "problem")
    for split in report.splits:
        splits.add_row(str(split.number), str(split.fit), str(split.validation), str(split.test), split.error)
    out.print(splits)
    classes = Table("class", "clips", "groups")
    for name, clips in report.clips_per_class.items():
        classes.add_row(name, str(clips), str(report.groups_per_class[name]))
    out.print(classes)
    for problem in report.problems:
        out.print(f"left out: {problem}", markup=False)
    for ids in report.duplicates:
        out.print("the same video: " + ", ".join(ids), markup=False)
    for note in report.notes:
        out.print(f"note: {note}", markup=False)
