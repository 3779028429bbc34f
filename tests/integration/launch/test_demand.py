"""How many workers would find work, asked of a real service."""

from __future__ import annotations

from hpo.client import Client
from hpo.launch.demand import trials_left

from ..api.service import Service, spec
from ..workers.conftest import service

__all__ = ["service"]


def test_trials_that_are_left_are_counted_by_study_and_kind_with_the_token_of_a_worker(service: Service) -> None:
    custom = {"kind": "custom", "metrics": {"val_top1": "maximize"}, "epochs": 2}
    service.create(name="one", budget={"trials": 7})
    service.create(name="two", budget={"trials": 5})
    service.create(name="mine", task=custom, budget={"trials": 3})
    shared = spec()["task"] | {"base": {"batch_size": 8}}
    service.create(name="large", task=shared, resources={"gpus": 4}, budget={"trials": 9})
    with Client(service.url, service.tokens["worker"]) as client:
        assert trials_left(client, study=None, task_kinds=["video", "image"]) == 12
        assert trials_left(client, study="two", task_kinds=["video"]) == 5
        assert trials_left(client, study="mine", task_kinds=["custom"]) == 3
        assert trials_left(client, study="mine", task_kinds=["video"]) == 0
        assert [trials_left(client, study="large", task_kinds=["video"], gpus=gpus) for gpus in (2, 4)] == [0, 9]
