"""Settings of a training run that later releases added: unwritten where they change nothing, checked where they do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpo.spec import TrainingConfig, VideoTask, dump_spec, parse_spec, stored_spec
from hpo.spec.tasks.milestones import milestones

from .specs import VALID, with_change

OF_0_2_0 = {
    *("model", "dropout", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule"),
    *("warmup_fraction", "label_smoothing", "grad_clip_norm", "head_lr_multiplier", "bias_lr_multiplier", "precision"),
    "seed",
}
"""Its settings but those of clips and augmentation."""
NEEDED: dict[str, dict[str, Any]] = {"unfreeze_every": {"freeze": 2}}
"""What a study must set beside a setting, which would do nothing alone."""
CHANGED: list[tuple[str, Any]] = [
    ("freeze", 2),
    ("freeze", "backbone"),
    ("unfreeze_every", 3),
    ("batch_norm", "freeze_all_but_first"),
    ("layer_decay", 0.75),
    ("decay_tables", False),
    ("lr_scaling", "linear"),
    ("lr_batch_size", 256),
    ("lr_gamma", 0.5),
    ("lr_step", 0.25),
    ("lr_milestones", "0.1, 0.9"),
    ("warmup_start_share", 0.1),
    ("min_lr_share", 0.01),
    ("validate_every", 5),
    ("keep_best_epoch", True),
    ("test_pooling", "fully_convolutional"),
    ("dropout", "card"),
]


def test_what_0_2_0_wrote_is_written_again_and_nothing_more() -> None:
    written = TrainingConfig().to_flat()
    assert {key for key in written if "." not in key} == OF_0_2_0
    assert not [key for key in written if key.startswith(("augment.repeats", "augment.randaugment_i"))]
    assert "augment.randaugment_noise" not in written
    assert written["dropout"] == 0.5
    assert TrainingConfig.from_flat(written).to_flat() == written


@pytest.mark.parametrize(("name", "value"), CHANGED)
def test_what_is_changed_is_written(name: str, value: Any) -> None:
    written = TrainingConfig.from_flat({name: value}).to_flat()
    assert written[name] == value
    assert TrainingConfig.from_flat(written).to_flat() == written
    base = {**NEEDED.get(name, {}), name: value}
    assert parse_spec(with_change("task/base", base)).task.base == base


def test_a_stored_study_trains_with_the_dropout_of_its_release_and_a_new_one_with_the_cards() -> None:
    spec = parse_spec({**VALID, "task": {**VALID["task"], "base": {}}})
    params = {key: parameter.extremes[0] for key, parameter in spec.space.items() if not parameter.when}
    assert "dropout" not in params
    assert spec.trial_config(params, number=0)["dropout"] == 0.5
    assert spec.of_new_study().trial_config(params, number=0)["dropout"] == "card"
    assert set(VideoTask.recommended()) <= set(TrainingConfig.all_defaults())


def test_a_rule_about_a_number_keeps_it_a_number_in_a_new_study() -> None:
    smoothing = {"label_smoothing": {"type": "float", "low": 0.0, "high": 0.5}}
    task = {**VALID["task"], "base": {}}
    rules = ["dropout + label_smoothing <= 0.7", "if precise_bn then label_smoothing <= 0.4"]
    spec = parse_spec({**VALID, "task": task, "space": smoothing, "rules": rules}).of_new_study()
    assert spec.task.base == {"precise_bn": True, "decay_tables": False}
    assert stored_spec(dump_spec(spec)) == spec
    assert spec.allows({"label_smoothing": 0.1})
    assert not spec.allows({"label_smoothing": 0.3})


@pytest.mark.parametrize("written", ["0.5,0.75", " 0.5 , 0.75 ", [0.5, 0.75]])
def test_milestones_are_kept_in_one_form(written: Any) -> None:
    found = TrainingConfig.from_flat({"lr_milestones": written}).lr_milestones
    assert found == "0.5, 0.75"
    assert milestones(found) == (0.5, 0.75)


@pytest.mark.parametrize("written", ["0.75, 0.5", "0.5, 0.5", "0, 0.5", "0.5, 1", "half", "", "nan", [True], 0.5, None])
def test_what_are_no_milestones_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.from_flat({"lr_milestones": written})


@pytest.mark.parametrize("written", [0, -1, True, "all", 1.5, None])
def test_only_parts_of_a_model_can_be_frozen(written: Any) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.from_flat({"freeze": written})
