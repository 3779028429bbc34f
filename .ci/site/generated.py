"""The pages of the site that are made from the code: commands, the HTTP API, Python, the models, the study spec."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import griffe
import typer
import typer.cli

import hpo.cli  # noqa: F401 - adds all commands to the root
from api.app import create_app
from api.config import ApiConfig
from hpo.cli.app import whole
from hpo.spec import StudySpec, TrainingConfig
from hpo.store.database import Database
from models import list_models, model_info
from workers.cli import app as worker_app

Schema = Mapping[str, Any]
PYTHON: Final[Mapping[str, tuple[str, ...]]] = {
    "Functions of your own": (
        "hpo.functions.tune.tune",
        "hpo.functions.trial.Trial",
        "hpo.functions.result.TuneResult",
        "hpo.functions.trial.TrialInterrupted",
    ),
    "Ask and tell": ("hpo.client.asking.Study", "hpo.client.asked_trial.AskedTrial"),
    "The client": ("hpo.client.http.Client", "hpo.client.http.AsyncClient"),
    "What the clients do": ("hpo.client.calls",),
    "Tables": ("hpo.client.frames",),
    "Errors": ("hpo.errors",),
}
"""What people import, by the title under which the page of Python shows it."""
MODULES: Final = frozenset({"hpo.client.calls", "hpo.client.frames", "hpo.errors"})
"""Those of them that are shown whole."""
BOUNDS: Final = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def commands() -> str:
    """Return the page of all commands with their options."""
    parts = ["# Commands\n\nWhat `hpo --help` and `hpo-worker --help` say, on one page.\n"]
    for name, command in (("hpo", whole()), ("hpo-worker", typer.main.get_command(worker_app))):
        context = typer.Context(command, info_name=name)
        parts.append(typer.cli.get_docs_for_click(obj=command, ctx=context, name=name))
    text = "\n".join(parts)
    # One title for the page: the headings that Typer writes go down by one level.
    head, _, rest = text.partition("\n")
    deeper = re.sub(r"^(#+ )", r"#\1", rest, flags=re.MULTILINE)
    return f"{head}\n{deeper}"


def models() -> str:
    """Return the page of the models, a table for each family."""
    families: dict[str, list[list[str]]] = defaultdict(list)
    for info in map(model_info, list_models()):
        families[info.family].append(
            [
                f"`{info.name}`",
                "" if info.parameters is None else f"{info.parameters / 1e6:.1f}",
                "" if info.gflops is None else f"{info.gflops:.1f}",
                f"{info.clip.frames} x {info.clip.stride} at {info.clip.size}",
                ", ".join(f"`model.{option.name}`" for option in info.hparams),
                info.paper,
            ]
        )
    head = ["model", "million parameters", "GFLOPs", "clip: frames x stride at pixels", "options", "paper"]
    parts = [
        f"# Models\n\nThe {len(list_models())} models of the zoo, as `hpo models` lists them. Parameters are counted "
        "at 400 classes, the cost is that of one forward pass of the clip.\n"
    ]
    parts += [f"## {family}\n\n{_table(head, rows)}" for family, rows in sorted(families.items())]
    return "\n".join(parts)


def study_spec() -> str:
    """Return the page of everything that a study spec may contain."""
    spec, training = StudySpec.model_json_schema(), TrainingConfig.model_json_schema()
    parts = [
        "# Study spec\n\nEvery field, with its bounds and its default. A spec is checked as a whole when a study is "
        "created, and each error names its field.\n"
    ]
    for title, schema in (("The spec", spec), ("Settings of a training: `task.base` and `space`", training)):
        parts.append(f"## {title}\n\n{_fields(schema, _documented(schema.get('title', '')))}")
        for name, part in schema["$defs"].items():
            if part.get("properties"):
                about = part.get("description", "").partition("\n\n")[0]
                parts.append(f"### {name}\n\n{_plain(about)}\n\n{_fields(part, _documented(name))}")
    return "\n".join(parts)


def python_api() -> str:
    """Return the page of what people's programs import; the site fills in signatures and docstrings."""
    parts = [
        "# Python\n\nWhat programs import: `hpo.tune` and `hpo.Trial` for [functions of your own](../own-function.md), "
        "`hpo.client` for [everything else](../python-client.md). Each operation below *What the clients do* is a "
        "method of `Client` and, to be awaited, of `AsyncClient`.\n"
    ]
    for title, names in PYTHON.items():
        # Of a module, the title is enough of a heading.
        untitled = (
            "    options: {show_root_heading: false, show_root_toc_entry: false}\n" if names[0] in MODULES else ""
        )
        parts += [f"## {title}\n", *(f"::: {name}\n{untitled}" for name in names)]
    return "\n".join(parts)


def http_api() -> str:
    """Return the page of the routes and the schemas of their bodies."""
    # The document describes the code; the database is never asked.
    document = create_app(Database("postgresql://localhost/none"), ApiConfig(key=bytes(16))).openapi()
    parts = [
        f"# HTTP API\n\n{document['info']['description']}\n\nA running service shows the same document at `/docs`, "
        "where calls can be tried, and as `/openapi.json`.\n"
    ]
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag[operation["tags"][0]].append(_operation(method, path, operation))
    parts += [f"## {tag.capitalize()}\n\n" + "\n".join(operations) for tag, operations in by_tag.items()]
    parts.append("## Schemas\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        fields = _fields(schema, _documented(name)) if schema.get("properties") else f"{_kind(schema)}\n"
        parts.append(f"### {name}\n\n{_plain(schema.get('description', ''))}\n\n{fields}")
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Schema) -> str:
    rows = [
        [f"`{parameter['name']}`", parameter["in"], _kind(parameter["schema"]), _cell(parameter.get("description", ""))]
        for parameter in operation.get("parameters", ())
    ]
    lines = [f"### {method.upper()} `{path}`\n", operation["description"], ""]
    if rows:
        lines += [_table(["parameter", "in", "type", ""], rows), ""]
    if "requestBody" in operation:
        lines.append(f"Body: {_bodies(operation['requestBody'])}.  ")
    answers = [
        f"{status} {bodies}" if (bodies := _bodies(answer)) else status
        for status, answer in operation["responses"].items()
        if status < "400"
    ]
    refusals = ", ".join(status for status in operation["responses"] if status >= "400")
    lines.append(f"Answers: {'; '.join(answers)}. Refusals: {refusals or 'none'}.\n")
    return "\n".join(lines)


def _bodies(part: Schema) -> str:
    schemas = [content["schema"] for content in part.get("content", {}).values() if content.get("schema")]
    return " or ".join(dict.fromkeys(_kind(schema) for schema in schemas))


def _fields(schema: Schema, documented: Mapping[str, str]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        [
            f"`{name}`",
            _kind(field),
            "required" if name in required else _default(field),
            _cell(documented.get(name) or field.get("description", "")),
        ]
        for name, field in schema["properties"].items()
    ]
    return _table(["field", "type", "default", ""], rows)


def _default(field: Schema) -> str:
    value = field.get("default")
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, int | float | str) else ""


def _kind(field: Schema) -> str:
    """Return a type with its bounds in words, such as "integer, ≥ 1, ≤ 99"."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"  # each schema has a heading on the page
    parts = next((field[word] for word in ("anyOf", "oneOf", "allOf") if word in field), None)
    if parts is not None:
        return " or ".join(_kind(part) for part in parts if part.get("type") != "null")
    values = [field["const"]] if "const" in field else field.get("enum")
    if values is not None:
        return ", ".join(f"`{value}`" for value in values)
    return _plain_kind(field)


def _plain_kind(field: Schema) -> str:
    kind = str(field.get("type", "any"))
    inner = {"array": field.get("items"), "object": field.get("additionalProperties")}.get(kind)
    word = {"array": "list", "object": "mapping"}.get(kind, kind)
    if isinstance(inner, Mapping) and inner:
        return f"{word} of {_kind(inner)}"
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field]
    return ", ".join([word, *bounds])


def _documented(name: str) -> dict[str, str]:
    """Return what the strings below the fields of a class say, by field, inherited ones included."""
    return dict(_docstrings().get(name, {}))


@cache
def _docstrings() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for package in ("hpo", "data", "api"):
        tree = griffe.load(package, submodules=True, allow_inspection=False)
        for one in _classes(tree):
            mine = {name: member.docstring.value for name, member in one.members.items() if member.docstring}
            found.setdefault(one.name, {}).update({**_inherited(one, found), **mine})
    return found


def _classes(module: griffe.Object | griffe.Alias) -> Iterator[griffe.Class]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Class):
            yield member
        elif member.is_module:
            yield from _classes(member)


def _inherited(one: griffe.Class, found: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {name: text for base in one.bases for name, text in found.get(str(base).rpartition(".")[2], {}).items()}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
