"""`hpo study edit`, `reopen` and `clone`: changes of a study, and its spec for a new one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
    stopping: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="Rule for early stopping: its name, or YAML with options.", show_default=False
        ),
    ] = None,
    widen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH",
            help="A wider range of a parameter; NAME=A,B adds choices.",
            show_default=False,
        ),
    ] = None,
    rename: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.", show_default=False)] = None,
    note: Annotated[
        str | None, typer.Option(help="What you want to remember of it; '' removes the note.", show_default=False)
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Only if the study has this revision still.", show_default=False)
    ] = None,
) -> None:
    """Change budget, early stopping or space of a study that has not ended; name or note of any. `none` is no limit."""
    changes = _budget(trials, gpu_hours, wall_hours, max_failed, target)
    if stopping is not None:
        changes["early_stopping"] = _rule(stopping)
    with client_of(settings_of(context)) as client:
        if widen:
            changes["space"] = _wider(client.study(name)["spec"]["space"], widen)
        if not changes and note is None and rename is None:
            raise typer.BadParameter("say what changes, such as --trials 80, --widen lr=1e-5:0.5 or --note TEXT")
        if changes:
            changed = client.edit_study(name, revision=revision, **changes)
            out.print(f"study {name} is {state_of(changed)}; its budget: {_limits_of(changed)}")
            for key in changes.get("space", {}):
                out.print(f"{key}: {_range_of(changed['spec']['space'][key])}")
            if stopping is not None:
                out.print(f"early stopping: {changed['spec']['early_stopping']['name']}")
        if note is not None:
            kept = client.note_study(name, note)["note"]
            out.print(f"the note of study {name} is {'kept' if kept else 'removed'}")
        if rename is not None:
            out.print(f"study {name} is called {client.rename_study(name, rename)['name']} now")


def _rule(text: str) -> dict[str, Any]:
    """Return a stopping rule from its name, or from YAML."""
    import yaml

    try:
        rule = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"--stopping: {text!r} is no YAML") from error
    if isinstance(rule, dict):
        return rule
    return {"name": "none" if rule is None else str(rule)}


def _wider(space: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the fields of parameters that change."""
    import yaml

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        parameter = space.get(name)
        if not equals or not value:
            raise typer.BadParameter(f"--widen {text}: write NAME=LOW:HIGH, or NAME=A,B for more choices")
        if parameter is None:
            raise typer.BadParameter(f"--widen {name}: the study has no such parameter; it has {', '.join(space)}")
        if "choices" in parameter:
            added = [yaml.safe_load(choice) for choice in value.split(",")]
            choices = [*parameter["choices"], *(choice for choice in added if choice not in parameter["choices"])]
            found[name] = {"choices": sorted(choices) if parameter["type"] == "ordinal" else choices}
            continue
        low, colon, high = value.partition(":")
        kind = int if parameter["type"] == "int" else float
        if not colon:
            raise typer.BadParameter(f"--widen {text}: write NAME=LOW:HIGH; either may be left out")
        ends = {"low": low, "high": high}
        found[name] = {end: _number(number, f"{name}.{end}", kind) for end, number in ends.items() if number.strip()}
    return found


def _range_of(parameter: dict[str, Any]) -> str:
    if "choices" in parameter:
        return ", ".join(map(str, parameter["choices"]))
    return f"from {parameter['low']:g} to {parameter['high']:g}"


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


def _added(spec: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
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


def _limits_of(study: Mapping[str, Any]) -> str:
    budget = study["spec"]["budget"]
    words = {"trials": "{:g} trials", "gpu_hours": "{:g} GPU hours", "wall_hours": "{:g} hours"}
    limits = [text.format(budget[name]) for name, text in words.items() if budget.get(name) is not None]
    goals = [f"{metric} {value:g}" for metric, value in budget.get("target", {}).items()]
    failures = [f"{budget['max_failed']} failed trials"] if budget.get("max_failed") is not None else []
    return ", ".join([*limits, *goals, *failures])
