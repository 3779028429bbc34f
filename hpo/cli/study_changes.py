"""`hpo study edit`, `reopen` and `clone`: other limits for a study, and its spec for a new one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..errors import SetupError
from .app import out, settings_of
from .studies import Name, client_of, group, print_state, state_of

Number = TypeVar("Number", int, float)
_NONE = "none"
"""What a person writes to take a limit away."""
Trials = Annotated[str | None, typer.Option(metavar="N", help="Trials in all.", show_default=False)]
GpuHours = Annotated[str | None, typer.Option(metavar="HOURS", help="GPU hours in all.", show_default=False)]
WallHours = Annotated[
    str | None, typer.Option(metavar="HOURS", help="Hours since the first trial began.", show_default=False)
]
MaxFailed = Annotated[
    str | None, typer.Option(metavar="N", help="Failed trials that end the study.", show_default=False)
]
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="METRIC=VALUE", help="Value that ends the study; of several, all.", show_default=False),
]


@group.command()
def edit(
    context: typer.Context,
    name: Name,
    *,
    trials: Trials = None,
    gpu_hours: GpuHours = None,
    wall_hours: WallHours = None,
    max_failed: MaxFailed = None,
    target: Target = None,
    note: Annotated[
        str | None, typer.Option(help="What you want to remember of it; '' removes the note.", show_default=False)
    ] = None,
) -> None:
    """Change the budget of a study that has not ended (`none` takes a limit away), or the note of any study."""
    budget = _budget(trials, gpu_hours, wall_hours, max_failed, target)
    if not budget and note is None:
        raise typer.BadParameter("give a limit, such as --trials 80, or a note with --note TEXT")
    with client_of(settings_of(context)) as client:
        if note is not None:
            kept = client.note_study(name, note)["note"]
            out.print(f"the note of study {name} is {'kept' if kept else 'removed'}")
        if not budget:
            return
        changed = client.edit_study(name, **budget)
    out.print(f"study {name} is {state_of(changed)}; its budget: {_limits_of(changed)}")


@group.command()
def reopen(
    context: typer.Context,
    name: Name,
    *,
    trials: Trials = None,
    gpu_hours: GpuHours = None,
    wall_hours: WallHours = None,
    max_failed: MaxFailed = None,
    target: Target = None,
) -> None:
    """Let a study that has ended or was stopped search on, with a larger budget where that was used up."""
    budget = _budget(trials, gpu_hours, wall_hours, max_failed, target)
    with client_of(settings_of(context)) as client:
        opened = client.reopen_study(name, **budget)
    out.print(f"study {name} is {state_of(opened)} again; its budget: {_limits_of(opened)}")


@group.command()
def clone(
    context: typer.Context,
    name: Name,
    new_name: Annotated[str, typer.Argument(help="Name of the new study.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the spec to a file instead, to change it.", show_default=False),
    ] = None,
) -> None:
    """Create a study with the spec of another one; or write that spec to a file, to be changed before."""
    import yaml

    with client_of(settings_of(context)) as client:
        spec = {**client.study(name)["spec"], "name": new_name}
        if output is None:
            made = client.create_study(spec)
            print_state(made)
            for line in _added(spec, made["spec"]):
                out.print(line)
            return
    try:
        output.write_text(yaml.safe_dump(spec, sort_keys=False))
    except OSError as error:
        raise SetupError(f"{output} cannot be written ({error.strerror})") from error
    out.print(f"wrote {output}; change it, and create the study with `hpo study create {output}`")


def _added(spec: dict[str, Any], made: dict[str, Any]) -> Iterator[str]:
    """Yield a line about the settings that new studies get and the old one, of an earlier release, has not."""
    before, after = (document["task"].get("base", {}) for document in (spec, made))
    if added := [f"{key}: {value}" for key, value in after.items() if key not in before]:
        yield f"set as in every new study, and not in the old one: {', '.join(added)}"


def _budget(
    trials: str | None,
    gpu_hours: str | None,
    wall_hours: str | None,
    max_failed: str | None,
    target: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the limits that were given; None for those that are taken away."""
    given: dict[str, Any] = {}
    for name, value in (("trials", trials), ("max_failed", max_failed)):
        if value is not None:
            given[name] = None if value == _NONE else _number(value, name, int)
    for name, value in (("gpu_hours", gpu_hours), ("wall_hours", wall_hours)):
        if value is not None:
            given[name] = None if value == _NONE else _number(value, name, float)
    if target:
        given["target"] = {} if list(target) == [_NONE] else dict(_goal(text) for text in target)
    return given


def _goal(text: str) -> tuple[str, float]:
    metric, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is no target: write METRIC=VALUE, such as val_top1=0.9, or {_NONE}")
    return metric.strip(), _number(value, f"target of {metric.strip()}", float)


def _number(text: str, name: str, kind: type[Number]) -> Number:
    try:
        found = kind(text)
        if math.isfinite(found):
            return found
    except ValueError:
        pass  # said below
    what = "a whole number" if kind is int else "a number"
    raise typer.BadParameter(f"{name}: {text!r} is not {what}, nor {_NONE!r}")


def _limits_of(study: dict[str, Any]) -> str:
    budget = study["spec"]["budget"]
    words = {"trials": "{:g} trials", "gpu_hours": "{:g} GPU hours", "wall_hours": "{:g} hours"}
    limits = [text.format(budget[name]) for name, text in words.items() if budget.get(name) is not None]
    goals = [f"{metric} {value:g}" for metric, value in budget.get("target", {}).items()]
    failures = [f"{budget['max_failed']} failed trials"] if budget.get("max_failed") is not None else []
    return ", ".join([*limits, *goals, *failures])
