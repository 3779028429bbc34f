"""What a spec may ask for: GPUs that share every batch alike."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.errors import HpoError
from hpo.spec import parse_spec

RAW: dict[str, Any] = {
    "name": "study",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data"}, "base": {"batch_size": 16}},
    "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.1}},
    "budget": {"trials": 3},
    "resources": {"gpus": 4},
}


def test_a_study_asks_for_gpus_or_has_one_device() -> None:
    assert parse_spec(RAW).gpus == 4
    assert parse_spec({key: value for key, value in RAW.items() if key != "resources"}).gpus == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"resources": {"nodes": 0}}, "resources.nodes"),
        ({"resources": {"gpus": 4, "nodes": 3}}, "task.base.batch_size: 16 clips cannot be shared by 12 GPUs alike"),
        ({"resources": {"gpus": 0}}, "resources.gpus"),
        ({"resources": {"gpus": 3}}, "task.base.batch_size: 16 clips cannot be shared by 3 GPUs alike"),
        (
            {"space": {"batch_size": {"type": "int", "low": 8, "high": 32}}},
            "space.batch_size: not all values can be shared by 4 GPUs alike; let low and step be multiples of 4",
        ),
        (
            {"space": {"batch_size": {"type": "ordinal", "choices": [8, 12, 18]}}},
            "space.batch_size.choices: 18 clips cannot be shared by 4 GPUs alike",
        ),
        (
            {"task": {"kind": "custom", "metrics": {"val_top1": "maximize"}}},
            "resources.gpus: a function of your own has the device of its worker",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HpoError) as refused:
        parse_spec({**RAW, **changes})
    assert sentence in str(refused.value)


def test_gpus_are_those_of_each_machine() -> None:
    spec = parse_spec({**RAW, "resources": {"gpus": 4, "nodes": 2}})
    assert (spec.gpus, spec.nodes, spec.ranks) == (4, 2, 8)


def test_multiples_in_a_space_are_fine() -> None:
    space = {"batch_size": {"type": "int", "low": 8, "high": 32, "step": 8}}
    assert parse_spec({**RAW, "space": space}).gpus == 4
