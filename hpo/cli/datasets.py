"""`hpo data make-demo`, and what all `hpo data` commands share; the others are in `dataset_index` and `preparing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .app import app, err, one_sentence_errors, out, settings_of, written_to
from .groups import Group

group = typer.Typer(cls=Group, no_args_is_help=True, help="Make, check and prepare data sets.")
app.add_typer(group, name="data")

Root = Annotated[
    str, typer.Argument(help="Folder of the data set, or its address, such as s3://bucket/folder.", show_default=False)
]
Name = Annotated[str, typer.Option(help="Layout of the folder; auto recognises it.")]
GroupPattern = Annotated[
    str | None,
    typer.Option(
        "--group-pattern", help="Regular expression that finds a clip's source in its id.", show_default=False
    ),
]
Report = Callable[[str, int, int], None]
DEMO_VIDEOS: Final[dict[str, Any]] = {
    "classes": ("SlideLeft", "SlideRight", "SpinClockwise", "SpinCounter"),
    "groups": 12,
    "clips_per_group": 10,
}
"""The videos of `hpo demo`, and of `hpo data make-demo` unless its options say otherwise."""


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


def local_root(context: typer.Context, root: str) -> Path:
    """Return the folder of a data set; what is at an address is copied first, with a progress bar."""
    from data import DatasetError
    from data.remote.copies import local_root as copied

    with one_sentence_errors(DatasetError), progress_bar() as bar:
        return copied(root, settings_of(context).cache_dir, progress=bar)


@group.command("make-demo")
def make_demo(
    root: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    groups: Annotated[int, typer.Option(help="Groups per class.")] = DEMO_VIDEOS["groups"],
    clips_per_group: Annotated[int, typer.Option(help="Clips per class and group.")] = DEMO_VIDEOS["clips_per_group"],
    seed: Annotated[int, typer.Option(help="Another seed gives other videos.")] = 0,
    images: Annotated[
        int | None,
        typer.Option(help="Make class folders of so many images of shapes each instead.", min=8, show_default=False),
    ] = None,
) -> None:
    """Make a small data set of real video files whose classes differ in motion alone, or of images of shapes."""
    from data import DatasetError
    from data.synthetic.dataset import make_demo_dataset
    from data.synthetic.shapes import make_shapes

    if images is not None:
        with written_to(root), one_sentence_errors(DatasetError), progress_bar() as report:
            make_shapes(root, images=images, seed=seed, progress=report)
        out.print(f"{root} is ready; check it with `hpo data check {root} --name image_folders`")
        return

    with written_to(root), one_sentence_errors(DatasetError), progress_bar() as report:
        videos = {**DEMO_VIDEOS, "groups": groups, "clips_per_group": clips_per_group}
        make_demo_dataset(root, **videos, seed=seed, progress=report)
    out.print(f"{root} is ready; check it with `hpo data check {root}`")
