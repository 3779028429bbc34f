"""The fields of the form of a spec: what each shows of the text, and what it writes into it.

The text is the spec; a field is a view of one value in it. What has no field stays in the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel

from hpo.errors import SpecIssue
from hpo.spec.editing import NOTHING, Path, read_document, value_at, with_value
from hpo.spec.study import EarlyStopping
from hpo.spec.tasks import kind_of
from hpo.spec.tasks.video import METRICS
from hpo.trial import CUSTOM, IMAGE

Input = Literal["text", "number", "select", "switch", "checkboxes"]
PREFIX: Final = "f."
"""Of the names of the fields in the form."""
BEFORE: Final = "was."
"""Of the names of hidden fields that say what was shown: what differs from it was changed there, not in the text."""
STOPPING: Final[Mapping[str, str]] = {
    "none": "none: every trial runs to its end",
    "asha": "asha: the best share goes on at each rung",
    "hyperband": "hyperband: several such brackets",
    "curves": "curves: a model of the curves decides",
    "median": "median: worse than the median ends",
    "percentile": "percentile: outside the best share ends",
    "patient": "patient: no progress ends",
    "threshold": "threshold: outside of bounds ends",
}
OPTIMIZERS: Final[Mapping[str, str]] = {
    "ax": "ax: Bayesian optimization",
    "tpe": "tpe",
    "gp": "gp: Optuna's Gaussian process",
    "nsga2": "nsga2",
    "sobol": "sobol: evenly spread",
    "random": "random",
}
_DIRECTIONS: Final = {"": "as is natural for it", "maximize": "maximize", "minimize": "minimize"}
_RULES: Final[Mapping[str, type[BaseModel]]] = {
    get_args(rule.model_fields["name"].annotation)[0]: rule for rule in get_args(get_args(EarlyStopping)[0])
}
_RULE_WORDS: Final = {
    "min_epochs": "Not before epoch",
    "startup_trials": "Trials that complete first",
    "pause": "Pause instead of stopping",
    "reduction": "One in so many goes on",
    "percentile": "Best share that goes on, in %",
    "patience": "Epochs without progress",
    "probability": "Stop below this probability",
    "protect": "Share that counts as the best",
    "lower": "Lower bound",
    "upper": "Upper bound",
}
_OBJECTIVE: Final[Path] = ("objectives", 0)
_MODEL_BASE: Final[Path] = ("task", "base", "model")
_MODEL_SPACE: Final[Path] = ("space", "model")
_NUMBER: Final = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of the form, with what it shows."""

    name: str
    label: str
    path: Path
    kind: Input = "text"
    value: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of a choice: values and what is said of each; of a text: what is known."""
    issues: tuple[str, ...] = ()
    hint: str = ""

    @property
    def id(self) -> str:
        """Its id in the page."""
        return "field-" + re.sub(r"[^A-Za-z0-9]+", "-", self.name)

    @property
    def chosen(self) -> frozenset[str]:
        """Which of several boxes are ticked."""
        return frozenset(self.value.split()) if self.kind == "checkboxes" else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Fields that belong together."""

    title: str
    fields: tuple[Field, ...]


def groups_of(
    document: Mapping[str, Any],
    *,
    folders: Sequence[str] = (),
    models: Sequence[str] = (),
    with_model_choices: bool = False,
) -> tuple[Group, ...]:
    """Return the fields of a spec, with what each shows.

    Args:
        document: the spec as decoded, right or not.
        folders: data sets that other studies name.
        models: the names of the zoo.
        with_model_choices: show the models that are searched among the ranges, too, as text.
    """
    is_custom = kind_of(document.get("task")) == CUSTOM
    groups = [
        ("Study", _study(document)),
        *([] if is_custom else [("Data set and models", _video(document, folders, models))]),
        ("Length and budget", _budget(document)),
        ("Search", _search(document)),
        ("Ranges", _ranges(document, with_model_choices=with_model_choices)),
    ]
    return tuple(Group(title=title, fields=fields) for title, found in groups if (fields := tuple(found)))


def _at(document: Mapping[str, Any], path: Path) -> str:
    return _shown(value_at(document, path))


def _shown(value: object) -> str:
    if value is NOTHING or value is None:
        return ""
    if isinstance(value, str):
        return value
    return " ".join(yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").split())


def _study(document: Mapping[str, Any]) -> Iterator[Field]:
    yield _plain(document, "name", "Name", ("name",))
    yield _plain(document, "metric", "Objective", (*_OBJECTIVE, "metric"), options=_metrics(document))
    path = (*_OBJECTIVE, "direction")
    yield _plain(document, "direction", "Its direction", path, kind="select", options=_DIRECTIONS)


def _metrics(document: Mapping[str, Any]) -> dict[str, str]:
    if kind_of(document.get("task")) != CUSTOM:
        return {name: metric.meaning for name, metric in METRICS.items()}
    named = value_at(document, ("task", "metrics"))
    return {str(name): "" for name in named} if isinstance(named, Mapping) else {}


def _video(document: Mapping[str, Any], folders: Sequence[str], models: Sequence[str]) -> Iterator[Field]:
    of_images = kind_of(document.get("task")) == IMAGE
    yield _plain(
        document,
        "root",
        "Folder of the images" if of_images else "Folder of the videos",
        ("task", "dataset", "root"),
        options=dict.fromkeys(folders, ""),
        hint="as the workers see it, from the root on",
    )
    chosen = _models_of(document)
    yield Field(
        name="models",
        label="Models",
        path=_MODEL_SPACE if len(chosen) > 1 else _MODEL_BASE,
        kind="checkboxes",
        value=" ".join(chosen),
        options=dict.fromkeys([*chosen, *(name for name in models if name not in chosen)], ""),
        hint="several are searched",
    )
    label = "Images in a batch" if of_images else "Clips in a batch"
    yield _plain(document, "batch_size", label, ("task", "base", "batch_size"), kind="number")


def _models_of(document: Mapping[str, Any]) -> list[str]:
    choices = value_at(document, (*_MODEL_SPACE, "choices"))
    if isinstance(choices, list):
        return [str(name) for name in choices]
    one = value_at(document, _MODEL_BASE)
    return [one] if isinstance(one, str) else []


def _budget(document: Mapping[str, Any]) -> Iterator[Field]:
    yield _plain(document, "epochs", "Epochs of a trial", ("task", "epochs"), kind="number")
    yield _plain(document, "trials", "Trials", ("budget", "trials"), kind="number", hint="empty: no limit")
    yield _plain(document, "gpu_hours", "GPU hours", ("budget", "gpu_hours"), kind="number")
    yield _plain(document, "wall_hours", "Hours since the first trial", ("budget", "wall_hours"), kind="number")


def _search(document: Mapping[str, Any]) -> Iterator[Field]:
    yield _plain(
        document,
        "stopping",
        "Stop trials early",
        ("early_stopping", "name"),
        kind="select",
        options=STOPPING,
        value=_at(document, ("early_stopping", "name")) or "none",
    )
    yield from _options_of_rule(document)
    yield _plain(
        document,
        "optimizer",
        "Optimizer",
        ("optimizer", "name"),
        kind="select",
        options=OPTIMIZERS,
        value=_at(document, ("optimizer", "name")) or "ax",
    )
    yield _plain(document, "seed", "Seed of the search", ("optimizer", "seed"), kind="number", hint="empty: 0")
    yield _plain(
        document,
        "finalists",
        "Finalists",
        ("finalists", "top"),
        kind="number",
        hint="the best so many are trained again; empty: none",
    )
    yield _plain(document, "seeds", "Trainings of each finalist", ("finalists", "seeds"), kind="number")


def _options_of_rule(document: Mapping[str, Any]) -> Iterator[Field]:
    rule = _RULES.get(_at(document, ("early_stopping", "name")))
    for name, about in rule.model_fields.items() if rule is not None else ():
        if name == "name":
            continue
        is_switch = about.annotation is bool or isinstance(about.default, bool)
        default = _shown(about.default)
        yield _plain(
            document,
            f"early_stopping.{name}",
            _RULE_WORDS.get(name, name),
            ("early_stopping", name),
            kind="switch" if is_switch else "number",
            options={"": default, "true": "true", "false": "false"} if is_switch else None,
            hint="" if is_switch or not default else f"empty: {default}",
        )


def _ranges(document: Mapping[str, Any], *, with_model_choices: bool) -> Iterator[Field]:
    space = document.get("space")
    for key, parameter in space.items() if isinstance(space, Mapping) else ():
        if not isinstance(parameter, Mapping) or (key == "model" and not with_model_choices):
            continue
        ends = {"choices": "choices"} if "choices" in parameter else {"low": "from", "high": "to"}
        for end, word in ends.items():
            path: Path = ("space", str(key), end)
            name = f"space.{key}.{end}"
            if end == "choices":
                values = parameter["choices"] if isinstance(parameter["choices"], list) else [parameter["choices"]]
                shown = ", ".join(map(_shown, values))
                yield Field(name=name, label=f"{key}: {word}", path=path, value=shown, hint="with commas between them")
            else:
                yield _plain(document, name, f"{key}: {word}", path, kind="number")


def _plain(
    document: Mapping[str, Any],
    name: str,
    label: str,
    path: Path,
    *,
    kind: Input = "text",
    options: Mapping[str, str] | None = None,
    value: str | None = None,
    hint: str = "",
) -> Field:
    shown = _at(document, path) if value is None else value
    known = dict(options or {})
    if kind in ("select", "switch") and shown not in known:
        known[shown] = shown  # which the spec's own check will judge
    return Field(name=name, label=label, path=path, kind=kind, options=known, value=shown, hint=hint)


def changed(groups: Iterable[Group], form: Mapping[str, str]) -> dict[str, str]:
    """Return what a person has changed in the fields of a posted form since they were shown, by their names."""
    found = {}
    for one in (each for group in groups for each in group.fields):
        before = form.get(BEFORE + one.name)
        now = _ticked(one, form) if one.kind == "checkboxes" else form.get(PREFIX + one.name, "").strip()
        if before is not None and now != before:
            found[one.name] = now
    return found


def _ticked(one: Field, form: Mapping[str, str]) -> str:
    start = f"{PREFIX}{one.name}."
    names = [name.removeprefix(start) for name in form if name.startswith(start)]
    known = [name for name in one.value.split() if name in names]
    return " ".join([*known, *(name for name in names if name not in known)])


def written(text: str, groups: Iterable[Group], changes: Mapping[str, str]) -> str:
    """Return the text of a spec with what was changed in the fields.

    Raises:
        SpecError: the text cannot be read, or has something else where a value belongs.
    """
    fields = {one.name: one for group in groups for one in group.fields}
    for name, value in changes.items():
        if (one := fields.get(name)) is not None:
            text = _WRITERS.get(name, _with_plain)(text, one, value)
    return text


def _with_plain(text: str, one: Field, value: str) -> str:
    if not value:
        return with_value(text, one.path, NOTHING)
    if one.path[-1] == "choices":
        return with_value(text, one.path, [_scalar(part.strip()) for part in value.split(",") if part.strip()])
    return with_value(text, one.path, _scalar(value) if one.kind in ("number", "switch") else value)


def _scalar(text: str) -> object:
    """Return a number where text is one; else the text, which the spec's own check will judge."""
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _with_objective(text: str, one: Field, value: str) -> str:
    if value_at(read_document(text), _OBJECTIVE) is NOTHING:
        return with_value(text, _OBJECTIVE[:1], [{str(one.path[-1]): value}])
    return _with_plain(text, one, value)


def _with_models(text: str, one: Field, value: str) -> str:
    names = value.split()
    if len(names) > 1:
        text = with_value(text, _MODEL_BASE, NOTHING)
        if one.path == _MODEL_SPACE:
            return with_value(text, (*_MODEL_SPACE, "choices"), names)
        return with_value(text, _MODEL_SPACE, {"type": "categorical", "choices": names})
    text = with_value(text, _MODEL_SPACE, NOTHING)
    return with_value(text, _MODEL_BASE, names[0] if names else NOTHING)


def _with_rule(text: str, _: Field, value: str) -> str:
    # Options of one rule are none of another.
    return with_value(text, ("early_stopping",), NOTHING if value == "none" else {"name": value})


def _with_finalists(text: str, one: Field, value: str) -> str:
    return _with_plain(text, one, value) if value else with_value(text, ("finalists",), NOTHING)


_WRITERS: Final[Mapping[str, Callable[[str, Field, str], str]]] = {
    "metric": _with_objective,
    "direction": _with_objective,
    "models": _with_models,
    "stopping": _with_rule,
    "finalists": _with_finalists,
}


def said_beside(groups: Iterable[Group], issues: Iterable[SpecIssue]) -> tuple[tuple[Group, ...], list[SpecIssue]]:
    """Return the fields with what is wrong with each, and what is wrong elsewhere."""
    groups = tuple(groups)
    by_path = {_dotted(one.path): one.name for group in groups for one in group.fields}
    beside: dict[str, list[str]] = {}
    elsewhere = []
    for issue in issues:
        if (name := _field_of(issue.path, by_path)) is None:
            elsewhere.append(issue)
        else:
            beside.setdefault(name, []).append(issue.message)
    return tuple(
        Group(title=group.title, fields=tuple(_with_issues(one, beside.get(one.name, ())) for one in group.fields))
        for group in groups
    ), elsewhere


def _with_issues(one: Field, issues: Sequence[str]) -> Field:
    return replace(one, issues=tuple(issues)) if issues else one


def _dotted(path: Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _field_of(path: str, by_path: Mapping[str, str]) -> str | None:
    """Return the field of the value that an issue is about, or of the only one that shows a part of it."""
    if path in by_path:
        return by_path[path]
    parts = [name for known, name in by_path.items() if path and known.startswith((path + ".", path + "["))]
    inside = [name for known, name in by_path.items() if path.startswith((known + ".", known + "["))]
    return next(iter([*parts, *inside]), None)
