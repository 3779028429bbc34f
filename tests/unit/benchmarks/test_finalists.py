"""The benchmark of finalists: both ways spend the same, and what is called a hit is one."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.optimizer.finalists import Demo, Study, Table, played
from benchmarks.optimizer.problems import TABLES_FOLDER, load_problem
from benchmarks.optimizer.study import spec_of
from hpo.spec.finalists import FinalistsConfig

RULES = FinalistsConfig(top=2, seeds=2, share=0.3)


@pytest.mark.parametrize("problem", ["demo_03", "people"])
def test_the_same_budget_is_spent_in_both_ways(problem: str) -> None:
    found = played(problem, 14, RULES, "sobol", TABLES_FOLDER, 3)
    trainings = {way: spent for way, (_, _, spent, _) in found.items()}
    assert trainings["observed"] == trainings["believed"] == 14
    # Four of fourteen trainings are the finalists', fewer if one of them is clear.
    assert 10 < trainings["finalists"] <= 14
    assert all(hit == (regret == 0) and regret >= 0 for hit, regret, _, _ in found.values())


def test_finalists_are_trained_again_with_other_noise_and_the_same_truth() -> None:
    spec = spec_of(load_problem("demo_00"), trials=8, objectives=[{"metric": "val_top1", "noise_sd": 0.05}])
    study = Study(Demo(0.05), spec, seed=1)
    study.search(8)
    study.finalists(RULES, 3)
    trained = study.records[8:]
    assert trained
    for record in trained:
        first = study.records[record.replicate_of or 0]
        assert record.params == first.params
        assert record.metrics != first.metrics


def test_a_table_gives_its_two_trainings_one_after_the_other() -> None:

    table = Table("people", TABLES_FOLDER)
    study = Study(table, spec_of(table.table.problem(), trials=1), seed=0)
    study.search(1)
    params = study.records[0].params
    first, second = (table.curve(params, again, np.random.default_rng(0)) for again in (0, 1))
    assert {tuple(first), tuple(second)} == {tuple(table.table.curve(params, seed)) for seed in (0, 1)}
