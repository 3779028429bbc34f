"""The kind of task `custom`: metrics named in the spec, settings of any name, and nothing that could name code."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.errors import SpecError
from hpo.spec import CustomTask, dump_spec, parse_spec, stored_spec

TASK: dict[str, Any] = {"kind": "custom", "metrics": {"accuracy": "maximize", "seconds": {"direction": "minimize"}}}
RAW: dict[str, Any] = {
    "name": "forest",
    "objectives": [{"metric": "accuracy"}],
    "constraints": ["seconds <= 3"],
    "task": {**TASK, "base": {"data": {"rows": 100}}},
    "space": {
        "width": {"type": "int", "low": 1, "high": 9},
        "kernel": {"type": "categorical", "choices": ["rbf", "linear"]},
        "kernel.gamma": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "when": {"kernel": ["rbf"]}},
    },
    "rules": ["width * 10 <= data.rows"],
    "budget": {"trials": 3, "target": {"seconds": 0.1}},
}


def _issues(**sections: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec({**RAW, **sections})
    return {issue.path: issue.message for issue in caught.value.issues}


def test_it_is_read_and_written() -> None:
    spec = parse_spec(RAW)
    assert isinstance(spec.task, CustomTask)
    assert spec.task.epochs == 1, "a function has no epochs unless the study says so"
    assert stored_spec(dump_spec(spec)) == parse_spec(dump_spec(spec)) == spec
    assert spec.trial_config({"width": 3, "kernel": "linear"}, number=2) == {
        "seed": 2 * 7919,
        "data.rows": 100,
        "width": 3,
        "kernel": "linear",
    }


def test_objectives_have_the_directions_of_its_metrics() -> None:
    spec = parse_spec({**RAW, "objectives": [{"metric": "accuracy"}, {"metric": "seconds"}]})
    assert [objective.direction for objective in spec.objectives] == ["maximize", "minimize"]


def test_type_is_taken_for_kind() -> None:
    written = {"type": "custom", **{key: value for key, value in RAW["task"].items() if key != "kind"}}
    assert parse_spec({**RAW, "task": written}) == parse_spec(RAW)


@pytest.mark.parametrize(
    ("section", "value", "path", "words"),
    [
        ("task", {"kind": "custom"}, "task.metrics", "required"),
        ("task", {**TASK, "metrics": {}}, "task.metrics", "at least 1"),
        ("task", {**TASK, "metrics": {"top 1": "maximize"}}, "task.metrics.top 1", "a word of letters, digits and _"),
        (
            "task",
            {**TASK, "metrics": {"accuracy": "up"}},
            "task.metrics.accuracy.direction",
            "'maximize' or 'minimize'",
        ),
        ("task", {**TASK, "entry": "os:system"}, "task.entry", "there is no field 'entry' here"),
        ("task", {**TASK, "base": {"sizes": [1, 2]}}, "task.base.sizes", "is not a value"),
        ("task", {**TASK, "base": {"seed": "x"}}, "task.base.seed", "a whole number from 0"),
        ("task", {"type": "costum"}, "task.kind", "'costum' is not known here; use one of: 'video', 'image', 'custom'"),
        ("checkpoints", {"best": True}, "checkpoints.best", "a function keeps what it reports"),
        ("objectives", [{"metric": "loss"}], "objectives[0].metric", "workers report: accuracy, seconds"),
        ("space", {"a b": RAW["space"]["width"]}, "space.a b", "cannot be the name of a setting"),
    ],
)
def test_mistakes_are_named(section: str, value: object, path: str, words: str) -> None:
    rules = [] if section == "space" else RAW["rules"]
    found = _issues(**{section: value, **({} if section == "rules" else {"rules": rules})})
    assert words in found[path]


def test_a_level_beyond_a_share_is_a_slip() -> None:
    shares = {**TASK["metrics"], "accuracy": {"direction": "maximize", "share": True}}
    found = _issues(task={**RAW["task"], "metrics": shares}, budget={"trials": 1, "target": {"accuracy": 90}})
    assert "is a share from 0 to 1" in found["budget.target.accuracy"]


def test_a_configuration_that_is_none_is_refused() -> None:
    task = parse_spec(RAW).task
    problems = dict(task.config_problems({"width": 3, "a b": 1, "layers": [1], "seed": -1}))
    assert sorted(problems) == ["a b", "layers", "seed"]
