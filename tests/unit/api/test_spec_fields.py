"""The fields of the form of a spec offer what the spec knows."""

from __future__ import annotations

from typing import get_args

from api.pages.spec_fields import OPTIMIZERS, STOPPING
from hpo.spec.optimizer import OptimizerConfig
from hpo.spec.study import EarlyStopping


def test_every_rule_and_every_optimizer_can_be_chosen() -> None:
    rules = {get_args(rule.model_fields["name"].annotation)[0] for rule in get_args(get_args(EarlyStopping)[0])}
    assert STOPPING.keys() - {"none"} == rules - {"none"}
    assert OPTIMIZERS.keys() == set(get_args(OptimizerConfig.model_fields["name"].annotation))
