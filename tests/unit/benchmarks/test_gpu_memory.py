"""The benchmark of plans of memory, in its tiny form."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_memory
from data import ClipBatch
from workers.training import step as step_module
from workers.training.parallel import Gradients, Loss


def test_each_plan_has_a_line_of_json_and_the_gradients_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_memory.py", "r3d_18", "--device", "cpu", "--updates", "1"])
    with pytest.raises(SystemExit) as ended:
        gpu_memory.main()
    assert ended.value.code == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["micro_batch"], row["checkpointing"]) for row in rows] == [
        (4, False),
        (2, False),
        (4, True),
        (2, True),
    ]
    assert rows[0]["gradient_error"] == rows[2]["gradient_error"] == 0.0
    assert all(row["seconds"] > 0 and row["gradient_error"] < 1e-5 for row in rows)


def test_wrong_gradients_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    summed = step_module.accumulate

    def first_part_alone(
        loss_of: Loss, batch: ClipBatch, *, micro_batch: int, gradients: Gradients, scale: float
    ) -> tuple[Tensor, Tensor]:
        return summed(
            loss_of, next(batch.parts(micro_batch)), micro_batch=micro_batch, gradients=gradients, scale=scale
        )

    monkeypatch.setattr(step_module, "accumulate", first_part_alone)
    rows = list(gpu_memory.rows(["r3d_18"], device=torch.device("cpu"), updates=1))
    assert [row["right"] for row in rows] == [True, False, True, False]
