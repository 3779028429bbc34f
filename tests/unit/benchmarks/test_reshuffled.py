"""Searches with fixed and with reshuffled groups, on made-up trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.optimizer.trained.definitions import PEOPLE
from benchmarks.reshuffled import Drawn, by_answer, by_last_value, configurations, read, searches

TRUE = np.array([0.2, 0.8, 0.5])


def _drawn(of_draws: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Drawn:
    """Return trainings whose last values are the true ones plus `of_draws`, (configurations, draws)."""
    count = of_draws.shape[1]
    last = TRUE[:, None] + of_draws
    curves = last[:, :, None] * np.linspace(0.5, 1, PEOPLE.epochs)
    return Drawn(
        params=configurations(3),
        top1=curves,
        clips=np.full(count, 40),
        final=np.repeat(TRUE[:, None], count, axis=1),
    )


def test_without_noise_either_way_finds_the_best() -> None:
    for choose in (by_last_value, by_answer):
        found = searches(_drawn(np.zeros((3, 4))), choose, trials=3, count=5, seed=0)
        assert found[:, :, :2] == pytest.approx(0.8)


def test_what_is_common_to_a_draw_misleads_only_those_who_mix_draws() -> None:
    easier = np.repeat([[0.0, 0.4, 0.4, 0.0]], 3, axis=0)
    groups, persons, _ = searches(_drawn(easier), by_last_value, trials=3, count=200, seed=0).mean(axis=0).T
    assert persons[0] == pytest.approx(0.8)
    assert persons[1] < 0.79
    assert groups[0] > groups[1]


def test_what_suits_one_draw_misleads_those_who_stay_with_it() -> None:
    suits = np.zeros((3, 4))
    suits[2] = [0.7, 0.0, 0.0, 0.0]
    found = searches(_drawn(suits), by_last_value, trials=3, count=400, seed=0).mean(axis=0)
    assert found[0, 1] == pytest.approx(0.8 - 0.3 / 4, abs=0.02)
    assert found[0, 2] == pytest.approx((0.7 / 4), abs=0.05), "what is said of it is the value on its own draw"


def test_unfinished_draws_are_left_out_and_failures_are_guesses(tmp_path: Path) -> None:
    first, second = ({"lr": 0.1}, {"lr": 0.2})
    done = {"clips": 10, "final_clips": 20, "hits": [5] * PEOPLE.epochs, "final_hits": 8}
    failed = {"clips": 10, "final_clips": 20, "hits": [1], "failure": {"kind": "diverged"}}
    rows = [
        {"draw": 0, "params": first, **done},
        {"draw": 0, "params": second, **failed},
        {"draw": 1, "params": first, **done},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read(tmp_path / "rows.jsonl")
    assert found.top1[:, :, -1].tolist() == [[0.5], [0.2]]
    assert found.final.tolist() == [[0.4], [0.2]]
