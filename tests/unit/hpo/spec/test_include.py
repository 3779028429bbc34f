"""`space.include`: recommended ranges joined with what the person wrote."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import models
from hpo.cli.spec_check import check_models, search_fragment
from hpo.errors import NotFoundError, SpecError
from hpo.spec import Fragment, StudySpec, dump_spec, parse_spec

LR = {"type": "float", "low": 1e-3, "high": 0.1, "log": True}
ZOO: dict[str, Fragment] = {
    "a": Fragment(
        base={},
        space={
            "lr": LR,
            "clip.frames": {"type": "ordinal", "choices": [8, 16, 32]},
            "model.alpha": {"type": "ordinal", "choices": [4, 8]},
            "model.gate": {"type": "categorical", "choices": ["mul", "none"], "when": {"model.alpha": [4]}},
        },
    ),
    "b": Fragment(
        base={},
        space={
            "lr": {**LR, "low": 1e-2, "high": 1.0},
            "clip.frames": {"type": "ordinal", "choices": [16, 24, 32]},
            "clip.size": {"type": "ordinal", "choices": [112, 160]},
            "model.alpha": {"type": "ordinal", "choices": [8]},
        },
    ),
    "c": Fragment(base={"optimizer": "adamw"}, space={"lr": {**LR, "low": 1e-5, "high": 2e-3}}),
    "d": Fragment(base={"optimizer": "adamw"}, space={"lr": {"type": "float", "low": 1e-5, "high": 2e-3}}),
}


def _zoo(name: str) -> Fragment:
    if name not in ZOO:
        raise NotFoundError(f"there is no model {name!r}")
    return ZOO[name]


def _parse(include: object, *, base: dict[str, Any] | None = None, **space: Any) -> StudySpec:
    raw = {
        "name": "s",
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/videos"}, "base": base or {}},
        "space": {"include": include, **space},
        "budget": {"trials": 1},
    }
    return parse_spec(raw, _zoo)


def _space(spec: StudySpec) -> dict[str, Any]:
    return {key: dump_spec(spec)["space"][key] for key in spec.space}


def test_one_model_is_fixed_and_its_ranges_are_searched() -> None:
    spec = _parse("a")
    assert spec.task.base == {"model": "a"}
    assert set(spec.space) == set(ZOO["a"].space)
    assert (spec.space["lr"].extremes, spec.space["model.alpha"].when) == ((1e-3, 0.1), {})
    assert _parse(["a"]) == spec == _parse(["a", "a"])


def test_the_resolved_spec_needs_no_zoo() -> None:
    spec = _parse(["a", "b"])
    assert parse_spec(dump_spec(spec)) == spec


def test_several_models_are_searched_among_each_with_its_own() -> None:
    spec = _parse(["a", "b"])
    space = _space(spec)
    assert "model" not in spec.task.base
    assert (space["model"]["type"], space["model"]["choices"]) == ("categorical", ["a", "b"])
    assert (space["lr"]["low"], space["lr"]["high"], space["lr"]["when"]) == (1e-2, 0.1, {})
    assert (space["clip.frames"]["choices"], space["clip.frames"]["when"]) == ([16, 32], {})
    assert space["clip.size"]["when"] == {"model": ["b"]}
    assert (space["model.alpha"]["choices"], space["model.alpha"]["when"]) == ([8], {})
    assert "model.gate" not in space, "no alpha is left under which it exists"


def test_an_option_of_one_model_keeps_its_own_condition_too() -> None:
    assert _space(_parse(["a", "c"], base={"optimizer": "sgd"}))["model.gate"]["when"] == {
        "model": ["a"],
        "model.alpha": [4],
    }


def test_what_the_person_wrote_wins() -> None:
    mine = {"type": "float", "low": 0.2, "high": 0.3}
    spec = _parse("a", base={"clip": {"frames": 24}, "model": {"alpha": 4}}, lr=mine)
    assert spec.task.base == {"model": "a", "clip.frames": 24, "model.alpha": 4}
    assert set(spec.space) == {"lr", "model.gate"}
    assert (spec.space["lr"].extremes, spec.space["model.gate"].when) == ((0.2, 0.3), {})
    assert set(_parse("a", base={"model.alpha": 8}).space) == {"lr", "clip.frames"}


def test_a_choice_of_models_may_hold_more_than_what_is_included() -> None:
    spec = _parse("a", model={"type": "categorical", "choices": ["a", "x"]})
    assert "model" not in spec.task.base
    assert spec.space["lr"].when == {}
    assert spec.space["model.alpha"].when == {"model": ["a"]}


def test_settings_that_the_ranges_assume_come_along_unless_the_person_has_said() -> None:
    assert _parse("c").task.base == {"model": "c", "optimizer": "adamw"}
    assert _parse("c", base={"optimizer": "sgd"}).task.base == {"model": "c", "optimizer": "sgd"}
    searched = _parse("c", optimizer={"type": "categorical", "choices": ["sgd", "adamw"]})
    assert searched.task.base == {"model": "c"}


@pytest.mark.parametrize(
    ("include", "base", "space", "path", "words"),
    [
        ("x", {}, {}, "space.include", "there is no model 'x'"),
        (["a", "x"], {}, {}, "space.include[1]", "there is no model 'x'"),
        ([], {}, {}, "space.include", "must be the name of a model, or a list of names, but it is []"),
        ({"type": "float"}, {}, {}, "space.include", "must be the name of a model"),
        (["a", 1], {}, {}, "space.include", "must be the name of a model"),
        (None, {}, {}, "space.include", "must be the name of a model"),
        ("a", {"model": "b"}, {}, "space.include", "task.base.model is b"),
        (["a", "b"], {"model": "b"}, {}, "space.include", "these are the ranges of a, b"),
        ("a", {}, {"model": {"type": "categorical", "choices": ["b"]}}, "space.include", "a is not among space.model"),
        (["a", "c"], {}, {}, "space.include", "a assumes sgd, c assumes adamw); set task.base.optimizer"),
        (["b", "c"], {"optimizer": "sgd"}, {}, "space.include", "the ranges of lr for b, c have nothing in common"),
        (["c", "d"], {}, {}, "space.include", "the ranges of lr for c, d have nothing in common; give space.lr"),
        ("a", {}, {"model": {"type": "categorical"}}, "space.model.choices", "required"),
        ("a", {"nothing": 1}, {}, "task.base.nothing", "there is no setting 'nothing'"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_path(
    include: object, base: dict[str, Any], space: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        _parse(include, base=base, **space)
    (issue,) = [issue for issue in caught.value.issues if issue.path == path]
    assert words in issue.message
    assert "\n" not in issue.message


def test_without_a_zoo_nothing_is_included() -> None:
    with pytest.raises(SpecError, match=r"^space\.include: models cannot be looked up here"):
        parse_spec({"name": "s", "space": {"include": "a"}})


def _wanted(include: str | list[str]) -> dict[str, Any]:
    return {
        "name": "s",
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/videos"}},
        "space": {"include": include},
        "budget": {"trials": 1},
    }


TRANSFORMERS = {"Hiera", "Hugging Face", "MViT", "MViT v2", "TimeSformer", "Video Swin", "VideoMAE"}


def _takes_a_clip(name: str) -> bool:
    return models.model_info(name).inputs == ("clip",)


@pytest.mark.parametrize("name", [name for name in models.list_models() if _takes_a_clip(name)])
def test_every_model_of_the_zoo_can_be_included_alone(name: str) -> None:
    spec = parse_spec(_wanted(name), search_fragment)
    assert not check_models(spec)
    assert set(spec.space) == set(models.search_space(name))
    lows = {key: parameter.extremes[0] for key, parameter in spec.space.items() if not parameter.when}
    attends = models.model_info(name).family in TRANSFORMERS
    assert spec.trial_config(lows, number=0)["optimizer"] == ("adamw" if attends else "sgd")


def test_any_two_families_of_one_optimizer_can_be_included_together() -> None:
    families = {models.model_info(name).family: name for name in filter(_takes_a_clip, models.list_models())}
    for pair in itertools.combinations(families.values(), 2):
        raw = _wanted(list(pair))
        raw["task"]["base"] = {"optimizer": "adamw"}
        spec = parse_spec(raw, search_fragment)
        assert not check_models(spec), pair
        for key, parameter in spec.space.items():
            owners = [name for name in pair if key in models.search_space(name)]
            assert key == "model" or parameter.when.get("model", list(pair)) == owners, (pair, key)
