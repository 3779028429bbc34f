"""`hpo data make-demo`, and what all `hpo data` commands share; the others are in `dataset_index` and `preparing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .app import app, err, one_sentence_errors, out

group = typer.Typer(no_args_is_help=True, help="Make, check and prepare data sets.")
app.add_typer(group, name="data")

Root = Annotated[Path, typer.Argument(help="Folder of the data set.", show_default=False)]
Name = Annotated[str, typer.Option(help="Layout of the folder; auto recognises it.")]
GroupPattern = Annotated[
    str | None,
    typer.Option(
        "--group-pattern", help="Regular expression that finds a clip's source in its id.", show_default=False
    ),
]
Report = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Show a progress bar on standard error and yield the function that updates it: (stage, done, total)."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Where nobody sees it, a bar would leave an empty line behind.
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
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
    """Make a small data set of real video files whose classes differ in motion alone."""
    from data import DatasetError
    from data.synthetic.dataset import make_demo_dataset

    with one_sentence_errors(DatasetError), progress_bar() as report:
        make_demo_dataset(root, groups=groups, clips_per_group=clips_per_group, seed=seed, progress=report)
    out.print(f"{root} is ready; check it with `hpo data check {root}`")
