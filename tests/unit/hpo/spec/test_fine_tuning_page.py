"""docs/fine-tuning.md names the settings of fine-tuning and of the learning rate, with the defaults of a new study."""

from __future__ import annotations

import re
from typing import get_args

import yaml

from hpo.spec import TrainingConfig, VideoTask
from hpo.spec.recipes import list_recipes
from hpo.spec.tasks.video import Schedule
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
ELSEWHERE = {
    *("model", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "label_smoothing"),
    *("grad_clip_norm", "precise_bn", "precision", "seed", "weights", "validate_every", "keep_best_epoch"),
    "test_pooling",
}
"""Settings that other pages are about."""


def test_every_setting_is_on_the_page_with_its_default() -> None:
    defaults = {**TrainingConfig.all_defaults(), **VideoTask.recommended()}
    settings = {key for key in defaults if "." not in key} - ELSEWHERE
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))
    shown = {key: yaml.safe_load(rows[key]) for key in settings}
    assert shown == {key: defaults[key] for key in settings}


def test_every_schedule_is_explained() -> None:
    table = PAGE.partition("| schedule | after the warm-up |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(Schedule))


def test_every_recipe_is_in_the_table() -> None:
    table = PAGE.partition("| recipe | trains |")[2]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"\w+", row)) == list(list_recipes())
