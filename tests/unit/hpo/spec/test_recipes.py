"""`task.recipe`: settings of published trainings as defaults, written out into the spec."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from hpo.cli.spec_check import check_models, search_fragment
from hpo.errors import NotFoundError, SpecError
from hpo.spec import StudySpec, TrainingConfig, dump_spec, parse_spec
from hpo.spec.recipes import list_recipes, recipe
from models import model_info

LR = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}


def _parse(task: dict[str, Any], space: dict[str, Any] | None = None) -> StudySpec:
    raw = {
        "name": "s",
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/videos", "flow": "dis"}, **task},
        "space": space or {"seed": {"type": "int", "low": 0, "high": 9}},
        "budget": {"trials": 1},
    }
    return parse_spec(raw, search_fragment)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_the_base_of_a_valid_study(name: str) -> None:
    found = recipe(name)
    spec = _parse({"recipe": name})
    assert not check_models(spec)
    assert spec.task.epochs == found.epochs
    assert spec.task.base == dict(found.base)
    config = TrainingConfig.from_flat(spec.trial_config({"seed": 1}, number=0))
    assert config.model == found.base["model"]
    assert "github.com/" in found.source
    assert len(found.about) > 40


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_from_which_weights_it_starts_in_a_line_that_a_study_takes(name: str) -> None:
    lines = re.findall(r"`(base: \{weights: [^`]+\})`", recipe(name).about)
    assert bool(lines) != ("from random weights" in recipe(name).about)
    for line in lines:
        spec = _parse({"recipe": name, **yaml.safe_load(line)})
        assert not check_models(spec)
        assert any(key.startswith("weights") for key in spec.task.base)


@pytest.mark.parametrize("name", ["model", "clip", "augment", "weights", "weights.rgb"])
@pytest.mark.parametrize("space", [None, {"include": "slow_r50"}], ids=["own space", "included space"])
@pytest.mark.parametrize("task", [{}, {"recipe": "tsm_ucf101"}], ids=["no recipe", "recipe"])
def test_an_empty_section_of_the_base_is_named(name: str, task: dict[str, Any], space: dict[str, Any] | None) -> None:
    outer, _, inner = name.partition(".")
    base = {outer: {inner: {}, "flow": "a.pth"} if inner else {}}
    with pytest.raises(SpecError) as caught:
        _parse({**task, "base": base}, space)
    assert str(caught.value) == f"task.base: `{name}: {{}}` holds no settings: write some into it, or leave it out"


def test_a_setting_nested_and_flat_is_not_chosen_silently() -> None:
    with pytest.raises(SpecError, match=r"task\.base: clip\.frames is set twice, once nested and once with a dot"):
        _parse({"base": {"clip": {"frames": 8}, "clip.frames": 16}})


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_names_what_a_later_default_must_not_change(name: str) -> None:
    wanted = {"model", "lr", "batch_size", "momentum", "weight_decay", "schedule", "warmup_fraction", "dropout"}
    assert wanted | {"clip.frames", "clip.size", "grad_clip_norm"} <= set(recipe(name).base)


def test_the_steps_of_the_recipes_are_at_the_epochs_of_their_sources() -> None:
    def steps(name: str, run: float) -> list[float]:
        return [round(share * run, 6) for share in recipe(name).base["lr_milestones"]]

    assert steps("slowonly_ucf101", 40) == steps("slowfast_ucf101", 40) == [15, 30]
    assert steps("tsm_ucf101", 25) == [10, 20]
    assert steps("multiplier_two_stream", 100) == [50, 75]
    assert steps("inception_rgb", 500_000) == [200_000, 350_000]
    assert steps("inception_flow", 500_000) == [300_000, 425_000]
    slowfast = recipe("slowfast_kinetics")
    assert round(slowfast.base["warmup_fraction"] * slowfast.epochs, 1) == 34
    assert slowfast.base["warmup_start_share"] * slowfast.base["lr"] == pytest.approx(0.01)
    videomae = TrainingConfig.from_flat(recipe("videomae_ucf101").base)
    assert videomae.batch_size / videomae.augment.repeats == 128
    assert videomae.min_lr_share * videomae.lr * 128 / 256 == pytest.approx(1e-5)


def test_what_a_person_writes_wins() -> None:
    task = {"recipe": "slowfast_kinetics", "epochs": 7, "base": {"clip": {"size": 112}, "nesterov": False}}
    spec = _parse(task, {"lr": LR, "model.alpha": {"type": "ordinal", "choices": [4, 8]}})
    assert spec.task.epochs == 7
    base = dict(recipe("slowfast_kinetics").base)
    del base["lr"]
    assert spec.task.base == {**base, "clip.size": 112, "nesterov": False}


def test_trials_without_a_conditional_parameter_keep_the_setting_of_the_recipe() -> None:
    model = {"type": "categorical", "choices": ["tsm_resnet50", "slow_r50"]}
    spec = _parse({"recipe": "tsm_ucf101"}, {"model": model, "lr": {**LR, "when": {"model": ["slow_r50"]}}})
    assert spec.trial_config({"model": "tsm_resnet50"}, number=0)["lr"] == recipe("tsm_ucf101").base["lr"] == 1e-3
    assert spec.trial_config({"model": "slow_r50", "lr": 5e-3}, number=0)["lr"] == 5e-3


def test_the_written_spec_names_no_recipe_and_reads_the_same() -> None:
    spec = _parse({"recipe": "tsm_ucf101"})
    written = dump_spec(spec)
    assert "recipe" not in written["task"]
    assert parse_spec(written, search_fragment) == spec


def test_included_ranges_take_the_place_of_the_settings_of_a_recipe() -> None:
    spec = _parse({"recipe": "tsm_ucf101"}, {"include": "tsm_resnet50"})
    assert {"lr", "weight_decay", "dropout"} <= set(spec.space)
    assert not set(spec.task.base) & set(spec.space)
    assert spec.task.base["lr_milestones"] == [0.4, 0.8]


@pytest.mark.parametrize(
    ("base", "space"),
    [
        ({"model": "r3d_18"}, None),
        ({}, {"model": {"type": "categorical", "choices": ["r3d_18", "slowfast_r18"]}}),
    ],
)
def test_options_of_the_recipes_model_are_left_out_with_another_model(base: Any, space: Any) -> None:
    spec = _parse({"recipe": "slowfast_ucf101_scratch", "base": base}, space)
    assert not [key for key in spec.task.base if key.startswith("model.")]
    assert spec.task.base["weight_decay"] == 1e-5


def test_the_schema_of_a_spec_describes_the_recipe_of_its_task() -> None:
    task = StudySpec.model_json_schema()["$defs"]["VideoTask"]
    assert task["properties"]["recipe"]["type"] == "string"
    assert not task["additionalProperties"], "else any field would be valid"


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        _parse({"recipe": "slowfast_ucf"})
    (issue,) = caught.value.issues
    assert issue.path == "task.recipe"
    assert re.search(r"there is no recipe 'slowfast_ucf'; did you mean 'slowfast_ucf101'\?", issue.message)
    with pytest.raises(NotFoundError, match=r"known: .*videomae_ucf101"):
        recipe("zzzzz")


def test_recipes_for_flow_say_so() -> None:
    for name in list_recipes():
        base = recipe(name).base
        needs = base.get("clip.modality") == "flow" or len(model_info(base["model"]).inputs) > 1
        assert ("data set needs flow" in recipe(name).about) == needs
